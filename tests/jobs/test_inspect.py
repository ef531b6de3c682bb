"""The inspect job, end to end: what is no training set is refused before anything is learned from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.core.files import sha256_of
from tests.core.examples import CATEGORICAL, NUMERIC, delays, flights
from tests.jobs.running import refusal, run


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    snapshot = tmp_path / "partition_date=2013-01-12" / "data.parquet"
    snapshot.parent.mkdir()
    spec = {
        "snapshot": str(snapshot),
        "result": str(tmp_path / "result.json"),
        "task": "classification",
        "numeric": list(NUMERIC),
        "categorical": list(CATEGORICAL),
        "max_feature_auc": 0.98,
        "key": "flight_id",
    }
    return use(spec, flights())


def use(spec: dict[str, Any], table: pa.Table) -> dict[str, Any]:
    pq.write_table(table, spec["snapshot"])
    return {**spec, "snapshot_sha256": sha256_of(Path(spec["snapshot"]))}


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_an_honest_snapshot_is_described(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("inspect", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(spec["result"]).read_bytes())
    assert found["rows"] == 3000
    assert found["positives"] == pc.sum(flights()["label"]).as_py()
    assert found["strength"].keys() == {*NUMERIC, *CATEGORICAL}
    assert found["strength"]["hour"]["auc"] > 0.7
    assert found["strength"]["distance"]["auc"] < 0.55
    assert "inspected 3000 rows; the strongest features, by AUC alone: hour 0." in done.stdout


def test_so_is_one_of_numbers(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("inspect", use({**spec, "task": "regression"}, delays()), tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(spec["result"]).read_bytes())
    assert found["positives"] is None
    assert found["strength"]["hour"]["auc"] > 0.85


def test_the_label_may_not_hide_in_a_feature(spec: dict[str, Any], tmp_path: Path) -> None:
    """A copy of the label plus noise, strings of it, and a value that only punctual flights have."""
    rows = flights()
    label = rows["label"].cast(pa.float64())
    leaks = {
        "distance": pc.add(label, pc.multiply(pc.fill_null(rows["distance"], 0.0), 1e-5)),
        "carrier": pc.if_else(pc.equal(label, 1.0), "late", "early"),
        "hour": pc.if_else(pc.equal(label, 1.0), None, rows["hour"]),
    }
    for name, values in leaks.items():
        message = refusal(run("inspect", use(spec, replaced(rows, name, values)), tmp_path))
        assert f"feature '{name}' " in message
        assert "training.max_feature_auc is 0.98" in message
        assert not Path(spec["result"]).exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.slice(0, 0), "has no rows"),
        (lambda rows: pa.concat_tables([rows, rows.slice(17, 1)]), "2 of 3001 rows have a flight_id that is NULL, or in their"),
        (lambda rows: replaced(rows, "flight_id", pa.array([None, *rows["flight_id"].to_pylist()[1:]])), "1 of 3000 rows have a"),
        (lambda rows: replaced(rows, "label", pa.array([0] * 3000)), "the label of all 3000 rows is 0: check labels.sql"),
        (lambda rows: replaced(rows, "label", pa.array([None, *[0, 1] * 1499, 1])), "of 1 of 3000 rows is not 0 or 1"),
        (lambda rows: rows.drop_columns(["flight_id"]), "has no column 'flight_id'"),
        (lambda rows: rows.drop_columns(["partition_date"]), "needs a column 'partition_date'"),
        (lambda rows: rows.drop_columns(["label"]), "no column 'label'"),
        (lambda rows: rows.drop_columns(["hour"]), "column 'hour' is missing"),
    ],
    ids=["empty", "key twice", "no key", "one label", "NULL label", "key column", "date column", "label column", "feature"],
)
def test_what_is_no_training_set_is_refused(spec: dict[str, Any], tmp_path: Path, change: Any, message: str) -> None:
    assert message in refusal(run("inspect", use(spec, change(flights())), tmp_path))
    assert not Path(spec["result"]).exists()


def test_a_key_may_come_again_on_another_day(spec: dict[str, Any], tmp_path: Path) -> None:
    rows = flights()
    keys = pa.array([f"flight-{number % 250}" for number in range(3000)])
    assert run("inspect", use(spec, replaced(rows, "flight_id", keys)), tmp_path).returncode == 0


def test_another_snapshot_is_refused(spec: dict[str, Any], tmp_path: Path) -> None:
    assert "take it again" in refusal(run("inspect", {**spec, "snapshot_sha256": "0" * 64}, tmp_path))
