"""Train a model from a snapshot of the training set: `python -m include.jobs.train <spec.json>`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from include.core.artifacts import MANIFEST, CorruptArtifact, read_manifest, save_artifact
from include.core.files import sha256_of, write_json
from include.core.training import CannotTrain, Parameters, train
from include.jobs.process import every_few_seconds, main


@dataclass(frozen=True)
class TrainSpec:
    """The spec of the job. Paths are local; the remaining keys are the parameters of `core.training`."""

    snapshot: str  # Parquet file: features, label, partition_date
    artifact: str  # folder to write; it must not hold another model
    result: str  # JSON file to write
    model: str
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    snapshot_id: str
    snapshot_sha256: str
    label: str = "label"
    trees: int = 300
    max_depth: int = 6
    learning_rate: float = 0.1
    seed: int = 7
    holdout_days: int = 14
    min_rows: int = 1000
    threads: int = 2


def run(spec: TrainSpec) -> None:
    """Train, unless the artifact of exactly this training is there already: then its result is given again."""
    snapshot, folder = Path(spec.snapshot), Path(spec.artifact)
    found = sha256_of(snapshot)
    if found != spec.snapshot_sha256:
        raise CannotTrain(f"{snapshot}: SHA-256 is {found[:12]}…, the spec says {spec.snapshot_sha256[:12]}…: take it again")
    parameters = Parameters(**{field.name: getattr(spec, field.name) for field in fields(Parameters)})
    request = _request(spec, parameters)
    if not folder.exists():
        _train(spec, parameters, request, folder)
    manifest_sha256 = sha256_of(folder / MANIFEST)
    manifest = read_manifest(folder, manifest_sha256)
    if manifest["request"] != request:
        raise CorruptArtifact(f"{folder}: holds a model of another training: give each training a folder of its own")
    result = {key: manifest[key] for key in ("metrics", "training", "holdout", "snapshot_id", "snapshot_sha256")}
    write_json(Path(spec.result), {**result, "artifact": str(folder), "manifest_sha256": manifest_sha256})
    print(f"trained {spec.model}: {json.dumps(manifest['metrics'])}, manifest {manifest_sha256}", flush=True)


def _train(spec: TrainSpec, parameters: Parameters, request: dict[str, Any], folder: Path) -> None:
    columns = [*spec.numeric, *spec.categorical, spec.label, "partition_date"]
    # ParquetFile, not read_table: that would take "partition_date=..." in the path for a column.
    with pq.ParquetFile(spec.snapshot, pre_buffer=False) as file:
        rows = file.read(columns=[name for name in columns if name in file.schema_arrow.names])
    print(f"training {spec.model} on {rows.num_rows} rows, {parameters.trees} trees", flush=True)
    done = 0
    say = every_few_seconds(lambda: f"{done} of {parameters.trees} trees")

    def progress(trees: int) -> None:
        nonlocal done
        done = trees
        say()

    trained = train(rows, spec.numeric, spec.categorical, spec.label, parameters, progress)
    description = {
        "model": spec.model,
        "snapshot_id": spec.snapshot_id,
        "snapshot_sha256": spec.snapshot_sha256,
        "request": request,
        "training": trained.training.to_json(),
        "holdout": trained.holdout.to_json(),
        "metrics": trained.metrics,
        "score_reference": trained.reference,
    }
    # Another attempt of the same training may have been faster; `run` checks that it was the same.
    with suppress(FileExistsError):
        save_artifact(folder, trained.booster, trained.spec, trained.golden, description)


def _request(spec: TrainSpec, parameters: Parameters) -> dict[str, Any]:
    """All that the model depends on, for comparing two trainings."""
    kept = {key: value for key, value in asdict(parameters).items() if key != "threads"}
    features = {"numeric": list(spec.numeric), "categorical": list(spec.categorical), "label": spec.label}
    return {"parameters": kept, **features, "snapshot_sha256": spec.snapshot_sha256, "model": spec.model}


if __name__ == "__main__":
    main(TrainSpec, run)
