-- One row per entity of the partitions, with what is known at the moment of prediction and nothing later.
SELECT
    entity.entity_id,
    entity.partition_date,
    entity.amount,
    entity.segment
FROM {{ '{{ table("' ~ name ~ '_entities") }}' }} AS entity
WHERE entity.partition_date BETWEEN :first_partition AND :last_partition
