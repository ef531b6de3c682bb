{# Key, partition_date and features of the rows to be scored. -#}
SELECT
  {{ key | quoted }},
  partition_date
  {% for feature in features %},
  {{ feature | quoted }}
  {% endfor %}
FROM (
{% include "judged_features.sql" %}

) AS judged
WHERE quarantine_reason IS NULL
