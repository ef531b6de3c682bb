"""Put a training set in order: `python -m include.jobs.order <spec.json>`.

A query writes its result in parallel, in another order each time; a model depends on the order of its rows. Many Parquet
files in no order become one, sorted by partition date and key. Sorts on disk: memory does not depend on the rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as kinds

from include.core.errors import Refused
from include.core.files import replacing, sha256_of, write_json
from include.jobs.process import main

ROW_GROUP = 122880  # DuckDB's


class CannotOrder(Refused):
    """The files are no training set, or not one; the message says which and why."""


@dataclass(frozen=True)
class OrderSpec:
    """The spec of the job. Paths are local."""

    input: str  # folder of Parquet files, all with the same columns
    output: str  # Parquet file to write
    result: str  # JSON file to write: rows, sha256
    key: str
    memory_limit: str = "1GB"  # of DuckDB
    threads: int = 2


def run(spec: OrderSpec) -> None:
    """Write one sorted file. Values and types stay as they are; the same rows give the same bytes, however they lie."""
    files = _files(Path(spec.input))
    schema = _schema(files)
    if missing := [name for name in ("partition_date", spec.key) if name not in schema.names]:
        raise CannotOrder(f"{spec.input}: has no column {' and no '.join(missing)}: it is no training set")
    rows = 0
    with replacing(Path(spec.output)) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
        # What does not fit into memory waits beside the output: that is where there is room for as much.
        with tempfile.TemporaryDirectory(prefix=".sort-", dir=temporary.parent) as room:
            for group in _row_groups(_sorted(spec, files, schema, Path(room))):
                writer.write_table(group.cast(schema), row_group_size=ROW_GROUP)
                rows += group.num_rows
    write_json(Path(spec.result), {"rows": rows, "sha256": sha256_of(Path(spec.output))})
    print(f"put {rows:,} rows of {len(files)} files in order", flush=True)


def _files(folder: Path) -> list[Path]:
    """All files of a folder and below. A query gives its files names without an end, and may leave marks beside them."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith((".", "_"))]
    if not found:
        raise CannotOrder(f"{folder}: holds no file: let the query write its result there")
    return found


def _schema(files: list[Path]) -> pa.Schema:
    """The columns of all files, without what their writers say besides, such as that no row of a file was NULL."""
    schema: pa.Schema | None = None
    for path in files:
        try:
            found = pq.read_schema(path)
        except pa.ArrowInvalid as error:
            raise CannotOrder(f"{path}: is no Parquet file: {error}") from None
        found = pa.schema([pa.field(field.name, field.type) for field in found])
        if schema is not None and not found.equals(schema):
            other = ", ".join(sorted({field.name for field in set(found) ^ set(schema)})) or "in another order"
            raise CannotOrder(f"{path}: has other columns than {files[0].name} ({other}): they are not the result of one query")
        schema = found
    assert schema is not None
    return schema


def _sorted(spec: OrderSpec, files: list[Path], schema: pa.Schema, room: Path) -> Iterator[pa.RecordBatch]:
    # Without threads for reading and writing ahead: with them, DuckDB 2.0 may hang for ever when a disk is full.
    chosen: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": spec.memory_limit,
        "threads": spec.threads,
        "temp_directory": str(room),
        "async_threads": 0,
    }
    with duckdb.connect(":memory:", config=chosen) as connection:
        rows = connection.read_parquet([_literal(path) for path in files], hive_partitioning=False)
        names = [_quoted(name) for name in schema.names]
        # Rows of the same key are told apart by the rest of them, lest their order be that of the files.
        order = f"partition_date, {_quoted(spec.key)}, hash({', '.join(names)})"
        reader = rows.order(order).to_arrow_reader(ROW_GROUP)
        _check_types(schema, reader.schema)
        yield from reader


def _row_groups(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same rows in pieces of the same size, wherever DuckDB has cut them: bytes depend on it."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        while rows + batch.num_rows >= ROW_GROUP:
            room = ROW_GROUP - rows
            yield pa.Table.from_batches([*waiting, batch.slice(0, room)]).combine_chunks()
            waiting, rows, batch = [], 0, batch.slice(room)
        if batch.num_rows:
            waiting.append(batch)
            rows += batch.num_rows
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()


def _check_types(schema: pa.Schema, read: pa.Schema) -> None:
    """Refuse what DuckDB has no type for: it would read another value, and not say so."""
    faults = [
        f"column {field.name!r} holds {field.type}, which would become {other.type}"
        for field, other in zip(schema, read, strict=True)
        if not _keeps_values(other.type, field.type)
    ]
    if faults:
        raise CannotOrder(f"{'; '.join(faults)}: let features.sql cast it")


def _keeps_values(read: pa.DataType, kind: pa.DataType) -> bool:
    if kinds.is_dictionary(kind):
        return _keeps_values(read, kind.value_type)
    if kinds.is_timestamp(kind) and kinds.is_timestamp(read):
        units = ("s", "ms", "us", "ns")
        return units.index(read.unit) >= units.index(kind.unit) and (read.tz is None) == (kind.tz is None)
    return bool(read.equals(kind)) or any(same(read) and same(kind) for same in (_is_text, _is_binary))


def _is_text(kind: pa.DataType) -> bool:
    return kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_string_view(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return kinds.is_binary(kind) or kinds.is_large_binary(kind) or kinds.is_binary_view(kind) or kinds.is_fixed_size_binary(kind)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(path: Path) -> str:
    """A path in which DuckDB sees no pattern."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in str(path))


if __name__ == "__main__":
    main(OrderSpec, run)
