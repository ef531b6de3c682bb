-- binds first_partition, last_partition, first_partition, last_partition, first_partition, last_partition, first_partition, last_partition, first_partition, last_partition, first_partition, last_partition
SELECT
  "partition_date",
  COUNT(*) AS "population",
  COUNT_IF("_chosen") AS "profiled",
  COUNT_IF("_scored") AS "scored",
  COUNT("distance") AS "known_0",
  COUNT_IF("_given_0") AS "given_0",
  MIN("distance") AS "low_0",
  MAX("distance") AS "high_0",
  COUNT_IF("distance" <= -1.0000000000000001e-01) AS "cell_0_0",
  COUNT_IF("distance" <= 2.4750000000000000e+03) AS "cell_0_1",
  COUNT("carrier") AS "known_1",
  COUNT_IF("carrier" = 'B6') AS "cell_1_0",
  COUNT_IF("carrier" = 'O''Hare \ Sons') AS "cell_1_1",
  COUNT("_score") AS "known_2",
  COUNT_IF("_given_2") AS "given_2",
  MIN("_score") AS "low_2",
  MAX("_score") AS "high_2",
  COUNT_IF("_score" <= 5.0000000000000000e-01) AS "cell_2_0",
  COUNT("_decision") AS "known_3",
  COUNT_IF("_decision" = '0') AS "cell_3_0",
  COUNT_IF("_decision" = '1') AS "cell_3_1",
  COUNT("_cell_0" + "_cell_2") AS "pair_0_n",
  SUM(CASE WHEN NOT "_cell_2" IS NULL THEN "_cell_0" END) AS "pair_0_a",
  SUM(CASE WHEN NOT "_cell_0" IS NULL THEN "_cell_2" END) AS "pair_0_b",
  SUM(CASE WHEN NOT "_cell_2" IS NULL THEN "_cell_0" * "_cell_0" END) AS "pair_0_aa",
  SUM(CASE WHEN NOT "_cell_0" IS NULL THEN "_cell_2" * "_cell_2" END) AS "pair_0_bb",
  SUM("_cell_0" * "_cell_2") AS "pair_0_ab"
FROM (
  SELECT
    *,
    CASE
      WHEN "distance" <= -1.0000000000000001e-01
      THEN 0
      WHEN "distance" <= 2.4750000000000000e+03
      THEN 1
      WHEN NOT "distance" IS NULL
      THEN 2
    END AS "_cell_0",
    CASE WHEN "_score" <= 5.0000000000000000e-01 THEN 0 WHEN NOT "_score" IS NULL THEN 1 END AS "_cell_2"
  FROM (
    SELECT
      "partition_date",
      "_chosen",
      CASE WHEN "_chosen" THEN "distance" END AS "distance",
      "_chosen" AND "_given_0" AS "_given_0",
      CASE WHEN "_chosen" THEN "carrier" END AS "carrier",
      CASE WHEN "_chosen" THEN "_score" END AS "_score",
      "_chosen" AND "_given_2" AS "_given_2",
      CASE WHEN "_chosen" THEN "_decision" END AS "_decision",
      "_chosen" AND "_scored" AS "_scored"
    FROM (
      SELECT
        "_accepted"."partition_date",
        SUBSTR(LOWER(TO_HEX(MD5(TO_UTF8(CAST("_accepted"."flight_id" AS VARCHAR))))), 1, 8) < '1999999a' AS "_chosen",
        NOT "_accepted"."distance" IS NULL AS "_given_0",
        CASE
          WHEN ABS("_accepted"."distance") <= 1.7976931348623157e308
          THEN "_accepted"."distance"
        END AS "distance",
        "_accepted"."carrier" AS "carrier",
        NOT "_predicted"."score" IS NULL AS "_given_2",
        CASE
          WHEN ABS("_predicted"."score") <= 1.7976931348623157e308
          THEN "_predicted"."score"
        END AS "_score",
        "_predicted"."decision" AS "_decision",
        NOT "_predicted"."partition_date" IS NULL AS "_scored"
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
          CONCAT(
            CAST('not_finite: ' AS VARCHAR),
            CAST(NULLIF(
              ARRAY_JOIN(
                ARRAY[CASE
                  WHEN NOT ABS("departure_hour") <= 3.4028234663852886e38
                  THEN 'departure_hour'
                END, CASE WHEN NOT ABS("weekday") <= 3.4028234663852886e38 THEN 'weekday' END, CASE WHEN NOT ABS("distance") <= 3.4028234663852886e38 THEN 'distance' END, CASE
                  WHEN NOT ABS("scheduled_minutes") <= 3.4028234663852886e38
                  THEN 'scheduled_minutes'
                END, CASE
                  WHEN NOT ABS("departures_this_hour") <= 3.4028234663852886e38
                  THEN 'departures_this_hour'
                END, CASE
                  WHEN NOT ABS("route_plane_age") <= 3.4028234663852886e38
                  THEN 'route_plane_age'
                END, CASE WHEN NOT ABS("route_seats") <= 3.4028234663852886e38 THEN 'route_seats' END, CASE WHEN NOT ABS("temperature") <= 3.4028234663852886e38 THEN 'temperature' END, CASE WHEN NOT ABS("dew_point") <= 3.4028234663852886e38 THEN 'dew_point' END, CASE WHEN NOT ABS("humidity") <= 3.4028234663852886e38 THEN 'humidity' END, CASE WHEN NOT ABS("wind_speed") <= 3.4028234663852886e38 THEN 'wind_speed' END, CASE WHEN NOT ABS("wind_gust") <= 3.4028234663852886e38 THEN 'wind_gust' END, CASE
                  WHEN NOT ABS("precipitation") <= 3.4028234663852886e38
                  THEN 'precipitation'
                END, CASE WHEN NOT ABS("pressure") <= 3.4028234663852886e38 THEN 'pressure' END, CASE WHEN NOT ABS("visibility") <= 3.4028234663852886e38 THEN 'visibility' END],
                ','
              ),
              ''
            ) AS VARCHAR)
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
            CAST("carrier" AS VARCHAR) AS "carrier",
            CAST("origin" AS VARCHAR) AS "origin",
            CAST("dest" AS VARCHAR) AS "dest"
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
              FROM "awsdatacatalog"."source"."weather" AS "weather"
              WHERE
                "partition_date" BETWEEN CAST(CAST(? AS DATE) - INTERVAL '1' DAY AS DATE) AND CAST(? AS DATE)
              GROUP BY
                "origin",
                "observed_hour"
            ), "fleet" AS (
              SELECT
                "tailnum",
                MAX("built_year") AS "built_year",
                MAX("seats") AS "seats"
              FROM "awsdatacatalog"."source"."planes" AS "planes"
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
                FROM "awsdatacatalog"."source"."flights" AS "flights"
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
                "flights"."partition_date" BETWEEN CAST(CAST(? AS DATE) - INTERVAL '28' DAY AS DATE) AND CAST(CAST(? AS DATE) - INTERVAL '1' DAY AS DATE)
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
                FROM "awsdatacatalog"."source"."flights" AS "flights"
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
                "partition_date" BETWEEN CAST(? AS DATE) AND CAST(? AS DATE)
            ), "routes" AS (
              SELECT
                "days"."partition_date",
                "past_planes"."carrier",
                "past_planes"."origin",
                "past_planes"."dest",
                CAST(SUM("past_planes"."built_years") AS DOUBLE) / SUM("past_planes"."planes_of_known_year") AS "built_year",
                CAST(SUM("past_planes"."seats") AS DOUBLE) / SUM("past_planes"."planes_of_known_seats") AS "seats"
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
              FLOOR(CAST("flights"."scheduled_departure_minute" AS DOUBLE) / 60) AS "departure_hour",
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
              FROM "awsdatacatalog"."source"."flights" AS "flights"
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
              "flights"."partition_date" BETWEEN CAST(? AS DATE) AND CAST(? AS DATE)
          ) AS "authored"
          WHERE
            "partition_date" BETWEEN CAST(? AS DATE) AND CAST(? AS DATE)
        ) AS "typed"
      ) AS "_accepted"
      LEFT JOIN (
        SELECT
          "flight_id",
          "partition_date",
          CAST("score" AS DOUBLE) AS "score",
          CASE WHEN "decision" THEN '1' WHEN NOT "decision" THEN '0' END AS "decision"
        FROM "awsdatacatalog"."predictions"."flight_delays" AS "_published"
        WHERE
          "partition_date" BETWEEN CAST(? AS DATE) AND CAST(? AS DATE)
          AND "model_version" = '3'
      ) AS "_predicted"
        ON "_predicted"."flight_id" = "_accepted"."flight_id"
        AND "_predicted"."partition_date" = "_accepted"."partition_date"
      WHERE
        COALESCE(ABS("_accepted"."departure_hour") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."weekday") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."distance") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."scheduled_minutes") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."departures_this_hour") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."route_plane_age") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."route_seats") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."temperature") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."dew_point") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."humidity") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."wind_speed") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."wind_gust") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."precipitation") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."pressure") <= 3.4028234663852886e38, TRUE)
        AND COALESCE(ABS("_accepted"."visibility") <= 3.4028234663852886e38, TRUE)
    ) AS "_joined"
  ) AS "_sampled"
) AS "_ranked"
GROUP BY
  "partition_date"
