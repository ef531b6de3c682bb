"""Where runs on Google Cloud work in these tests, on a local cloud, and what readers find there afterwards."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from demo import gcp_landing
from include.config import REPOSITORY
from include.platforms.gcp import jobs
from include.platforms.gcp.settings import GcpSettings
from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud

BUCKET = "flights"
IMAGE = "us-docker.pkg.dev/local-project/aileron/jobs:1"
SERVICE_ACCOUNT = f"aileron-jobs@{PROJECT}.iam.gserviceaccount.com"
TEMPLATES = f"gs://{BUCKET}/templates"
PIPELINES = "us-docker.pkg.dev/local-project/aileron/pipelines:1"
OURS = {"directory": str(REPOSITORY)}
# The container of our jobs is this repository, in the environment of the tests; Beam's is that of the local cloud.
IMAGES = {
    IMAGE: {
        **OURS,
        "path": str(REPOSITORY / ".venv" / "bin"),
        "entrypoint": ["python", "-m", "include.jobs.vertex"],
        "environment": {"AILERON_GCS": "{gcs}", "AILERON_BIND": "127.0.0.1"},
    },
    PIPELINES: {
        **OURS,
        "path": str(REPOSITORY / ".venv-localcloud" / "bin"),
        "entrypoint": ["python", "deploy/gcp/launch.py"],
        "environment": {"PYTHONPATH": str(REPOSITORY)},
    },
}
QUICK = 0.1  # seconds between two looks
READ = "flight_id, score, decision, model_version"


@dataclass(frozen=True)
class Place:
    """A prefix of the bucket and a dataset of the same name, on one cloud; and a registry."""

    cloud: GoogleCloud
    models: Path
    name: str
    registry: str
    kills: ClassVar[dict[str, str]] = dict.fromkeys(("storage", "bigquery", "aiplatform", "dataflow", "monitoring"), "")

    @property
    def lake(self) -> str:
        return f"gs://{BUCKET}/{self.name}"

    def environment(self, **chosen: str) -> dict[str, str]:
        """Of runs on Google Cloud; `chosen`: settings such as deferrable="false", which is AILERON_GCP_DEFERRABLE."""
        return {
            **{name: value for name, value in self.cloud.environment().items() if name != "PYTHONPATH"},
            "AILERON_PLATFORM": "gcp",
            "AILERON_MODELS": str(self.models),
            "AILERON_REGISTRY": f"vertex://{self.registry}",
            "AILERON_LEDGER": f"{self.lake}/ledger",
            "AILERON_OUTBOX": f"{self.lake}/outbox",
            "AILERON_PAGES": self.lake,
            "AILERON_GCP_PROJECT": PROJECT,
            "AILERON_GCP_REGION": REGION,
            "AILERON_GCP_LAKE": self.lake,
            "AILERON_GCP_DATASET": self.name,
            "AILERON_GCP_IMAGE": IMAGE,
            "AILERON_GCP_TEMPLATES": TEMPLATES,
            "AILERON_GCP_SERVICE_ACCOUNT": SERVICE_ACCOUNT,
            "AILERON_GCP_POLL_SECONDS": "1",
            **{f"AILERON_GCP_{name.upper()}": value for name, value in chosen.items()},
        }

    @contextmanager
    def settings(self, **chosen: str) -> Iterator[pytest.MonkeyPatch]:
        """The settings of this place and no other. Nobody waits for seconds: the jobs of these tests take tenths."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(GcpSettings, "seconds", QUICK)
            patch.setattr(jobs, "QUICK_POLL", QUICK)
            for name in [name for name in os.environ if name.startswith(("AILERON_", "AWS_", "GOOGLE_"))]:
                patch.delenv(name)
            for name, value in self.environment(**chosen).items():
                patch.setenv(name, value)
            self.cloud.take_as_client(patch)
            yield patch

    def client(self, service: str) -> Any:
        """A client of Google's own library: bigquery or storage."""
        from google.cloud import bigquery, storage

        with self.settings():
            return {"bigquery": bigquery.Client, "storage": storage.Client}[service](project=PROJECT)

    def land(self, source: Path) -> None:
        """What a simulated source system has landed in a folder `source`."""
        with self.settings():
            asked = self.client("bigquery")
            asked.create_dataset(self.name, exists_ok=True)
            gcp_landing.land(source, BUCKET, f"{PROJECT}.{self.name}", asked, self.client("storage"))

    def keys(self, prefix: str = "") -> list[str]:
        """Names of objects, without the prefix of the place."""
        with self.settings():
            found = self.client("storage").list_blobs(BUCKET, prefix=f"{self.name}/{prefix}")
            return [blob.name.removeprefix(f"{self.name}/") for blob in found]

    def read(self, uri: str) -> bytes:
        """An object, by its URI or by its name in this place."""
        bucket, _, key = uri.removeprefix("gs://").partition("/") if "://" in uri else (BUCKET, "", f"{self.name}/{uri}")
        with self.settings():
            content: bytes = self.client("storage").bucket(bucket).blob(key).download_as_bytes()
        return content

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.settings():
            return [tuple(row.values()) for row in self.client("bigquery").query_and_wait(sql)]

    def rows(self, day: str, columns: str = READ, kind: str = "predictions", model: str = "flight_delays") -> list[Any]:
        """What readers see of a day."""
        return sorted(
            self.ask(f"SELECT {columns} FROM `{PROJECT}.{self.name}.{model}_{kind}` WHERE partition_date = DATE '{day}'")
        )


def packed_model(archive: bytes) -> bytes:
    """The file of a trained model in an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        (member,) = [member for member in files.getmembers() if member.name.endswith("model.ubj")]
        content = files.extractfile(member)
        assert content is not None
        return content.read()
