"""What the page of a monitoring run shows, gathered from its documents and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from include import champions, documents, ledger, partitions
from include.config import ModelConfig
from include.monitoring_sql import DayProfile, QualityRow
from include.platforms import platform_for
from include.tasks import history

if TYPE_CHECKING:
    from include.core.profile import Profile

PAGE = "report.html"
BASELINE_DAYS, SHOWN_DAYS = 28, 28
READERS = 16


def findings(
    model: ModelConfig,
    run: Mapping[str, Any],
    profiled: Mapping[str, Any],
    compared: Mapping[str, Any],
    matured: Mapping[str, Any],
    verdict: Mapping[str, Any],
) -> dict[str, Any]:
    """The document that `monitoring_page.render` draws."""
    day, profiles = partitions.parse(run["partition"]), read_profiles(profiled)
    found, today = documents.read_json(compared["document"]), profiles[day]
    measured = documents.read_json(matured["document"])
    rows = [QualityRow.from_json(row) for row in measured["rows"]]
    reference = platform_for(model).manifest_of(model, run["version"])["reference"]
    return {
        "partition": run["partition"],
        "publication": run["publication"],
        "model_version": run["version"]["version"],
        "origin": run["origin"],
        "rows": today.rows,
        "population": today.population,
        "sample": model.drift.sample,
        "run": {"dag_id": verdict["dag_id"], "run_id": verdict["run_id"], "git_revision": verdict["git_revision"]},
        "verdict": {name: verdict[name] for name in ("outcome", "sentences", "notes", "actions", "repeated", "since")},
        **found,
        "reference": {**reference["features"], "score": {"kind": "numeric", **reference["score"], "missing": 0, "not_finite": 0}},
        "baseline": _merged([profiles[each].columns for each in profiles if 0 < (day - each).days <= BASELINE_DAYS]),
        "current": today.columns,
        "missing": [
            {"partition": each.isoformat(), "shares": {name: _missing(cells) for name, cells in profiles[each].columns.items()}}
            for each in sorted(profiles)
            if 0 <= (day - each).days < SHOWN_DAYS
        ],
        "quality": {**verdict["quality"], **_quality(model, rows), "previous": verdict["former"]},
        "proxies": _proxies(model, run, {each: p for each, p in profiles.items() if 0 <= (day - each).days < SHOWN_DAYS}),
        "changes": _changes(model, day),
        "links": [{"text": link["text"], "href": documents.link(verdict["page"], link["page"])} for link in run["links"]],
    }


def index_entries(model: ModelConfig) -> list[dict[str, Any]]:
    """The last verdict on each partition, newest first."""
    return [
        {
            "partition": key,
            "outcome": body["outcome"],
            "sentence": " ".join(body["sentences"][:1]),
            "rows": body["rows"],
            "model_version": body["model_version"],
            "origin": body["origin"],
            "href": f"{key}/v{body['publication']:05d}/{PAGE}",
        }
        for key, body in sorted(history.verdicts(model.name).items(), reverse=True)
        if body["page"]
    ]


def read_profiles(profiled: Mapping[str, Any]) -> dict[date, DayProfile]:
    """The counts of the partition and of the days before it."""
    places = [f"{profiled['folder']}/{day}.json" for day in profiled["days"]]
    with ThreadPoolExecutor(READERS) as readers:  # a year of them, in an object store, one after the other, is a minute
        found = list(readers.map(documents.read_json, places))
    return {partitions.parse(day): DayProfile.from_json(one) for day, one in zip(profiled["days"], found, strict=True)}


def _merged(profiles: Sequence[Profile]) -> Profile:
    """Counts of several days together. A column that only some of them have is that of those."""
    from include.core.profile import merge  # numpy; not while DAGs are parsed

    total: Profile = {}
    for profile in profiles:
        for name, cells in profile.items():
            total[name] = merge({name: total[name]}, {name: cells})[name] if name in total else dict(cells)
    return total


def _missing(cells: Mapping[str, Any]) -> float | None:
    rows = sum(cells["counts"]) + cells["missing"] + cells.get("other", 0) + cells.get("not_finite", 0)
    return cells["missing"] / rows if rows else None


def _quality(model: ModelConfig, rows: Sequence[QualityRow]) -> dict[str, Any]:
    known = {record.key: record.body for record in ledger.read(history.MATURED, model.name)}
    overall = [row for row in rows if row.slice == ""]
    return {
        "metric": "log loss" if model.task == "classification" else "squared error",
        "days": [_matured_day(row, known.get(history.matured_key(row.partition, row.model_version))) for row in overall],
        "slices": _slices(rows),
        "labels": [
            {
                "partition": row.partition.isoformat(),
                "labelled": row.labelled,
                "rate": row.label_sum / row.labelled,
                "score_mean": row.score_sum / row.labelled,
            }
            for row in overall
            if row.labelled
        ],
    }


def _matured_day(row: QualityRow, then: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "partition": row.partition.isoformat(),
        "model_version": row.model_version,
        "rows": row.rows,
        "labelled": row.labelled,
        "coverage": row.coverage,
        "loss": row.loss,
        "expected": row.expected,
        "auc": row.auc,
        **{f"{name}_known_then": then[name] if then else None for name in ("loss", "auc", "coverage")},
    }


def _slices(rows: Sequence[QualityRow]) -> list[dict[str, Any]]:
    """All matured days together, by slice and value."""
    sums: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if row.slice and row.labelled:
            total = sums.setdefault((row.slice, row.value or ""), [0, 0.0, 0.0])
            for place, value in enumerate((row.labelled, row.loss_sum, row.expected_sum or 0.0)):
                total[place] += value
    return [
        {"slice": name, "value": value, "labelled": int(n), "loss": loss / n, "expected": expected / n if expected else None}
        for (name, value), (n, loss, expected) in sorted(sums.items())
    ]


def _proxies(model: ModelConfig, run: Mapping[str, Any], profiles: Mapping[date, DayProfile]) -> list[dict[str, Any]]:
    """What needs no labels: how often the version says yes, and how surely: the share of its scores in the outer tenths of
    those that it gave to the holdout. None for days that it has not scored."""
    published, version = history.published(model.name), run["version"]["version"]
    shown = []
    for day, profile in sorted(profiles.items()):
        record = published.get(day.isoformat())
        scored = record is not None and record.body["model_version"] == version
        score, decision = profile.columns.get("score"), profile.columns.get("decision")
        rows = sum(score["counts"]) if score else 0
        tenth = max(1, len(score["counts"]) // 10) if score else 0
        shown.append({
            "partition": day.isoformat(),
            "model_version": version if rows else None,
            "rows": rows,
            "score_mean": record.body["score_mean"] if record and scored else None,
            "positive_rate": decision["counts"][1] / sum(decision["counts"]) if decision and sum(decision["counts"]) else None,
            "confidence": (sum(score["counts"][:tenth]) + sum(score["counts"][-tenth:])) / rows if score and rows else None,
        })
    return shown


def _changes(model: ModelConfig, day: date) -> list[dict[str, Any]]:
    """Who became champion, as of which day of the data."""
    first = day - timedelta(days=90)
    return [
        {"partition": change.as_of.isoformat(), "version": change.version.version, "action": change.action}
        for change in champions.history(model.name)
        if first <= change.as_of <= day
    ]
