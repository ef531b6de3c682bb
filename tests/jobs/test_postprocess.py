"""The postprocess job, end to end."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs.running import refusal, run


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    write(tmp_path / "scores.parquet", [n / 999 for n in range(1000)])
    (tmp_path / "predictions.parquet").write_bytes(b"old")
    return {
        "scores": str(tmp_path / "scores.parquet"),
        "output": str(tmp_path / "predictions.parquet"),
        "result": str(tmp_path / "result.json"),
        "key": "flight_id",
        "threshold": 0.35,
        "model_version": "3",
        "run_id": "manual__2013-04-01T00:00:00+00:00",
        "scored_at": "2013-04-01T02:00:00+02:00",
        "git_revision": "abc123",
        "batch_rows": 300,
    }


def write(path: Path, scores: list) -> None:
    columns = {
        "flight_id": [f"f{n}" for n in range(len(scores))],
        "partition_date": [date(2013, 4, 1)] * len(scores),
        "score": pa.array(scores, pa.float64()),
    }
    pq.write_table(pa.table(columns), path)


def test_every_score_becomes_a_prediction(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("postprocess", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    rows = pq.read_table(spec["output"])
    assert rows["flight_id"].to_pylist() == [f"f{n}" for n in range(1000)]
    assert rows["decision"].to_pylist() == [n / 999 >= 0.35 for n in range(1000)]
    assert rows.slice(0, 1).to_pylist() == [
        {
            "flight_id": "f0",
            "partition_date": date(2013, 4, 1),
            "score": 0.0,
            "decision": False,
            "model_version": "3",
            "run_id": "manual__2013-04-01T00:00:00+00:00",
            "scored_at": datetime(2013, 4, 1, tzinfo=UTC),
            "git_revision": "abc123",
        }
    ]
    assert json.loads(Path(spec["result"]).read_bytes()) == {"rows": 1000, "positive": sum(n / 999 >= 0.35 for n in range(1000))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": "row_id"}, "column 'row_id' is missing"),
        ({"scored_at": "2013-04-01T00:00:00"}, "no time zone"),
        ({"scored_at": "yesterday"}, "Invalid isoformat"),
        ({"threshold": 1.5}, "between 0 and 1"),
        ({"task": "ranking"}, "must be classification or regression"),
    ],
    ids=str,
)
def test_a_spec_that_does_not_fit_is_refused(spec: dict[str, Any], tmp_path: Path, change: dict, message: str) -> None:
    assert message in refusal(run("postprocess", {**spec, **change}, tmp_path))
    assert Path(spec["output"]).read_bytes() == b"old"


def test_the_decision_of_a_regression_is_in_its_unit(spec: dict[str, Any], tmp_path: Path) -> None:
    write(Path(spec["scores"]), [-20.0, 14.9, 15.0, 240.0])
    done = run("postprocess", {**spec, "task": "regression", "threshold": 15}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(spec["output"])["decision"].to_pylist() == [False, False, True, True]


def test_one_wrong_score_at_the_end_stops_all(spec: dict[str, Any], tmp_path: Path) -> None:
    write(Path(spec["scores"]), [*[0.5] * 999, float("nan")])
    assert "1 of 100 are no number within 0..1" in refusal(run("postprocess", spec, tmp_path))
    assert Path(spec["output"]).read_bytes() == b"old"
    assert not Path(spec["result"]).exists()
    assert not list(tmp_path.glob(".*.tmp"))
