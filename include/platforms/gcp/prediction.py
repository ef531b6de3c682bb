"""Batch prediction on Google Cloud: BigQuery makes the features, Vertex AI or Dataflow scores them, Dataflow decides, and a
day of a table of BigQuery is replaced."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.google.cloud.sensors.bigquery import BigQueryTablePartitionExistenceSensor
from airflow.providers.google.cloud.triggers.pubsub import PubsubPullTrigger
from airflow.sdk import AssetWatcher, TaskGroup

from include import partitions, publications, queries
from include.config import ModelConfig, settings
from include.model_task import Read, model_task
from include.platforms import archives, prediction_facts
from include.platforms.base import Publication, SourceChanged
from include.platforms.gcp import jobs, lake, requests, tables
from include.platforms.gcp.jobs import BatchPrediction, BigQueryJob, DataflowJob
from include.platforms.gcp.models import manifest_of, resource_of
from include.platforms.gcp.settings import gcp
from include.platforms.steps import steps
from include.validation import Dataset, Stage

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

DAY = "{{ ti.xcom_pull(task_ids='resolve_partition', key='run')['marker'].rpartition('$')[2] }}"
KEPT_VERSIONS = 5
SCORES = {"partition_date": "DATE", "score": "FLOAT64", "unseen": "STRING"}


def await_source(model: ModelConfig) -> BaseOperator:
    return BigQueryTablePartitionExistenceSensor(
        task_id="await_source",
        project_id=gcp().project,
        dataset_id=gcp().dataset,
        table_id=model.source.table,
        partition_id=DAY,
        gcp_conn_id=gcp().connection,
        deferrable=True,
        poke_interval=gcp().seconds,
        timeout=model.source.wait_hours * 3600,
        doc_md="Waits, without holding a worker, until the source table has the day: one job has landed it whole.",
    )


def landing_watchers(model: ModelConfig) -> list[AssetWatcher]:
    """Whoever loads a day tells a topic; without a subscription to it the cron of the arrivals DAG finds the day later."""
    if not gcp().subscription:
        return []
    trigger = PubsubPullTrigger(
        project_id=gcp().project,
        subscription=gcp().subscription,
        max_messages=100,
        ack_messages=True,
        gcp_conn_id=gcp().connection,
        poke_interval=gcp().seconds,
    )
    return [AssetWatcher(name=f"{model.name}_landing", trigger=trigger)]


def marker(model: ModelConfig, partition: date) -> str:
    """A day of a table needs no marker: it is there when the job that has landed it has ended."""
    return f"{tables.full(model.source.table)}${partition:%Y%m%d}"


def declared_rows(model: ModelConfig, partition: date) -> int | None:
    """Nobody declares them: a job lands all rows of a day or none."""
    return None


def fingerprint(model: ModelConfig, partition: date) -> str:
    return tables.fingerprint(model, partition)


def landed(model: ModelConfig) -> dict[date, str]:
    return tables.fingerprints(model)


def build_features(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("build_features") as group:
        planned = model_task(plan_features, task_id="plan")(model, run)
        features = BigQueryJob(task_id="features", model=model, step="features", request=Read(planned, "features"))
        quarantine = BigQueryJob(task_id="quarantine", model=model, step="quarantine", request=Read(planned, "quarantine"))
        made = [features.output, quarantine.output]
        counts = BigQueryJob(task_id="counts", model=model, step="counts", request=Read(planned, "counts"), after=made)
        found = model_task(count_features, task_id="facts")(model, run, planned, counts.output)
    return steps(group, planned, [features, quarantine], counts, found)


def plan_features(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statements that make the features of the partition, and set aside the rows that cannot be scored."""
    partition = partitions.parse(run["partition"])
    source, days = tables.fingerprint(model, partition), {"first_partition": partition, "last_partition": partition}
    sources = tables.of(model)
    features, quarantine = (tables.staged(model, run, what) for what in ("features", "quarantine"))
    select = queries.accepted_features(model, tables.DIALECT, sources).sql
    rejected = queries.quarantined_rows(model, tables.DIALECT, sources).sql
    counts = prediction_facts.counts(
        tables.named(model.source.table), tables.named(features), tables.named(quarantine), partition
    )
    made = [
        requests.query(model, what, run, requests.create_as(model, run, table, sql), days, source, table)
        for what, table, sql in (("features", features, select), ("quarantine", quarantine, rejected))
    ]
    return {
        "source": source,
        "features": made[0],
        "quarantine": made[1],
        "counts": requests.query(model, "counts", run, counts, {}, source),
    }


def count_features(model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many rows came in, and what became of them."""
    partition = partitions.parse(run["partition"])
    if tables.fingerprint(model, partition) != planned["source"]:
        raise SourceChanged(
            f"{model.source.table}: partition {partition} changed while it was read: clear build_features to read the new one"
        )
    return prediction_facts.counted(tables.answer(counted["ref"]), planned["source"])


def score(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    """By a batch prediction of Vertex AI; or, with AILERON_GCP_SCORING=dataflow, inside Dataflow."""
    return _score_in_dataflow(model, run, version) if gcp().scoring == "dataflow" else _score_on_vertex(model, run, version)


def _score_on_vertex(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    with TaskGroup("score") as group:
        planned = model_task(plan_prediction, task_id="plan")(model, run, version)
        predicted = BatchPrediction(task_id="predict", model=model, step="score", request=Read(planned, "prediction"))
        told = model_task(plan_scores, task_id="plan_scores")(model, run, version, predicted.output)
        scores = BigQueryJob(task_id="scores", model=model, step="scores", request=Read(told, "scores"))
        summary = BigQueryJob(
            task_id="summary", model=model, step="summary", request=Read(told, "summary"), after=[scores.output]
        )
        found = model_task(sum_up_scores, task_id="facts")(model, version, predicted.output, summary.output)
    return steps(group, planned, predicted, told, scores, summary, found)


def _score_in_dataflow(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    with TaskGroup("score") as group:
        planned = model_task(plan_extract, task_id="plan")(model, run, version)
        extract = BigQueryJob(task_id="extract", model=model, step="extract_features", request=Read(planned, "extract"))
        told = model_task(plan_dataflow, task_id="plan_scoring")(model, run, version, extract.output)
        scored = DataflowJob(task_id="score", model=model, step="score", request=Read(told, "scoring"))
        loading = model_task(plan_scores_load, task_id="plan_load")(model, run, version, scored.output)
        load = BigQueryJob(task_id="load", model=model, step="load_scores", request=Read(loading, "load"))
        summary = BigQueryJob(
            task_id="summary", model=model, step="summary", request=Read(loading, "summary"), after=[load.output]
        )
        found = model_task(sum_up_scores, task_id="facts")(model, version, scored.output, summary.output)
    return steps(group, planned, extract, told, scored, loading, load, summary, found)


def plan_prediction(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """The batch prediction of the features with the version."""
    archives.require_features(lake, model, version)
    features = tables.staged(model, run, "features")
    target = tables.staged(model, run, "answers")
    resource = resource_of(model, version)
    asked = requests.batch_prediction(model, "score", run, resource, features, target, tables.made(features))
    return {"prediction": asked}


def plan_scores(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], predicted: dict[str, Any]) -> dict[str, Any]:
    """The statement that reads what the model has answered, and the one that sums it up."""
    key, answers = model.source.key, predicted["output"]
    select = (
        f"SELECT `{key}`, partition_date, CAST(JSON_VALUE(prediction, '$.score') AS FLOAT64) AS score, "
        "ARRAY_TO_STRING(JSON_VALUE_ARRAY(prediction, '$.unseen'), ',') AS unseen "
        f"FROM `{tables.checked(answers)}`"
    )
    table = tables.staged(model, run, "scores")
    statement = requests.create_as(model, run, table, select)
    scores = requests.query(model, "scores", run, statement, {}, predicted["ref"], table)
    return {"scores": scores, "summary": _summary(model, run, version, predicted["ref"])}


def _summary(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], reads: str) -> dict[str, Any]:
    """The statement that sums up the scores."""
    edges = manifest_of(model, version)["reference"]["score"]["edges"]
    told = [
        "COUNT(*) AS `rows`",
        "AVG(score) AS mean",
        "MIN(score) AS lowest",
        "MAX(score) AS highest",
        *(f"COUNTIF(score <= {edge:.17e}) AS edge_{number}" for number, edge in enumerate(edges)),
        *(f"COUNTIF('{name}' IN UNNEST(SPLIT(unseen, ','))) AS unseen_{name}" for name in model.features.categorical),
    ]
    summary = f"SELECT {', '.join(told)} FROM {tables.named(tables.staged(model, run, 'scores'))}"
    return requests.query(model, "summary", run, summary, {}, reads)


def plan_extract(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """The job that brings the features to where Dataflow reads them."""
    archives.require_features(lake, model, version)
    features = tables.staged(model, run, "features")
    folder = lake.workspace(model.name, run, "features")
    return {"extract": requests.extract(model, "extract_features", run, features, folder, tables.made(features))}


def plan_dataflow(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], extracted: dict[str, Any]) -> dict[str, Any]:
    """The Dataflow job that scores them."""
    arguments = {
        "features": f"{extracted['output']}/*.parquet",
        "artifact": version["artifact"],
        "manifest_sha256": version["manifest_sha256"],
        "key": model.source.key,
    }
    return {"scoring": requests.dataflow(model, "score", run, "score", lake.workspace(model.name, run, "scores"), arguments)}


def plan_scores_load(model: ModelConfig, run: dict[str, Any], version: dict[str, Any], scored: dict[str, Any]) -> dict[str, Any]:
    """The job that makes a table of the scores, and the statement that sums them up."""
    table, columns = tables.staged(model, run, "scores"), {model.source.key: tables.key_type(model), **SCORES}
    load = requests.load(model, "load_scores", run, f"{scored['output']}/*.parquet", table, columns, scored["ref"])
    return {"load": load, "summary": _summary(model, run, version, scored["ref"])}


def sum_up_scores(
    model: ModelConfig, version: dict[str, Any], scored: dict[str, Any], summed_up: dict[str, Any]
) -> dict[str, Any]:
    """What the audit wants to know of the scores."""
    (row,) = tables.answer(summed_up["ref"])
    return prediction_facts.summary(model, row, manifest_of(model, version)["reference"]["score"]["edges"], scored["seconds"])


def postprocess(model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
    with TaskGroup("postprocess") as group:
        planned = model_task(plan_scores_extract, task_id="plan")(model, run)
        extract = BigQueryJob(task_id="extract", model=model, step="extract_scores", request=Read(planned, "extract"))
        told = model_task(plan_postprocessing, task_id="plan_dataflow")(model, run, version, extract.output)
        job = DataflowJob(task_id="dataflow", model=model, step="postprocess", request=Read(told, "dataflow"))
        loading = model_task(plan_predictions_load, task_id="plan_load")(model, run, job.output)
        load = BigQueryJob(task_id="load", model=model, step="load_predictions", request=Read(loading, "load"))
        count = BigQueryJob(task_id="count", model=model, step="predictions", request=Read(loading, "count"), after=[load.output])
        found = model_task(count_predictions, task_id="facts")(model, run, count.output)
    return steps(group, planned, extract, told, job, loading, load, count, found)


def plan_scores_extract(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The job that brings the scores to where Dataflow reads them."""
    scores = tables.staged(model, run, "scores")
    folder = lake.workspace(model.name, run, "extracted")
    return {"extract": requests.extract(model, "extract_scores", run, scores, folder, tables.made(scores))}


def plan_postprocessing(
    model: ModelConfig, run: dict[str, Any], version: dict[str, Any], extracted: dict[str, Any]
) -> dict[str, Any]:
    """The Dataflow job that makes predictions of scores."""
    arguments = {
        "input": f"{extracted['output']}/*.parquet",
        "key": model.source.key,
        "task": model.task,
        "threshold": repr(model.prediction.decision_threshold),
        "model_version": str(version["version"]),
        "run_id": run["run_id"],
        "scored_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "git_revision": settings().revision,
    }
    folder = lake.workspace(model.name, run, "predictions")
    return {"dataflow": requests.dataflow(model, "postprocess", run, "postprocess", folder, arguments)}


def plan_predictions_load(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The job that makes a table of them, which only this run reads; and the statement that counts them."""
    table = tables.staged(model, run, "staged")
    files, columns = f"{made['output']}/*.parquet", prediction_columns(model)
    count = f"SELECT COUNT(*) AS `rows`, COUNTIF(decision) AS positive FROM {tables.named(table)}"
    return {
        "load": requests.load(model, "load_predictions", run, files, table, columns, made["ref"]),
        "count": requests.query(model, "predictions", run, count, {}, made["ref"]),
    }


def count_predictions(model: ModelConfig, run: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many predictions wait to be audited."""
    tables.keep(tables.staged(model, run, "staged"), tables.STAGED_DAYS)
    (row,) = tables.answer(counted["ref"])
    found = {"rows": int(row["rows"] or 0), "positive": int(row["positive"] or 0)}
    log.info("%s: %s", tables.staged(model, run, "staged"), found)
    return found


def prediction_columns(model: ModelConfig) -> dict[str, str]:
    """As `core.postprocessing.predictions_schema` has them."""
    return {
        model.source.key: tables.key_type(model),
        "partition_date": "DATE",
        "score": "FLOAT64",
        "decision": "BOOL",
        "model_version": "STRING",
        "run_id": "STRING",
        "scored_at": "TIMESTAMP",
        "git_revision": "STRING",
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


def deliver(model: ModelConfig, run: XComArg) -> list[XComArg]:
    """What is published is where everybody reads it already."""
    return []


def publish(model: ModelConfig, run: dict[str, Any], told: dict[str, Any]) -> Publication:
    """The ledger decides which rows are live, by its next version, and the table that readers see follows: one job puts the
    rows of a day in the place of those before, and whoever is killed in between is completed by the next try, or by the
    next publication. The tables of the last versions stay, to be put back.
    """
    partition = partitions.parse(run["partition"])
    location, set_aside = (tables.staged(model, run, what) for what in ("staged", "quarantine"))
    digest = tables.made(location)
    for table in (location, set_aside):
        tables.keep_for_ever(table)
    version = publications.record(model, partition, digest, location, {**told, "quarantine": set_aside})
    _show(model, partition)
    _forget_old(model, partition)
    return Publication(partition.isoformat(), version, digest, told["rows_scored"], location)


def restore(model: ModelConfig, partition: date, by: str) -> Publication:
    """See `platforms.base.Platform`."""
    told = publications.to_restore(model, partition, by)
    if not tables.exists(told["location"]) or tables.made(told["location"]) != told["digest"]:
        raise LookupError(
            f"{model.name}: version {told['digest']} of partition {partition} is gone or was changed: {told['location']}"
        )
    version = publications.record(model, partition, told["digest"], told["location"], told)
    _show(model, partition)
    return Publication(partition.isoformat(), version, told["digest"], told["rows_scored"], told["location"])


def _show(model: ModelConfig, partition: date) -> None:
    """Bring what the ledger says last before readers. Two may do so at once: whoever does it last has looked last."""
    tables.ensure(model, tables.predictions(model), prediction_columns(model))
    aside = {model.source.key: tables.key_type(model), "partition_date": "DATE", "reason": "STRING"}
    tables.ensure(model, tables.quarantine(model), aside)
    shown = 0
    while True:
        live = publications.history(model.name, partition)[-1].body
        for source, target in (
            (live["quarantine"], tables.quarantine(model)),
            (live["location"], tables.predictions(model)),
        ):
            # BigQuery knows a name for months: another dataset of the project, a table or a ledger made anew has others.
            facts = f"{tables.born(target)} {partition} {live['version']} {live['digest']} {shown}"
            name = hashlib.sha256(facts.encode()).hexdigest()[:16]
            jobs.run_once(f"aileron-publish-{name}", requests.publication(model, partition, source, target))
        if publications.history(model.name, partition)[-1].body["version"] == live["version"]:
            return
        shown += 1


def _forget_old(model: ModelConfig, partition: date) -> None:
    """Forget all but the newest versions. Tables that no record names are left: they expire."""
    told = [record.body for record in publications.history(model.name, partition)]
    recent = list({body["location"]: body for body in reversed(told)}.values())[:KEPT_VERSIONS]
    kept = {body[name] for body in recent for name in ("location", "quarantine")}
    for table in {body[name] for body in told for name in ("location", "quarantine")} - kept:
        tables.forget(table)


def find_predictions(model: ModelConfig, key: str, partition: date | None) -> list[dict[str, Any]]:
    from sqlglot import exp

    if not tables.exists(tables.predictions(model)):
        return []
    names = list(prediction_columns(model))
    told = ", ".join(f"`{name}`" if name in ("score", "decision") else f"CAST(`{name}` AS STRING) AS `{name}`" for name in names)
    of_day = f" AND partition_date = DATE '{partition}'" if partition else ""
    return tables.ask(
        f"SELECT {told} FROM {tables.named(tables.predictions(model))} "
        f"WHERE CAST(`{model.source.key}` AS STRING) = {exp.Literal.string(key).sql('bigquery')}{of_day} ORDER BY 2"
    )
