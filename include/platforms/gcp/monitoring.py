"""Monitoring on Google Cloud: BigQuery counts, documents are objects of the lake, figures go to Cloud Monitoring too.

monitoring/<model>/profiles/<cells>/2013-04-01.json                 counts of a day in the cells of a version
monitoring/<model>/2013-04-01/v00001/comparisons.json, report.html  what a run has found
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.sdk import TaskGroup

from include import documents, monitoring_sql, partitions, queries
from include.config import ModelConfig, settings
from include.model_task import Read, model_task
from include.platforms import archives
from include.platforms import monitoring_facts as facts
from include.platforms.base import SourceMissing
from include.platforms.gcp import lake, models, requests, tables
from include.platforms.gcp.clients import client
from include.platforms.gcp.jobs import BatchPrediction, BigQueryJob
from include.platforms.gcp.settings import gcp
from include.platforms.steps import steps

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

READERS = 16
METRIC = "custom.googleapis.com/aileron/"


def profile(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("profile") as group:
        planned = model_task(plan_profile, task_id="plan")(model, run)
        query = BigQueryJob(task_id="query", model=model, step="profile", request=Read(planned, "query"))
        kept = model_task(keep_profiles, task_id="keep", trigger_rule="none_failed")(model, run, planned)
    return steps(group, planned, query, kept)


def plan_profile(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that counts the partition and the days before it, where they have not been counted yet or have changed."""
    last = partitions.parse(run["partition"])
    first, found = facts.history_begins(model, last), tables.fingerprints(model)
    sources = {day: state for day, state in found.items() if first <= day <= last}
    if last not in sources:
        raise SourceMissing(f"{model.source.table}: partition {last} is gone since it was published")
    counted, folder = _counted(model, run)
    states = facts.states(model, sources)
    with ThreadPoolExecutor(READERS) as readers:
        known = dict(zip(states, readers.map(lambda day: _state(folder, day.isoformat()), states), strict=True))
    missing = [day for day, state in states.items() if known[day] != state]
    planned = {"folder": folder, "states": {day.isoformat(): state for day, state in states.items()}}
    planned |= {"missing": [day.isoformat() for day in missing], "query": {}}
    if missing:
        days = {"first_partition": missing[0], "last_partition": missing[-1]}
        reads = [states[day] for day in states if missing[0] <= day <= missing[-1]]
        planned["query"] = requests.query(model, "profile", run, _profile(model, counted).query.sql, days, reads)
    log.info("%d of %d days are to be counted", len(missing), len(states))
    return planned


def keep_profiles(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], *, ti: Any = None) -> dict[str, Any]:
    """One document for each day."""
    counted, folder = _counted(model, run)
    missing = [partitions.parse(day) for day in planned["missing"]]
    if missing:
        names, rows = tables.rows(ti.xcom_pull(task_ids="profile.query")["ref"])
        for day, found in facts.profiles(_profile(model, counted), missing, names, rows).items():
            lake.write_json(f"{folder}/{day}.json", {**found.to_json(), "state": planned["states"][day.isoformat()]})
    today = documents.read_json(f"{folder}/{run['partition']}.json")
    return {
        "folder": folder,
        "days": list(planned["states"]),
        "rows": today["rows"],
        "population": today["population"],
        "counted": len(missing),
    }


def evaluate_matured(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("evaluate_matured") as group:
        planned = model_task(plan_quality, task_id="plan")(model, run)
        query = BigQueryJob(task_id="query", model=model, step="quality", request=Read(planned, "query"))
        # The champion before, as long as the present one is on probation; all of it is skipped otherwise.
        former = model_task(plan_former, task_id="plan_former", trigger_rule="none_failed")(model, run, planned)
        features = BigQueryJob(task_id="features", model=model, step="former_rows", request=Read(former, "features"))
        scoring = model_task(plan_former_scores, task_id="plan_scores")(model, run, features.output)
        predicted = BatchPrediction(task_id="predict", model=model, step="former", request=Read(scoring, "prediction"))
        comparing = model_task(plan_comparison, task_id="plan_comparison")(model, run, predicted.output)
        compare = BigQueryJob(task_id="compare", model=model, step="former_quality", request=Read(comparing, "query"))
        kept = model_task(keep_quality, task_id="keep", trigger_rule="none_failed")(model, run, planned, former)
    return steps(group, planned, query, former, features, scoring, predicted, comparing, compare, kept)


def plan_quality(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that puts scores beside labels that have come."""
    if run["matured"] is None:
        return {"query": {}}
    sources, matured = tables.fingerprints(model, also=[model.labels.table]), _matured(run)
    query = monitoring_sql.quality(
        model, tables.DIALECT, tables.of(model), tables.named(tables.predictions(model)), model.gate.slices
    )
    first, last = matured["first_partition"], matured["last_partition"]
    reads = list(facts.states(model, {day: state for day, state in sources.items() if first <= day <= last}).values())
    return {"query": requests.query(model, "quality", run, query.sql, matured, reads)}


def plan_former(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], *, ti: Any = None) -> dict[str, Any]:
    """The features of the matured days, for the champion before."""
    if not planned["query"] or run["former"] is None:
        return {"features": {}}
    days = facts.days_to_score_again(run, _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.query")["ref"]))
    if not days:
        return {"features": {}}
    table = tables.staged(model, run, "former")
    select = queries.accepted_features(model, tables.DIALECT, tables.of(model)).sql
    statement, found = requests.create_as(model, run, table, select), tables.fingerprints(model)
    bounds, reads = {"first_partition": days[0], "last_partition": days[-1]}, [found[day] for day in days]
    return {"features": requests.query(model, "former_rows", run, statement, bounds, reads, table)}


def plan_former_scores(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The batch prediction of the champion before."""
    archives.require_features(lake, model, run["former"])
    rows, target = tables.staged(model, run, "former"), tables.staged(model, run, "former_answers")
    resource = models.resource_of(model, run["former"])
    return {"prediction": requests.batch_prediction(model, "former", run, resource, rows, target, tables.made(rows))}


def plan_comparison(model: ModelConfig, run: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    """The statement that puts labels beside its scores."""
    version = int(run["former"]["version"])
    scores = (
        f"(SELECT `{model.source.key}`, partition_date, CAST(JSON_VALUE(prediction, '$.score') AS FLOAT64) AS score, "
        f"'{version}' AS model_version FROM `{tables.checked(predicted['output'])}`)"
    )
    query = monitoring_sql.quality(model, tables.DIALECT, tables.of(model), scores, [])
    return {"query": requests.query(model, "former_quality", run, query.sql, _matured(run), predicted["ref"])}


def keep_quality(
    model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], former: dict[str, Any], *, ti: Any = None
) -> dict[str, Any]:
    """What is known of matured days, of the champion and of the one before."""
    rows = _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.query")["ref"]) if planned["query"] else []
    before, seconds = [], 0.0
    if former["features"]:
        before = _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.compare")["ref"])
        seconds = ti.xcom_pull(task_ids="evaluate_matured.predict")["seconds"]
    place = f"{run['folder']}/matured.json"
    lake.write_json(place, {"rows": [row.to_json() for row in rows], "former": [row.to_json() for row in before]})
    return {"document": place, "days": len({row.partition for row in rows if row.labelled}), "seconds": seconds}


def record_figures(model: ModelConfig, figures: Mapping[str, float]) -> None:
    """To Cloud Monitoring, where alerts of one's own can be set on them: custom metrics, by model and environment."""
    from google.cloud.monitoring_v3 import TimeSeries

    now = int(time.time())
    labels = {"model": model.name, "environment": settings().environment}
    series = [
        TimeSeries({
            "metric": {"type": f"{METRIC}{name}", "labels": labels},
            "resource": {"type": "global", "labels": {"project_id": gcp().project}},
            "points": [{"interval": {"end_time": {"seconds": now}}, "value": {"double_value": float(value)}}],
        })
        for name, value in figures.items()
    ]
    if series:
        client("metrics").create_time_series(name=f"projects/{gcp().project}", time_series=series)


def monitoring_folder(model: ModelConfig) -> str:
    return lake.place("monitoring", model.name)


def _counted(model: ModelConfig, run: dict[str, Any]) -> tuple[facts.Counted, str]:
    """What is counted, and the folder of its documents."""
    counted = facts.counted(model, run, models.manifest_of(model, run["version"]))
    return counted, f"{monitoring_folder(model)}/profiles/{counted.digest}"


def _profile(model: ModelConfig, counted: facts.Counted) -> monitoring_sql.ProfileQuery:
    return counted.query(model, tables.DIALECT, tables.of(model), tables.named(tables.predictions(model)))


def _state(folder: str, day: str) -> str:
    """What a day was when it was counted; empty if it never was."""
    try:
        return str(documents.read_json(f"{folder}/{day}.json")["state"])
    except documents.DamagedDocument:
        return ""


def _quality_rows(job: str) -> list[monitoring_sql.QualityRow]:
    names, rows = tables.rows(job)
    return [monitoring_sql.read_quality(names, row) for row in rows]


def _matured(run: dict[str, Any]) -> dict[str, date]:
    return {f"{name}_partition": partitions.parse(run["matured"][name]) for name in ("first", "last")}
