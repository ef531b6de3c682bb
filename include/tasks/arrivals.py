"""What has landed and is not published yet?"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import task

from include import ledger, notifications
from include.config import ModelConfig
from include.model_task import model_task
from include.platforms import platform_for
from include.registry import registry
from include.tasks import history

log = logging.getLogger(__name__)


@model_task
def find_unpublished(model: ModelConfig, *, ti: Any = None) -> list[dict[str, Any]]:
    """One run to start per partition that landed and was not published from what is there now.

    Only the last partitions that landed are looked at (`prediction.arrivals_lookback` of them), and none that a run is
    working on: that run, or the next wake-up after it, sees the change. The run id is made from the partition, its next
    version and its source, so the same state asks for the same run, however often it is looked at.
    """
    if registry().alias(model.name, "champion") is None:
        log.info("%s has no champion yet: nothing to predict with", model.name)
        return []
    dag_id = f"predict_{model.name}"
    published = history.published(model.name)
    landed = {day: source for day, source in platform_for(model).landed(model).items() if day >= model.start}
    recent = sorted(day for day in landed if model.end is None or day <= model.end)[-model.prediction.arrivals_lookback :]
    runs = []
    for day in recent:
        current = published.get(day.isoformat())
        if current and current.body["source"] == landed[day]:
            continue
        busy = _running(ti, dag_id, model.name, day.isoformat())
        if busy:
            log.info("%s: run %s is at it", day, busy)
            continue
        version = current.body["version"] + 1 if current else 1
        runs.append({
            "trigger_run_id": f"arrival__{day}__v{version}__{landed[day]}",
            "conf": {"partition": day.isoformat(), "origin": "arrival"},
        })
        log.info("%s: %s", day, "its source has changed" if current else "landed and was never published")
    return runs


def _running(ti: Any, dag_id: str, model: str, partition: str) -> str | None:
    """A run of this partition that has not ended."""
    for record in ledger.read("prediction_run", model, prefix=f"{partition}."):
        run_id = record.body["run_id"]
        if ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=["queued", "running"]):
            return str(run_id)
    return None


@task
def deliver_alerts() -> int:
    """Send the alert mails that could not be sent when they were written; how many still wait."""
    return notifications.send_pending(seconds=300)
