"""Batch prediction on AWS: Athena makes the features, SageMaker scores them, Glue decides, the catalog publishes."""

from __future__ import annotations

import json
import logging
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.athena import AthenaHook
from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.providers.amazon.aws.triggers.sqs import SqsSensorTrigger
from airflow.sdk import AssetWatcher, TaskGroup

from include import partitions, publications, queries
from include.config import ModelConfig, settings
from include.model_task import Read, model_task
from include.platforms import archives, prediction_facts
from include.platforms.aws import lake, requests, tables
from include.platforms.aws.jobs import AthenaQuery, GlueJob, ModelOnce, RedshiftStatements, TransformJob
from include.platforms.aws.models import manifest_of, package_of
from include.platforms.aws.settings import aws
from include.platforms.base import Publication, SourceChanged
from include.platforms.steps import steps
from include.validation import Dataset, Stage

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

MARKER = "{{ ti.xcom_pull(task_ids='resolve_partition', key='run')['marker'] }}"
KEPT_VERSIONS = 5
REDSHIFT_TYPES = {
    "string": "VARCHAR(65535)",
    "bigint": "BIGINT",
    "double": "DOUBLE PRECISION",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


def await_source(model: ModelConfig) -> BaseOperator:
    return S3KeySensor(
        task_id="await_source",
        bucket_key=MARKER,
        aws_conn_id=aws().connection,
        deferrable=True,
        poke_interval=aws().seconds,
        timeout=model.source.wait_hours * 3600,
        doc_md="Waits, without holding a worker, until the marker of the partition is there: the source has landed it whole.",
    )


def landing_watchers(model: ModelConfig) -> list[AssetWatcher]:
    """The bucket tells the queue of markers; without a queue the cron of the arrivals DAG finds them later."""
    if not aws().queue:
        return []
    trigger = SqsSensorTrigger(sqs_queue=aws().queue, aws_conn_id=aws().connection, waiter_delay=aws().seconds)
    return [AssetWatcher(name=f"{model.name}_landing", trigger=trigger)]


def marker(model: ModelConfig, partition: date) -> str:
    return lake.marker(model, partition)


def declared_rows(model: ModelConfig, partition: date) -> int | None:
    place = lake.marker(model, partition)
    try:
        rows = json.loads(lake.read(place) or b"{}").get("rows")
    except (ValueError, AttributeError):
        raise ValueError(f'{place}: a marker is empty or a JSON object like {{"rows": 900}}') from None
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 0):
        raise ValueError(f"{place}: rows is {rows!r}, not a number of rows")
    return rows


def fingerprint(model: ModelConfig, partition: date) -> str:
    return lake.fingerprint(model, partition)


def landed(model: ModelConfig) -> dict[date, str]:
    return lake.fingerprints(model)


def build_features(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("build_features") as group:
        planned = model_task(plan_features, task_id="plan")(model, run)
        features = AthenaQuery(task_id="features", model=model, step="features", request=Read(planned, "features"))
        quarantine = AthenaQuery(task_id="quarantine", model=model, step="quarantine", request=Read(planned, "quarantine"))
        made = [features.output, quarantine.output]
        counts = AthenaQuery(task_id="counts", model=model, step="counts", request=Read(planned, "counts"), after=made)
        facts = model_task(count_features, task_id="facts")(model, run, planned, counts.output)
    return steps(group, planned, [features, quarantine], counts, facts)


def plan_features(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statements that make the features of the partition, and set aside the rows that cannot be scored."""
    partition = partitions.parse(run["partition"])
    source, days = lake.fingerprint(model, partition), {"first_partition": partition, "last_partition": partition}
    sources = tables.of(model)
    features = tables.new(tables.staged(model, run, "features"), lake.workspace(model.name, run, "features"))
    # Beside the predictions, for it is published with them.
    aside = f"{lake.partition_folder('versions', model.name, partition)}/quarantine"
    quarantine = tables.new(tables.staged(model, run, "quarantine"), aside)
    select = tables.bound(queries.accepted_features(model, tables.DIALECT, sources), days)
    rejected = tables.bound(queries.quarantined_rows(model, tables.DIALECT, sources), days)
    named = [tables.named(name) for name in (model.source.table, features["name"], quarantine["name"])]
    counts = prediction_facts.counts(named[0], named[1], named[2], partition)
    return {
        "source": source,
        # JSON lines, compressed: what a batch transform takes, and a table like any other.
        "features": requests.query(model, "features", run, tables.create_as(features, select, "JSON"), source, features),
        "quarantine": requests.query(model, "quarantine", run, tables.create_as(quarantine, rejected), source, quarantine),
        "counts": requests.query(model, "counts", run, counts, source),
    }


def count_features(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many rows came in, and what became of them."""
    partition = partitions.parse(run["partition"])
    if lake.fingerprint(model, partition) != planned["source"]:
        raise SourceChanged(
            f"{model.source.table}: partition {partition} changed while it was read: clear build_features to read the new one"
        )
    return prediction_facts.counted(tables.answer(counted["ref"]), planned["source"])


def score(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    with TaskGroup("score") as group:
        planned = model_task(plan_scoring, task_id="plan")(model, run, version)
        created = ModelOnce(task_id="model", config=Read(planned, "model"))
        transform = TransformJob(task_id="transform", model=model, step="score", request=Read(planned, "transform"))
        described = model_task(describe_scores, task_id="describe")(model, run, version, transform.output)
        summary = AthenaQuery(task_id="summary", model=model, step="scores", request=Read(described, "summary"))
        facts = model_task(sum_up_scores, task_id="facts")(model, version, transform.output, summary.output)
    return steps(group, planned, created, transform, described, summary, facts)


def plan_scoring(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """The model of the version, and the batch transform of the features with it."""
    archives.require_features(lake, model, version)
    created = requests.sagemaker_model(model, version, run, package_of(model, version))
    features = tables.location(tables.staged(model, run, "features"))
    folder = lake.workspace(model.name, run, "scores")
    files = lake.digest(lake.data(features))
    transform = requests.transform(model, "score", run, created["ModelName"], features, folder, files)
    return {"model": created, "transform": transform}


def describe_scores(
    model: ModelConfig, run: dict[str, Any], version: dict[str, Any], transformed: dict[str, Any]
) -> dict[str, Any]:
    """What the transform has answered, as a table; and the statement that sums it up."""
    table = {"name": tables.staged(model, run, "scores"), "location": transformed["output"]}
    columns = {model.source.key: tables.key_type(model), "partition_date": "date", "score": "double", "unseen": "array<string>"}
    tables.describe_files(table, columns, tables.JSON_LINES)
    edges = manifest_of(model, version)["reference"]["score"]["edges"]
    told = [
        'COUNT(*) AS "rows"',
        "AVG(score) AS mean",
        "MIN(score) AS lowest",
        "MAX(score) AS highest",
        *(f"COUNT_IF(score <= {edge:.17e}) AS edge_{number}" for number, edge in enumerate(edges)),
        *(f"COUNT_IF(CONTAINS(unseen, '{name}')) AS unseen_{name}" for name in model.features.categorical),
    ]
    summary = f"SELECT {', '.join(told)} FROM {tables.named(table['name'])}"
    return {"summary": requests.query(model, "scores", run, summary, transformed["job"]), "table": table["name"]}


def sum_up_scores(
    model: ModelConfig, version: dict[str, Any], transformed: dict[str, Any], summed_up: dict[str, Any]
) -> dict[str, Any]:
    """What the audit wants to know of the scores."""
    (row,) = tables.answer(summed_up["ref"])
    return prediction_facts.summary(
        model, row, manifest_of(model, version)["reference"]["score"]["edges"], transformed["seconds"]
    )


def postprocess(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    with TaskGroup("postprocess") as group:
        planned = model_task(plan_postprocessing, task_id="plan")(model, run, version)
        job = GlueJob(task_id="glue", model=model, step="postprocess", request=Read(planned, "glue"))
        described = model_task(describe_predictions, task_id="describe")(model, run, job.output)
        counted = AthenaQuery(task_id="count", model=model, step="predictions", request=Read(described, "count"))
        facts = model_task(count_predictions, task_id="facts")(model, job.output, counted.output)
    return steps(group, planned, job, described, counted, facts)


def plan_postprocessing(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """The Spark job that makes predictions of scores, at a place that readers may be pointed at."""
    scores = tables.location(tables.staged(model, run, "scores"))
    partition = partitions.parse(run["partition"])
    arguments = {
        "--scores": f"{scores}/",
        "--key": model.source.key,
        "--key_type": tables.key_type(model),
        "--task": model.task,
        "--threshold": repr(model.prediction.decision_threshold),
        "--model_version": str(version["version"]),
        "--run_id": run["run_id"],
        "--scored_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "--git_revision": settings().revision,
    }
    output = f"{lake.partition_folder('versions', model.name, partition)}/{{job}}"
    return {"glue": requests.glue(model, "postprocess", run, "glue_postprocess.py", output, arguments)}


def describe_predictions(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The staged predictions as a table that only this run reads; and the statement that counts them."""
    table = {"name": tables.staged(model, run, "staged"), "location": made["output"]}
    tables.describe_files(table, prediction_columns(model), tables.PARQUET)
    count = f'SELECT COUNT(*) AS "rows", COUNT_IF(decision) AS positive FROM {tables.named(table["name"])}'
    return {"count": requests.query(model, "predictions", run, count, made["job"])}


def count_predictions(model: ModelConfig, made: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many predictions wait to be audited."""
    (row,) = tables.answer(counted["ref"])
    facts = {"rows": int(row["rows"] or 0), "positive": int(row["positive"] or 0)}
    log.info("%s: %s", made["output"], facts)
    return facts


def prediction_columns(model: ModelConfig) -> dict[str, str]:
    """As `core.postprocessing.predictions_schema` has them."""
    return {
        model.source.key: tables.key_type(model),
        "partition_date": "date",
        "score": "double",
        "decision": "boolean",
        "model_version": "string",
        "run_id": "string",
        "scored_at": "timestamp",
        "git_revision": "string",
    }


def dataset(model: ModelConfig, stage: Stage, run: dict[str, Any]) -> Dataset:
    if stage == "source":
        day = partitions.parse(run["partition"])
        return Dataset(f"SELECT * FROM {tables.named(model.source.table)} WHERE partition_date = DATE '{day}'", tables.url())
    what = {"features": "features", "predictions": "staged", "training": "training"}[stage]
    return Dataset(f"SELECT * FROM {tables.named(tables.staged(model, run, what))}", tables.url())


def report_page(model: ModelConfig, run: dict[str, Any], stage: Stage) -> str:
    partition = partitions.parse(run["partition"]).isoformat()
    return lake.place("validations", model.name, partition, run["workspace"], f"{stage}.html")


def publish(model: ModelConfig, run: dict[str, Any], facts: dict[str, Any]) -> Publication:
    """The ledger decides which files are live, by its next version, and the catalog follows: a reader has the files before
    or these, and whoever is killed in between is completed by the next try, or by the next publication.
    """
    partition = partitions.parse(run["partition"])
    location = tables.location(tables.staged(model, run, "staged"))
    set_aside = tables.location(tables.staged(model, run, "quarantine"))
    digest = lake.digest(lake.data(location))
    version = publications.record(model, partition, digest, location, {**facts, "quarantine": set_aside})
    _show(model, partition)
    _forget_old(model, partition)
    return Publication(partition.isoformat(), version, digest, facts["rows_scored"], location)


def deliver(model: ModelConfig, run: XComArg) -> list[XComArg]:
    """With AILERON_AWS_RESULTS=redshift the partition is loaded into Redshift too, in one transaction."""
    if aws().results != "redshift":
        return []
    with TaskGroup("deliver") as group:
        planned = model_task(plan_delivery, task_id="plan")(model, run)
        load = RedshiftStatements(task_id="load", model=model, step="load", request=Read(planned, "load"))
        delivered = model_task(check_delivery, task_id="facts")(model, run, load.output)
    return [steps(group, planned, load, delivered)]


def plan_delivery(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statements that put what is live of the partition in the place of what Redshift has of it."""
    partition = partitions.parse(run["partition"])
    live = publications.history(model.name, partition)[-1].body
    table, columns = tables.predictions(model), prediction_columns(model)
    described = ", ".join(f'"{name}" {REDSHIFT_TYPES[kind]}' for name, kind in columns.items())
    statements = [
        f'CREATE TABLE IF NOT EXISTS "{table}" ({described})',
        f"DELETE FROM \"{table}\" WHERE partition_date = '{partition}'",
        f"COPY \"{table}\" FROM '{live['location']}/' IAM_ROLE '{aws().redshift_role}' FORMAT AS PARQUET",
    ]
    return {"load": requests.statements(model, "load", run, statements, live["version"])}


def check_delivery(model: ModelConfig, run: dict[str, Any], loaded: dict[str, Any]) -> dict[str, Any]:
    """What was loaded may have been replaced meanwhile: whoever loads last must have looked last.

    Raises:
        SourceChanged: if a newer version of the partition was published.
    """
    partition = partitions.parse(run["partition"])
    now = plan_delivery(model, run)["load"]["name"]
    if not loaded["job"].startswith(f"{now}-"):
        raise SourceChanged(f"{model.name}: partition {partition} was published again while it was loaded: clear deliver")
    return {"partition": run["partition"], "seconds": loaded["seconds"]}


def restore(model: ModelConfig, partition: date, by: str) -> Publication:
    """See `platforms.base.Platform`."""
    facts = publications.to_restore(model, partition, by)
    if lake.digest(lake.data(facts["location"])) != facts["digest"]:
        raise LookupError(
            f"{model.name}: version {facts['digest']} of partition {partition} is gone or damaged: {facts['location']}"
        )
    version = publications.record(model, partition, facts["digest"], facts["location"], facts)
    _show(model, partition)
    return Publication(partition.isoformat(), version, facts["digest"], facts["rows_scored"], facts["location"])


def _show(model: ModelConfig, partition: date) -> None:
    """Point the catalog at what the ledger says. Two may do so at once: whoever does it last has looked last."""
    partitioned = {"partition_date": "date"}
    columns = {name: kind for name, kind in prediction_columns(model).items() if name != "partition_date"}
    aside = {model.source.key: tables.key_type(model), "reason": "string"}
    tables.ensure(tables.predictions(model), lake.place("versions", model.name), columns, partitioned)
    tables.ensure(tables.quarantine(model), lake.place("staging", model.name), aside, partitioned)
    while True:
        live = publications.history(model.name, partition)[-1].body
        tables.point(tables.quarantine(model), partition, live["quarantine"])
        tables.point(tables.predictions(model), partition, live["location"])
        if publications.history(model.name, partition)[-1].body["version"] == live["version"]:
            return


def _forget_old(model: ModelConfig, partition: date) -> None:
    """Forget all but the newest versions. Files that no record names are left: another writer may be about to show them."""
    shown = [record.body for record in publications.history(model.name, partition)]
    recent = list({body["location"]: body for body in reversed(shown)}.values())[:KEPT_VERSIONS]
    kept = {body[name] for body in recent for name in ("location", "quarantine")}
    for place in {body[name] for body in shown for name in ("location", "quarantine")} - kept:
        lake.remove(place)


def find_predictions(model: ModelConfig, key: str, partition: date | None) -> list[dict[str, Any]]:
    from sqlglot import exp

    if not tables.exists(tables.predictions(model)):
        return []
    names = list(prediction_columns(model))
    told = ", ".join(f'CAST("{name}" AS VARCHAR) AS "{name}"' for name in names)
    of_day = f" AND partition_date = DATE '{partition}'" if partition else ""
    query = (
        f"SELECT {told} FROM {tables.named(tables.predictions(model))} "
        f'WHERE CAST("{model.source.key}" AS VARCHAR) = {exp.Literal.string(key).sql("athena")}{of_day} ORDER BY "partition_date"'
    )
    hook = AthenaHook(aws_conn_id=aws().connection)
    execution = hook.run_query(
        query, {"Database": aws().database}, {"OutputLocation": lake.place("athena", model.name)}, workgroup=aws().workgroup
    )
    state = hook.poll_query_status(execution, sleep_time=1)
    if state != "SUCCEEDED":
        raise RuntimeError(f"{model.name}: Athena could not look: {state}: {hook.get_state_change_reason(execution)}")
    rows = tables.answer(execution)
    return [{**row, "score": float(row["score"] or "nan"), "decision": row["decision"] == "true"} for row in rows]
