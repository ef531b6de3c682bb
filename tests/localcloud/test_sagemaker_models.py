"""Models and the registry of the local cloud."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import IMAGE, ROLE, got, model, put, transform, waited
from tests.localcloud.test_sagemaker_transform import BY_LINE, LINES, archive

pytestmark = pytest.mark.localcloud


def registered(cloud: LocalCloud, **more: Any) -> str:
    """A version of the group flights, which is made if it is not there."""
    client = cloud.client("sagemaker")
    put(cloud.client("s3"), **{"model.tar.gz": archive()})
    if more.pop("first", True):
        client.create_model_package_group(ModelPackageGroupName="flights")
    container = {"Image": IMAGE, "ModelDataUrl": "s3://lake/model.tar.gz", "Environment": {"GREETING": "v1 ", "PING": "500"}}
    arn: str = client.create_model_package(**{
        "ModelPackageGroupName": "flights",
        "InferenceSpecification": {
            "Containers": [container],
            "SupportedContentTypes": ["application/jsonlines"],
            "SupportedResponseMIMETypes": ["application/jsonlines"],
        },
        **more,
    })["ModelPackageArn"]
    return arn


def from_package(name: str, arn: str) -> dict[str, Any]:
    container = {"ModelPackageName": arn, "Environment": {"PING": "200"}}
    return {"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": container}


def test_a_model_is_made_once(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    client.create_model(**model("flights", Environment={"A": "1"}), Tags=[{"Key": "team", "Value": "ml"}])
    with pytest.raises(ClientError, match=r"ValidationException.*Cannot create already existing model"):
        client.create_model(**model("flights"))
    told = client.describe_model(ModelName="flights")
    assert told["PrimaryContainer"]["Environment"] == {"A": "1"}
    assert [each["ModelName"] for each in client.list_models(NameContains="FLI")["Models"]] == ["flights"]
    client.delete_model(ModelName="flights")
    for gone in (client.describe_model, client.delete_model):
        with pytest.raises(ClientError, match=r"ValidationException.*Could not find model"):
            gone(ModelName="flights")


@pytest.mark.parametrize(
    ("container", "message"),
    [
        ({"Image": "nobody/nothing:1"}, "Requested image nobody/nothing:1 not found"),
        ({"ModelDataUrl": "s3://lake/nothing.tar.gz"}, "Could not find model data at s3://lake/nothing.tar.gz"),
        ({"ModelPackageName": "arn:aws:sagemaker:us-east-1:123456789012:model-package/x/1"}, "does not exist"),
        ({"Mode": "MultiModel"}, "PrimaryContainer.Mode=MultiModel of CreateModel"),
    ],
)
def test_models_of_what_is_not_there(cloud: LocalCloud, container: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        cloud.client("sagemaker").create_model(**model("flights", **container))


def test_versions_count_up_and_wait_for_approval(cloud: LocalCloud) -> None:
    first = registered(cloud, CustomerMetadataProperties={"manifest": "abc", "old": "1"})
    second = registered(cloud, first=False, ModelApprovalStatus="Approved")
    assert (first.rpartition(":")[2], second.rpartition("/")[2]) == ("model-package/flights/1", "2")
    client = cloud.client("sagemaker")
    assert client.describe_model_package(ModelPackageName=first)["ModelApprovalStatus"] == "PendingManualApproval"

    client.update_model_package(
        ModelPackageArn=first,
        ModelApprovalStatus="Rejected",
        ApprovalDescription="worse",
        CustomerMetadataProperties={"gate": "REJECT"},
        CustomerMetadataPropertiesToRemove=["old"],
    )
    told = client.describe_model_package(ModelPackageName=first)
    assert (told["ModelApprovalStatus"], told["ApprovalDescription"], told["ModelPackageStatus"]) == (
        "Rejected",
        "worse",
        "Completed",
    )
    assert told["CustomerMetadataProperties"] == {"manifest": "abc", "gate": "REJECT"}
    listed = client.list_model_packages(ModelPackageGroupName="flights", SortBy="CreationTime", SortOrder="Descending")
    assert [each["ModelPackageVersion"] for each in listed["ModelPackageSummaryList"]] == [2, 1]
    approved = client.list_model_packages(ModelPackageGroupName="flights", ModelApprovalStatus="Approved")
    assert [each["ModelPackageArn"] for each in approved["ModelPackageSummaryList"]] == [second]


def test_a_version_is_registered_once_for_a_token(cloud: LocalCloud) -> None:
    first = registered(cloud, ClientToken="token-1")
    assert registered(cloud, first=False, ClientToken="token-1") == first
    with pytest.raises(ClientError, match="ConflictException"):
        registered(cloud, first=False, ClientToken="token-1", Domain="other")
    assert registered(cloud, first=False) != first


def test_a_group_is_made_once(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    with pytest.raises(ClientError, match=r"ValidationException.*ModelPackageGroup flights does not exist"):
        client.describe_model_package_group(ModelPackageGroupName="flights")
    client.create_model_package_group(ModelPackageGroupName="flights")
    with pytest.raises(ClientError, match=r"ValidationException.*already exists"):
        client.create_model_package_group(ModelPackageGroupName="flights")
    assert client.describe_model_package_group(ModelPackageGroupName="flights")["ModelPackageGroupStatus"] == "Completed"


def test_only_an_approved_version_makes_a_model_which_then_serves(cloud: LocalCloud) -> None:
    arn = registered(cloud)
    client = cloud.client("sagemaker")
    with pytest.raises(ClientError, match="PendingManualApproval"):
        client.create_model(**from_package("flights-v1", arn))
    client.update_model_package(ModelPackageArn=arn, ModelApprovalStatus="Approved")
    client.create_model(**from_package("flights-v1", arn))

    s3 = cloud.client("s3")
    put(s3, **{"in/a": "1\n"})
    client.create_transform_job(**transform("job", "flights-v1", "s3://lake/in", "s3://lake/out", given=LINES, written=BY_LINE))
    assert waited(client, "Transform", "job")["TransformJobStatus"] == "Completed"
    assert got(s3, "out/a.out") == b"v1 1\n"


def test_tags_are_added(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    arn = client.create_model(**model("flights"), Tags=[{"Key": "a", "Value": "1"}])["ModelArn"]
    client.add_tags(ResourceArn=arn, Tags=[{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}])
    assert client.list_tags(ResourceArn=arn)["Tags"] == [{"Key": "a", "Value": "2"}, {"Key": "b", "Value": "3"}]
