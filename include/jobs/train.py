"""Train a model from a snapshot of the training set: `python -m include.jobs.train <spec.json>`."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.core.artifacts import MANIFEST, CorruptArtifact, read_manifest, save_artifact
from include.core.evaluation import Task
from include.core.files import sha256_of, write_json
from include.core.training import Parameters, importance, train
from include.jobs.process import check_snapshot, every_few_seconds, main, read_columns, task_named


@dataclass(frozen=True)
class TrainSpec:
    """The spec of the job. Paths are local."""

    snapshot: str  # Parquet file: features, label, partition_date
    artifact: str  # folder to write; it must not hold another model
    result: str  # JSON file to write
    model: str
    task: str  # "classification" or "regression"
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    snapshot_id: str
    snapshot_sha256: str
    parameters: dict[str, Any]  # core.training.Parameters, as the tune job chose them
    label: str = "label"
    holdout_days: int = 14
    min_rows: int = 1000
    threads: int = 2


def run(spec: TrainSpec) -> None:
    """Train, unless the artifact of exactly this training is there already: then its result is given again."""
    task, parameters, folder = task_named(spec.task), Parameters.from_json(spec.parameters), Path(spec.artifact)
    check_snapshot(Path(spec.snapshot), spec.snapshot_sha256)
    request = _request(spec, parameters)
    if not folder.exists():
        rows = read_columns(Path(spec.snapshot), *spec.numeric, *spec.categorical, spec.label, "partition_date")
        _train(spec, task, rows, parameters, request, folder)
    manifest_sha256 = sha256_of(folder / MANIFEST)
    manifest = read_manifest(folder, manifest_sha256)
    if manifest["request"] != request:
        raise CorruptArtifact(f"{folder}: holds a model of another training: give each training a folder of its own")
    result = {key: manifest[key] for key in ("metrics", "training", "holdout", "snapshot_id", "snapshot_sha256")}
    write_json(Path(spec.result), {**result, "artifact": str(folder), "manifest_sha256": manifest_sha256})
    print(f"trained {spec.model}: {json.dumps(manifest['metrics'])}, manifest {manifest_sha256}", flush=True)


def _train(spec: TrainSpec, task: Task, rows: pa.Table, parameters: Parameters, request: dict[str, Any], folder: Path) -> None:
    print(f"training {spec.model} on {rows.num_rows} rows or fewer, {parameters.trees} trees", flush=True)
    done = 0
    say = every_few_seconds(lambda: f"{done} of {parameters.trees} trees")

    def progress(trees: int) -> None:
        nonlocal done
        done = trees
        say()

    trained = train(
        rows,
        task,
        spec.numeric,
        spec.categorical,
        spec.label,
        parameters,
        holdout_days=spec.holdout_days,
        min_rows=spec.min_rows,
        threads=spec.threads,
        progress=progress,
    )
    description = {
        "model": spec.model,
        "task": task,
        "parameters": parameters.to_json(),
        "snapshot_id": spec.snapshot_id,
        "snapshot_sha256": spec.snapshot_sha256,
        "request": request,
        "training": trained.training.to_json(),
        "holdout": trained.holdout.to_json(),
        "metrics": trained.metrics,
        "reference": trained.reference,
        "importance": importance(trained.booster, trained.spec.names),
    }
    # Another attempt of the same training may have been faster; `run` checks that it was the same.
    with suppress(FileExistsError):
        save_artifact(folder, trained.booster, trained.spec, trained.golden, description)


def _request(spec: TrainSpec, parameters: Parameters) -> dict[str, Any]:
    """All that the model depends on, for comparing two trainings. The number of threads is not among it."""
    return {
        **{key: getattr(spec, key) for key in ("model", "task", "label", "holdout_days", "min_rows", "snapshot_sha256")},
        "numeric": list(spec.numeric),
        "categorical": list(spec.categorical),
        "parameters": parameters.to_json(),
    }


if __name__ == "__main__":
    main(TrainSpec, run)
