"""Training jobs of the local cloud: a program that really runs, under SageMaker's contract and states."""

from __future__ import annotations

import io
import json
import tarfile
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import got, keys, put, training, waited

pytestmark = pytest.mark.localcloud


def start(cloud: LocalCloud, name: str = "job", **more: Any) -> Any:
    client = cloud.client("sagemaker")
    client.create_training_job(**training(name, **more))
    return client


def members(archive: bytes) -> dict[str, str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {each.name: opened.extractfile(each).read().decode() for each in opened if each.isfile()}  # type: ignore[union-attr]


def test_a_training_reads_its_channel_and_leaves_a_model(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3, train__a="1\n2\n", train__deep__b="3\n")
    client = start(cloud, source="s3://lake/train", hyperparameters={"depth": "5"}, Tags=[{"Key": "run", "Value": "r1"}])
    told = waited(client, "Training", "job")

    assert told["TrainingJobStatus"] == told["SecondaryStatus"] == "Completed"
    assert told["ModelArtifacts"]["S3ModelArtifacts"] == "s3://lake/models/job/output/model.tar.gz"
    model = json.loads(members(got(s3, "models/job/output/model.tar.gz"))["model.json"])
    assert model == {"rows": 3, "hyperparameters": {"depth": "5"}}
    assert json.loads(members(got(s3, "models/job/output/output.tar.gz"))["result.json"]) == {"rows": 3}
    assert [(each["MetricName"], each["Value"]) for each in told["FinalMetricDataList"]] == [("validation:loss", 2.5)]
    steps = [each["Status"] for each in told["SecondaryStatusTransitions"]]
    assert steps == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert told["TrainingTimeInSeconds"] == told["BillableTimeInSeconds"] >= 1
    assert client.list_tags(ResourceArn=told["TrainingJobArn"])["Tags"] == [{"Key": "run", "Value": "r1"}]

    (job,) = cloud.jobs()
    assert (job["kind"], job["state"], job["instance_type"], job["instance_count"]) == (
        "training-job",
        "Completed",
        "ml.m5.large",
        1,
    )
    assert job["billed_seconds"] >= 1
    assert job["tags"] == {"run": "r1"}


def test_a_job_takes_the_time_that_it_is_told_to(cloud: LocalCloud) -> None:
    client = start(cloud)
    assert client.describe_training_job(TrainingJobName="job")["TrainingJobStatus"] == "InProgress"
    told = waited(client, "Training", "job")
    assert (told["TrainingEndTime"] - told["TrainingStartTime"]).total_seconds() >= 0.2


def test_a_program_is_given_the_environment_of_a_container_only(cloud: LocalCloud) -> None:
    client = start(cloud, Environment={"MINE": "1"})
    waited(client, "Training", "job")
    logs = cloud.client("logs")
    (stream,) = logs.describe_log_streams(logGroupName="/aws/sagemaker/TrainingJobs", logStreamNamePrefix="job/")["logStreams"]
    events = logs.get_log_events(logGroupName="/aws/sagemaker/TrainingJobs", logStreamName=stream["logStreamName"])["events"]
    assert stream["logStreamName"].startswith("job/algo-1-")
    (line,) = [event["message"] for event in events if event["message"].startswith("environment")]
    given = set(json.loads(line.removeprefix("environment: ").replace("'", '"')))
    assert given - {"LC_CTYPE"} == {
        "AWS_REGION", "HOME", "LANG", "MINE", "PATH", "SAGEMAKER_BASE_DIR", "TRAINING_JOB_ARN", "TRAINING_JOB_NAME",
    }  # fmt: skip


def test_what_a_failing_program_says_is_the_reason(cloud: LocalCloud) -> None:
    client = start(cloud, hyperparameters={"behave": "fail"})
    told = waited(client, "Training", "job")
    assert told["TrainingJobStatus"] == "Failed"
    assert told["FailureReason"].startswith("AlgorithmError: the rows are wrong")
    assert told["FailureReason"].endswith("exit code: 3")
    assert len(told["FailureReason"]) <= 1024
    assert "ModelArtifacts" not in told


def test_a_stopped_training_is_stopped_and_keeps_what_it_saved(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3)
    client = start(cloud, hyperparameters={"behave": "save"})
    _until_training(client)
    client.stop_training_job(TrainingJobName="job")
    assert waited(client, "Training", "job", until=("Stopping", "Stopped"))
    told = waited(client, "Training", "job")
    assert told["TrainingJobStatus"] == told["SecondaryStatus"] == "Stopped"
    assert "FailureReason" not in told
    assert members(got(s3, "models/job/output/model.tar.gz")) == {"model.json": "half"}
    assert cloud.jobs()[0]["stops"] == 1
    with pytest.raises(ClientError, match=r"ValidationException.*is in status Stopped"):
        client.stop_training_job(TrainingJobName="job")


def test_a_training_that_takes_too_long_is_stopped(cloud: LocalCloud) -> None:
    client = start(cloud, hyperparameters={"behave": "hang"}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    told = waited(client, "Training", "job")
    assert (told["TrainingJobStatus"], told["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")


def test_a_name_is_used_once(cloud: LocalCloud) -> None:
    client = start(cloud)
    with pytest.raises(ClientError) as caught:
        client.create_training_job(**training("job"))
    assert caught.value.response["Error"]["Code"] == "ResourceInUse"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert len(cloud.jobs()) == 1


def test_a_job_that_is_not_there(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    with pytest.raises(ClientError, match=r"ValidationException.*Requested resource not found"):
        client.describe_training_job(TrainingJobName="nothing")
    with pytest.raises(ClientError, match=r"ValidationException.*Could not find requested job with name: nothing"):
        client.describe_processing_job(ProcessingJobName="nothing")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("s3://lake/empty/", "No S3 objects found"),
        ("s3://lake/trai", "is not below it"),
    ],
)
def test_a_channel_without_its_objects_fails_the_job(cloud: LocalCloud, source: str, reason: str) -> None:
    put(cloud.client("s3"), train__a="1\n")
    client = start(cloud, source=source)
    assert reason in waited(client, "Training", "job")["FailureReason"]


def test_a_bucket_that_is_not_there(cloud: LocalCloud) -> None:
    client = start(cloud)
    reason = waited(client, "Training", "job")["FailureReason"]
    assert reason == "ClientError: s3://lake/models/job/output/model.tar.gz: there is no such bucket"


def test_an_image_that_is_not_there(cloud: LocalCloud) -> None:
    algorithm = {"TrainingImage": "nobody/nothing:1", "TrainingInputMode": "File"}
    client = start(cloud, AlgorithmSpecification=algorithm)
    assert waited(client, "Training", "job")["FailureReason"].startswith("ClientError: Cannot find image nobody/nothing:1")


def test_checkpoints_outlive_a_job(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3)
    for name in ("one", "two"):
        client = start(cloud, name, CheckpointConfig={"S3Uri": "s3://lake/checkpoints"})
        assert waited(client, "Training", name)["TrainingJobStatus"] == "Completed"
    assert keys(s3, "checkpoints/") == ["checkpoints/0.txt", "checkpoints/1.txt"]


def test_spot_needs_a_time_to_wait(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    with pytest.raises(ClientError, match="MaxWaitTimeInSeconds"):
        client.create_training_job(**training("job", EnableManagedSpotTraining=True))
    condition = {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}
    client.create_training_job(**training("job", EnableManagedSpotTraining=True, StoppingCondition=condition))
    assert waited(client, "Training", "job")["EnableManagedSpotTraining"] is True


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"RetryStrategy": {"MaximumRetryAttempts": 2}}, "RetryStrategy.MaximumRetryAttempts of CreateTrainingJob"),
        (
            {"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 5}},
            "ResourceConfig.InstanceCount=2",
        ),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(cloud: LocalCloud, more: dict[str, Any], named: str) -> None:
    with pytest.raises(ClientError) as caught:
        cloud.client("sagemaker").create_training_job(**training("job", **more))
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert named in str(caught.value)
    assert cloud.jobs() == []


def test_pages_of_jobs_are_turned(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    for number in range(12):
        client.create_training_job(**training(f"job-{number:02}", hyperparameters={"behave": "fail"} if number else {}))
    first = client.list_training_jobs(NameContains="JOB", SortBy="Name")
    assert len(first["TrainingJobSummaries"]) == 10
    second = client.list_training_jobs(NameContains="JOB", SortBy="Name", NextToken=first["NextToken"])
    assert [each["TrainingJobName"] for each in second["TrainingJobSummaries"]] == ["job-10", "job-11"]
    assert "NextToken" not in second


def _until_training(client: Any) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if client.describe_training_job(TrainingJobName="job")["SecondaryStatus"] == "Training":
            time.sleep(0.3)  # for the program to begin
            return
        time.sleep(0.05)
    raise AssertionError("the training did not begin")
