-- What turned out to be true: 1 or 0 for every entity whose outcome is known. An outcome that landed twice counts once.
SELECT
    outcome.entity_id,
    outcome.partition_date,
    MAX(CASE WHEN outcome.happened THEN 1 ELSE 0 END) AS label
FROM {{ '{{ table("' ~ name ~ '_outcomes") }}' }} AS outcome
WHERE outcome.partition_date BETWEEN :first_partition AND :last_partition
GROUP BY outcome.entity_id, outcome.partition_date
