"""Vertex AI Model Registry: a model of Vertex for each model, with a version and its aliases for each version of ours.

The container of a version has the digest of its manifest in its environment, so that it serves no other files. What else
is known of it is in the description of the version; the first digits of the digest are a label, by which it is found.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow.providers.google.common.consts import CLIENT_INFO
from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError
from google.auth.exceptions import GoogleAuthError
from google.protobuf.field_mask_pb2 import FieldMask

from include.registry.base import ALIASES, Alias, ModelVersion, RegistryUnavailable, TrainingData, UnknownVersion

MANIFEST = "AILERON_MANIFEST_SHA256"
ARCHIVE = "model.tar.gz"
UPLOAD_SECONDS = 1800
LABELLED = 40  # digits of the digest that are a label
COMMAND = ["python", "-m", "include.jobs.vertex", "serve"]
PREDICT, HEALTH, PORT = "/predict", "/health", 8080


class VertexRegistry:
    """`prefix`: of the ids of its models; `image`: the container that serves; `labels`: of what it makes."""

    def __init__(
        self,
        prefix: str,
        project: str,
        region: str,
        image: str,
        connection: str = "google_cloud_default",
        kms_key: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,15}", prefix):
            raise ValueError(f"AILERON_REGISTRY: {prefix!r} must be a short prefix: a-z, 0-9 and -, like vertex://aileron")
        if not project or not region:
            raise ValueError("the registry of Vertex AI needs AILERON_GCP_PROJECT and AILERON_GCP_REGION")
        self.prefix, self.project, self.region, self.image = prefix, project, region, image
        self.connection, self.kms_key, self.labels = connection, kms_key, dict(labels or {})

    def model_id(self, model: str) -> str:
        """The id of a model of Vertex."""
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", model):
            raise ValueError(f"{model!r} cannot be the name of a model: a-z, 0-9 and _ only")
        return f"{self.prefix}-{model.replace('_', '-')}"[:63].rstrip("-")

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    def resource(self, model: str, version: str) -> str:
        """The resource name of a version, with its number.

        Raises:
            UnknownVersion, RegistryUnavailable: as `version`.
        """
        found = self._described(model, version)
        return f"{found.name.partition('@')[0]}@{found.version_id}"

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
        asked = self.upload(model, artifact, manifest_sha256, metrics, tags, parameters, data)
        with self._asked() as client:
            client.upload_model(request=asked).result(timeout=UPLOAD_SECONDS)
        return self.registered(model, manifest_sha256)

    def upload(
        self,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        parameters: Mapping[str, object] | None = None,
        data: TrainingData | None = None,
    ) -> dict[str, Any]:
        """What UploadModel is asked: for the first version of a model, or for one more."""
        if not artifact.startswith("gs://") or not artifact.endswith(f"/{ARCHIVE}"):
            raise ValueError(f"{artifact}: Vertex AI's registry takes archives {ARCHIVE} on Cloud Storage only")
        told = {
            "metrics": {name: value for name, value in metrics.items() if value is not None},
            "tags": {name: str(value) for name, value in tags.items()},
            "parameters": {name: str(value) for name, value in (parameters or {}).items()},
            **({"data": {"source": data.source, "sha256": data.sha256}} if data else {}),
        }
        described = {
            "display_name": self.model_id(model),
            "description": f"{model}, kept by Aileron",
            "version_description": json.dumps(told, sort_keys=True, allow_nan=False),
            "artifact_uri": artifact.removesuffix(f"/{ARCHIVE}"),
            "container_spec": {
                "image_uri": self.image,
                "command": COMMAND,
                "env": [{"name": MANIFEST, "value": manifest_sha256}],
                "ports": [{"container_port": PORT}],
                "predict_route": PREDICT,
                "health_route": HEALTH,
            },
            "labels": {**self.labels, "model": model, "manifest": manifest_sha256[:LABELLED]},
            **({"encryption_spec": {"kms_key_name": self.kms_key}} if self.kms_key else {}),
        }
        where = {"parent_model": self._name(model)} if self._listed(model) else {"model_id": self.model_id(model)}
        return {"parent": self.parent, "model": described, **where}

    def find(self, model: str, manifest_sha256: str) -> ModelVersion | None:
        """The first of the versions with this manifest."""
        for found in sorted(self._listed(model), key=lambda one: int(one.version_id)):
            if found.labels.get("manifest") == manifest_sha256[:LABELLED]:
                version = _version(model, self._described(model, found.version_id))
                if version.manifest_sha256 == manifest_sha256:
                    return version
        return None

    def registered(self, model: str, manifest_sha256: str) -> ModelVersion:
        """As `find`, for one that must be there.

        Raises:
            RegistryUnavailable: if it is not.
        """
        found = self.find(model, manifest_sha256)
        if found is None:
            raise RegistryUnavailable(f"{self.model_id(model)}: the version that was just registered is not there: call again")
        return found

    def version(self, model: str, version: str) -> ModelVersion:
        """See `Registry`."""
        return _version(model, self._described(model, version))

    def alias(self, model: str, alias: Alias) -> ModelVersion | None:
        """See `Registry`."""
        _check_alias(alias)
        with self._asked() as client:
            try:
                found = client.get_model(name=f"{self._name(model)}@{alias}")
            except NotFound:
                return None
        return _version(model, found)

    def set_alias(self, model: str, alias: Alias, version: str) -> None:
        """See `Registry`. An alias that another version has is taken from it by the same call."""
        _check_alias(alias)
        found = self._described(model, version)
        if alias in found.version_aliases:
            return
        with self._asked() as client:
            client.merge_version_aliases(name=f"{self._name(model)}@{version}", version_aliases=[alias])

    def record_approval(self, model: str, version: str, approved: bool, why: str) -> None:
        """See `Registry`: a label of the version. Vertex AI knows no approval of its own."""
        found, status = self._described(model, version), "approved" if approved else "rejected"
        if found.labels.get("approval") == status:
            return
        told = {"name": f"{self._name(model)}@{version}", "labels": {**found.labels, "approval": status}}
        with self._asked() as client:
            client.update_model(model=told, update_mask=FieldMask(paths=["labels"]))

    def _name(self, model: str) -> str:
        return f"{self.parent}/models/{self.model_id(model)}"

    def _listed(self, model: str) -> list[Any]:
        with self._asked() as client:
            try:
                return list(client.list_model_versions(name=self._name(model)))
            except NotFound:
                return []

    def _described(self, model: str, version: str) -> Any:
        if not re.fullmatch(r"[1-9][0-9]{0,8}", version):
            raise UnknownVersion(f"{model} has no version {version!r}: versions are numbers such as 3; see the registry")
        with self._asked() as client:
            try:
                return client.get_model(name=f"{self._name(model)}@{version}")
            except NotFound:
                raise UnknownVersion(
                    f"{model} has no version {version} in {self.model_id(model)}: choose one that is there"
                ) from None

    @contextmanager
    def _asked(self) -> Generator[Any, None, None]:
        """A client; whatever it raises that is not ours comes out as RegistryUnavailable."""
        # Takes seconds to import. The provider's hook would import all of Vertex AI's SDK, which takes thrice as long.
        from google.cloud.aiplatform_v1.services.model_service import ModelServiceClient

        try:
            credentials = GoogleBaseHook(gcp_conn_id=self.connection).get_credentials()
            where = {"api_endpoint": f"{self.region}-aiplatform.googleapis.com"}
            yield ModelServiceClient(credentials=credentials, client_info=CLIENT_INFO, client_options=where)
        except (GoogleAPICallError, RetryError, GoogleAuthError) as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise RegistryUnavailable(f"Vertex AI's model registry does not work ({reason}): try again") from error


def _version(model: str, found: Any) -> ModelVersion:
    environment = {variable.name: variable.value for variable in found.container_spec.env}
    if MANIFEST not in environment or not found.artifact_uri:
        raise UnknownVersion(
            f"version {found.version_id} of {model} has no {MANIFEST}, so its files cannot be checked: register it from here"
        )
    try:
        metrics = {name: float(value) for name, value in json.loads(found.version_description)["metrics"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        metrics = {}  # somebody has described it in other words
    return ModelVersion(model, found.version_id, f"{found.artifact_uri}/{ARCHIVE}", environment[MANIFEST], metrics)


def _check_alias(alias: str) -> None:
    if alias not in ALIASES:
        raise ValueError(f"{alias!r} is no alias: {', '.join(ALIASES)}")
