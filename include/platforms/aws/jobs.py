"""Remote jobs that are started once. The operators of the Amazon provider, except for what a retry does.

The provider's operators start a second job when a task is tried again, leave a job running and billing when its task is
killed, and take some jobs that were stopped for successes. Here the name of a job says what it does, on what and for the
how many-th time, so that a task which is tried again finds the job of the try before:

* running: it is waited for; succeeded: its result is used; failed or stopped: a new attempt is made;
* a task that is killed or cleared stops its job, also when it was deferred;
* a state that is not known is a failure, and starts nothing.

Each operator works with a worker that waits, or deferred. What is submitted is made by the provider's operator.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

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
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent
from botocore.exceptions import ClientError

from include.config import ModelConfig, load_model
from include.core.files import json_bytes
from include.model_task import Read
from include.platforms.aws import costs
from include.platforms.aws.settings import aws
from include.platforms.base import JobFailed

MOST_ATTEMPTS = 20
UNREACHABLE = 5  # looks in a row that fail before a trigger gives the task back

State = Literal["absent", "running", "stopping", "succeeded", "failed", "unknown"]


@dataclass(frozen=True)
class Found:
    """What is known of a remote job. seconds: billed, of one machine; cost: in US dollars, as far as it is known."""

    state: State
    told: str = ""
    seconds: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True)
class Kind:
    """How to look at a job, and how to stop it; both take a client of the service and a reference to the job."""

    service: str
    look: Callable[[Any, str], Found]
    stop: Callable[[Any, str], Any]


def job_name(model: ModelConfig, step: str, partition: str, depends_on: Mapping[str, Any], longest: int = 60) -> str:
    """The name of a job, without its attempt. The same work on the same input has the same name, any other another.

    Args:
        depends_on: all that the result of the job depends on: its request, and the state of what it reads.
    """
    digest = hashlib.sha256(json_bytes(depends_on)).hexdigest()[:10]
    rest = f"-{step}-{partition.replace('-', '')}-{digest}".replace("_", "-")
    return model.name.replace("_", "-")[: longest - len(rest)].rstrip("-") + rest


class RemoteJob:
    """What all operators here share; stands before the provider's operator among the bases of a class.

    `model`, `step`: for names, costs and the ledger. `request`: one of `aws.requests`: `name`, without the attempt, and what
    the service is asked. Empty: there is nothing to do, and the task is skipped. `after`: the results of the jobs that this
    one builds on: if they were made again, it is another job.
    """

    kind: ClassVar[str]
    template_fields: Any
    log: Any
    aws_conn_id: Any

    def prepare(self, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg]) -> None:
        self.model_name, self.step, self.request = model.name, step, request
        self.after = [Read(result, "ref") for result in after]
        self.defers, self.poll_seconds = aws().is_deferrable, aws().seconds
        self.name = ""  # of the attempt that this try is about
        self.ref = ""

    @cached_property
    def client(self) -> Any:
        return client_of(self.kind, self.aws_conn_id)

    def execute(self, context: Any) -> Any:
        request: Any = self.request
        if not request:
            raise AirflowSkipException("there is nothing to do")
        digest = f"-{hashlib.sha256('/'.join(map(str, self.after)).encode()).hexdigest()[:6]}" if self.after else ""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            self.name = f"{request['name']}{digest}-{attempt}"
            self.ref, found = self._find(self.name)
            if found.state == "stopping":
                found = self._await_end()
            if found.state == "absent":
                costs.admit(load_model(self.model_name), self.step, self.name, self._estimate(), self._facts(context))
                self.ref = self._start(context)
                break
            if found.state in ("running", "succeeded"):
                self.log.info("%s is there already, and is adopted: %s", self.name, found.told or found.state)
                break
            if found.state == "unknown":
                raise JobFailed(f"{self.name}: {found.told}; nothing was started: look at it in the console of AWS")
            self._settle(found)
            self.log.info("%s: %s; a new attempt is made", self.name, found.told or found.state)
        else:
            raise JobFailed(f"{request['name']}: {MOST_ATTEMPTS} attempts have failed; find out why before this task is cleared")
        if self.defers:
            if self._look().state == "running":
                until = time.time() + aws().most_seconds
                trigger = JobTrigger(self.kind, self.name, self.ref, self.aws_conn_id, self.poll_seconds, until)
                self.defer(trigger=trigger, method_name="finish")  # type: ignore[attr-defined]
        else:
            self._await_end()
        return self.finish(context, {"name": self.name, "ref": self.ref})

    def finish(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """What the service itself says of the job decides, not how the wait for it has ended.

        Raises:
            JobFailed: unless it has succeeded.
        """
        self.name, self.ref = event["name"], event["ref"]
        found = self._look()
        if found.state in ("succeeded", "failed"):
            self._settle(found)
        if found.state != "succeeded":
            waited = f" ({event['told']})" if event.get("told") else ""
            raise JobFailed(f"{self.name} has not succeeded: {found.state}: {found.told or 'no reason given'}{waited}")
        self.log.info("%s succeeded: %.0f s billed, %.4f USD", self.name, found.seconds, found.cost)
        request: Any = self.request
        output = filled(request.get("output", ""), self.name)
        return {"job": self.name, "ref": self.ref, "seconds": found.seconds, "cost": found.cost, "output": output}

    def on_kill(self) -> None:
        """The job of a task that is killed goes on billing unless it is stopped."""
        if not self.name:
            return
        ref, found = self._find(self.name)
        if found.state == "running":
            self.log.info("stopping %s", self.name)
            KINDS[self.kind].stop(self.client, ref)

    def _find(self, name: str) -> tuple[str, Found]:
        """The job of this name: how the service refers to it, and its state."""
        return name, self._with_price(KINDS[self.kind].look(self.client, name))

    def _start(self, context: Any) -> str:
        """Submit the job, and say how the service refers to it."""
        raise NotImplementedError

    def _estimate(self) -> float:
        return self._price() * costs.expected_seconds(self.model_name, self.step) / 3600

    def _price(self) -> float:
        """Of an hour of all machines of the job."""
        return 0.0

    def _facts(self, context: Any) -> dict[str, Any]:
        run = context["dag_run"]
        return {"dag_id": run.dag_id, "run_id": run.run_id, "service": self.kind}

    def _with_price(self, found: Found) -> Found:
        return found if found.cost else replace(found, cost=found.seconds / 3600 * self._price())

    def _look(self) -> Found:
        return self._with_price(KINDS[self.kind].look(self.client, self.ref))

    def _settle(self, found: Found) -> None:
        costs.settle(self.model_name, self.step, self.name, found.seconds, found.cost)

    def _await_end(self) -> Found:
        deadline = time.monotonic() + aws().most_seconds
        while (found := self._look()).state in ("running", "stopping"):
            if time.monotonic() > deadline and found.state == "running":
                self.log.error("%s has run for more than AILERON_AWS_MAX_JOB_HOURS: it is stopped", self.name)
                KINDS[self.kind].stop(self.client, self.ref)
            time.sleep(self.poll_seconds)
        return found


class JobTrigger(BaseTrigger):
    """Waits until a job has ended, or its time is over (`until`, seconds since 1970); then the job is stopped. Killed or cleared
    by a person, it stops the job.

    It never says how the job has ended: the task looks. When the service cannot be reached the task is woken too, and fails
    in its worker, where it is retried and mailed.
    """

    def __init__(self, kind: str, name: str, ref: str, connection: str, poll_seconds: int, until: float) -> None:
        super().__init__()
        self.kind, self.name, self.ref, self.connection = kind, name, ref, connection
        self.poll_seconds, self.until = poll_seconds, until  # another triggerer may go on with it

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("kind", "name", "ref", "connection", "poll_seconds", "until")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        client = await asyncio.to_thread(client_of, self.kind, self.connection)
        failures, told, stopped = 0, "", False
        while failures < UNREACHABLE:
            # Before the first look too: the task has just looked, and Airflow 3.3 may take a task that is woken within a second
            # for one that was lost (https://github.com/apache/airflow/issues/72716).
            await asyncio.sleep(self.poll_seconds)
            try:
                found = await asyncio.to_thread(KINDS[self.kind].look, client, self.ref)
                failures = 0
                if found.state not in ("running", "stopping"):
                    break
                if time.time() > self.until and not stopped:
                    told, stopped = "it ran for more than AILERON_AWS_MAX_JOB_HOURS and was stopped", True
                    await asyncio.to_thread(KINDS[self.kind].stop, client, self.ref)
            except Exception as error:
                failures, told = failures + 1, f"the service could not be asked: {error}"
                self.log.warning("%s: %s", self.name, error)
        yield TriggerEvent({"name": self.name, "ref": self.ref, "told": told})

    async def on_kill(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        client = client_of(self.kind, self.connection)
        if KINDS[self.kind].look(client, self.ref).state == "running":
            KINDS[self.kind].stop(client, self.ref)


def filled(request: Any, job: str) -> Any:
    """A request with the name of the attempt in the places that wait for it."""
    if isinstance(request, Mapping):
        return {name: filled(value, job) for name, value in request.items()}
    if isinstance(request, list):
        return [filled(value, job) for value in request]
    return request.replace("{job}", job) if isinstance(request, str) else request


def client_of(kind: str, connection: str) -> Any:
    """A client of the service that has the jobs of a kind."""
    return AwsBaseHook(aws_conn_id=connection, client_type=KINDS[kind].service).conn


class _SageMakerJob(RemoteJob):
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
        return costs.hourly(request["instance"]) * request["instances"]


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


class GlueJob(RemoteJob, GlueJobOperator):
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
        return costs.hourly(aws().glue_worker) * int(aws().glue_workers)


class AthenaQuery(RemoteJob, AthenaOperator):
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
        if not costs.was_admitted(self.model_name, self.step, name):
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

    def _facts(self, context: Any) -> dict[str, Any]:
        from include.platforms.aws import tables

        request: Any = self.request
        if request.get("table"):
            # Before the token is recorded: an execution of this token then never finds the table of another.
            tables.forget(request["table"]["name"])
        return super()._facts(context)

    def _estimate(self) -> float:
        request: Any = self.request
        return costs.scanned(int(request.get("bytes", 0)))

    def _ask(self, name: str) -> str:
        request: Any = self.request
        self.query = filled(request["query"], name)
        token = hashlib.sha256(f"{self.model_name}/{name}".encode()).hexdigest()
        results = {"OutputLocation": f"{aws().lake}/athena/{self.model_name}"}
        if aws().kms_key:
            results["EncryptionConfiguration"] = {"EncryptionOption": "SSE_KMS", "KmsKey": aws().kms_key}  # type: ignore[assignment]
        where = {"Database": aws().database, "Catalog": self.catalog}
        return str(self.hook.run_query(self.query, where, results, token, self.workgroup))


class RedshiftStatements(RemoteJob, RedshiftDataOperator):
    """Statements in one transaction; Redshift gives the same token the same execution."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind = "redshift"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(sql=[], aws_conn_id=aws().connection, wait_for_completion=False, deferrable=False, **arguments)
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        if not costs.was_admitted(self.model_name, self.step, name):
            return "", Found("absent")
        ref = self._ask(name)
        return ref, KINDS["redshift"].look(self.client, ref)

    def _start(self, context: Any) -> str:
        return self._ask(self.name)

    def _ask(self, name: str) -> str:
        request: Any = self.request
        token = hashlib.sha256(f"{self.model_name}/{name}".encode()).hexdigest()
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


def _state(states: Mapping[str, State], state: str, told: str | None) -> tuple[State, str]:
    known = states.get(state)
    return (known, f"{state}: {told}" if told else state) if known else ("unknown", f"state {state!r} is not known")


def _sagemaker(what: str, describe: str, started: str, ended: str) -> Callable[[Any, str], Found]:
    def look(client: Any, name: str) -> Found:
        try:
            job = getattr(client, describe)(**{f"{what}Name": name})
        except ClientError as error:
            if _is_missing(error):
                return Found("absent")
            raise
        state, told = _state(SAGEMAKER_STATES, job[f"{what}Status"], job.get("ExitMessage") or job.get("FailureReason"))
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
    state, told = _state(SAGEMAKER_STATES, job["HyperParameterTuningJobStatus"], job.get("FailureReason"))
    return Found(state, told, float(job.get("ConsumedResources", {}).get("RuntimeInSeconds", 0)))


def _stop_sagemaker(what: str, stop: str) -> Callable[[Any, str], Any]:
    return lambda client, name: getattr(client, stop)(**{f"{what}Name": name})


def _look_at_glue(client: Any, ref: str) -> Found:
    job, _, run_id = ref.rpartition("/")
    run = client.get_job_run(JobName=job, RunId=run_id)["JobRun"]
    state, told = _state(GLUE_STATES, run["JobRunState"], run.get("ErrorMessage"))
    return Found(state, told, float(run.get("ExecutionTime", 0)))


def _stop_glue(client: Any, ref: str) -> Any:
    job, _, run_id = ref.rpartition("/")
    return client.batch_stop_job_run(JobName=job, JobRunIds=[run_id])


def _look_at_athena(client: Any, ref: str) -> Found:
    execution = client.get_query_execution(QueryExecutionId=ref)["QueryExecution"]
    status, statistics = execution["Status"], execution.get("Statistics", {})
    state, told = _state(ATHENA_STATES, status["State"], status.get("StateChangeReason"))
    # A query that failed is free, one that was cancelled is not.
    cost = costs.scanned(statistics.get("DataScannedInBytes", 0)) if status["State"] in ("SUCCEEDED", "CANCELLED") else 0.0
    return Found(state, told, statistics.get("TotalExecutionTimeInMillis", 0) / 1000, cost)


def _look_at_redshift(client: Any, ref: str) -> Found:
    statement = client.describe_statement(Id=ref)
    state, told = _state(REDSHIFT_STATES, statement["Status"], statement.get("Error"))
    return Found(state, told, statement.get("Duration", 0) / 1e9)


KINDS: dict[str, Kind] = {
    "transform": Kind(
        "sagemaker",
        _sagemaker("TransformJob", "describe_transform_job", "TransformStartTime", "TransformEndTime"),
        _stop_sagemaker("TransformJob", "stop_transform_job"),
    ),
    "training": Kind(
        "sagemaker",
        _sagemaker("TrainingJob", "describe_training_job", "TrainingStartTime", "TrainingEndTime"),
        _stop_sagemaker("TrainingJob", "stop_training_job"),
    ),
    "processing": Kind(
        "sagemaker",
        _sagemaker("ProcessingJob", "describe_processing_job", "ProcessingStartTime", "ProcessingEndTime"),
        _stop_sagemaker("ProcessingJob", "stop_processing_job"),
    ),
    "tuning": Kind(
        "sagemaker",
        _look_at_tuning,
        _stop_sagemaker("HyperParameterTuningJob", "stop_hyper_parameter_tuning_job"),
    ),
    "glue": Kind("glue", _look_at_glue, _stop_glue),
    "athena": Kind("athena", _look_at_athena, lambda client, ref: client.stop_query_execution(QueryExecutionId=ref)),
    "redshift": Kind("redshift-data", _look_at_redshift, lambda client, ref: client.cancel_statement(Id=ref)),
}
