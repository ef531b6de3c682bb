"""Parquet files as BigQuery reads them in load jobs, and as it writes them in extract jobs."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_types import Field
from localcloud.service import NotHonoured, Refused

ARROW = {
    "STRING": pa.string(),
    "BYTES": pa.binary(),
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "DATE": pa.date32(),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
    "TIME": pa.time64("us"),
    "NUMERIC": pa.decimal128(38, 9),
    "JSON": pa.string(),
}
COMPRESSIONS = {"NONE": "NONE", "SNAPPY": "SNAPPY", "GZIP": "GZIP", "ZSTD": "ZSTD"}
ROWS_PER_FILE = 50_000  # BigQuery cuts by size, and nobody knows into how many


def read(uri: str, content: bytes) -> pa.Table:
    """Raises Refused if it is no Parquet file."""
    try:
        return pq.ParquetFile(io.BytesIO(content)).read()
    except (pa.ArrowInvalid, OSError) as error:
        raise Refused("invalid", f"Error while reading data, error message: {error} File: {uri}", 400) from None


def field(name: str, kind: pa.DataType) -> Field:
    """The column that a column of a file becomes."""
    plain = pa.types
    if plain.is_dictionary(kind):
        kind = kind.value_type
    if plain.is_list(kind) or plain.is_large_list(kind):
        return {**field(name, kind.value_type), "mode": "REPEATED"}
    if plain.is_struct(kind):
        inner = [field(kind.field(place).name, kind.field(place).type) for place in range(kind.num_fields)]
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": inner}
    for is_one, called in (
        (plain.is_boolean, "BOOLEAN"),
        (plain.is_integer, "INTEGER"),
        (plain.is_floating, "FLOAT"),
        (plain.is_string, "STRING"),
        (plain.is_large_string, "STRING"),
        (plain.is_string_view, "STRING"),
        (plain.is_binary, "BYTES"),
        (plain.is_large_binary, "BYTES"),
        (plain.is_date, "DATE"),
        # With or without a zone; a DATETIME it becomes only where a schema says so.
        (plain.is_timestamp, "TIMESTAMP"),
        (plain.is_time, "TIME"),
        (plain.is_null, "STRING"),
    ):
        if is_one(kind):
            return {"name": name, "type": called, "mode": "NULLABLE"}
    if plain.is_decimal(kind) and kind.scale <= 9 and kind.precision - kind.scale <= 29:
        return {"name": name, "type": "NUMERIC", "mode": "NULLABLE"}
    raise NotHonoured(f"the type {kind} of the column {name} of a Parquet file")


def arrow(field: Field) -> pa.DataType:
    """The Arrow type of a field."""
    if field["type"] == "RECORD":
        kind = pa.struct([pa.field(each["name"], arrow(each)) for each in field["fields"]])
    else:
        kind = ARROW[field["type"]]
    return pa.list_(pa.field("item", kind)) if field["mode"] == "REPEATED" else kind


def as_schema(table: pa.Table, fields: Sequence[Field], uri: str) -> pa.Table:
    """A file's rows as a schema wants them; its columns that are missing are NULL.

    Raises:
        Refused: if a column has another type, or is not in the schema.
    """
    own = {name.lower(): name for name in table.column_names}
    if strange := [name for name in own if name not in {each["name"].lower() for each in fields}]:
        raise Refused("invalid", f"No such field in the schema: {strange[0]}. File: {uri}", 400)
    columns = []
    for each in fields:
        name = own.get(each["name"].lower())
        if name is None:
            columns.append(pa.nulls(table.num_rows, arrow(each)))
            continue
        found = field(name, table.schema.field(name).type)
        wider = {("INTEGER", "FLOAT"), ("TIMESTAMP", "DATETIME"), ("INTEGER", "NUMERIC")}
        same_mode = (found["mode"] == "REPEATED") == (each["mode"] == "REPEATED")
        null = pa.types.is_null(table.schema.field(name).type)
        if not null and (not same_mode or (found["type"] != each["type"] and (found["type"], each["type"]) not in wider)):
            raise Refused(
                "invalid",
                f"Error while reading data, error message: Parquet column '{name}' has type {found['type']} which does not match"
                f" the target cpp_type {each['type']}. File: {uri}",
                400,
            )
        columns.append(_cast(table.column(name), each))
    return pa.table(columns, schema=pa.schema([pa.field(each["name"], arrow(each)) for each in fields]))


def _cast(column: pa.ChunkedArray, field: Field) -> pa.ChunkedArray:
    kind = arrow(field)
    if pa.types.is_timestamp(column.type) and pa.types.is_timestamp(kind):
        # Both count from the same moment, whatever zone is written on them.
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
        return pa.chunked_array([chunk.view(pa.int64()).view(kind) for chunk in column.chunks], type=kind)
    return column.cast(kind)


def with_path_columns(table: pa.Table, uri: str, options: Mapping[str, Any]) -> pa.Table:
    """The columns that are told by the names of folders, `/partition_date=2013-04-01/`, after those of the file.

    Raises:
        Refused: if the path is not as the options say.
    """
    mode, prefix = str(options.get("mode", "AUTO")).upper(), str(options.get("sourceUriPrefix", ""))
    declared = dict(re.findall(r"\{(\w+):(\w+)\}", prefix))
    plain = re.split(r"/?\{", prefix, maxsplit=1)[0].rstrip("/") + "/"
    if mode not in ("AUTO", "CUSTOM", "STRINGS") or (mode == "CUSTOM") != bool(declared):
        raise Refused("invalid", f"Invalid hive partitioning options: mode {mode} with the prefix {prefix}", 400)
    if not uri.startswith(plain):
        raise Refused("invalid", f"The prefix {plain} is not that of {uri}", 400)
    for name, value in re.findall(r"([^/=]+)=([^/]*)/", uri.removeprefix(plain)):
        called = "STRING" if mode == "STRINGS" else declared.get(name, "").upper() or _inferred(value)
        kind = types.SCHEMA_NAMES.get(called)
        try:
            found = types.parsed(kind or "", value) if value != "__HIVE_DEFAULT_PARTITION__" else None
        except ValueError:
            raise Refused("invalid", f"{name}={value} is no {called}. File: {uri}", 400) from None
        if kind not in ("STRING", "DATE", "INTEGER", "TIMESTAMP"):
            raise NotHonoured(f"a column of the type {called} in a path")
        table = table.append_column(name, pa.array([found] * table.num_rows, ARROW[kind]))
    return table


def _inferred(value: str) -> str:
    if re.fullmatch(r"-?\d+", value):
        return "INT64"
    try:
        date.fromisoformat(value)
    except ValueError:
        return "STRING"
    return "DATE"


def written(rows: pa.Table, fields: Sequence[Field], compression: str) -> bytes:
    """One file of an extract job."""
    schema = pa.schema([pa.field(each["name"], arrow(each), nullable=each["mode"] != "REQUIRED") for each in fields])
    buffer = io.BytesIO()
    pq.write_table(rows.cast(schema), buffer, compression=COMPRESSIONS[compression])
    return buffer.getvalue()
