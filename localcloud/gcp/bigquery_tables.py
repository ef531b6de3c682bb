"""The tables of BigQuery: rows in one DuckDB file, and beside them in the same file what is known of each table and partition.

A session is one transaction: what a job writes, rows and facts, is there as a whole or not at all, and readers see one
state. Writers take turns.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_casts import bigquery_float
from localcloud.gcp.bigquery_types import Field, quoted, text
from localcloud.service import NotHonoured, Refused

LOCATION = "US"
ANONYMOUS = "_answers"  # the dataset in which answers of queries are kept
NO_DAY = "__NULL__"
MEMORY_LIMIT = "2GB"
# What a value of a type has of bytes, as BigQuery bills them.
SIZES = {"BOOLEAN": "1", "NUMERIC": "16", "STRING": "2 + octet_length(encode({0}))", "BYTES": "2 + octet_length({0})"}


@dataclass(frozen=True)
class Name:
    project: str
    dataset: str
    table: str
    partition: str = ""  # of `table$20130401`

    def __str__(self) -> str:
        return f"{self.project}:{self.dataset}.{self.table}{f'${self.partition}' if self.partition else ''}"

    @property
    def whole(self) -> Name:
        return Name(self.project, self.dataset, self.table)

    @property
    def place(self) -> str:
        """Where it is in DuckDB."""
        return f"{quoted(f'd_{self.dataset}')}.{quoted(self.table)}"

    def reference(self) -> dict[str, str]:
        table = f"{self.table}${self.partition}" if self.partition else self.table
        return {"projectId": self.project, "datasetId": self.dataset, "tableId": table}


@dataclass(frozen=True)
class Table:
    """A table as it is known: a resource of the REST interface without what is counted."""

    name: Name
    resource: Mapping[str, Any]

    @property
    def fields(self) -> list[Field]:
        fields: list[Field] = self.resource["schema"]["fields"]
        return fields

    @property
    def day(self) -> str:
        """The column by which it is partitioned; empty if it is not."""
        return str(self.resource.get("timePartitioning", {}).get("field", ""))

    @property
    def partition_sql(self) -> str:
        """What tells the partition of a row."""
        if not self.day:
            return "''"
        return f"coalesce(strftime(CAST({quoted(self.day)} AS DATE), '%Y%m%d'), '{NO_DAY}')"


@dataclass(frozen=True)
class Partition:
    id: str  # empty: the table as a whole
    rows: int
    sizes: Mapping[str, int]  # bytes by column
    created: int
    modified: int  # milliseconds

    @property
    def bytes(self) -> int:
        return sum(self.sizes.values())


def now() -> int:
    return time.time_ns() // 1_000_000


def not_found(what: str) -> Refused:
    return Refused("notFound", f"Not found: {what}", 404)


class Session:
    """Tables within a transaction, one after another."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, project: str, lock: threading.RLock) -> None:
        self.sql = cursor
        self.project = project
        self.location = ""  # where datasets must be, if that is asked for
        self._lock = lock

    def first(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...] | None:
        """The first row of an answer, which is read to its end: a transaction cannot end before."""
        rows = self.sql.execute(sql, list(values)).fetchall()
        return rows[0] if rows else None

    def arrow(self, sql: str) -> pa.Table:
        found: Any = self.sql.execute(sql)
        rows: pa.Table = found.to_arrow_table()
        return rows

    @contextmanager
    def reading(self) -> Generator[None, None, None]:
        self.sql.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.sql.execute("ROLLBACK")
            raise
        self.sql.execute("COMMIT")

    @contextmanager
    def writing(self) -> Generator[None, None, None]:
        """What is written is there when the block ends; none of it if the block raises."""
        with self._lock, self.reading():
            yield

    # Datasets.

    def dataset(self, name: str) -> dict[str, Any]:
        """Raises Refused if there is none."""
        found = self.first("SELECT resource FROM _localcloud.datasets WHERE name = ?", [name])
        if found is None:
            raise not_found(f"Dataset {self.project}:{name}")
        return dict(json.loads(found[0]))

    def datasets(self) -> list[dict[str, Any]]:
        found = self.sql.execute("SELECT resource FROM _localcloud.datasets WHERE name[1] <> '_' ORDER BY name").fetchall()
        return [json.loads(row[0]) for row in found]

    def create_dataset(self, name: str, resource: Mapping[str, Any]) -> None:
        if self.first("SELECT 1 FROM _localcloud.datasets WHERE name = ?", [name]):
            raise Refused("duplicate", f"Already Exists: Dataset {self.project}:{name}", 409)
        self.sql.execute(f"CREATE SCHEMA {quoted(f'd_{name}')}")
        self.sql.execute("INSERT INTO _localcloud.datasets VALUES (?, ?)", [name, json.dumps(resource)])

    # Tables.

    def find(self, name: Name) -> Table | None:
        """A table that has not expired. Raises Refused if there is no such dataset."""
        self.dataset_of(name)
        found = self.first("SELECT resource FROM _localcloud.tables WHERE dataset = ? AND name = ?", [name.dataset, name.table])
        resource = json.loads(found[0]) if found else None
        return Table(name.whole, resource) if resource and not _expired(resource) else None

    def dataset_of(self, name: Name) -> dict[str, Any]:
        if name.project != self.project:
            raise not_found(f"Project {name.project}")
        found = self.dataset(name.dataset)
        if self.location and name.dataset != ANONYMOUS and found.get("location", LOCATION).lower() != self.location.lower():
            raise not_found(f"Dataset {name.project}:{name.dataset} was not found in location {self.location}")
        return found

    def table(self, name: Name) -> Table:
        """Raises Refused if there is none."""
        found = self.find(name)
        if found is None:
            raise not_found(f"Table {name.whole}")
        return found

    def tables(self, dataset: str) -> list[Table]:
        self.dataset(dataset)
        return [table for table in self._all(dataset) if not _expired(table.resource)]

    def expired(self, dataset: str) -> list[Table]:
        """Those that nobody sees any more."""
        return [table for table in self._all(dataset) if _expired(table.resource)]

    def _all(self, dataset: str) -> list[Table]:
        found = self.sql.execute(
            "SELECT name, resource FROM _localcloud.tables WHERE dataset = ? ORDER BY name", [dataset]
        ).fetchall()
        return [Table(Name(self.project, dataset, name), json.loads(resource)) for name, resource in found]

    def create(self, name: Name, fields: Sequence[Field], resource: Mapping[str, Any]) -> Table:
        """A new empty table; one of this name that has expired makes room.

        Raises:
            Refused: if there is one, or it cannot be partitioned or clustered so.
        """
        if self.find(name) is not None:
            raise Refused("duplicate", f"Already Exists: Table {name.whole}", 409)
        self._forget(name)
        moment = str(now())
        facts = {"type": "TABLE", **resource, "schema": {"fields": list(fields)}, "creationTime": moment}
        table = Table(name.whole, {**facts, "lastModifiedTime": moment})
        _check_layout(table)
        if not fields:
            raise NotHonoured("a table without columns")
        self.sql.execute(f"CREATE TABLE {name.place} ({types.columns(fields)})")
        self.sql.execute(
            "INSERT INTO _localcloud.tables VALUES (?, ?, ?)", [name.dataset, name.table, json.dumps(table.resource)]
        )
        return table

    def drop(self, table: Table) -> None:
        self._forget(table.name)

    def _forget(self, name: Name) -> None:
        self.sql.execute(f"DROP TABLE IF EXISTS {name.place}")
        self.sql.execute("DELETE FROM _localcloud.tables WHERE dataset = ? AND name = ?", [name.dataset, name.table])
        self.sql.execute("DELETE FROM _localcloud.partitions WHERE dataset = ? AND name = ?", [name.dataset, name.table])

    def change(self, table: Table, changes: Mapping[str, Any]) -> Table:
        """Other facts about a table; None takes one away."""
        merged = {**table.resource, **changes, "lastModifiedTime": str(now())}
        changed = Table(table.name, {name: value for name, value in merged.items() if value is not None})
        _check_layout(changed)
        self.sql.execute(
            "UPDATE _localcloud.tables SET resource = ? WHERE dataset = ? AND name = ?",
            [json.dumps(changed.resource), table.name.dataset, table.name.table],
        )
        return changed

    def add_columns(self, table: Table, fields: Sequence[Field]) -> Table:
        """The table with other fields: new ones at the end, other descriptions and modes that ask for less.

        Raises:
            Refused: if a field is missing, or another.
        """
        known = {field["name"].lower(): field for field in fields}
        for field in table.fields:
            given = known.get(field["name"].lower())
            if given is None:
                raise Refused(
                    "invalid", f"Provided Schema does not match Table {table.name}. Field {field['name']} is missing", 400
                )
            if {**given, "mode": "", "description": ""} != {**field, "mode": "", "description": ""}:
                raise Refused(
                    "invalid", f"Provided Schema does not match Table {table.name}. Field {field['name']} has changed", 400
                )
            if given["mode"] != field["mode"]:
                if (field["mode"], given["mode"]) != ("REQUIRED", "NULLABLE"):
                    raise Refused(
                        "invalid", f"Field {field['name']} has changed mode from {field['mode']} to {given['mode']}", 400
                    )
                self.sql.execute(f"ALTER TABLE {table.name.place} ALTER {quoted(field['name'])} DROP NOT NULL")
        old = {field["name"].lower() for field in table.fields}
        for field in fields:
            if field["name"].lower() in old:
                continue
            if field["mode"] == "REQUIRED":
                raise Refused("invalid", f"Cannot add required fields to an existing schema. (field: {field['name']})", 400)
            self.sql.execute(f"ALTER TABLE {table.name.place} ADD COLUMN {quoted(field['name'])} {types.duckdb(field)}")
        return self.change(table, {"schema": {"fields": list(fields)}})

    # Partitions.

    def partitions(self, table: Table) -> list[Partition]:
        found = self.sql.execute(
            "SELECT id, rows, sizes, created, modified FROM _localcloud.partitions WHERE dataset = ? AND name = ? ORDER BY id",
            [table.name.dataset, table.name.table],
        ).fetchall()
        return [Partition(id, rows, json.loads(sizes), created, modified) for id, rows, sizes, created, modified in found]

    def touched(self, table: Table, ids: Iterable[str]) -> None:
        """Rows of these partitions were written or removed: count them again."""
        ids, moment = sorted(set(ids)), now()
        if not ids:
            return
        created = {partition.id: partition.created for partition in self.partitions(table)}
        listed = ", ".join(map(text, ids))
        sizes = ", ".join(f"CAST(coalesce(sum({_size(field)}), 0) AS BIGINT)" for field in table.fields)
        found = self.sql.execute(
            f"SELECT {table.partition_sql} AS id, count(*), {sizes} FROM {table.name.place} "
            f"WHERE {table.partition_sql} IN ({listed}) GROUP BY ALL"
        ).fetchall()
        self.sql.execute(
            f"DELETE FROM _localcloud.partitions WHERE dataset = ? AND name = ? AND id IN ({listed})",
            [table.name.dataset, table.name.table],
        )
        names = [field["name"] for field in table.fields]
        for id, rows, *counted in found:
            known = json.dumps(dict(zip(names, counted, strict=True)))
            self.sql.execute(
                "INSERT INTO _localcloud.partitions VALUES (?, ?, ?, ?, ?, ?, ?)",
                [table.name.dataset, table.name.table, id, rows, known, created.get(id, moment), moment],
            )
        self.change(table, {})

    def condition(self, table: Table, partition: str) -> str:
        """Which rows a name with a `$` means."""
        if not partition:
            return "true"
        if not table.day:
            raise Refused("invalid", f"Cannot use a partition decorator on a table that is not partitioned: {table.name}", 400)
        if partition != NO_DAY and not (partition.isdigit() and len(partition) == 8):
            raise Refused("invalid", f"Invalid time partition specified: {partition}", 400)
        return f"{table.partition_sql} = '{partition}'"


def _size(field: Field) -> str:
    column = quoted(field["name"])
    if field["mode"] == "REPEATED" or field["type"] in ("RECORD", "JSON"):
        size = f"octet_length(encode(CAST({column} AS VARCHAR)))"
    else:
        size = SIZES.get(field["type"], "8").format(column)
    return f"CASE WHEN {column} IS NOT NULL THEN {size} END"


def _expired(resource: Mapping[str, Any]) -> bool:
    return 0 < int(resource.get("expirationTime", 0)) <= now()


def _check_layout(table: Table) -> None:
    """Raises Refused if a column is not there by which it is to be partitioned or clustered."""
    kinds = {field["name"].lower(): field for field in table.fields}
    partitioning = table.resource.get("timePartitioning")
    if partitioning is not None:
        if not partitioning.get("field"):
            raise NotHonoured("partitioning by the time of ingestion")
        if partitioning.get("type", "DAY") != "DAY" or set(partitioning) - {"type", "field"}:
            raise NotHonoured(f"the partitioning {dict(partitioning)}: only by DAY, and without expiry")
        field = kinds.get(partitioning["field"].lower())
        if field is None or field["mode"] == "REPEATED" or field["type"] not in ("DATE", "TIMESTAMP", "DATETIME"):
            raise Refused(
                "invalid",
                f"The field specified for partitioning cannot be found in the schema or is no date: {partitioning['field']}",
                400,
            )
    elif table.resource.get("requirePartitionFilter"):
        raise Refused("invalid", "require_partition_filter can only be set for partitioned tables", 400)
    for name in table.resource.get("clustering", {}).get("fields", ()):
        if name.lower() not in kinds:
            raise Refused("invalid", f"The field specified for clustering cannot be found in the schema: {name}", 400)


class Store:
    """The file. Sessions are opened on it, any number for reading, one at a time for writing."""

    def __init__(self, folder: Path, project: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.project = project  # the only one
        self._lock = threading.RLock()
        self._connection = duckdb.connect(str(folder / "bigquery.duckdb"))
        setting = self._connection
        setting.execute("SET GLOBAL TimeZone = 'UTC'")
        setting.execute(f"SET memory_limit = '{MEMORY_LIMIT}'")
        setting.execute("SET GLOBAL error_on_division_by_zero = true")
        setting.execute("SET enable_progress_bar = false")
        setting.create_function("_bigquery_float", bigquery_float, ["DOUBLE"], "VARCHAR")
        setting.execute("CREATE SCHEMA IF NOT EXISTS _localcloud")
        setting.execute("CREATE TABLE IF NOT EXISTS _localcloud.datasets (name VARCHAR, resource VARCHAR)")
        setting.execute("CREATE TABLE IF NOT EXISTS _localcloud.tables (dataset VARCHAR, name VARCHAR, resource VARCHAR)")
        setting.execute(
            "CREATE TABLE IF NOT EXISTS _localcloud.partitions (dataset VARCHAR, name VARCHAR, id VARCHAR, rows BIGINT,"
            " sizes VARCHAR, created BIGINT, modified BIGINT)"
        )
        with self.writing() as session:
            if not session.first("SELECT 1 FROM _localcloud.datasets WHERE name = ?", [ANONYMOUS]):
                session.create_dataset(ANONYMOUS, {"location": LOCATION})

    @contextmanager
    def connected(self) -> Generator[Session, None, None]:
        """A session without a transaction yet."""
        cursor = self._connection.cursor()
        try:
            yield Session(cursor, self.project, self._lock)
        finally:
            cursor.close()  # what is not committed is gone

    @contextmanager
    def reading(self) -> Generator[Session, None, None]:
        with self.connected() as session, session.reading():
            yield session

    @contextmanager
    def writing(self) -> Generator[Session, None, None]:
        with self.connected() as session, session.writing():
            yield session

    def close(self) -> None:
        self._connection.close()
