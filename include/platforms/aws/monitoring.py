"""Monitoring on AWS: Athena counts, documents are objects of the lake, figures go to CloudWatch too.

monitoring/<model>/profiles/<cells>/2013-04-01.json                 counts of a day in the cells of a version
monitoring/<model>/2013-04-01/v00001/comparisons.json, report.html  what a run has found
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.sdk import TaskGroup

from include import documents, monitoring_sql, partitions, queries
from include.config import ModelConfig, settings
from include.model_task import Read, model_task
from include.platforms import archives
from include.platforms import monitoring_facts as facts
from include.platforms.aws import lake, models, requests, tables
from include.platforms.aws.jobs import AthenaQuery, ModelOnce, TransformJob
from include.platforms.aws.settings import aws
from include.platforms.base import SourceMissing
from include.platforms.steps import steps

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

READERS = 16


def profile(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("profile") as group:
        planned = model_task(plan_profile, task_id="plan")(model, run)
        query = AthenaQuery(task_id="query", model=model, step="profile", request=Read(planned, "query"))
        kept = model_task(keep_profiles, task_id="keep", trigger_rule="none_failed")(model, run, planned)
    return steps(group, planned, query, kept)


def plan_profile(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that counts the partition and the days before it, where they have not been counted yet or have changed."""
    last = partitions.parse(run["partition"])
    first, found = facts.history_begins(model, last), lake.fingerprints(model)
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
        asked = counted.query(model, tables.DIALECT, tables.of(model), tables.named(tables.predictions(model)))
        statement = tables.bound(asked.query, {"first_partition": missing[0], "last_partition": missing[-1]})
        reads = [states[day] for day in states if missing[0] <= day <= missing[-1]]
        planned["query"] = requests.query(model, "profile", run, statement, reads)
    log.info("%d of %d days are to be counted", len(missing), len(states))
    return planned


def keep_profiles(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], *, ti: Any = None) -> dict[str, Any]:
    """One document for each day."""
    counted, folder = _counted(model, run)
    missing = [partitions.parse(day) for day in planned["missing"]]
    if missing:
        execution = ti.xcom_pull(task_ids="profile.query")["ref"]
        asked = counted.query(model, tables.DIALECT, tables.of(model), tables.named(tables.predictions(model)))
        names, rows = tables.rows(execution)
        for day, found in facts.profiles(asked, missing, names, rows).items():
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
        query = AthenaQuery(task_id="query", model=model, step="quality", request=Read(planned, "query"))
        # The champion before, as long as the present one is on probation; all of it is skipped otherwise.
        former = model_task(plan_former, task_id="plan_former", trigger_rule="none_failed")(model, run, planned)
        features = AthenaQuery(task_id="features", model=model, step="former_rows", request=Read(former, "features"))
        scoring = model_task(plan_former_scores, task_id="plan_scores")(model, run, former)
        created = ModelOnce(task_id="model", config=Read(scoring, "model"))
        transform = TransformJob(task_id="transform", model=model, step="former", request=Read(scoring, "transform"))
        described = model_task(describe_former, task_id="describe")(model, run, former, transform.output)
        compare = AthenaQuery(task_id="compare", model=model, step="former_quality", request=Read(described, "query"))
        kept = model_task(keep_quality, task_id="keep", trigger_rule="none_failed")(model, run, planned, former)
    return steps(group, planned, query, former, features, scoring, created, transform, described, compare, kept)


def plan_quality(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that puts scores beside labels that have come."""
    if run["matured"] is None:
        return {"query": {}}
    sources, (first, last) = lake.fingerprints(model, also=[model.labels.table]), _matured(run)
    query = monitoring_sql.quality(
        model, tables.DIALECT, tables.of(model), tables.named(tables.predictions(model)), model.gate.slices
    )
    reads = list(facts.states(model, {day: state for day, state in sources.items() if first <= day <= last}).values())
    statement = tables.bound(query, {"first_partition": first, "last_partition": last})
    return {"query": requests.query(model, "quality", run, statement, reads)}


def plan_former(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], *, ti: Any = None) -> dict[str, Any]:
    """The features of the matured days, for the champion before."""
    if not planned["query"] or run["former"] is None:
        return {"features": {}}
    days = facts.days_to_score_again(run, _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.query")["ref"]))
    if not days:
        return {"features": {}}
    table = tables.new(tables.staged(model, run, "former"), lake.workspace(model.name, run, "former_rows"))
    select = tables.bound(
        queries.accepted_features(model, tables.DIALECT, tables.of(model)),
        {"first_partition": days[0], "last_partition": days[-1]},
    )
    found = lake.fingerprints(model)
    reads = [found[day] for day in days]
    return {"features": requests.query(model, "former_rows", run, tables.create_as(table, select, "JSON"), reads, table)}


def plan_former_scores(model: ModelConfig, run: dict[str, Any], former: dict[str, Any]) -> dict[str, Any]:
    """The model of the champion before, and its batch transform."""
    archives.require_features(lake, model, run["former"])
    created = requests.sagemaker_model(model, run["former"], run, models.package_of(model, run["former"]))
    rows = tables.location(tables.staged(model, run, "former"))
    folder, files = lake.workspace(model.name, run, "former_scores"), lake.digest(lake.data(rows))
    return {"model": created, "transform": requests.transform(model, "former", run, created["ModelName"], rows, folder, files)}


def describe_former(
    model: ModelConfig, run: dict[str, Any], former: dict[str, Any], transformed: dict[str, Any]
) -> dict[str, Any]:
    """Its scores as a table, and the statement that puts labels beside them."""
    name, (first, last) = tables.staged(model, run, "former_scores"), _matured(run)
    columns = {model.source.key: tables.key_type(model), "partition_date": "date", "score": "double"}
    tables.describe_files({"name": name, "location": transformed["output"]}, columns, tables.JSON_LINES)
    version = int(run["former"]["version"])
    scores = f"(SELECT *, '{version}' AS model_version FROM {tables.named(name)})"
    query = monitoring_sql.quality(model, tables.DIALECT, tables.of(model), scores, [])
    statement = tables.bound(query, {"first_partition": first, "last_partition": last})
    return {"query": requests.query(model, "former_quality", run, statement, transformed["job"])}


def keep_quality(
    model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], former: dict[str, Any], *, ti: Any = None
) -> dict[str, Any]:
    """What is known of matured days, of the champion and of the one before."""
    rows = _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.query")["ref"]) if planned["query"] else []
    before, seconds = [], 0.0
    if former["features"]:
        before = _quality_rows(ti.xcom_pull(task_ids="evaluate_matured.compare")["ref"])
        seconds = ti.xcom_pull(task_ids="evaluate_matured.transform")["seconds"]
    place = f"{run['folder']}/matured.json"
    lake.write_json(place, {"rows": [row.to_json() for row in rows], "former": [row.to_json() for row in before]})
    return {"document": place, "days": len({row.partition for row in rows if row.labelled}), "seconds": seconds}


def record_figures(model: ModelConfig, figures: Mapping[str, float]) -> None:
    """To CloudWatch, where alarms of one's own can be set on them: namespace Aileron, by model and environment."""
    dimensions = [{"Name": "Model", "Value": model.name}, {"Name": "Environment", "Value": settings().environment}]
    client = AwsBaseHook(aws_conn_id=aws().connection, client_type="cloudwatch").conn
    given = [{"MetricName": name, "Dimensions": dimensions, "Value": value} for name, value in figures.items()]
    client.put_metric_data(Namespace="Aileron", MetricData=given)


def monitoring_folder(model: ModelConfig) -> str:
    return lake.place("monitoring", model.name)


def _counted(model: ModelConfig, run: dict[str, Any]) -> tuple[facts.Counted, str]:
    """What is counted, and the folder of its documents."""
    counted = facts.counted(model, run, models.manifest_of(model, run["version"]))
    return counted, f"{monitoring_folder(model)}/profiles/{counted.digest}"


def _state(folder: str, day: str) -> str:
    """What a day was when it was counted; empty if it never was."""
    try:
        return str(documents.read_json(f"{folder}/{day}.json")["state"])
    except documents.DamagedDocument:
        return ""


def _matured(run: dict[str, Any]) -> tuple[Any, Any]:
    return partitions.parse(run["matured"]["first"]), partitions.parse(run["matured"]["last"])


def _quality_rows(execution: str) -> list[monitoring_sql.QualityRow]:
    names, rows = tables.rows(execution)
    return [monitoring_sql.read_quality(names, row) for row in rows]
