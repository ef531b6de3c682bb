"""Where runs on AWS work in these tests, on a local cloud, and what readers find there afterwards."""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from demo import aws_landing
from include.config import REPOSITORY
from include.platforms.aws import tables
from include.platforms.aws.settings import AwsSettings
from tests.alike import packed_model
from tests.conformance.places import READ
from tests.localcloud.cloud import LocalCloud, trial_image

BUCKET = "flights"
ROLE = "arn:aws:iam::123456789012:role/aileron-jobs"
IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/aileron:1"
# The container of our jobs is this repository, in the environment of the tests. The other one does nothing, quickly.
TRIAL_IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/trial:1"
IMAGES = {
    TRIAL_IMAGE: trial_image(),
    IMAGE: {
        "directory": str(REPOSITORY),
        "path": str(REPOSITORY / ".venv" / "bin"),
        "entrypoint": ["python", "-m", "include.jobs.container"],
    },
}
# Suites ask dozens of questions of one kind, which change nothing: of each suite one of them is enough.
OUR_QUESTIONS = r"""^(?!SELECT (\* FROM|\w+ AS unexpected_values|sum\(CASE|avg|"Unexp|flight_id|count\(\*\) AS count_))"""
QUICK = 0.1  # seconds between two looks
STORES: dict[str, dict[str, Any]] = {}  # Airflow has one store for each protocol: it would go on with the cloud of other tests


@cache
def client(cloud: LocalCloud, service: str) -> Any:
    """Making one takes longer than most calls with it."""
    return cloud.client(service)


@contextmanager
def started(folder: Path) -> Iterator[LocalCloud]:
    """A cloud with our bucket."""
    with LocalCloud(folder, IMAGES, start_seconds=0.1, job_seconds=0.2) as cloud:
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        yield cloud


@dataclass(frozen=True)
class Prefix:
    """The objects below a prefix of the bucket."""

    s3: Any
    prefix: str

    def keys(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.prefix}/{prefix}")
        return [one["Key"].removeprefix(f"{self.prefix}/") for page in pages for one in page.get("Contents", [])]

    def read(self, name: str) -> bytes:
        content: bytes = self.s3.get_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}")["Body"].read()
        return content

    def write(self, name: str, content: bytes) -> None:
        self.s3.put_object(Bucket=BUCKET, Key=f"{self.prefix}/{name}", Body=content)


@dataclass(frozen=True)
class Place:
    """A prefix of the bucket and a database of the catalog of the same name, on one cloud; and a registry."""

    cloud: LocalCloud
    models: Path
    name: str
    registry: str
    image: str = IMAGE
    kills: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("s3", "glue", "sagemaker", "sns", "ses", "cloudwatch"), ""),
        "athena": OUR_QUESTIONS,
    }

    @property
    def lake(self) -> str:
        return f"s3://{BUCKET}/{self.name}"

    def environment(self, **chosen: str) -> dict[str, str]:
        """Of runs on AWS; `chosen`: settings such as deferrable="false", which is AILERON_AWS_DEFERRABLE."""
        return {
            **self.cloud.environment(),
            "AILERON_PLATFORM": "aws",
            "AILERON_REVISION": "0" * 40,
            "AILERON_MODELS": str(self.models),
            "AILERON_REGISTRY": f"sagemaker://{self.registry}",
            "AILERON_LEDGER": f"{self.lake}/ledger",
            "AILERON_OUTBOX": f"{self.lake}/outbox",
            "AILERON_PAGES": self.lake,
            "AILERON_AWS_LAKE": self.lake,
            "AILERON_AWS_DATABASE": self.name,
            "AILERON_AWS_ROLE": ROLE,
            "AILERON_AWS_IMAGE": self.image,
            "AILERON_AWS_POLL_SECONDS": "1",
            **{f"AILERON_AWS_{name.upper()}": value for name, value in chosen.items()},
        }

    @contextmanager
    def settings(self, **chosen: str) -> Iterator[pytest.MonkeyPatch]:
        """The settings of this place and no other. Nobody waits for seconds: the jobs of these tests take tenths."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AwsSettings, "seconds", QUICK)
            patch.setattr("airflow.sdk.io.store._STORE_CACHE", STORES.setdefault(self.cloud.url, {}))
            patch.setattr(tables, "QUICK_POLL", QUICK)
            for name in [name for name in os.environ if name.startswith(("AILERON_", "AWS_"))]:
                patch.delenv(name)
            for name, value in self.environment(**chosen).items():
                patch.setenv(name, value)
            yield patch

    def client(self, service: str) -> Any:
        return client(self.cloud, service)

    def copied(self, name: str, *folders: str, registry: str = "", models: Path | None = None) -> Place:
        """A place of its own with the source, and what is in these folders besides. What records and tables name stays where
        it is: artifacts, and the files of predictions, which readers of the copy see as long as it publishes no others."""
        place = replace(self, name=name, registry=registry or self.registry, models=models or self.models)
        s3, glue = self.client("s3"), self.client("glue")
        for key in [key for folder in ("source", *folders) for key in self.keys(f"{folder}/")]:
            s3.copy_object(Bucket=BUCKET, Key=f"{name}/{key}", CopySource={"Bucket": BUCKET, "Key": f"{self.name}/{key}"})
        glue.create_database(DatabaseInput={"Name": name})
        for table in glue.get_tables(DatabaseName=self.name)["TableList"]:
            storage, known = table["StorageDescriptor"], ("Name", "TableType", "Parameters", "PartitionKeys")
            if not re.search("/source/|/versions$|/versions/[^/]+/?$|/staging/[^/]+/?$", storage["Location"]):
                continue
            moved = {**storage, "Location": storage["Location"].replace(f"{self.lake}/", f"{place.lake}/", 1)}
            described = {part: table[part] for part in known if part in table}
            glue.create_table(DatabaseName=name, TableInput={**described, "StorageDescriptor": moved})
            shown = glue.get_partitions(DatabaseName=self.name, TableName=table["Name"])["Partitions"]
            for partition in shown if "ledger" in folders else ():
                given = {part: partition[part] for part in ("Values", "StorageDescriptor")}
                glue.create_partition(DatabaseName=name, TableName=table["Name"], PartitionInput=given)
        return place

    def land_all(self, source: Path) -> None:
        """What a simulated source system has landed in a folder `source`."""
        aws_landing.land(source, self.lake, self.name, self.client)

    def objects(self) -> Prefix:
        return Prefix(self.client("s3"), self.name)

    def keys(self, prefix: str = "") -> list[str]:
        """Names of objects, without the prefix of the place."""
        return self.objects().keys(prefix)

    def read(self, uri: str) -> bytes:
        """An object, by its URI or by its name in this place."""
        prefix, _, name = uri.removeprefix(f"s3://{BUCKET}/").partition("/") if "://" in uri else (self.name, "", uri)
        return Prefix(self.client("s3"), prefix).read(name)

    def model(self, artifact: str) -> bytes:
        return packed_model(self.read(artifact))

    def landed(self, day: str, table: str) -> pa.Table:
        content = self.read(f"source/{table}/partition_date={day}/data.parquet")
        return pq.read_table(io.BytesIO(content), partitioning=None)

    def land(self, day: str, table: str, rows: pa.Table) -> None:
        """A partition lands again: without its marker until it is whole."""
        s3, folder, content = self.client("s3"), f"source/{table}/partition_date={day}", io.BytesIO()
        pq.write_table(rows, content)
        s3.delete_object(Bucket=BUCKET, Key=f"{self.name}/{folder}/_SUCCESS")
        self.objects().write(f"{folder}/data.parquet", content.getvalue())
        self.objects().write(f"{folder}/_SUCCESS", json.dumps({"rows": rows.num_rows}).encode())

    def take_away(self, day: str, table: str) -> None:
        for key in self.keys(f"source/{table}/partition_date={day}/"):
            self.client("s3").delete_object(Bucket=BUCKET, Key=f"{self.name}/{key}")

    def machines(self) -> list[dict[str, Any]]:
        return [job for job in self.cloud.jobs() if job["service"] == "sagemaker"]

    def calls(self) -> list[dict[str, Any]]:
        return self.cloud.calls()

    def live(self, day: str, kind: str = "predictions", model: str = "flight_delays") -> pa.Table | None:
        """What readers see of a partition, found as Athena finds it: by the catalog. None if they see no such partition."""
        glue = self.client("glue")
        try:
            found = glue.get_partition(DatabaseName=self.name, TableName=f"{model}_{kind}", PartitionValues=[day])
        except glue.exceptions.EntityNotFoundException:
            return None
        folder = found["Partition"]["StorageDescriptor"]["Location"].removeprefix(f"s3://{BUCKET}/")
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=folder)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        data = [key for key in keys if not key.rpartition("/")[2].startswith(("_", "."))]
        tables = [pq.read_table(io.BytesIO(self.read(f"s3://{BUCKET}/{key}")), partitioning=None) for key in data]
        return pa.concat_tables(tables) if tables else pa.table({})  # of no rows Athena makes no file

    def rows(self, day: str, columns: str = READ, kind: str = "predictions", model: str = "flight_delays") -> list[Any]:
        found = self.live(day, kind, model)
        assert found is not None, f"readers see no partition {day} of {model}_{kind}"
        if not found.num_columns:
            return []
        return sorted(zip(*(found[name.strip()].to_pylist() for name in columns.split(",")), strict=True))

    def ask(self, sql: str) -> list[list[str | None]]:
        """The rows of a query of Athena, as text."""
        athena, where = self.client("athena"), {"OutputLocation": f"{self.lake}/athena/tests"}
        asked = athena.start_query_execution(
            QueryString=sql, QueryExecutionContext={"Database": self.name}, ResultConfiguration=where
        )
        while (status := self._status(athena, asked["QueryExecutionId"]))["State"] in ("QUEUED", "RUNNING"):
            pass
        assert status["State"] == "SUCCEEDED", status
        pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=asked["QueryExecutionId"])
        rows = [[cell.get("VarCharValue") for cell in row["Data"]] for page in pages for row in page["ResultSet"]["Rows"]]
        return rows[1:]

    def reader(self, day: str) -> Callable[[], tuple[int, int]]:
        sql = f"SELECT COUNT(*), COUNT(DISTINCT run_id) FROM flight_delays_predictions WHERE partition_date = DATE '{day}'"

        def look() -> tuple[int, int]:
            ((rows, runs),) = self.ask(sql)
            return int(rows or 0), int(runs or 0)

        return look

    @staticmethod
    def _status(athena: Any, execution: str) -> dict[str, Any]:
        status: dict[str, Any] = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]
        return status
