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
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import partitions, queries
from include.config import ModelConfig, settings
from include.core.files import json_bytes, new_folder, sha256_of, write_json
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms import training_facts as facts
from include.platforms.base import SourceChanged
from include.registry import registry
from include.registry.base import registration

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)


@model_task
def snapshot_training_set(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Features and labels of the window, frozen: named by its content, written once, never changed.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
        SourceChanged: if one of them was replaced meanwhile.
    """
    days = facts.window(run)
    first, last, tables = days[0], days[-1], (model.source.table, model.labels.table)
    facts.require_landed(model, days, {table: [day for day in days if lake.has_landed(table, day)] for table in tables})
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
    manifest = facts.snapshot_manifest(model, run, query.sql, sources, rows, sha256, offered, labelled)
    with suppress(FileExistsError), new_folder(folder) as place:
        draft.rename(place / lake.DATA)
        (place / "manifest.json").write_bytes(json_bytes(manifest))
    draft.unlink(missing_ok=True)
    log.info(f"snapshot {snapshot}: {rows} rows of {first} to {last}; {labelled} of {offered} rows of the holdout have a label")
    return {
        "snapshot": snapshot,
        "file": str(folder / lake.DATA),
        "sha256": sha256,
        "sql_sha256": manifest["sql_sha256"],
        "rows": rows,
        "label_coverage": labelled / offered if offered else None,
    }


@model_task
def inspect_training_set(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """Does the snapshot know what nobody knew at prediction time?

    Raises:
        ValueError: naming what leaks (`LeakFound`), or what else forbids learning from it.
    """
    spec = {**facts.inspection(model, snapshot), "snapshot": snapshot["file"]}
    found = engine.run_job("inspect", _workspace(model, run), spec)
    for day in facts.replayed_days(run):
        _replay(model, day, snapshot)
    kept = {name: found[name] for name in ("rows", "positives", "strength")}
    return {**kept, "replayed": [day.isoformat() for day in facts.replayed_days(run)]}


@model_task
def tune(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The parameters and the training window that did best on the last days before the holdout."""
    spec = {**facts.tuning(model, snapshot), "snapshot": snapshot["file"]}
    found = engine.run_job("tune", _workspace(model, run), spec)
    kept = {name: found[name] for name in ("parameters", "loss")}
    return {**kept, "trials": len(found["trials"]), "seconds": found["job_seconds"]}


@model_task
def train(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """A challenger, by a job script in a process of its own. The same snapshot and parameters give the same artifact."""
    training = facts.training(model, snapshot, tuned)
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
    against = champion["version"]
    spec = {
        **facts.evaluation(model, snapshot, challenger, against),
        "snapshot": snapshot["file"],
        "artifact": challenger["artifact"],
        "champion_artifact": against["artifact"] if against else None,
    }
    document = engine.run_job("evaluate", _workspace(model, run), spec)
    seconds = document.pop("job_seconds")
    kept = Path(evaluation_folder(model, run)) / "evaluation.json"
    write_json(kept, document)
    return {"document": str(kept), "rows": document["rows"], "seconds": seconds}


@model_task
def register(
    model: ModelConfig,
    run: dict[str, Any],
    snapshot: dict[str, Any],
    tuned: dict[str, Any],
    challenger: dict[str, Any],
    verdict: dict[str, Any],
) -> dict[str, Any]:
    """Give the artifact a version in the registry. The same artifact gets the same version, also on a retry."""
    models = registry()
    told = registration(run, snapshot, tuned, challenger, verdict, settings().revision)
    version = models.register(model.name, **told)
    models.set_alias(model.name, "challenger", version.version)
    log.info("registered as version %s", version.version)
    return asdict(version)


@model_task
def shadow_score(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], champion: dict[str, Any]) -> dict[str, Any]:
    """Challenger and champion side by side on the newest partition that had landed, by a job in a process of its own."""
    newest = facts.newest(model, run, lake.days_landed(model.source.table))
    place = _workspace(model, run) / "shadow"
    place.mkdir(parents=True, exist_ok=True)
    with engine.connected() as connection:
        query = queries.accepted_features(model, engine.DIALECT, engine.tables(model))
        bound = {"first_partition": newest, "last_partition": newest}
        rows = engine.write(connection, query, bound, place / "features.parquet")
    against = champion["version"]
    spec = {
        **facts.shadowing(model, version, against),
        "features": str(place / "features.parquet"),
        "artifact": version["artifact"],
        "champion_artifact": against["artifact"] if against else "",
        "work": str(place),
    }
    found = engine.run_job("shadow", place, spec)
    kept = {name: found[name] for name in ("rows_scored", "unseen", "churn", "shift")}
    return {"partition": newest.isoformat(), "rows": rows, **kept}


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


def _sources(model: ModelConfig, days: list[date]) -> dict[str, str]:
    """Fingerprint of each day, its labels included."""
    return {day.isoformat(): lake.fingerprint(model, day, also=[model.labels.table]) for day in days}


def _rows_to_label(connection: DuckDBPyConnection, model: ModelConfig, first: date, last: date) -> int:
    accepted = queries.accepted_features(model, engine.DIALECT, engine.tables(model))
    return engine.value(connection, f"SELECT count(*) FROM ({accepted.sql})", {"first_partition": first, "last_partition": last})


def _replay(model: ModelConfig, day: date, snapshot: dict[str, Any]) -> None:
    """Make a day of the snapshot again, from what had landed on that day and nothing later; it must be the same."""
    query = facts.replay(model, engine.DIALECT, engine.tables(model, until=day), engine.parquet(snapshot["file"]))
    with engine.connected() as connection:
        found = connection.execute(query.sql, {"first_partition": day, "last_partition": day})
        names = [column[0] for column in found.description or []]
        facts.refuse_leaks(model, day, dict(zip(names, found.fetchall()[0], strict=True)))


def _workspace(model: ModelConfig, run: dict[str, Any]) -> Path:
    return lake.workspace(model.name, {"partition": run["as_of"], "workspace": run["workspace"]})
