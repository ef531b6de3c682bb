-- binds first_partition, last_partition
SELECT
  "partition_date",
  "_version" AS "model_version",
  CASE
    WHEN GROUPING("_slice_0") = 0
    THEN 'carrier'
    WHEN GROUPING("_slice_1") = 0
    THEN 'origin'
    ELSE ''
  END AS "slice",
  CASE
    WHEN GROUPING("_slice_0") = 0
    THEN "_slice_0"
    WHEN GROUPING("_slice_1") = 0
    THEN "_slice_1"
  END AS "value",
  COUNT(*) AS "rows",
  COUNT("_label") AS "labelled",
  SUM("_label") AS "label_sum",
  SUM("_score") AS "score_sum",
  SUM("_loss") AS "loss_sum",
  SUM("_loss" * "_loss") AS "loss_squares",
  SUM("_expected") AS "expected_sum",
  SUM("_variance") AS "variance_sum",
  COUNT_IF("_bin" = 0) AS "b0",
  COUNT_IF("_bin" = 0 AND "_label" = 1) AS "p0",
  COUNT_IF("_bin" = 1) AS "b1",
  COUNT_IF("_bin" = 1 AND "_label" = 1) AS "p1",
  COUNT_IF("_bin" = 2) AS "b2",
  COUNT_IF("_bin" = 2 AND "_label" = 1) AS "p2",
  COUNT_IF("_bin" = 3) AS "b3",
  COUNT_IF("_bin" = 3 AND "_label" = 1) AS "p3",
  COUNT_IF("_bin" = 4) AS "b4",
  COUNT_IF("_bin" = 4 AND "_label" = 1) AS "p4",
  COUNT_IF("_bin" = 5) AS "b5",
  COUNT_IF("_bin" = 5 AND "_label" = 1) AS "p5",
  COUNT_IF("_bin" = 6) AS "b6",
  COUNT_IF("_bin" = 6 AND "_label" = 1) AS "p6",
  COUNT_IF("_bin" = 7) AS "b7",
  COUNT_IF("_bin" = 7 AND "_label" = 1) AS "p7",
  COUNT_IF("_bin" = 8) AS "b8",
  COUNT_IF("_bin" = 8 AND "_label" = 1) AS "p8",
  COUNT_IF("_bin" = 9) AS "b9",
  COUNT_IF("_bin" = 9 AND "_label" = 1) AS "p9",
  COUNT_IF("_bin" = 10) AS "b10",
  COUNT_IF("_bin" = 10 AND "_label" = 1) AS "p10",
  COUNT_IF("_bin" = 11) AS "b11",
  COUNT_IF("_bin" = 11 AND "_label" = 1) AS "p11",
  COUNT_IF("_bin" = 12) AS "b12",
  COUNT_IF("_bin" = 12 AND "_label" = 1) AS "p12",
  COUNT_IF("_bin" = 13) AS "b13",
  COUNT_IF("_bin" = 13 AND "_label" = 1) AS "p13",
  COUNT_IF("_bin" = 14) AS "b14",
  COUNT_IF("_bin" = 14 AND "_label" = 1) AS "p14",
  COUNT_IF("_bin" = 15) AS "b15",
  COUNT_IF("_bin" = 15 AND "_label" = 1) AS "p15",
  COUNT_IF("_bin" = 16) AS "b16",
  COUNT_IF("_bin" = 16 AND "_label" = 1) AS "p16",
  COUNT_IF("_bin" = 17) AS "b17",
  COUNT_IF("_bin" = 17 AND "_label" = 1) AS "p17",
  COUNT_IF("_bin" = 18) AS "b18",
  COUNT_IF("_bin" = 18 AND "_label" = 1) AS "p18",
  COUNT_IF("_bin" = 19) AS "b19",
  COUNT_IF("_bin" = 19 AND "_label" = 1) AS "p19",
  COUNT_IF("_bin" = 20) AS "b20",
  COUNT_IF("_bin" = 20 AND "_label" = 1) AS "p20",
  COUNT_IF("_bin" = 21) AS "b21",
  COUNT_IF("_bin" = 21 AND "_label" = 1) AS "p21",
  COUNT_IF("_bin" = 22) AS "b22",
  COUNT_IF("_bin" = 22 AND "_label" = 1) AS "p22",
  COUNT_IF("_bin" = 23) AS "b23",
  COUNT_IF("_bin" = 23 AND "_label" = 1) AS "p23",
  COUNT_IF("_bin" = 24) AS "b24",
  COUNT_IF("_bin" = 24 AND "_label" = 1) AS "p24",
  COUNT_IF("_bin" = 25) AS "b25",
  COUNT_IF("_bin" = 25 AND "_label" = 1) AS "p25",
  COUNT_IF("_bin" = 26) AS "b26",
  COUNT_IF("_bin" = 26 AND "_label" = 1) AS "p26",
  COUNT_IF("_bin" = 27) AS "b27",
  COUNT_IF("_bin" = 27 AND "_label" = 1) AS "p27",
  COUNT_IF("_bin" = 28) AS "b28",
  COUNT_IF("_bin" = 28 AND "_label" = 1) AS "p28",
  COUNT_IF("_bin" = 29) AS "b29",
  COUNT_IF("_bin" = 29 AND "_label" = 1) AS "p29",
  COUNT_IF("_bin" = 30) AS "b30",
  COUNT_IF("_bin" = 30 AND "_label" = 1) AS "p30",
  COUNT_IF("_bin" = 31) AS "b31",
  COUNT_IF("_bin" = 31 AND "_label" = 1) AS "p31",
  COUNT_IF("_bin" = 32) AS "b32",
  COUNT_IF("_bin" = 32 AND "_label" = 1) AS "p32",
  COUNT_IF("_bin" = 33) AS "b33",
  COUNT_IF("_bin" = 33 AND "_label" = 1) AS "p33",
  COUNT_IF("_bin" = 34) AS "b34",
  COUNT_IF("_bin" = 34 AND "_label" = 1) AS "p34",
  COUNT_IF("_bin" = 35) AS "b35",
  COUNT_IF("_bin" = 35 AND "_label" = 1) AS "p35",
  COUNT_IF("_bin" = 36) AS "b36",
  COUNT_IF("_bin" = 36 AND "_label" = 1) AS "p36",
  COUNT_IF("_bin" = 37) AS "b37",
  COUNT_IF("_bin" = 37 AND "_label" = 1) AS "p37",
  COUNT_IF("_bin" = 38) AS "b38",
  COUNT_IF("_bin" = 38 AND "_label" = 1) AS "p38",
  COUNT_IF("_bin" = 39) AS "b39",
  COUNT_IF("_bin" = 39 AND "_label" = 1) AS "p39"
FROM (
  SELECT
    *,
    -(
      "_label" * "_ln_p" + (
        1 - "_label"
      ) * "_ln_q"
    ) AS "_loss",
    -(
      "_p" * "_ln_p" + (
        1 - "_p"
      ) * "_ln_q"
    ) AS "_expected",
    "_p" * (
      1 - "_p"
    ) * (
      "_ln_p" - "_ln_q"
    ) * (
      "_ln_p" - "_ln_q"
    ) AS "_variance",
    CASE
      WHEN NOT "_score" IS NULL
      THEN LEAST(CAST(FLOOR("_score" * 40) AS INT), 39)
    END AS "_bin"
  FROM (
    SELECT
      *,
      LN("_p") AS "_ln_p",
      LN(1 - "_p") AS "_ln_q"
    FROM (
      SELECT
        "_accepted"."partition_date",
        "_predicted"."model_version" AS "_version",
        "_accepted"."carrier" AS "_slice_0",
        "_accepted"."origin" AS "_slice_1",
        CAST("_known"."label" AS DOUBLE) AS "_label",
        CASE
          WHEN NOT "_known"."label" IS NULL
          THEN LEAST(GREATEST("_predicted"."score", 1e-15), 1 - 1e-15)
        END AS "_p",
        CASE WHEN NOT "_known"."label" IS NULL THEN "_predicted"."score" END AS "_score"
      FROM (
        SELECT
          "flight_id",
          "partition_date",
          "departure_hour",
          "weekday",
          "distance",
          "scheduled_minutes",
          "departures_this_hour",
          "route_plane_age",
          "route_seats",
          "temperature",
          "dew_point",
          "humidity",
          "wind_speed",
          "wind_gust",
          "precipitation",
          "pressure",
          "visibility",
          "carrier",
          "origin",
          "dest"
        FROM (
          SELECT
            "flight_id",
            "partition_date",
            "departure_hour",
            "weekday",
            "distance",
            "scheduled_minutes",
            "departures_this_hour",
            "route_plane_age",
            "route_seats",
            "temperature",
            "dew_point",
            "humidity",
            "wind_speed",
            "wind_gust",
            "precipitation",
            "pressure",
            "visibility",
            "carrier",
            "origin",
            "dest",
            'not_finite: ' || NULLIF(
              ARRAY_TO_STRING(
                [
                  CASE
                    WHEN NOT ABS("departure_hour") <= 3.4028234663852886e38
                    THEN 'departure_hour'
                  END,
                  CASE WHEN NOT ABS("weekday") <= 3.4028234663852886e38 THEN 'weekday' END,
                  CASE WHEN NOT ABS("distance") <= 3.4028234663852886e38 THEN 'distance' END,
                  CASE
                    WHEN NOT ABS("scheduled_minutes") <= 3.4028234663852886e38
                    THEN 'scheduled_minutes'
                  END,
                  CASE
                    WHEN NOT ABS("departures_this_hour") <= 3.4028234663852886e38
                    THEN 'departures_this_hour'
                  END,
                  CASE
                    WHEN NOT ABS("route_plane_age") <= 3.4028234663852886e38
                    THEN 'route_plane_age'
                  END,
                  CASE WHEN NOT ABS("route_seats") <= 3.4028234663852886e38 THEN 'route_seats' END,
                  CASE WHEN NOT ABS("temperature") <= 3.4028234663852886e38 THEN 'temperature' END,
                  CASE WHEN NOT ABS("dew_point") <= 3.4028234663852886e38 THEN 'dew_point' END,
                  CASE WHEN NOT ABS("humidity") <= 3.4028234663852886e38 THEN 'humidity' END,
                  CASE WHEN NOT ABS("wind_speed") <= 3.4028234663852886e38 THEN 'wind_speed' END,
                  CASE WHEN NOT ABS("wind_gust") <= 3.4028234663852886e38 THEN 'wind_gust' END,
                  CASE
                    WHEN NOT ABS("precipitation") <= 3.4028234663852886e38
                    THEN 'precipitation'
                  END,
                  CASE WHEN NOT ABS("pressure") <= 3.4028234663852886e38 THEN 'pressure' END,
                  CASE WHEN NOT ABS("visibility") <= 3.4028234663852886e38 THEN 'visibility' END
                ],
                ','
              ),
              ''
            ) AS "quarantine_reason"
          FROM (
            SELECT
              "flight_id",
              "partition_date",
              CAST("departure_hour" AS DOUBLE) AS "departure_hour",
              CAST("weekday" AS DOUBLE) AS "weekday",
              CAST("distance" AS DOUBLE) AS "distance",
              CAST("scheduled_minutes" AS DOUBLE) AS "scheduled_minutes",
              CAST("departures_this_hour" AS DOUBLE) AS "departures_this_hour",
              CAST("route_plane_age" AS DOUBLE) AS "route_plane_age",
              CAST("route_seats" AS DOUBLE) AS "route_seats",
              CAST("temperature" AS DOUBLE) AS "temperature",
              CAST("dew_point" AS DOUBLE) AS "dew_point",
              CAST("humidity" AS DOUBLE) AS "humidity",
              CAST("wind_speed" AS DOUBLE) AS "wind_speed",
              CAST("wind_gust" AS DOUBLE) AS "wind_gust",
              CAST("precipitation" AS DOUBLE) AS "precipitation",
              CAST("pressure" AS DOUBLE) AS "pressure",
              CAST("visibility" AS DOUBLE) AS "visibility",
              CAST("carrier" AS TEXT) AS "carrier",
              CAST("origin" AS TEXT) AS "origin",
              CAST("dest" AS TEXT) AS "dest"
            FROM (
              WITH "observations" AS (
                SELECT
                  "origin",
                  "observed_hour",
                  MAX("temperature") AS "temperature",
                  MAX("dew_point") AS "dew_point",
                  MAX("humidity") AS "humidity",
                  MAX("wind_speed") AS "wind_speed",
                  MAX("wind_gust") AS "wind_gust",
                  MAX("precipitation") AS "precipitation",
                  MAX("pressure") AS "pressure",
                  MAX("visibility") AS "visibility"
                FROM read_parquet('/lake/source/weather/**/*.parquet', hive_partitioning = true) AS "weather"
                WHERE
                  "partition_date" BETWEEN CAST(CAST($first_partition AS DATE) - INTERVAL '1' DAY AS DATE) AND CAST($last_partition AS DATE)
                GROUP BY
                  "origin",
                  "observed_hour"
              ), "fleet" AS (
                SELECT
                  "tailnum",
                  MAX("built_year") AS "built_year",
                  MAX("seats") AS "seats"
                FROM read_parquet('/lake/source/planes/**/*.parquet', hive_partitioning = true) AS "planes"
                GROUP BY
                  "tailnum"
              ), "past_planes" AS (
                SELECT
                  "flights"."partition_date",
                  "flights"."carrier",
                  "flights"."origin",
                  "flights"."dest",
                  SUM("fleet"."built_year") AS "built_years",
                  COUNT("fleet"."built_year") AS "planes_of_known_year",
                  SUM("fleet"."seats") AS "seats",
                  COUNT("fleet"."seats") AS "planes_of_known_seats"
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
                    "scheduled_arrival_minute"
                  FROM read_parquet('/lake/source/flights/**/*.parquet', hive_partitioning = true) AS "flights"
                  WHERE
                    (
                      NOT "scheduled_departure" IS NULL
                    )
                    AND (
                      "scheduled_departure_minute" BETWEEN 0 AND 1439
                    )
                    AND (
                      "origin" IN ('EWR', 'JFK', 'LGA')
                    )
                    AND (
                      "distance" > 0 AND "distance" < 20000
                    )
                    AND (
                      "flight_number" BETWEEN 1 AND 9999
                    )
                    AND (
                      NOT "flight_id" IS NULL
                    )
                ) AS "flights"
                INNER JOIN "fleet"
                  ON "fleet"."tailnum" = "flights"."tailnum"
                WHERE
                  "flights"."partition_date" BETWEEN CAST(CAST($first_partition AS DATE) - INTERVAL '28' DAY AS DATE) AND CAST(CAST($last_partition AS DATE) - INTERVAL '1' DAY AS DATE)
                GROUP BY
                  "flights"."partition_date",
                  "flights"."carrier",
                  "flights"."origin",
                  "flights"."dest"
              ), "days" AS (
                SELECT DISTINCT
                  "partition_date"
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
                    "scheduled_arrival_minute"
                  FROM read_parquet('/lake/source/flights/**/*.parquet', hive_partitioning = true) AS "flights"
                  WHERE
                    (
                      NOT "scheduled_departure" IS NULL
                    )
                    AND (
                      "scheduled_departure_minute" BETWEEN 0 AND 1439
                    )
                    AND (
                      "origin" IN ('EWR', 'JFK', 'LGA')
                    )
                    AND (
                      "distance" > 0 AND "distance" < 20000
                    )
                    AND (
                      "flight_number" BETWEEN 1 AND 9999
                    )
                    AND (
                      NOT "flight_id" IS NULL
                    )
                ) AS "flights"
                WHERE
                  "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
              ), "routes" AS (
                SELECT
                  "days"."partition_date",
                  "past_planes"."carrier",
                  "past_planes"."origin",
                  "past_planes"."dest",
                  SUM("past_planes"."built_years") / SUM("past_planes"."planes_of_known_year") AS "built_year",
                  SUM("past_planes"."seats") / SUM("past_planes"."planes_of_known_seats") AS "seats"
                FROM "days"
                INNER JOIN "past_planes"
                  ON "past_planes"."partition_date" BETWEEN CAST("days"."partition_date" - INTERVAL '28' DAY AS DATE) AND CAST("days"."partition_date" - INTERVAL '1' DAY AS DATE)
                GROUP BY
                  "days"."partition_date",
                  "past_planes"."carrier",
                  "past_planes"."origin",
                  "past_planes"."dest"
              )
              SELECT
                "flights"."flight_id",
                "flights"."partition_date",
                FLOOR("flights"."scheduled_departure_minute" / 60) AS "departure_hour",
                DATE_DIFF('DAY', CAST('1970-01-05' AS DATE), "flights"."partition_date") % 7 AS "weekday",
                "flights"."distance",
                (
                  "flights"."scheduled_arrival_minute" - "flights"."scheduled_departure_minute" + 1440
                ) % 1440 AS "scheduled_minutes",
                COUNT(*) OVER (
                  PARTITION BY "flights"."partition_date", "flights"."origin", DATE_TRUNC('HOUR', "flights"."scheduled_departure")
                ) AS "departures_this_hour",
                EXTRACT(YEAR FROM "flights"."partition_date") - "routes"."built_year" AS "route_plane_age",
                "routes"."seats" AS "route_seats",
                "observations"."temperature",
                "observations"."dew_point",
                "observations"."humidity",
                "observations"."wind_speed",
                "observations"."wind_gust",
                "observations"."precipitation",
                "observations"."pressure",
                "observations"."visibility",
                "flights"."carrier",
                "flights"."origin",
                "flights"."dest"
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
                  "scheduled_arrival_minute"
                FROM read_parquet('/lake/source/flights/**/*.parquet', hive_partitioning = true) AS "flights"
                WHERE
                  (
                    NOT "scheduled_departure" IS NULL
                  )
                  AND (
                    "scheduled_departure_minute" BETWEEN 0 AND 1439
                  )
                  AND (
                    "origin" IN ('EWR', 'JFK', 'LGA')
                  )
                  AND (
                    "distance" > 0 AND "distance" < 20000
                  )
                  AND (
                    "flight_number" BETWEEN 1 AND 9999
                  )
                  AND (
                    NOT "flight_id" IS NULL
                  )
              ) AS "flights"
              LEFT JOIN "routes"
                ON "routes"."partition_date" = "flights"."partition_date"
                AND "routes"."carrier" = "flights"."carrier"
                AND "routes"."origin" = "flights"."origin"
                AND "routes"."dest" = "flights"."dest"
              LEFT JOIN "observations"
                ON "observations"."origin" = "flights"."origin"
                AND "observations"."observed_hour" = DATE_TRUNC('HOUR', "flights"."scheduled_departure") - INTERVAL '1' HOUR
              WHERE
                "flights"."partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
            ) AS "authored"
            WHERE
              "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
          ) AS "typed"
        ) AS "judged"
        WHERE
          "quarantine_reason" IS NULL
      ) AS "_accepted"
      INNER JOIN (
        SELECT
          "flight_id",
          "partition_date",
          CAST("score" AS DOUBLE) AS "score",
          "model_version"
        FROM read_parquet('/lake/predictions/**/*.parquet', hive_partitioning = true) AS "_published"
        WHERE
          "partition_date" BETWEEN CAST($first_partition AS DATE) AND CAST($last_partition AS DATE)
      ) AS "_predicted"
        ON "_predicted"."flight_id" = "_accepted"."flight_id"
        AND "_predicted"."partition_date" = "_accepted"."partition_date"
      LEFT JOIN (
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
      ) AS "_known"
        ON "_known"."flight_id" = "_accepted"."flight_id"
        AND "_known"."partition_date" = "_accepted"."partition_date"
    ) AS "_joined"
  ) AS "_logged"
) AS "_judged"
GROUP BY
  GROUPING SETS (
    ("partition_date", "_version"),
    ("partition_date", "_version", "_slice_0"),
    ("partition_date", "_version", "_slice_1")
  )
