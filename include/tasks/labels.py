"""The tasks of label_<model> that are the same on every platform: a request, its answers, and what they say."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include import champions, labelling, ledger, notices, partitions, retraining
from include.config import ModelConfig
from include.model_task import model_task
from include.platforms import platform_for

log = logging.getLogger(__name__)


@model_task
def read_request(model: ModelConfig, *, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    """Which labels are wanted?

    Raises:
        ValueError: if the run names no request, or one that was not made.
    """
    partitions.refuse_unknown_conf(dag_run, "request")
    key = params["request"]
    request = ledger.find(labelling.REQUEST, model.name, key) if isinstance(key, str) and key else None
    if request is None or not request.body["rows"]:
        raise ValueError(
            f"{model.name}: there is no label request {key!r}: monitor_{model.name} makes them; the ledger has their keys"
        )
    change = champions.promotion_of(model.name, request.body["model_version"])
    if change is None:
        raise ledger.InvalidRecord(
            f"{model.name}: the ledger has no promotion of version {request.body['model_version']}: restore it from a backup"
        )
    last = partitions.parse(request.body["partition"])
    first = max(partitions.parse(request.body["since"]), last - timedelta(days=labelling.DAYS - 1))
    return {
        "request": key,
        "rows": request.body["rows"],
        "version": asdict(change.version),
        "first": first.isoformat(),
        "last": last.isoformat(),
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
    }


@model_task
def judge_labels(
    model: ModelConfig, asked: dict[str, Any], queued: dict[str, Any], *, dag_run: Any = None
) -> list[dict[str, Any]]:
    """What do the answers say of the model? If it has decayed, a training is requested; it is recorded and mailed either way."""
    answers = platform_for(model).label_answers(model, asked["request"])
    judged = labelling.judge(model, asked["version"], answers)
    answered = sum(answer["label"] is not None for answer in answers)
    body = {
        "request": asked["request"],
        "asked": queued["rows"],
        "answered": answered,
        "model_version": asked["version"]["version"],
        "quality": judged.to_json(),
        "as_of": _as_of(model, asked).isoformat(),
        "dag_id": asked["dag_id"],
        "run_id": asked["run_id"],
    }
    said = ledger.once(labelling.ANSWER, model.name, asked["request"], body)
    state, sentence = said.body["quality"]["state"], said.body["quality"]["sentence"]
    log.info("%d of %d answered: %s", said.body["answered"], said.body["asked"], sentence)
    notices.send(
        model,
        name=f"labels-{model.name}-{asked['request'].replace('.', '-')}",
        to=model.owner.emails,
        subject=f"{model.name}: labels say {state} · {asked['last']}",
        paragraphs=[
            f"{said.body['answered']} of the {said.body['asked']} labels that were asked for after the alarm of {asked['last']} "
            "have come.",
            sentence,
            "A training has been requested." if state == "decay" else "Nothing is started.",
            "What to do: docs/runbooks/drift_monitoring.md",
        ],
        dag_run=dag_run,
    )
    if state != "decay":
        raise AirflowSkipException(f"{state}: {sentence}")
    evidence = {"request": asked["request"], "answered": said.body["answered"], "quality": sentence}
    return retraining.request_training(model, "quality_decay", partitions.parse(said.body["as_of"]), "scheduled", evidence)


def _as_of(model: ModelConfig, asked: dict[str, Any]) -> date:
    """The newest day that can be learned from: until the answers had come, more of the labels may have."""
    day = partitions.parse(asked["last"])
    labelled = platform_for(model).labelled_until(model)
    return max(day, labelled + timedelta(days=model.labels.delay_days)) if labelled else day
