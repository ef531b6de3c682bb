"""Look at a snapshot before anything is learned from it: `python -m include.jobs.inspect <spec.json>`.

Reads the whole snapshot, holdout included, one feature at a time: memory depends on the rows, not on the number of
features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from include.core.errors import Refused
from include.core.files import write_json
from include.core.leakage import Strength, refuse_leaks, repeated_keys, strength
from include.core.training import dates_of, labels_of, one_batch
from include.jobs.process import check_snapshot, every_few_seconds, main, read_columns, task_named


class UnusableSnapshot(Refused):
    """The snapshot is nothing to learn from; the message says why."""


@dataclass(frozen=True)
class InspectSpec:
    """The spec of the job. Paths are local."""

    snapshot: str  # Parquet file: key, features, label, partition_date
    snapshot_sha256: str
    result: str  # JSON file to write: rows, positives, strength
    task: str  # "classification" or "regression"
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    max_feature_auc: float
    key: str
    label: str = "label"


def run(spec: InspectSpec) -> None:
    """Refuse a snapshot without rows, with a key twice in a partition, with one label only, or with a leak."""
    task, path = task_named(spec.task), Path(spec.snapshot)
    check_snapshot(path, spec.snapshot_sha256)
    keys = read_columns(path, spec.key, "partition_date")
    if spec.key not in keys.column_names:
        raise UnusableSnapshot(f"{path}: has no column {spec.key!r}: features.sql must give the key")
    if keys.num_rows == 0:
        raise UnusableSnapshot(f"{path}: has no rows: no partition of the window has rows with a label, check labels.sql")
    dates_of(one_batch(keys))
    if repeated := repeated_keys(keys):
        raise UnusableSnapshot(
            f"{path}: {repeated} of {keys.num_rows} rows have a {spec.key} that is NULL, or in their partition twice: "
            "features.sql and labels.sql must give each row once"
        )
    del keys
    labels = labels_of(one_batch(read_columns(path, spec.label)), spec.label, task)
    if labels.min() == labels.max():
        raise UnusableSnapshot(f"{path}: the label of all {len(labels)} rows is {labels[0]:g}: check labels.sql")

    found: dict[str, Strength] = {}
    names = (*spec.numeric, *spec.categorical)
    say = every_few_seconds(lambda: f"looked at {len(found)} of {len(names)} features")
    for name in names:
        found[name] = strength(task, labels, one_batch(read_columns(path, name)), name, name in spec.categorical)
        say()
    positives = int(np.count_nonzero(labels)) if task == "classification" else None
    refuse_leaks(found, spec.max_feature_auc)
    write_json(Path(spec.result), {"rows": len(labels), "positives": positives, "strength": found})
    strongest = sorted(((one["auc"], name) for name, one in found.items() if one["auc"] is not None), reverse=True)[:3]
    tell = ", ".join(f"{name} {auc:.3f}" for auc, name in strongest) or "none could be judged"
    print(f"inspected {len(labels)} rows; the strongest features, by AUC alone: {tell}", flush=True)


if __name__ == "__main__":
    main(InspectSpec, run)
