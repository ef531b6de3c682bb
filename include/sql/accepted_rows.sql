{# Entity rows that meet every row rule. In features.sql, the entity table means these. -#}
SELECT
  {% for column in columns %}
  {{ column | quoted }}{{ "," if not loop.last }}
  {% endfor %}
FROM {{ source }}
WHERE
  {% for rule in rules.values() %}
  ({{ rule }}){{ " AND" if not loop.last }}
  {% endfor %}
