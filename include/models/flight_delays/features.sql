-- What is known of a flight at its scheduled departure: the timetable, the planes its route had, the weather of the full
-- hour before.
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
  ),
  -- Never the flight's own plane: the flights without a tail number are those that were cancelled before they had a plane,
  -- so a missing one tells how the flight went. The planes of days that are over do not.
  past_planes AS (
    SELECT
      flights.partition_date,
      flights.carrier,
      flights.origin,
      flights.dest,
      SUM(fleet.built_year) AS built_years,
      COUNT(fleet.built_year) AS planes_of_known_year,
      SUM(fleet.seats) AS seats,
      COUNT(fleet.seats) AS planes_of_known_seats
    FROM {{ table("flights") }}
    INNER JOIN fleet ON fleet.tailnum = flights.tailnum
    WHERE flights.partition_date BETWEEN
      CAST(:first_partition - INTERVAL 28 DAY AS DATE) AND CAST(:last_partition - INTERVAL 1 DAY AS DATE)
    GROUP BY flights.partition_date, flights.carrier, flights.origin, flights.dest
  ),
  days AS (
    SELECT DISTINCT partition_date
    FROM {{ table("flights") }}
    WHERE partition_date BETWEEN :first_partition AND :last_partition
  ),
  -- What each route had in the 28 days before each day. Sums of whole numbers: the same for one day as within a range.
  routes AS (
    SELECT
      days.partition_date,
      past_planes.carrier,
      past_planes.origin,
      past_planes.dest,
      SUM(past_planes.built_years) / SUM(past_planes.planes_of_known_year) AS built_year,
      SUM(past_planes.seats) / SUM(past_planes.planes_of_known_seats) AS seats
    FROM days
    INNER JOIN past_planes
      ON past_planes.partition_date BETWEEN
        CAST(days.partition_date - INTERVAL 28 DAY AS DATE) AND CAST(days.partition_date - INTERVAL 1 DAY AS DATE)
    GROUP BY days.partition_date, past_planes.carrier, past_planes.origin, past_planes.dest
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
  EXTRACT(YEAR FROM flights.partition_date) - routes.built_year AS route_plane_age,
  routes.seats AS route_seats,
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
LEFT JOIN routes
  ON routes.partition_date = flights.partition_date
  AND routes.carrier = flights.carrier
  AND routes.origin = flights.origin
  AND routes.dest = flights.dest
LEFT JOIN observations
  ON observations.origin = flights.origin
  AND observations.observed_hour = DATE_TRUNC('hour', flights.scheduled_departure) - INTERVAL 1 HOUR
WHERE flights.partition_date BETWEEN :first_partition AND :last_partition
