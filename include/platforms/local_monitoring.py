"""Monitoring on the embedded platform: counts and sums by DuckDB over the lake, documents and queues as files of it.

monitoring/<model>/profiles/<cells>/2013-04-01.json                 counts of a day in the cells of a version
monitoring/<model>/2013-04-01/v00001/comparisons.json, report.html  what a run has found
shadow/<model>/v1/partition_date=2013-04-01/<source>.parquet        scores of a former champion, for comparison
label_queue/<model>/<request>/rows.parquet, answers.parquet         labels that were asked for
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

from include import monitoring_sql, partitions, queries
from include.config import ModelConfig, settings
from include.core.files import json_bytes, replacing, write_json
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms.base import SourceMissing
from include.platforms.local_training import manifest_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Counted:
    """All that the counts of a day depend on, besides its rows."""

    cells: dict[str, Any]
    score: dict[str, Any]
    version: str
    pairs: tuple[tuple[str, str], ...]
    sample: float


@model_task
def profile(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Counts of the partition and of the days before it, where they have not been counted yet or have changed since."""
    last = partitions.parse(run["partition"])
    first = max(model.start, last - timedelta(days=model.drift.history_days))
    if not lake.has_landed(model.source.table, last):
        raise SourceMissing(f"{model.source.table}: partition {last} is gone since it was published")
    reference = manifest_of(model, run["version"])["reference"]
    counted = _Counted(
        cells=reference["features"],
        score={"kind": "numeric", **reference["score"]},
        version=run["version"]["version"],
        pairs=tuple((a, b) for a, b in run["pairs"]),
        sample=model.drift.sample,
    )
    folder = Path(monitoring_folder(model)) / "profiles" / hashlib.sha256(json_bytes(asdict(counted))).hexdigest()[:16]
    landed = [day for day in lake.days_landed(model.source.table) if first <= day <= last]
    published = {record.body["partition"]: record.body["digest"] for record in lake.publications(model.name)}
    # What changes whenever the counts would: the source of a day, and what is published of it.
    states = {day: f"{lake.fingerprint(model, day)}.{published.get(day.isoformat(), '-')}" for day in landed}
    missing = [day for day in landed if not _is_counted(folder, day, states[day])]
    for stretch in _stretches(missing):
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


def _count(model: ModelConfig, counted: _Counted, days: list[date], states: dict[date, str], folder: Path) -> None:
    """One pass over the days, which follow each other; one document for each."""
    tables = engine.tables(model)
    predictions = monitoring_sql.Predictions(engine.predictions(model), counted.version, counted.score)
    query = monitoring_sql.profile(model, engine.DIALECT, tables, counted.cells, predictions, counted.pairs, counted.sample)
    with engine.connected() as connection:
        found = connection.execute(query.query.sql, {"first_partition": days[0], "last_partition": days[-1]})
        names = [column[0] for column in found.description or []]
        profiles = {profile.partition: profile for profile in (query.read(names, row) for row in found.fetchall())}
    for day in days:
        # A day without rows is no row of the answer: its counts are zero, and that is worth knowing.
        nothing = query.read(names, [day if name == "partition_date" else None for name in names])
        write_json(folder / f"{day}.json", {**profiles.get(day, nothing).to_json(), "state": states[day]})


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
        days = sorted(
            row.partition
            for row in rows
            if row.slice == ""
            and row.model_version == run["version"]["version"]
            and row.labelled
            and row.partition > partitions.parse(run["trained_to"])
        )
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
    for stretch in _stretches(missing):
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


def _stretches(days: list[date]) -> Iterator[list[date]]:
    """Days that follow each other without a gap, together: each stretch is one pass over the data."""
    for _, stretch in groupby(enumerate(days), key=lambda numbered: numbered[1].toordinal() - numbered[0]):
        yield [day for _, day in stretch]
