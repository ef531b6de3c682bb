{# Accepted features with their labels. Fully ordered: the same rows are the same bytes. -#}
SELECT
  accepted.{{ key | quoted }},
  accepted.partition_date,
  {% for feature in features %}
  accepted.{{ feature | quoted }},
  {% endfor %}
  known.label
FROM (
{% include "accepted_features.sql" %}

) AS accepted
INNER JOIN (
{% include "labels.sql" %}

) AS known
  ON known.{{ key | quoted }} = accepted.{{ key | quoted }} AND known.partition_date = accepted.partition_date
ORDER BY accepted.partition_date, accepted.{{ key | quoted }}
