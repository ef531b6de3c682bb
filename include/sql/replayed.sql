{# How many rows of the days are other rows when they are made again, by column; `_rows`: those that only one of both has.
   Sums may be added up in another order: numbers that are as good as equal are equal. -#}
SELECT
  {% for feature in numeric + ["label"] %}
  COUNT_IF(
    _before.{{ feature | quoted }} IS DISTINCT FROM _again.{{ feature | quoted }}
    AND NOT COALESCE(
      ABS(_before.{{ feature | quoted }} - _again.{{ feature | quoted }})
        <= 1e-9 * GREATEST(1e0, ABS(_before.{{ feature | quoted }})),
      FALSE
    )
    AND _before.partition_date IS NOT NULL
    AND _again.partition_date IS NOT NULL
  ) AS {{ feature | quoted }},
  {% endfor %}
  {% for feature in categorical %}
  COUNT_IF(
    _before.{{ feature | quoted }} IS DISTINCT FROM _again.{{ feature | quoted }}
    AND _before.partition_date IS NOT NULL
    AND _again.partition_date IS NOT NULL
  ) AS {{ feature | quoted }},
  {% endfor %}
  COUNT_IF(_before.partition_date IS NULL OR _again.partition_date IS NULL) AS "_rows"
FROM (
  SELECT * FROM {{ snapshot }} AS _kept WHERE partition_date BETWEEN :first_partition AND :last_partition
) AS _before
FULL JOIN (
{% include "training_set.sql" %}

) AS _again
  ON _before.{{ key | quoted }} = _again.{{ key | quoted }} AND _before.partition_date = _again.partition_date
