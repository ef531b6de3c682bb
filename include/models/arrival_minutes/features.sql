-- What is known of a flight at its scheduled departure: the timetable, and the weather of the full hour before.
WITH
  -- An observation that landed twice counts once; where two disagree, the larger value, whatever their order.
  observations AS (
    SELECT
      origin,
      observed_hour,
      MAX(wind_speed) AS wind_speed,
      MAX(precipitation) AS precipitation,
      MAX(visibility) AS visibility
    FROM {{ table("weather") }}
    -- The hour before a flight at 00:30 lies in the partition before.
    WHERE partition_date BETWEEN CAST(:first_partition - INTERVAL 1 DAY AS DATE) AND :last_partition
    GROUP BY origin, observed_hour
  )
SELECT
  flights.flight_id,
  flights.partition_date,
  FLOOR(flights.scheduled_departure_minute / 60) AS departure_hour,
  -- 0 is Monday. Counted from one, as the days of the week have other numbers on each platform.
  DATE_DIFF('day', DATE '1970-01-05', flights.partition_date) % 7 AS weekday,
  flights.distance,
  COUNT(*) OVER (
    PARTITION BY flights.partition_date, flights.origin, DATE_TRUNC('hour', flights.scheduled_departure)
  ) AS departures_this_hour,
  observations.wind_speed,
  observations.precipitation,
  observations.visibility,
  flights.carrier,
  flights.origin,
  flights.dest
FROM {{ table("flights") }}
LEFT JOIN observations
  ON observations.origin = flights.origin
  AND observations.observed_hour = DATE_TRUNC('hour', flights.scheduled_departure) - INTERVAL 1 HOUR
WHERE flights.partition_date BETWEEN :first_partition AND :last_partition
