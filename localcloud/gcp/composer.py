"""Cloud Composer: environments that read a bucket of Cloud Storage, and have an Airflow that parses behind a web address."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from localcloud.gcp.service import Asked, Cloud, Operations
from localcloud.honoured import honoured
from localcloud.managed_airflow import ManagedAirflow, Source, image_of
from localcloud.service import NotHonoured, Refused

DOMAIN = "composer.googleusercontent.com"
API = "/api/v2"
check_create = honoured(
    "environments.create",
    """parent name storageConfig.bucket config.softwareConfig.imageVersion config.softwareConfig.envVariables
    config.softwareConfig.pypiPackages""",
)
VERSION = re.compile(r"composer-3-airflow-(\d+\.\d+\.\d+)(-build\.\d+)?")
NAME = re.compile(r"projects/[^/]+/locations/([^/]+)/environments/([a-z](?:[a-z0-9-]{0,62}[a-z0-9])?)")


@dataclass
class Environment:
    resource: dict[str, Any]
    airflow: ManagedAirflow

    @property
    def host(self) -> str:
        return str(self.resource["config"]["airflowUri"].removeprefix("https://"))


class Environments:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._known: dict[str, Environment] = {}

    def operations(self) -> Operations:
        return {"projects.locations.environments.create": self.create, "projects.locations.environments.get": self.get}

    def create(self, asked: Asked) -> dict[str, Any]:
        check_create({"parent": asked.params["parent"], **asked.body})
        name = asked.body.get("name", "")
        if not (match := NAME.fullmatch(name)) or not name.startswith(f"{asked.params['parent']}/"):
            raise Refused("invalid", f"the name of an environment is not {name!r}")
        if name in self._known:
            raise Refused("alreadyExists", f"the environment {name} exists", 409)
        software = asked.body.get("config", {}).get("softwareConfig", {})
        if not (version := VERSION.fullmatch(software.get("imageVersion", ""))):
            raise NotHonoured(
                "an environment without config.softwareConfig.imageVersion, such as composer-3-airflow-3.3.1-build.0"
            )
        bucket = asked.body.get("storageConfig", {}).get("bucket", "")
        if bucket not in self._cloud.objects.buckets():
            raise NotHonoured("an environment without a bucket that is there")
        image = image_of(self._cloud.images, version[1])
        home = self._cloud.folder / "composer" / match[2]
        airflow = ManagedAirflow("composer", match[2], self._cloud.jobs, image, home, self._source(bucket))
        airflow.environment = software.get("envVariables", {})
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        config = {
            "airflowUri": f"https://{hashlib.sha256(name.encode()).hexdigest()[:8]}-dot-{match[1]}.{DOMAIN}",
            "dagGcsPrefix": f"gs://{bucket}/dags",
            "softwareConfig": software,
        }
        resource = {"name": name, "config": config, "storageConfig": {"bucket": bucket}, "state": "RUNNING", "createTime": now}
        self._known[name] = Environment(resource, airflow)
        kind = "type.googleapis.com/google.cloud.orchestration.airflow.service.v1.Environment"
        return {
            "name": f"{asked.params['parent']}/operations/{match[2]}",
            "done": True,
            "response": {"@type": kind, **resource},
        }

    def get(self, asked: Asked) -> dict[str, Any]:
        if asked.params["name"] not in self._known:
            raise Refused("notFound", f"Resource not found: {asked.params['name']}", 404)
        return self._known[asked.params["name"]].resource

    def web(self, host: str, path: str, query: Mapping[str, str]) -> dict[str, Any]:
        """What GET says at an address of Airflow. Raises Refused."""
        found = next((each for each in self._known.values() if each.host == host), None)
        if found is None or not path.startswith(f"{API}/"):
            raise Refused("notFound", f"there is nothing at https://{host}{path}", 404)
        return found.airflow.answer(path.removeprefix(API), query)

    def _source(self, bucket: str) -> Source:
        """The two folders that are brought to where DAGs are parsed."""

        def listed() -> dict[str, str]:
            uris = [uri for name in ("dags/", "plugins/") for uri in self._cloud.objects.keys(f"gs://{bucket}/{name}")]
            # A file of its own for every generation.
            files = {uri.removeprefix(f"gs://{bucket}/"): self._cloud.objects.path(uri).name for uri in uris}
            return {name: generation for name, generation in files.items() if not name.endswith("/")}

        return Source(listed, lambda name: self._cloud.objects.read(f"gs://{bucket}/{name}"))


def said(error: Refused) -> bytes:
    """An error as Airflow says it."""
    return json.dumps({"detail": error.message}).encode()
