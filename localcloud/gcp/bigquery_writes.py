"""Rows that a job writes into a table or a partition: what is replaced, what must fit, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_tables import Name, Session, Table
from localcloud.gcp.bigquery_types import Field, quoted
from localcloud.service import NotHonoured, Refused

Write = Literal["WRITE_TRUNCATE", "WRITE_APPEND", "WRITE_EMPTY"]
# What a new table takes from the request of the job that makes it.
LAYOUT = ("timePartitioning", "clustering", "requirePartitionFilter", "labels", "description", "expirationTime", "type")


@dataclass(frozen=True)
class Destination:
    name: Name
    write: Write
    create: bool = True  # if there is none
    layout: Mapping[str, Any] = field(default_factory=dict)


def destination(given: Mapping[str, Any], project: str, default: Write, **layout: Any) -> Destination:
    """Where a job is asked to write: `destinationTable` and the dispositions of its configuration."""
    return Destination(
        named(given["destinationTable"], project),
        given.get("writeDisposition", default),
        given.get("createDisposition", "CREATE_IF_NEEDED") == "CREATE_IF_NEEDED",
        {name: value for name, value in {**{key: given.get(key) for key in LAYOUT}, **layout}.items() if value is not None},
    )


def named(reference: Mapping[str, Any], project: str = "") -> Name:
    """Raises Refused if it names no table."""
    dataset, whole = reference.get("datasetId", ""), str(reference.get("tableId", ""))
    table, _, partition = whole.partition("$")
    if not dataset or not table:
        raise Refused("invalid", f"Required parameter is missing: a table has a dataset and a name, not {dict(reference)}", 400)
    if "@" in whole:
        raise NotHonoured(f"the time in {whole}")
    return Name(reference.get("projectId") or project, dataset, table, partition)


def written(session: Session, to: Destination, rows: str, fields: Sequence[Field]) -> int:
    """Writes the rows of a SELECT; how many they are.

    Args:
        rows: has the columns of `fields`.

    Raises:
        Refused: as BigQuery does; nothing is to be kept then.
    """
    table = session.find(to.name)
    if table is None:
        if not to.create:
            raise Refused("notFound", f"Not found: Table {to.name.whole}", 404)
        table = session.create(to.name, fields, to.layout)
    else:
        table = _made_ready(session, table, to, fields)
    condition = session.condition(table, to.name.partition)
    touched = set()
    if to.name.partition:
        touched.add(to.name.partition)
        _check_day(session, table, to.name, rows, fields)
        if to.write == "WRITE_TRUNCATE":
            session.sql.execute(f"DELETE FROM {table.name.place} WHERE {condition}")
    return _inserted(session, table, rows, fields, touched)


def _made_ready(session: Session, table: Table, to: Destination, fields: Sequence[Field]) -> Table:
    """An existing table to which rows are to come: emptied, or known to fit."""
    if table.resource.get("type") == "SNAPSHOT":
        raise Refused("invalid", f"{table.name} is a snapshot: it cannot be written", 400)
    asked, own = to.layout.get("timePartitioning"), table.resource.get("timePartitioning")
    if asked and (own is None or {**asked, "type": "DAY"} != {**own, "type": "DAY"}):
        shown = [f"interval(type:day,field:{each['field']})" if each else "none" for each in (own, asked)]
        raise Refused(
            "invalid",
            f"Incompatible table partitioning specification. Expects partitioning specification {shown[0]}, "
            f"but input partitioning specification is {shown[1]}",
            400,
        )
    if to.write == "WRITE_EMPTY":
        condition = session.condition(table, to.name.partition)
        if session.first(f"SELECT 1 FROM {table.name.place} WHERE {condition} LIMIT 1"):
            raise Refused("duplicate", f"Already Exists: Table {to.name}", 409)
    if to.write == "WRITE_TRUNCATE" and not to.name.partition:
        # Another table by the same name, with the facts of the old one: all but its columns.
        kept = {name: table.resource[name] for name in LAYOUT if name in table.resource}
        created = table.resource["creationTime"]
        session.drop(table)
        return session.change(session.create(to.name, fields, {**kept, **to.layout}), {"creationTime": created})
    _check_fields(table, fields)
    return table


def _check_fields(table: Table, fields: Sequence[Field]) -> None:
    own = {each["name"].lower(): each for each in table.fields}
    given = {each["name"].lower() for each in fields}
    for each in fields:
        known = own.get(each["name"].lower())
        begin = f"Provided Schema does not match Table {table.name}."
        if known is None:
            raise Refused("invalid", f"{begin} Cannot add fields (field: {each['name']})", 400)
        # A whole number fits where a number is asked for; a value that may be NULL is looked at as it comes.
        if each["type"] != known["type"] and (each["type"], known["type"]) != ("INTEGER", "FLOAT"):
            change = f"from {known['type']} to {each['type']}"
            raise Refused("invalid", f"{begin} Field {each['name']} has changed type {change}", 400)
        if (each["mode"] == "REPEATED") != (known["mode"] == "REPEATED"):
            change = f"from {known['mode']} to {each['mode']}"
            raise Refused("invalid", f"{begin} Field {each['name']} has changed mode {change}", 400)
        if each["type"] == "RECORD" and types.duckdb(each) != types.duckdb(known):
            raise Refused("invalid", f"{begin} Field {each['name']} has changed", 400)
    if missing := [each["name"] for each in table.fields if each["mode"] == "REQUIRED" and each["name"].lower() not in given]:
        raise Refused("invalid", f"Required field {missing[0]} cannot be null: it is missing", 400)


def _check_day(session: Session, table: Table, name: Name, rows: str, fields: Sequence[Field]) -> None:
    day = table.day.lower()
    sql = table.partition_sql if day in {each["name"].lower() for each in fields} else "'__NULL__'"
    if session.first(f"SELECT 1 FROM ({rows}) WHERE {sql} <> '{name.partition}' LIMIT 1"):
        raise Refused("invalid", f"Some rows belong to different partitions rather than destination partition {name}", 400)


def _inserted(session: Session, table: Table, rows: str, fields: Sequence[Field], touched: set[str]) -> int:
    own = {each["name"].lower(): each for each in table.fields}
    names = ", ".join(quoted(own[each["name"].lower()]["name"]) for each in fields)
    cast = ", ".join(f"CAST({quoted(each['name'])} AS {types.duckdb(own[each['name'].lower()])})" for each in fields)
    days = table.partition_sql if table.day.lower() in {each["name"].lower() for each in fields} else f"'{_nowhere(table)}'"
    touched |= {str(row[0]) for row in session.sql.execute(f"SELECT DISTINCT {days} FROM ({rows})").fetchall()}
    done = session.first(f"INSERT INTO {table.name.place} ({names}) SELECT {cast} FROM ({rows})")
    if table.day:
        session.touched(table, touched)
    else:
        session.touched(table, {""})
    return int(done[0]) if done else 0


def _nowhere(table: Table) -> str:
    return "__NULL__" if table.day else ""
