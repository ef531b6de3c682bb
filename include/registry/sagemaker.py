"""SageMaker Model Registry: a group of packages for each model, a package for each version.

Aliases are tags of the group, so one call moves one. What a package was made of is in its metadata.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.amazon.aws.hooks.sagemaker import SageMakerHook
from botocore.exceptions import BotoCoreError, ClientError

from include.registry.base import ALIASES, Alias, ModelVersion, RegistryUnavailable, TrainingData, UnknownVersion

MANIFEST, ARTIFACT, METRIC, LONGEST = "manifest_sha256", "artifact", "metric.", 256
CONTENT_TYPE = "application/jsonlines"


class SageMakerRegistry:
    """`prefix`: of the names of its groups; `image`: the container that serves; `tags`: of what it makes."""

    def __init__(self, prefix: str, image: str, connection: str = "aws_default", tags: Mapping[str, str] | None = None) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,15}", prefix):
            raise ValueError(f"AILERON_REGISTRY: {prefix!r} must be a short prefix: a-z, 0-9 and -, like sagemaker://aileron")
        self.prefix, self.image, self.connection, self.tags = prefix, image, connection, dict(tags or {})

    def group(self, model: str) -> str:
        """The name of a model's group."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", model):
            raise ValueError(f"{model!r} cannot be the name of a model: a-z, 0-9 and _ only")
        return f"{self.prefix}-{model.replace('_', '-')}"[:63].rstrip("-")

    def register(
        self,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        parameters: Mapping[str, object] | None = None,
        data: TrainingData | None = None,
    ) -> ModelVersion:
        """See `Registry`."""
        found = self.find(model, manifest_sha256)
        if found:
            return found
        with self._asked() as client:
            try:
                client.create_model_package_group(ModelPackageGroupName=self.group(model))
            except ClientError as error:
                if "already exists" not in error.response["Error"]["Message"]:
                    raise
            client.create_model_package(**self.package(model, artifact, manifest_sha256, metrics, tags, parameters, data))
        return self.registered(model, manifest_sha256)

    def package(
        self,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        parameters: Mapping[str, object] | None = None,
        data: TrainingData | None = None,
    ) -> dict[str, Any]:
        """What CreateModelPackage is asked. Asked twice it makes one: the token is the content."""
        if not artifact.startswith("s3://"):
            raise ValueError(f"{artifact}: SageMaker's registry takes archives on S3 only")
        told = {
            **{f"{METRIC}{name}": repr(value) for name, value in metrics.items() if value is not None},
            **{name: str(value) for name, value in tags.items()},
            **{f"parameter.{name}": str(value) for name, value in (parameters or {}).items()},
            **({"data": data.source, "data_sha256": data.sha256} if data else {}),
            MANIFEST: manifest_sha256,
            ARTIFACT: artifact,
        }
        return {
            "ModelPackageGroupName": self.group(model),
            "ModelPackageDescription": f"{model}: {tags.get('rule', 'registered')}, as of {tags.get('as_of', 'unknown')}",
            "InferenceSpecification": {
                "Containers": [{"Image": self.image, "ModelDataUrl": artifact}],
                "SupportedContentTypes": [CONTENT_TYPE],
                "SupportedResponseMIMETypes": [CONTENT_TYPE],
            },
            "ModelApprovalStatus": "PendingManualApproval",
            "CustomerMetadataProperties": {name: value[:LONGEST] for name, value in told.items() if value},
            "ClientToken": hashlib.sha256(f"{self.group(model)}/{manifest_sha256}".encode()).hexdigest()[:36],
        }

    def find(self, model: str, manifest_sha256: str) -> ModelVersion | None:
        """The first of the versions with this manifest."""
        with self._asked() as client:
            pages = client.get_paginator("list_model_packages").paginate(ModelPackageGroupName=self.group(model))
            try:
                listed = [one for page in pages for one in page["ModelPackageSummaryList"]]
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            for summary in sorted(listed, key=lambda one: int(one["ModelPackageVersion"])):
                found = client.describe_model_package(ModelPackageName=summary["ModelPackageArn"])
                if found.get("CustomerMetadataProperties", {}).get(MANIFEST) == manifest_sha256:
                    return _version(model, found)
        return None

    def registered(self, model: str, manifest_sha256: str) -> ModelVersion:
        """As `find`, for one that must be there.

        Raises:
            RegistryUnavailable: if it is not.
        """
        found = self.find(model, manifest_sha256)
        if found is None:
            raise RegistryUnavailable(f"{self.group(model)}: the version that was just registered is not there: call again")
        return found

    def version(self, model: str, version: str) -> ModelVersion:
        """See `Registry`."""
        return _version(model, self._described(model, version))

    def arn(self, model: str, version: str) -> str:
        """The ARN of a version's package.

        Raises:
            UnknownVersion, RegistryUnavailable: as `version`.
        """
        return str(self._described(model, version)["ModelPackageArn"])

    def alias(self, model: str, alias: Alias) -> ModelVersion | None:
        """See `Registry`."""
        _check_alias(alias)
        with self._asked() as client:
            try:
                group = client.describe_model_package_group(ModelPackageGroupName=self.group(model))
            except ClientError as error:
                if _is_missing(error):
                    return None
                raise
            pages = client.get_paginator("list_tags").paginate(ResourceArn=group["ModelPackageGroupArn"])
            points_at = {tag["Key"]: tag["Value"] for page in pages for tag in page["Tags"]}.get(alias)
        return None if points_at is None else self.version(model, points_at)

    def set_alias(self, model: str, alias: Alias, version: str) -> None:
        """See `Registry`."""
        _check_alias(alias)
        self.version(model, version)
        with self._asked() as client:
            group = client.describe_model_package_group(ModelPackageGroupName=self.group(model))
            given = [{"Key": name, "Value": value} for name, value in {**self.tags, "model": model, alias: version}.items()]
            client.add_tags(ResourceArn=group["ModelPackageGroupArn"], Tags=given)

    def record_approval(self, model: str, version: str, approved: bool, why: str) -> None:
        """See `Registry`. A package that is not approved cannot become a model of SageMaker."""
        found = self._described(model, version)
        status = "Approved" if approved else "Rejected"
        if found["ModelApprovalStatus"] == status:
            return
        with self._asked() as client:
            client.update_model_package(
                ModelPackageArn=found["ModelPackageArn"], ModelApprovalStatus=status, ApprovalDescription=why[:1024] or status
            )

    def _described(self, model: str, version: str) -> dict[str, Any]:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
            raise UnknownVersion(f"{model} has no version {version!r}: versions are numbers such as 3; see the registry")
        with self._asked() as client:
            try:
                group = client.describe_model_package_group(ModelPackageGroupName=self.group(model))
                # The same ARN, of a package instead of a group, and its number.
                arn = group["ModelPackageGroupArn"].replace(":model-package-group/", ":model-package/") + f"/{version}"
                found: dict[str, Any] = client.describe_model_package(ModelPackageName=arn)
            except ClientError as error:
                if not _is_missing(error):
                    raise
                raise UnknownVersion(
                    f"{model} has no version {version} in {self.group(model)}: choose one that is there"
                ) from None
        return found

    @contextmanager
    def _asked(self) -> Generator[Any, None, None]:
        """A client; whatever it raises that is not ours comes out as RegistryUnavailable."""
        try:
            yield SageMakerHook(aws_conn_id=self.connection).conn
        except (ClientError, BotoCoreError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise RegistryUnavailable(f"SageMaker's model registry does not work ({reason}): try again") from error


def _version(model: str, found: Mapping[str, Any]) -> ModelVersion:
    told, number = found.get("CustomerMetadataProperties", {}), str(found["ModelPackageVersion"])
    if MANIFEST not in told or ARTIFACT not in told:
        raise UnknownVersion(
            f"version {number} of {model} has no {MANIFEST}, so its files cannot be checked: register it from here"
        )
    metrics = {name.removeprefix(METRIC): float(value) for name, value in told.items() if name.startswith(METRIC)}
    return ModelVersion(model, number, told[ARTIFACT], told[MANIFEST], metrics)


def _is_missing(error: ClientError) -> bool:
    told = error.response["Error"]
    return told["Code"] == "ValidationException" and bool(
        re.search(r"(?i)does not exist|could not find|not found", told["Message"])
    )


def _check_alias(alias: str) -> None:
    if alias not in ALIASES:
        raise ValueError(f"{alias!r} is no alias: {', '.join(ALIASES)}")
