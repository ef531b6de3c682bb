"""Requests are held against AWS's own model of them, where the client is lenient."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import put, training, transform

pytestmark = pytest.mark.localcloud


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"BatchStrategy": "Nope"}, r"'Nope' at 'batchStrategy' .* enum value set: \[MultiRecord, SingleRecord\]"),
        ({"TransformJobName": "bad_name!"}, r"'bad_name!' at 'transformJobName' .* regular expression pattern"),
        ({"TransformJobName": "x" * 64}, r"at 'transformJobName' .* length less than or equal to 63"),
        ({"MaxPayloadInMB": -1}, r"at 'maxPayloadInMB' .* value greater than or equal to 0"),
        ({"ModelClientConfig": {"InvocationsMaxRetries": 9}}, r"'9' at 'modelClientConfig.invocationsMaxRetries' .* equal to 3"),
        ({"MaxPayloadInMB": "6"}, r"'6' at 'maxPayloadInMB' .* number of type integer"),
        ({"ModelName": None}, r"Value null at 'modelName' .* Member must not be null"),
        ({"Environment": {"A": 1}}, r"'1' at 'environment.A' .* Member must be a string"),
    ],
)
def test_what_is_wrong_is_named(cloud: LocalCloud, more: dict[str, Any], told: str) -> None:
    request = {**transform("job", "flights", "s3://lake/in", "s3://lake/out"), **more}
    with pytest.raises(ClientError, match=told) as caught:
        cloud.client("sagemaker").create_transform_job(**request)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert cloud.jobs() == []


def test_a_member_that_aws_does_not_know_is_refused(cloud: LocalCloud) -> None:
    """The client drops what it does not know, so this request is put together by hand."""
    answer = posted(cloud, "SageMaker.DescribeModel", '{"ModelName": "a", "Colour": "red"}')
    assert answer == (
        400,
        "ValidationException",
        "1 validation error detected: Value at 'colour' failed to satisfy constraint: AWS knows no such member",
    )


def test_all_that_is_wrong_is_named_at_once(cloud: LocalCloud) -> None:
    request = training("a_b", ResourceConfig={"InstanceType": "ml.huge", "InstanceCount": -1, "VolumeSizeInGB": 1})
    with pytest.raises(ClientError, match="3 validation errors detected") as caught:
        cloud.client("sagemaker").create_training_job(**request)
    for path in ("trainingJobName", "resourceConfig.instanceType", "resourceConfig.instanceCount"):
        assert f"'{path}'" in str(caught.value)


def test_a_body_that_is_no_json(cloud: LocalCloud) -> None:
    assert posted(cloud, "SageMaker.DescribeModel", "{")[:2] == (400, "SerializationException")


def test_headers_and_queries_of_s3_are_checked_too(cloud: LocalCloud) -> None:
    s3 = cloud.client("s3")
    put(s3)
    with pytest.raises(ClientError, match="enum value set"):
        s3.put_object(Bucket="lake", Key="a", Body=b"", StorageClass="CHEAP")


def posted(cloud: LocalCloud, target: str, body: str) -> tuple[int, str, str]:
    """Status, code and message of a JSON request."""
    import json
    import urllib.error
    import urllib.request

    signed = "AWS4-HMAC-SHA256 Credential=test/20261120/us-east-1/sagemaker/aws4_request, SignedHeaders=host, Signature=0"
    headers = {"X-Amz-Target": target, "Authorization": signed, "Content-Type": "application/x-amz-json-1.1"}
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(cloud.url, body.encode(), headers))
    told = json.loads(caught.value.read())
    return caught.value.code, told["__type"], told["message"]
