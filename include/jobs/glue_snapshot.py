"""Put a training set in order on AWS Glue: many Parquet files in no order become one, sorted by partition date and key.

A query writes its result in parallel, in another order each time; a model depends on the order of its rows. Plain Spark.
The last line on its output is {"rows": ...}.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    given = _arguments(arguments)
    try:
        facts = run(given.input, given.output, given.key)
    except ValueError as error:
        sys.exit(f"ERROR: {error}")
    print(json.dumps(facts), flush=True)


def run(source: str, output: str, key: str) -> dict[str, int]:
    """Put one sorted file in the place of whatever `output` holds. Values and types stay as they are.

    Raises:
        ValueError: if one folder lies in the other, or a column to sort by is missing.
    """
    from pyspark.sql import SparkSession, functions

    inner, outer = sorted((f"{source.rstrip('/')}/", f"{output.rstrip('/')}/"), key=len, reverse=True)
    if inner.startswith(outer):
        raise ValueError(f"{source} and {output}: one lies in the other, give each a folder of its own")
    spark = SparkSession.builder.appName("snapshot").getOrCreate()
    # A folder partition_date=... on the way to the files is no column.
    rows = spark.read.option("recursiveFileLookup", "true").parquet(source)
    if missing := [name for name in ("partition_date", key) if name not in rows.columns]:
        raise ValueError(f"{source}: has no column {' and no '.join(missing)}: it is no training set")
    order = [functions.col("`" + name.replace("`", "``") + "`") for name in ("partition_date", key)]
    # Sorted once all rows are in one place: files that are sorted each would be put together in any order.
    rows.repartition(1).sortWithinPartitions(*order).write.mode("overwrite").option("compression", "zstd").parquet(output)
    return {"rows": spark.read.parquet(output).count()}


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("input", "output", "key"):
        parser.add_argument(f"--{name}", required=True)
    # Glue adds arguments of its own.
    return parser.parse_known_args(arguments)[0]


if __name__ == "__main__":
    main(sys.argv[1:])
