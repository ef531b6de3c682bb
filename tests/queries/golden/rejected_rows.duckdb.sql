-- binds first_partition, last_partition
SELECT
  "partition_date",
  "flight_id",
  "carrier",
  "flight_number",
  "tailnum",
  "origin",
  "dest",
  "distance",
  "scheduled_departure",
  "scheduled_departure_minute",
  "scheduled_arrival_minute",
  "reason"
FROM (
  SELECT
    "partition_date",
    "flight_id",
    "carrier",
    "flight_number",
    "tailnum",
    "origin",
    "dest",
    "distance",
    "scheduled_departure",
    "scheduled_departure_minute",
    "scheduled_arrival_minute",
    NULLIF(
      ARRAY_TO_STRING(
        [
          CASE WHEN NOT "scheduled_departure" IS NULL THEN NULL ELSE 'departure_is_known' END,
          CASE
            WHEN "scheduled_departure_minute" BETWEEN 0 AND 1439
            THEN NULL
            ELSE 'departure_minute_is_possible'
          END,
          CASE WHEN "origin" IN ('EWR', 'JFK', 'LGA') THEN NULL ELSE 'origin_is_ours' END,
          CASE
            WHEN "distance" > 0 AND "distance" < 20000
            THEN NULL
            ELSE 'distance_is_possible'
          END,
          CASE
            WHEN "flight_number" BETWEEN 1 AND 9999
            THEN NULL
            ELSE 'flight_number_is_possible'
          END,
          CASE WHEN NOT "flight_id" IS NULL THEN NULL ELSE 'key_is_known' END
        ],
        ','
      ),
      ''
    ) AS "reason"
  FROM read_parquet('/lake/source/flights/**/*.parquet', hive_partitioning = true) AS "flights"
  WHERE
    "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
) AS "judged"
WHERE
  NOT "reason" IS NULL
