"""What training is about, on every platform: the specs of its jobs without their paths, and what a snapshot is."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from include import partitions, queries
from include.authored_sql import TABLE
from include.config import ModelConfig, settings
from include.platforms.base import LeakFound, SourceMissing
from include.queries import Dialect, Query

REPLAYED_DAYS = 5
# No table of a model is called so: their names begin with a letter.
SNAPSHOT = "_snapshot"


def window(run: Mapping[str, Any]) -> list[date]:
    """The days of a snapshot."""
    return list(partitions.days(partitions.parse(run["first"]), partitions.parse(run["last"])))


def require_landed(model: ModelConfig, days: Sequence[date], landed: Mapping[str, Sequence[date]]) -> None:
    """
    Args:
        landed: the days that have landed, of the entity table and of the labels.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
    """
    missing = [f"{table} {day}" for table in (model.source.table, model.labels.table) for day in days if day not in landed[table]]
    if missing:
        raise SourceMissing(
            f"{model.name}: {len(missing)} partitions of the training window have not landed: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}; land them, or give another as_of"
        )


def snapshot_manifest(
    model: ModelConfig,
    run: Mapping[str, Any],
    sql: str,
    sources: Mapping[str, str],
    rows: int,
    sha256: str,
    offered: int,
    labelled: int,
) -> dict[str, Any]:
    """What is kept beside a snapshot, so that it can be made again.

    Args:
        offered: rows of the holdout; labelled: those of them that have a label.
    """
    held_out = window(run)[-model.training.holdout_days]
    return {
        "model": model.name,
        "as_of": run["as_of"],
        "sql": sql,
        "sql_sha256": sql_sha256(model),
        "first": run["first"],
        "last": run["last"],
        "labels": {"table": model.labels.table, "delay_days": model.labels.delay_days, "matured_until": run["last"]},
        "holdout": {"first": held_out.isoformat(), "last": run["last"], "rows": offered, "labelled": labelled},
        "sources": dict(sources),
        "rows": rows,
        "sha256": sha256,
        "git_revision": settings().revision,
    }


def snapshot(name: str, file: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What `Platform.snapshot_training_set` tells of one that is kept."""
    held_out = manifest["holdout"]
    return {
        "snapshot": name,
        "file": file,
        **{kept: manifest[kept] for kept in ("sha256", "sql_sha256", "rows")},
        "label_coverage": held_out["labelled"] / held_out["rows"] if held_out["rows"] else None,
    }


def check_snapshot(name: str) -> None:
    """
    Raises:
        LookupError: if no snapshot can have this name.
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{16}", name):
        raise LookupError(f"{name!r} is no snapshot: they are named like 2013-04-01-0123456789abcdef")


def inspected(model: ModelConfig, found: Mapping[str, Any], replayed: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `Platform.inspect_training_set` tells.

    Args:
        found: the document of `jobs.inspect`; replayed: rows of `replay`, each with its day as `_day`.

    Raises:
        LeakFound: naming the columns that nobody could know.
    """
    days = []
    for row in replayed:
        day = partitions.parse(row["_day"])
        refuse_leaks(model, day, {name: int(rows or 0) for name, rows in row.items() if name != "_day"})
        days.append(day.isoformat())
    return {**{name: found[name] for name in ("rows", "positives", "strength")}, "replayed": sorted(days)}


def tuned(found: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """What `Platform.tune` tells of the document of `jobs.tune`."""
    return {**{name: found[name] for name in ("parameters", "loss")}, "trials": len(found["trials"]), "seconds": seconds}


def shadowed(found: Mapping[str, Any], partition: str) -> dict[str, Any]:
    """What `Platform.shadow_score` tells of the document of `jobs.shadow`."""
    return {"partition": partition, **{name: found[name] for name in ("rows", "rows_scored", "unseen", "churn", "shift")}}


def sql_sha256(model: ModelConfig) -> str:
    """Of the SQL without the places of a platform: the same model has the same everywhere."""
    portable = queries.training_set(model, "duckdb", {name: name for name in queries.table_names(model)})
    return hashlib.sha256(portable.sql.encode()).hexdigest()


def learning(model: ModelConfig, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """What the jobs that learn from a snapshot are told alike."""
    return {
        "model": model.name,
        "task": model.task,
        "snapshot_sha256": snapshot["sha256"],
        "numeric": list(model.features.numeric),
        "categorical": list(model.features.categorical),
        "holdout_days": model.training.holdout_days,
        "min_rows": model.training.min_rows,
    }


def tuning(model: ModelConfig, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Of `jobs.tune`."""
    search = model.training.search
    return {
        **learning(model, snapshot),
        "seed": model.training.seed,
        "max_trees": model.training.max_trees,
        "trials": search.trials,
        "validation_days": search.validation_days,
        "windows": search.windows,
        "half_lives": search.half_lives,
    }


def training(model: ModelConfig, snapshot: Mapping[str, Any], tuned: Mapping[str, Any]) -> dict[str, Any]:
    """Of `jobs.train`. An artifact depends on nothing else."""
    return {**learning(model, snapshot), "snapshot_id": snapshot["snapshot"], "parameters": tuned["parameters"]}


def inspection(model: ModelConfig, snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """Of `jobs.inspect`."""
    return {
        "snapshot_sha256": snapshot["sha256"],
        "task": model.task,
        "key": model.source.key,
        "numeric": list(model.features.numeric),
        "categorical": list(model.features.categorical),
        "max_feature_auc": model.training.max_feature_auc,
    }


def evaluation(
    model: ModelConfig, snapshot: Mapping[str, Any], challenger: Mapping[str, Any], champion: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Of `jobs.evaluate`."""
    return {
        "snapshot_sha256": snapshot["sha256"],
        "manifest_sha256": challenger["manifest_sha256"],
        "champion_manifest_sha256": champion["manifest_sha256"] if champion else None,
        "task": model.task,
        "slices": list(model.gate.slices),
        "threshold": model.prediction.decision_threshold,
    }


def shadowing(model: ModelConfig, version: Mapping[str, Any], champion: Mapping[str, Any] | None) -> dict[str, Any]:
    """Of `jobs.shadow`."""
    return {
        "key": model.source.key,
        "manifest_sha256": version["manifest_sha256"],
        "champion_manifest_sha256": champion["manifest_sha256"] if champion else "",
        "threshold": model.prediction.decision_threshold,
    }


def newest(model: ModelConfig, run: Mapping[str, Any], landed: Sequence[date]) -> date:
    """The partition that a new version is tried on.

    Raises:
        SourceMissing: if none has landed yet.
    """
    as_of = partitions.parse(run["as_of"])
    before = [day for day in landed if day <= as_of]
    if not before:
        raise SourceMissing(f"{model.name}: no partition has landed up to {as_of}: there is nothing to try the new version on")
    return max(before)


def replayed_days(run: Mapping[str, Any]) -> list[date]:
    """The days of a snapshot that are made again. The last one has nothing after it that it could have seen."""
    days = window(run)
    if len(days) < 2:
        return []
    return sorted({days[i * (len(days) - 2) // (REPLAYED_DAYS - 1)] for i in range(REPLAYED_DAYS)})


def replay(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str], snapshot: str) -> Query:
    """How many rows of a day differ, by column, when they are made again.

    Args:
        tables: as for `queries.build_features`, as if nothing later than the day had landed; snapshot: likewise.
    """
    return queries.render("replayed", model, dialect, {**tables, SNAPSHOT: snapshot}, snapshot=TABLE + SNAPSHOT)


def refuse_leaks(model: ModelConfig, day: date, found: Mapping[str, int]) -> None:
    """
    Args:
        found: a row of `replay`.

    Raises:
        LeakFound: naming the columns that differ: they come from later partitions.
    """
    changed = {("rows" if name == "_rows" else name): rows for name, rows in found.items() if rows}
    if changed:
        told = ", ".join(f"{name} ({rows} rows)" for name, rows in changed.items())
        raise LeakFound(
            f"{model.name}: as it was on {day}, before any later partition landed, the training set was another one: {told}. "
            "features.sql or labels.sql read partitions after the day of the row; bound every table by partition_date"
        )
