"""Where runs on Google Cloud work in these tests, on a local cloud, and what readers find there afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest

from demo import gcp_landing, google_cloud
from include.config import REPOSITORY
from include.platforms.gcp import jobs
from include.platforms.gcp.settings import GcpSettings
from tests.alike import packed_model
from tests.conformance.places import READ
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
RENTED = ("custom-job", "batch-prediction-job", "dataflow-job")


@contextmanager
def started(folder: Path) -> Iterator[GoogleCloud]:
    """A cloud with our bucket, and the templates of deploy/gcp in it."""
    with GoogleCloud(folder, IMAGES, start_seconds=0.1, job_seconds=0.2) as cloud:
        place = Place(cloud, Path(), "setup", "aileron")
        with place.settings():
            google_cloud.put_templates(place.client("storage").create_bucket(BUCKET), PIPELINES)
        yield cloud


@dataclass(frozen=True)
class Prefix:
    """The objects below a prefix of the bucket."""

    storage: Any
    prefix: str

    def keys(self, prefix: str = "") -> list[str]:
        found = self.storage.list_blobs(BUCKET, prefix=f"{self.prefix}/{prefix}")
        return [blob.name.removeprefix(f"{self.prefix}/") for blob in found]

    def read(self, name: str) -> bytes:
        content: bytes = self.storage.bucket(BUCKET).blob(f"{self.prefix}/{name}").download_as_bytes()
        return content

    def write(self, name: str, content: bytes) -> None:
        self.storage.bucket(BUCKET).blob(f"{self.prefix}/{name}").upload_from_string(content)


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
            "AILERON_REVISION": "0" * 40,
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

    def land_all(self, source: Path) -> None:
        """What a simulated source system has landed in a folder `source`."""
        with self.settings():
            asked = self.client("bigquery")
            asked.create_dataset(self.name, exists_ok=True)
            gcp_landing.land(source, BUCKET, f"{PROJECT}.{self.name}", asked, self.client("storage"))

    def copied(self, name: str, *folders: str, registry: str = "", models: Path | None = None) -> Place:
        """A place of its own with the source, and what is in these folders besides; with the ledger, what readers see too.
        Versions of a day that were published before are not there to be put back: a copy is another table."""
        place = replace(self, name=name, registry=registry or self.registry, models=models or self.models)
        with self.settings():
            bigquery, bucket = self.client("bigquery"), self.client("storage").bucket(BUCKET)
            bigquery.create_dataset(name)
            tables = [table.table_id for table in bigquery.list_tables(self.name)]
            published = [table for table in tables if table.endswith(("_predictions", "_quarantine"))]
            source = [table for table in tables if not table.startswith(("flight_delays_", "arrival_minutes_"))]
            copies = source + (published if "ledger" in folders else [])
            dataset = f"{PROJECT}.{self.name}"
            for job in [bigquery.copy_table(f"{dataset}.{table}", f"{PROJECT}.{name}.{table}") for table in copies]:
                job.result()
            for key in [key for folder in folders for key in self.objects().keys(f"{folder}/")]:
                bucket.copy_blob(bucket.blob(f"{self.name}/{key}"), bucket, f"{name}/{key}")
        return place

    def objects(self) -> Prefix:
        return Prefix(self.client("storage"), self.name)

    def keys(self, prefix: str = "") -> list[str]:
        """Names of objects, without the prefix of the place."""
        with self.settings():
            return self.objects().keys(prefix)

    def read(self, uri: str) -> bytes:
        """An object, by its URI or by its name in this place."""
        prefix, _, name = uri.removeprefix(f"gs://{BUCKET}/").partition("/") if "://" in uri else (self.name, "", uri)
        with self.settings():
            return Prefix(self.client("storage"), prefix).read(name)

    def model(self, artifact: str) -> bytes:
        return packed_model(self.read(artifact))

    def landed(self, day: str, table: str) -> pa.Table:
        with self.settings():
            sql = f"SELECT * FROM `{PROJECT}.{self.name}.{table}` WHERE partition_date = DATE '{day}'"
            found: pa.Table = self.client("bigquery").query(sql).to_arrow(create_bqstorage_client=False)
        return found

    def land(self, day: str, table: str, rows: pa.Table) -> None:
        """A day lands again, by one job."""
        partition = date.fromisoformat(day)
        if "partition_date" not in rows.column_names:
            rows = rows.append_column("partition_date", pa.array([partition] * rows.num_rows, pa.date32()))
        target = f"{PROJECT}.{self.name}.{table}${partition:%Y%m%d}"
        with self.settings():
            gcp_landing.load(table, target, partition, rows, BUCKET, self.client("bigquery"), self.client("storage"))

    def take_away(self, day: str, table: str) -> None:
        self.land(day, table, self.landed(day, table).slice(0, 0))

    def machines(self) -> list[dict[str, Any]]:
        return [job for job in self.cloud.jobs() if job["kind"] in RENTED]

    def calls(self) -> list[dict[str, Any]]:
        return self.cloud.calls()

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with self.settings():
            return [tuple(row.values()) for row in self.client("bigquery").query_and_wait(sql)]

    def rows(self, day: str, columns: str = READ, kind: str = "predictions", model: str = "flight_delays") -> list[Any]:
        """What readers see of a day."""
        return sorted(
            self.ask(f"SELECT {columns} FROM `{PROJECT}.{self.name}.{model}_{kind}` WHERE partition_date = DATE '{day}'")
        )

    def reader(self, day: str) -> Callable[[], tuple[int, int]]:
        sql = (
            f"SELECT COUNT(*), COUNT(DISTINCT run_id) FROM `{PROJECT}.{self.name}.flight_delays_predictions` "
            f"WHERE partition_date = DATE '{day}'"
        )
        asked = self.client("bigquery")

        def look() -> tuple[int, int]:
            ((rows, runs),) = [tuple(row.values()) for row in asked.query_and_wait(sql)]
            return rows, runs

        return look
