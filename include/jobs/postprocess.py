"""Turn scores into predictions: `python -m include.jobs.postprocess <spec.json>`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from include.core.files import replacing, write_json
from include.core.postprocessing import Stamp, UnusableRows, postprocess, predictions_schema
from include.jobs.process import InvalidSpec, main, task_named


@dataclass(frozen=True)
class PostprocessSpec:
    """The spec of the job. Paths are local."""

    scores: str  # Parquet file: key, partition_date, score
    output: str  # Parquet file to write: predictions
    result: str  # JSON file to write
    key: str
    threshold: float  # decision = score >= threshold
    model_version: str
    run_id: str
    scored_at: str  # ISO 8601 with a time zone
    git_revision: str
    task: str = "classification"  # or "regression": scores and threshold are then any finite numbers
    batch_rows: int = 122880


def run(spec: PostprocessSpec) -> None:
    """Stream the scores through `core.postprocessing`, batch by batch."""
    try:
        scored_at = datetime.fromisoformat(spec.scored_at)
        stamp = Stamp(
            spec.key, spec.threshold, spec.model_version, spec.run_id, scored_at, spec.git_revision, task_named(spec.task)
        )
    except ValueError as error:
        raise InvalidSpec(str(error)) from None
    rows = positive = 0
    # pre_buffer would keep all that was read in memory.
    with pq.ParquetFile(spec.scores, pre_buffer=False) as file, replacing(Path(spec.output)) as temporary:
        if spec.key not in file.schema_arrow.names:
            raise UnusableRows(f"{spec.scores}: column {spec.key!r} is missing: score the partition again")
        schema = predictions_schema(spec.key, file.schema_arrow.field(spec.key).type)
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in file.iter_batches(spec.batch_rows):
                predictions = postprocess(batch, stamp)
                writer.write_batch(predictions)
                rows, positive = rows + predictions.num_rows, positive + predictions.column("decision").true_count
    write_json(Path(spec.result), {"rows": rows, "positive": positive})
    print(f"wrote {rows:,} predictions", flush=True)


if __name__ == "__main__":
    main(PostprocessSpec, run)
