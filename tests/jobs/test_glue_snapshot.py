"""A snapshot that Spark has put in order is one that the same model is learned from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.core.files import sha256_of
from tests.core.examples import CATEGORICAL, NUMERIC, flights
from tests.jobs import running, spark

pytestmark = pytest.mark.localcloud

PARAMETERS = {"trees": 20, "max_depth": 5, "subsample": 0.7, "colsample_bytree": 0.7, "half_life_days": 20}


def training_set() -> pa.Table:
    """Keys whose order is that of their bytes, not of an alphabet; numbers are doubles, as the queries give them."""
    rows = flights(5000)
    random = np.random.default_rng(5)
    prefixes = random.choice(["A", "a", "é", "z", "Z", "漢", "_", "10", "9"], rows.num_rows)
    keys = [f"{prefix}{number}" for number, prefix in enumerate(prefixes)]
    rows = rows.set_column(0, "flight_id", pa.array(keys))
    return rows.set_column(rows.column_names.index("hour"), "hour", pc.cast(rows["hour"], pa.float64()))


def trained(snapshot: Path, place: Path) -> dict[str, Any]:
    place.mkdir()
    spec = {
        "snapshot": str(snapshot),
        "snapshot_id": "one",
        "snapshot_sha256": sha256_of(snapshot),
        "artifact": str(place / "model"),
        "result": str(place / "result.json"),
        "model": "flight_delays",
        "numeric": list(NUMERIC),
        "categorical": list(CATEGORICAL),
        "task": "classification",
        "parameters": PARAMETERS,
        "holdout_days": 3,
        "min_rows": 100,
    }
    done = running.run("train", spec, place)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((place / "model" / "manifest.json").read_bytes())
    del manifest["snapshot_sha256"], manifest["request"]
    return manifest


def test_the_same_model_is_learned_as_from_the_file_of_a_laptop(tmp_path: Path) -> None:
    rows, random = training_set(), np.random.default_rng(7)
    shuffled = rows.take(pa.array(random.permutation(rows.num_rows)))
    folder = tmp_path / "query" / "partition_date=2013-01-12"
    folder.mkdir(parents=True)
    # Athena gives its files names without an end.
    for number, name in enumerate(("20130112_1_a", "20130112_1_b", "c.parquet", "d.snappy.parquet")):
        pq.write_table(shuffled.slice(number * 1250, 1250), folder / name, compression="snappy")
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "old.parquet").write_bytes(b"of a run before")
    places = {"input": (tmp_path / "query").as_uri(), "output": (tmp_path / "sorted").as_uri()}
    done = spark.script("glue_snapshot", {**places, "key": "flight_id"}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"rows": 5000}

    (found,) = (tmp_path / "sorted").glob("*.parquet")
    expected = tmp_path / "data.parquet"
    with duckdb.connect() as connection:
        connection.register("shuffled", shuffled)
        statement = "COPY (SELECT * FROM shuffled ORDER BY partition_date, flight_id) TO $file (FORMAT parquet, COMPRESSION zstd)"
        connection.execute(statement, {"file": str(expected)})
    one, other = pq.ParquetFile(found).read(), pq.ParquetFile(expected).read()
    assert one.schema.remove_metadata().equals(other.schema.remove_metadata())
    assert one.replace_schema_metadata().equals(other.replace_schema_metadata())
    # The manifest has the digest of the model's bytes.
    assert trained(found, tmp_path / "one") == trained(expected, tmp_path / "other")


def test_what_cannot_be_put_in_order_is_refused(tmp_path: Path) -> None:
    pq.write_table(training_set(), tmp_path / "data.parquet")
    source = (tmp_path / "data.parquet").as_uri()
    found = spark.outcomes(
        "glue_snapshot",
        [
            {"input": source, "output": f"{source}/sorted", "key": "flight_id"},
            {"input": f"{tmp_path.as_uri()}/a/", "output": f"{tmp_path.as_uri()}/a", "key": "flight_id"},
            {"input": source, "output": f"{tmp_path.as_uri()}/sorted", "key": "row_id"},
        ],
        tmp_path,
    )
    for said, message in zip(found, ["one lies in the other", "one lies in the other", "has no column row_id"], strict=True):
        assert said.startswith("ERROR: ") and message in said
    assert not (tmp_path / "sorted").exists()
