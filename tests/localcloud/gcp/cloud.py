"""A local Google Cloud for tests, and this process as a client of it."""

from __future__ import annotations

import os
import shutil
import ssl
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pytest

import localcloud.gcp.client.sitecustomize  # noqa: F401  aiohttp asks the environment for proxies
from tests.localcloud.cloud import LocalCloud

PROJECT = "local-project"
REGION = "us-central1"
# What a process has that is a client of a local cloud: a server that is started from there is to have none of it.
OF_CLIENTS = ("GOOGLE_", "CLOUDSDK_", "GCE_METADATA_", "AIRFLOW_CONN_GOOGLE", "AWS_")
PROXIES = ("https_proxy", "no_proxy", "pythonpath")


@cache
def trusting(certificates: str) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificates)


class GoogleCloud(LocalCloud):
    """A server of its own, which ends with this process. All clouds of a process have the certificates of the first: gRPC reads
    what it trusts once in a process's life."""

    certificates: ClassVar[Path | None] = None
    arguments = ("--cloud", "gcp", "--project", PROJECT, "--region", REGION)

    def start(self) -> GoogleCloud:
        own, shared = self.folder / "state" / "certificates", GoogleCloud.certificates
        if shared and not own.exists():
            own.parent.mkdir(parents=True, exist_ok=True)
            (own.parent / ".localcloud").touch()
            shutil.copytree(shared, own)
        super().start()
        GoogleCloud.certificates = shared or own
        return self

    def server_environment(self) -> dict[str, str]:
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(OF_CLIENTS) and name.lower() not in PROXIES
        }
        return {**kept, "CLOUDSDK_CONFIG": ""}

    def environment(self) -> dict[str, str]:
        """What a client needs to find this cloud, and nothing else."""
        environment: dict[str, str] = self.control("GET", "environment")["environment"]
        return environment

    def take_as_client(self, patch: pytest.MonkeyPatch) -> None:
        """Make this process a client of this cloud."""
        for name, value in self.environment().items():
            if name != "PYTHONPATH":
                patch.setenv(name, value)
        # Read once in a process's life, and this one may have imported them before.
        patch.setattr("google.auth.compute_engine._metadata._GCE_METADATA_HOST", os.environ["GCE_METADATA_HOST"])
        patch.setattr("httplib2.CA_CERTS", os.environ["HTTPLIB2_CA_CERTS"])
        patch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trusting(os.environ["SSL_CERT_FILE"]))

    def proxied(self) -> list[dict[str, Any]]:
        """Every host that was asked for: {host, let_through, times}."""
        hosts: list[dict[str, Any]] = self.control("GET", "proxied")["proxied"]
        return hosts

    def refused_hosts(self) -> list[str]:
        """What would have left this machine."""
        return [each["host"] for each in self.proxied() if not each["let_through"]]

    def bucket(self, name: str) -> Any:
        """A new bucket of Cloud Storage, by the real client."""
        from google.cloud import storage

        return storage.Client(PROJECT).create_bucket(name)
