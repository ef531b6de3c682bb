"""Evaluate a packaged model on rows it was not trained on: `python -m include.jobs.evaluate <spec.json>`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.core.artifacts import check_golden, load_artifact, predict
from include.core.evaluation import evaluate
from include.core.features import encode
from include.core.files import sha256_of, write_json
from include.core.training import CannotTrain
from include.jobs.process import main


@dataclass(frozen=True)
class EvaluateSpec:
    """The spec of the job. Paths are local."""

    snapshot: str  # Parquet file that the model was trained from; its last partitions are the holdout
    snapshot_sha256: str
    artifact: str  # folder of the model
    manifest_sha256: str
    result: str  # JSON file to write
    label: str = "label"


def run(spec: EvaluateSpec) -> None:
    """Load the artifact as the score job does, and measure it on the partitions after its last training partition."""
    snapshot = Path(spec.snapshot)
    if sha256_of(snapshot) != spec.snapshot_sha256:
        raise CannotTrain(f"{snapshot}: is not the snapshot that the model was trained from: take the snapshot again")
    artifact = load_artifact(Path(spec.artifact), spec.manifest_sha256)
    check_golden(artifact)
    trained_to = date.fromisoformat(artifact.manifest["training"]["last"])
    with pq.ParquetFile(snapshot, pre_buffer=False) as file:
        rows = file.read(columns=[*artifact.spec.names, spec.label, "partition_date"])
    holdout = rows.filter(pc.greater(rows["partition_date"], pa.scalar(trained_to, pa.date32()))).combine_chunks()
    if holdout.num_rows == 0:
        raise CannotTrain(f"{snapshot}: has no row later than {trained_to}, the last day of training: nothing to evaluate on")
    matrix, _ = encode(holdout.to_batches()[0], artifact.spec)
    metrics = evaluate("classification", holdout[spec.label].to_numpy(), predict(artifact.booster, matrix))
    days = pc.min_max(holdout["partition_date"]).as_py()
    result = {"metrics": metrics, "rows": holdout.num_rows, "first": days["min"].isoformat(), "last": days["max"].isoformat()}
    write_json(Path(spec.result), result)
    print(f"evaluated on {holdout.num_rows} rows of {result['first']} to {result['last']}: {json.dumps(metrics)}", flush=True)


if __name__ == "__main__":
    main(EvaluateSpec, run)
