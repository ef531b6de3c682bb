{# How many accepted rows of each day lie in which cell. An edge is counted as "at or below it": the differences are the
   cells, and each is one comparison that an engine makes for many rows at once. Numbers that are not finite are NULL to
   these: DuckDB believes the minimum and maximum that a Parquet file tells of a column, where NaN does not count, and may
   take NaN for a value between them. -#}
SELECT
  partition_date,
  COUNT(*) AS population,
  {{ "COUNT_IF(_chosen)" if sampled else "COUNT(*)" }} AS profiled
  {% if predictions %},
  COUNT_IF(_scored) AS scored
  {% endif %}
  {% for column in counted %},
  COUNT({{ column.source | quoted }}) AS known_{{ column.number }}
  {% if column.kind == "numeric" %},
  COUNT_IF(_given_{{ column.number }}) AS given_{{ column.number }},
  MIN({{ column.source | quoted }}) AS low_{{ column.number }},
  MAX({{ column.source | quoted }}) AS high_{{ column.number }}
  {% endif %}
  {% for value in column.cells %},
  COUNT_IF({{ column.source | quoted }} {{ column.comparison }} __value_{{ value }}) AS cell_{{ column.number }}_{{ loop.index0 }}
  {% endfor %}
  {% endfor %}
  {% for a, b in pairs %},
  COUNT(_cell_{{ a }} + _cell_{{ b }}) AS pair_{{ loop.index0 }}_n,
  SUM(CASE WHEN _cell_{{ b }} IS NOT NULL THEN _cell_{{ a }} END) AS pair_{{ loop.index0 }}_a,
  SUM(CASE WHEN _cell_{{ a }} IS NOT NULL THEN _cell_{{ b }} END) AS pair_{{ loop.index0 }}_b,
  SUM(CASE WHEN _cell_{{ b }} IS NOT NULL THEN _cell_{{ a }} * _cell_{{ a }} END) AS pair_{{ loop.index0 }}_aa,
  SUM(CASE WHEN _cell_{{ a }} IS NOT NULL THEN _cell_{{ b }} * _cell_{{ b }} END) AS pair_{{ loop.index0 }}_bb,
  SUM(_cell_{{ a }} * _cell_{{ b }}) AS pair_{{ loop.index0 }}_ab
  {% endfor %}
FROM (
  SELECT
    *
    {% for column in counted if column.number in paired %},
    CASE
      {% for value in column.cells %}
      WHEN {{ column.source | quoted }} {{ column.comparison }} __value_{{ value }} THEN {{ loop.index0 }}
      {% endfor %}
      WHEN {{ column.source | quoted }} IS NOT NULL THEN {{ column.cells | length }}
    END AS _cell_{{ column.number }}
    {% endfor %}
  FROM (
    SELECT
      partition_date
      {% if sampled %},
      _chosen
      {% endif %}
      {% for column in counted %},
      {{ "CASE WHEN _chosen THEN" if sampled }} {{ column.source | quoted }} {{ "END" if sampled }} AS {{ column.source | quoted }}
      {% if column.kind == "numeric" %},
      {{ "_chosen AND" if sampled }} _given_{{ column.number }} AS _given_{{ column.number }}
      {% endif %}
      {% endfor %}
      {% if predictions %},
      {{ "_chosen AND" if sampled }} _scored AS _scored
      {% endif %}
    FROM (
      SELECT
        _accepted.partition_date
        {% if sampled %},
        SUBSTRING(MD5(CAST(_accepted.{{ key | quoted }} AS VARCHAR)), 1, 8) < __value_{{ threshold }} AS _chosen
        {% endif %}
        {% for column in counted %},
        {% if column.kind == "numeric" %}
        {% set number = column.origin %}
        {{ number }} IS NOT NULL AS _given_{{ column.number }},
        CASE WHEN ABS({{ number }}) <= 1.7976931348623157e308 THEN {{ number }} END
        {% else %}
        {{ column.origin }}
        {% endif %}
        AS {{ column.source | quoted }}
        {% endfor %}
        {% if predictions %},
        _predicted.partition_date IS NOT NULL AS _scored
        {% endif %}
      {# The rows of accepted_features.sql, told without their reason: making its text takes a quarter of the pass. #}
      FROM (
{% include "judged_features.sql" %}

      ) AS _accepted
      {% if predictions %}
      LEFT JOIN (
        SELECT
          {{ key | quoted }},
          partition_date,
          CAST(score AS DOUBLE) AS score,
          CASE WHEN decision THEN '1' WHEN NOT decision THEN '0' END AS decision
        FROM {{ predictions }} AS _published
        WHERE partition_date BETWEEN :first_partition AND :last_partition AND model_version = __value_{{ version }}
      ) AS _predicted
        ON _predicted.{{ key | quoted }} = _accepted.{{ key | quoted }} AND _predicted.partition_date = _accepted.partition_date
      {% endif %}
      {% for feature in numeric %}
      {{ "WHERE" if loop.first else "AND" }} COALESCE(ABS(_accepted.{{ feature | quoted }}) <= 3.4028234663852886e38, TRUE)
      {% endfor %}
    ) AS _joined
  ) AS _sampled
) AS _ranked
GROUP BY partition_date
