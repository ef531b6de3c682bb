"""Files in no order become one file in order, the same to the byte however the rows lie."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config import REPOSITORY
from include.core.files import sha256_of
from tests.core.examples import flights
from tests.jobs.running import refusal, run


def training_set(rows: int = 5000) -> pa.Table:
    """Keys whose order is that of their bytes, not of an alphabet."""
    table = flights(rows)
    prefixes = np.random.default_rng(5).choice(["A", "a", "é", "z", "Z", "漢", "_", "10", "9"], rows)
    return table.set_column(0, "flight_id", pa.array([f"{prefix}{number}" for number, prefix in enumerate(prefixes)]))


def scatter(rows: pa.Table, folder: Path, files: int, seed: int) -> Path:
    """As a query writes its result: in any order, in files of any size; and what may lie beside them."""
    random = np.random.default_rng(seed)
    shuffled = rows.take(pa.array(random.permutation(rows.num_rows)))
    place = folder / "partition_date=2013-01-12"
    place.mkdir(parents=True)
    for number in range(files):
        begin, end = (edge * rows.num_rows // files for edge in (number, number + 1))
        name = f"{number:012d}" if number % 2 else f"0000[{number}]*.parquet"
        pq.write_table(shuffled.slice(begin, end - begin), place / name, compression="snappy", row_group_size=700)
    (folder / "_SUCCESS").touch()
    return folder


def spec(source: Path, place: Path, **change: Any) -> dict[str, Any]:
    outputs = {"output": str(place / "data.parquet"), "result": str(place / "result.json")}
    return {"input": str(source), "key": "flight_id", **outputs, **change}


def ordered(source: Path, place: Path, **change: Any) -> Path:
    place.mkdir()
    done = run("order", spec(source, place, **change), place)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in place.iterdir()) == ["data.parquet", "order.spec.json", "result.json"]
    return place / "data.parquet"


def test_the_same_rows_give_the_same_bytes_sorted_by_date_and_key(tmp_path: Path) -> None:
    rows = training_set(300_000)
    one = ordered(scatter(rows, tmp_path / "query", 5, seed=1), tmp_path / "one")
    other = ordered(scatter(rows, tmp_path / "again", 2, seed=2), tmp_path / "other", threads=1, memory_limit="100MB")
    result = json.loads((tmp_path / "one" / "result.json").read_bytes())
    assert result == {"rows": 300_000, "sha256": sha256_of(one)}
    assert sha256_of(other) == result["sha256"]
    with pq.ParquetFile(one) as file:
        found = file.read()
        assert file.metadata.num_row_groups == 3
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    keys = [key.encode() for key in rows["flight_id"].to_pylist()]
    order = sorted(range(rows.num_rows), key=list(zip(rows["partition_date"].to_pylist(), keys, strict=True)).__getitem__)
    assert found.equals(rows.take(pa.array(order)))


def test_rows_of_one_key_have_an_order_of_their_own(tmp_path: Path) -> None:
    """Who reads the file refuses them, and for that the file must be the same each time."""
    rows = training_set(500)
    column = pa.array(["same"] * 500)
    rows = rows.set_column(0, "flight_id", column).set_column(1, "partition_date", pa.array([date(2013, 1, 1)] * 500))
    digests = {sha256_of(ordered(scatter(rows, tmp_path / f"q{n}", n + 1, n), tmp_path / f"o{n}")) for n in range(3)}
    assert len(digests) == 1


def test_values_and_types_are_kept(tmp_path: Path) -> None:
    moment = datetime(2013, 1, 1, 23, 59, 59, 123456)
    columns = {
        "flight_id": pa.array([2**53 + 1, None, -1], pa.int64()),
        "partition_date": pa.array([date(2013, 1, 1), date(2013, 1, 2), None], pa.date32()),
        "double": pa.array([0.1, float("nan"), -0.0], pa.float64()),
        "float": pa.array([0.1, float("inf"), None], pa.float32()),
        "small": pa.array([1, 255, None], pa.uint8()),
        "flag": pa.array([True, None, False]),
        "numeric": pa.array([Decimal("1.123456789"), Decimal("-99999999999999999999999999999.9"), None], pa.decimal128(38, 9)),
        "instant": pa.array([moment.replace(tzinfo=UTC), None, None], pa.timestamp("us", "UTC")),
        "datetime": pa.array([moment, None, None], pa.timestamp("us")),
        "millis": pa.array([1, None, None], pa.timestamp("ms", "UTC")),
        "nanos": pa.array([1, None, None], pa.timestamp("ns")),
        "time": pa.array([time(23, 59, 59, 123456), None, None], pa.time64("us")),
        "bytes": pa.array([b"\x00\xff", b"", None]),
        "text": pa.array(["", "ünï\x00", None], pa.large_string()),
        "word": pa.array(["a", "b", "a"]).dictionary_encode(),
    }
    rows = pa.table(columns)
    (tmp_path / "query").mkdir()
    pq.write_table(rows, tmp_path / "query" / "data.parquet")
    found = pq.ParquetFile(ordered(tmp_path / "query", tmp_path / "one")).read()
    assert found.schema.equals(pq.read_schema(tmp_path / "query" / "data.parquet"))
    # NaN is not equal to itself; repr tells -0.0 from 0.0.
    assert repr(found.to_pylist()) == repr(rows.to_pylist())


def test_no_rows_are_a_file_without_rows(tmp_path: Path) -> None:
    (tmp_path / "query").mkdir()
    pq.write_table(training_set().slice(0, 0), tmp_path / "query" / "data.parquet")
    assert pq.read_metadata(ordered(tmp_path / "query", tmp_path / "one")).num_rows == 0


@pytest.mark.parametrize(
    ("files", "change", "message"),
    [
        ({}, {}, "holds no file"),
        ({"a": training_set(9)}, {"key": "row_id"}, "has no column row_id: it is no training set"),
        ({"a": training_set(9), "b": training_set(9).drop_columns(["hour"])}, {}, "b: has other columns than a (hour)"),
        ({"a": pa.table({"partition_date": pa.array([1])})}, {"key": "x"}, "has no column x"),
        (
            {"a": training_set(1).append_column("big", pa.array([Decimal(1)], pa.decimal256(76, 38)))},
            {},
            "column 'big' holds decimal256(76, 38), which would become double: let features.sql cast it",
        ),
        ({"a": b"PAR1 no"}, {}, "is no Parquet file"),
    ],
    ids=["nothing", "no key", "columns", "no training set", "BIGNUMERIC", "no Parquet"],
)
def test_what_cannot_be_put_in_order_is_refused(tmp_path: Path, files: dict, change: dict, message: str) -> None:
    (tmp_path / "query").mkdir()
    for name, content in files.items():
        if isinstance(content, bytes):
            (tmp_path / "query" / name).write_bytes(content)
        else:
            pq.write_table(content, tmp_path / "query" / name)
    place = tmp_path / "sorted"
    place.mkdir()
    (place / "data.parquet").write_bytes(b"old")
    assert message in refusal(run("order", spec(tmp_path / "query", place, **change), place))
    assert (place / "data.parquet").read_bytes() == b"old"
    assert sorted(path.name for path in place.iterdir()) == ["data.parquet", "order.spec.json"]


# The system counts what a parent holds among the memory of its child, so a small process stands between.
PEAK = """
import resource, subprocess, sys
subprocess.check_call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_rows(tmp_path: Path) -> None:
    rows = training_set(100_000)
    (tmp_path / "query").mkdir()
    peaks = []
    for number, copies in enumerate((10, 40)):
        with pq.ParquetWriter(tmp_path / "query" / "data.parquet", rows.schema) as writer:
            for _ in range(copies):
                writer.write_table(rows)
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(spec(tmp_path / "query", tmp_path, memory_limit="100MB", threads=1)))
        command = [sys.executable, "-c", PEAK, sys.executable, "-m", "include.jobs.order", str(path)]
        # What is freed goes back to the system at once, lest its habits be measured.
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "1"}
        peaks.append(int(subprocess.check_output(command, text=True, cwd=REPOSITORY, env=environment).split()[-1]))
    assert peaks[1] < 1.25 * peaks[0], peaks
