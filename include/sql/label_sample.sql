{# Predicted rows without a label, the same number of each stratum as far as it has so many: a stratum is a day and a band
   of scores. Which rows is told by the hash of their key and of the request:
   asking twice asks for the same, another request for others. -#}
SELECT {{ key | quoted }}, partition_date, score, _band AS band, _population AS population
FROM (
  SELECT
    *,
    ROW_NUMBER() OVER (PARTITION BY partition_date, _band ORDER BY _lot, {{ key | quoted }}) AS _rank,
    COUNT(*) OVER (PARTITION BY partition_date, _band) AS _population
  FROM (
    SELECT
      _predicted.{{ key | quoted }},
      _predicted.partition_date,
      _predicted.score,
      MD5(CONCAT(CAST(_predicted.{{ key | quoted }} AS VARCHAR), __value_{{ request }})) AS _lot,
      CASE
        {% for edge in edges %}
        WHEN _predicted.score <= __value_{{ edge }} THEN {{ loop.index0 }}
        {% endfor %}
        ELSE {{ edges | length }}
      END AS _band
    FROM {{ predictions }} AS _predicted
    LEFT JOIN (
{% include "labels.sql" %}

    ) AS _known
      ON _known.{{ key | quoted }} = _predicted.{{ key | quoted }} AND _known.partition_date = _predicted.partition_date
    WHERE _predicted.partition_date BETWEEN :first_partition AND :last_partition
      AND _predicted.model_version = __value_{{ version }}
      AND _known.label IS NULL
  ) AS _unlabelled
) AS _drawn
WHERE _rank <= {{ each }}
ORDER BY partition_date, _band, _rank
