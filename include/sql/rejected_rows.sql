{# Entity rows that break a row rule, and the names of the rules. A rule that is NULL is broken. -#}
SELECT
  {% for column in columns %}
  {{ column | quoted }},
  {% endfor %}
  reason
FROM (
  SELECT
    {% for column in columns %}
    {{ column | quoted }},
    {% endfor %}
    NULLIF(
      ARRAY_TO_STRING(
        [
          {% for name, rule in rules.items() %}
          CASE WHEN {{ rule }} THEN NULL ELSE '{{ name }}' END{{ "," if not loop.last }}
          {% endfor %}
        ],
        ','
      ),
      ''
    ) AS reason
  FROM {{ source }}
  WHERE partition_date BETWEEN :first_partition AND :last_partition
) AS judged
WHERE reason IS NOT NULL
