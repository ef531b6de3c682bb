-- Minutes after the timetable, negative if early; nothing for a flight that never arrived. An outcome that landed twice counts once.
SELECT
  flight_id,
  partition_date,
  MAX(arrival_delay) AS label
FROM {{ table("flight_outcomes") }}
WHERE partition_date BETWEEN :first_partition AND :last_partition
GROUP BY flight_id, partition_date
