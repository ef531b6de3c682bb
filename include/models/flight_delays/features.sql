-- What is known of a flight at its scheduled departure: the timetable, the plane, the weather of the full hour before.
WITH
  -- An observation that landed twice counts once; where two disagree, the larger value, whatever their order.
  observations AS (
    SELECT
      origin,
      observed_hour,
      MAX(temperature) AS temperature,
      MAX(dew_point) AS dew_point,
      MAX(humidity) AS humidity,
      MAX(wind_speed) AS wind_speed,
      MAX(wind_gust) AS wind_gust,
      MAX(precipitation) AS precipitation,
      MAX(pressure) AS pressure,
      MAX(visibility) AS visibility
    FROM {{ table("weather") }}
    -- The hour before a flight at 00:30 lies in the partition before.
    WHERE partition_date BETWEEN CAST(:first_partition - INTERVAL 1 DAY AS DATE) AND :last_partition
    GROUP BY origin, observed_hour
  ),
  fleet AS (
    SELECT tailnum, MAX(built_year) AS built_year, MAX(seats) AS seats
    FROM {{ table("planes") }}
    GROUP BY tailnum
  )
SELECT
  flights.flight_id,
  flights.partition_date,
  FLOOR(flights.scheduled_departure_minute / 60) AS departure_hour,
  -- 0 is Monday. Counted from one, as the days of the week have other numbers on each platform.
  DATE_DIFF('day', DATE '1970-01-05', flights.partition_date) % 7 AS weekday,
  flights.distance,
  -- By the clocks of both airports; past midnight it wraps.
  (flights.scheduled_arrival_minute - flights.scheduled_departure_minute + 1440) % 1440 AS scheduled_minutes,
  COUNT(*) OVER (
    PARTITION BY flights.partition_date, flights.origin, DATE_TRUNC('hour', flights.scheduled_departure)
  ) AS departures_this_hour,
  EXTRACT(YEAR FROM flights.partition_date) - fleet.built_year AS plane_age,
  fleet.seats,
  observations.temperature,
  observations.dew_point,
  observations.humidity,
  observations.wind_speed,
  observations.wind_gust,
  observations.precipitation,
  observations.pressure,
  observations.visibility,
  flights.carrier,
  flights.origin,
  flights.dest
FROM {{ table("flights") }}
LEFT JOIN fleet ON fleet.tailnum = flights.tailnum
LEFT JOIN observations
  ON observations.origin = flights.origin
  AND observations.observed_hour = DATE_TRUNC('hour', flights.scheduled_departure) - INTERVAL 1 HOUR
WHERE flights.partition_date BETWEEN :first_partition AND :last_partition
