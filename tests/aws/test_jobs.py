"""Jobs that are started once: every operator of ours, waiting and deferred, on a cloud that loses answers and stops jobs."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.providers.amazon.aws.operators.glue import GlueJobOperator
from airflow.providers.amazon.aws.operators.sagemaker import SageMakerTransformOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from include import ledger
from include.config import load_model
from include.platforms import costs, remote_jobs
from include.platforms.aws import jobs, requests, tables
from include.platforms.aws.settings import AwsSettings
from include.platforms.base import JobFailed
from tests.aws.places import BUCKET, IMAGES, ROLE, TRIAL_IMAGE, Place
from tests.dag_runs import states
from tests.dags.lakes import MODEL
from tests.localcloud.cloud import LocalCloud
from tests.remote_jobs import both_ways, context, failing, handed_over, triggered, until

pytestmark = pytest.mark.localcloud

KINDS = ("processing", "training", "transform", "glue", "athena", "redshift")
OPERATORS: dict[str, Any] = {
    "processing": jobs.ProcessingJob,
    "training": jobs.TrainingJob,
    "transform": jobs.TransformJob,
    "glue": jobs.GlueJob,
    "athena": jobs.AthenaQuery,
    "redshift": jobs.RedshiftStatements,
}
# Service and operation that start a job, and those that look at it.
STARTS = {
    "processing": ("sagemaker", "CreateProcessingJob"),
    "training": ("sagemaker", "CreateTrainingJob"),
    "transform": ("sagemaker", "CreateTransformJob"),
    "glue": ("glue", "StartJobRun"),
    "athena": ("athena", "StartQueryExecution"),
    "redshift": ("redshift-data", "BatchExecuteStatement"),
}
LOOKS = {
    "processing": "DescribeProcessingJob",
    "training": "DescribeTrainingJob",
    "transform": "DescribeTransformJob",
    "glue": "GetJobRun",
    "athena": "GetQueryExecution",
    "redshift": "DescribeStatement",
}
STATES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("processing", "training", "transform"), jobs.SAGEMAKER_STATES),
    "glue": jobs.GLUE_STATES,
    "athena": jobs.ATHENA_STATES,
    "redshift": jobs.REDSHIFT_STATES,
}
NETWORK = {"subnets": "subnet-1,subnet-2", "security_groups": "sg-1"}
KEY = "arn:aws:kms:us-east-1:123456789012:key/12345678-1234-1234-1234-123456789012"
STOPPED = r"(?i)stopped|cancelled|aborted|timeout"
numbers = itertools.count(1)

each_kind = pytest.mark.parametrize("kind", KINDS)


@dataclass
class Room:
    """A place where a test has its jobs, and one request for each kind of them."""

    place: Place
    patch: pytest.MonkeyPatch
    names: dict[str, str] = field(default_factory=dict)

    def request(self, kind: str) -> dict[str, Any]:
        made = self._request(kind)
        self.names[kind] = made["name"]
        return made

    def _request(self, kind: str) -> dict[str, Any]:
        model, lake = load_model(MODEL), self.place.lake
        run = {"partition": "2013-02-01", "run_id": "manual__jobs", "workspace": "0" * 16}
        folder = f"{lake}/staging/jobs"
        if kind == "processing":
            request = requests.processing(model, "inspect", run, folder, {"rows": self.put("rows/rows.txt", b"a\nb\n")}, {})
            request["config"]["AppSpecification"]["ContainerEntrypoint"] = IMAGES[TRIAL_IMAGE]["entrypoint"]
            return request
        if kind == "training":
            return requests.training(model, run, folder, self.put("rows/rows.txt", b"a\nb\n"), {})
        if kind == "transform":
            self.put("lines/one.gz", gzip.compress(b"a\nbb\n"))
            name = f"trial-{self.place.name}".replace("_", "-")
            known, trial = self.place.client("sagemaker"), {"Image": TRIAL_IMAGE}
            if not known.list_models(NameContains=name)["Models"]:
                known.create_model(ModelName=name, ExecutionRoleArn=ROLE, PrimaryContainer=trial)
            return requests.transform(model, "score", run, name, f"{lake}/lines", f"{folder}/scores", "lines")
        if kind == "glue":
            script = self.put("code/quick.py", b"print('done')\n")
            return {**requests.glue(model, "sort", run, "glue_snapshot.py", f"{folder}/sorted", {"--key": "a"}), "script": script}
        if kind == "athena":
            return requests.query(model, "counts", run, "SELECT 1 AS one", self.place.name)
        return {
            "name": remote_jobs.job_name(model, "load", "2013-02-01", {"of": lake}, 52),
            "statements": ["SELECT 1", "SELECT 2"],
        }

    def put(self, name: str, content: bytes) -> str:
        self.place.client("s3").put_object(Bucket=BUCKET, Key=f"{self.place.name}/{name}", Body=content)
        return f"{self.place.lake}/{name}"

    def operator(self, kind: str, request: dict[str, Any] | None = None, after: Any = ()) -> Any:
        """An operator as a worker has it when its templates are rendered."""
        made = OPERATORS[kind](task_id="job", model=load_model(MODEL), step=kind, request={})
        made.request, made.after = self.request(kind) if request is None else request, list(after)
        return made

    def ends(self, operator: Any) -> dict[str, Any]:
        """A try from its beginning to its end; deferred it goes on in a triggerer, and ends in another worker."""
        try:
            found: dict[str, Any] = operator.execute(context())
        except TaskDeferred as deferred:
            event = triggered(deferred.trigger)
            found = getattr(self.operator(operator.kind, operator.request), deferred.method_name)(context(), event.payload)
        return found

    def tried(self, kind: str) -> dict[str, Any]:
        return self.ends(self.operator(kind))

    def started(self, kind: str) -> list[dict[str, Any]]:
        """The jobs of this room that the cloud was asked for: requests, in the order of the ledger of the cloud."""
        service, operation = STARTS[kind]
        asked = [call["params"] for call in self.place.cloud.calls(service, operation=operation)]
        ids = self._ids(kind, asked)
        return [job for job in self.place.cloud.jobs() if job["service"] == service and job["name"] in ids]

    def states(self, kind: str) -> list[str]:
        return [job["state"] for job in self.started(kind)]

    def _ids(self, kind: str, asked: list[dict[str, Any]]) -> set[str]:
        """What the cloud calls the jobs of our names. Asked again with the same token, it gives the same answer."""
        own, client = self.names[kind], self.place.client(STARTS[kind][0])
        if kind == "glue":
            known = {
                params["JobName"] for params in asked if params.get("Arguments", {}).get("--aileron_job", "").startswith(own)
            }
            runs = [run for name in known for run in client.get_job_runs(JobName=name)["JobRuns"]]
            return {run["Id"] for run in runs if run.get("Arguments", {}).get("--aileron_job", "").startswith(own)}
        if kind == "athena":
            mine = f"{self.place.lake}/athena/{MODEL}"
            ours = [params for params in asked if params.get("ResultConfiguration", {}).get("OutputLocation") == mine]
            tokens = {params["ClientRequestToken"]: params for params in ours}
            return {client.start_query_execution(**params)["QueryExecutionId"] for params in tokens.values()}
        if kind == "redshift":
            ours = [params for params in asked if params.get("StatementName", "").startswith(own)]
            tokens = {params["ClientToken"]: params for params in ours}
            return {client.batch_execute_statement(**params)["Id"] for params in tokens.values()}
        names = {params[f"{kind.title()}JobName"] for params in asked}
        return {name for name in names if name.startswith(own)}

    def fault(self, what: str, kind: str, operation: str = "", **more: Any) -> None:
        service, start = STARTS[kind]
        self.place.cloud.fault(what, service, operation or start, **more)

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record.body for record in ledger.read(kind, MODEL)]


@pytest.fixture
def room(cloud: LocalCloud, quick_models: Any) -> Iterator[Room]:
    place = Place(cloud, quick_models, f"jobs_{next(numbers)}", registry="jobs", image=TRIAL_IMAGE)
    place.client("glue").create_database(DatabaseInput={"Name": place.name})
    redshift = {"redshift_workgroup": "jobs", "redshift_role": "arn:aws:iam::123456789012:role/redshift"}
    with place.settings(deferrable="false", max_job_hours="1", **redshift) as patch:
        yield Room(place, patch)
    cloud.forget_faults()


@each_kind
@both_ways
def test_a_job_is_started_once_and_billed_once(room: Room, kind: str, deferrable: str) -> None:
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    first = room.tried(kind)
    assert room.tried(kind) == first, "tried again, what was done is found"
    assert room.states(kind) == ["Completed"]
    (asked,), (paid,) = room.records("remote_job"), room.records("remote_cost")
    assert asked["job"] == paid["job"] == first["job"] and asked["run_id"] == "manual__jobs" and asked["estimate"] >= 0
    assert paid["seconds"] == first["seconds"] and paid["cost"] == pytest.approx(first["cost"], abs=1e-6)


@each_kind
@both_ways
def test_a_job_that_runs_is_adopted(room: Room, kind: str, deferrable: str) -> None:
    """The worker is gone; the next one waits for the same job."""
    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    room.fault("hang", kind)
    with pytest.raises(TaskDeferred) as lost:
        room.operator(kind).execute(context())
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    again = room.operator(kind)
    if deferrable == "true":
        with pytest.raises(TaskDeferred) as deferred:
            again.execute(context())
        ours, theirs = deferred.value.trigger.serialize()[1], lost.value.trigger.serialize()[1]
        assert (ours["name"], ours["ref"]) == (theirs["name"], theirs["ref"])
    else:
        waiting = failing(again)
        assert until(lambda: bool(again.ref)) and waiting.is_alive()
    assert until(lambda: room.states(kind) == ["Running"])
    again.on_kill()
    if deferrable == "false":
        waiting.join(20)
        assert not waiting.is_alive()
    assert until(lambda: room.states(kind) == ["Stopped"])


@each_kind
@both_ways
@pytest.mark.parametrize("how", ["fail", "stop"])
def test_what_failed_or_was_stopped_is_no_success_and_is_tried_anew(room: Room, kind: str, deferrable: str, how: str) -> None:
    """A job that was stopped was taken for a success by the provider: https://github.com/apache/airflow/pull/42423,
    https://github.com/apache/airflow/issues/67281, and a transform that failed too: https://github.com/apache/airflow/pull/69042
    """
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    room.fault(how, kind, reason="ClientError: no such rows")
    with pytest.raises(JobFailed, match="no such rows" if how == "fail" else STOPPED):
        room.tried(kind)
    result = room.tried(kind)
    assert result["job"].endswith("-2")
    assert room.states(kind) == ["Failed" if how == "fail" else "Stopped", "Completed"]
    assert len(room.records("remote_cost")) == 2, "what failed was billed too"


@pytest.mark.parametrize("kind", ["processing", "training", "transform", "glue"])
def test_a_job_that_is_being_stopped_is_waited_for(room: Room, kind: str) -> None:
    """Its output must not come after that of the next: the new attempt is made when the old one is over."""
    made = room.operator(kind)
    running, stopping = "InProgress" if kind != "glue" else "RUNNING", "Stopping" if kind != "glue" else "STOPPING"
    room.patch.setitem(STATES[kind], running, "stopping")
    room.fault("hang", kind)
    waited = failing(made)
    assert until(lambda: room.states(kind) == ["Running"])
    next_try = room.operator(kind)
    results: list[Any] = []
    second = threading.Thread(target=lambda: results.append(next_try.execute(context())))
    second.start()
    assert until(lambda: bool(next_try.ref)), "it has looked"
    assert room.states(kind) == ["Running"] and second.is_alive(), "nothing is started before the other is over"
    room.patch.setitem(STATES[kind], running, "running")
    assert stopping in STATES[kind]
    made.on_kill()
    for thread in (waited, second):
        thread.join(30)
    assert room.states(kind) == ["Stopped", "Completed"] and results[0]["job"].endswith("-2")


@each_kind
def test_a_state_that_is_not_known_is_a_failure_and_starts_nothing(room: Room, kind: str) -> None:
    room.fault("hang", kind)
    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    first = room.operator(kind)
    with pytest.raises(TaskDeferred):
        first.execute(context())
    for name in [name for name, state in STATES[kind].items() if state == "running"]:
        room.patch.delitem(STATES[kind], name)
    with pytest.raises(JobFailed, match="is not known; nothing was started"):
        room.tried(kind)
    assert len(room.started(kind)) == 1


@each_kind
@both_ways
def test_an_answer_that_is_lost_does_not_start_a_second_job(room: Room, kind: str, deferrable: str) -> None:
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    room.fault("lose_response", kind)
    assert room.tried(kind)["job"].endswith("-1")
    assert room.states(kind) == ["Completed"] and len(room.records("remote_job")) == 1


@each_kind
@pytest.mark.parametrize("fault", ["throttle", "error"])
def test_a_service_that_is_busy_is_asked_again(room: Room, kind: str, fault: str) -> None:
    """The start of a Glue run has no name by which it could be asked again at once: the task fails, and its next try asks."""
    room.fault(fault, kind, status=503) if fault == "error" else room.fault(fault, kind)
    room.fault(fault, kind, LOOKS[kind], times=2)
    if kind == "glue":
        with pytest.raises(Exception, match=r"(?i)rate exceeded|asked for"):
            room.tried(kind)
        assert room.started(kind) == []
    assert room.tried(kind)["job"].endswith("-1")
    assert room.states(kind) == ["Completed"]


@each_kind
def test_a_task_that_is_killed_stops_its_job(room: Room, kind: str) -> None:
    """No SageMaker operator of the provider has an on_kill."""
    room.fault("hang", kind)
    made = room.operator(kind)
    task = failing(made)
    assert until(lambda: room.states(kind) == ["Running"])
    made.on_kill()
    task.join(20)
    assert not task.is_alive() and room.states(kind) == ["Stopped"]
    assert [job["stops"] for job in room.started(kind)] == [1]


@each_kind
def test_a_task_that_is_killed_while_deferred_stops_its_job(room: Room, kind: str) -> None:
    """Deferred tasks of the provider leave their jobs running: https://github.com/apache/airflow/issues/36090"""
    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    room.fault("hang", kind)
    with pytest.raises(TaskDeferred) as deferred:
        room.operator(kind).execute(context())
    asyncio.run(handed_over(deferred.value.trigger).on_kill())
    assert until(lambda: room.states(kind) == ["Stopped"])
    with pytest.raises(JobFailed, match=STOPPED):
        room.operator(kind).finish(context(), triggered(deferred.value.trigger).payload)
    asyncio.run(handed_over(deferred.value.trigger).on_kill())  # cleared once more, it is over already
    assert [job["stops"] for job in room.started(kind)] == [1]


@each_kind
@both_ways
def test_a_job_that_takes_too_long_is_stopped_and_the_task_fails(room: Room, kind: str, deferrable: str) -> None:
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    room.patch.setattr(AwsSettings, "most_seconds", 1)
    room.fault("hang", kind)
    began = time.monotonic()
    with pytest.raises(JobFailed, match=STOPPED):
        room.tried(kind)
    assert time.monotonic() - began < 15 and room.states(kind) == ["Stopped"]


@each_kind
def test_a_job_that_would_cost_too_much_is_not_submitted(room: Room, kind: str) -> None:
    room.patch.setenv("AILERON_AWS_MAX_JOB_COST", "0")
    made = room.operator(kind)
    if kind == "redshift":
        pytest.skip("Redshift Serverless is billed by the workgroup")
    room.place.cloud.forget_calls()
    with pytest.raises(costs.TooExpensive, match="it was not submitted"):
        made.execute(context())
    assert room.records("remote_job") == room.records("remote_cost") == []
    assert [call["operation"] for call in room.place.cloud.calls(mutating=True)] == []


def test_a_machine_without_a_price_is_not_rented(room: Room) -> None:
    room.patch.setenv("AILERON_AWS_INSTANCE", "ml.x99.huge")
    with pytest.raises(costs.TooExpensive, match="not in the price book"):
        room.tried("processing")
    assert room.started("processing") == []


def test_what_past_jobs_took_is_the_estimate_of_the_next(room: Room) -> None:
    assert costs.expected_seconds(MODEL, "processing") == costs.EXPECTED_SECONDS
    room.tried("processing")
    assert 0 < costs.expected_seconds(MODEL, "processing") < 60


@each_kind
def test_what_a_job_builds_on_was_made_again_so_it_is_another_job(room: Room, kind: str) -> None:
    request = room.request(kind)
    first = room.ends(room.operator(kind, request, after=["one"]))
    assert room.ends(room.operator(kind, request, after=["one"]))["job"] == first["job"]
    assert room.ends(room.operator(kind, request, after=["two"]))["job"] != first["job"]


def test_nothing_to_do_is_skipped(room: Room) -> None:
    made = room.operator("athena")
    made.request = {}
    with pytest.raises(AirflowSkipException):
        made.execute(context())


def test_a_table_that_is_gone_is_made_again(room: Room) -> None:
    """What an execution has made can be taken away; its success does not bring it back."""
    model, run = load_model(MODEL), {"partition": "2013-02-01", "run_id": "manual__jobs"}
    table = {"name": "made", "location": f"{room.place.lake}/staging/made/{{job}}"}
    sql = tables.create_as(table, "SELECT 1 AS a")
    request = requests.query(model, "features", run, sql, "reads", table)
    first = room.ends(room.operator("athena", request))
    assert room.ends(room.operator("athena", request)) == first
    room.place.client("glue").delete_table(DatabaseName=room.place.name, Name="made")
    second = room.ends(room.operator("athena", request))
    assert second["job"].endswith("-2") and room.place.ask('SELECT a FROM "made"') == [["1"]]


@each_kind
def test_every_request_has_tags_a_key_a_network_and_a_time_limit(room: Room, kind: str) -> None:
    """Transforms, statements of Athena and of Redshift have no limit of their own: whoever waits for them stops them."""
    for name, value in {"kms_key": KEY, "glue_security": "keys", "cost_center": "cc-1", **NETWORK}.items():
        room.patch.setenv(f"AILERON_AWS_{name.upper()}", value)
    room.tried(kind)
    asked = [call for call in room.place.cloud.calls() if call["operation"] == STARTS[kind][1]][-1]["params"]
    if kind in ("processing", "training", "transform"):
        tags = {tag["Key"]: tag["Value"] for tag in asked["Tags"]}
        assert tags.keys() >= {"owner", "model", "run", "environment", "cost-center"} and tags["cost-center"] == "cc-1"
        keys = [value for name, value in members(asked) if name in ("KmsKeyId", "VolumeKmsKeyId")]
        assert keys == [KEY, KEY], "of the output and of the disks"
    if kind in ("processing", "training"):
        assert asked["StoppingCondition"]["MaxRuntimeInSeconds"] == 3600
        network = asked.get("VpcConfig") or asked["NetworkConfig"]["VpcConfig"]
        assert network == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    if kind == "glue":
        glue = room.place.client("glue")
        made = glue.get_job(JobName=asked["JobName"])["Job"]
        tags = glue.get_tags(ResourceArn=f"arn:aws:glue:us-east-1:123456789012:job/{asked['JobName']}")["Tags"]
        assert made["Timeout"] == 60 and tags["cost-center"] == "cc-1" and made["SecurityConfiguration"] == "keys"
    if kind == "athena":
        assert asked["ResultConfiguration"]["EncryptionConfiguration"] == {"EncryptionOption": "SSE_KMS", "KmsKey": KEY}


def members(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for each, below in value.items():
            yield from members(below, each)
    elif isinstance(value, list):
        for below in value:
            yield from members(below, name)
    else:
        yield name, value


def test_a_task_that_airflow_ends_stops_its_job_and_its_retry_makes_another(room: Room, airflow_database: None) -> None:
    """As Airflow does it: SIGTERM, and another try."""
    folder = Path(__file__).parent / "dags"
    bundle = {"name": "jobs", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(folder)}}
    room.patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    room.fault("hang", "processing")
    request, before = room.request("processing"), signal.getsignal(signal.SIGTERM)

    def end() -> None:
        if until(lambda: room.states("processing") == ["Running"], 60):
            os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    try:
        dag = DagBag(str(folder), bundle_path=folder, bundle_name="jobs").dags["remote_job"]
        run = dag.test(run_conf={"request": request})
    finally:
        ending.join(60)
        signal.signal(signal.SIGTERM, before)
    assert run.state == "success", states(run)
    assert room.states("processing") == ["Stopped", "Completed"] and room.started("processing")[0]["stops"] == 1
    assert run.get_task_instance("job").xcom_pull(task_ids="job")["job"].endswith("-2")


# What the provider's own operators do on the same cloud.


def provided_transform(room: Room, **arguments: Any) -> SageMakerTransformOperator:
    config = remote_jobs.filled(room.request("transform")["config"], "provided")
    name = f"provided-{room.place.name}".replace("_", "-")
    return SageMakerTransformOperator(
        task_id="provided", config={**config, "TransformJobName": name}, check_interval=1, aws_conn_id="aws_default", **arguments
    )


def jobs_named(room: Room, start: str) -> list[dict[str, Any]]:
    return [job for job in room.place.cloud.jobs() if job["name"].startswith(start.replace("_", "-"))]


def test_the_provider_takes_a_stopped_transform_for_a_success(room: Room) -> None:
    """https://github.com/apache/airflow/pull/69042 is one of its kind; without deferral it is so to this day."""
    room.fault("stop", "transform")
    result = provided_transform(room, deferrable=False).execute(context())
    assert result["Transform"]["TransformJobStatus"] == "Stopped"
    room.fault("stop", "transform")
    with pytest.raises(JobFailed, match="Stopped"):
        room.tried("transform")


@both_ways
def test_a_transform_that_failed_while_its_task_was_deferred_is_a_failure(room: Room, deferrable: str) -> None:
    """https://github.com/apache/airflow/pull/69042: the failed job was a green task."""
    room.patch.setenv("AILERON_AWS_DEFERRABLE", deferrable)
    room.fault("fail", "transform", reason="AlgorithmError: the rows are wrong")
    with pytest.raises(JobFailed, match="the rows are wrong"):
        room.tried("transform")


def test_the_provider_starts_a_second_transform_where_ours_is_adopted(room: Room) -> None:
    """A task that is cleared or tried again: https://github.com/apache/airflow/issues/39502,
    https://github.com/apache/airflow/issues/21941"""
    for _ in range(2):
        provided_transform(room, deferrable=False).execute(context())
        room.tried("transform")
    assert [job["state"] for job in jobs_named(room, f"provided-{room.place.name}")] == ["Completed", "Completed"]
    assert room.states("transform") == ["Completed"]


def test_the_name_of_a_job_is_the_same_after_it_was_deferred(room: Room) -> None:
    """Names were rendered anew when the task came back, and the model was not found:
    https://github.com/apache/airflow/issues/39503"""
    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    with pytest.raises(TaskDeferred) as deferred:
        room.operator("transform").execute(context())
    event = triggered(deferred.value.trigger)
    found = room.operator("transform").finish(context(), event.payload)
    assert event.payload["name"] == found["job"] == room.started("transform")[0]["name"]
    assert found["output"].endswith(f"/{found['job']}")


def test_the_provider_starts_a_second_glue_run_where_ours_is_adopted(room: Room) -> None:
    """https://github.com/apache/airflow/issues/59075, https://github.com/apache/airflow/issues/62353: the first run goes on,
    and the retry starts another."""
    request = room.request("glue")

    def provided() -> Any:
        return GlueJobOperator(
            task_id="provided",
            job_name=f"provided-{room.place.name}",
            script_location=request["script"],
            iam_role_arn=ROLE,
            create_job_kwargs={**request["job_settings"]},
            concurrent_run_limit=5,
            wait_for_completion=True,
            deferrable=True,
        )

    room.fault("hang", "glue", times=3)
    for _ in range(2):
        with pytest.raises(TaskDeferred):
            provided().execute(context())
    runs = room.place.client("glue").get_job_runs(JobName=f"provided-{room.place.name}")["JobRuns"]
    assert [run["JobRunState"] for run in runs].count("RUNNING") + [run["JobRunState"] for run in runs].count("STARTING") == 2
    room.place.client("glue").batch_stop_job_run(JobName=f"provided-{room.place.name}", JobRunIds=[run["Id"] for run in runs])

    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    for _ in range(2):
        made = room.operator("glue")
        with pytest.raises(TaskDeferred):
            made.execute(context())
    assert len(room.started("glue")) == 1
    made.on_kill()


def test_a_deferred_query_of_the_provider_goes_on_when_its_task_is_killed_and_ours_is_stopped(room: Room) -> None:
    """https://github.com/apache/airflow/issues/36090"""
    room.fault("hang", "athena", times=2)
    where = f"{room.place.lake}/athena/provided"
    provided = AthenaOperator(
        task_id="provided", query="SELECT 2 AS two", database=room.place.name, output_location=where, deferrable=True
    )
    with pytest.raises(TaskDeferred) as deferred:
        provided.execute(context())
    asyncio.run(deferred.value.trigger.on_kill())
    execution = provided.query_execution_id or deferred.value.trigger.serialize()[1]["query_execution_id"]
    athena = room.place.client("athena")
    time.sleep(0.5)
    state = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]["State"]
    assert state in ("QUEUED", "RUNNING"), "nobody has stopped it"
    athena.stop_query_execution(QueryExecutionId=execution)

    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    with pytest.raises(TaskDeferred) as ours:
        room.operator("athena").execute(context())
    asyncio.run(ours.value.trigger.on_kill())
    assert until(lambda: room.states("athena") == ["Stopped"])


def test_results_are_handed_on_once_however_often_a_task_was_deferred(room: Room) -> None:
    """https://github.com/apache/airflow/issues/65011: the same keys were written before and after a deferral. A try of ours
    leaves its result and nothing else of its own; what it links to is written by the worker that has started the job."""
    room.patch.setenv("AILERON_AWS_DEFERRABLE", "true")
    first = context()
    with pytest.raises(TaskDeferred) as deferred:
        room.operator("glue").execute(first)
    second = context()
    room.operator("glue").finish(second, triggered(deferred.value.trigger).payload)
    written = [[call.kwargs["key"] for call in each["ti"].xcom_push.call_args_list] for each in (first, second)]
    assert len(set(written[0])) == len(written[0]) and written[1] == []
