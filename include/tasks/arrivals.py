"""What has landed and is not published yet? What is there that asks for a training?"""

from __future__ import annotations

import logging
from datetime import date, timedelta
from typing import Any

from airflow.sdk import task

from include import champions, ledger, notifications, partitions, retraining
from include.config import ModelConfig
from include.model_task import model_task
from include.platforms import platform_for
from include.tasks import history

log = logging.getLogger(__name__)


@model_task
def find_unpublished(model: ModelConfig, *, ti: Any = None) -> list[dict[str, Any]]:
    """One run to start per partition that landed and was not published from what is there now.

    Only the last partitions that landed are looked at (`prediction.arrivals_lookback` of them), and none that a run is
    working on: that run, or the next wake-up after it, sees the change. A run that failed on the same source is not
    tried again by another: that would cost twice and mail twice. The run id is made from the partition, its next
    version and its source, so the same state asks for the same run, however often it is looked at.
    """
    if champions.champion(model.name) is None:
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
        if reason := _why_not(ti, dag_id, model.name, day, landed[day]):
            log.info("%s: %s", day, reason)
            continue
        version = current.body["version"] + 1 if current else 1
        runs.append({
            "trigger_run_id": f"arrival__{day}__v{version}__{landed[day]}",
            "conf": {"partition": day.isoformat(), "origin": "arrival"},
        })
        log.info("%s: %s", day, "its source has changed" if current else "landed and was never published")
    return runs


def _why_not(ti: Any, dag_id: str, model: str, day: date, source: str) -> str | None:
    """A run that makes another one needless: one that has not ended, or one that has failed on the very same source."""

    def in_state(run_id: str, *states: str) -> bool:
        return bool(ti.get_dr_count(dag_id=dag_id, run_ids=[run_id], states=list(states)))

    for record in ledger.read("prediction_run", model, prefix=f"{day}."):
        if in_state(record.body["run_id"], "queued", "running"):
            return f"run {record.body['run_id']} is at it"
    for run_id in history.attempts(model, day, source):
        if in_state(run_id, "failed"):
            return f"run {run_id} has failed on this source, and its owner was mailed: clear it when the cause is gone"
    return None


@model_task
def find_training_due(model: ModelConfig) -> list[dict[str, Any]]:
    """The training run to start, if one is asked for: by requests that no run has answered, by labels of enough new days,
    or by partitions in a row whose data failed its checks.

    State decides here too: a request whose run was never started, for whatever reason, is found at the next wake-up.
    """
    if model.training.after_new_label_days is not None:
        _request_for_new_labels(model, model.training.after_new_label_days)
    if model.training.after_failed_partitions is not None:
        _request_for_failed_checks(model, model.training.after_failed_partitions)
    return retraining.run_for_open_requests(model.name)


def _request_for_new_labels(model: ModelConfig, days: int) -> None:
    trained = [partitions.parse(record.body["as_of"]) for record in ledger.read("verdict", model.name)]
    labelled = platform_for(model).labelled_until(model)
    if not trained or labelled is None or champions.champion(model.name) is None:
        return
    as_of, last = labelled + timedelta(days=model.labels.delay_days), max(trained)
    if (as_of - last).days >= days:
        evidence = {"labelled_until": labelled.isoformat(), "last_training_as_of": last.isoformat()}
        retraining.request_training(model, "new_labels", as_of, "arrival", evidence)


def _request_for_failed_checks(model: ModelConfig, partitions_in_a_row: int) -> None:
    failed = history.failed_in_a_row(model.name)
    if len(failed) >= partitions_in_a_row:
        newest = failed[-1].body
        evidence = {"partitions": [record.body["partition"] for record in failed], "failed": newest["failed"]}
        retraining.request_training(model, "data_quality", partitions.parse(newest["partition"]), newest["origin"], evidence)


@task
def deliver_alerts() -> int:
    """Send the alert mails that could not be sent when they were written; how many still wait."""
    return notifications.send_pending(seconds=300)
