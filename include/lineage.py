"""From a prediction back to the commit, and from a snapshot forward to every row it touched: folds over the ledger."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

from include import champions, ledger
from include.config import ModelConfig
from include.platforms import platform_for


class Unexplained(LookupError):
    """What was asked about is not there, or its records are not; the message says which."""


@dataclass(frozen=True)
class Step:
    """One link: what it is ("publication", "verdict", ...), and its facts."""

    what: str
    facts: dict[str, Any]


def explain_prediction(model: ModelConfig, key: str, partition: date | None) -> list[Step]:
    """How a published row came to be: row → publication → version → gate → snapshot → SQL → commit → run.

    Raises:
        Unexplained: if no such row is published, or in several partitions and none was named.
    """
    rows = platform_for(model).find_predictions(model, key, partition)
    if not rows:
        raise Unexplained(
            f"{model.name}: key {key!r} is not among the published predictions" + (f" of {partition}" if partition else "")
        )
    if len(rows) > 1:
        days = ", ".join(row["partition_date"] for row in rows[:10])
        raise Unexplained(f"{model.name}: key {key!r} was predicted on {days}: name the partition")
    (row,) = rows
    # A replay that gives the same rows is no new publication: the row names its own run, the record that of the first.
    published = [
        record.body
        for record in ledger.read("publication", model.name, prefix=f"{row['partition_date']}.")
        if record.body["model_version"] == row["model_version"]
    ]
    steps = [Step("prediction", row)]
    if published:
        names = ("partition", "version", "digest", "rows_scored", "origin", "dag_id", "run_id", "git_revision", "location")
        steps.append(Step("publication", {name: published[-1][name] for name in names}))
    return steps + _version(model, row["model_version"])


def explain_snapshot(model: ModelConfig, snapshot: str) -> list[Step]:
    """What became of a snapshot: verdicts → versions → publications, with how many rows of each partition.

    Raises:
        Unexplained: if no verdict names it.
    """
    verdicts = [r.body for r in ledger.read("verdict", model.name) if r.body["snapshot"] == snapshot]
    if not verdicts:
        known = sorted({r.body["snapshot"] for r in ledger.read("verdict", model.name)})
        raise Unexplained(f"{model.name}: no verdict is about {snapshot!r}; snapshots: {', '.join(known[-10:]) or 'none'}")
    changes = [c for c in champions.history(model.name) if c.body.get("snapshot") == snapshot]
    versions = {change.version.version for change in changes}
    steps = [Step("snapshot", {"snapshot": snapshot})]
    steps += [Step("verdict", {name: v[name] for name in ("outcome", "rule", "as_of", "run_id", "page")}) for v in verdicts]
    steps += [Step("promotion", {"version": c.version.version, "number": c.number, "at": c.at.isoformat()}) for c in changes]
    for record in sorted(ledger.read("publication", model.name), key=lambda r: (r.body["partition"], r.body["version"])):
        if record.body["model_version"] in versions:
            names = ("partition", "version", "model_version", "rows_scored", "digest", "run_id")
            steps.append(Step("publication", {name: record.body[name] for name in names}))
    return steps


def _version(model: ModelConfig, version: str) -> list[Step]:
    change = champions.promotion_of(model.name, version)
    if change is None:
        raise Unexplained(f"{model.name}: the ledger has no promotion of version {version}: restore it from a backup")
    body = change.body
    steps = [
        Step(
            "promotion",
            {
                "version": version,
                "number": change.number,
                "at": change.at.isoformat(),
                "in the place of": change.previous,
                "artifact": change.version.artifact,
                "manifest_sha256": change.version.manifest_sha256,
                "approved by": body["approval"].get("by") if body["approval"]["needed"] else "nobody had to",
            },
        )
    ]
    judged = ledger.find("verdict", model.name, body["verdict"])
    if judged is None:
        raise Unexplained(f"{model.name}: the ledger has no verdict {body['verdict']}: restore it from a backup")
    verdict = judged.body
    names = ("outcome", "rule", "reasons", "holdout", "reason", "page")
    steps.append(Step("verdict", {name: verdict[name] for name in names}))
    manifest = platform_for(model).snapshot_manifest(model, verdict["snapshot"])
    kept = ("sha256", "sql_sha256", "first", "last", "rows", "git_revision")
    steps.append(Step("snapshot", {"snapshot": verdict["snapshot"], **{name: manifest[name] for name in kept}}))
    steps.append(Step("training run", {name: verdict[name] for name in ("dag_id", "run_id", "as_of", "git_revision")}))
    return steps
