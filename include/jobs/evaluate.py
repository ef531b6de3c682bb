"""Measure a challenger, beside the champion, on rows that neither was trained on: `python -m include.jobs.evaluate <spec.json>`.

The snapshot is streamed: memory depends on the batch, and per row of the holdout on a label, two scores and a code per slice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.core import profile
from include.core.artifacts import MODEL, Artifact, CorruptArtifact, check_golden, load_artifact, predict
from include.core.comparison import Coded, side_by_side
from include.core.errors import Refused
from include.core.evaluation import Task
from include.core.features import UnusableFeatures, categories, check_columns, encode
from include.core.files import sha256_of, write_json
from include.jobs.process import every_few_seconds, main

BATCH_ROWS = 65536


class CannotEvaluate(Refused):
    """There is nothing that the models could be measured on; the message says what is wrong with the rows."""


@dataclass(frozen=True)
class EvaluateSpec:
    """The spec of the job. Paths are local."""

    snapshot: str  # Parquet file: features, label, partition_date; what is later than both models' training is the holdout
    snapshot_sha256: str
    artifact: str  # folder of the challenger
    manifest_sha256: str
    result: str  # JSON file to write
    champion_artifact: str | None = None  # None without a champion
    champion_manifest_sha256: str | None = None
    task: str = "classification"
    slices: tuple[str, ...] = ()  # categorical columns
    threshold: float = 0.5  # decision = score >= threshold
    label: str = "label"


@dataclass
class Scorer:
    """A model at work: its scores of the rows so far, and the CPU time that encoding and scoring them took."""

    role: str
    artifact: Artifact
    folder: Path
    scores: list[npt.NDArray[np.float32]] = field(default_factory=list)
    cpu_seconds: float = 0.0

    def score(self, batch: pa.RecordBatch) -> None:
        started = time.process_time()
        matrix, _ = encode(batch, self.artifact.spec)
        self.scores.append(predict(self.artifact.booster, matrix))
        self.cpu_seconds += time.process_time() - started

    @property
    def trained_to(self) -> date:
        return date.fromisoformat(self.artifact.manifest["training"]["last"])

    def describe(self, rows: int) -> dict[str, Any]:
        """What the evaluation says of the model besides its metrics."""
        training = self.artifact.manifest["training"]
        return {
            "manifest_sha256": self.artifact.manifest_sha256,
            "trained_from": training["first"],
            "trained_to": training["last"],
            "training_rows": training["rows"],
            "megabytes": (self.folder / MODEL).stat().st_size / 1e6,
            "seconds_per_million": self.cpu_seconds / rows * 1e6,
        }


class Codes:
    """A column as small integers, batch by batch: the same value has the same code in all of them."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}
        self.codes: list[npt.NDArray[np.int32]] = []

    def add(self, batch: pa.RecordBatch, column: str) -> None:
        coded = categories(batch, column)
        # One more than there are values: NULL's, -1.
        table = np.array([*(self.known.setdefault(v, len(self.known)) for v in coded.dictionary.to_pylist()), -1], dtype=np.int32)
        self.codes.append(table[pc.fill_null(coded.indices, len(table) - 1).to_numpy(zero_copy_only=False)])

    def all(self) -> Coded:
        return np.concatenate(self.codes), list(self.known)


def run(spec: EvaluateSpec) -> None:
    """Load the models as the score job does, score the partitions after both models' last of training, and compare."""
    if spec.task not in get_args(Task):
        raise CannotEvaluate(f"task is {spec.task!r}: must be one of {', '.join(get_args(Task))}")
    task: Task = "regression" if spec.task == "regression" else "classification"
    snapshot = Path(spec.snapshot)
    if sha256_of(snapshot) != spec.snapshot_sha256:
        raise CannotEvaluate(f"{snapshot}: is not the snapshot that the model was trained from: take the snapshot again")
    challenger = _loaded("challenger", spec.artifact, spec.manifest_sha256, task)
    champion = None
    if spec.champion_artifact or spec.champion_manifest_sha256:
        # Half of a champion is none: its missing half refuses it, rather than letting the challenger pass as the first model.
        champion = _loaded("champion", spec.champion_artifact or "", spec.champion_manifest_sha256 or "", task)
    scorers = [scorer for scorer in (challenger, champion) if scorer]
    seen = max(scorers, key=lambda scorer: scorer.trained_to)

    labels: list[npt.NDArray] = []
    days: list[npt.NDArray] = []
    columns = {name: Codes() for name in spec.slices}
    seen_cells = champion.artifact.manifest["reference"]["features"] if champion else {}
    counted = None
    rows = 0
    progress = every_few_seconds(lambda: f"scored {rows:,} rows")
    for batch in _holdout(snapshot, spec, scorers, seen.trained_to):
        labels.append(_labels(batch, spec.label, task))
        days.append(batch.column("partition_date").to_numpy(zero_copy_only=False))
        for scorer in scorers:
            scorer.score(batch)
        for name, codes in columns.items():
            codes.add(batch, name)
        if champion:
            cells = profile.count(batch, seen_cells)
            counted = profile.merge(counted, cells) if counted else cells
        rows += batch.num_rows
        progress()
    if rows == 0:
        raise CannotEvaluate(
            f"{snapshot}: has no row later than {seen.trained_to}, the last day that the {seen.role} was trained on: nothing to "
            "evaluate on; wait for labels of later days, and take the snapshot again"
        )

    scores = [_finite(scorer) for scorer in scorers]
    partitions, partition_of = np.unique(np.concatenate(days), return_inverse=True)
    found = side_by_side(
        task,
        np.concatenate(labels),
        scores[1] if champion else None,
        scores[0],
        {name: codes.all() for name, codes in columns.items()},
        spec.threshold,
        partition_of,
    )
    result = {
        **found,
        "first": str(partitions[0]),
        "last": str(partitions[-1]),
        "partitions": len(partitions),
        "challenger": {**found["challenger"], **challenger.describe(rows)},
        "champion": {**found["champion"], **champion.describe(rows)} if champion else None,
        "data_changes": profile.changes(seen_cells, counted) if counted else None,
    }
    write_json(Path(spec.result), result)
    print(f"evaluated on {rows:,} rows of {result['first']} to {result['last']}: {_said(result)}", flush=True)


def _loaded(role: str, folder: str, manifest_sha256: str, task: Task) -> Scorer:
    """A model that is whole, scores its golden rows as it did, and says what it was trained on."""
    try:
        artifact = load_artifact(Path(folder), manifest_sha256)
        check_golden(artifact)
    except CorruptArtifact as error:
        raise CorruptArtifact(f"the {role}: {error}") from None
    # One thread: its CPU time is then that of the work, and not of threads that wait for each other.
    artifact.booster.set_param({"nthread": 1})
    training = artifact.manifest.get("training")
    if not isinstance(training, dict) or not {"first", "last", "rows"} <= training.keys():
        raise CorruptArtifact(f"the {role}: {folder}: its manifest does not say what it was trained on: train it again")
    if artifact.manifest.get("task", task) != task:
        raise CannotEvaluate(
            f"the {role}: {folder}: is a {artifact.manifest['task']}, not a {task}: train one of this task first"
        )
    return Scorer(role, artifact, Path(folder))


def _holdout(snapshot: Path, spec: EvaluateSpec, scorers: list[Scorer], after: date) -> Iterator[pa.RecordBatch]:
    """The rows of later partitions, in batches of the columns that are needed."""
    wanted = dict.fromkeys([*(name for scorer in scorers for name in scorer.artifact.spec.names), *spec.slices])
    # ParquetFile, not read_table: that would take "partition_date=..." in the path for a column.
    with pq.ParquetFile(snapshot, pre_buffer=False) as file:
        known = file.schema_arrow
        if missing := [name for name in (spec.label, "partition_date") if name not in known.names]:
            raise CannotEvaluate(f"{snapshot}: has no column {' and no '.join(map(repr, missing))}: take the snapshot again")
        if not pa.types.is_date32(known.field("partition_date").type):
            raise CannotEvaluate(f"{snapshot}: column 'partition_date' holds {known.field('partition_date').type}, not a DATE")
        empty = pa.RecordBatch.from_pylist([], schema=known)
        for scorer in scorers:
            _check(scorer.role, empty, scorer.artifact.spec.numeric, scorer.artifact.spec.categorical)
        _check("list of slices", empty, (), spec.slices)
        limit = pa.scalar(after, pa.date32())
        for batch in file.iter_batches(BATCH_ROWS, columns=[*wanted, spec.label, "partition_date"]):
            later = batch.filter(pc.greater(batch.column("partition_date"), limit))
            if later.num_rows:
                yield later


def _check(what: str, batch: pa.RecordBatch, numeric: tuple[str, ...], categorical: tuple[str, ...]) -> None:
    try:
        check_columns(batch, numeric, categorical)
    except UnusableFeatures as error:
        raise UnusableFeatures(f"the {what}: {error}") from None


def _labels(batch: pa.RecordBatch, label: str, task: Task) -> npt.NDArray:
    column = batch.column(label)
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
        raise CannotEvaluate(f"the label {label!r} holds {kind}: labels.sql must give a number")
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    possible = (values == 0) | (values == 1) if task == "classification" else np.isfinite(values)
    if wrong := int((~possible).sum()):
        wanted = "0 or 1" if task == "classification" else "a finite number"
        raise CannotEvaluate(f"the label {label!r} of {wrong} of {len(values)} rows is not {wanted}: labels.sql must decide each")
    return values.astype(np.int8) if task == "classification" else values


def _finite(scorer: Scorer) -> npt.NDArray[np.float64]:
    scores = np.concatenate(scorer.scores).astype(np.float64)
    if wrong := int((~np.isfinite(scores)).sum()):
        raise CannotEvaluate(
            f"the {scorer.role}: {wrong} of {len(scores)} scores are NaN or infinite: check what it was trained on"
        )
    return scores


def _said(result: dict[str, Any]) -> str:
    shown = {name: metric["value"] for name, metric in result["challenger"]["metrics"].items()}
    said = ", ".join(f"{name} {'unknown' if value is None else f'{value:.4f}'}" for name, value in shown.items())
    gains = ", ".join(f"{c['metric']} {c['improvement']:+.4f}" for c in result["comparisons"] if c["improvement"] is not None)
    return f"{said}; against the champion: {gains}" if gains else said


if __name__ == "__main__":
    main(EvaluateSpec, run)
