"""Tables of the catalog as DuckDB reads and writes them: files of S3 below the locations that the catalog names."""

from __future__ import annotations

import re
import secrets
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from duckdb import DuckDBPyConnection
from sqlglot import exp

from localcloud.athena_sql import JSON_SERDE, PARQUET, PARQUET_SERDE, TEXT, QueryFailed
from localcloud.files import Files

FILE = "*file"  # the column that tells where a row is from; no column of a table can be called so
NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
MOST_WRITTEN_PARTITIONS = 100
# Athena writes with many hands, and no reader may count on one file or on the order of the rows in all of them.
WRITERS = 2

SERDES = {
    PARQUET_SERDE.lower(): "parquet",
    JSON_SERDE.lower(): "json",
    "org.apache.hive.hcatalog.data.jsonserde": "json",
    "org.apache.hadoop.hive.serde2.jsonserde": "json",
    "org.apache.hadoop.hive.serde2.lazy.lazysimpleserde": "delimited",
    "org.apache.hadoop.hive.serde2.opencsvserde": "csv",
}
WIDTHS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT")
# What a type of the catalog accepts of a Parquet file; anything else is HIVE_BAD_DATA, as in Athena.
READABLE: Mapping[str, Sequence[str]] = {
    **{width: WIDTHS[: number + 1] for number, width in enumerate(("TINYINT", "SMALLINT", "INT", "BIGINT"))},
    "DOUBLE": ("FLOAT", "DOUBLE"),
    "REAL": ("FLOAT",),
    "TEXT": ("VARCHAR", "BLOB"),
    "DATE": ("DATE",),
    "BOOLEAN": ("BOOLEAN",),
    "BLOB": ("BLOB", "VARCHAR"),
    "TIMESTAMP": ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
}
# The types of DuckDB that Hive has too.
HIVE_TYPES = {
    "VARCHAR": "string",
    "HUGEINT": "bigint",
    "INTEGER": "int",
    "BIGINT": "bigint",
    "SMALLINT": "smallint",
    "TINYINT": "tinyint",
    "DOUBLE": "double",
    "FLOAT": "float",
    "BOOLEAN": "boolean",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "BLOB": "binary",
}


@dataclass(frozen=True)
class Relation:
    """A table as a SELECT of DuckDB. columns: with the types of DuckDB; scanned: bytes of its files."""

    sql: str
    columns: Mapping[str, str]
    scanned: int


@dataclass(frozen=True)
class Written:
    """What a query has left in files. columns: as the catalog lists them; partitions: values and folder, below the target."""

    rows: int
    columns: tuple[tuple[str, str], ...]
    partitions: tuple[tuple[tuple[str, ...], str], ...] = ()


@dataclass(frozen=True)
class Reader:
    """What one query reads with. A folder that it reads in several places is looked at once: it sees one state of it."""

    files: Files
    connection: DuckDBPyConnection
    listed: dict[str, list[Path]] = field(default_factory=dict)

    def data(self, location: str) -> list[Path]:
        """What is read of a location: all below it but what begins with _ or . at any level, and what is empty."""
        if location not in self.listed:
            folder = self.files.fetch(location.rstrip("/") + "/")
            self.listed[location] = [path for path in sorted(folder.rglob("*")) if _is_data(path, folder)]
        return self.listed[location]


@dataclass(frozen=True)
class _Place:
    """A folder of data and the values that its rows have for the partition keys."""

    location: str
    values: tuple[str, ...] = ()


def types(table: Mapping[str, Any]) -> dict[str, str]:
    """The columns of a table and its partition keys, in order, with the types of DuckDB."""
    return {each["Name"].lower(): duckdb_type(each["Type"]) for each in (*table["StorageDescriptor"]["Columns"], *keys(table))}


def keys(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(table.get("PartitionKeys") or [])


def duckdb_type(hive: str) -> str:
    return re.sub(r"^TEXT\(\d+\)$", "TEXT", exp.DataType.build(hive, dialect="hive").sql("duckdb"))


def hive_type(kind: str) -> str:
    """Raises QueryFailed for what a table of Hive cannot hold: times with a zone, and NULL without a type."""
    plain = HIVE_TYPES.get(kind)
    if plain or kind.startswith("DECIMAL"):
        return plain or kind.lower()
    if "TIME" in kind or '"NULL"' in kind:
        shown = "unknown" if '"NULL"' in kind else kind.lower()
        raise QueryFailed(f"NOT_SUPPORTED: Unsupported Hive type: {shown}")
    return exp.DataType.build(kind, dialect="duckdb").sql("hive").lower().replace(": ", ":")


def relation(
    reader: Reader, table: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]], terms: Sequence[exp.Expr]
) -> Relation:
    """The rows of a table, of those partitions only that can meet the terms. Its files are brought here.

    Raises:
        QueryFailed: if it cannot be read so.
    """
    columns = types(table)
    places = list(_places(reader.files, table, partitions, _Chosen(reader.connection, keys(table), terms)))
    found: list[tuple[Path, _Place]] = []
    for place in places:
        found += [(path, place) for path in reader.data(place.location)]
    scanned = sum(path.stat().st_size for path, _ in found)
    if not found:
        nothing = ", ".join(f"CAST(NULL AS {kind}) AS {_quoted(name)}" for name, kind in columns.items())
        return Relation(f"SELECT {nothing} WHERE FALSE", columns, 0)
    own = {each["Name"].lower() for each in table["StorageDescriptor"]["Columns"]}
    paths = [str(path) for path, _ in found]
    scan, there = _scan(reader, table, paths, {name: kind for name, kind in columns.items() if name in own})
    shown = []
    for name, kind in columns.items():
        if name not in own:
            shown.append(f"_place.{_quoted(name)}")
        elif name not in there:
            shown.append(f"CAST(NULL AS {kind}) AS {_quoted(name)}")
        elif kind == "TIMESTAMP":  # Athena knows no more than milliseconds
            shown.append(f"CAST(CAST({_cell(table, name, kind)} AS TIMESTAMP_MS) AS TIMESTAMP) AS {_quoted(name)}")
        else:
            shown.append(f"CAST({_cell(table, name, kind)} AS {kind}) AS {_quoted(name)}")
    if len(own) == len(columns):
        return Relation(f"SELECT {', '.join(shown)} FROM {scan} AS _row", columns, scanned)
    names = ", ".join(_quoted(each["Name"].lower()) for each in keys(table))
    rows = ", ".join(f"({_text(str(path))}, {_key_values(table, place.values)})" for path, place in found)
    join = f'(VALUES {rows}) AS _place("{FILE}", {names}) ON _place."{FILE}" = _row."{FILE}"'
    return Relation(f"SELECT {', '.join(shown)} FROM {scan} AS _row JOIN {join}", columns, scanned)


def _cell(table: Mapping[str, Any], name: str, kind: str) -> str:
    """In delimited text nothing is NULL, but for a column of text."""
    text = SERDES.get(_serde(table)) in ("delimited", "csv") and kind != "TEXT"
    return f"NULLIF(_row.{_quoted(name)}, '')" if text else f"_row.{_quoted(name)}"


def _is_data(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(("_", ".")) for part in path.relative_to(folder).parts)
    return not hidden and path.is_file() and path.stat().st_size > 0


class _Chosen:
    """Do these values of the partition keys meet the terms? DuckDB is asked, by the very conditions of the query."""

    def __init__(self, connection: DuckDBPyConnection, columns: Sequence[Mapping[str, Any]], terms: Sequence[exp.Expr]) -> None:
        self._connection, self._columns, self._terms = connection, columns, terms

    def __call__(self, places: Sequence[_Place]) -> list[_Place]:
        if not self._terms or not places:
            return list(places)
        names = ", ".join(_quoted(each["Name"].lower()) for each in self._columns)
        kinds = [duckdb_type(each["Type"]) for each in self._columns]
        rows = ", ".join(f"({number}, {_literals(place.values, kinds)})" for number, place in enumerate(places))
        meets = " AND ".join(f"({term.sql('duckdb')})" for term in self._terms)
        asked = f'SELECT "*number" FROM (VALUES {rows}) AS _place("*number", {names}) WHERE {meets} ORDER BY 1'
        return [places[number] for (number,) in self._connection.execute(asked).fetchall()]


def _places(files: Files, table: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]], chosen: _Chosen) -> Iterator[_Place]:
    location = table["StorageDescriptor"]["Location"].rstrip("/")
    if not keys(table):
        yield _Place(location)
    elif table.get("Parameters", {}).get("projection.enabled", "false").lower() == "true":
        yield from _projected(files, table, location, chosen)
    else:
        for each in partitions:
            serde = each.get("StorageDescriptor", {}).get("SerdeInfo", {}).get("SerializationLibrary", "")
            if serde and serde.lower() != _serde(table):
                raise QueryFailed(f"NOT_SUPPORTED: partition {each['Values']} has another SerDe than its table: {serde}")
        yield from chosen([_Place(each["StorageDescriptor"]["Location"], tuple(each["Values"])) for each in partitions])


def _projected(files: Files, table: Mapping[str, Any], location: str, chosen: _Chosen) -> list[_Place]:
    """The places that the properties of the table foresee, as far as there is anything."""
    parameters = {name.lower(): value for name, value in table["Parameters"].items()}
    names = [each["Name"].lower() for each in keys(table)]
    hive = "/".join(f"{name}=${{{name}}}" for name in names)
    template = parameters.get("storage.location.template", f"{location}/{hive}").rstrip("/")
    combined: list[tuple[str, ...]] = [()]
    for name in names:
        values = list(_projected_values(name, parameters))
        combined = [(*before, value) for before in combined for value in values]
    places = []
    for row in combined:
        where = template
        for name, value in zip(names, row, strict=True):
            where = re.sub(rf"\$\{{{name}\}}", value, where, flags=re.I)
        places.append(_Place(where, row))
    wanted = chosen(places)
    if len(wanted) > 3:  # then one look at all that is there is cheaper
        there = files.keys(template.partition("${")[0])
        wanted = [place for place in wanted if any(one.startswith(f"{place.location}/") for one in there)]
    return wanted


def _projected_values(name: str, parameters: Mapping[str, str]) -> Iterator[str]:
    kind = parameters.get(f"projection.{name}.type", "").lower()
    if kind == "enum":
        yield from (value.strip() for value in parameters[f"projection.{name}.values"].split(","))
    elif kind == "integer":
        first, last = (int(end) for end in parameters[f"projection.{name}.range"].split(","))
        width = int(parameters.get(f"projection.{name}.digits", "0"))
        stride = int(parameters.get(f"projection.{name}.interval", "1"))
        yield from (str(value).zfill(width) for value in range(first, last + 1, stride))
    elif kind == "date":
        written = parameters.get(f"projection.{name}.format", "yyyy-MM-dd")
        unit = parameters.get(f"projection.{name}.interval.unit", "DAYS").upper()
        step = parameters.get(f"projection.{name}.interval", "1")
        if written != "yyyy-MM-dd" or unit != "DAYS" or step != "1":
            raise QueryFailed(f"NOT_SUPPORTED: the local cloud projects dates by single days written yyyy-MM-dd only: {name}")
        first_day, last_day = (_projected_day(end.strip()) for end in parameters[f"projection.{name}.range"].split(","))
        for number in range((last_day - first_day).days + 1):
            yield (first_day + timedelta(days=number)).isoformat()
    else:
        raise QueryFailed(f"INVALID_TABLE_PROPERTY: partition projection is on, but projection.{name}.type is {kind!r}")


def _projected_day(end: str) -> date:
    if found := re.fullmatch(r"NOW(?:([+-]\d+)DAYS?)?", end.upper()):
        return datetime.now(UTC).date() + timedelta(days=int(found[1] or 0))
    return date.fromisoformat(end)


def _serde(table: Mapping[str, Any]) -> str:
    return str(table["StorageDescriptor"].get("SerdeInfo", {}).get("SerializationLibrary", "")).lower()


def _scan(reader: Reader, table: Mapping[str, Any], paths: Sequence[str], own: Mapping[str, str]) -> tuple[str, set[str]]:
    """A table function of DuckDB over the files, and the columns that it has."""
    serde = _serde(table)
    kind = SERDES.get(serde)
    listed = f"[{', '.join(map(_text, paths))}]"
    if kind == "parquet":
        there = _parquet_columns(reader, paths, own)
        return f"read_parquet({listed}, union_by_name = true, hive_partitioning = false, filename = '{FILE}')", there
    parameters = {name.lower(): value for name, value in table["StorageDescriptor"]["SerdeInfo"].get("Parameters", {}).items()}
    if kind == "json":
        columns = ", ".join(f"{_text(name)}: {_text(of)}" for name, of in own.items())
        options = f"format = 'newline_delimited', columns = {{{columns}}}, hive_partitioning = false, filename = '{FILE}'"
        return f"read_json({listed}, {options})", set(own)
    if kind in ("delimited", "csv"):
        columns = ", ".join(f"{_text(name)}: 'VARCHAR'" for name in own)
        skip = int(table.get("Parameters", {}).get("skip.header.line.count", "0"))
        if kind == "csv":
            dialect = {
                "delim": parameters.get("separatorchar", ","),
                "quote": parameters.get("quotechar", '"'),
                "escape": parameters.get("escapechar", "\\"),
            }
        else:
            dialect = {"delim": parameters.get("field.delim", "\x01"), "quote": "", "escape": "", "nullstr": "\\N"}
        said = ", ".join(f"{name} = {_text(value)}" for name, value in dialect.items())
        options = f"auto_detect = false, header = false, null_padding = true, strict_mode = false, filename = '{FILE}'"
        return f"read_csv({listed}, {said}, skip = {skip}, columns = {{{columns}}}, {options})", set(own)
    raise QueryFailed(f"HIVE_UNKNOWN_ERROR: the local cloud has no SerDe {serde!r}: Parquet, JSON and delimited text are read")


def _parquet_columns(reader: Reader, paths: Sequence[str], own: Mapping[str, str]) -> set[str]:
    """The columns that any of the files has. Each must be readable as the type that the catalog gives it."""
    found = set()
    asked = f"SELECT file_name, name, num_children, duckdb_type, type FROM parquet_schema([{', '.join(map(_text, paths))}])"
    rows = iter(reader.connection.execute(asked).fetchall())
    for file, _, children, _, _ in rows:  # the root of a file
        for _ in range(children or 0):
            _, name, below, kind, stored = next(rows)
            left = below or 0
            while left:  # what is inside of a column
                left += (next(rows)[2] or 0) - 1
            wanted = own.get(name.lower())
            found.add(name.lower())
            accepted = READABLE.get(wanted or "")
            if accepted is not None and kind not in accepted:
                uri = "s3://" + Path(file).relative_to(reader.files.root).as_posix()
                raise QueryFailed(
                    f"HIVE_BAD_DATA: Field {name}'s type {stored or kind} in parquet file {uri}"
                    f" is incompatible with type {(wanted or '').lower()} defined in table schema"
                )
    return found


def write(
    connection: DuckDBPyConnection,
    sql: str,
    folder: Path,
    kind: str,
    compression: str,
    partitioned_by: Sequence[str] = (),
    buckets: int = 0,
    bucketed_by: Sequence[str] = (),
) -> Written:
    """The rows of a query in files below a folder, several of them and in no order, as Athena leaves them.

    Raises:
        QueryFailed: if it has columns or options that Athena would refuse, or more partitions than it writes at once.
    """
    described = [(name.lower(), of) for name, of, *_ in connection.execute(f"DESCRIBE {sql}").fetchall()]
    names = [name for name, _ in described]
    for number, name in enumerate(names):
        if name.startswith("_col") or not name:
            raise QueryFailed(f"MISSING_COLUMN_NAME: line 1:1: Column name not specified at position {number + 1}")
        if names.count(name) > 1:
            raise QueryFailed(f"DUPLICATE_COLUMN_NAME: line 1:1: Column name '{name}' specified more than once")
    columns = tuple((name, hive_type(of)) for name, of in described)
    if partitioned_by and tuple(names[-len(partitioned_by) :]) != tuple(partitioned_by):
        raise QueryFailed(
            "HIVE_COLUMN_ORDER_MISMATCH: Partition keys must be the last columns in the table and in the same order as the"
            f" table properties: [{', '.join(partitioned_by)}]"
        )
    cast = ", ".join(
        f"CAST({_quoted(name)} AS BIGINT) AS {_quoted(name)}" if of == "HUGEINT" else _quoted(name) for name, of in described
    )
    connection.execute(f"CREATE OR REPLACE TEMP TABLE _written AS SELECT {cast} FROM ({sql}) AS _asked")
    ((rows,),) = connection.execute("SELECT COUNT(*) FROM _written").fetchall()
    shown = ", ".join(_quoted(name) for name in names if name not in partitioned_by)
    if not shown:
        raise QueryFailed("NOT_SUPPORTED: Table contains only partition columns")
    parts = [((), "")]
    if partitioned_by:
        listed = ", ".join(map(_quoted, partitioned_by))
        values = connection.execute(f"SELECT DISTINCT {listed} FROM _written ORDER BY ALL").fetchall()
        if len(values) > MOST_WRITTEN_PARTITIONS:
            limit = f"Exceeded limit of {MOST_WRITTEN_PARTITIONS} open writers for partitions/buckets"
            raise QueryFailed(f"HIVE_TOO_MANY_OPEN_PARTITIONS: {limit}")
        parts = [(row, _folder_of(partitioned_by, row)) for row in values]
    hands = buckets or WRITERS
    share = f"hash({', '.join(map(_quoted, bucketed_by))}) % {hands}" if bucketed_by else f"rowid % {hands}"
    for row, below in parts:
        (folder / below).mkdir(parents=True, exist_ok=True)
        own = " AND ".join(f"{_quoted(key)} IS NOT DISTINCT FROM ?" for key in partitioned_by) or "TRUE"
        for hand in range(hands):
            of_hand = f"SELECT {shown} FROM _written WHERE {own} AND {share} = {hand}"
            if connection.execute(f"SELECT COUNT(*) FROM ({of_hand})", list(row)).fetchall() != [(0,)]:
                target = folder / below / _file_name(kind, compression)
                connection.execute(f"COPY ({of_hand}) TO {_text(str(target))} ({_copy_options(kind, compression)})", list(row))
    written = tuple((tuple(map(_value, row)), below) for row, below in parts if partitioned_by)
    return Written(rows, columns, written)


def check_format(kind: str, compression: str) -> None:
    """Raises QueryFailed for a format or a compression that cannot be written."""
    if kind not in ("PARQUET", "JSON"):
        raise QueryFailed(f"NOT_SUPPORTED: the local cloud writes PARQUET and JSON, not {kind}")
    known = {"PARQUET": ("", "GZIP", "SNAPPY", "ZSTD", "LZ4", "NONE", "UNCOMPRESSED"), "JSON": ("", "GZIP", "NONE")}[kind]
    if compression not in known:
        listed = ", ".join(filter(None, known))
        raise QueryFailed(f"INVALID_TABLE_PROPERTY: {compression} is no compression of {kind}: {listed}")


def storage(kind: str, location: str, columns: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """A StorageDescriptor of Glue for what `write` has written."""
    formats, serde = (PARQUET, PARQUET_SERDE) if kind == "PARQUET" else (TEXT, JSON_SERDE)
    return {
        "Columns": [{"Name": name, "Type": of} for name, of in columns],
        "Location": location,
        "InputFormat": formats[0],
        "OutputFormat": formats[1],
        "SerdeInfo": {"SerializationLibrary": serde, "Parameters": {"serialization.format": "1"}},
    }


def format_of(table: Mapping[str, Any]) -> str:
    """The format that an INSERT writes. Raises QueryFailed if there is none."""
    kind = SERDES.get(_serde(table), "")
    if kind not in ("parquet", "json"):
        raise QueryFailed(f"NOT_SUPPORTED: the local cloud inserts into tables of Parquet and JSON, not {_serde(table)}")
    return kind.upper()


def _copy_options(kind: str, compression: str) -> str:
    plain = compression in ("NONE", "UNCOMPRESSED")
    if kind == "JSON":
        return f"FORMAT json, COMPRESSION {'none' if plain else 'gzip'}"
    return f"FORMAT parquet, COMPRESSION {'uncompressed' if plain else (compression or 'GZIP').lower()}"


def _file_name(kind: str, compression: str) -> str:
    """As Athena calls its files: the moment, where and by whom, and nothing to be told beforehand."""
    name = f"{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.randbelow(100000):05}_{secrets.token_hex(3)[:5]}_{uuid.uuid4()}"
    return f"{name}.gz" if kind == "JSON" and compression != "NONE" else name


def _folder_of(names: Sequence[str], row: Sequence[Any]) -> str:
    return "/".join(f"{name}={_value(value)}" for name, value in zip(names, row, strict=True))


def _value(value: Any) -> str:
    if isinstance(value, str) and ("/" in value or not value):
        raise QueryFailed(f"NOT_SUPPORTED: the local cloud makes no folder of the partition value {value!r}")
    return NO_VALUE if value is None else str(value)


def _key_values(table: Mapping[str, Any], values: Sequence[str]) -> str:
    return _literals(values, [duckdb_type(each["Type"]) for each in keys(table)])


def _literals(values: Sequence[str], kinds: Sequence[str]) -> str:
    return ", ".join(
        f"CAST({'NULL' if value == NO_VALUE else _text(value)} AS {kind})" for value, kind in zip(values, kinds, strict=True)
    )


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
