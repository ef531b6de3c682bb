"""Vertex AI's Model Registry: models, their versions and aliases, and the operations by which they come to be."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.longrunning import operations_pb2
from google.rpc import status_pb2

from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.gcp.vertex_resources import (
    Location,
    Store,
    check_labels,
    check_list,
    check_named,
    given,
    invalid,
    made,
    new_id,
    not_found,
    now,
    page,
    selected,
    stamp,
    too_late,
)
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

SERVICE = "/google.cloud.aiplatform.v1.ModelService/"
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
MODEL_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
DEFAULT = "default"
OF_MODEL = ("display_name", "description")  # the rest is of a version; labels are of both
FAILED_PRECONDITION = 9

check_upload = honoured(
    "UploadModel",
    """
    parent parent_model model_id service_account
    model.display_name model.description model.version_description model.version_aliases model.labels model.artifact_uri
    model.encryption_spec.kms_key_name
    model.container_spec.image_uri model.container_spec.command model.container_spec.args model.container_spec.env
    model.container_spec.ports model.container_spec.predict_route model.container_spec.health_route
    """,
)


@dataclass
class Model:
    """What all versions share, and the versions in the order of their numbers, each as the members of a proto."""

    id: str
    shared: dict[str, Any]
    versions: list[dict[str, Any]]
    count: int = 0

    def shown(self, version: Mapping[str, Any]) -> dict[str, Any]:
        """A version as Vertex tells of it."""
        labels = {**self.shared.get("labels", {}), **version.get("labels", {})}
        return {**version, **self.shared, **({"labels": labels} if labels else {})}

    def find(self, wanted: str) -> dict[str, Any] | None:
        """By number or alias."""
        return next((one for one in self.versions if wanted in (one["version_id"], *one["version_aliases"])), None)


class Registry:
    def __init__(self, cloud: Cloud, location: Location) -> None:
        self._cloud, self._location = cloud, location
        self._lock = threading.RLock()
        folder = cloud.folder / "vertex"
        self._store, self._operations = Store(folder / "models"), Store(folder / "operations")
        self._models = {name: Model(**value) for name, value in self._store.load().items()}
        self._uploads = self._operations.load()

    def methods(self) -> Methods:
        return {
            f"{SERVICE}UploadModel": Method(types.UploadModelRequest, self.upload),
            f"{SERVICE}GetModel": Method(types.GetModelRequest, self.get),
            f"{SERVICE}ListModels": Method(types.ListModelsRequest, self.list_models),
            f"{SERVICE}ListModelVersions": Method(types.ListModelVersionsRequest, self.list_versions),
            f"{SERVICE}MergeVersionAliases": Method(types.MergeVersionAliasesRequest, self.merge_aliases),
            f"{SERVICE}UpdateModel": Method(types.UpdateModelRequest, self.update),
            "/google.longrunning.Operations/GetOperation": Method(operations_pb2.GetOperationRequest, self.operation),
        }

    def upload(self, request: types.UploadModelRequest) -> operations_pb2.Operation:
        """Asks for a model or a version of one, which is there when the operation is done."""
        members = given(request)
        check_upload(members)
        self._location.check(request.parent)
        model = members.get("model", {})
        parent = self._location.id_of(request.parent_model.partition("@")[0], "models") if request.parent_model else ""
        with self._lock:
            self._settle()
            self.check(model, parent, request.model_id)
            key = new_id()
            upload = {
                "name": f"{self._location.name}/models/{parent or request.model_id or new_id()}/operations/{key}",
                "model": model,
                "version_of": parent,
                "created": now(),
                "due": stamp(datetime.now(UTC) + timedelta(seconds=self._cloud.delays.start_seconds)),
            }
            self._uploads[key] = upload
            self._operations.save(key, upload)
        return _operation(upload)

    def operation(self, request: operations_pb2.GetOperationRequest) -> operations_pb2.Operation:
        with self._lock:
            self._settle()
            upload = self._uploads.get(request.name.rpartition("/")[2])
            if upload is None or request.name.partition("/locations/")[2] != upload["name"].partition("/locations/")[2]:
                raise not_found(f"Operation {request.name} is not found.")
            return _operation(upload)

    def check(self, model: Mapping[str, Any], parent: str, model_id: str = "") -> None:
        """Raises Refused if no version could come of a model that is to be uploaded."""
        check_named(model)
        for alias in model.get("version_aliases", ()):
            _check_alias(alias)
        container = model.get("container_spec", {})
        if "image_uri" not in container:
            raise NotHonoured("a model without container_spec.image_uri")
        if container["image_uri"] not in self._cloud.images:
            raise invalid(f"The image {container['image_uri']} is not found or cannot be read: it is not in images.json.")
        if parent and model_id:
            raise invalid("model_id must not be given with parent_model.")
        if model_id and not MODEL_ID.fullmatch(model_id):
            raise invalid(f"model_id {model_id!r} must match {MODEL_ID.pattern}.")
        if parent and parent not in self._models:
            raise not_found(f"The parent model {self._location.name}/models/{parent} does not exist.")
        if model_id in self._models:
            raise Refused("ALREADY_EXISTS", f"The Model {self._location.name}/models/{model_id} already exists.", 409)

    def commit(self, model: Mapping[str, Any], parent: str, model_id: str) -> dict[str, Any]:
        """A new version, of a new model if no parent is named. What is shown of it.

        Raises:
            Refused: if there is nothing at artifact_uri.
        """
        uri = model.get("artifact_uri")
        if uri and not self._cloud.objects.keys(f"{uri.rstrip('/')}/"):
            raise too_late(f"There is no object below the artifact_uri {uri}.")
        with self._lock:
            found = self._models.get(parent or model_id)
            if found is None:
                shared = {name: model[name] for name in OF_MODEL if name in model}
                shared |= {"name": f"{self._location.name}/models/{model_id}", "create_time": now(), "update_time": now()}
                found = self._models[model_id] = Model(model_id, shared, [])
            found.count += 1
            version = {name: value for name, value in model.items() if name not in OF_MODEL and value}
            version |= {"version_id": str(found.count), "version_create_time": now(), "version_update_time": now()}
            version |= {"supported_input_storage_formats": ["bigquery"], "supported_output_storage_formats": ["bigquery"]}
            version["supported_deployment_resources_types"] = ["DEDICATED_RESOURCES"]
            asked = list(dict.fromkeys(model.get("version_aliases", ())))
            version["version_aliases"] = []
            found.versions.append(version)
            self._give(found, version, [*asked, *([DEFAULT] if found.count == 1 else [])])
            self._save(found)
            return found.shown(version)

    def resolved(self, name: str) -> dict[str, Any]:
        """A version by `name`, `name@version` or `name@alias`.

        Raises:
            Refused: if it is not there.
        """
        plain, _, wanted = name.partition("@")
        with self._lock:
            self._settle()
            model = self._found(plain)
            version = model.find(wanted or DEFAULT)
            if version is None:
                raise not_found(f"The Model {name} does not exist: it has no version or alias {wanted}.")
            return model.shown(version)

    def get(self, request: types.GetModelRequest) -> types.Model:
        return _model(self.resolved(request.name))

    def list_models(self, request: types.ListModelsRequest) -> types.ListModelsResponse:
        """Each model by its default version, the newest first."""
        check_list(request)
        self._location.check(request.parent)
        meant = selected(request.filter, ("display_name", "labels"))
        with self._lock:
            self._settle()
            rows = [self.resolved(model.shared["name"]) for model in self._models.values()]
        rows.sort(key=lambda row: str(row["create_time"]), reverse=True)
        part, token = page(request, [row for row in rows if meant(row)])
        return types.ListModelsResponse(models=[_model(row) for row in part], next_page_token=token)

    def list_versions(self, request: types.ListModelVersionsRequest) -> types.ListModelVersionsResponse:
        """The newest first."""
        check_list(request)
        meant = selected(request.filter, ("labels",))
        with self._lock:
            self._settle()
            model = self._found(request.name.partition("@")[0])
            rows = [model.shown(version) for version in reversed(model.versions)]
        part, token = page(request, [row for row in rows if meant(row)])
        return types.ListModelVersionsResponse(models=[_model(row) for row in part], next_page_token=token)

    def merge_aliases(self, request: types.MergeVersionAliasesRequest) -> types.Model:
        """An alias goes to this version from whichever has it; `-alias` is taken from this version."""
        plain, _, number = request.name.partition("@")
        if not number.isdigit():
            raise invalid(f"{request.name!r} must name the number of a version: models/MODEL@VERSION.")
        if not request.version_aliases:
            raise invalid("version_aliases must not be empty.")
        taken = {alias[1:] for alias in request.version_aliases if alias.startswith("-")}
        given_to = [alias for alias in request.version_aliases if not alias.startswith("-")]
        for alias in (*taken, *given_to):
            _check_alias(alias)
        if taken & set(given_to):
            raise NotHonoured(f"an alias that is added and removed at once: {', '.join(taken & set(given_to))}")
        if DEFAULT in taken:
            raise invalid("The alias default cannot be removed: give it to another version.")
        with self._lock:
            self._settle()
            model = self._found(plain)
            version = model.find(number)
            if version is None:
                raise not_found(f"The Model {request.name} does not exist.")
            if missing := taken - set(version["version_aliases"]):
                raise invalid(f"Version {number} of {plain} has no alias {', '.join(sorted(missing))}.")
            version["version_aliases"] = [alias for alias in version["version_aliases"] if alias not in taken]
            self._give(model, version, given_to)
            version["version_update_time"] = now()
            self._save(model)
            return _model(model.shown(version))

    def update(self, request: types.UpdateModelRequest) -> types.Model:
        """Of a model: display_name, description and labels; of a version: version_description and labels."""
        paths = list(request.update_mask.paths)
        plain, _, wanted = request.model.name.partition("@")
        of_version = wanted not in ("", "-")
        if not paths:
            raise invalid("update_mask must name at least one field.")
        if unknown := set(paths) - {*OF_MODEL, "version_description", "labels"}:
            raise NotHonoured(f"{', '.join(sorted(unknown))} in update_mask of UpdateModel")
        if set(paths) & {*OF_MODEL} if of_version else "version_description" in paths:
            raise too_late(f"{', '.join(paths)}: fields of a model and of a version cannot be updated by the other's name.")
        with self._lock:
            self._settle()
            model = self._found(plain)
            version = model.find(wanted if of_version else DEFAULT)
            if version is None:
                raise not_found(f"The Model {request.model.name} does not exist.")
            if request.model.etag and request.model.etag != _etag(model.shown(version)):
                raise too_late("The etag of the request is not that of the model: it was changed meanwhile.")
            values = given(request.model)
            if "labels" in paths:
                check_labels(values.get("labels", {}))
            if "display_name" in paths:
                check_named({"display_name": values.get("display_name", "")})
            changed = version if of_version else model.shared
            for path in paths:
                changed[path] = values.get(path, {} if path == "labels" else "")
            changed["version_update_time" if of_version else "update_time"] = now()
            self._save(model)
            return _model(model.shown(version))

    def _settle(self) -> None:
        """Do the uploads whose time has come: those of an earlier life of the cloud too."""
        for key, upload in self._waiting():
            try:
                name = upload["name"].split("/models/")[1].split("/")[0]
                version = self.commit(upload["model"], upload["version_of"], name)
                upload["response"] = {"model": version["name"], "model_version_id": version["version_id"]}
            except Refused as error:
                upload["error"] = {"code": FAILED_PRECONDITION, "message": error.message}
            self._operations.save(key, upload)

    def _waiting(self) -> Iterator[tuple[str, dict[str, Any]]]:
        for key, upload in self._uploads.items():
            if "response" not in upload and "error" not in upload and upload["due"] <= now():
                yield key, upload

    def _found(self, name: str) -> Model:
        model = self._models.get(self._location.id_of(name, "models"))
        if model is None:
            raise not_found(f"The Model {name} does not exist.")
        return model

    def _give(self, model: Model, version: dict[str, Any], aliases: list[str]) -> None:
        """An alias is on one version only."""
        for one in model.versions:
            one["version_aliases"] = [alias for alias in one["version_aliases"] if alias not in aliases]
        version["version_aliases"] += aliases

    def _save(self, model: Model) -> None:
        self._store.save(model.id, {"id": model.id, "shared": model.shared, "versions": model.versions, "count": model.count})


def _check_alias(alias: str) -> None:
    if not ALIAS.fullmatch(alias):
        raise invalid(f"The version alias {alias!r} must match {ALIAS.pattern}.")


def _model(shown: Mapping[str, Any]) -> types.Model:
    model: types.Model = made(types.Model, {**shown, "etag": _etag(shown)})
    return model


def _etag(shown: Mapping[str, Any]) -> str:
    return f"{shown['update_time']}/{shown['version_update_time']}"


def _operation(upload: Mapping[str, Any]) -> operations_pb2.Operation:
    done = "response" in upload or "error" in upload
    operation = operations_pb2.Operation(name=upload["name"], done=done)
    times = {"create_time": upload["created"], "update_time": upload["due"] if done else upload["created"]}
    metadata = made(types.UploadModelOperationMetadata, {"generic_metadata": times})
    operation.metadata.Pack(types.UploadModelOperationMetadata.pb(metadata))
    if "response" in upload:
        operation.response.Pack(types.UploadModelResponse.pb(made(types.UploadModelResponse, upload["response"])))
    if "error" in upload:
        operation.error.CopyFrom(status_pb2.Status(**upload["error"]))
    return operation
