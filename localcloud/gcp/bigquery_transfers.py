"""Load, extract and copy jobs: rows from files into a table, from a table into files, from tables into a table."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from localcloud.gcp import bigquery_parquet, bigquery_writes
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_parquet import COMPRESSIONS, ROWS_PER_FILE
from localcloud.gcp.bigquery_statements import failure
from localcloud.gcp.bigquery_tables import Session, Table
from localcloud.gcp.bigquery_types import Field, quoted
from localcloud.gcp.service import Objects
from localcloud.service import NotHonoured, Refused

Statistics = dict[str, Any]
LAYOUT_OF_COPY = ("timePartitioning", "clustering", "requirePartitionFilter", "description")


# Load.


def load(session: Session, objects: Objects, request: Mapping[str, Any]) -> Statistics:
    """Loads files into a table; what is to be said of it."""
    to = bigquery_writes.destination(request, session.project, "WRITE_APPEND", **_properties(request))
    files = _files(objects, request.get("sourceUris", ()))
    schema = request.get("schema", {}).get("fields")
    fields = types.read_fields(schema) if schema else None
    rows = _read(files, fields, request)
    fields = fields or [bigquery_parquet.field(each.name, each.type) for each in rows.schema]
    with session.writing():
        session.sql.register("loaded_", rows)
        try:
            number = bigquery_writes.written(session, to, "SELECT * FROM loaded_", fields)
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            raise failure(error) from None
        finally:
            session.sql.unregister("loaded_")
        size = sum(each.bytes for each in session.partitions(session.table(to.name)))
    counts = {"inputFiles": len(files), "inputFileBytes": sum(map(len, files.values())), "badRecords": 0}
    return {name: str(count) for name, count in {**counts, "outputRows": number, "outputBytes": size}.items()}


def _properties(request: Mapping[str, Any]) -> dict[str, Any]:
    return dict(request.get("destinationTableProperties") or {})


def _files(objects: Objects, uris: Any) -> dict[str, bytes]:
    """Raises Refused if a URI names nothing."""
    if not uris:
        raise Refused("invalid", "Load configuration must specify at least one source URI", 400)
    files: dict[str, bytes] = {}
    for uri in uris:
        if not uri.startswith("gs://"):
            raise Refused("invalid", f"Source URI must be a Google Cloud Storage location: {uri}", 400)
        if uri.count("*") > 1:
            raise Refused("invalid", f"Source URI must have at most one '*': {uri}", 400)
        found = objects.matching(uri)
        if not found:
            raise Refused("notFound", f"Not found: URI {uri}", 404)
        for each in found:
            files[each] = objects.read(each)
    return files


def _read(files: Mapping[str, bytes], fields: list[Field] | None, request: Mapping[str, Any]) -> pa.Table:
    tables: list[pa.Table] = []
    for uri, content in files.items():
        table = bigquery_parquet.read(uri, content)
        if request.get("parquetOptions", {}).get("enableListInference") is not True and any(
            pa.types.is_list(each.type) for each in table.schema
        ):
            raise NotHonoured("lists of Parquet files without parquetOptions.enableListInference")
        if options := request.get("hivePartitioningOptions"):
            table = bigquery_parquet.with_path_columns(table, uri, options)
        own = fields or [bigquery_parquet.field(each.name, each.type) for each in table.schema]
        if tables and not fields and [each["name"] for each in own] != tables[0].column_names:
            raise Refused(
                "invalid", f"Error while reading data, error message: the schema of {uri} is not that of the others", 400
            )
        tables.append(bigquery_parquet.as_schema(table, own, uri))
    try:
        return pa.concat_tables(tables)
    except pa.ArrowInvalid as error:
        raise Refused("invalid", f"Error while reading data, error message: {error}", 400) from None


# Extract.


def extract(session: Session, objects: Objects, request: Mapping[str, Any]) -> Statistics:
    """Writes a table into files; what is to be said of it."""
    uris = request.get("destinationUris") or [request.get("destinationUri", "")]
    if len(uris) != 1:
        raise NotHonoured("more than one destination URI of an extract job")
    pattern, compression = uris[0], request.get("compression", "NONE")
    if not pattern.startswith("gs://") or pattern.count("*") > 1:
        raise Refused("invalid", f"Invalid extract destination URI '{pattern}'. Must be a valid Google Storage path.", 400)
    if compression not in COMPRESSIONS:
        raise Refused("invalid", f"Compression {compression} is not one of Parquet's", 400)
    name = bigquery_writes.named(request["sourceTable"], session.project)
    with session.reading():
        table = session.table(name)
        columns = ", ".join(quoted(each["name"]) for each in table.fields)
        condition = session.condition(table, name.partition)
        rows = session.arrow(f"SELECT {columns} FROM {table.name.place} WHERE {condition}")
    cut = ROWS_PER_FILE if "*" in pattern else max(1, rows.num_rows)
    parts = [rows.slice(begin, cut) for begin in range(0, rows.num_rows, cut)] or [rows]
    for number, part in enumerate(parts):
        content = bigquery_parquet.written(part, table.fields, compression)
        try:
            objects.write(pattern.replace("*", f"{number:012}"), content)
        except FileNotFoundError:
            raise Refused("notFound", f"Not found: bucket of {pattern}", 404) from None
    return {"destinationUriFileCounts": [str(len(parts))], "inputBytes": str(sum(each.bytes for each in _own(session, table)))}


def _own(session: Session, table: Table) -> Any:
    with session.reading():
        return session.partitions(table)


# Copy.


def copy(session: Session, request: Mapping[str, Any]) -> Statistics:
    """Copies tables or partitions into one; what is to be said of it."""
    kind = request.get("operationType", "COPY")
    given = request.get("sourceTables") or [request.get("sourceTable", {})]
    names = [bigquery_writes.named(each, session.project) for each in given]
    with session.writing():
        tables = [session.table(name) for name in names]
        fields = tables[0].fields
        if any([_plain(each) for each in table.fields] != [_plain(each) for each in fields] for table in tables):
            raise Refused("invalid", "Copied tables must have the same schema", 400)
        layout = {key: tables[0].resource[key] for key in LAYOUT_OF_COPY if key in tables[0].resource}
        to = bigquery_writes.destination(request, session.project, "WRITE_EMPTY", **layout, **_snapshot(kind, request))
        if kind == "SNAPSHOT" and (len(tables) != 1 or to.name.partition or session.find(to.name) is not None):
            raise Refused("invalid", f"A snapshot is a new table of one other: {to.name}", 400)
        rows = " UNION ALL ".join(
            f"SELECT {', '.join(quoted(each['name']) for each in fields)} FROM {table.name.place} "
            f"WHERE {session.condition(table, name.partition)}"
            for table, name in zip(tables, names, strict=True)
        )
        # The rows are looked at before the table may be emptied that they are copied to.
        session.sql.execute(f"CREATE OR REPLACE TEMP TABLE copied_ AS {rows}")
        number = bigquery_writes.written(session, to, "SELECT * FROM copied_", fields)
        session.sql.execute("DROP TABLE copied_")
        size = sum(each.bytes for table in tables for each in session.partitions(table))
    return {"copiedRows": str(number), "copiedLogicalBytes": str(size)}


def _snapshot(kind: str, request: Mapping[str, Any]) -> dict[str, Any]:
    if kind == "SNAPSHOT":
        expires = request.get("destinationExpirationTime")
        return {"type": "SNAPSHOT", **({"expirationTime": _milliseconds(str(expires))} if expires else {})}
    if kind != "COPY" or request.get("destinationExpirationTime"):
        raise NotHonoured(f"operationType {kind} of copy jobs, and destinationExpirationTime of others than snapshots")
    return {}


def _milliseconds(moment: str) -> str:
    if moment.isdigit():
        return moment
    try:
        return str(int(datetime.fromisoformat(moment.replace("Z", "+00:00")).timestamp() * 1000))
    except ValueError:
        raise Refused("invalid", f"destinationExpirationTime is no time: {moment}", 400) from None


def _plain(field: Field) -> tuple[str, str, bool]:
    return (field["name"].lower(), types.duckdb(field), field["mode"] == "REPEATED")
