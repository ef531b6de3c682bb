"""The server itself: what it takes, what it refuses, what it notes, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import PYTHON, ROOT, LocalCloud, trial_image
from tests.localcloud.sagemaker_requests import IMAGE, model, put, training, waited

pytestmark = pytest.mark.localcloud


def test_objects_are_kept_as_they_were_put(cloud: LocalCloud) -> None:
    """What is passed on to moto arrives whole: names, metadata with an underscore, several parts."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket="lake")
    s3.put_object(Bucket="lake", Key="a b/é+1.txt", Body=b"one", Metadata={"run_id": "1"})
    assert s3.get_object(Bucket="lake", Key="a b/é+1.txt")["Metadata"] == {"run_id": "1"}
    s3.copy_object(Bucket="lake", Key="copy", CopySource={"Bucket": "lake", "Key": "a b/é+1.txt"})
    assert [each["Key"] for each in s3.list_objects_v2(Bucket="lake")["Contents"]] == ["a b/é+1.txt", "copy"]

    upload = s3.create_multipart_upload(Bucket="lake", Key="parts")["UploadId"]
    parts = []
    for number, content in enumerate((b"x" * 5 * 1024 * 1024, b"y"), 1):
        part = s3.upload_part(Bucket="lake", Key="parts", UploadId=upload, PartNumber=number, Body=content)
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    s3.complete_multipart_upload(Bucket="lake", Key="parts", UploadId=upload, MultipartUpload={"Parts": parts})
    assert s3.head_object(Bucket="lake", Key="parts")["ContentLength"] == 5 * 1024 * 1024 + 1
    assert [call["operation"] for call in cloud.calls("s3", mutating=True)] == [
        "CreateBucket", "PutObject", "CopyObject", "CreateMultipartUpload", "UploadPart", "UploadPart", "CompleteMultipartUpload",
    ]  # fmt: skip
    s3.delete_objects(Bucket="lake", Delete={"Objects": [{"Key": "copy"}, {"Key": "parts"}]})
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="lake", Key="copy")


def test_the_other_services_of_moto_answer(cloud: LocalCloud) -> None:
    sqs = cloud.client("sqs")
    queue = sqs.create_queue(QueueName="landed")["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="hello")
    (message,) = sqs.receive_message(QueueUrl=queue)["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    assert message["Body"] == "hello"

    sns = cloud.client("sns")
    topic = sns.create_topic(Name="alarms")["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:123456789012:landed")
    sns.publish(TopicArn=topic, Message="drift", MessageAttributes={"model": {"DataType": "String", "StringValue": "flights"}})
    assert json.loads(sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"])["Message"] == "drift"

    ses = cloud.client("ses")
    ses.verify_email_identity(EmailAddress="from@example.org")
    ses.send_email(
        Source="from@example.org",
        Destination={"ToAddresses": ["to@example.org"]},
        Message={"Subject": {"Data": "Alarm"}, "Body": {"Text": {"Data": "It drifts."}}},
    )
    sent = cloud.calls("ses", operation="SendEmail")[0]["params"]
    assert sent["Destination"]["ToAddresses"] == ["to@example.org"]
    assert sent["Message"]["Subject"] == {"Data": "Alarm"}

    metrics = cloud.client("cloudwatch")
    metrics.put_metric_data(Namespace="aileron", MetricData=[{"MetricName": "rows", "Value": 3.0}])
    assert [each["MetricName"] for each in metrics.list_metrics(Namespace="aileron")["Metrics"]] == ["rows"]
    assert cloud.client("sts").get_caller_identity()["Account"] == "123456789012"
    kms = cloud.client("kms")
    assert kms.describe_key(KeyId=kms.create_key()["KeyMetadata"]["KeyId"])["KeyMetadata"]["Enabled"]


@pytest.mark.parametrize(
    ("call", "named"),
    [
        (lambda cloud: cloud.client("sagemaker").list_endpoints(), "sagemaker ListEndpoints"),
        (lambda cloud: cloud.client("s3").get_bucket_tagging(Bucket="lake"), "s3 GetBucketTagging"),
        (lambda cloud: cloud.client("sqs").list_dead_letter_source_queues(QueueUrl="x"), "sqs ListDeadLetterSourceQueues"),
        (lambda cloud: cloud.client("sns").delete_topic(TopicArn="arn:aws:sns:us-east-1:1:x"), "sns DeleteTopic"),
        (lambda cloud: cloud.client("iam").list_roles(), "service iam"),
        (lambda cloud: cloud.client("dynamodb").list_tables(), "service dynamodb"),
    ],
)
def test_what_is_not_offered_is_refused_by_name(cloud: LocalCloud, call: Callable[[LocalCloud], Any], named: str) -> None:
    with pytest.raises(ClientError) as caught:
        call(cloud)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert named in str(caught.value)
    assert cloud.calls()[-1]["status"] == 501


def test_every_call_is_noted_in_order(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    client.create_model(**model("flights"))
    with pytest.raises(ClientError):
        client.create_model(**model("flights"))
    client.describe_model(ModelName="flights")
    noted = [(each["operation"], each["subject"], each["mutating"], each["status"]) for each in cloud.calls()]
    assert noted == [
        ("CreateModel", "flights", True, 200),
        ("CreateModel", "flights", True, 400),
        ("DescribeModel", "flights", False, 200),
    ]
    assert cloud.calls()[0]["params"]["PrimaryContainer"] == {"Image": IMAGE}
    assert cloud.calls()[1]["error"].startswith("ValidationException: Cannot create already existing model")
    cloud.forget_calls()
    assert cloud.calls() == []


def test_what_the_cloud_asks_of_itself_is_not_noted(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), data__a="1\n")
    cloud.forget_calls()
    client = cloud.client("sagemaker")
    client.create_training_job(**training("job", source="s3://lake/data"))
    waited(client, "Training", "job")
    assert {call["operation"] for call in cloud.calls()} == {"CreateTrainingJob", "DescribeTrainingJob"}


def test_another_region_is_another_cloud(cloud: LocalCloud) -> None:
    import boto3

    client = boto3.session.Session("test", "test", region_name="eu-west-1").client("sagemaker", endpoint_url=cloud.url)
    with pytest.raises(ClientError, match="this local cloud is us-east-1"):
        client.list_models()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 403),  # unsigned
        ({"Host": "evil.example"}, 403),
    ],
)
def test_who_is_no_client_gets_nothing(cloud: LocalCloud, headers: dict[str, str], status: int) -> None:
    request = urllib.request.Request(f"{cloud.url}/lake/key", headers=headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == status


def test_a_page_in_a_browser_cannot_ask_for_a_fault(cloud: LocalCloud) -> None:
    body = json.dumps({"kind": "kill", "pid": os.getpid(), "when": "before"}).encode()
    request = urllib.request.Request(f"{cloud.url}/_localcloud/faults", data=body, headers={"Content-Type": "text/plain"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert caught.value.code == 415
    assert cloud.faults() == []


def test_a_reset_forgets_everything(cloud: LocalCloud) -> None:
    put(cloud.client("s3"))
    client = cloud.client("sagemaker")
    client.create_model(**model("flights"))
    client.create_training_job(**training("job", hyperparameters={"behave": "hang"}))
    cloud.fault("throttle", "s3")
    cloud.reset()
    assert (cloud.jobs(), cloud.faults(), cloud.calls()) == ([], [], [])
    assert cloud.client("s3").list_buckets()["Buckets"] == []
    assert client.list_models()["Models"] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_server(tmp_path: Path, how: signal.Signals) -> None:
    with LocalCloud(tmp_path / "cloud", {IMAGE: trial_image()}) as cloud:
        note = tmp_path / "pid"
        cloud.client("sagemaker").create_training_job(**training("job", hyperparameters={"behave": f"child:{note}"}))
        _until(note.is_file)
        _until(lambda: note.read_text() != "")
        grandchild = int(note.read_text())
        assert cloud.process is not None
        cloud.process.send_signal(how)
        cloud.process.wait(20)
        _until(lambda: not _runs(grandchild))


def test_the_server_ends_with_who_started_it(tmp_path: Path) -> None:
    with LocalCloud(tmp_path / "cloud") as cloud:
        assert cloud.process is not None
        assert cloud.process.stdin is not None
        cloud.process.stdin.close()
        assert cloud.process.wait(20) == 0


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        ({"AWS_ACCESS_KEY_ID": "AKIAREALLYREAL00000"}, "AWS_ACCESS_KEY_ID"),
        ({"AWS_PROFILE": "production"}, "AWS_PROFILE"),
        ({"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": "/v2"}, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
        ({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, "AWS_WEB_IDENTITY_TOKEN_FILE"),
        ({"file": "[default]\naws_access_key_id = AKIAREALLYREAL00000\n"}, "credentials [default]"),
        ({"config": "[profile work]\nsso_start_url = https://example.org\nregion = eu-west-1\n"}, "config [profile work]"),
    ],
)
def test_real_credentials_in_sight_are_refused(tmp_path: Path, seen: dict[str, str], named: str) -> None:
    (tmp_path / ".aws").mkdir()
    seen = dict(seen)
    for name, file in (("file", "credentials"), ("config", "config")):
        if name in seen:
            (tmp_path / ".aws" / file).write_text(seen.pop(name))
    ended = _serve(tmp_path, {"HOME": str(tmp_path), **seen})
    assert ended.returncode != 0
    assert named in ended.stderr
    assert "AKIA" not in ended.stderr


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "thesis.txt").write_text("mine")
    ended = _serve(tmp_path, {"HOME": str(tmp_path)})
    assert ended.returncode != 0
    assert "would be emptied" in ended.stderr
    assert (tmp_path / "state" / "thesis.txt").read_text() == "mine"


def _serve(folder: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """A server that should not start."""
    return subprocess.run(
        [str(PYTHON), "-m", "localcloud", "serve", "--port", "0", "--state", str(folder / "state"), "--while-stdin"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def _until(done: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
