"""The tasks after which another version scores: promotion, and the way back."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date
from typing import Any

from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowSkipException

from include import assets, champions, notices, partitions, retraining
from include.config import ModelConfig
from include.model_task import model_task
from include.platforms import platform_for
from include.registry.base import ModelVersion
from include.tasks import history

log = logging.getLogger(__name__)


def promote(model: ModelConfig, *facts: XComArg) -> XComArg:
    """The last task of training: the registered version becomes the champion."""
    return model_task(_promote, task_id="promote", outlets=[assets.champion(model)])(model, *facts)


def _promote(
    model: ModelConfig,
    run: dict[str, Any],
    snapshot: dict[str, Any],
    champion: dict[str, Any],
    verdict: dict[str, Any],
    version: dict[str, Any],
    shadow: dict[str, Any],
    approval: dict[str, Any],
    *,
    outlet_events: Any = None,
) -> dict[str, Any]:
    """Become champion, if the champion is still the one that was compared with. Harmless when done twice.

    Of two runs that race one comes second: it ends skipped, and asks for a run that compares again.
    """
    facts = {
        "metrics": version["metrics"],
        "reasons": verdict["reasons"],
        "verdict": verdict["key"],
        "page": verdict["page"],
        "approval": approval,
        "shadow": shadow,
        "snapshot": snapshot["snapshot"],
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
    }
    as_of = partitions.parse(run["as_of"])
    # Since it was tried, days may have passed: a person was asked.
    platform_for(model).manifest_of(model, version)
    try:
        change = champions.promote(model.name, ModelVersion(**version), as_of, champion["number"], run["workspace"], facts)
    except champions.ChampionChanged as lost:
        evidence = {"run_id": run["run_id"], "version": version["version"], "compared_with": champion["number"]}
        retraining.request_training(model, "champion_changed", as_of, "scheduled", evidence)
        raise AirflowSkipException(f"{lost}; a run that does has been requested") from None
    event = {"version": version["version"], "previous": change.previous, "as_of": run["as_of"], "metrics": version["metrics"]}
    outlet_events[assets.champion(model)].extra = event
    log.info("version %s is champion (change %d), before it %s", version["version"], change.number, change.previous or "nobody")
    return {**event, "number": change.number, "page": verdict["page"]}


def roll_back(model: ModelConfig) -> XComArg:
    """The first task of a rollback: a former champion is champion again."""
    return model_task(_roll_back, task_id="roll_back", outlets=[assets.champion(model)])(model)


def _roll_back(model: ModelConfig, *, dag_run: Any = None, params: Any = None, outlet_events: Any = None) -> dict[str, Any]:
    """One atomic change of champion, and which partitions are to be predicted again. Done twice it is done once."""
    to, why, first, last = _checked_rollback(dag_run, params)
    workspace = partitions.workspace_of(dag_run)
    _skip_if_withdrawn(model, params["withdraw"], workspace)
    facts = {"reasons": [why], "dag_id": dag_run.dag_id, "run_id": dag_run.run_id, "asked_by": dag_run.triggering_user_name}
    platform = platform_for(model)
    change = champions.roll_back(
        model.name, to, workspace, facts, check=lambda version: platform.manifest_of(model, asdict(version))
    )
    affected = affected_partitions(model, change.previous, first, last) if params["predict_again"] else []
    outlet_events[assets.champion(model)].extra = {"version": change.version.version, "previous": change.previous, "why": why}
    body = {
        "version": change.version.version,
        "previous": change.previous,
        "number": change.number,
        "partitions": [day.isoformat() for day in affected],
        "workspace": workspace,
    }
    log.info(
        "version %s is champion again, instead of %s; to be predicted again: %s", body["version"], body["previous"], affected
    )
    notices.send(
        model,
        name=f"rollback-{model.name}-{workspace}",
        to=model.owner.emails,
        subject=f"{model.name}: rolled back from version {change.previous} to {change.version.version}",
        paragraphs=[
            f"Version {change.version.version} is champion again. Why: {why}",
            f"{len(affected)} partitions that version {change.previous} had scored are being predicted again: "
            f"{_listed(affected)}."
            if affected
            else "No partition is predicted again.",
        ],
        dag_run=dag_run,
    )
    return body


@model_task
def list_predictions(model: ModelConfig, rolled_back: dict[str, Any]) -> list[dict[str, Any]]:
    """One run of predict_<model> per affected partition."""
    return [
        {
            "trigger_run_id": f"rollback__{day}__{rolled_back['workspace']}",
            "conf": {"partition": day, "origin": "rollback"},
        }
        for day in rolled_back["partitions"]
    ]


def affected_partitions(model: ModelConfig, version: str | None, first: date | None, last: date | None) -> list[date]:
    """The partitions whose published predictions come from a version, within the given days."""
    days = (
        partitions.parse(key) for key, record in history.published(model.name).items() if record.body["model_version"] == version
    )
    return sorted(day for day in days if (first is None or day >= first) and (last is None or day <= last))


def _skip_if_withdrawn(model: ModelConfig, withdraw: int | None, workspace: str) -> None:
    """Between asking for a rollback and carrying it out another version may have become champion: it is none of its business."""
    changes = champions.history(model.name)
    done = any(change.body["workspace"] == workspace for change in changes)
    if withdraw is not None and changes and not done and changes[-1].version.version != str(withdraw):
        now = changes[-1].version.version
        raise AirflowSkipException(f"version {withdraw} is no longer champion, {now} is: there is nothing to withdraw")


def _checked_rollback(dag_run: Any, params: Any) -> tuple[str | None, str, date | None, date | None]:
    """The form is checked by the UI; a conf that comes by API or CLI is only as good as this."""
    partitions.refuse_unknown_conf(dag_run, "version", "withdraw", "why", "predict_again", "first_partition", "last_partition")
    version, why = params["version"], params["why"]
    for name in ("version", "withdraw"):
        given = params[name]
        if given is not None and (not isinstance(given, int) or isinstance(given, bool) or not 0 < given < 10**9):
            raise ValueError(f"{name} {given!r} must be a number such as 3, or empty")
    if not isinstance(why, str) or not 3 <= len(why.strip()) <= 500:
        raise ValueError("why must say in 3 to 500 characters what is wrong with the champion: it is all that a reader will know")
    if not isinstance(params["predict_again"], bool):
        raise ValueError(f"predict_again {params['predict_again']!r} must be true or false")
    first, last = (partitions.parse(day) if day else None for day in (params["first_partition"], params["last_partition"]))
    if first and last and last < first:
        raise ValueError(f"last_partition {last} is before first_partition {first}")
    return (str(version) if version else None), why.strip(), first, last


def _listed(days: list[date]) -> str:
    shown = ", ".join(map(str, days[:10]))
    return f"{shown} and {len(days) - 10} more" if len(days) > 10 else shown
