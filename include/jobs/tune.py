"""Choose the parameters of a training from its snapshot: `python -m include.jobs.tune <spec.json>`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from include.core.files import write_json
from include.core.tuning import Space, Trial, tune
from include.jobs.process import check_snapshot, main, read_columns, task_named


@dataclass(frozen=True)
class TuneSpec:
    """The spec of the job. Paths are local."""

    snapshot: str  # Parquet file: features, label, partition_date
    snapshot_sha256: str
    result: str  # JSON file to write: core.tuning.Tuned
    model: str
    task: str  # "classification" or "regression"
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    label: str = "label"
    seed: int = 7
    holdout_days: int = 14
    min_rows: int = 1000
    max_trees: int = 300
    trials: int = 12
    validation_days: int = 7  # of each of two validation sets
    windows: tuple[int | None, ...] = (28, 56, None)
    half_lives: tuple[float | None, ...] = (None, 28)
    threads: int = 2


def run(spec: TuneSpec) -> None:
    """Search, and say of each trial how it did. The same snapshot and spec give the same result, to the byte."""
    task, space = task_named(spec.task), Space(spec.windows, spec.half_lives, spec.max_trees)
    check_snapshot(Path(spec.snapshot), spec.snapshot_sha256)

    def progress(number: int, trial: Trial, best: float) -> None:
        loss = "cut short" if trial.loss is None else f"loss {trial.loss:.5f}"
        print(f"trial {number} of {spec.trials}: {loss}, {trial.parameters.trees} trees, best {best:.5f}", flush=True)

    tuned = tune(
        read_columns(Path(spec.snapshot), *spec.numeric, *spec.categorical, spec.label, "partition_date"),
        task,
        spec.numeric,
        spec.categorical,
        spec.label,
        space,
        trials=spec.trials,
        validation_days=spec.validation_days,
        holdout_days=spec.holdout_days,
        min_rows=spec.min_rows,
        seed=spec.seed,
        threads=spec.threads,
        progress=progress,
    )
    write_json(Path(spec.result), tuned.to_json())
    print(
        f"tuned {spec.model}: loss {tuned.loss:.5f} ({tuned.baseline_loss:.5f} without features), {tuned.parameters}", flush=True
    )


if __name__ == "__main__":
    main(TuneSpec, run)
