"""Tables of the Glue catalog, and the SQL of Athena about them. What readers see of predictions is a partition's location."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import date
from typing import Any
from urllib.parse import quote

from airflow.providers.amazon.aws.hooks.athena import AthenaHook

from include import queries
from include.config import ColumnType, ModelConfig
from include.platforms.aws.clients import client
from include.platforms.aws.settings import aws
from include.queries import Dialect, Query

DIALECT: Dialect = "athena"
QUICK_POLL = 0.25  # seconds; a suite asks dozens of small queries, one after the other
TYPES: Mapping[ColumnType, str] = {
    "string": "string",
    "integer": "bigint",
    "number": "double",
    "boolean": "boolean",
    "date": "date",
    "timestamp": "timestamp",
}
PARQUET = {
    "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
}
JSON_LINES = {
    "InputFormat": "org.apache.hadoop.mapred.TextInputFormat",
    "OutputFormat": "org.apache.hadoop.hive.ql.io.HiveIgnoreKeyTextOutputFormat",
    "SerdeInfo": {"SerializationLibrary": "org.openx.data.jsonserde.JsonSerDe"},
}


def named(table: str) -> str:
    """How a table of our database is written in a statement."""
    return f'"{aws().database}"."{table}"'


def of(model: ModelConfig, until: date | None = None) -> dict[str, str]:
    """How Athena reads each table of a model; with a day, as if no later partition had landed."""
    return {name: _as_of(name, until) for name in queries.table_names(model)}


def _as_of(table: str, until: date | None) -> str:
    if until is None or not is_partitioned(table):
        return named(table)
    return f"(SELECT * FROM {named(table)} WHERE partition_date <= DATE '{until}')"


def predictions(model: ModelConfig) -> str:
    return f"{model.name}_predictions"


def quarantine(model: ModelConfig) -> str:
    return f"{model.name}_quarantine"


def staged(model: ModelConfig, run: Mapping[str, Any], what: str) -> str:
    """The name of a table that only one run makes and reads."""
    return f"{model.name}_{what}_{run['workspace']}"


def new(name: str, folder: str) -> dict[str, str]:
    """A table that a statement makes: each attempt has a place of its own, so nothing half is ever in the way."""
    return {"name": name, "location": f"{folder}/{{job}}"}


def bound(query: Query, days: Mapping[str, date]) -> str:
    """A query with its days written out: Athena takes no names, and statements that make tables are read by people."""
    parts = query.sql.split(queries.PLACEHOLDERS["athena"])
    if len(parts) != len(query.parameters) + 1:
        raise ValueError(f"the query has {len(parts) - 1} places for {len(query.parameters)} parameters")
    written = [f"DATE '{days[name].isoformat()}'" for name in query.parameters]
    return "".join(part + day for part, day in zip(parts, [*written, ""], strict=True))


def create_as(table: Mapping[str, str], select: str, file_format: str = "PARQUET", one_file_by: str = "") -> str:
    """A statement that makes a table of what a SELECT gives, in files at the table's location.

    Args:
        one_file_by: a column; all rows are then in one file.
    """
    compression = "ZSTD" if file_format == "PARQUET" else "GZIP"
    chosen = [
        f"format = '{file_format}'",
        f"write_compression = '{compression}'",
        f"external_location = '{table['location']}/'",
        *([f"bucketed_by = ARRAY['{one_file_by}']", "bucket_count = 1"] if one_file_by else []),
    ]
    return f"CREATE TABLE {named(table['name'])} WITH ({', '.join(chosen)}) AS\n{select}"


def exists(table: str) -> bool:
    return _get(table) is not None


def is_at(table: Mapping[str, str]) -> bool:
    """Is there a table of this name, with its files at this place?"""
    found = _get(table["name"])
    return found is not None and found["StorageDescriptor"]["Location"].rstrip("/") == table["location"]


def is_partitioned(table: str) -> bool:
    found = _get(table)
    if found is None:
        raise LookupError(f"the Glue catalog has no table {aws().database}.{table}: create it (docs/platforms/aws.md)")
    return any(column["Name"] == "partition_date" for column in found.get("PartitionKeys", []))


def forget(table: str) -> None:
    """Take a table out of the catalog; its files stay."""
    glue = _glue()
    with suppress(glue.exceptions.EntityNotFoundException):
        glue.delete_table(DatabaseName=aws().database, Name=table)


def describe_files(
    table: Mapping[str, str],
    columns: Mapping[str, str],
    storage: Mapping[str, Any],
    keys: Mapping[str, str] | None = None,
) -> None:
    """Make a table of files that are there, or are to come; one of this name is given this place and these columns.

    Args:
        columns: name → type, as Hive has them; keys: the same, of the partitions.
    """
    glue = _glue()
    described = {
        "Name": table["name"],
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE"},
        "PartitionKeys": [{"Name": name, "Type": kind} for name, kind in (keys or {}).items()],
        "StorageDescriptor": _storage(table["location"], columns, storage),
    }
    try:
        glue.create_table(DatabaseName=aws().database, TableInput=described)
    except glue.exceptions.AlreadyExistsException:
        glue.update_table(DatabaseName=aws().database, TableInput=described)


def point(table: str, partition: date, location: str) -> None:
    """What readers see of a partition, from now on: one call, and whoever reads has the files before or these."""
    glue, where = _glue(), {"DatabaseName": aws().database, "TableName": table}
    found = _get(table)
    if found is None:
        raise LookupError(f"the Glue catalog has no table {aws().database}.{table}")
    given = {"Values": [partition.isoformat()], "StorageDescriptor": {**found["StorageDescriptor"], "Location": f"{location}/"}}
    try:
        glue.create_partition(**where, PartitionInput=given)
    except glue.exceptions.AlreadyExistsException:
        glue.update_partition(**where, PartitionValueList=given["Values"], PartitionInput=given)


def location(table: str) -> str:
    """Where the files of a table are.

    Raises:
        LookupError: if there is no such table.
    """
    found = _get(table)
    if found is None:
        raise LookupError(f"the Glue catalog has no table {aws().database}.{table}: clear the tasks that make it")
    place: str = found["StorageDescriptor"]["Location"]
    return place.rstrip("/")


def ensure(table: str, place: str, columns: Mapping[str, str], keys: Mapping[str, str]) -> None:
    """Make a table of partitions, each of which has a place of its own; one that is there stays as it is."""
    if not exists(table):
        describe_files({"name": table, "location": place}, columns, PARQUET, keys)


def url() -> str:
    """For SQLAlchemy. PyAthena takes credentials and endpoints from the environment, as every client of AWS does."""
    region = AthenaHook(aws_conn_id=aws().connection).conn_region_name
    staging = quote(f"{aws().lake}/athena/", safe="")
    settings = f"s3_staging_dir={staging}&work_group={aws().workgroup}&poll_interval={QUICK_POLL}"
    return f"awsathena+rest://@athena.{region}.amazonaws.com:443/{aws().database}?{settings}"


def answer(execution: str) -> list[dict[str, str | None]]:
    """The rows of a query that has ended, as text; None for NULL. For answers that are small."""
    names, found = rows(execution)
    return [dict(zip(names, row, strict=True)) for row in found]


def rows(execution: str) -> tuple[list[str], list[list[str | None]]]:
    """The names of the columns of an answer, and its rows, as `answer`."""
    names: list[str] = []
    rows: list[list[str | None]] = []
    for page in client("athena").get_paginator("get_query_results").paginate(QueryExecutionId=execution):
        found = [[cell.get("VarCharValue") for cell in row["Data"]] for row in page["ResultSet"]["Rows"]]
        if not names:
            names = [column["Name"] for column in page["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]]
            found = found[1:]  # the first row has the names again
        rows += found
    return names, rows


def key_type(model: ModelConfig) -> str:
    return TYPES[model.source.columns[model.source.key]]


def _storage(location: str, columns: Mapping[str, str], storage: Mapping[str, Any]) -> dict[str, Any]:
    described: Sequence[dict[str, str]] = [{"Name": name, "Type": kind} for name, kind in columns.items()]
    return {"Columns": list(described), "Location": f"{location}/", **storage}


def _get(table: str) -> dict[str, Any] | None:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,127}", table):
        raise ValueError(f"{table!r} cannot be the name of a table")
    glue = _glue()
    try:
        found: dict[str, Any] = glue.get_table(DatabaseName=aws().database, Name=table)["Table"]
    except glue.exceptions.EntityNotFoundException:
        return None
    return found


def _glue() -> Any:
    return client("glue")
