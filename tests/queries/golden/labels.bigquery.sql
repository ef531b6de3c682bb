-- binds first_partition, last_partition
SELECT
  `flight_id`,
  `partition_date`,
  CAST(`label` AS INT64) AS `label`
FROM (
  SELECT
    `flight_id`,
    `partition_date`,
    MAX(CASE WHEN `arrival_delay` IS NULL OR `arrival_delay` > 15 THEN 1 ELSE 0 END) AS `label`
  FROM `my-project.source.flight_outcomes` AS `flight_outcomes`
  WHERE
    `partition_date` BETWEEN @first_partition AND @last_partition
  GROUP BY
    `flight_id`,
    `partition_date`
) AS `authored`
WHERE
  NOT `label` IS NULL
  AND `partition_date` BETWEEN @first_partition AND @last_partition
