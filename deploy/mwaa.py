"""Amazon MWAA: DAGs are synced from S3; plugins, requirements and the startup script are versions that an update names.

An update takes twenty minutes and more, so it is made only if one of the three is another than before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import boto3
from botocore.exceptions import ClientError

from deploy.archives import digest_of
from deploy.release import Failed, Interfered, Patience, Refused, Unreachable

# What an update names → the file of a bundle.
VERSIONED = {"Plugins": "plugins.zip", "Requirements": "requirements.txt", "StartupScript": "startup.sh"}
BUSY = ("CREATING", "UPDATING", "ROLLING_BACK", "CREATING_SNAPSHOT", "PENDING", "MAINTENANCE")
READY = ("AVAILABLE", "UPDATE_FAILED")  # the latter as it was before
DIGEST = "aileron-sha256"  # metadata of an object that a deployment has put


class S3:
    """A bucket of S3."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._s3, self._bucket = client, bucket

    def listed(self, prefix: str) -> dict[str, str]:
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
        return {each["Key"]: each["ETag"] for page in pages for each in page.get("Contents", ())}

    def read(self, key: str) -> tuple[bytes, str] | None:
        try:
            found = self._s3.get_object(Bucket=self._bucket, Key=key)
        except self._s3.exceptions.NoSuchKey:
            return None
        return found["Body"].read(), found["ETag"]

    def put(self, key: str, content: bytes) -> str:
        return str(self._s3.put_object(Bucket=self._bucket, Key=key, Body=content)["ETag"])

    def put_over(self, key: str, content: bytes, tag: str | None) -> str:
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        try:
            return str(self._s3.put_object(Bucket=self._bucket, Key=key, Body=content, **condition)["ETag"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "ConditionalRequestConflict"):
                raise Interfered(
                    f"somebody else is deploying to this environment ({key} has changed): wait, then deploy again"
                ) from None
            raise

    def delete(self, key: str) -> None:
        self._s3.delete_object(Bucket=self._bucket, Key=key)

    def version(self, key: str, version: str = "") -> tuple[str, str] | None:
        """Version and digest of an object; the digest is empty if no deployment has put it.

        Args:
            version: the newest if it is empty.
        """
        try:
            found = self._s3.head_object(Bucket=self._bucket, Key=key, **({"VersionId": version} if version else {}))
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return found.get("VersionId", ""), found["Metadata"].get(DIGEST, "")

    def put_version(self, key: str, content: bytes) -> str:
        """
        Raises:
            Failed: if the bucket keeps no versions.
        """
        metadata = {DIGEST: digest_of(content)}
        put = self._s3.put_object(Bucket=self._bucket, Key=key, Body=content, Metadata=metadata)
        if "VersionId" not in put:
            raise Failed(f"the bucket {self._bucket} keeps no versions, and Amazon MWAA is told of versions: turn them on")
        return str(put["VersionId"])


class Mwaa:
    """An environment of Amazon MWAA."""

    def __init__(self, name: str) -> None:
        self._name, self._mwaa = name, boto3.client("mwaa")
        try:
            environment = self._environment()
        except self._mwaa.exceptions.ResourceNotFoundException:
            raise Refused(f"there is no environment {name} in {self._mwaa.meta.region_name}") from None
        self.store = S3(boto3.client("s3"), environment["SourceBucketArn"].rpartition(":")[2])
        path = environment["DagS3Path"].strip("/")
        self.dags = f"{path}/"
        self.folders: tuple[str, ...] = (self.dags,)
        self.own = f"{path.rpartition('/')[0]}/aileron/".lstrip("/")

    def place(self, name: str) -> str | None:
        return f"{self.dags}{name.removeprefix('dags/')}" if name.startswith("dags/") else None

    def check(self, manifest: Mapping[str, Any]) -> None:
        there = self._environment()
        if there["Status"] not in (*READY, *BUSY):
            raise Refused(f"the environment {self._name} is {there['Status']}: it must be AVAILABLE")
        if there.get("AirflowVersion") != manifest["airflow"]:
            raise Refused(
                f"the environment {self._name} has Airflow {there.get('AirflowVersion')}, the bundle is for {manifest['airflow']}"
            )
        if "AILERON_PLATFORM" not in manifest["settings"]:
            raise Refused(
                "the bundle has no AILERON_PLATFORM: build it with SETTINGS=<file>, as nothing else tells the environment"
            )
        if there["Status"] in READY:
            try:
                with suppress(Unreachable):
                    self.get("/importErrors", {"limit": 1})
            except self._mwaa.exceptions.AccessDeniedException as error:
                raise Refused(
                    f"whoever deploys must be allowed to ask Airflow (airflow:InvokeRestApi, role Op): {error}"
                ) from None

    def changes(self, files: Mapping[str, bytes], overwrite: bool) -> list[str]:
        environment, found = self._environment(), []
        for kind, name in VERSIONED.items():
            path = self._path(environment, kind)
            newest = self.store.version(path)
            if newest and not newest[1] and not overwrite:
                raise Refused(f"{path} of the environment was put there by nobody who deploys: move it away, or OVERWRITE=1")
            if not self._has(environment, kind, files[name]):
                found.append(f"a new version of {path}: it starts anew")
        return found

    def update(self, files: Mapping[str, bytes], patience: Patience) -> None:
        environment = self._settled(patience)
        wanted: dict[str, str] = {}
        for kind, name in VERSIONED.items():
            if not self._has(environment, kind, files[name]):
                path = self._path(environment, kind)
                version, digest = self.store.version(path) or ("", "")
                if digest != digest_of(files[name]):
                    version = self.store.put_version(path, files[name])
                wanted |= {f"{kind}S3Path": path, f"{kind}S3ObjectVersion": version}
        if not wanted:
            return
        print(f"updating the environment: {', '.join(sorted(wanted))}", flush=True)
        before = environment.get("LastUpdate", {}).get("CreatedAt")
        self._mwaa.update_environment(Name=self._name, **wanted)
        there = self._settled(patience, before)
        if there["Status"] != "AVAILABLE" or any(there.get(name) != value for name, value in wanted.items()):
            error = there.get("LastUpdate", {}).get("Error", {})
            raise Failed(f"the environment could not be updated: {error.get('ErrorMessage') or there['Status']}")

    def _has(self, environment: Mapping[str, Any], kind: str, content: bytes) -> bool:
        """Is this content what the environment is told to use?"""
        version = environment.get(f"{kind}S3ObjectVersion")
        if not version or not environment.get(f"{kind}S3Path"):
            return False
        return self.store.version(environment[f"{kind}S3Path"], version) == (version, digest_of(content))

    def get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        asked = {"Name": self._name, "Path": path, "Method": "GET", "QueryParameters": dict(query)}
        try:
            answer: dict[str, Any] = self._mwaa.invoke_rest_api(**asked)["RestApiResponse"]
        except (self._mwaa.exceptions.RestApiServerException, self._mwaa.exceptions.InternalServerException) as error:
            raise Unreachable(str(error)) from None
        except self._mwaa.exceptions.RestApiClientException as error:
            said = error.response.get("RestApiResponse") or error
            raise Refused(f"Airflow does not answer GET {path} ({said}): has whoever deploys the role Op there?") from None
        return answer

    def _environment(self) -> dict[str, Any]:
        found: dict[str, Any] = self._mwaa.get_environment(Name=self._name)["Environment"]
        return found

    def _path(self, environment: Mapping[str, Any], kind: str) -> str:
        """Where the environment is told to look; if it is not yet, beside the record."""
        return str(environment.get(f"{kind}S3Path") or f"{self.own}{VERSIONED[kind]}")

    def _settled(self, patience: Patience, before: Any = ()) -> dict[str, Any]:
        """The environment when it is at rest; after an update that is another than that of `before`."""
        end = time.monotonic() + patience.update
        while True:
            there = self._environment()
            new = before == () or there.get("LastUpdate", {}).get("CreatedAt") != before
            if there["Status"] not in BUSY and new:
                return there
            if time.monotonic() > end:
                raise Failed(f"after {patience.update / 60:g} minutes the environment {self._name} is still {there['Status']}")
            time.sleep(patience.poll)
