"""Training on the embedded platform: snapshots, artifacts and evaluations are files of the lake, jobs are subprocesses.

training/<model>/<as of>-<digest>/data.parquet, manifest.json      snapshots, named by their content, never changed
models/<model>/<digest>/                                           artifacts, named by the training they come from
evaluations/<model>/<as of>/<run>/evaluation.json, report.html     what a gate has judged
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import partitions, queries
from include.config import ModelConfig, settings
from include.core.audit import distance
from include.core.files import json_bytes, new_folder, sha256_of, write_json
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms.base import LeakFound, SourceChanged, SourceMissing

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

REPLAYED_DAYS = 5
SHADOW_CELLS = 50
NUMBERS_APART = 1e-9  # relative: sums may be added up in another order


@model_task
def snapshot_training_set(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Features and labels of the window, frozen: named by its content, written once, never changed.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
        SourceChanged: if one of them was replaced meanwhile.
    """
    first, last = partitions.parse(run["first"]), partitions.parse(run["last"])
    days = list(partitions.days(first, last))
    missing = [
        f"{table} {day}" for table in (model.source.table, model.labels.table) for day in days if not lake.has_landed(table, day)
    ]
    if missing:
        raise SourceMissing(
            f"{model.name}: {len(missing)} partitions of the training window have not landed: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}; land them, or give another as_of"
        )
    query, sources = queries.training_set(model, engine.DIALECT, engine.tables(model)), _sources(model, days)
    draft = _workspace(model, run) / "snapshot.parquet"
    held_out = days[-model.training.holdout_days]
    with engine.connected() as connection:
        rows = engine.write(connection, query, {"first_partition": first, "last_partition": last}, draft)
        labelled = engine.value(
            connection, f"SELECT count(*) FROM {engine.parquet(str(draft))} WHERE partition_date >= DATE '{held_out}'"
        )
        offered = _rows_to_label(connection, model, held_out, last)
    if _sources(model, days) != sources:
        raise SourceChanged(
            f"{model.name}: partitions of {first} to {last} changed while they were read; the next try reads the new ones"
        )
    sha256 = sha256_of(draft)
    snapshot = f"{run['as_of']}-{sha256[:16]}"
    folder = settings().lake / "training" / model.name / snapshot
    sql_sha256 = hashlib.sha256(_portable(model).encode()).hexdigest()
    manifest = {
        "model": model.name,
        "as_of": run["as_of"],
        "sql": query.sql,
        "sql_sha256": sql_sha256,
        "first": run["first"],
        "last": run["last"],
        "labels": {"table": model.labels.table, "delay_days": model.labels.delay_days, "matured_until": run["last"]},
        "holdout": {"first": held_out.isoformat(), "last": run["last"], "rows": offered, "labelled": labelled},
        "sources": sources,
        "rows": rows,
        "sha256": sha256,
        "git_revision": settings().revision,
    }
    with suppress(FileExistsError), new_folder(folder) as place:
        draft.rename(place / lake.DATA)
        (place / "manifest.json").write_bytes(json_bytes(manifest))
    draft.unlink(missing_ok=True)
    log.info(f"snapshot {snapshot}: {rows} rows of {first} to {last}; {labelled} of {offered} rows of the holdout have a label")
    return {
        "snapshot": snapshot,
        "file": str(folder / lake.DATA),
        "sha256": sha256,
        "sql_sha256": sql_sha256,
        "rows": rows,
        "label_coverage": labelled / offered if offered else None,
    }


def inspect_training_set(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """Does the snapshot know what nobody knew at prediction time? See `platforms.base.Platform`."""
    spec = {
        "snapshot": snapshot["file"],
        "snapshot_sha256": snapshot["sha256"],
        "task": model.task,
        "key": model.source.key,
        "numeric": list(model.features.numeric),
        "categorical": list(model.features.categorical),
        "max_feature_auc": model.training.max_feature_auc,
    }
    found = engine.run_job("inspect", _workspace(model, run), spec)
    return {**found, "replayed": _replay(model, run, snapshot)}


@model_task
def tune(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The parameters and the training window that did best on the last days before the holdout."""
    search = model.training.search
    spec = {
        **_training(model, snapshot),
        "snapshot": snapshot["file"],
        "seed": model.training.seed,
        "max_trees": model.training.max_trees,
        "trials": search.trials,
        "validation_days": search.validation_days,
        "windows": search.windows,
        "half_lives": search.half_lives,
    }
    found = engine.run_job("tune", _workspace(model, run), spec)
    kept = {name: found[name] for name in ("parameters", "loss")}
    return {**kept, "trials": len(found["trials"]), "seconds": found["job_seconds"]}


@model_task
def train(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """A challenger, by a job script in a process of its own. The same snapshot and parameters give the same artifact."""
    training = {**_training(model, snapshot), "snapshot_id": snapshot["snapshot"], "parameters": tuned["parameters"]}
    artifact = settings().lake / "models" / model.name / hashlib.sha256(json_bytes(training)).hexdigest()[:16]
    spec = {**training, "snapshot": snapshot["file"], "artifact": str(artifact)}
    trained = engine.run_job("train", _workspace(model, run), spec)
    kept = {name: trained[name] for name in ("artifact", "manifest_sha256")}
    return {**kept, "snapshot": snapshot["snapshot"], "seconds": trained["job_seconds"]}


@model_task
def evaluate(
    model: ModelConfig,
    run: dict[str, Any],
    snapshot: dict[str, Any],
    challenger: dict[str, Any],
    champion: dict[str, Any],
) -> dict[str, Any]:
    """Challenger and champion, loaded as scoring will load them, on the same rows, later than both have learned from."""
    against = champion["version"] or {"artifact": "", "manifest_sha256": ""}
    spec = {
        "snapshot": snapshot["file"],
        "snapshot_sha256": snapshot["sha256"],
        "artifact": challenger["artifact"],
        "manifest_sha256": challenger["manifest_sha256"],
        "champion_artifact": against["artifact"],
        "champion_manifest_sha256": against["manifest_sha256"],
        "task": model.task,
        "slices": list(model.gate.slices),
        "threshold": model.prediction.decision_threshold,
    }
    document = engine.run_job("evaluate", _workspace(model, run), spec)
    seconds = document.pop("job_seconds")
    kept = Path(evaluation_folder(model, run)) / "evaluation.json"
    write_json(kept, document)
    return {"document": str(kept), "rows": document["rows"], "seconds": seconds}


@model_task
def shadow_score(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], champion: dict[str, Any]) -> dict[str, Any]:
    """Challenger and champion side by side on the newest partition that had landed, in processes of their own."""
    as_of = partitions.parse(run["as_of"])
    landed = [day for day in lake.days_landed(model.source.table) if day <= as_of]
    if not landed:
        raise SourceMissing(f"{model.name}: no partition has landed up to {as_of}: there is nothing to try the new version on")
    place = _workspace(model, run) / "shadow"
    place.mkdir(parents=True, exist_ok=True)
    with engine.connected() as connection:
        query = queries.accepted_features(model, engine.DIALECT, engine.tables(model))
        bound = {"first_partition": landed[-1], "last_partition": landed[-1]}
        rows = engine.write(connection, query, bound, place / "features.parquet")
    scored = {
        name: engine.run_job(
            "score",
            place / name,
            {
                "features": str(place / "features.parquet"),
                "output": str(place / f"{name}.parquet"),
                "key": model.source.key,
                "artifact": chosen["artifact"],
                "manifest_sha256": chosen["manifest_sha256"],
            },
        )
        for name, chosen in (("challenger", version), ("champion", champion["version"]))
        if chosen
    }
    facts = {"partition": landed[-1].isoformat(), "rows": rows}
    facts |= {"rows_scored": scored["challenger"]["rows"], "unseen": scored["challenger"]["unseen"], "churn": None, "shift": None}
    return facts | (_compare(model, place) if "champion" in scored else {})


def manifest_of(model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`. Files are read and nothing is loaded, so it needs no process of its own."""
    from include.core.artifacts import CorruptArtifact, read_manifest  # imports XGBoost, which takes a second

    try:
        return read_manifest(Path(version["artifact"]), version["manifest_sha256"])
    except CorruptArtifact as error:
        raise ValueError(f"{model.name}: version {version['version']} cannot be used: {error}") from None


def snapshot_manifest(model: ModelConfig, snapshot: str) -> dict[str, Any]:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}-[0-9a-f]{16}", snapshot):
        raise LookupError(f"{snapshot!r} is no snapshot: they are named like 2013-04-01-0123456789abcdef")
    file = settings().lake / "training" / model.name / snapshot / "manifest.json"
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise LookupError(f"{model.name}: snapshot {snapshot} is gone: {file} is not there") from None


def evaluation_folder(model: ModelConfig, run: dict[str, Any]) -> str:
    return str(settings().lake / "evaluations" / model.name / partitions.parse(run["as_of"]).isoformat() / run["workspace"])


def labelled_until(model: ModelConfig) -> date | None:
    labelled = set(lake.days_landed(model.source.table)) & set(lake.days_landed(model.labels.table))
    return max(labelled, default=None)


def _training(model: ModelConfig, snapshot: dict[str, Any]) -> dict[str, Any]:
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


def _sources(model: ModelConfig, days: list[date]) -> dict[str, str]:
    """Fingerprint of each day, its labels included."""
    return {day.isoformat(): lake.fingerprint(model, day, also=[model.labels.table]) for day in days}


def _portable(model: ModelConfig) -> str:
    """The SQL without the folders of this machine: the same model has the same hash everywhere."""
    return queries.training_set(model, engine.DIALECT, {name: name for name in queries.table_names(model)}).sql


def _rows_to_label(connection: DuckDBPyConnection, model: ModelConfig, first: date, last: date) -> int:
    accepted = queries.accepted_features(model, engine.DIALECT, engine.tables(model))
    return engine.value(connection, f"SELECT count(*) FROM ({accepted.sql})", {"first_partition": first, "last_partition": last})


def _replay(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> list[str]:
    """Make some days of the snapshot again, from what had landed on those days and nothing later; they must be the same.

    Raises:
        LeakFound: naming the columns that are not: they come from later partitions.
    """
    first, last = partitions.parse(run["first"]), partitions.parse(run["last"])
    days = list(partitions.days(first, last))
    # The last day has nothing after it that it could have seen.
    chosen = sorted({days[i * (len(days) - 2) // (REPLAYED_DAYS - 1)] for i in range(REPLAYED_DAYS)}) if len(days) > 1 else []
    columns = {**dict.fromkeys(model.features.numeric, "number"), **dict.fromkeys(model.features.categorical, "text")}
    for day in chosen:
        with engine.connected() as connection:
            query = queries.training_set(model, engine.DIALECT, engine.tables(model, until=day))
            again = _workspace(model, run) / "replay.parquet"
            engine.write(connection, query, {"first_partition": day, "last_partition": day}, again)
            differences = ", ".join(
                f'count(*) FILTER ({_differs(name, kind)}) AS "{name}"' for name, kind in {**columns, "label": "number"}.items()
            )
            found = connection.sql(
                f'SELECT {differences}, count(*) FILTER (a.partition_date IS NULL OR b.partition_date IS NULL) AS "rows" '
                f"FROM (FROM {engine.parquet(snapshot['file'])} WHERE partition_date = DATE '{day}') a "
                f'FULL JOIN {engine.parquet(str(again))} b ON a."{model.source.key}" = b."{model.source.key}"'
            )
            (counts,) = found.fetchall()
            changed = {name: rows for name, rows in zip(found.columns, counts, strict=True) if rows}
            again.unlink(missing_ok=True)
        if changed:
            told = ", ".join(f"{name} ({rows} rows)" for name, rows in changed.items())
            raise LeakFound(
                f"{model.name}: as it was on {day}, before any later partition landed, the training set was another one: {told}. "
                "features.sql or labels.sql read partitions after the day of the row; bound every table by partition_date"
            )
    return [day.isoformat() for day in chosen]


def _differs(name: str, kind: str) -> str:
    both = f'a."{name}" IS DISTINCT FROM b."{name}" AND a.partition_date IS NOT NULL AND b.partition_date IS NOT NULL'
    if kind != "number":
        return both
    return f'{both} AND NOT coalesce(abs(a."{name}" - b."{name}") <= {NUMBERS_APART} * greatest(1, abs(a."{name}")), false)'


def _compare(model: ModelConfig, place: Path) -> dict[str, Any]:
    """How differently two models decide the same rows, and how far their scores are apart (Kolmogorov-Smirnov, 0..1)."""
    both = (
        f"{engine.parquet(str(place / 'challenger.parquet'))} a JOIN {engine.parquet(str(place / 'champion.parquet'))} b "
        f'USING ("{model.source.key}", partition_date)'
    )
    threshold = model.prediction.decision_threshold
    cell = "least(floor((score - low) / nullif(high - low, 0) * $cells), $cells - 1)"
    with engine.connected() as connection:
        ((churn, low, high),) = connection.execute(
            f"SELECT avg(((a.score >= $threshold) <> (b.score >= $threshold))::INT), min(least(a.score, b.score)), "
            f"max(greatest(a.score, b.score)) FROM {both}",
            {"threshold": threshold},
        ).fetchall()
        counts = {}
        for name in ("challenger", "champion"):
            cells = dict(
                connection.execute(
                    f"SELECT coalesce({cell}, 0)::INT, count(*) FROM {engine.parquet(str(place / f'{name}.parquet'))}, "
                    "(SELECT $low AS low, $high AS high) GROUP BY 1",
                    {"low": low, "high": high, "cells": SHADOW_CELLS},
                ).fetchall()
            )
            counts[name] = [cells.get(position, 0) for position in range(SHADOW_CELLS)]
    return {"churn": churn, "shift": distance(counts["challenger"], counts["champion"])}


def _workspace(model: ModelConfig, run: dict[str, Any]) -> Path:
    return lake.workspace(model.name, {"partition": run["as_of"], "workspace": run["workspace"]})
