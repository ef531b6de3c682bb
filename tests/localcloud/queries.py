"""Asking the local cloud's Athena, Glue and Redshift in tests."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.localcloud.cloud import LocalCloud

BUCKET = "lake"
OVER = ("SUCCEEDED", "FAILED", "CANCELLED")
PARQUET_SERDE = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"


@dataclass(frozen=True)
class Answer:
    id: str
    state: str
    reason: str
    header: list[str]
    rows: list[list[str | None]]
    scanned: int


def start(cloud: LocalCloud, sql: str, parameters: Sequence[str] = (), **more: Any) -> str:
    given = {"ExecutionParameters": list(parameters)} if parameters else {}
    request = {
        "QueryString": sql,
        "QueryExecutionContext": {"Database": "shop"},
        "ResultConfiguration": {"OutputLocation": f"s3://{BUCKET}/results/"},
    }
    started: str = cloud.client("athena").start_query_execution(**request, **given, **more)["QueryExecutionId"]
    return started


def ended(cloud: LocalCloud, query: str) -> Mapping[str, Any]:
    client, late = cloud.client("athena"), time.monotonic() + 60
    while time.monotonic() < late:
        execution: Mapping[str, Any] = client.get_query_execution(QueryExecutionId=query)["QueryExecution"]
        if execution["Status"]["State"] in OVER:
            return execution
        time.sleep(0.05)
    raise AssertionError(f"the query has not ended: {execution}")


def ask(cloud: LocalCloud, sql: str, parameters: Sequence[str] = ()) -> Answer:
    """Run a query to its end, however it ends."""
    query = start(cloud, sql, parameters)
    execution = ended(cloud, query)
    state, rows = execution["Status"]["State"], []
    if state == "SUCCEEDED":
        pages = cloud.client("athena").get_paginator("get_query_results").paginate(QueryExecutionId=query)
        rows = [[cell.get("VarCharValue") for cell in row["Data"]] for page in pages for row in page["ResultSet"]["Rows"]]
    reason = execution["Status"].get("StateChangeReason", "")
    return Answer(
        query, state, reason, [str(name) for name in (rows or [[]])[0]], rows[1:], execution["Statistics"]["DataScannedInBytes"]
    )


def rows(cloud: LocalCloud, sql: str, parameters: Sequence[str] = ()) -> list[list[str | None]]:
    answer = ask(cloud, sql, parameters)
    assert answer.state == "SUCCEEDED", answer.reason
    return answer.rows


def put(cloud: LocalCloud, key: str, content: bytes | pa.Table) -> str:
    """An object in the bucket of the tests; a table as Parquet."""
    if isinstance(content, pa.Table):
        buffer = io.BytesIO()
        pq.write_table(content, buffer)
        content = buffer.getvalue()
    cloud.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
    return f"s3://{BUCKET}/{key}"


def keys(cloud: LocalCloud, prefix: str) -> list[str]:
    return [each["Key"] for each in cloud.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])]


def storage(columns: Mapping[str, str], location: str, serde: str = PARQUET_SERDE, **parameters: str) -> dict[str, Any]:
    return {
        "Columns": [{"Name": name, "Type": kind} for name, kind in columns.items()],
        "Location": location,
        "SerdeInfo": {"SerializationLibrary": serde, "Parameters": parameters},
    }


def table(
    cloud: LocalCloud,
    name: str,
    columns: Mapping[str, str],
    location: str,
    keys: Mapping[str, str] | None = None,
    serde: str = PARQUET_SERDE,
    database: str = "shop",
    properties: Mapping[str, str] | None = None,
    **parameters: str,
) -> None:
    """A table of the catalog."""
    given = {
        "Name": name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": dict(properties or {}),
        "PartitionKeys": [{"Name": key, "Type": kind} for key, kind in (keys or {}).items()],
        "StorageDescriptor": storage(columns, location, serde, **parameters),
    }
    cloud.client("glue").create_table(DatabaseName=database, TableInput=given)
