"""Faults of the local cloud: what is asked for goes wrong, once, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectionClosedError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import model, put, training, waited

pytestmark = pytest.mark.localcloud


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


def test_a_throttled_call_is_done_the_next_time(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    cloud.fault("throttle", "sagemaker", "CreateModel", match="^fli", times=2)
    client.create_model(**model("other"))
    for _ in range(2):
        with pytest.raises(ClientError) as caught:
            client.create_model(**model("flights"))
        assert caught.value.response["Error"]["Code"] == "ThrottlingException"
        assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 429
    client.create_model(**model("flights"))
    assert cloud.faults() == []


def test_clients_try_again_by_themselves(cloud: LocalCloud) -> None:
    import boto3

    session = boto3.session.Session("test", "test", region_name="us-east-1")
    cloud.fault("throttle", "sagemaker", "ListModels")
    assert session.client("sagemaker", endpoint_url=cloud.url).list_models()["Models"] == []
    cloud.fault("error", "s3", status=503)
    assert session.client("s3", endpoint_url=cloud.url).list_buckets()["Buckets"] == []
    assert [call["status"] for call in cloud.calls()] == [429, 200, 503, 200]


@pytest.mark.parametrize("status", [500, 503])
def test_an_error_of_the_service(cloud: LocalCloud, status: int) -> None:
    cloud.fault("error", "sagemaker", status=status)
    client = cloud.client("sagemaker")
    with pytest.raises(ClientError) as caught:
        client.create_model(**model("flights"))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert client.list_models()["Models"] == []


def test_a_lost_response_has_been_accepted(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    cloud.fault("lose_response", "sagemaker", "CreateTrainingJob")
    with pytest.raises(ConnectionClosedError):
        client.create_training_job(**training("job"))
    assert [job["name"] for job in cloud.jobs()] == ["job"]
    assert cloud.calls()[0]["status"] == 0
    with pytest.raises(ClientError, match="ResourceInUse"):
        client.create_training_job(**training("job"))


def test_a_delayed_answer(cloud: LocalCloud) -> None:
    cloud.fault("delay", "sagemaker", seconds=0.5)
    begin = time.monotonic()
    cloud.client("sagemaker").list_models()
    assert time.monotonic() - begin >= 0.5


def test_the_next_job_fails_for_a_reason(cloud: LocalCloud) -> None:
    put(cloud.client("s3"))
    client = cloud.client("sagemaker")
    cloud.fault("fail", "sagemaker", match="^bad", reason="InternalServerError: We encountered an internal error")
    client.create_training_job(**training("good"))
    client.create_training_job(**training("bad-1"))
    client.create_training_job(**training("bad-2"))
    assert waited(client, "Training", "bad-1")["FailureReason"] == "InternalServerError: We encountered an internal error"
    assert waited(client, "Training", "good")["TrainingJobStatus"] == "Completed"
    assert waited(client, "Training", "bad-2")["TrainingJobStatus"] == "Completed"


def test_the_next_job_hangs_until_it_is_stopped(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    cloud.fault("hang", "sagemaker", "CreateTrainingJob")
    client.create_training_job(**training("job"))
    time.sleep(1)
    assert client.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "InProgress"
    client.stop_training_job(TrainingJobName="job")
    assert waited(client, "Training", "job")["TrainingJobStatus"] == "Stopped"


def test_the_next_job_is_stopped_by_somebody(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    cloud.fault("stop", "sagemaker", "CreateTrainingJob")
    client.create_training_job(**training("job"))
    assert waited(client, "Training", "job")["TrainingJobStatus"] == "Stopped"
    assert cloud.jobs()[0]["stops"] == 0


@pytest.mark.parametrize(("when", "made"), [("before", []), ("after", ["flights"])])
def test_a_worker_is_killed_at_a_call(cloud: LocalCloud, worker: subprocess.Popen[bytes], when: str, made: list[str]) -> None:
    client = cloud.client("sagemaker")
    cloud.fault("kill", "sagemaker", "CreateModel", pid=worker.pid, when=when)
    with pytest.raises(ConnectionClosedError):
        client.create_model(**model("flights"))
    assert worker.wait(10) == -9
    assert [each["ModelName"] for each in client.list_models()["Models"]] == made


def test_a_worker_is_killed_once_at_each_boundary(cloud: LocalCloud) -> None:
    """The harness of a crash test: start the worker again until it gets through."""
    client = cloud.client("sagemaker")
    put(cloud.client("s3"))
    kills = 0
    cloud.fault("kill", pid=4_000_000, each_boundary=True)
    for _ in range(10):
        worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        cloud.move_kills(worker.pid)
        try:
            _work(client, cloud.client("s3"), f"flights-2013040{kills}")
        except ConnectionClosedError:
            assert worker.wait(10) == -9
            kills += 1
        else:
            assert worker.poll() is None
            worker.kill()
            worker.wait()
            break
    assert kills == 4
    met = [(each["operation"], each["subject"], each["when"]) for each in cloud.boundaries()]
    assert met == [
        ("PutObject", "lake/day=--/a", "before"),
        ("PutObject", "lake/day=--/a", "after"),
        ("CreateModel", "flights-", "before"),
        ("CreateModel", "flights-", "after"),
    ]


def _work(client: Any, s3: Any, name: str) -> None:
    s3.put_object(Bucket="lake", Key="day=2013-04-01/a", Body=b"1")
    client.create_model(**model(name))
    client.list_models()


@pytest.mark.parametrize(
    ("kind", "more", "told"),
    [
        ("explode", {}, "kind must be one of"),
        ("kill", {"pid": 1, "when": "before"}, "pid must be that of another process"),
        ("kill", {"pid": 4_000_000}, "when must be before or after"),
        ("throttle", {"colour": "red"}, "a fault has no colour"),
        ("throttle", {"match": "("}, "unterminated subpattern"),
    ],
)
def test_faults_that_are_none(cloud: LocalCloud, kind: str, more: dict[str, Any], told: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        cloud.fault(kind, **more)
    assert told in caught.value.read().decode()
    assert cloud.faults() == []
