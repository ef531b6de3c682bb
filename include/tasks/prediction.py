"""The tasks of predict_<model> that are the same on every platform."""

from __future__ import annotations

import logging
from dataclasses import asdict
from typing import Any, NamedTuple

from airflow.sdk import task
from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg
from airflow.sdk.exceptions import AirflowSkipException

from include import assets, champions, ledger, partitions
from include.config import ModelConfig, load_model, settings
from include.core.audit import Batch, Limits, problems
from include.model_task import model_task
from include.platforms import platform_for
from include.tasks import history
from include.tasks.validation import check_stage
from include.validation import Report

log = logging.getLogger(__name__)

CHAMPION, CHAMPION_AS_OF_PARTITION = "champion", "champion as of the partition"


class NoChampion(ValueError):
    """There is no model to score with."""


class AuditFailed(ValueError):
    """Staged predictions must not be published. `checks` and `facts` are for the mail."""

    def __init__(self, message: str, report: Report, version: str) -> None:
        super().__init__(message)
        self.checks = report.failed
        self.facts = {"Model version": version, "Report": report.page}


class Resolved(NamedTuple):
    """The first task, and what the others take from it."""

    task: XComArg
    run: XComArg
    range_runs: XComArg


def resolve_partition(model: ModelConfig) -> Resolved:
    """The first task of a run. After it nothing reads what a caller has typed."""
    resolved = task.branch(task_id="resolve_partition")(_resolve_partition)(model.name)
    operator, _ = next(resolved.iter_references())
    return Resolved(resolved, PlainXComArg(operator, "run"), PlainXComArg(operator, "range_runs"))


def _resolve_partition(name: str, *, dag_run: Any = None, params: Any = None, ti: Any = None) -> str:
    """Which partition is this run about, and how is it to be scored? Refuses a run that is about none.

    A range becomes one run per partition, so that each can fail, be retried and be explained by itself.
    """
    model = load_model(name)
    days = partitions.partitions_of(dag_run, params)
    choice, dry_run = _checked_choices(dag_run, params)
    outside = [day for day in days if day < model.start or (model.end and day > model.end)]
    if outside and partitions.origin_of(dag_run) == "scheduled":
        raise AirflowSkipException(
            f"{model.name}: the feed goes from {model.start} to {model.end}: nothing is scheduled outside; pause this DAG"
        )
    if outside:
        raise partitions.NoPartition(
            f"{model.name} has no partition {outside[0]}: it goes from {model.start} to {model.end or 'today'}"
        )
    workspace = partitions.workspace_of(dag_run)
    if len(days) > 1:
        conf = {"origin": "range", "model_version": choice, "dry_run": dry_run}
        runs = [{"trigger_run_id": f"range__{day}__{workspace}", "conf": {**conf, "partition": day.isoformat()}} for day in days]
        ti.xcom_push("range_runs", runs)
        log.info("%s to %s: starting %d runs", days[0], days[-1], len(days))
        return "list_range"
    run = {
        "partition": days[0].isoformat(),
        "origin": partitions.origin_of(dag_run),
        "model_choice": choice,
        "dry_run": dry_run,
        "run_id": dag_run.run_id,
        "workspace": workspace,
        "marker": platform_for(model).marker(model, days[0]),
    }
    ti.xcom_push("run", run)
    ledger.append("prediction_run", model.name, f"{days[0]}.{workspace}", {**run, "dag_id": dag_run.dag_id})
    log.info("partition %s, asked for by: %s", run["partition"], run["origin"])
    return "await_source"


@model_task
def list_range(model: ModelConfig, runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The runs that a run about a range starts, one per partition."""
    log.info("%s: %s", model.name, ", ".join(run["trigger_run_id"] for run in runs))
    return runs


def _checked_choices(dag_run: Any, params: Any) -> tuple[str, bool]:
    """The form is checked by the UI; a conf that comes by API or CLI is only as good as this."""
    partitions.refuse_unknown_conf(dag_run, "partition", "last_partition", "model_version", "dry_run", "origin")
    choice, dry_run = params["model_version"], params["dry_run"]
    if choice not in (CHAMPION, CHAMPION_AS_OF_PARTITION):
        raise ValueError(f"model_version {choice!r} must be {CHAMPION!r} or {CHAMPION_AS_OF_PARTITION!r}")
    if not isinstance(dry_run, bool):
        raise ValueError(f"dry_run {dry_run!r} must be true or false")
    return choice, dry_run


@model_task
def choose_model(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The version that scores this run: resolved once, so that a promotion meanwhile cannot mix two models.

    Raises:
        NoChampion: if no version has been promoted (by then).
    """
    if run["model_choice"] == CHAMPION_AS_OF_PARTITION:
        version = champions.champion_as_of(model.name, partitions.parse(run["partition"]))
        if version is None:
            raise NoChampion(
                f"{model.name} had no champion as of {run['partition']}: choose today's champion, or a later partition"
            )
    else:
        version = champions.champion(model.name)
        if version is None:
            raise NoChampion(f"{model.name} has no champion yet: run train_{model.name} and let it promote one")
    log.info("scoring with version %s", version.version)
    return asdict(version)


@model_task
def audit_predictions(
    model: ModelConfig,
    run: dict[str, Any],
    version: dict[str, Any],
    features: dict[str, Any],
    scores: dict[str, Any],
    predictions: dict[str, Any],
) -> dict[str, Any]:
    """Is what has been staged fit to be seen? Every row accounted for, keys unique, scores possible and as usual.

    Raises:
        AuditFailed: with what broke and against which limit. Nothing has been published then.
    """
    batch = Batch(
        rows_in=features["rows_in"],
        rows_quarantined=features["rows_quarantined"],
        rows_features=features["rows"],
        rows_scored=scores["rows"],
        rows_predictions=predictions["rows"],
        unseen=scores["unseen"],
        score_counts=scores["histogram"],
    )
    limits = Limits(model.source.max_quarantine_share, model.prediction.max_unseen_share, model.prediction.max_score_shift)
    earlier = [
        record.body["score_counts"]
        for record in history.before(model.name, partitions.parse(run["partition"]))
        if record.body["model_version"] == version["version"]
    ]
    report = check_stage(model, "predictions", run, {})
    found = [*problems(batch, limits, earlier), *(check.sentence for check in report.failed)]
    if found:
        history.record_failed_checks(model.name, run, "predictions", found)
        raise AuditFailed(
            f"{model.name} {run['partition']}: predictions not fit to publish: {'; '.join(found)}", report, version["version"]
        )
    return {
        "rows_in": batch.rows_in,
        "rows_scored": batch.rows_scored,
        "rows_quarantined": batch.rows_quarantined,
        "quarantine_reasons": features["reasons"],
        "unseen": scores["unseen"],
        "score_counts": scores["histogram"],
        "score_mean": scores["mean"],
        "checks": len(report.checks),
        "warnings": [check.sentence for check in report.warnings],
        "page": report.page,
    }


def publish(model: ModelConfig, *facts: XComArg) -> XComArg:
    """The last task: readers see the new partition, the ledger knows it, and the asset tells whoever listens."""
    return model_task(_publish, task_id="publish", outlets=[assets.predictions(model)])(model, *facts)


def _publish(
    model: ModelConfig,
    run: dict[str, Any],
    version: dict[str, Any],
    features: dict[str, Any],
    audit: dict[str, Any],
    *,
    dag_run: Any = None,
    outlet_events: Any = None,
) -> dict[str, Any]:
    """Show the staged predictions to readers in one step, record it, and tell whoever listens. A dry run ends here, skipped."""
    if run["dry_run"]:
        raise AirflowSkipException(f"dry run: {audit['rows_scored']} rows scored and audited, nothing published")
    facts = {
        **audit,
        "model_version": version["version"],
        "source": features["source"],
        "origin": run["origin"],
        "dag_id": dag_run.dag_id,
        "run_id": run["run_id"],
        "workspace": run["workspace"],
        "git_revision": settings().revision,
    }
    publication = platform_for(model).publish(model, run, facts)
    event = {
        "partition": publication.partition,
        "publication": publication.version,
        "rows": publication.rows,
        "quarantined": audit["rows_quarantined"],
        "model_version": version["version"],
        "checks": f"{audit['checks']} passed" + (f", {len(audit['warnings'])} warnings" if audit["warnings"] else ""),
        "origin": run["origin"],
        "location": publication.location,
    }
    outlet = outlet_events[assets.predictions(model)]
    outlet.extra = event
    if dag_run.partition_key is None:
        # Started by hand or by another DAG: the run has no key of its own, but the event needs one.
        outlet.add_partitions(publication.partition)
    log.info("published %s as version %d: %s", publication.partition, publication.version, publication.location)
    return event
