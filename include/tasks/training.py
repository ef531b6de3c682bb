"""The tasks of train_<model> that are the same on every platform, up to the registered challenger."""

from __future__ import annotations

import logging
from dataclasses import asdict
from datetime import date
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include import champions, documents, evaluation_page, ledger, partitions, retraining
from include.config import ModelConfig, settings
from include.core import gates
from include.model_task import model_task
from include.tasks.validation import validate

log = logging.getLogger(__name__)

REASONS: dict[str, retraining.RunReason] = {"scheduled": "schedule", "retraining": "request", "backfill": "backfill"}


@model_task
def admit(model: ModelConfig, *, dag_run: Any = None, params: Any = None) -> dict[str, Any]:
    """May this run train, as of which day, and who asked? What is refused ends here, skipped; the ledger says why."""
    partitions.refuse_unknown_conf(dag_run, "as_of", "origin")
    reason = REASONS.get(partitions.origin_of(dag_run), "by hand")
    workspace = partitions.workspace_of(dag_run)
    told = None if reason in ("request", "backfill") else partitions.training_day_of(dag_run, params)
    if told:
        _window(model, told)  # a run that cannot train is refused before it takes the requests of others with it
    champions.mirror(model.name)
    admission = retraining.admit(model, retraining.Run(dag_run.run_id, workspace, dag_run.run_after, reason), told)
    log.info("%s", admission.why)
    if not admission.admitted:
        raise AirflowSkipException(admission.why)
    as_of = told or admission.as_of
    assert as_of is not None, "a run that is admitted without a day has requests, and they have"
    first, last = _window(model, as_of)
    return {
        "as_of": as_of.isoformat(),
        "first": first.isoformat(),
        "last": last.isoformat(),
        "reason": ", ".join([reason, *sorted({str(request["reason"]) for request in admission.requests})]),
        "decay_confirmed": admission.decay_confirmed,
        "admission": admission.number,
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "started": dag_run.run_after.isoformat(),
        "workspace": workspace,
    }


def _window(model: ModelConfig, as_of: date) -> tuple[date, date]:
    """First and last day of the labelled partitions that a training as of a day learns from.

    Raises:
        NoPartition: if there are too few.
    """
    first, last = model.window(as_of)
    needed = model.training.holdout_days + 2 * model.training.search.validation_days + 1
    if (last - first).days + 1 < needed:
        raise partitions.NoPartition(
            f"{model.name}: as of {as_of} only the partitions {first} to {last} have labels: too few for a holdout of "
            f"{model.training.holdout_days} days, two validation sets of {model.training.search.validation_days} and a day to "
            "learn from; give a later as_of"
        )
    return first, last


@model_task
def validate_training_set(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """Is the snapshot fit to be learned from, by its suite?"""
    return validate(model, "training", {**run, "partition": run["as_of"], "snapshot": snapshot["file"]}, {})


@model_task
def current_champion(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Whom the challenger has to beat: the version, and the number of the change that made it champion."""
    changes = champions.history(model.name)
    if not changes:
        log.info("%s has no champion yet", model.name)
        return {"version": None, "number": 0}
    return {"version": asdict(changes[-1].version), "number": changes[-1].number}


@model_task
def gate(
    model: ModelConfig,
    run: dict[str, Any],
    snapshot: dict[str, Any],
    tuned: dict[str, Any],
    challenger: dict[str, Any],
    champion: dict[str, Any],
    evaluation: dict[str, Any],
    *,
    ti: Any = None,
) -> dict[str, Any]:
    """PROMOTE, HOLD or REJECT, with the evidence, a page and a record. Anything but PROMOTE ends the run here, skipped."""
    document = documents.read_json(evaluation["document"])
    key = f"{run['as_of']}.{run['workspace']}.{challenger['manifest_sha256'][:16]}.{champion['number']:06d}"
    verdict = _verdict(model, run, snapshot, challenger, champion, document)
    against = champion["version"]
    page = documents.sibling(evaluation["document"], "report.html")
    body = {
        **verdict,
        "as_of": run["as_of"],
        "reason": run["reason"],
        "challenger": challenger["manifest_sha256"],
        "champion": against and against["version"],
        "champion_number": champion["number"],
        "holdout": {name: document[name] for name in ("first", "last", "rows")},
        "metrics": _point_metrics(document["challenger"]),
        "champion_metrics": _point_metrics(document["champion"]),
        "snapshot": snapshot["snapshot"],
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "git_revision": settings().revision,
        "page": page,
    }
    body = ledger.once("verdict", model.name, key, body).body  # at a retry what was said before, which stands
    seconds = sum(facts["seconds"] for facts in (tuned, challenger, evaluation))
    retraining.record_cost(model, run["run_id"], run["workspace"], seconds)
    facts = {**run, "snapshot": snapshot["snapshot"], "git_revision": settings().revision}
    documents.write(page, evaluation_page.render(model.title, facts, document, body).encode())
    log.info("%s: %s", body["outcome"], " ".join(body["reasons"]))
    log.info("page: %s", page)
    ti.xcom_push("page", page)  # the UI links it, also where the run ends here
    if body["outcome"] != "PROMOTE":
        raise AirflowSkipException(f"{body['outcome']}: {' '.join(body['reasons'])} The champion stays. Page: {page}")
    return {"key": key, **{name: body[name] for name in ("outcome", "rule", "reasons", "metrics", "champion_metrics", "page")}}


def _verdict(
    model: ModelConfig,
    run: dict[str, Any],
    snapshot: dict[str, Any],
    challenger: dict[str, Any],
    champion: dict[str, Any],
    document: dict[str, Any],
) -> dict[str, Any]:
    against = champion["version"]
    if against and against["manifest_sha256"] == challenger["manifest_sha256"]:
        same = "The challenger is the champion: the same snapshot and parameters have given the same artifact."
        return gates.Verdict("HOLD", "superiority", (gates.Finding("another model", "HOLD", same),)).to_json()
    age = (date.fromisoformat(run["as_of"]) - date.fromisoformat(document["champion"]["trained_to"])).days if against else None
    circumstances = gates.Circumstances(
        decay_confirmed=run["decay_confirmed"],
        champion_age_days=age,
        label_coverage=snapshot["label_coverage"],
        holdout_uses=_uses(model, challenger["manifest_sha256"], document),
        artifact_checked=document["challenger"]["manifest_sha256"] == challenger["manifest_sha256"],
    )
    return gates.judge(document, model.gate_rules, circumstances).to_json()


def _uses(model: ModelConfig, challenger: str, document: dict[str, Any]) -> int:
    """How many other challengers were compared with a champion on the days of this holdout."""
    days = (document["first"], document["last"])
    return len({
        record.body["challenger"]
        for record in ledger.read("verdict", model.name)
        if (record.body["holdout"]["first"], record.body["holdout"]["last"]) == days
        and record.body["champion"] is not None
        and record.body["challenger"] != challenger
    })


def _point_metrics(measured: dict[str, Any] | None) -> dict[str, float | None]:
    return {name: estimate["value"] for name, estimate in measured["metrics"].items()} if measured else {}
