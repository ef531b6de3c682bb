"""A statement of SQL: looked at by the analyser, weighed, and done within a session."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import duckdb

from localcloud.gcp import bigquery_changes, bigquery_information, bigquery_sql, zetasql_check
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_conditions import Read, column
from localcloud.gcp.bigquery_information import SCHEMA
from localcloud.gcp.bigquery_sql import Translation
from localcloud.gcp.bigquery_tables import LOCATION, NO_DAY, Name, Session, Table
from localcloud.gcp.bigquery_types import Field, quoted, text
from localcloud.gcp.zetasql_check import Node, Path
from localcloud.service import NotHonoured, Refused

KINDS = {
    "QueryStmt": "SELECT",
    "InsertStmt": "INSERT",
    "UpdateStmt": "UPDATE",
    "DeleteStmt": "DELETE",
    "MergeStmt": "MERGE",
    "TruncateStmt": "TRUNCATE_TABLE",
    "CreateTableStmt": "CREATE_TABLE",
    "CreateTableAsSelectStmt": "CREATE_TABLE_AS_SELECT",
    "DropStmt": "DROP_TABLE",
    "AlterTableSetOptionsStmt": "ALTER_TABLE",
}
CHANGES = ("INSERT", "UPDATE", "DELETE", "MERGE")
MEGABYTE = 1024 * 1024
LEAST_BILLED = 10 * MEGABYTE
OPTIONS = {
    "expiration_timestamp": "expirationTime",
    "labels": "labels",
    "description": "description",
    "friendly_name": "friendlyName",
    "require_partition_filter": "requirePartitionFilter",
}


# Errors of DuckDB that tell of SQL which it does not understand.
OURS = (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException, duckdb.NotImplementedException)


@dataclass
class Statement:
    """A statement that may be done. sql: of a query, for DuckDB; processed: bytes that it reads."""

    kind: str
    node: Node
    translation: Translation
    target: Name | None = None  # what it changes, makes or drops
    fields: list[Field] = field(default_factory=list)  # of the answer, or of the new table
    sql: str = ""
    changes: bigquery_changes.Changes | None = None
    processed: int = 0
    referenced: list[Name] = field(default_factory=list)
    performed: str = ""  # of a statement that makes or drops tables

    @property
    def billed(self) -> int:
        return max(LEAST_BILLED, math.ceil(self.processed / MEGABYTE) * MEGABYTE) if self.processed else 0


@dataclass
class _Names:
    """The tables of a statement: by path as they are written, and by full name as they are."""

    session: Session
    default: Mapping[str, Any]  # a dataset reference, or {}
    tables: dict[str, Table] = field(default_factory=dict)
    views: dict[str, tuple[str, str]] = field(default_factory=dict)  # dataset and view

    def name(self, path: Sequence[str]) -> Name:
        project, dataset = self.session.project, self.default.get("datasetId", "")
        if len(path) == 1 and dataset:
            return Name(self.default.get("projectId") or project, dataset, path[0])
        if len(path) == 2:
            return Name(project, *path)
        if len(path) == 3:
            return Name(*path)
        if len(path) == 1:
            message = f'Table "{path[0]}" must be qualified with a dataset (e.g. dataset.table).'
            raise Refused("invalidQuery", message, 400)
        raise Refused("invalidQuery", f"Invalid table name: {'.'.join(path)}", 400)

    def found(self, path: Path) -> tuple[str, list[tuple[str, Any]]]:
        """A table's full name, and its columns for the analyser."""
        upper = [part.upper() for part in path]
        if SCHEMA in upper:
            return self._view(path, upper)
        name = self.name(path)
        if "$" in name.table or "*" in name.table:
            raise NotHonoured(f"the table name {name.table} in a query")
        table = self.session.find(name)
        if table is None:
            raise Refused(
                "notFound", f"Not found: Table {name} was not found in location {self.session.location or LOCATION}", 404
            )
        full = f"{name.project}.{name.dataset}.{name.table}"
        self.tables[full] = table
        return full, [(each["name"], types.zetasql(each)) for each in table.fields]

    def _view(self, path: Path, upper: Sequence[str]) -> tuple[str, list[tuple[str, Any]]]:
        at = upper.index(SCHEMA)
        view = upper[-1]
        if at != len(path) - 2 or view not in bigquery_information.VIEWS:
            raise NotHonoured(f"{'.'.join(path)}: only {', '.join(bigquery_information.VIEWS)} of a dataset")
        dataset = self.name([*path[:at], "of"]).dataset
        if at == 2 and path[0] != self.session.project:
            raise Refused("notFound", f"Not found: Project {path[0]}", 404)
        self.session.dataset(dataset)
        full = f"{self.session.project}.{dataset}.{SCHEMA}.{view}"
        self.views[full] = (dataset, view)
        return full, [(each["name"], types.zetasql(each)) for each in bigquery_information.VIEWS[view][0]]

    def place(self, full: str) -> str:
        if full in self.views:
            return bigquery_information.place(self.session, *self.views[full])
        return self.tables[full].name.place

    def columns(self, full: str) -> list[str]:
        if full in self.views:
            return [each["name"] for each in bigquery_information.VIEWS[self.views[full][1]][0]]
        return [each["name"] for each in self.tables[full].fields]


def prepared(session: Session, request: Mapping[str, Any]) -> Statement:
    """What a query of the REST interface asks for, with all that can be told without doing it.

    Args:
        request: query, queryParameters and defaultDataset are read.

    Raises:
        Refused: as BigQuery refuses it.
    """
    sql = zetasql_check.split_names(request["query"]).strip().rstrip(";")
    names = _Names(session, request.get("defaultDataset") or {})
    given = {each["name"].lower(): types.parameter(each) for each in request.get("queryParameters", ())}
    known = {path: names.found(path) for path in zetasql_check.table_paths(sql)}
    node = zetasql_check.analysed(sql, known, {name: kind for name, (kind, _) in given.items()})
    if node.kind not in KINDS:
        raise NotHonoured(f"statements of the kind {node.kind.removesuffix('Stmt')}")
    translation = Translation(names.place, names.columns, {name: value for name, (_, value) in given.items()})
    translation.begin(node)
    statement = Statement(KINDS[node.kind], node, translation)
    _translate(statement, names)
    statement.referenced = [table.name for table in names.tables.values()]
    reads = [read for read in translation.reads if read.table in names.tables]
    statement.processed = sum(_weight(session, names.tables[read.table], read) for read in reads)
    return statement


def _translate(statement: Statement, names: _Names) -> None:
    node, translation = statement.node, statement.translation
    if statement.kind == "SELECT":
        columns = bigquery_sql.output_names(node.output_column_list)
        kinds = {output.column.column_id: output.column.type for output in node.output_column_list}
        statement.fields = [types.field_of(name, kinds[number]) for number, name in columns]
        statement.sql = bigquery_sql.outermost(translation, node.query, columns)
    elif statement.kind in CHANGES:
        table = names.tables[node.table_scan.table.full_name]
        if table.resource["type"] != "TABLE":
            raise Refused("invalidQuery", f"{table.name} is a {table.resource['type']}: it cannot be changed", 400)
        statement.target = table.name
        statement.changes = bigquery_changes.translated(node, table, translation)
    elif statement.kind == "TRUNCATE_TABLE":
        statement.target = names.tables[node.table_scan.table.full_name].name
    else:
        if statement.kind.startswith("CREATE") and node.create_scope != "CREATE_DEFAULT_SCOPE":
            raise NotHonoured("CREATE TEMP TABLE")
        statement.target = names.name(node.name_path)
        names.session.dataset_of(statement.target)
        if statement.kind == "CREATE_TABLE_AS_SELECT":
            columns = bigquery_sql.output_names(node.output_column_list)
            statement.sql = bigquery_sql.outermost(translation, node.query, columns)
        if statement.kind.startswith("CREATE"):
            statement.fields = [_defined(each) for each in node.column_definition_list]


def _defined(column: Node) -> Field:
    defined = types.field_of(column.name, column.type)
    annotations = column.annotations
    if column.generated_column_info is not None or column.default_value is not None or column.is_hidden:
        raise NotHonoured(f"a default or a generated value of {column.name}")
    if annotations is not None:
        if annotations.not_null and defined["mode"] == "NULLABLE":
            defined["mode"] = "REQUIRED"
        for option in annotations.option_list:
            if option.name != "description":
                raise NotHonoured(f"the option {option.name} of a column")
            defined["description"] = bigquery_sql.constant(option.value)
    return defined


# How much is read.


def _weight(session: Session, table: Table, read: Read) -> int:
    """The bytes of the columns that are read, of the partitions that can matter.

    Raises:
        Refused: if the table must be asked for some partitions, and is asked for all.
    """
    partitions = session.partitions(table)
    if table.day:
        own = next((number for number, name in read.columns.items() if name.lower() == table.day.lower()), None)
        conditions = [each.sql for each in read.conditions if each.columns == {own}]
        if not conditions and table.resource.get("requirePartitionFilter"):
            name = table.name
            raise Refused(
                "invalidQuery",
                f"Cannot query over table '{name.project}.{name.dataset}.{name.table}' without a filter over column(s) "
                f"'{table.day}' that can be used for partition elimination",
                400,
            )
        dates = next(each["type"] for each in table.fields if each["name"].lower() == table.day.lower()) == "DATE"
        if conditions and dates and own is not None and partitions:
            kept = _kept(session, [each.id for each in partitions], column(own), conditions)
            partitions = [each for each in partitions if each.id in kept]
    return sum(each.sizes.get(name, 0) for each in partitions for name in read.columns.values())


def _kept(session: Session, ids: Sequence[str], day: str, conditions: Sequence[str]) -> set[str]:
    days = ", ".join(
        f"({text(id)}, {'NULL' if id == NO_DAY else f'make_date({id[:4]}, {int(id[4:6])}, {int(id[6:])})'})" for id in ids
    )
    where = " AND ".join(conditions)
    try:
        found = session.sql.execute(f"SELECT id FROM (VALUES {days}) AS d(id, {day}) WHERE {where}").fetchall()
    except duckdb.Error as error:
        raise failure(error) from None
    return {str(row[0]) for row in found}


# How it is done.


def failure(error: duckdb.Error) -> Refused:
    """What went wrong as rows were looked at, in BigQuery's way."""
    message = str(error).split("\n\n")[0].split("\nLINE ")[0]
    plain = re.sub(
        r"^(Invalid Input|Conversion|Out of Range|Constraint|Binder|Catalog|Parser|Not implemented) Error: ", "", message
    )
    if isinstance(
        error, duckdb.BinderException | duckdb.CatalogException | duckdb.ParserException | duckdb.NotImplementedException
    ):
        # The analyser has understood it: that DuckDB has not is nobody's fault but ours.
        return NotHonoured(f"this query ({plain})")
    return Refused("invalidQuery", plain, 400)


def answered(session: Session, statement: Statement, place: str) -> None:
    """Runs a query, its answer in a temporary table."""
    try:
        session.sql.execute(f"CREATE OR REPLACE TEMP TABLE {place} AS {statement.sql}")
    except duckdb.Error as error:
        raise failure(error) from None


def done(session: Session, statement: Statement) -> None:
    """Does what is no query, within the transaction of the session."""
    assert statement.target is not None
    try:
        if statement.changes is not None:
            bigquery_changes.applied(session, session.table(statement.target), statement.changes)
        elif statement.kind == "TRUNCATE_TABLE":
            table = session.table(statement.target)
            session.sql.execute(f"DELETE FROM {table.name.place}")
            session.touched(table, [each.id for each in session.partitions(table)])
        elif statement.kind == "DROP_TABLE":
            _drop(session, statement)
        elif statement.kind == "ALTER_TABLE":
            session.change(session.table(statement.target), _options(session, statement))
            statement.performed = "REPLACE"
        else:
            _create(session, statement)
    except duckdb.InterruptException:
        raise
    except duckdb.Error as error:
        raise failure(error) from None


def _drop(session: Session, statement: Statement) -> None:
    node = statement.node
    if node.object_type.upper() != "TABLE":
        raise NotHonoured(f"DROP {node.object_type}")
    assert statement.target is not None
    table = session.find(statement.target)
    if table is None and not node.is_if_exists:
        raise Refused("notFound", f"Not found: Table {statement.target}", 404)
    if table is not None:
        session.drop(table)
    statement.performed = "DROP" if table is not None else "SKIP"


def _create(session: Session, statement: Statement) -> None:
    node, name = statement.node, statement.target
    assert name is not None
    for what in ("collation_name", "connection", "primary_key", "clone_from", "copy_from"):
        if getattr(node, what, None):
            raise NotHonoured(f"{what} of CREATE TABLE")
    if node.like_table is not None and node.like_table.name:
        raise NotHonoured("CREATE TABLE ... LIKE")
    if node.foreign_key_list or node.check_constraint_list:
        raise NotHonoured("constraints of CREATE TABLE")
    existing = session.find(name)
    if existing is not None and node.create_mode == "CREATE_IF_NOT_EXISTS":
        statement.performed = "SKIP"
        return
    if existing is not None and node.create_mode == "CREATE_OR_REPLACE":
        session.drop(existing)
    statement.performed = "REPLACE" if existing is not None else "CREATE"
    table = session.create(name, statement.fields, {**_layout(node), **_options(session, statement)})
    if statement.kind == "CREATE_TABLE_AS_SELECT":
        names = ", ".join(quoted(each["name"]) for each in statement.fields)
        cast = ", ".join(f"CAST({quoted(each['name'])} AS {types.duckdb(each)})" for each in statement.fields)
        session.sql.execute(f"INSERT INTO {name.place} ({names}) SELECT {cast} FROM answer_")
        rows = session.sql.execute(f"SELECT DISTINCT {table.partition_sql} FROM {name.place}").fetchall()
        session.touched(table, [str(row[0]) for row in rows])


def _layout(node: Node) -> dict[str, Any]:
    """PARTITION BY and CLUSTER BY."""
    names = {each.column.column_id: each.name for each in node.column_definition_list}
    layout: dict[str, Any] = {}
    for each in node.partition_by_list:
        day = each
        if day.kind == "FunctionCall" and day.function.name in ("ZetaSQL:date", "ZetaSQL:$extract_date"):
            day = day.argument_list[0]
        if day.kind != "ColumnRef" or layout:
            raise NotHonoured("PARTITION BY anything but the day of a column")
        layout["timePartitioning"] = {"type": "DAY", "field": names[day.column.column_id]}
    if node.cluster_by_list:
        if any(each.kind != "ColumnRef" for each in node.cluster_by_list):
            raise NotHonoured("CLUSTER BY anything but columns")
        layout["clustering"] = {"fields": [names[each.column.column_id] for each in node.cluster_by_list]}
    return layout


def _options(session: Session, statement: Statement) -> dict[str, Any]:
    """OPTIONS(...) as members of a table's resource; None takes one away."""
    found: dict[str, Any] = {}
    for option in statement.node.option_list:
        if option.name not in OPTIONS:
            raise NotHonoured(f"the option {option.name} of a table")
        row = session.first(f"SELECT {statement.translation.expression(option.value)}")
        found[OPTIONS[option.name]] = _option(row[0] if row else None)
    return found


def _option(value: Any) -> Any:
    if isinstance(value, datetime):
        return str(int(value.timestamp() * 1000))
    if isinstance(value, list):  # labels: pairs of a name and a value
        pairs = [tuple(each.values()) if isinstance(each, dict) else tuple(each) for each in value]
        return dict(pairs)
    return value
