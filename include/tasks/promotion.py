"""Who is champion, since when, and why."""

from __future__ import annotations

from datetime import date
from typing import Any

from airflow.sdk.definitions.xcom_arg import XComArg

from include import assets, ledger, partitions
from include.config import ModelConfig
from include.model_task import model_task
from include.registry import registry
from include.registry.base import ModelVersion


def champion_as_of(model: str, day: date) -> ModelVersion | None:
    """The champion that a run of that day could have used: the last promotion whose training is as of that day or before.

    By the day the training was about, not by the clock: a backfill of last month then scores with last month's model.
    """
    promotions = [r for r in ledger.read("promotion", model) if partitions.parse(r.body["as_of"]) <= day]
    return registry().version(model, promotions[-1].body["version"]) if promotions else None


def promote(model: ModelConfig, *facts: XComArg) -> XComArg:
    """The last task of training: the registered version becomes the champion."""
    return model_task(_promote, task_id="promote", outlets=[assets.champion(model)])(model, *facts)


def _promote(
    model: ModelConfig, run: dict[str, Any], version: dict[str, Any], verdict: dict[str, Any], *, outlet_events: Any = None
) -> dict[str, Any]:
    """Move the alias, remember the one before, record it. Each step is harmless when done twice."""
    models = registry()
    before = models.alias(model.name, "champion")
    if before is not None and before.version == version["version"]:
        before = models.alias(model.name, "previous")  # a retry: the alias had moved already
    elif before is not None:
        models.set_alias(model.name, "previous", before.version)
    models.set_alias(model.name, "champion", version["version"])
    body = {
        "version": version["version"],
        "previous": before.version if before else None,
        "as_of": run["as_of"],
        "metrics": version["metrics"],
        "reasons": verdict["reasons"],
        "run_id": run["run_id"],
        "manifest_sha256": version["manifest_sha256"],
    }
    ledger.append("promotion", model.name, f"{run['as_of']}.{run['workspace']}.v{version['version']}", body)
    outlet_events[assets.champion(model)].extra = {
        "version": version["version"],
        "as_of": run["as_of"],
        "metrics": version["metrics"],
    }
    return body
