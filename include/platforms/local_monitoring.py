"""Monitoring on the embedded platform: counts and sums by DuckDB over the lake, documents and queues as files of it.

monitoring/<model>/profiles/<cells>/2013-04-01.json                 counts of a day in the cells of a version
monitoring/<model>/2013-04-01/v00001/comparisons.json, report.html  what a run has found
shadow/<model>/v1/partition_date=2013-04-01/<source>.parquet        scores of a former champion, for comparison
label_queue/<model>/<request>/rows.parquet, answers.parquet         labels that were asked for
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

from include import monitoring_sql, partitions, queries
from include.config import ModelConfig, settings
from include.core.files import replacing, write_json
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms import monitoring_facts as facts
from include.platforms.base import SourceMissing
from include.platforms.local_training import manifest_of

log = logging.getLogger(__name__)


@model_task
def profile(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Counts of the partition and of the days before it, where they have not been counted yet or have changed since."""
    last = partitions.parse(run["partition"])
    first = facts.history_begins(model, last)
    if not lake.has_landed(model.source.table, last):
        raise SourceMissing(f"{model.source.table}: partition {last} is gone since it was published")
    counted = facts.counted(model, run, manifest_of(model, run["version"]))
    folder = Path(monitoring_folder(model)) / "profiles" / counted.digest
    landed = [day for day in lake.days_landed(model.source.table) if first <= day <= last]
    states = facts.states(model, {day: lake.fingerprint(model, day) for day in landed})
    missing = [day for day in landed if not _is_counted(folder, day, states[day])]
    for stretch in facts.stretches(missing):
        _count(model, counted, stretch, states, folder)
    log.info(f"counted {len(missing)} of {len(landed)} days; the others had been counted before")
    today = json.loads((folder / f"{last}.json").read_bytes())
    return {
        "folder": str(folder),
        "days": [day.isoformat() for day in landed],
        "rows": today["rows"],
        "population": today["population"],
        "counted": len(missing),
    }


def _count(model: ModelConfig, counted: facts.Counted, days: list[date], states: dict[date, str], folder: Path) -> None:
    """One pass over the days, which follow each other; one document for each."""
    query = counted.query(model, engine.DIALECT, engine.tables(model), engine.predictions(model))
    with engine.connected() as connection:
        found = connection.execute(query.query.sql, {"first_partition": days[0], "last_partition": days[-1]})
        names = [column[0] for column in found.description or []]
        profiles = facts.profiles(query, days, names, found.fetchall())
    for day, profile in profiles.items():
        write_json(folder / f"{day}.json", {**profile.to_json(), "state": states[day]})


@model_task
def evaluate_matured(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Sums over the rows whose labels have come, by day, version and slice; and, on probation, of the champion before."""
    place = Path(run["folder"]) / "matured.json"
    if run["matured"] is None:
        write_json(place, {"rows": [], "former": []})
        return {"document": str(place), "days": 0, "seconds": 0.0}
    first, last = (partitions.parse(run["matured"][end]) for end in ("first", "last"))
    rows = _measure(model, first, last, engine.predictions(model), model.gate.slices)
    former, seconds = [], 0.0
    if run["former"] is not None:
        days = facts.days_to_score_again(run, rows)
        seconds, files = _score_with(model, run, run["former"], days)
        former = _measure(model, first, last, engine.parquet_files(files), []) if files else []
    write_json(place, {"rows": [row.to_json() for row in rows], "former": [row.to_json() for row in former]})
    return {"document": str(place), "days": len({row.partition for row in rows if row.labelled}), "seconds": seconds}


def _measure(
    model: ModelConfig, first: date, last: date, predictions: str, slices: Sequence[str]
) -> list[monitoring_sql.QualityRow]:
    query = monitoring_sql.quality(model, engine.DIALECT, engine.tables(model), predictions, slices)
    with engine.connected() as connection:
        found = connection.execute(query.sql, {"first_partition": first, "last_partition": last})
        names = [column[0] for column in found.description or []]
        return [monitoring_sql.read_quality(names, row) for row in found.fetchall()]


def _score_with(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], days: list[date]) -> tuple[float, list[str]]:
    """Scores of the days by another version than the one that has published them: seconds it took, and the files, one a day."""
    name = f"{model.name}/v{int(version['version'])}"
    files = {day: lake.partition_folder("shadow", name, day) / f"{lake.fingerprint(model, day)}.parquet" for day in days}
    missing = [day for day in days if not files[day].is_file()]
    seconds = 0.0
    for stretch in facts.stretches(missing):
        place = Path(run["folder"]) / "shadow" / stretch[0].isoformat()
        place.mkdir(parents=True, exist_ok=True)
        with engine.connected() as connection:
            query = queries.accepted_features(model, engine.DIALECT, engine.tables(model))
            bound = {"first_partition": stretch[0], "last_partition": stretch[-1]}
            engine.write(connection, query, bound, place / "features.parquet")
        spec = {
            "features": str(place / "features.parquet"),
            "output": str(place / "scores.parquet"),
            "key": model.source.key,
            "artifact": version["artifact"],
            "manifest_sha256": version["manifest_sha256"],
        }
        seconds += engine.run_job("score", place, spec)["job_seconds"]
        with engine.connected() as connection:
            for day in stretch:
                with replacing(files[day]) as draft:
                    connection.execute(
                        f"COPY (SELECT *, '{int(version['version'])}' AS model_version FROM "
                        f"{engine.parquet(str(place / 'scores.parquet'))} WHERE partition_date = DATE '{day}') "
                        f"TO {engine.text(str(draft))} (FORMAT parquet)"
                    )
        for file in place.iterdir():
            file.unlink()
    return seconds, [str(files[day]) for day in days]


def monitoring_folder(model: ModelConfig) -> str:
    return str(settings().lake / "monitoring" / model.name)


def _is_counted(folder: Path, day: date, state: str) -> bool:
    file = folder / f"{day}.json"
    return file.is_file() and json.loads(file.read_bytes())["state"] == state
