"""SageMaker's models and its registry: groups, versions, their approval; and the tags of everything."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from localcloud.files import Unusable
from localcloud.honoured import honoured
from localcloud.listing import listed
from localcloud.service import Cloud, Handler, NotHonoured, Refused

CREATOR: dict[str, Any] = {}  # AWS tells of a user only in Studio

check_model = honoured(
    "CreateModel",
    """
    ModelName ExecutionRoleArn Tags VpcConfig EnableNetworkIsolation
    PrimaryContainer.Image PrimaryContainer.ModelDataUrl PrimaryContainer.Environment PrimaryContainer.ModelPackageName
    PrimaryContainer.Mode=SingleModel PrimaryContainer.ContainerHostname
    Containers.Image Containers.ModelDataUrl Containers.Environment Containers.ModelPackageName
    Containers.Mode=SingleModel Containers.ContainerHostname
    """,
)
check_group = honoured("CreateModelPackageGroup", "ModelPackageGroupName ModelPackageGroupDescription Tags")
check_package = honoured(
    "CreateModelPackage",
    """
    ModelPackageGroupName ModelPackageDescription Tags ModelApprovalStatus MetadataProperties ModelMetrics ClientToken
    Domain Task SamplePayloadUrl CustomerMetadataProperties DriftCheckBaselines SkipModelValidation SourceUri
    CertifyForMarketplace=False
    InferenceSpecification.Containers.Image InferenceSpecification.Containers.ModelDataUrl
    InferenceSpecification.Containers.Environment InferenceSpecification.Containers.ContainerHostname
    InferenceSpecification.Containers.Framework InferenceSpecification.Containers.FrameworkVersion
    InferenceSpecification.Containers.NearestModelName
    InferenceSpecification.SupportedTransformInstanceTypes InferenceSpecification.SupportedRealtimeInferenceInstanceTypes
    InferenceSpecification.SupportedContentTypes InferenceSpecification.SupportedResponseMIMETypes
    """,
)
check_update = honoured(
    "UpdateModelPackage",
    """
    ModelPackageArn ModelApprovalStatus ApprovalDescription CustomerMetadataProperties CustomerMetadataPropertiesToRemove
    """,
)


@dataclass(frozen=True)
class Container:
    """What serves a model: an image, the archive of the model, and its environment."""

    image: str
    model_data: str | None
    environment: Mapping[str, str]


@dataclass
class Package:
    """A version of a group."""

    arn: str
    group: str
    version: int
    request: dict[str, Any]
    created: datetime
    modified: datetime | None = None
    approval: str = "PendingManualApproval"
    approval_description: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


class Registry:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.RLock()
        self._models: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, dict[str, Any]] = {}
        self._packages: dict[str, Package] = {}
        self._tokens: dict[str, tuple[dict[str, Any], str]] = {}
        self._tags: dict[str, dict[str, str]] = {}

    def operations(self) -> dict[str, Handler]:
        made: dict[str, Handler] = {
            "CreateModel": self.create_model,
            "DescribeModel": self.describe_model,
            "DeleteModel": self.delete_model,
            "ListModels": self.list_models,
            "CreateModelPackageGroup": self.create_group,
            "DescribeModelPackageGroup": self.describe_group,
            "CreateModelPackage": self.create_package,
            "DescribeModelPackage": self.describe_package,
            "ListModelPackages": self.list_packages,
            "UpdateModelPackage": self.update_package,
            "AddTags": self.add_tags,
            "ListTags": self.list_tags,
        }
        return {name: self._alone(handler) for name, handler in made.items()}

    def container(self, model: str) -> Container:
        """What a transform job with this model runs.

        Raises:
            Refused: if there is no such model.
        """
        with self._lock:
            if model not in self._models:
                arn = self._cloud.arn("sagemaker", f"model/{model}")
                raise Refused("ValidationException", f'Could not find model "{arn}".')
            container: Container = self._models[model]["container"]
            return container

    def tag(self, arn: str, tags: Mapping[str, str]) -> None:
        with self._lock:
            self._tags[arn] = dict(tags)

    def create_model(self, request: dict[str, Any]) -> dict[str, Any]:
        check_model(request)
        name = request["ModelName"]
        arn = self._cloud.arn("sagemaker", f"model/{name.lower()}")
        if name in self._models:
            raise Refused("ValidationException", f'Cannot create already existing model "{arn}".')
        if "ExecutionRoleArn" not in request:
            raise Refused("ValidationException", "ExecutionRoleArn is required.")
        container = self._resolved(_only_container(request))
        if container.image not in self._cloud.images:
            raise Refused("ValidationException", f"Requested image {container.image} not found.")
        self._check_data(container.model_data)
        self._models[name] = {"request": request, "container": container, "ModelArn": arn, "CreationTime": datetime.now(UTC)}
        self.tag(arn, _as_map(request))
        return {"ModelArn": arn}

    def describe_model(self, request: dict[str, Any]) -> dict[str, Any]:
        model = self._model(request["ModelName"])
        shown = ("PrimaryContainer", "Containers", "ExecutionRoleArn", "VpcConfig", "EnableNetworkIsolation", "ModelName")
        told = {name: model["request"][name] for name in shown if name in model["request"]}
        return {**told, "ModelArn": model["ModelArn"], "CreationTime": model["CreationTime"]}

    def delete_model(self, request: dict[str, Any]) -> dict[str, Any]:
        self._tags.pop(self._model(request["ModelName"])["ModelArn"], None)
        del self._models[request["ModelName"]]
        return {}

    def list_models(self, request: dict[str, Any]) -> dict[str, Any]:
        rows = [
            {"ModelName": name, "ModelArn": model["ModelArn"], "CreationTime": model["CreationTime"]}
            for name, model in self._models.items()
        ]
        return listed(request, rows, "ModelName", "Models")

    def create_group(self, request: dict[str, Any]) -> dict[str, Any]:
        check_group(request)
        name = request["ModelPackageGroupName"]
        arn = self._cloud.arn("sagemaker", f"model-package-group/{name.lower()}")
        if name in self._groups:
            raise Refused("ValidationException", f"Model Package Group already exists: {arn}")
        self._groups[name] = {"request": request, "ModelPackageGroupArn": arn, "CreationTime": datetime.now(UTC)}
        self.tag(arn, _as_map(request))
        return {"ModelPackageGroupArn": arn}

    def describe_group(self, request: dict[str, Any]) -> dict[str, Any]:
        group = self._group(request["ModelPackageGroupName"])
        return {
            "ModelPackageGroupName": group["request"]["ModelPackageGroupName"],
            "ModelPackageGroupArn": group["ModelPackageGroupArn"],
            "ModelPackageGroupDescription": group["request"].get("ModelPackageGroupDescription"),
            "CreationTime": group["CreationTime"],
            "CreatedBy": CREATOR,
            "ModelPackageGroupStatus": "Completed",
        }

    def create_package(self, request: dict[str, Any]) -> dict[str, Any]:
        """A version of a group. The same ClientToken and request again: the version that is there."""
        check_package(request)
        token = request.get("ClientToken")
        if token in self._tokens:
            asked, arn = self._tokens[token]
            if asked != request:
                raise Refused("ConflictException", "ClientToken was used before, with other parameters.")
            return {"ModelPackageArn": arn}
        if "ModelPackageGroupName" not in request:
            raise NotHonoured("CreateModelPackage without ModelPackageGroupName (an unversioned model package)")
        group = self._group(request["ModelPackageGroupName"])["request"]["ModelPackageGroupName"]
        for container in request.get("InferenceSpecification", {}).get("Containers", ()):
            if container["Image"] not in self._cloud.images:
                raise Refused("ValidationException", f"Requested image {container['Image']} not found.")
            self._check_data(container.get("ModelDataUrl"))
        version = 1 + max((each.version for each in self._packages.values() if each.group == group), default=0)
        arn = self._cloud.arn("sagemaker", f"model-package/{group.lower()}/{version}")
        self._packages[arn] = Package(
            arn,
            group,
            version,
            request,
            datetime.now(UTC),
            approval=request.get("ModelApprovalStatus", "PendingManualApproval"),
            metadata=dict(request.get("CustomerMetadataProperties", {})),
        )
        if token:
            self._tokens[token] = (request, arn)
        self.tag(arn, _as_map(request))
        return {"ModelPackageArn": arn}

    def describe_package(self, request: dict[str, Any]) -> dict[str, Any]:
        package = self._package(request["ModelPackageName"])
        again = (
            "ModelPackageDescription InferenceSpecification MetadataProperties ModelMetrics Domain Task SamplePayloadUrl"
            " DriftCheckBaselines SkipModelValidation SourceUri CertifyForMarketplace"
        )
        return {
            **{name: package.request[name] for name in again.split() if name in package.request},
            "ModelPackageName": package.group,
            "ModelPackageGroupName": package.group,
            "ModelPackageVersion": package.version,
            "ModelPackageArn": package.arn,
            "CreationTime": package.created,
            "LastModifiedTime": package.modified,
            "ModelPackageStatus": "Completed",
            "ModelPackageStatusDetails": {"ValidationStatuses": [], "ImageScanStatuses": []},
            "ModelApprovalStatus": package.approval,
            "ApprovalDescription": package.approval_description,
            "CustomerMetadataProperties": package.metadata or None,
            "CreatedBy": CREATOR,
        }

    def list_packages(self, request: dict[str, Any]) -> dict[str, Any]:
        if group := request.get("ModelPackageGroupName"):
            group = self._group(group)["request"]["ModelPackageGroupName"]
        rows = [
            {
                "ModelPackageGroupName": package.group,
                "ModelPackageVersion": package.version,
                "ModelPackageArn": package.arn,
                "ModelPackageDescription": package.request.get("ModelPackageDescription"),
                "CreationTime": package.created,
                "ModelPackageStatus": "Completed",
                "ModelApprovalStatus": package.approval,
            }
            for package in self._packages.values()
            if group in (None, package.group) and request.get("ModelApprovalStatus") in (None, package.approval)
        ]
        return listed(request, rows, "ModelPackageGroupName", "ModelPackageSummaryList")

    def update_package(self, request: dict[str, Any]) -> dict[str, Any]:
        check_update(request)
        package = self._package(request["ModelPackageArn"])
        package.approval = request.get("ModelApprovalStatus", package.approval)
        package.approval_description = request.get("ApprovalDescription", package.approval_description)
        package.metadata |= request.get("CustomerMetadataProperties", {})
        for name in request.get("CustomerMetadataPropertiesToRemove", ()):
            package.metadata.pop(name, None)
        package.modified = datetime.now(UTC)
        return {"ModelPackageArn": package.arn}

    def add_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        tags = self._tags_of(request["ResourceArn"])
        tags |= _as_map(request)
        return {"Tags": _as_list(tags)}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        tags = _as_list(self._tags_of(request["ResourceArn"]))
        begin = int(request.get("NextToken", 0))
        end = begin + request.get("MaxResults", 50)
        return {"Tags": tags[begin:end], "NextToken": str(end) if end < len(tags) else None}

    def _alone(self, handler: Handler) -> Handler:
        def locked(request: dict[str, Any]) -> dict[str, Any]:
            with self._lock:
                return handler(request)

        return locked

    def _model(self, name: str) -> dict[str, Any]:
        if name not in self._models:
            raise Refused("ValidationException", f'Could not find model "{self._cloud.arn("sagemaker", f"model/{name}")}".')
        return self._models[name]

    def _group(self, name: str) -> dict[str, Any]:
        """By name or ARN."""
        for known, group in self._groups.items():
            if name in (known, group["ModelPackageGroupArn"]):
                return group
        raise Refused("ValidationException", f"ModelPackageGroup {name} does not exist.")

    def _package(self, arn: str) -> Package:
        if arn not in self._packages:
            raise Refused("ValidationException", f"ModelPackage {arn} does not exist.")
        return self._packages[arn]

    def _tags_of(self, arn: str) -> dict[str, str]:
        if arn not in self._tags:
            raise Refused("ValidationException", f"Could not find resource {arn}.")
        return self._tags[arn]

    def _resolved(self, container: Mapping[str, Any]) -> Container:
        """A container as the request has it, or as the version that it names has it; its own environment wins."""
        environment = container.get("Environment", {})
        if name := container.get("ModelPackageName"):
            package = self._package(name)
            if package.approval != "Approved":
                raise Refused(
                    "ValidationException", f"Model package {name} is {package.approval}: only an Approved one makes a model."
                )
            containers = package.request.get("InferenceSpecification", {}).get("Containers", ())
            if len(containers) != 1:
                raise NotHonoured(f"a model package with {len(containers)} containers")
            return Container(
                containers[0]["Image"],
                containers[0].get("ModelDataUrl"),
                {**containers[0].get("Environment", {}), **environment},
            )
        if "Image" not in container:
            raise Refused("ValidationException", "A container must have Image or ModelPackageName.")
        return Container(container["Image"], container.get("ModelDataUrl"), environment)

    def _check_data(self, uri: str | None) -> None:
        if uri is None:
            return
        try:
            there = uri in self._cloud.files.keys(uri)
        except Unusable:
            there = False
        if not there:
            raise Refused("ValidationException", f"Could not find model data at {uri}.")


def _only_container(request: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = [request["PrimaryContainer"]] if "PrimaryContainer" in request else request.get("Containers", [])
    if not containers or ("PrimaryContainer" in request and "Containers" in request):
        raise Refused("ValidationException", "A model has either PrimaryContainer or Containers.")
    if len(containers) > 1:
        raise NotHonoured("an inference pipeline: more than one of Containers")
    only: Mapping[str, Any] = containers[0]
    return only


def _as_map(request: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}


def _as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]
