"""Processing jobs of the local cloud."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import got, keys, processing, put, waited

pytestmark = pytest.mark.localcloud


def started(cloud: LocalCloud, name: str = "job", **more: Any) -> Any:
    put(cloud.client("s3"), raw__a="one", raw__deep__b="two")
    client = cloud.client("sagemaker")
    client.create_processing_job(**processing(name, "s3://lake/raw", "s3://lake/done", **more))
    return client


def test_inputs_come_down_and_outputs_go_up(cloud: LocalCloud) -> None:
    client = started(cloud)
    told = waited(client, "Processing", "job")
    assert (told["ProcessingJobStatus"], told["ExitMessage"]) == ("Completed", "well done")
    s3 = cloud.client("s3")
    assert keys(s3, "done/") == ["done/data/a", "done/data/deep/b"]
    assert got(s3, "done/data/deep/b") == b"TWO"
    assert cloud.jobs("processing-job")[0]["billed_seconds"] >= 1


def test_an_entrypoint_of_the_request_takes_the_place_of_the_images(cloud: LocalCloud) -> None:
    says = {"ContainerEntrypoint": ["python", "-c", "print('hello from here')"], "ContainerArguments": ["ignored"]}
    image = processing("job", "s3://x/y", "s3://x/z")["AppSpecification"]["ImageUri"]
    client = started(cloud, AppSpecification={"ImageUri": image, **says})
    assert waited(client, "Processing", "job")["ProcessingJobStatus"] == "Completed"
    logs = cloud.client("logs")
    group = "/aws/sagemaker/ProcessingJobs"
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="job/")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    assert [event["message"] for event in events] == ["hello from here"]


def test_a_failing_program_leaves_its_message_and_no_output(cloud: LocalCloud) -> None:
    client = started(cloud, Environment={"BEHAVE": "fail"})
    told = waited(client, "Processing", "job")
    assert told["ProcessingJobStatus"] == "Failed"
    assert told["ExitMessage"].startswith("the rows are wrong")
    assert told["FailureReason"].endswith("exit code: 3")
    assert keys(cloud.client("s3"), "done/") == []


def test_a_job_is_stopped(cloud: LocalCloud) -> None:
    client = started(cloud, Environment={"BEHAVE": "hang"})
    client.stop_processing_job(ProcessingJobName="job")
    assert waited(client, "Processing", "job")["ProcessingJobStatus"] == "Stopped"


def test_a_job_that_takes_too_long_is_stopped(cloud: LocalCloud) -> None:
    client = started(cloud, Environment={"BEHAVE": "hang"}, StoppingCondition={"MaxRuntimeInSeconds": 1})
    assert waited(client, "Processing", "job")["ProcessingJobStatus"] == "Stopped"


def test_a_name_is_used_once(cloud: LocalCloud) -> None:
    client = started(cloud)
    with pytest.raises(ClientError, match="ResourceInUse"):
        client.create_processing_job(**processing("job", "s3://lake/raw", "s3://lake/done"))


def test_paths_outside_of_the_jobs_folder_are_refused(cloud: LocalCloud) -> None:
    request = processing("job", "s3://lake/raw", "s3://lake/done")
    request["ProcessingInputs"][0]["S3Input"]["LocalPath"] = "/opt/ml/processing/../../etc"
    with pytest.raises(ClientError, match="LocalPath"):
        cloud.client("sagemaker").create_processing_job(**request)


def test_uploading_while_it_runs_is_not_honoured(cloud: LocalCloud) -> None:
    request = processing("job", "s3://lake/raw", "s3://lake/done")
    request["ProcessingOutputConfig"]["Outputs"][0]["S3Output"]["S3UploadMode"] = "Continuous"
    with pytest.raises(ClientError, match=r"S3UploadMode=Continuous of CreateProcessingJob \(only EndOfJob\)"):
        cloud.client("sagemaker").create_processing_job(**request)
