"""Flex templates of the local Dataflow: programs that really run, by the hooks and operators of the provider."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from googleapiclient.errors import HttpError

from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud
from tests.localcloud.gcp.conftest import AsClient
from tests.localcloud.gcp.vertex_requests import PIPELINE, images, log, put, waited_for

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

TEMPLATE = "gs://lake/templates/upper.json"
PARAMETERS = [
    {"name": "source", "label": "Source", "helpText": "What is read", "regexes": ["gs://.+"]},
    {"name": "target", "label": "Target", "helpText": "What is written", "paramType": "TEXT"},
    *({"name": name, "label": name, "helpText": name, "isOptional": True} for name in ("behave", "beam")),
]
GIVEN = {"source": "gs://lake/in/a.txt", "target": "gs://lake/out/upper"}


@pytest.fixture(scope="module")
def running(running_google: GoogleCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("dataflow"), images(), stop_seconds=2) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: GoogleCloud, as_client: AsClient) -> Iterator[GoogleCloud]:
    running.reset()
    as_client(running)
    put(running.bucket("lake"), **{"templates/upper.json": spec(), "in/a.txt": "one\ntwo\n"})
    yield running
    assert running.refused_hosts() == []


@pytest.fixture
def hook(cloud: GoogleCloud) -> Any:
    return made_hook()


def made_hook(**more: Any) -> Any:
    from airflow.providers.google.cloud.hooks.dataflow import DataflowHook

    return DataflowHook(poll_sleep=1, **more)


def spec(**more: Any) -> str:
    metadata = {"name": "upper", "description": "Upper case", "parameters": PARAMETERS}
    return json.dumps({"image": PIPELINE, "sdkInfo": {"language": "PYTHON"}, "metadata": metadata, **more})


def launch(hook: Any, name: str = "upper", *, environment: dict[str, Any] | None = None, **parameters: str) -> Any:
    body = {
        "launchParameter": {
            "jobName": name,
            "containerSpecGcsPath": TEMPLATE,
            "parameters": {**GIVEN, **parameters},
            "environment": environment or {},
        }
    }
    return hook.launch_job_with_flex_template(body=body, location=REGION, project_id=PROJECT)


def jobs(hook: Any) -> Any:
    return hook.get_conn().projects().locations().jobs()


def got(hook: Any, key: str, **more: Any) -> Any:
    return jobs(hook).get(projectId=PROJECT, location=REGION, jobId=key, **more).execute()


def ended(hook: Any, key: str, seconds: float = 30) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job = got(hook, key)
        if job["currentState"] in ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"):
            return job
        time.sleep(0.1)
    raise AssertionError(job)


def told(hook: Any, key: str) -> list[str]:
    return [f"{each['messageImportance'].removeprefix('JOB_MESSAGE_')}: {each['messageText']}" for each in messages(hook, key)]


def messages(hook: Any, key: str, **more: Any) -> list[dict[str, Any]]:
    asked = jobs(hook).messages().list(projectId=PROJECT, location=REGION, jobId=key, **more)
    found: list[dict[str, Any]] = asked.execute().get("jobMessages", [])
    return found


def test_a_template_runs_with_its_parameters(cloud: GoogleCloud, hook: Any) -> None:
    settings = {
        "tempLocation": "gs://lake/tmp",
        "machineType": "n1-standard-2",
        "numWorkers": 2,
        "additionalUserLabels": {"team": "ml"},
    }
    job = launch(hook, environment=settings)
    assert (job["name"], job["projectId"], job["location"]) == ("upper", PROJECT, REGION)
    assert job["currentState"] == "JOB_STATE_QUEUED"
    done = ended(hook, job["id"])
    assert done["currentState"] == "JOB_STATE_DONE"
    assert (done["type"], done["labels"]) == ("JOB_TYPE_BATCH", {"team": "ml"})
    assert done["createTime"] <= done["startTime"] <= done["currentStateTime"]
    (line,) = log(cloud, "upper").splitlines()
    assert json.loads(line.removeprefix("options: ")) == [
        "--runner=FnApiRunner",
        f"--project={PROJECT}",
        f"--region={REGION}",
        "--job_name=upper",
        "--temp_location=gs://lake/tmp",
    ]
    (billed,) = cloud.jobs()
    assert (billed["service"], billed["kind"], billed["name"]) == ("dataflow", "dataflow-job", "upper")
    assert (billed["instance_type"], billed["instance_count"], billed["tags"]) == ("n1-standard-2", 2, {"team": "ml"})
    assert told(hook, job["id"])[-1] == "BASIC: The job is JOB_STATE_DONE."


def test_a_pipeline_of_beam_reads_and_writes_buckets(cloud: GoogleCloud, hook: Any) -> None:
    job = ended(hook, launch(hook, beam="yes", environment={"tempLocation": "gs://lake/tmp"})["id"], 90)
    assert job["currentState"] == "JOB_STATE_DONE", log(cloud, "upper")
    from google.cloud import storage

    assert storage.Client(PROJECT).bucket("lake").blob("out/upper").download_as_text() == "ONE\nTWO\n"


def test_a_pipeline_that_fails_fails_its_job(cloud: GoogleCloud, hook: Any) -> None:
    job = ended(hook, launch(hook, behave="fail")["id"])
    assert job["currentState"] == "JOB_STATE_FAILED"
    (error,) = messages(hook, job["id"], minimumImportance="JOB_MESSAGE_ERROR")
    assert "exit code 5" in error["messageText"]
    assert "RuntimeError: a column is missing" in error["messageText"]


def test_a_job_is_cancelled_when_its_program_has_ended(cloud: GoogleCloud, hook: Any) -> None:
    key = launch(hook, behave="hang")["id"]
    waited_for(cloud, "upper", "options")
    cancel = jobs(hook).update(projectId=PROJECT, location=REGION, jobId=key, body={"requestedState": "JOB_STATE_CANCELLED"})
    cancel.execute()
    assert got(hook, key)["currentState"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    assert ended(hook, key)["currentState"] == "JOB_STATE_CANCELLED"
    with refused(400, "cannot be cancelled"):
        cancel.execute()


def test_the_hook_of_the_provider_cancels_by_name(cloud: GoogleCloud) -> None:
    hook = made_hook(cancel_timeout=20)
    key = launch(hook, behave="hang")["id"]
    waited_for(cloud, "upper", "options")
    hook.cancel_job(job_name="upper", project_id=PROJECT, location=REGION)
    assert got(hook, key)["currentState"] == "JOB_STATE_CANCELLED"


def test_an_active_job_keeps_its_name(cloud: GoogleCloud, hook: Any) -> None:
    first = launch(hook)
    with refused(409, "already an active job"):
        launch(hook)
    launch(hook, "other")
    ended(hook, first["id"])
    assert ended(hook, launch(hook)["id"])["currentState"] == "JOB_STATE_DONE"
    assert sorted(job["name"] for job in cloud.jobs("dataflow-job")) == ["other", "upper", "upper"]


def test_lists_are_filtered_and_turn_pages(cloud: GoogleCloud, hook: Any) -> None:
    done = ended(hook, launch(hook, "one")["id"])["id"]
    active = launch(hook, "two", behave="hang")["id"]

    def listed(**more: Any) -> list[str]:
        found, asked = [], jobs(hook).list(projectId=PROJECT, location=REGION, **more)
        while asked is not None:
            answer = asked.execute()
            found += [job["id"] for job in answer.get("jobs", [])]
            asked = jobs(hook).list_next(asked, answer)
        return found

    assert listed() == listed(pageSize=1) == listed(filter="ALL") == [active, done]
    assert listed(filter="ACTIVE") == [active]
    assert listed(filter="TERMINATED") == listed(name="one") == [done]
    assert listed(name="three") == []


def test_a_view_shows_what_it_is_of(cloud: GoogleCloud, hook: Any) -> None:
    key = launch(hook, environment={"tempLocation": "gs://lake/tmp"})["id"]
    assert "environment" not in got(hook, key)
    assert "environment" not in got(hook, key, view="JOB_VIEW_SUMMARY")
    environment = got(hook, key, view="JOB_VIEW_ALL")["environment"]
    assert environment["tempStoragePrefix"] == "gs://lake/tmp"
    assert environment["sdkPipelineOptions"]["options"] == GIVEN


def test_a_fault_fails_stops_or_hangs_a_job(cloud: GoogleCloud, hook: Any) -> None:
    launches = "projects.locations.flexTemplates.launch"
    cloud.fault("fail", "dataflow", launches, match="broken", reason="no worker was free")
    cloud.fault("stop", "dataflow", launches, match="stopped")
    cloud.fault("hang", "dataflow", launches, match="stuck")
    broken, stopped, stuck = (launch(hook, name)["id"] for name in ("broken", "stopped", "stuck"))
    assert ended(hook, broken)["currentState"] == "JOB_STATE_FAILED"
    assert "ERROR: no worker was free" in told(hook, broken)
    assert ended(hook, stopped)["currentState"] == "JOB_STATE_CANCELLED"
    assert got(hook, stuck)["currentState"] == "JOB_STATE_RUNNING"


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({"jobName": "Upper"}, 400, "job name"),
        ({"jobName": "upper-"}, 400, "job name"),
        ({"containerSpecGcsPath": "gs://lake/none.json"}, 404, "Unable to open template file"),
        ({"containerSpecGcsPath": "gs://lake/in/a.txt"}, 400, "not JSON"),
        ({"parameters": {"source": GIVEN["source"]}}, 400, "Missing required parameter: target"),
        ({"parameters": {**GIVEN, "more": "1"}}, 400, "Unrecognized parameter: more"),
        ({"parameters": {**GIVEN, "source": "s3://x"}}, 400, "does not match"),
        ({"environment": {"flexrsGoal": "FLEXRS_COST_OPTIMIZED"}}, 501, "flexrsGoal"),
        ({"environment": {"sdkContainerImage": "other:1"}}, 501, "sdkContainerImage"),
        ({"environment": {"tempLocation": "/tmp"}}, 400, "tempLocation"),
        ({"update": True}, 501, "launchParameter.update"),
        ({"launchOptions": {"a": "b"}}, 501, "launchParameter.launchOptions"),
    ],
)
def test_what_is_wrong_or_not_honoured_is_refused(
    cloud: GoogleCloud, hook: Any, changed: dict[str, Any], status: int, said: str
) -> None:
    parameter = {"jobName": "upper", "containerSpecGcsPath": TEMPLATE, "parameters": GIVEN, **changed}
    with refused(status, said):
        hook.launch_job_with_flex_template(body={"launchParameter": parameter}, location=REGION, project_id=PROJECT)
    assert cloud.jobs() == []


def test_another_place_or_job_is_refused(cloud: GoogleCloud, hook: Any) -> None:
    with refused(501, "europe-west1"):
        jobs(hook).list(projectId=PROJECT, location="europe-west1").execute()
    with refused(403, "another"):
        jobs(hook).list(projectId="another", location=REGION).execute()
    with refused(404, "could not be found"):
        got(hook, "2026-01-01_00_00_00-1")
    put(cloud_bucket(), **{"templates/upper.json": spec(image="nowhere:1")})
    with refused(400, r"nowhere:1"):
        launch(hook)
    key = launch_again(hook)
    with refused(501, "requestedState=JOB_STATE_DRAINED"):
        jobs(hook).update(projectId=PROJECT, location=REGION, jobId=key, body={"requestedState": "JOB_STATE_DRAINED"}).execute()


def test_the_operator_of_the_provider_waits_or_defers(cloud: GoogleCloud) -> None:
    from airflow.providers.common.compat.sdk import TaskDeferred
    from airflow.providers.google.cloud.operators.dataflow import DataflowStartFlexTemplateOperator

    def operator(name: str, **more: Any) -> Any:
        body = {"launchParameter": {"jobName": name, "containerSpecGcsPath": TEMPLATE, "parameters": GIVEN}}
        return DataflowStartFlexTemplateOperator(
            task_id="upper", body=body, location=REGION, project_id=PROJECT, poll_sleep=1, append_job_name=False, **more
        )

    done = operator("waits", wait_until_finished=True).execute({"ti": Pushed(), "task_instance": Pushed()})
    assert done["currentState"] == "JOB_STATE_DONE"
    with pytest.raises(TaskDeferred) as deferred:
        operator("defers", deferrable=True).execute({"ti": Pushed(), "task_instance": Pushed()})
    event = asyncio.run(first_event(deferred.value.trigger))
    assert event.payload["status"] == "success", event.payload


def test_jobs_survive_a_restart_and_those_that_ran_have_failed(
    running_google: GoogleCloud, as_client: AsClient, tmp_path: Any
) -> None:
    cloud = GoogleCloud(tmp_path / "restarted", images())
    with cloud:
        as_client(cloud)
        put(cloud.bucket("lake"), **{"templates/upper.json": spec()})
        hook = made_hook()
        done = ended(hook, launch(hook, "done")["id"])
        lost = launch(hook, "lost", behave="hang")["id"]
        waited_for(cloud, "lost", "options")
        assert cloud.process
        cloud.process.kill()
        cloud.process.wait()
    with cloud:
        as_client(cloud)
        hook = made_hook()
        assert got(hook, done["id"]) == done
        assert got(hook, lost)["currentState"] == "JOB_STATE_FAILED"
        assert told(hook, lost)[-1] == "ERROR: The local cloud ended while this job was running."


class Pushed:
    """Of a task instance, what the operator pushes to."""

    def xcom_push(self, **_: Any) -> None:
        """Nobody reads it."""


async def first_event(trigger: Any) -> Any:
    return await anext(trigger.run())


def cloud_bucket() -> Any:
    from google.cloud import storage

    return storage.Client(PROJECT).bucket("lake")


def launch_again(hook: Any) -> str:
    put(cloud_bucket(), **{"templates/upper.json": spec()})
    key: str = launch(hook, behave="hang")["id"]
    return key


def refused(status: int, said: str) -> Any:
    return pytest.raises(HttpError, match=rf"(?s){status}.*{said}")
