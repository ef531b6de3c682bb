{# The rows that are not scored, for either reason. -#}
SELECT {{ key | quoted }}, partition_date, quarantine_reason AS reason
FROM (
{% include "judged_features.sql" %}

) AS judged
WHERE quarantine_reason IS NOT NULL
UNION ALL
SELECT {{ key | quoted }}, partition_date, reason
FROM (
{% include "rejected_rows.sql" %}

) AS rejected
