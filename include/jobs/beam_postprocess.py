"""Turn scores into predictions on Dataflow: Beam's way to do what `include/jobs/postprocess.py` does, in Arrow batches.

`python -m include.jobs.beam_postprocess --input gs://.../*.parquet --output gs://.../part --runner=DataflowRunner ...`; what
is not its own is an option of Beam. The last line on its output is {"rows": ..., "positive": ...}.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from include.core.postprocessing import Stamp, UnusableRows, postprocess
from include.jobs import pipelines
from include.jobs.process import InvalidSpec

if TYPE_CHECKING:
    import apache_beam as beam


def main(arguments: Sequence[str]) -> int:
    return pipelines.main(arguments, parser(), run)


def run(given: argparse.Namespace, options: list[str]) -> None:
    """Write predictions of all scores that match, or nothing.

    Raises:
        Refused: if there are no scores, one cannot become a prediction, or an argument is of no use.
    """
    try:
        scored_at = datetime.fromisoformat(given.scored_at)
        stamp = Stamp(given.key, given.threshold, given.model_version, given.run_id, scored_at, given.git_revision, given.task)
    except ValueError as error:
        raise InvalidSpec(str(error)) from None
    # As they will be: a file in which they are not is found out before a worker is paid for.
    schema = postprocess(pipelines.first_rows(given.input), stamp).schema
    pipelines.make_room(given.output)
    counted = pipelines.run(options, lambda pipeline: build(pipeline, given, stamp, schema))
    if counted:
        facts = {"rows": counted.get("rows", 0), "positive": counted.get("positive", 0)}
        logging.getLogger(__name__).info("wrote %d predictions", facts["rows"])
        print(json.dumps(facts), flush=True)


def build(pipeline: beam.Pipeline, given: argparse.Namespace, stamp: Stamp, schema: pa.Schema) -> None:
    import apache_beam as beam
    from apache_beam.metrics import Metrics

    def counted(table: pa.Table) -> pa.Table:
        made = predictions(table, stamp, schema)
        Metrics.counter(pipelines.COUNTED, "rows").inc(made.num_rows)
        Metrics.counter(pipelines.COUNTED, "positive").inc(sum(chunk.true_count for chunk in made["decision"].chunks))
        return made

    _ = (
        pipeline
        | "Read" >> beam.io.ReadFromParquetBatched(given.input, columns=[stamp.key, "partition_date", "score"])
        | "Postprocess" >> beam.Map(counted)
        | "Write" >> beam.io.WriteToParquetBatched(given.output, schema, codec="zstd", file_name_suffix=".parquet")
    )


def predictions(table: pa.Table, stamp: Stamp, schema: pa.Schema) -> pa.Table:
    """Predictions of a table of scores.

    Raises:
        UnusableRows: if one cannot become a prediction, or the key is of another type than in the first file.
    """
    made = [postprocess(batch, stamp) for batch in table.to_batches()]
    for batch in made:
        if batch.schema != schema:
            found, wanted = (one.field(stamp.key).type for one in (batch.schema, schema))
            raise UnusableRows(f"column {stamp.key!r} holds {found}, in another file {wanted}: score the partition again")
    return pa.Table.from_batches(made, schema)


def parser() -> argparse.ArgumentParser:
    """The arguments of the job, which the template of Dataflow has too."""
    made = argparse.ArgumentParser(allow_abbrev=False)
    for name in ("input", "output", "key", "model_version", "run_id", "scored_at", "git_revision"):
        made.add_argument(f"--{name}", required=True)
    made.add_argument("--task", required=True, choices=("classification", "regression"))
    made.add_argument("--threshold", required=True, type=float)
    return made


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
