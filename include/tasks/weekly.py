"""The tasks of a weekly query: the cheapest monitoring there is, of nothing but the quality of the last matured week."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from include import champions, documents, ledger, partitions
from include.config import ModelConfig, settings
from include.core import quality
from include.model_task import model_task
from include.monitoring_sql import QualityRow
from include.platforms import platform_for
from include.tasks import history
from include.tasks.monitoring import losses, mail, quality_rules

log = logging.getLogger(__name__)

DAYS = 7


@model_task
def find_week(model: ModelConfig, *, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    """The last matured week as of the run's day, and the champion, whose predictions are looked at.

    Raises:
        NoPartition: if the run has no day, or no week of the model has matured by then.
    """
    partitions.refuse_unknown_conf(dag_run, "as_of")
    day = partitions.training_day_of(dag_run, params)
    change = next((c for c in reversed(champions.history(model.name)) if c.as_of <= day), None)
    last = day - timedelta(days=model.labels.delay_days)
    first = max(model.start, last - timedelta(days=DAYS - 1))
    if change is None or last < first:
        raise partitions.NoPartition(f"{model.name}: as of {day} no champion has published a week whose labels have matured")
    manifest = platform_for(model).manifest_of(model, asdict(change.version))
    return {
        "partition": day.isoformat(),
        "publication": 0,
        "origin": "scheduled" if partitions.origin_of(dag_run) == "scheduled" else "manual",
        "version": asdict(change.version),
        "trained_to": date.fromisoformat(manifest["holdout"]["last"]).isoformat(),
        "former": None,
        "matured": {"first": first.isoformat(), "last": last.isoformat()},
        "folder": f"{platform_for(model).monitoring_folder(model)}/weekly/{day}",
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "workspace": partitions.workspace_of(dag_run),
    }


@model_task
def judge_week(model: ModelConfig, run: dict[str, Any], matured: dict[str, Any], *, dag_run: Any = None) -> dict[str, Any]:
    """Is the week below the floors of the gate, or worse than the model expects? Recorded once; a person is mailed if so."""
    rows = [QualityRow.from_json(row) for row in documents.read_json(matured["document"])["rows"]]
    judged = quality.judge_decay(losses(run, rows, run["version"]["version"]), quality_rules(model))
    sentences = [*_below_floor(model, run, rows), judged.sentence]
    state = "decay" if len(sentences) > 1 else judged.state
    outcome = {"decay": "quality decay", "ok": "ok", "cannot judge": "cannot judge"}[state]
    key = f"{run['partition']}.weekly"
    body = {
        "outcome": outcome,
        "columns": [],
        "sentences": sentences,
        "notes": [],
        "since": run["partition"],
        "repeated": False,
        "actions": ["mail", "request training"] if state == "decay" else [],
        "partition": run["partition"],
        "publication": run["publication"],
        "rows": sum(row.rows for row in rows if row.slice == ""),
        "model_version": run["version"]["version"],
        "origin": run["origin"],
        "quality": judged.to_json(),
        "former": None,
        "page": None,
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "git_revision": settings().revision,
    }
    said = ledger.once(history.VERDICT, model.name, key, body)
    log.info("%s: %s", said.body["outcome"], " ".join(said.body["sentences"]))
    if "mail" in said.body["actions"]:
        mail(model, {**said.body, "key": key}, dag_run)
    return {"key": key, **said.body}


def _below_floor(model: ModelConfig, run: dict[str, Any], rows: list[QualityRow]) -> list[str]:
    """A week of which less is known than a gate would ask for is not held against the model."""
    floor = model.gate.floors.get("auc")
    week = [row for row in rows if row.slice == "" and row.model_version == run["version"]["version"]]
    labelled = [sum(bins) for bins in zip(*(row.bins for row in week), strict=True)]
    positives = [sum(bins) for bins in zip(*(row.positives for row in week), strict=True)]
    rare = min(sum(positives), sum(labelled) - sum(positives))
    if floor is None or sum(labelled) < model.gate.min_rows or rare < model.gate.min_positives:
        return []
    auc = quality.binned_auc(labelled, positives)
    if auc is None or auc >= floor:
        return []
    return [f"On {sum(labelled)} labelled rows of the week the AUC is {auc:.3f}, below the {floor:g} that a gate asks for."]
