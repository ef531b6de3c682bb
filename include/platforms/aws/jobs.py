"""Jobs of AWS that are started once: operators of the Amazon provider, except for what a retry does.

See `platforms.remote_jobs`. SageMaker's jobs have names of ours. Glue gives runs names of its own, and ours is an argument of
the run; Athena and Redshift take ours as their token.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook
from airflow.providers.amazon.aws.links.athena import AthenaQueryResultsLink
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.redshift_data import RedshiftDataOperator
from airflow.providers.amazon.aws.operators.sagemaker import (
    SageMakerModelOperator,
    SageMakerProcessingOperator,
    SageMakerTrainingOperator,
    SageMakerTransformOperator,
    SageMakerTuningOperator,
)
from airflow.sdk.definitions.xcom_arg import XComArg
from botocore.exceptions import ClientError

from include.config import ModelConfig
from include.model_task import Read
from include.platforms import costs
from include.platforms.aws import prices
from include.platforms.aws.settings import aws, terms
from include.platforms.remote_jobs import Found, Kind, RemoteJob, State, Terms, filled, known_state


class _AwsJob(RemoteJob):
    cloud = "aws"

    @staticmethod
    def terms() -> Terms:
        return terms()


def client_of(kind: str, connection: str) -> Any:
    """A client of the service that has the jobs of a kind."""
    return KINDS[kind].client(connection)


class _SageMakerJob(_AwsJob):
    """Their names are unique, so a job that was accepted without an answer is found by its name."""

    name_field: ClassVar[str]
    submit: ClassVar[Any]  # the provider's operator

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(config={}, wait_for_completion=False, deferrable=False, aws_conn_id=aws().connection, **arguments)  # type: ignore[call-arg]
        self.prepare(model, step, request, after)

    def _start(self, context: Any) -> str:
        request: Any = self.request
        self.config = {**filled(request["config"], self.name), self.name_field: self.name}
        try:
            self.submit.execute(self, context)
        except ClientError as error:
            # Accepted, but the answer was lost, and botocore has asked again.
            if error.response["Error"]["Code"] != "ResourceInUse":
                raise
        return self.name

    def _price(self) -> float:
        request: Any = self.request
        return prices.hourly(request["instance"]) * request["instances"]


class TransformJob(_SageMakerJob, SageMakerTransformOperator):
    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind, name_field, submit = "transform", "TransformJobName", SageMakerTransformOperator

    def __init__(self, **arguments: Any) -> None:
        super().__init__(check_if_job_exists=False, check_if_model_exists=False, **arguments)


class TrainingJob(_SageMakerJob, SageMakerTrainingOperator):
    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind, name_field, submit = "training", "TrainingJobName", SageMakerTrainingOperator

    def __init__(self, **arguments: Any) -> None:
        super().__init__(check_if_job_exists=False, print_log=False, **arguments)


class ProcessingJob(_SageMakerJob, SageMakerProcessingOperator):
    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind, name_field, submit = "processing", "ProcessingJobName", SageMakerProcessingOperator

    def __init__(self, **arguments: Any) -> None:
        super().__init__(action_if_job_exists="fail", print_log=False, **arguments)


class TuningJob(_SageMakerJob, SageMakerTuningOperator):
    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind, name_field, submit = "tuning", "HyperParameterTuningJobName", SageMakerTuningOperator

    def __init__(self, **arguments: Any) -> None:  # Airflow wants each operator to have its own
        super().__init__(**arguments)


class ModelOnce(SageMakerModelOperator):
    """A model that is there already is used: its name says what it is made of."""

    template_fields = ("config",)

    def __init__(self, *, config: Read, **arguments: Any) -> None:
        super().__init__(config=config, aws_conn_id=aws().connection, **arguments)  # type: ignore[arg-type]

    def execute(self, context: Any) -> Any:
        name = self.config["ModelName"]
        if self._is_there(name):
            self.log.info("model %s is there already", name)
            return name
        try:
            super().execute(context)
        except ClientError:
            if not self._is_there(name):  # accepted, but the answer was lost
                raise
        return name

    def _is_there(self, name: str) -> bool:
        try:
            self.hook.describe_model(name)
        except ClientError as error:
            if _is_missing(error):
                return False
            raise
        return True


class GlueJob(_AwsJob, GlueJobOperator):
    """A run of a Glue job. Glue gives runs names of its own: ours is an argument of the run, by which it is found again."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind = "glue"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        # A call that is repeated when its answer is lost would start a second run.
        super().__init__(
            wait_for_completion=False,
            deferrable=False,
            update_config=True,
            aws_conn_id=aws().connection,
            botocore_config={"retries": {"mode": "standard", "total_max_attempts": 1}},
            **arguments,
        )
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        request: Any = self.request
        self.job_name = request["job"]
        token: dict[str, str] = {}
        try:
            while True:
                page = self.client.get_job_runs(JobName=self.job_name, MaxResults=200, **token)
                for run in page.get("JobRuns", []):
                    if run.get("Arguments", {}).get("--aileron_job") == name:
                        ref = f"{self.job_name}/{run['Id']}"
                        return ref, self._with_price(KINDS["glue"].look(self.client, ref))
                if not page.get("NextToken"):
                    return "", Found("absent")
                token = {"NextToken": page["NextToken"]}
        except self.client.exceptions.EntityNotFoundException:
            return "", Found("absent")

    def _start(self, context: Any) -> str:
        request: Any = self.request
        self.job_desc, self.iam_role_arn = request["description"], aws().role
        self.script_location = request["script"]
        self.create_job_kwargs = dict(request["job_settings"])
        self.script_args = {**filled(request["arguments"], self.name), "--aileron_job": self.name}
        self.run_job_kwargs = dict(request["run_settings"])
        self.concurrent_run_limit = 50
        # The hook that has looked for runs was made before the operator knew what to create.
        self.__dict__.pop("hook", None)
        try:
            run_id = GlueJobOperator.execute(self, context)
        except Exception:
            ref, found = self._find(self.name)
            if found.state == "absent":
                raise
            return ref  # accepted, but the answer was lost
        return f"{self.job_name}/{run_id}"

    def _price(self) -> float:
        return prices.hourly(aws().glue_worker) * int(aws().glue_workers)


class AthenaQuery(_AwsJob, AthenaOperator):
    """A statement of Athena, which gives the same token the same execution. `request` may name a table that the statement
    makes: that of an attempt before is forgotten first."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind = "athena"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        chosen = aws()
        super().__init__(
            query="",
            database=chosen.database,
            workgroup=chosen.workgroup,
            aws_conn_id=chosen.connection,
            deferrable=False,
            **arguments,
        )
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        """There is no search by token: the ledger knows which tokens were used, and asking again gives the same execution."""
        if not costs.was_admitted(self.of_model, self.step, name):
            return "", Found("absent")
        from include.platforms.aws import tables

        request: Any = self.request
        ref = self._ask(name)
        found = KINDS["athena"].look(self.client, ref)
        if found.state == "succeeded" and request.get("table") and not tables.is_at(filled(request["table"], name)):
            return ref, replace(found, state="failed", told="the table that it made is gone")
        return ref, found

    def _start(self, context: Any) -> str:
        ref = self._ask(self.name)
        link = {"aws_partition": self.hook.conn_partition, "region_name": self.hook.conn_region_name, "query_execution_id": ref}
        AthenaQueryResultsLink.persist(context=context, operator=self, **link)
        return ref

    def _admit(self, context: Any) -> None:
        from include.platforms.aws import tables

        request: Any = self.request
        if request.get("table"):
            # Before the token is recorded: an execution of this token then never finds the table of another.
            tables.forget(request["table"]["name"])
        super()._admit(context)

    def _estimate(self) -> float:
        request: Any = self.request
        return prices.scanned(int(request.get("bytes", 0)))

    def _ask(self, name: str) -> str:
        request: Any = self.request
        self.query = filled(request["query"], name)
        token = hashlib.sha256(f"{self.of_model}/{name}".encode()).hexdigest()
        results = {"OutputLocation": f"{aws().lake}/athena/{self.of_model}"}
        if aws().kms_key:
            results["EncryptionConfiguration"] = {"EncryptionOption": "SSE_KMS", "KmsKey": aws().kms_key}  # type: ignore[assignment]
        where = {"Database": aws().database, "Catalog": self.catalog}
        return str(self.hook.run_query(self.query, where, results, token, self.workgroup))


class RedshiftStatements(_AwsJob, RedshiftDataOperator):
    """Statements in one transaction; Redshift gives the same token the same execution."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind = "redshift"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(sql=[], aws_conn_id=aws().connection, wait_for_completion=False, deferrable=False, **arguments)
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        if not costs.was_admitted(self.of_model, self.step, name):
            return "", Found("absent")
        ref = self._ask(name)
        return ref, KINDS["redshift"].look(self.client, ref)

    def _start(self, context: Any) -> str:
        return self._ask(self.name)

    def _ask(self, name: str) -> str:
        request: Any = self.request
        token = hashlib.sha256(f"{self.of_model}/{name}".encode()).hexdigest()
        answer = self.client.batch_execute_statement(
            Sqls=request["statements"],
            WorkgroupName=aws().redshift_workgroup,
            Database=aws().redshift_database,
            StatementName=name,
            ClientToken=token,
        )
        return str(answer["Id"])


def _is_missing(error: ClientError) -> bool:
    told = error.response["Error"]
    known = ("ValidationException", "ResourceNotFound", "EntityNotFoundException")
    return told["Code"] in known and bool(re.search(r"(?i)could not find|can.t find|not found|does not exist", told["Message"]))


SAGEMAKER_STATES: dict[str, State] = {
    "InProgress": "running",
    "Stopping": "stopping",
    "Completed": "succeeded",
    "Failed": "failed",
    "Stopped": "failed",
    "Deleting": "stopping",
    "DeleteFailed": "failed",
}
GLUE_STATES: dict[str, State] = {
    **dict.fromkeys(("STARTING", "RUNNING", "WAITING"), "running"),
    "STOPPING": "stopping",
    "SUCCEEDED": "succeeded",
    **dict.fromkeys(("STOPPED", "FAILED", "TIMEOUT", "ERROR", "EXPIRED"), "failed"),
}
ATHENA_STATES: dict[str, State] = {
    **dict.fromkeys(("QUEUED", "RUNNING"), "running"),
    "SUCCEEDED": "succeeded",
    **dict.fromkeys(("FAILED", "CANCELLED"), "failed"),
}
REDSHIFT_STATES: dict[str, State] = {
    **dict.fromkeys(("SUBMITTED", "PICKED", "STARTED"), "running"),
    "FINISHED": "succeeded",
    **dict.fromkeys(("FAILED", "ABORTED"), "failed"),
}


def _sagemaker(what: str, describe: str, started: str, ended: str) -> Callable[[Any, str], Found]:
    def look(client: Any, name: str) -> Found:
        try:
            job = getattr(client, describe)(**{f"{what}Name": name})
        except ClientError as error:
            if _is_missing(error):
                return Found("absent")
            raise
        state, told = known_state(SAGEMAKER_STATES, job[f"{what}Status"], job.get("ExitMessage") or job.get("FailureReason"))
        begun, over = job.get(started), job.get(ended)
        seconds = job.get("BillableTimeInSeconds", (over - begun).total_seconds() if begun and over else 0.0)
        return Found(state, told, float(seconds))

    return look


def _look_at_tuning(client: Any, name: str) -> Found:
    try:
        job = client.describe_hyper_parameter_tuning_job(HyperParameterTuningJobName=name)
    except ClientError as error:
        if _is_missing(error):
            return Found("absent")
        raise
    state, told = known_state(SAGEMAKER_STATES, job["HyperParameterTuningJobStatus"], job.get("FailureReason"))
    return Found(state, told, float(job.get("ConsumedResources", {}).get("RuntimeInSeconds", 0)))


def _stop_sagemaker(what: str, stop: str) -> Callable[[Any, str], Any]:
    return lambda client, name: getattr(client, stop)(**{f"{what}Name": name})


def _look_at_glue(client: Any, ref: str) -> Found:
    job, _, run_id = ref.rpartition("/")
    run = client.get_job_run(JobName=job, RunId=run_id)["JobRun"]
    state, told = known_state(GLUE_STATES, run["JobRunState"], run.get("ErrorMessage"))
    return Found(state, told, float(run.get("ExecutionTime", 0)))


def _stop_glue(client: Any, ref: str) -> Any:
    job, _, run_id = ref.rpartition("/")
    return client.batch_stop_job_run(JobName=job, JobRunIds=[run_id])


def _look_at_athena(client: Any, ref: str) -> Found:
    execution = client.get_query_execution(QueryExecutionId=ref)["QueryExecution"]
    status, statistics = execution["Status"], execution.get("Statistics", {})
    state, told = known_state(ATHENA_STATES, status["State"], status.get("StateChangeReason"))
    # A query that failed is free, one that was cancelled is not.
    cost = prices.scanned(statistics.get("DataScannedInBytes", 0)) if status["State"] in ("SUCCEEDED", "CANCELLED") else 0.0
    return Found(state, told, statistics.get("TotalExecutionTimeInMillis", 0) / 1000, cost)


def _look_at_redshift(client: Any, ref: str) -> Found:
    statement = client.describe_statement(Id=ref)
    state, told = known_state(REDSHIFT_STATES, statement["Status"], statement.get("Error"))
    return Found(state, told, statement.get("Duration", 0) / 1e9)


def _kind(service: str, look: Callable[[Any, str], Found], stop: Callable[[Any, str], Any]) -> Kind:
    return Kind(partial(_client, service), look, stop)


def _client(service: str, connection: str) -> Any:
    return AwsBaseHook(aws_conn_id=connection, client_type=service).conn


KINDS: dict[str, Kind] = {
    "transform": _kind(
        "sagemaker",
        _sagemaker("TransformJob", "describe_transform_job", "TransformStartTime", "TransformEndTime"),
        _stop_sagemaker("TransformJob", "stop_transform_job"),
    ),
    "training": _kind(
        "sagemaker",
        _sagemaker("TrainingJob", "describe_training_job", "TrainingStartTime", "TrainingEndTime"),
        _stop_sagemaker("TrainingJob", "stop_training_job"),
    ),
    "processing": _kind(
        "sagemaker",
        _sagemaker("ProcessingJob", "describe_processing_job", "ProcessingStartTime", "ProcessingEndTime"),
        _stop_sagemaker("ProcessingJob", "stop_processing_job"),
    ),
    "tuning": _kind(
        "sagemaker",
        _look_at_tuning,
        _stop_sagemaker("HyperParameterTuningJob", "stop_hyper_parameter_tuning_job"),
    ),
    "glue": _kind("glue", _look_at_glue, _stop_glue),
    "athena": _kind("athena", _look_at_athena, lambda client, ref: client.stop_query_execution(QueryExecutionId=ref)),
    "redshift": _kind("redshift-data", _look_at_redshift, lambda client, ref: client.cancel_statement(Id=ref)),
}
