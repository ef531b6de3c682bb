{# Every entity row once: to be scored where quarantine_reason is NULL, else quarantined. -#}
{% include "judged_features.sql" %}

UNION ALL
SELECT
  {{ key | quoted }},
  partition_date,
  {% for feature in numeric %}
  CAST(NULL AS DOUBLE) AS {{ feature | quoted }},
  {% endfor %}
  {% for feature in categorical %}
  CAST(NULL AS VARCHAR) AS {{ feature | quoted }},
  {% endfor %}
  reason AS quarantine_reason
FROM (
{% include "rejected_rows.sql" %}

) AS rejected
