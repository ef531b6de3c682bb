-- binds first_partition, last_partition
SELECT
  "flight_id",
  "partition_date",
  CAST("label" AS INT) AS "label"
FROM (
  SELECT
    "flight_id",
    "partition_date",
    MAX(CASE WHEN "arrival_delay" IS NULL OR "arrival_delay" > 15 THEN 1 ELSE 0 END) AS "label"
  FROM read_parquet('/lake/source/flight_outcomes/**/*.parquet', hive_partitioning = true) AS "flight_outcomes"
  WHERE
    "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
  GROUP BY
    "flight_id",
    "partition_date"
) AS "authored"
WHERE
  NOT "label" IS NULL
  AND "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
