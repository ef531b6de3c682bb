{# Features of the accepted rows in one type each, and why a row cannot be scored: a model reads float32, where NaN, the
   infinities and what is beyond its range are no numbers. NULL is a missing value and is welcome. -#}
SELECT
  {{ key | quoted }},
  partition_date,
  {% for feature in features %}
  {{ feature | quoted }},
  {% endfor %}
  {% if numeric %}
  'not_finite: ' || NULLIF(
    ARRAY_TO_STRING(
      [
        {% for feature in numeric %}
        CASE WHEN NOT ABS({{ feature | quoted }}) <= 3.4028234663852886e38 THEN '{{ feature }}' END{{ "," if not loop.last }}
        {% endfor %}
      ],
      ','
    ),
    ''
  ) AS quarantine_reason
  {% else %}
  CAST(NULL AS VARCHAR) AS quarantine_reason
  {% endif %}
FROM (
  SELECT
    {{ key | quoted }},
    partition_date
    {% for feature in numeric %},
    CAST({{ feature | quoted }} AS DOUBLE) AS {{ feature | quoted }}
    {% endfor %}
    {% for feature in categorical %},
    CAST({{ feature | quoted }} AS VARCHAR) AS {{ feature | quoted }}
    {% endfor %}
  FROM {{ authored }}features AS authored
  WHERE partition_date BETWEEN :first_partition AND :last_partition
) AS typed
