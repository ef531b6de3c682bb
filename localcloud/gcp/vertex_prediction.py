"""Vertex AI's batch prediction from BigQuery to BigQuery: what is asked, and what becomes of the rows."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from google.cloud.aiplatform_v1 import types

from localcloud.gcp.containers import failure, logged
from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.gcp.vertex_entries import Entries, Kind
from localcloud.gcp.vertex_models import Registry
from localcloud.gcp.vertex_resources import Location, check_named, given, invalid
from localcloud.gcp.vertex_rows import as_instance
from localcloud.gcp.vertex_server import ModelServer, Unanswered
from localcloud.honoured import honoured
from localcloud.jobs import Job, JobFailed, JobStopped
from localcloud.service import NotHonoured

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 64
# Vertex gives a job up when "a significant portion" fails, and does not say how much that is.
TOLERATED = 0.03
PARTIAL_FAILURES = 20
ALREADY_EXISTS, NOT_FOUND = 6, 5
TABLE = re.compile(r"bq://([\w:.-]+?)\.([A-Za-z0-9_]+)(?:\.([\w-]+))?")
KIND = Kind("batchPredictionJobs", types.BatchPredictionJob, "JOB_STATE_", "BatchPredictionJob", "batch_prediction_jobs")

check = honoured(
    "CreateBatchPredictionJob",
    """
    display_name labels model model_parameters service_account encryption_spec.kms_key_name
    input_config.instances_format=bigquery input_config.bigquery_source.input_uri
    instance_config.instance_type=object|array instance_config.key_field
    instance_config.included_fields instance_config.excluded_fields
    output_config.predictions_format=bigquery output_config.bigquery_destination.output_uri
    dedicated_resources.machine_spec.machine_type
    dedicated_resources.starting_replica_count dedicated_resources.max_replica_count
    manual_batch_tuning_parameters.batch_size
    """,
)


@dataclass(frozen=True)
class Plan:
    """What the rows of a table become."""

    source: str
    dataset: str  # project.dataset
    table: str  # empty: a new one of Vertex's own naming
    as_object: bool
    key: str
    included: tuple[str, ...]
    excluded: tuple[str, ...]
    batch: int

    def sent(self, columns: Sequence[str]) -> list[str]:
        """The columns of an instance, in their order."""
        return list(self.included) or [name for name in columns if name not in self.excluded and name != self.key]

    def kept(self, columns: Sequence[str]) -> list[str]:
        """The columns that are written beside a prediction."""
        if self.key:
            return [self.key]
        return [name for name in columns if name in self.included] if self.included else list(columns)


@dataclass
class Outcome:
    """By the number of a row: its prediction as JSON, or why it has none."""

    predictions: dict[int, str] = field(default_factory=dict)
    errors: dict[int, str] = field(default_factory=dict)


class Predictions:
    def __init__(self, cloud: Cloud, location: Location, registry: Registry) -> None:
        self._cloud, self._location, self._registry = cloud, location, registry
        self._entries = Entries(cloud, location, KIND)

    def methods(self) -> Methods:
        service = "/google.cloud.aiplatform.v1.JobService/"
        return {
            f"{service}CreateBatchPredictionJob": Method(types.CreateBatchPredictionJobRequest, self.create),
            **self._entries.methods(service, types),
        }

    def create(self, request: types.CreateBatchPredictionJobRequest) -> types.BatchPredictionJob:
        self._location.check(request.parent)
        resource = given(request.batch_prediction_job)
        check(resource)
        check_named(resource)
        plan = planned(resource)
        if "model" not in resource:
            raise invalid("model must be given.")
        model = self._registry.resolved(resource["model"])
        resources = resource.get("dedicated_resources", {})
        if "machine_type" not in resources.get("machine_spec", {}):
            raise invalid("A custom-trained model needs dedicated_resources.machine_spec.machine_type.")
        entry = self._entries.begin({**resource, "model_version_id": model["version_id"]})
        entry.job = self._cloud.jobs.start(
            "aiplatform",
            "batch-prediction-job",
            resource["display_name"],
            resource,
            lambda job: predict(self._cloud, job, entry.key, model, plan, resource),
            on_end=lambda job: self._entries.end(entry, job),
            instance_type=resources["machine_spec"]["machine_type"],
            instance_count=resources.get("starting_replica_count", 1),
            tags=dict(resource.get("labels", {})),
        )
        message: types.BatchPredictionJob = self._entries.message(entry)
        return message


def planned(resource: Mapping[str, Any]) -> Plan:
    """Raises Refused if a part of a request is missing, or contradicts another."""
    source = TABLE.fullmatch(resource.get("input_config", {}).get("bigquery_source", {}).get("input_uri", ""))
    if source is None or not source[3]:
        raise invalid("input_config.bigquery_source.input_uri must be bq://project.dataset.table.")
    output = resource.get("output_config", {}).get("bigquery_destination", {}).get("output_uri", "")
    if re.fullmatch(r"bq://[\w-]+", output):
        raise NotHonoured(f"output_uri {output}, a project: name a dataset or a table")
    target = TABLE.fullmatch(output)
    if target is None:
        raise invalid("output_config.bigquery_destination.output_uri must be bq://project.dataset or bq://project.dataset.table.")
    for config, member in (("input_config", "instances_format"), ("output_config", "predictions_format")):
        if member not in resource[config]:
            raise invalid(f"{config}.{member} must be given.")
    instances = resource.get("instance_config", {})
    included, excluded = instances.get("included_fields", ()), instances.get("excluded_fields", ())
    if included and excluded:
        raise invalid("excluded_fields must be empty when included_fields is given.")
    batch = resource.get("manual_batch_tuning_parameters", {}).get("batch_size", BATCH)
    if batch < 1:
        raise invalid("manual_batch_tuning_parameters.batch_size must be at least 1.")
    return Plan(
        source=".".join(part for part in source.groups() if part),
        dataset=f"{target[1]}.{target[2]}",
        table=target[3] or "",
        as_object=instances.get("instance_type") == "object",
        key=instances.get("key_field", ""),
        included=tuple(included),
        excluded=tuple(excluded),
        batch=batch,
    )


def predict(cloud: Cloud, job: Job, key: str, model: Mapping[str, Any], plan: Plan, resource: Mapping[str, Any]) -> None:
    """All rows through the model. Those that fail are set aside; too many of them fail the job."""
    with logged(cloud, job, key):
        rows = _read(cloud, job, plan)
        outcome = Outcome()
        try:
            with ModelServer(cloud, job, key, model, resource["dedicated_resources"]["machine_spec"]["machine_type"]) as server:
                _ask(job, server, rows, plan, resource.get("model_parameters"), outcome)
        except (JobFailed, JobStopped):
            # What has been put out is not taken back.
            if outcome.predictions or outcome.errors:
                _write(cloud, job, rows, plan, outcome)
            raise
        _write(cloud, job, rows, plan, outcome)
        if len(outcome.errors) > TOLERATED * rows.num_rows:
            first = next(iter(outcome.errors.values()))
            raise failure(job, f"{len(outcome.errors)} of {rows.num_rows} instances failed, more than are tolerated: {first}")
        if outcome.errors:
            job.facts["completes_as"] = "PARTIALLY_SUCCEEDED"


def _read(cloud: Cloud, job: Job, plan: Plan) -> pa.Table:
    """Raises JobFailed if the tables or columns are not as the plan needs them."""
    try:
        rows = cloud.tables.rows(plan.source)
    except LookupError:
        raise failure(job, f"Not found: Table bq://{plan.source} was not found", NOT_FOUND) from None
    if missing := {*plan.included, *plan.excluded, plan.key} - {*rows.column_names, ""}:
        raise failure(job, f"bq://{plan.source} has no column {', '.join(sorted(missing))}")
    if "prediction" in plan.kept(rows.column_names):
        raise failure(job, f"bq://{plan.source} has a column prediction, and so has the output")
    if not rows.num_rows:
        raise failure(job, f"bq://{plan.source} has no rows: there is nothing to predict")
    if plan.table:
        try:
            cloud.tables.rows(f"{plan.dataset}.{plan.table}")
        except LookupError:
            return rows
        raise failure(job, f"Already Exists: Table bq://{plan.dataset}.{plan.table}: it must not exist", ALREADY_EXISTS)
    return rows


def _ask(job: Job, server: ModelServer, rows: pa.Table, plan: Plan, parameters: Any, outcome: Outcome) -> None:
    """Batch by batch; all instances of a batch share its error. No more are sent when too many have failed."""
    columns = plan.sent(rows.column_names)
    for begin, instances in _batches(rows.select(columns), plan):
        job.check()
        try:
            answers = server.predictions(instances, parameters)
        except Unanswered as error:
            job.say(f"rows {begin} to {begin + len(instances) - 1} failed: {error}")
            outcome.errors |= dict.fromkeys(range(begin, begin + len(instances)), str(error))
        else:
            outcome.predictions |= dict(enumerate(answers, begin))
        _tell(job, rows.num_rows, outcome)
        if len(outcome.errors) > TOLERATED * rows.num_rows:
            return


def _batches(rows: pa.Table, plan: Plan) -> Iterator[tuple[int, list[Any]]]:
    begin = 0
    for batch in rows.combine_chunks().to_batches(max_chunksize=plan.batch):
        yield begin, [as_instance(row, plan.as_object) for row in batch.to_pylist()]
        begin += batch.num_rows


def _tell(job: Job, total: int, outcome: Outcome, **more: Any) -> None:
    done, failed = len(outcome.predictions), len(outcome.errors)
    stats = {"successful_count": str(done), "failed_count": str(failed), "incomplete_count": str(total - done - failed)}
    reasons = list(dict.fromkeys(outcome.errors.values()))[:PARTIAL_FAILURES]
    told = job.facts.setdefault("told", {}).setdefault(KIND.collection, {})
    told |= {"completion_stats": stats, "partial_failures": [{"code": 3, "message": reason} for reason in reasons], **more}


def _write(cloud: Cloud, job: Job, rows: pa.Table, plan: Plan, outcome: Outcome) -> None:
    """The predictions, and the rows that have none. The table of errors beside a dataset's predictions is always there."""
    import pyarrow as pa

    written = datetime.now(UTC).strftime("%Y_%m_%dT%H_%M_%S_%f")[:-3] + "Z"
    names = (plan.table, f"{plan.table}_errors") if plan.table else (f"predictions_{written}", f"errors_{written}")
    good, bad = (pa.array(sorted(numbers), pa.int64()) for numbers in (outcome.predictions, outcome.errors))
    kept = rows.select(plan.kept(rows.column_names))
    if plan.key:
        kept = kept.rename_columns(["key"])
    predictions = pa.array([outcome.predictions[number.as_py()] for number in good], pa.string())
    cloud.tables.write(f"{plan.dataset}.{names[0]}", kept.take(good).append_column("prediction", predictions))
    if len(bad) or not plan.table:
        reasons = pa.array(
            [{"code": 3, "message": outcome.errors[number.as_py()]} for number in bad],
            pa.struct([("code", pa.int64()), ("message", pa.string())]),
        )
        cloud.tables.write(f"{plan.dataset}.{names[1]}", rows.take(bad).append_column("errors", reasons))
    info = {"bigquery_output_dataset": f"bq://{plan.dataset}", "bigquery_output_table": names[0]}
    _tell(job, rows.num_rows, outcome, output_info=info)
