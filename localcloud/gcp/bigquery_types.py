"""The types of BigQuery: as its REST interface writes them in schemas, as the analyser has them, and as DuckDB keeps them."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from localcloud.gcp import zetasql_check
from localcloud.service import NotHonoured, Refused

Field = dict[str, Any]  # of a schema: name, type, mode, fields, description

# In a schema, in SQL, in DuckDB.
TYPES = (
    ("STRING", "STRING", "VARCHAR"),
    ("BYTES", "BYTES", "BLOB"),
    ("INTEGER", "INT64", "BIGINT"),
    ("FLOAT", "FLOAT64", "DOUBLE"),
    ("BOOLEAN", "BOOL", "BOOLEAN"),
    ("DATE", "DATE", "DATE"),
    ("DATETIME", "DATETIME", "TIMESTAMP"),
    ("TIMESTAMP", "TIMESTAMP", "TIMESTAMPTZ"),
    ("TIME", "TIME", "TIME"),
    ("NUMERIC", "NUMERIC", "DECIMAL(38,9)"),
    ("JSON", "JSON", "JSON"),
)
SCHEMA_NAMES = {alias: schema for schema, sql, _ in TYPES for alias in (schema, sql)} | {"RECORD": "RECORD", "STRUCT": "RECORD"}
SQL_NAMES = {schema: sql for schema, sql, _ in TYPES}
DUCKDB = {schema: duck for schema, _, duck in TYPES} | {"INTERVAL": "INTERVAL"}
KINDS = {
    **{schema: f"TYPE_{sql}" for schema, sql, _ in TYPES},
    "FLOAT": "TYPE_DOUBLE",
}
FIELD_MEMBERS = {"name", "type", "mode", "fields", "description"}


def read_fields(given: Iterable[Mapping[str, Any]]) -> list[Field]:
    """Fields of a schema as they are kept and shown.

    Raises:
        Refused: if one is none.
    """
    fields: list[Field] = []
    for raw in given:
        if unknown := sorted(name for name in raw.keys() - FIELD_MEMBERS if raw[name]):
            raise NotHonoured(f"{', '.join(unknown)} of the field {raw.get('name')}")
        name, mode = str(raw.get("name", "")), str(raw.get("mode") or "NULLABLE").upper()
        kind = SCHEMA_NAMES.get(str(raw.get("type", "")).upper())
        if kind is None:
            raise NotHonoured(f"the type {raw.get('type')} of the field {name}")
        if not name or mode not in ("NULLABLE", "REQUIRED", "REPEATED"):
            raise Refused("invalid", f"Field {name or '?'} is not valid: mode {mode}", 400)
        if any(name.lower() == other["name"].lower() for other in fields):
            raise Refused("invalid", f"Duplicate field name: {name}", 400)
        field = {"name": name, "type": kind, "mode": mode}
        if kind == "RECORD":
            field["fields"] = read_fields(raw.get("fields", ()))  # type: ignore[assignment]
        if raw.get("description"):
            field["description"] = raw["description"]
        fields.append(field)
    return fields


def zetasql(field: Field) -> Any:
    """A field's type for the analyser."""
    types = zetasql_check.types()
    if field["type"] == "RECORD":
        kind = types.TypeProto(type_kind=types.TYPE_STRUCT)
        for inner in field["fields"]:
            kind.struct_type.field.add(field_name=inner["name"]).field_type.CopyFrom(zetasql(inner))
    else:
        kind = types.TypeProto(type_kind=getattr(types, KINDS[field["type"]]))
    if field["mode"] != "REPEATED":
        return kind
    array = types.TypeProto(type_kind=types.TYPE_ARRAY)
    array.array_type.element_type.CopyFrom(kind)
    return array


def name_of(kind: Any) -> str:
    """What a type is called in a schema; ARRAY, ENUM, INTERVAL and others are called as the analyser calls them."""
    name = str(zetasql_check.types().TypeKind.Name(kind.type_kind)).removeprefix("TYPE_")
    return {"INT64": "INTEGER", "DOUBLE": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}.get(name, name)


def field_of(name: str, kind: Any) -> Field:
    """A column of an answer."""
    called = name_of(kind)
    if called == "ARRAY":
        element = field_of(name, kind.array_type.element_type)
        return {**element, "mode": "REPEATED"}
    if called == "RECORD":
        fields = [field_of(inner, each.field_type) for inner, each in struct_fields(kind)]
        return {"name": name, "type": "RECORD", "mode": "NULLABLE", "fields": fields}
    if called not in SQL_NAMES:
        raise NotHonoured(f"values of the type {called}")
    return {"name": name, "type": called, "mode": "NULLABLE"}


def struct_fields(kind: Any) -> list[tuple[str, Any]]:
    """The fields of a STRUCT; those without a name are called as BigQuery calls them."""
    return [(each.field_name or f"_field_{number}", each) for number, each in enumerate(kind.struct_type.field, 1)]


def duckdb_of(kind: Any) -> str:
    """DuckDB's type for one of the analyser."""
    called = name_of(kind)
    if called == "INTERVAL":
        return "INTERVAL"
    if called == "ARRAY":
        return f"{duckdb_of(kind.array_type.element_type)}[]"
    return duckdb(field_of("x", kind))


def duckdb(field: Field) -> str:
    """DuckDB's type of a field."""
    if field["type"] == "RECORD":
        inner = ", ".join(f"{quoted(each['name'])} {duckdb(each)}" for each in field["fields"])
        plain = f"STRUCT({inner})"
    else:
        plain = DUCKDB[field["type"]]
    return f"{plain}[]" if field["mode"] == "REPEATED" else plain


def sql_type(field: Field) -> str:
    """As INFORMATION_SCHEMA.COLUMNS writes it."""
    if field["type"] == "RECORD":
        plain = "STRUCT<" + ", ".join(f"{each['name']} {sql_type(each)}" for each in field["fields"]) + ">"
    else:
        plain = SQL_NAMES[field["type"]]
    return f"ARRAY<{plain}>" if field["mode"] == "REPEATED" else plain


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def text(value: str) -> str:
    """A literal of DuckDB."""
    if "\0" in value:
        raise NotHonoured("a character of code 0 in text")
    return "'" + value.replace("'", "''") + "'"


def literal(kind: Any, value: Any) -> str:
    """A ValueProto of a type in DuckDB's words; None is NULL."""
    member = value.WhichOneof("value") if value is not None else None
    if member is None:
        return f"CAST(NULL AS {duckdb_of(kind)})"
    called, found = name_of(kind), getattr(value, member)
    if called == "ARRAY":
        element = kind.array_type.element_type
        return f"CAST([{', '.join(literal(element, each) for each in found.element)}] AS {duckdb_of(kind)})"
    if called == "RECORD":
        parts = [
            f"{text(name)}: {literal(field.field_type, each)}"
            for (name, field), each in zip(struct_fields(kind), found.field, strict=True)
        ]
        return "{" + ", ".join(parts) + "}"
    return written(called, _python(called, found))


def _python(called: str, found: Any) -> Any:
    if called == "DATE":
        return date(1970, 1, 1) + timedelta(days=found)
    if called == "TIMESTAMP":
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=found.seconds, microseconds=found.nanos // 1000)
    if called == "DATETIME":
        bits = found.bit_field_datetime_seconds
        parts = (bits >> 26, bits >> 22 & 15, bits >> 17 & 31, bits >> 12 & 31, bits >> 6 & 63, bits & 63)
        return datetime(*parts, found.nanos // 1000)  # noqa: DTZ001  it has no zone
    if called == "TIME":
        seconds, nanos = found >> 30, found & (1 << 30) - 1
        return f"{seconds >> 12:02}:{seconds >> 6 & 63:02}:{seconds & 63:02}.{nanos // 1000:06}"
    if called == "NUMERIC":
        return Decimal(int.from_bytes(found, "little", signed=True)).scaleb(-9)
    if called == "INTERVAL":
        micros, days, months = struct.unpack("<qiI", found)
        whole = (months & 0x7FFFE000) >> 13
        return f"{-whole if months >> 31 else whole} months {days} days {micros} microseconds"
    return found


def written(called: str, value: Any) -> str:
    """A value of Python, of a plain type of a schema, as a literal of DuckDB."""
    if called == "INTEGER":
        # The least of all has no positive twin that could be negated.
        return f"({value}::BIGINT)" if value > -(2**63) else "(-9223372036854775807 - 1)"
    if called == "FLOAT":
        if not math.isfinite(value):
            return f"CAST('{value}' AS DOUBLE)"
        shown = repr(float(value))
        return f"({shown if 'e' in shown else shown + 'e0'})"
    if called == "BOOLEAN":
        return "true" if value else "false"
    if called in ("STRING", "JSON"):
        return text(value) if called == "STRING" else f"CAST({text(value)} AS JSON)"
    if called == "BYTES":
        return f"unhex('{value.hex()}')"
    if called == "ENUM":
        return str(value)
    if called == "NUMERIC":
        return f"CAST('{value:f}' AS DECIMAL(38,9))"
    if called not in DUCKDB:
        raise NotHonoured(f"values of the type {called}")
    return f"CAST('{value}' AS {DUCKDB[called]})"


def parameter(given: Mapping[str, Any]) -> tuple[Any, str]:
    """The type of a query parameter of the REST interface, and its value in DuckDB's words.

    Raises:
        Refused: if the value is none of its type.
    """
    field = _parameter_field(given["parameterType"])
    kind = zetasql(field)
    return kind, f"CAST({_parameter_text(field, given.get('parameterValue', {}))} AS {duckdb(field)})"


def _parameter_field(kind: Mapping[str, Any]) -> Field:
    called = str(kind.get("type", "")).upper()
    if called == "ARRAY":
        return {**_parameter_field(kind["arrayType"]), "mode": "REPEATED"}
    if called not in SCHEMA_NAMES or SCHEMA_NAMES[called] == "RECORD":
        raise NotHonoured(f"query parameters of the type {called}")
    return {"name": "parameter", "type": SCHEMA_NAMES[called], "mode": "NULLABLE"}


def _parameter_text(field: Field, value: Mapping[str, Any]) -> str:
    if field["mode"] == "REPEATED":
        element = {**field, "mode": "NULLABLE"}
        elements = [f"CAST({_parameter_text(element, each)} AS {duckdb(element)})" for each in value.get("arrayValues", ())]
        return f"[{', '.join(elements)}]"
    found = value.get("value")
    if found is None:
        return "NULL"
    kind = field["type"]
    try:
        return written(kind, parsed(kind, str(found)))
    except (ValueError, ArithmeticError):
        raise Refused("invalid", f"Invalid value for type: {SQL_NAMES[kind]} is not a valid value", 400) from None


def parsed(kind: str, value: str) -> Any:
    """A value of Python from the text by which the REST interface writes it. Raises ValueError or ArithmeticError."""
    if kind == "INTEGER":
        return int(value)
    if kind == "FLOAT":
        return float(value)
    if kind == "BOOLEAN":
        if value.lower() not in ("true", "false"):
            raise ValueError(value)
        return value.lower() == "true"
    if kind == "NUMERIC":
        return Decimal(value)
    if kind == "DATE":
        return date.fromisoformat(value)
    if kind == "TIMESTAMP":
        moment = datetime.fromisoformat(value.replace(" UTC", "+00:00").replace("Z", "+00:00"))
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if kind == "DATETIME":
        return datetime.fromisoformat(value)
    if kind == "BYTES":
        import base64

        return base64.b64decode(value, validate=True)
    if kind == "JSON":
        json.loads(value)
    return value


def columns(fields: Sequence[Field]) -> str:
    """The columns of a new table in DuckDB."""
    required = {True: " NOT NULL", False: ""}
    return ", ".join(f"{quoted(each['name'])} {duckdb(each)}{required[each['mode'] == 'REQUIRED']}" for each in fields)
