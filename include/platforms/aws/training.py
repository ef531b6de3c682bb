"""Training on AWS: Athena and Glue make the snapshot, SageMaker searches, trains, evaluates and registers.

training/<model>/<as of>-<digest>/data.parquet, manifest.json      snapshots, named by their content, never changed
models/<model>/<digest>/                                           artifacts: see `models`
evaluations/<model>/<as of>/<run>/evaluation.json, report.html     what a gate has judged
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerRegisterModelVersionOperator
from airflow.sdk import TaskGroup

from include import documents, partitions, queries
from include.config import ModelConfig, load_model, settings
from include.model_task import Read, model_task
from include.platforms import archives
from include.platforms import training_facts as facts
from include.platforms.aws import lake, models, requests, tables
from include.platforms.aws.jobs import AthenaQuery, GlueJob, ProcessingJob, TrainingJob, TuningJob
from include.platforms.aws.settings import aws
from include.platforms.base import JobFailed, SourceChanged
from include.platforms.steps import steps
from include.registry.base import registration

if TYPE_CHECKING:
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

INPUT = "/opt/ml/processing/input"


def snapshot_training_set(model: ModelConfig, run: XComArg) -> XComArg:
    with TaskGroup("snapshot_training_set") as group:
        planned = model_task(plan_snapshot, task_id="plan")(model, run)
        query = AthenaQuery(task_id="query", model=model, step="snapshot", request=Read(planned, "query"))
        planned_sort = model_task(plan_sorting, task_id="plan_sorting")(model, run, query.output)
        sort = GlueJob(task_id="sort", model=model, step="sort", request=Read(planned_sort, "glue"))
        counts = AthenaQuery(task_id="counts", model=model, step="labels", request=Read(planned_sort, "counts"))
        kept = model_task(keep_snapshot, task_id="keep")(model, run, planned, sort.output, counts.output)
    return steps(group, planned, query, planned_sort, [sort, counts], kept)


def plan_snapshot(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The statement that joins features and labels of the window.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
    """
    days, both = facts.window(run), (model.source.table, model.labels.table)
    facts.require_landed(model, days, {table: lake.days_landed(table) for table in both})
    sources = _sources(model, days)
    select = tables.bound(queries.training_set(model, tables.DIALECT, tables.of(model)), _bounds(days))
    table = tables.new(tables.staged(model, run, "training"), _workspace(model, run, "training"))
    query = requests.query(model, "snapshot", run, tables.create_as(table, select), sources, table)
    return {"sources": sources, "sql": select, "query": query}


def plan_sorting(model: ModelConfig, run: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
    """The Spark job that makes one sorted file of it: the same rows are then the same bytes. And the count of its labels."""
    table = tables.staged(model, run, "training")
    days = facts.window(run)
    held_out = days[-model.training.holdout_days]
    offered = tables.bound(queries.accepted_features(model, tables.DIALECT, tables.of(model)), _bounds([held_out, days[-1]]))
    counts = (
        f"SELECT COUNT(*) AS \"rows\", COUNT_IF(partition_date >= DATE '{held_out}') AS labelled, "
        f"(SELECT COUNT(*) FROM (\n{offered}\n) AS held_out) AS offered FROM {tables.named(table)}"
    )
    arguments = {"--input": f"{tables.location(table)}/", "--key": model.source.key}
    output = f"{_workspace(model, run, 'sorted')}/{{job}}"
    return {
        "glue": requests.glue(model, "sort", run, "glue_snapshot.py", output, arguments),
        "counts": requests.query(model, "labels", run, counts, made["ref"]),
    }


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
    (file,) = lake.data(made["output"])
    (row,) = tables.answer(counted["ref"])
    rows, labelled, offered = (int(row[name] or 0) for name in ("rows", "labelled", "offered"))
    sha256 = lake.sha256(file.uri)
    snapshot = f"{run['as_of']}-{sha256[:16]}"
    folder = lake.place("training", model.name, snapshot)
    manifest = facts.snapshot_manifest(model, run, planned["sql"], planned["sources"], rows, sha256, offered, labelled)
    if not lake.exists(f"{folder}/manifest.json"):
        lake.copy(file.uri, f"{folder}/data.parquet")
        lake.write_json(f"{folder}/manifest.json", manifest)  # last: with it the snapshot is complete
    log.info("snapshot %s: %d rows; %d of %d rows of the holdout have a label", snapshot, rows, labelled, offered)
    return facts.snapshot(snapshot, f"{folder}/data.parquet", manifest)


def inspect_training_set(model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
    with TaskGroup("inspect_training_set") as group:
        planned = model_task(plan_inspection, task_id="plan")(model, run, snapshot)
        strength = ProcessingJob(task_id="strength", model=model, step="inspect", request=Read(planned, "strength"))
        replay = AthenaQuery(task_id="replay", model=model, step="replay", request=Read(planned, "replay"))
        found = model_task(refuse_leaks, task_id="facts")(model, run, strength.output, replay.output)
    return steps(group, planned, [strength, replay], found)


def plan_inspection(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The job that looks at each feature alone, and the statement that makes some days again as they were on their day."""
    folder = _workspace(model, run, "inspect")
    spec = {**facts.inspection(model, snapshot), "snapshot": f"{INPUT}/snapshot/data.parquet"}
    strength = requests.processing(model, "inspect", run, folder, {"snapshot": snapshot["file"]}, spec)
    kept = tables.named(tables.staged(model, run, "training"))
    replays = []
    for day in facts.replayed_days(run):
        query = facts.replay(model, tables.DIALECT, tables.of(model, until=day), kept)
        replays.append(f"SELECT '{day}' AS _day, _of_day.* FROM (\n{tables.bound(query, _bounds([day]))}\n) AS _of_day")
    statement = "\nUNION ALL\n".join(replays)
    return {
        "strength": strength,
        "replay": requests.query(model, "replay", run, statement, snapshot["sha256"]) if replays else {},
    }


def refuse_leaks(model: ModelConfig, run: dict[str, Any], looked: dict[str, Any], replayed: dict[str, Any]) -> dict[str, Any]:
    """
    Raises:
        LeakFound: naming the columns that nobody could know.
    """
    found = documents.read_json(f"{looked['output']}/inspect.json")
    return facts.inspected(model, found, tables.answer(replayed["ref"]))


def tune(model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
    """By a job that tries one after the other and stops what has no hope; or, with AILERON_AWS_TUNING_JOBS, by a tuning job
    of SageMaker, which bills a machine for each trial."""
    with TaskGroup("tune") as group:
        if int(aws().tuning_jobs):
            planned = model_task(plan_sagemaker_tuning, task_id="plan")(model, run, snapshot)
            tuning = TuningJob(task_id="search", model=model, step="hpo", request=Read(planned, "tune"))
            found = model_task(read_best_trial, task_id="facts")(model, tuning.output)
            return steps(group, planned, tuning, found)
        planned = model_task(plan_tuning, task_id="plan")(model, run, snapshot)
        job = ProcessingJob(task_id="search", model=model, step="tune", request=Read(planned, "tune"))
        found = model_task(read_tuned, task_id="facts")(model, job.output)
    return steps(group, planned, job, found)


def plan_tuning(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The job that searches parameters and window on the last days before the holdout."""
    spec = {**facts.tuning(model, snapshot), "snapshot": f"{INPUT}/snapshot/data.parquet"}
    inputs = {"snapshot": snapshot["file"]}
    return {"tune": requests.processing(model, "tune", run, _workspace(model, run, "tune"), inputs, spec)}


def plan_sagemaker_tuning(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """The tuning job that searches parameters and window on the last days before the holdout."""
    spec = facts.training(model, snapshot, {"parameters": {"seed": model.training.seed}})
    return {"tune": requests.tuning(model, run, _workspace(model, run, "tune"), snapshot["file"], spec)}


def read_best_trial(model: ModelConfig, searched: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the best training of a tuning job.

    Raises:
        JobFailed: if none of them has told its loss.
    """
    from include.core.training import Parameters

    job = SageMakerHook(aws_conn_id=aws().connection).describe_tuning_job(searched["job"])
    best = job.get("BestTrainingJob", {})
    measured = best.get("FinalHyperParameterTuningJobObjectiveMetric")
    if not measured:
        raise JobFailed(f"{searched['job']}: none of its trainings has told a loss; their logs say why")
    chosen = {name: json.loads(text) for name, text in best["TunedHyperParameters"].items()}
    parameters = Parameters.from_json({"seed": model.training.seed, **chosen}).to_json()
    trials = sum(job["TrainingJobStatusCounters"].get(state, 0) for state in ("Completed", "Stopped"))
    return {"parameters": parameters, "loss": measured["Value"], "trials": trials, "seconds": searched["seconds"]}


def read_tuned(model: ModelConfig, searched: dict[str, Any]) -> dict[str, Any]:
    """The parameters and the training window that did best."""
    return facts.tuned(documents.read_json(f"{searched['output']}/tune.json"), searched["seconds"])


def train(model: ModelConfig, run: XComArg, snapshot: XComArg, tuned: XComArg) -> XComArg:
    with TaskGroup("train") as group:
        planned = model_task(plan_training, task_id="plan")(model, run, snapshot, tuned)
        job = TrainingJob(task_id="fit", model=model, step="train", request=Read(planned, "train"))
        kept = model_task(keep_artifact, task_id="keep")(model, snapshot, job.output)
    return steps(group, planned, job, kept)


def plan_training(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """The training of a challenger. The same snapshot and parameters give the same artifact."""
    spec, folder = facts.training(model, snapshot, tuned), _workspace(model, run, "train")
    return {"train": requests.training(model, run, folder, snapshot["file"], spec)}


def keep_artifact(model: ModelConfig, snapshot: dict[str, Any], fitted: dict[str, Any]) -> dict[str, Any]:
    """Verify what the job has made, and keep it under its content."""
    artifact, manifest_sha256 = archives.keep(lake, model, fitted["output"])
    facts = {"artifact": artifact, "manifest_sha256": manifest_sha256, "snapshot": snapshot["snapshot"]}
    return {**facts, "seconds": fitted["seconds"]}


def evaluate(model: ModelConfig, run: XComArg, snapshot: XComArg, challenger: XComArg, champion: XComArg) -> XComArg:
    with TaskGroup("evaluate") as group:
        planned = model_task(plan_evaluation, task_id="plan")(model, run, snapshot, challenger, champion)
        job = ProcessingJob(task_id="measure", model=model, step="evaluate", request=Read(planned, "evaluate"))
        kept = model_task(keep_evaluation, task_id="keep")(model, run, job.output)
    return steps(group, planned, job, kept)


def plan_evaluation(
    model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], challenger: dict[str, Any], champion: dict[str, Any]
) -> dict[str, Any]:
    """The job that measures challenger and champion on the same rows, later than both have learned from."""
    against = champion["version"]
    inputs = {"snapshot": snapshot["file"], "challenger": challenger["artifact"]}
    spec = {
        **facts.evaluation(model, snapshot, challenger, against),
        "snapshot": f"{INPUT}/snapshot/data.parquet",
        "artifact": f"{INPUT}/challenger",
        "champion_artifact": None,
    }
    if against:
        inputs["champion"], spec["champion_artifact"] = against["artifact"], f"{INPUT}/champion"
    return {"evaluate": requests.processing(model, "evaluate", run, _workspace(model, run, "evaluate"), inputs, spec)}


def keep_evaluation(model: ModelConfig, run: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
    """The document of the comparison, where its page will be."""
    content = lake.read(f"{measured['output']}/evaluate.json")
    document = json.loads(content)
    kept = f"{evaluation_folder(model, run)}/evaluation.json"
    lake.write(kept, content)
    return {"document": kept, "rows": document["rows"], "seconds": measured["seconds"]}


class RegisterOnce(SageMakerRegisterModelVersionOperator):
    """Registers the artifact, unless it has a version already: the provider's operator makes one more at each try."""

    template_fields = ()

    def __init__(self, *, model: ModelConfig, facts: dict[str, Read], **arguments: Any) -> None:
        super().__init__(image_uri="", model_url="", package_group_name="", aws_conn_id=aws().connection, **arguments)
        self.model_name, self.facts = model.name, facts

    def execute(self, context: Any) -> Any:
        model, found = load_model(self.model_name), {name: fact.resolve(context) for name, fact in self.facts.items()}
        known, told = models.sagemaker_registry(), registration(**found, git_revision=settings().revision)
        version = known.find(model.name, told["manifest_sha256"])
        if version is None:
            self.package_group_name = known.group(model.name)
            self.package_desc = model.title
            self.extras = known.package(model.name, **told)
            super().execute(context)
            version = known.registered(model.name, told["manifest_sha256"])
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
        features = AthenaQuery(task_id="features", model=model, step="shadow_rows", request=Read(planned, "features"))
        planned_job = model_task(plan_shadow_job, task_id="plan_job")(model, run, version, champion, features.output)
        job = ProcessingJob(task_id="score", model=model, step="shadow", request=Read(planned_job, "shadow"))
        found = model_task(read_shadow, task_id="facts")(model, planned, job.output)
    return steps(group, planned, features, planned_job, job, found)


def plan_shadow(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """The features of the newest partition that had landed."""
    newest = facts.newest(model, run, lake.days_landed(model.source.table))
    table = tables.new(tables.staged(model, run, "shadow"), _workspace(model, run, "shadow_rows"))
    select = tables.bound(queries.accepted_features(model, tables.DIALECT, tables.of(model)), _bounds([newest]))
    statement = tables.create_as(table, select, one_file_by=model.source.key)
    query = requests.query(model, "shadow_rows", run, statement, lake.fingerprint(model, newest), table)
    return {"partition": newest.isoformat(), "features": query}


def plan_shadow_job(
    model: ModelConfig, run: dict[str, Any], version: dict[str, Any], champion: dict[str, Any], made: dict[str, Any]
) -> dict[str, Any]:
    """The job that scores them with both."""
    against = champion["version"]
    (rows,) = lake.data(tables.location(tables.staged(model, run, "shadow")))
    inputs = {"features": rows.uri, "challenger": version["artifact"]}
    spec = {
        **facts.shadowing(model, version, against),
        "features": f"{INPUT}/features/{rows.name}",
        "artifact": f"{INPUT}/challenger",
        "champion_artifact": "",
    }
    if against:
        inputs["champion"], spec["champion_artifact"] = against["artifact"], f"{INPUT}/champion"
    return {"shadow": requests.processing(model, "shadow", run, _workspace(model, run, "shadow"), inputs, spec)}


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
    labelled = set(lake.days_landed(model.source.table)) & set(lake.days_landed(model.labels.table))
    return max(labelled, default=None)


def _sources(model: ModelConfig, days: Sequence[date]) -> dict[str, str]:
    """Fingerprint of each day, its labels included."""
    found = lake.fingerprints(model, also=[model.labels.table])
    return {day.isoformat(): found[day] for day in days}


def _bounds(days: Sequence[date]) -> dict[str, date]:
    return {"first_partition": days[0], "last_partition": days[-1]}


def _workspace(model: ModelConfig, run: dict[str, Any], *names: str) -> str:
    return lake.workspace(model.name, {"partition": run["as_of"], "workspace": run["workspace"]}, *names)
