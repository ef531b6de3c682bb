"""Where runs on AWS work in these tests, on a local cloud, and what readers find there afterwards."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
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
READ = "flight_id, score, decision, model_version"


@cache
def client(cloud: LocalCloud, service: str) -> Any:
    """Making one takes longer than most calls with it."""
    return cloud.client(service)


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

    def land(self, source: Path) -> None:
        """What a simulated source system has landed in a folder `source`."""
        aws_landing.land(source, self.lake, self.name, self.client)

    def keys(self, prefix: str = "") -> list[str]:
        """Names of objects, without the prefix of the place."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{self.name}/{prefix}")
        return [one["Key"].removeprefix(f"{self.name}/") for page in pages for one in page.get("Contents", [])]

    def read(self, uri: str) -> bytes:
        """An object, by its URI or by its name in this place."""
        bucket, _, key = uri.removeprefix("s3://").partition("/") if "://" in uri else (BUCKET, "", f"{self.name}/{uri}")
        content: bytes = self.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read()
        return content

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

    @staticmethod
    def _status(athena: Any, execution: str) -> dict[str, Any]:
        status: dict[str, Any] = athena.get_query_execution(QueryExecutionId=execution)["QueryExecution"]["Status"]
        return status
