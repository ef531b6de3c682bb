"""INFORMATION_SCHEMA of a dataset: what is known of its tables, as tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_tables import Session, Table
from localcloud.gcp.bigquery_types import Field

SCHEMA = "INFORMATION_SCHEMA"
Row = tuple[Any, ...]


def _fields(text: str) -> list[Field]:
    return types.read_fields({"name": word.partition(":")[0], "type": word.partition(":")[2]} for word in text.split())


def _tables(table: Table, session: Session) -> Iterator[Row]:
    kind = {"TABLE": "BASE TABLE"}.get(table.resource["type"], table.resource["type"])
    yield (*_name(table), kind, "YES", "NO", _moment(int(table.resource["creationTime"])))


def _columns(table: Table, session: Session) -> Iterator[Row]:
    clustered = [name.lower() for name in table.resource.get("clustering", {}).get("fields", ())]
    for number, field in enumerate(table.fields, 1):
        name = field["name"]
        place = clustered.index(name.lower()) + 1 if name.lower() in clustered else None
        nullable = "NO" if field["mode"] == "REQUIRED" else "YES"
        partitions = "YES" if name.lower() == table.day.lower() else "NO"
        yield (*_name(table), name, number, nullable, types.sql_type(field), partitions, place)


def _partitions(table: Table, session: Session) -> Iterator[Row]:
    for each in session.partitions(table):
        yield (*_name(table), each.id or None, each.rows, each.bytes, each.bytes, _moment(each.modified), "ACTIVE")


def _name(table: Table) -> Row:
    return (table.name.project, table.name.dataset, table.name.table)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


OF_TABLE = "table_catalog:STRING table_schema:STRING table_name:STRING"
VIEWS: dict[str, tuple[list[Field], Callable[[Table, Session], Iterator[Row]]]] = {
    "TABLES": (
        _fields(f"{OF_TABLE} table_type:STRING is_insertable_into:STRING is_typed:STRING creation_time:TIMESTAMP"),
        _tables,
    ),
    "COLUMNS": (
        _fields(
            f"{OF_TABLE} column_name:STRING ordinal_position:INT64 is_nullable:STRING data_type:STRING"
            " is_partitioning_column:STRING clustering_ordinal_position:INT64"
        ),
        _columns,
    ),
    "PARTITIONS": (
        _fields(
            f"{OF_TABLE} partition_id:STRING total_rows:INT64 total_logical_bytes:INT64 total_billable_bytes:INT64"
            " last_modified_time:TIMESTAMP storage_tier:STRING"
        ),
        _partitions,
    ),
}


def place(session: Session, dataset: str, view: str) -> str:
    """What stands for a view in FROM: its rows as they are now."""
    fields, rows = VIEWS[view]
    lines = [
        "(" + ", ".join(_value(value, field) for value, field in zip(row, fields, strict=True)) + ")"
        for table in session.tables(dataset)
        for row in rows(table, session)
    ]
    names = ", ".join(field["name"] for field in fields)
    nothing = f"(SELECT {', '.join(f'CAST(NULL AS {types.duckdb(each)})' for each in fields)} WHERE false)"
    found = f"(VALUES {', '.join(lines)})" if lines else nothing
    return f"{found} AS v({names})"


def _value(value: Any, field: Field) -> str:
    return f"CAST({'NULL' if value is None else types.written(field['type'], value)} AS {types.duckdb(field)})"
