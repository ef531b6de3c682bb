"""Batch Transform of the local cloud: a model's server, asked for every object below a prefix."""

from __future__ import annotations

import gzip
import io
import tarfile
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import got, keys, model, put, transform, waited

pytestmark = pytest.mark.localcloud

LINES = {"SplitType": "Line", "ContentType": "text/csv"}
BY_LINE = {"AssembleWith": "Line", "Accept": "text/csv"}


def archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        member = tarfile.TarInfo("model.json")
        opened.addfile(member, io.BytesIO(b""))
    return buffer.getvalue()


def run(cloud: LocalCloud, container: dict[str, Any] | None = None, **more: Any) -> Any:
    """A transform of s3://lake/in/ to s3://lake/out with a model that answers the length of each line."""
    client = cloud.client("sagemaker")
    put(cloud.client("s3"), **{"model.tar.gz": archive()})
    client.create_model(**model("lengths", ModelDataUrl="s3://lake/model.tar.gz", **(container or {})))
    client.create_transform_job(**transform("job", "lengths", "s3://lake/in/", "s3://lake/out/", **more))
    return waited(client, "Transform", "job")


def log(cloud: LocalCloud) -> list[str]:
    logs = cloud.client("logs")
    group = "/aws/sagemaker/TransformJobs"
    (stream,) = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix="job/")["logStreams"]
    events = logs.get_log_events(logGroupName=group, logStreamName=stream["logStreamName"])["events"]
    return [event["message"] for event in events]


def test_each_object_has_an_output_of_its_name(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3, **{"in/a.csv": "1,2\n10,20\n", "in/deep/b.csv": "1\n", "in/_hidden": "123\n", "other/c": "1"})
    told = run(cloud, given=LINES, written=BY_LINE)
    assert told["TransformJobStatus"] == "Completed"
    assert keys(s3, "out/") == ["out/_hidden.out", "out/a.csv.out", "out/deep/b.csv.out"]
    assert got(s3, "out/a.csv.out") == b"3\n5\n"
    assert "model: ['model.json']" in log(cloud)
    assert cloud.jobs("transform-job")[0]["billed_seconds"] >= 1


def test_compressed_lines_are_sent_as_lines(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3, **{"in/a.json.gz": gzip.compress(b'{"a":1}\n{"a":22}\n')})
    given = {"SplitType": "Line", "ContentType": "application/jsonlines", "CompressionType": "Gzip"}
    assert run(cloud, given=given, written=BY_LINE)["TransformJobStatus"] == "Completed"
    assert got(s3, "out/a.json.gz.out") == b"7\n8\n"
    assert "request of 2 lines as application/jsonlines" in log(cloud)


def test_single_records_are_sent_one_by_one(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": "1\n22\n333\n"})
    run(cloud, given=LINES, written=BY_LINE, BatchStrategy="SingleRecord", MaxConcurrentTransforms=2)
    assert got(cloud.client("s3"), "out/a.out") == b"1\n2\n3\n"
    assert log(cloud).count("request of 1 lines as text/csv") == 3


def test_a_request_is_no_larger_than_its_limit(cloud: LocalCloud) -> None:
    row = "x" * 400_000
    put(cloud.client("s3"), **{"in/a": f"{row}\n" * 5})
    run(cloud, given=LINES, written=BY_LINE, MaxPayloadInMB=1)
    assert got(cloud.client("s3"), "out/a.out") == b"400000\n" * 5
    assert [line for line in log(cloud) if line.startswith("request")] == [
        f"request of {count} lines as text/csv" for count in (2, 2, 1)
    ]


@pytest.mark.parametrize("given", [LINES, {"ContentType": "text/csv"}])
def test_what_is_too_large_for_a_request_fails_the_job_and_not_the_other_objects(
    cloud: LocalCloud, given: dict[str, str]
) -> None:
    s3 = cloud.client("s3")
    put(s3, **{"in/a": "x" * 1_100_000, "in/b": "1\n"})
    told = run(cloud, given=given, written=BY_LINE, MaxPayloadInMB=1)
    assert (told["TransformJobStatus"], told["FailureReason"]) == ("Failed", "ClientError: See job logs for more information")
    assert keys(s3, "out/") == ["out/b.out"]
    assert any("lake/in/a" in line and "MaxPayloadInMB=1" in line for line in log(cloud))


def test_answers_are_joined_to_their_csv_records(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": 'id-1,7,"a,b"\nid-2,88,c\n'})
    processing = {"InputFilter": "$[1:]", "JoinSource": "Input", "OutputFilter": "$[0,-1]"}
    assert run(cloud, given=LINES, written=BY_LINE, DataProcessing=processing)["TransformJobStatus"] == "Completed"
    assert got(cloud.client("s3"), "out/a.out") == b"id-1,7\nid-2,4\n"


def test_answers_are_joined_to_their_json_lines(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": '{"id": 1, "features": {"x": 5}}\n{"id": 2, "features": {"x": 66}}\n'})
    given = {"SplitType": "Line", "ContentType": "application/jsonlines"}
    processing = {"InputFilter": "$.features", "JoinSource": "Input", "OutputFilter": "$['id','SageMakerOutput']"}
    run(cloud, given=given, written=BY_LINE, DataProcessing=processing)
    assert got(cloud.client("s3"), "out/a.out") == b'{"id": 1, "SageMakerOutput": 8}\n{"id": 2, "SageMakerOutput": 9}\n'


def test_a_record_that_the_model_refuses_fails_its_object(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3, **{"in/a": "1\npoison\n", "in/b": "1\n"})
    assert run(cloud, given=LINES, written=BY_LINE)["TransformJobStatus"] == "Failed"
    assert keys(s3, "out/") == ["out/b.out"]
    assert any("Bad HTTP status received from algorithm: 400" in line for line in log(cloud))


@pytest.mark.parametrize(("failures", "status"), [(1, "Completed"), (2, "Failed")])
def test_a_model_that_is_out_of_breath_is_asked_again(cloud: LocalCloud, failures: int, status: str) -> None:
    put(cloud.client("s3"), **{"in/a": "1\n"})
    retries = {"InvocationsMaxRetries": 1, "InvocationsTimeoutInSeconds": 10}
    told = run(cloud, {"Environment": {"FAIL_TIMES": str(failures)}}, given=LINES, written=BY_LINE, ModelClientConfig=retries)
    assert told["TransformJobStatus"] == status


def test_a_model_that_is_not_healthy(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": "1\n"})
    assert "ping" in run(cloud, {"Environment": {"PING": "500"}}, given=LINES, written=BY_LINE)["FailureReason"]


def test_the_environment_of_the_job_wins_over_the_models(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": "1\n"})
    container = {"Environment": {"GREETING": "model ", "PING": "500"}}
    run(cloud, container, given=LINES, written=BY_LINE, Environment={"PING": "200"})
    assert got(cloud.client("s3"), "out/a.out") == b"model 1\n"


def test_an_empty_object_is_refused(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": ""})
    assert "is empty" in run(cloud, given=LINES, written=BY_LINE)["FailureReason"]


def test_a_transform_is_stopped(cloud: LocalCloud) -> None:
    put(cloud.client("s3"), **{"in/a": "1\n", "model.tar.gz": archive()})
    client = cloud.client("sagemaker")
    client.create_model(**model("lengths", ModelDataUrl="s3://lake/model.tar.gz", Environment={"PING": "500"}))
    client.create_transform_job(**transform("job", "lengths", "s3://lake/in/", "s3://lake/out", given=LINES))
    client.stop_transform_job(TransformJobName="job")
    assert waited(client, "Transform", "job")["TransformJobStatus"] == "Stopped"
    with pytest.raises(ClientError, match=r"ValidationException.*Stopped"):
        client.stop_transform_job(TransformJobName="job")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"ModelName": "nobody"}, "Could not find model"),
        ({"MaxPayloadInMB": 60, "MaxConcurrentTransforms": 2}, "must not exceed 100 MB"),
        ({"BatchStrategy": "MultiRecord"}, "BatchStrategy is only valid with a SplitType"),
        ({"given": {"SplitType": "RecordIO"}}, "SplitType=RecordIO of CreateTransformJob"),
        ({"MaxPayloadInMB": 0}, "MaxPayloadInMB=0"),
        ({"given": LINES, "DataProcessing": {"InputFilter": "$..x"}}, "JSONPath"),
        ({"DataCaptureConfig": {"DestinationS3Uri": "s3://lake/captured"}}, "DataCaptureConfig"),
    ],
)
def test_requests_that_make_no_job(cloud: LocalCloud, more: dict[str, Any], message: str) -> None:
    client = cloud.client("sagemaker")
    client.create_model(**model("lengths"))
    request = transform("job", "lengths", "s3://lake/in/", "s3://lake/out", **{**more, "given": more.get("given", {})})
    with pytest.raises(ClientError, match=message):
        client.create_transform_job(**request)
    assert cloud.jobs() == []
