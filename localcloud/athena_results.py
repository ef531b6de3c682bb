"""How Athena writes the rows of an answer: every value as text, in GetQueryResults and in the CSV file."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlglot import exp

TYPES = {
    "VARCHAR": "varchar",
    "HUGEINT": "bigint",
    "FLOAT": "float",
    "BLOB": "varbinary",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    '"NULL"': "unknown",
}


def athena_type(kind: str) -> str:
    if kind.startswith("DECIMAL"):
        return "decimal"
    if kind in TYPES:
        return TYPES[kind]
    if kind.startswith("TIMESTAMP"):
        return "timestamp"
    if any(sign in kind for sign in "[("):
        return exp.DataType.build(kind, dialect="duckdb").sql("trino").partition("(")[0].lower()
    return kind.lower()


def column_info(name: str, kind: str) -> dict[str, Any]:
    shown = athena_type(kind)
    precision, scale = {"varchar": (2147483647, 0), "bigint": (19, 0), "integer": (10, 0), "double": (17, 0)}.get(shown, (0, 0))
    if shown == "decimal":
        precision, scale = (int(part) for part in kind.removeprefix("DECIMAL(").rstrip(")").split(","))
    return {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": name,
        "Label": name,
        "Type": shown,
        "Precision": precision,
        "Scale": scale,
        "Nullable": "UNKNOWN",
        "CaseSensitive": shown == "varchar",
    }


def text(value: Any, kind: str) -> str | None:
    """A value of a column of this type of DuckDB; None for NULL."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return java_float(value, single=kind == "FLOAT")
    if isinstance(value, datetime):
        zone = " UTC" if value.tzinfo else ""
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03}{zone}"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes):
        return value.hex(" ")
    if isinstance(value, list | tuple):
        return f"[{', '.join(text(each, '') or 'null' for each in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}={text(each, '') if each is not None else 'null'}" for key, each in value.items()) + "}"
    return str(value)


def java_float(value: float, single: bool = False) -> str:
    """The fewest digits that tell the number apart, from a thousandth to ten million without an exponent."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    sign = "-" if math.copysign(1, value) < 0 else ""
    shortest = _shortest_single(abs(value)) if single else repr(abs(value))
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        plain = f"{Decimal(shortest):f}"
        return sign + (plain if "." in plain else f"{plain}.0")
    _, digits, _ = Decimal(shortest).as_tuple()
    figures = "".join(map(str, digits)).rstrip("0") or "0"
    return f"{sign}{figures[0]}.{figures[1:] or '0'}E{Decimal(shortest).adjusted()}"


def _shortest_single(value: float) -> str:
    for digits in range(1, 9):
        shown = f"{value:.{digits}g}"
        if struct.unpack("f", struct.pack("f", float(shown)))[0] == value:
            return shown
    return f"{value:.9g}"


def csv(header: Sequence[str], rows: Sequence[Sequence[str | None]]) -> bytes:
    """All values in quotes, and nothing at all for NULL."""

    def line(row: Sequence[str | None]) -> str:
        return ",".join("" if value is None else '"' + value.replace('"', '""') + '"' for value in row) + "\n"

    return "".join(map(line, (header, *rows))).encode()
