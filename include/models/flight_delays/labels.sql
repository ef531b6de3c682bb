-- 1: the flight arrived more than 15 minutes late, or never. An outcome that landed twice counts once.
SELECT
  flight_id,
  partition_date,
  MAX(CASE WHEN arrival_delay IS NULL OR arrival_delay > 15 THEN 1 ELSE 0 END) AS label
FROM {{ table("flight_outcomes") }}
WHERE partition_date BETWEEN :first_partition AND :last_partition
GROUP BY flight_id, partition_date
