"""Cloud Composer: DAGs and plugins are synced from the environment's bucket; packages and variables are of its definition."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import google.auth
from google.api_core.exceptions import NotFound, PreconditionFailed
from google.auth.exceptions import TransportError
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage
from google.cloud.orchestration.airflow.service_v1 import Environment, EnvironmentsClient
from packaging.requirements import Requirement
from requests.exceptions import RequestException

from deploy.bundle import extras_of
from deploy.release import Interfered, Patience, Refused, Unreachable

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
SECONDS = 60  # of one call


class Bucket:
    """A bucket of Cloud Storage. A tag is a generation."""

    def __init__(self, client: storage.Client, name: str) -> None:
        self._bucket = client.bucket(name)

    def listed(self, prefix: str) -> dict[str, str]:
        return {blob.name: str(blob.generation) for blob in self._bucket.list_blobs(prefix=prefix)}

    def read(self, key: str) -> tuple[bytes, str] | None:
        blob = self._bucket.blob(key)
        try:
            return blob.download_as_bytes(), str(blob.generation)
        except NotFound:
            return None

    def put(self, key: str, content: bytes) -> str:
        blob = self._bucket.blob(key)
        blob.upload_from_string(content, content_type="application/octet-stream")
        return str(blob.generation)

    def put_over(self, key: str, content: bytes, tag: str | None) -> str:
        blob = self._bucket.blob(key)
        try:
            blob.upload_from_string(content, content_type="application/json", if_generation_match=int(tag or 0))
        except PreconditionFailed:
            raise Interfered(f"somebody else is deploying to this environment ({key} has changed): wait, deploy again") from None
        return str(blob.generation)

    def delete(self, key: str) -> None:
        self._bucket.blob(key).delete()


class Composer:
    """An environment of Cloud Composer.

    Args:
        project: empty for that of the credentials.
        location: such as us-central1.
    """

    def __init__(self, name: str, project: str, location: str) -> None:
        credentials, own = google.auth.default(scopes=[SCOPE])
        project = project or own or ""
        if not project or not location:
            raise Refused("an environment of Cloud Composer is in a project and a location: give PROJECT and LOCATION")
        client = EnvironmentsClient(credentials=credentials, transport="rest")
        full = f"projects/{project}/locations/{location}/environments/{name}"
        try:
            self._environment = client.get_environment(name=full, timeout=SECONDS)
        except NotFound:
            raise Refused(f"there is no environment {full}") from None
        self._name, self._location = name, location
        self._session = AuthorizedSession(credentials)
        bucket, _, path = self._environment.config.dag_gcs_prefix.removeprefix("gs://").partition("/")
        self.store = Bucket(storage.Client(project, credentials), bucket)
        self.own, self.dags = "aileron/", f"{path.strip('/')}/"
        self.folders: tuple[str, ...] = (self.dags, "plugins/")

    def place(self, name: str) -> str | None:
        if name.startswith("dags/"):
            return f"{self.dags}{name.removeprefix('dags/')}"
        return name if name.startswith("plugins/") else None

    def check(self, manifest: Mapping[str, Any]) -> None:
        state, image = self._environment.state, self._environment.config.software_config.image_version
        if state != Environment.State.RUNNING:
            raise Refused(f"the environment {self._name} is {Environment.State(state).name}: it must be RUNNING")
        if f"-airflow-{manifest['airflow']}-" not in f"{image}-":
            raise Refused(f"the environment {self._name} has {image}, the bundle is for Airflow {manifest['airflow']}")
        with suppress(Unreachable):  # who deploys is let in, as far as can be told now
            self.get("/importErrors", {"limit": 1})

    def changes(self, files: Mapping[str, bytes], overwrite: bool) -> list[str]:
        """None: packages belong to the definition of the environment. Without those of the bundle its DAGs would not work.

        Only packages that Cloud Composer does not bring can be asked for: the lines with a version.
        """
        there = {name.lower(): version for name, version in self._environment.config.software_config.pypi_packages.items()}
        asked = [Requirement(line) for line in files["requirements.txt"].decode().splitlines()]
        missing = [str(each) for each in asked if each.specifier and there.get(each.name) != _told(each)]
        if missing:
            raise Refused(
                f"the environment does not have {', '.join(missing)}: gcloud composer environments update {self._name} "
                f"--location={self._location} --update-pypi-packages-from-file=requirements.txt, or by what defines it"
            )
        return []

    def update(self, files: Mapping[str, bytes], patience: Patience) -> None:
        """Nothing: see `changes`."""

    def get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        uri = f"{self._environment.config.airflow_uri}/api/v2{path}"
        try:
            answer = self._session.get(uri, params=dict(query), timeout=SECONDS)
        except (RequestException, TransportError) as error:
            raise Unreachable(str(error)) from None
        if answer.status_code in (401, 403):
            raise Refused(f"whoever deploys must be let in by Airflow ({uri} says {answer.status_code}): roles/composer.user")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise Unreachable(f"{uri} says {answer.status_code}")
        answer.raise_for_status()
        found: dict[str, Any] = json.loads(answer.content)
        return found


def _told(asked: Requirement) -> str:
    """Extras and version of a package, as Cloud Composer keeps them."""
    return f"{extras_of(asked)}{asked.specifier}"
