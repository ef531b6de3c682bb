"""The tasks of train_<model> that are the same on every platform."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include import ledger, partitions
from include.config import ModelConfig
from include.core import gates
from include.model_task import model_task
from include.registry import registry

log = logging.getLogger(__name__)

REASONS = {"scheduled": "schedule", "retraining": "request", "manual": "by hand", "backfill": "backfill"}


@model_task
def resolve_window(model: ModelConfig, *, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    """As of which day does this run learn, from which partitions, and who asked?"""
    unknown = sorted(set(dag_run.conf or {}) - {"as_of", "origin", "openlineage"})
    if unknown:
        raise ValueError(f"the run's conf has unknown keys {', '.join(map(repr, unknown))}: known are as_of, origin")
    as_of = partitions.training_day_of(dag_run, params)
    last = as_of - timedelta(days=model.labels.delay_days)
    if model.end:
        last = min(last, model.end)
    first = max(model.start, last - timedelta(days=model.training.window_days - 1))
    if (last - first).days < model.training.holdout_days:
        raise partitions.NoPartition(
            f"{model.name}: as of {as_of} only the partitions {first} to {last} have labels: too few for a holdout of "
            f"{model.training.holdout_days} days; give a later as_of"
        )
    return {
        "as_of": as_of.isoformat(),
        "first": first.isoformat(),
        "last": last.isoformat(),
        "reason": REASONS.get(partitions.origin_of(dag_run), "by hand"),
        "run_id": dag_run.run_id,
        "workspace": partitions.workspace_of(dag_run),
    }


@model_task
def gate(model: ModelConfig, run: dict[str, Any], challenger: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """PROMOTE, HOLD or REJECT, with the evidence; the ledger keeps every verdict. Anything but PROMOTE ends the run here."""
    verdict = gates.absolute_floors(evaluation["metrics"], {str(name): floor for name, floor in model.gate.floors.items()})
    body = {**verdict.to_json(), "metrics": evaluation["metrics"], "as_of": run["as_of"], "run_id": run["run_id"]}
    ledger.append("verdict", model.name, f"{run['as_of']}.{run['workspace']}.{challenger['manifest_sha256'][:16]}", body)
    log.info("%s: %s", verdict.outcome, "; ".join(verdict.reasons))
    if verdict.outcome != "PROMOTE":
        raise AirflowSkipException(f"{verdict.outcome}: {'; '.join(verdict.reasons)}; the champion stays")
    return verdict.to_json()


@model_task
def register(
    model: ModelConfig, run: dict[str, Any], challenger: dict[str, Any], evaluation: dict[str, Any], verdict: dict[str, Any]
) -> dict[str, Any]:
    """Give the artifact a version in the registry. The same artifact gets the same version, also on a retry."""
    models = registry()
    version = models.register(
        model.name,
        challenger["artifact"],
        challenger["manifest_sha256"],
        {name: value for name, value in evaluation["metrics"].items() if value is not None},
        {"as_of": run["as_of"], "snapshot": challenger["snapshot"], "reason": run["reason"], "verdict": verdict["outcome"]},
    )
    models.set_alias(model.name, "challenger", version.version)
    log.info("registered as version %s", version.version)
    return asdict(version)
