{# Labels that are known. -#}
SELECT {{ key | quoted }}, partition_date, CAST(label AS {{ label_type }}) AS label
FROM {{ authored }}labels AS authored
WHERE label IS NOT NULL AND partition_date BETWEEN :first_partition AND :last_partition
