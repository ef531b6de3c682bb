{# How good the scores of each day were, by version, over all rows and over each value of the slices. All sums are over the
   labelled rows. A classification has the log loss, what it would be on average if the scores were the true probabilities,
   and the variance of that; a regression the squared error. -#}
SELECT
  partition_date,
  _version AS model_version,
  {% if slices %}
  CASE
    {% for slice in slices %}
    WHEN GROUPING(_slice_{{ loop.index0 }}) = 0 THEN '{{ slice }}'
    {% endfor %}
    ELSE ''
  END AS slice,
  CASE
    {% for slice in slices %}
    WHEN GROUPING(_slice_{{ loop.index0 }}) = 0 THEN _slice_{{ loop.index0 }}
    {% endfor %}
  END AS value,
  {% else %}
  '' AS slice,
  CAST(NULL AS VARCHAR) AS value,
  {% endif %}
  COUNT(*) AS rows,
  COUNT(_label) AS labelled,
  SUM(_label) AS label_sum,
  SUM(_score) AS score_sum,
  SUM(_loss) AS loss_sum,
  SUM(_loss * _loss) AS loss_squares,
  SUM(_expected) AS expected_sum,
  SUM(_variance) AS variance_sum
  {% for bin in range(bins) %},
  COUNT_IF(_bin = {{ bin }}) AS b{{ bin }},
  COUNT_IF(_bin = {{ bin }} AND _label = 1) AS p{{ bin }}
  {% endfor %}
FROM (
  SELECT
    *,
    {% if bins %}
    -(_label * _ln_p + (1 - _label) * _ln_q) AS _loss,
    -(_p * _ln_p + (1 - _p) * _ln_q) AS _expected,
    _p * (1 - _p) * (_ln_p - _ln_q) * (_ln_p - _ln_q) AS _variance,
    {# LEAST of NULL is another number in DuckDB and NULL elsewhere. #}
    CASE WHEN _score IS NOT NULL THEN LEAST(CAST(FLOOR(_score * {{ bins }}) AS INTEGER), {{ bins - 1 }}) END AS _bin
    {% else %}
    (_label - _score) * (_label - _score) AS _loss,
    CAST(NULL AS DOUBLE) AS _expected,
    CAST(NULL AS DOUBLE) AS _variance
    {% endif %}
  FROM (
    SELECT
      *
      {% if bins %},
      LN(_p) AS _ln_p,
      LN(1 - _p) AS _ln_q
      {% endif %}
    FROM (
      SELECT
        _accepted.partition_date,
        _predicted.model_version AS _version,
        {% for slice in slices %}
        _accepted.{{ slice | quoted }} AS _slice_{{ loop.index0 }},
        {% endfor %}
        CAST(_known.label AS DOUBLE) AS _label,
        {% if bins %}
        CASE WHEN _known.label IS NOT NULL THEN LEAST(GREATEST(_predicted.score, 1e-15), 1 - 1e-15) END AS _p,
        {% endif %}
        CASE WHEN _known.label IS NOT NULL THEN _predicted.score END AS _score
      FROM (
{% include "accepted_features.sql" %}

      ) AS _accepted
      INNER JOIN (
        SELECT {{ key | quoted }}, partition_date, CAST(score AS DOUBLE) AS score, model_version
        FROM {{ predictions }} AS _published
        WHERE partition_date BETWEEN :first_partition AND :last_partition
      ) AS _predicted
        ON _predicted.{{ key | quoted }} = _accepted.{{ key | quoted }} AND _predicted.partition_date = _accepted.partition_date
      LEFT JOIN (
{% include "labels.sql" %}

      ) AS _known
        ON _known.{{ key | quoted }} = _accepted.{{ key | quoted }} AND _known.partition_date = _accepted.partition_date
    ) AS _joined
  ) AS _logged
) AS _judged
{% if slices %}
GROUP BY GROUPING SETS (
  (partition_date, _version)
  {% for slice in slices %},
  (partition_date, _version, _slice_{{ loop.index0 }})
  {% endfor %}
)
{% else %}
GROUP BY partition_date, _version
{% endif %}
