"""Turn scores into predictions on AWS Glue: Spark's way to do what `include/jobs/postprocess.py` does.

Takes what Batch Transform wrote, JSON Lines, and gives Parquet that Athena reads. Plain Spark, so that it runs anywhere;
include/core comes in a zip (--extra-py-files). The last line on its output is {"rows": ..., "positive": ...}.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from include.core.errors import Refused
from include.core.postprocessing import Stamp, UnusableRows, postprocess

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


def main(arguments: Sequence[str]) -> None:
    given = _arguments(arguments)
    try:
        scored_at = datetime.fromisoformat(given.scored_at)
        stamp = Stamp(given.key, given.threshold, given.model_version, given.run_id, scored_at, given.git_revision, given.task)
        facts = run(given.scores, given.output, given.key_type, stamp)
    except (Refused, ValueError) as error:
        sys.exit(f"ERROR: {' '.join(str(error).split())}")
    print(json.dumps(facts), flush=True)


def run(scores: str, output: str, key_type: str, stamp: Stamp) -> dict[str, int]:
    """Put the predictions of all scores below a folder in the place of whatever `output` holds.

    Raises:
        UnusableRows: if there are no scores, a line is none, or one cannot become a prediction.
    """
    from pyspark.sql import SparkSession, functions

    spark = SparkSession.builder.appName("postprocess").getOrCreate()
    # Timestamps are instants; Athena shows them in UTC, and so does Spark then, wherever it runs.
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    # Spark's own choice, INT96, is one that Parquet has given up.
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    rows = read(spark, scores, stamp.key, key_type)
    if not rows.inputFiles():
        raise UnusableRows(f"{scores}: holds no .out object: score the partition again")
    try:
        predictions = rows.mapInArrow(_stamping(stamp), _columns(stamp.key, key_type))
        predictions.write.mode("overwrite").option("compression", "zstd").parquet(output)
    except Exception as error:
        _refuse(str(error), scores)
        raise
    # Counted in what was written, not in what was meant to be.
    written = spark.read.option("recursiveFileLookup", "true").parquet(output)
    counted = written.agg(functions.count("*"), functions.count_if("decision")).first()
    assert counted is not None
    return {"rows": counted[0], "positive": counted[1]}


def read(spark: SparkSession, scores: str, key: str, key_type: str) -> DataFrame:
    """The lines of all .out objects below a folder. A folder partition_date=... on the way to them is no column."""
    return (
        spark.read
        .schema(f"{_quoted(key)} {key_type}, partition_date date, score double")
        .option("mode", "FAILFAST")
        .option("dateFormat", "yyyy-MM-dd")
        .option("recursiveFileLookup", "true")
        .option("pathGlobFilter", "*.out")
        .json(scores)
    )


def _stamping(stamp: Stamp) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def stamped(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            yield postprocess(batch, stamp)

    return stamped


def _columns(key: str, key_type: str) -> str:
    """`core.postprocessing.predictions_schema` in Spark's words."""
    return (
        f"{_quoted(key)} {key_type}, partition_date date, score double, decision boolean, "
        "model_version string, run_id string, scored_at timestamp, git_revision string"
    )


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


def _refuse(told: str, scores: str) -> None:
    """Find what went wrong among the stack traces of Java and Python that Spark wraps around it.

    Raises:
        UnusableRows: if it was the fault of the scores.
    """
    if found := re.search(r"UnusableRows: (.+)", told):
        raise UnusableRows(f"{scores}: {found[1]}") from None
    if "MALFORMED_RECORD_IN_PARSING" in told:
        raise UnusableRows(f"{scores}: a line is no score, or was cut off: score the partition again") from None


def _arguments(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("scores", "output", "key", "model_version", "run_id", "scored_at", "git_revision"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--key_type", required=True, choices=("string", "int", "bigint"))
    parser.add_argument("--task", required=True, choices=("classification", "regression"))
    parser.add_argument("--threshold", required=True, type=float)
    # Glue adds arguments of its own.
    return parser.parse_known_args(arguments)[0]


if __name__ == "__main__":
    main(sys.argv[1:])
