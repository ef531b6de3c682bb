"""Training on Google Cloud: BigQuery makes the training set, jobs of Vertex AI put it in order, search, train and evaluate, and
its registry has the versions.

training/<model>/<as of>-<digest>/data.parquet, manifest.json      snapshots, named by their content, never changed
models/<model>/<digest>/                                           artifacts: see `archives`
evaluations/<model>/<as of>/<run>/evaluation.json, report.html     what a gate has judged
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.providers.google.cloud.links.vertex_ai import VertexAIModelLink
from airflow.providers.google.cloud.operators.cloud_base import GoogleCloudBaseOperator
from airflow.sdk import TaskGroup

from include import documents, partitions, queries
from include.config import ModelConfig, load_model, settings
from include.model_task import Read, model_task
from include.platforms import archives
from include.platforms import training_facts as facts
from include.platforms.base import SourceChanged
from include.platforms.gcp import lake, models, requests, tables
from include.platforms.gcp.jobs import BigQueryJob, CustomJob
from include.platforms.gcp.settings import gcp
from include.platforms.steps import steps
from include.registry.base import registration

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)


def snapshot_training_set(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("snapshot_training_set") as group:
        planned = model_task(plan_snapshot, task_id="plan")(model, run)
        query = BigQueryJob(task_id="query", model=model, step="snapshot", request=Read(planned, "query"))
        told = model_task(plan_extract, task_id="plan_extract")(model, run, query.output)
        extract = BigQueryJob(task_id="extract", model=model, step="extract_snapshot", request=Read(told, "extract"))
        counts = BigQueryJob(task_id="counts", model=model, step="labels", request=Read(told, "counts"))
        ordering = model_task(plan_order, task_id="plan_order")(model, run, extract.output)
        order = CustomJob(task_id="order", model=model, step="order", request=Read(ordering, "order"))
        kept = model_task(keep_snapshot, task_id="keep")(model, run, planned, order.output, counts.output)
    return steps(group, planned, query, told, [extract, counts], ordering, order, kept)


def plan_snapshot(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that joins features and labels of the window.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
    """
    days, both = facts.window(run), (model.source.table, model.labels.table)
    facts.require_landed(model, days, {table: tables.days_landed(table) for table in both})
    sources = _sources(model, days)
    # Its order is lost in a table; it is brought back afterwards.
    select = queries.training_set(model, tables.DIALECT, tables.of(model)).sql
    table = tables.staged(model, run, "training")
    statement = requests.create_as(model, run, table, select)
    query = requests.query(model, "snapshot", run, statement, _bounds(days), sources, table)
    return {"sources": sources, "sql": select, "query": query}


def plan_extract(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The job that brings it to where jobs read it; and the count of its labels."""
    table, days = tables.staged(model, run, "training"), facts.window(run)
    held_out = days[-model.training.holdout_days]
    offered = queries.accepted_features(model, tables.DIALECT, tables.of(model)).sql
    counts = (
        f"SELECT COUNT(*) AS `rows`, COUNTIF(partition_date >= DATE '{held_out}') AS labelled, "
        f"(SELECT COUNT(*) FROM (\n{offered}\n) AS held_out) AS offered FROM {tables.named(table)}"
    )
    return {
        "extract": requests.extract(model, "extract_snapshot", run, table, _workspace(model, run, "training"), made["ref"]),
        "counts": requests.query(model, "labels", run, counts, _bounds([held_out, days[-1]]), made["ref"]),
    }


def plan_order(model: ModelConfig, run: dict[str, Any], extracted: dict[str, Any]) -> dict[str, Any]:
    """The job that makes one sorted file of it: the same rows are then the same bytes."""
    spec = {"input": f"{extracted['output']}/", "key": model.source.key}
    return {"order": requests.custom_job(model, "order", run, _workspace(model, run, "ordered"), ["order"], spec)}


def keep_snapshot(
    model: ModelConfig, run: dict[str, Any], planned: dict[str, Any], made: dict[str, Any], counted: dict[str, Any]
) -> dict[str, Any]:
    """Name the file by its content, and keep it for ever with what it was made of.

    Raises:
        SourceChanged: if a partition of the window was replaced meanwhile.
    """
    days = facts.window(run)
    if _sources(model, days) != planned["sources"]:
        raise SourceChanged(
            f"{model.name}: partitions of {days[0]} to {days[-1]} changed while they were read: "
            "clear snapshot_training_set to read the new ones"
        )
    (file,) = [name for name in lake.data(made["output"]) if name.endswith(".parquet")]
    (row,) = tables.answer(counted["ref"])
    rows, labelled, offered = (int(row[name] or 0) for name in ("rows", "labelled", "offered"))
    sha256 = lake.sha256(file)
    snapshot = f"{run['as_of']}-{sha256[:16]}"
    folder = lake.place("training", model.name, snapshot)
    manifest = facts.snapshot_manifest(model, run, planned["sql"], planned["sources"], rows, sha256, offered, labelled)
    if not lake.exists(f"{folder}/manifest.json"):
        lake.copy(file, f"{folder}/data.parquet")
        lake.write_json(f"{folder}/manifest.json", manifest)  # last: with it the snapshot is complete
    log.info("snapshot %s: %d rows; %d of %d rows of the holdout have a label", snapshot, rows, labelled, offered)
    return facts.snapshot(snapshot, f"{folder}/data.parquet", manifest)


def inspect_training_set(model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
    with TaskGroup("inspect_training_set") as group:
        planned = model_task(plan_inspection, task_id="plan")(model, run, snapshot)
        strength = CustomJob(task_id="strength", model=model, step="inspect", request=Read(planned, "strength"))
        replay = BigQueryJob(task_id="replay", model=model, step="replay", request=Read(planned, "replay"))
        found = model_task(refuse_leaks, task_id="facts")(model, run, strength.output, replay.output)
    return steps(group, planned, [strength, replay], found)


def plan_inspection(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The job that looks at each feature alone, and the statement that makes some days again as they were on their day."""
    spec = {**facts.inspection(model, snapshot), "snapshot": snapshot["file"]}
    strength = requests.custom_job(model, "inspect", run, _workspace(model, run, "inspect"), ["process", "inspect"], spec)
    kept = tables.named(tables.staged(model, run, "training"))
    replays: list[str] = []
    days: dict[str, date] = {}
    for number, day in enumerate(facts.replayed_days(run)):
        query = facts.replay(model, tables.DIALECT, tables.of(model, until=day), kept)
        # One statement of several days: each has parameters of its own.
        sql = re.sub(r"@(first_partition|last_partition)\b", rf"@\1_{number}", query.sql)
        days |= {f"{name}_{number}": day for name in query.parameters}
        replays.append(f"SELECT '{day}' AS _day, _of_day.* FROM (\n{sql}\n) AS _of_day")
    statement = "\nUNION ALL\n".join(replays)
    replay = requests.query(model, "replay", run, statement, days, snapshot["sha256"]) if replays else {}
    return {"strength": strength, "replay": replay}


def refuse_leaks(model: ModelConfig, run: dict[str, Any], looked: dict[str, Any], replayed: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        LeakFound: naming the columns that nobody could know.
    """
    found = documents.read_json(f"{looked['output']}/inspect.json")
    return facts.inspected(model, found, tables.answer(replayed["ref"]))


def tune(model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
    with TaskGroup("tune") as group:
        planned = model_task(plan_tuning, task_id="plan")(model, run, snapshot)
        job = CustomJob(task_id="search", model=model, step="tune", request=Read(planned, "tune"))
        found = model_task(read_tuned, task_id="facts")(model, job.output)
    return steps(group, planned, job, found)


def plan_tuning(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The job that searches parameters and window on the last days before the holdout."""
    spec = {**facts.tuning(model, snapshot), "snapshot": snapshot["file"]}
    return {"tune": requests.custom_job(model, "tune", run, _workspace(model, run, "tune"), ["process", "tune"], spec)}


def read_tuned(model: ModelConfig, searched: dict[str, Any]) -> dict[str, Any]:
    """The parameters and the training window that did best."""
    return facts.tuned(documents.read_json(f"{searched['output']}/tune.json"), searched["seconds"])


def train(model: ModelConfig, run: XComArg, snapshot: XComArg, tuned: XComArg) -> XComArg:
    with TaskGroup("train") as group:
        planned = model_task(plan_training, task_id="plan")(model, run, snapshot, tuned)
        job = CustomJob(task_id="fit", model=model, step="train", request=Read(planned, "train"))
        kept = model_task(keep_artifact, task_id="keep")(model, snapshot, job.output)
    return steps(group, planned, job, kept)


def plan_training(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """The training of a challenger. The same snapshot and parameters give the same artifact."""
    spec = {**facts.training(model, snapshot, tuned), "snapshot": snapshot["file"]}
    return {"train": requests.custom_job(model, "train", run, _workspace(model, run, "train"), ["train"], spec)}


def keep_artifact(model: ModelConfig, snapshot: dict[str, Any], fitted: dict[str, Any]) -> dict[str, Any]:
    """Verify what the job has made, and keep it under its content."""
    artifact, manifest_sha256 = archives.keep(lake, model, f"{fitted['output']}/model/{archives.ARCHIVE}")
    told = {"artifact": artifact, "manifest_sha256": manifest_sha256, "snapshot": snapshot["snapshot"]}
    return {**told, "seconds": fitted["seconds"]}


def evaluate(model: ModelConfig, run: XComArg, snapshot: XComArg, challenger: XComArg, champion: XComArg) -> XComArg:
    with TaskGroup("evaluate") as group:
        planned = model_task(plan_evaluation, task_id="plan")(model, run, snapshot, challenger, champion)
        job = CustomJob(task_id="measure", model=model, step="evaluate", request=Read(planned, "evaluate"))
        kept = model_task(keep_evaluation, task_id="keep")(model, run, job.output)
    return steps(group, planned, job, kept)


def plan_evaluation(
    model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], challenger: dict[str, Any], champion: dict[str, Any]
) -> dict[str, Any]:
    """The job that measures challenger and champion on the same rows, later than both have learned from."""
    against = champion["version"]
    spec = {
        **facts.evaluation(model, snapshot, challenger, against),
        "snapshot": snapshot["file"],
        "artifact": _folder(challenger["artifact"]),
        "champion_artifact": _folder(against["artifact"]) if against else None,
    }
    folder = _workspace(model, run, "evaluate")
    return {"evaluate": requests.custom_job(model, "evaluate", run, folder, ["process", "evaluate"], spec)}


def keep_evaluation(model: ModelConfig, run: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The document of the comparison, where its page will be."""
    content = lake.read(f"{measured['output']}/evaluate.json")
    document = json.loads(content)
    kept = f"{evaluation_folder(model, run)}/evaluation.json"
    lake.write(kept, content)
    return {"document": kept, "rows": document["rows"], "seconds": measured["seconds"]}


class RegisterOnce(GoogleCloudBaseOperator):
    """Registers the artifact, unless it has a version already. The provider's operator makes one more at each try, gives the
    model an id that nobody knows before, and imports all of Vertex AI's SDK at each parse."""

    operator_extra_links = (VertexAIModelLink(),)

    def __init__(self, *, model: ModelConfig, facts: dict[str, Read], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.model_name, self.facts = model.name, facts

    @property
    def extra_links_params(self) -> dict[str, Any]:
        return {"region": gcp().region, "project_id": gcp().project}

    def execute(self, context: Any) -> Any:
        model, found = load_model(self.model_name), {name: fact.resolve(context) for name, fact in self.facts.items()}
        known = models.vertex_registry()
        version = known.register(model.name, **registration(**found, git_revision=settings().revision))
        VertexAIModelLink.persist(context=context, model_id=known.model_id(model.name))
        known.set_alias(model.name, "challenger", version.version)
        self.log.info("registered as version %s", version.version)
        return asdict(version)


def register(
    model: ModelConfig, run: XComArg, snapshot: XComArg, tuned: XComArg, challenger: XComArg, verdict: XComArg
) -> XComArg:
    given = {"run": run, "snapshot": snapshot, "tuned": tuned, "challenger": challenger, "verdict": verdict}
    return RegisterOnce(
        task_id="register",
        model=model,
        facts={name: Read(fact) for name, fact in given.items()},
        doc_md="Gives the artifact a version in the registry. The same artifact gets the same version, also on a retry.",
    ).output


def shadow_score(model: ModelConfig, run: XComArg, version: XComArg, champion: XComArg) -> XComArg:
    with TaskGroup("shadow_score") as group:
        planned = model_task(plan_shadow, task_id="plan")(model, run)
        features = BigQueryJob(task_id="features", model=model, step="shadow_rows", request=Read(planned, "features"))
        told = model_task(plan_shadow_extract, task_id="plan_extract")(model, run, features.output)
        extract = BigQueryJob(task_id="extract", model=model, step="extract_shadow", request=Read(told, "extract"))
        ordering = model_task(plan_shadow_order, task_id="plan_order")(model, run, extract.output)
        order = CustomJob(task_id="order", model=model, step="order_shadow", request=Read(ordering, "order"))
        planned_job = model_task(plan_shadow_job, task_id="plan_job")(model, run, version, champion, order.output)
        job = CustomJob(task_id="score", model=model, step="shadow", request=Read(planned_job, "shadow"))
        found = model_task(read_shadow, task_id="facts")(model, planned, job.output)
    return steps(group, planned, features, told, extract, ordering, order, planned_job, job, found)


def plan_shadow(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The features of the newest partition that had landed."""
    newest = facts.newest(model, run, tables.days_landed(model.source.table))
    table = tables.staged(model, run, "shadow")
    select = queries.accepted_features(model, tables.DIALECT, tables.of(model)).sql
    statement = requests.create_as(model, run, table, select)
    reads = tables.fingerprint(model, newest)
    query = requests.query(model, "shadow_rows", run, statement, _bounds([newest]), reads, table)
    return {"partition": newest.isoformat(), "features": query}


def plan_shadow_extract(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The job that brings them to where jobs read them."""
    table, folder = tables.staged(model, run, "shadow"), _workspace(model, run, "shadow_rows")
    return {"extract": requests.extract(model, "extract_shadow", run, table, folder, made["ref"])}


def plan_shadow_order(model: ModelConfig, run: dict[str, Any], extracted: dict[str, Any]) -> dict[str, Any]:
    """The job that makes one file of them."""
    spec = {"input": f"{extracted['output']}/", "key": model.source.key}
    return {"order": requests.custom_job(model, "order_shadow", run, _workspace(model, run, "shadow_file"), ["order"], spec)}


def plan_shadow_job(
    model: ModelConfig, run: dict[str, Any], version: dict[str, Any], champion: dict[str, Any], made: dict[str, Any]
) -> dict[str, Any]:
    """The job that scores them with both."""
    against = champion["version"]
    (rows,) = [name for name in lake.data(made["output"]) if name.endswith(".parquet")]
    spec = {
        **facts.shadowing(model, version, against),
        "features": rows,
        "artifact": _folder(version["artifact"]),
        "champion_artifact": _folder(against["artifact"]) if against else "",
    }
    return {"shadow": requests.custom_job(model, "shadow", run, _workspace(model, run, "shadow"), ["process", "shadow"], spec)}


def read_shadow(model: ModelConfig, planned: dict[str, Any], scored: dict[str, Any]) -> dict[str, Any]:
    """How the new version does on the newest rows, beside the champion."""
    return facts.shadowed(documents.read_json(f"{scored['output']}/shadow.json"), planned["partition"])


def snapshot_manifest(model: ModelConfig, snapshot: str) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    facts.check_snapshot(snapshot)
    try:
        found: dict[str, Any] = json.loads(lake.read(lake.place("training", model.name, snapshot, "manifest.json")))
    except FileNotFoundError as error:
        raise LookupError(f"{model.name}: snapshot {snapshot} is gone: {error}") from None
    return found


def evaluation_folder(model: ModelConfig, run: dict[str, Any]) -> str:
    return lake.place("evaluations", model.name, partitions.parse(run["as_of"]).isoformat(), run["workspace"])


def labelled_until(model: ModelConfig) -> date | None:
    labelled = set(tables.days_landed(model.source.table)) & set(tables.days_landed(model.labels.table))
    return max(labelled, default=None)


def _sources(model: ModelConfig, days: Sequence[date]) -> dict[str, str]:
    """Fingerprint of each day, its labels included."""
    found = tables.fingerprints(model, also=[model.labels.table])
    return {day.isoformat(): found[day] for day in days}


def _bounds(days: Sequence[date]) -> dict[str, date]:
    return {"first_partition": days[0], "last_partition": days[-1]}


def _folder(artifact: str) -> str:
    return artifact.rpartition("/")[0]


def _workspace(model: ModelConfig, run: dict[str, Any], *names: str) -> str:
    return lake.workspace(model.name, run, *names)
