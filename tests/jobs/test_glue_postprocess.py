"""The predictions of Spark are those of the postprocess job, row by row."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import running, spark

pytestmark = pytest.mark.localcloud

STAMP = {
    "key": "flight_id",
    "threshold": 0.35,
    "model_version": "3",
    "run_id": "scheduled__2013-04-01T00:00:00+00:00",
    "scored_at": "2013-04-01T02:00:00.123456+02:00",
    "git_revision": "abc123",
    "task": "classification",
}


@pytest.fixture
def scores(tmp_path: Path) -> pa.Table:
    """Scores as Batch Transform leaves them: an object for each of its inputs, and what else may lie beside."""
    random = np.random.default_rng(3)
    values = np.concatenate([[0.0, 1.0, 0.35, np.nextafter(0.35, 0)], random.random(2996).astype(np.float32).astype(float)])
    table = pa.table({
        "flight_id": [f'ü"{n:04d}' for n in range(len(values))],
        "partition_date": pa.array([date(2013, 4, 1)] * len(values), pa.date32()),
        "score": values,
    })
    folder = tmp_path / "scores" / "partition_date=2013-04-01"
    folder.mkdir(parents=True)
    for number in range(3):
        write(folder / f"part-{number}.json.out", table.slice(number * 1000, 1000).to_pylist())
    (folder / "manifest").write_text("no score")
    return table


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({**row, "unseen": ["dest"]}, default=str, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines))


def read(folder: Path, key: str = "flight_id") -> pa.Table:
    """All rows in the order of the key, without what Spark says of itself."""
    table = pa.concat_tables([pq.ParquetFile(path).read() for path in sorted(folder.glob("*.parquet"))])
    return table.replace_schema_metadata().sort_by(key)


def arguments(tmp_path: Path, scores: str = "scores", **change: object) -> dict[str, object]:
    # Not as_uri(): Spark takes %3D for the name of the folder.
    places = {"scores": f"file://{tmp_path / scores}", "output": f"file://{tmp_path}/partition_date=2013-04-01"}
    return {**STAMP, "key_type": "string", **places, **change}


def test_every_prediction_is_that_of_the_postprocess_job(scores: pa.Table, tmp_path: Path) -> None:
    output = tmp_path / "partition_date=2013-04-01"
    output.mkdir()
    (output / "old.parquet").write_bytes(b"of a run before")
    done = spark.script("glue_postprocess", arguments(tmp_path), tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (output / "old.parquet").exists()

    pq.write_table(scores, tmp_path / "scores.parquet")
    spec = {**STAMP, "scores": str(tmp_path / "scores.parquet"), "output": str(tmp_path / "predictions.parquet")}
    assert running.run("postprocess", {**spec, "result": str(tmp_path / "result.json")}, tmp_path).returncode == 0
    expected = pq.read_table(tmp_path / "predictions.parquet").sort_by("flight_id")
    assert read(output).equals(expected)
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads((tmp_path / "result.json").read_bytes())


def test_a_regression_a_key_of_numbers_and_what_is_refused(scores: pa.Table, tmp_path: Path) -> None:
    def case(name: str, rows: list[dict[str, Any]], **change: object) -> dict[str, object]:
        write(tmp_path / name / "rows.json.out", rows)
        return arguments(tmp_path, name, output=f"file://{tmp_path}/{name}-predictions", **change)

    one = scores.slice(0, 3).to_pylist()
    numbers = [
        {"row id": 2**53 + n, "partition_date": "2013-04-01", "score": score} for n, score in enumerate([-20.0, 15.0, 240])
    ]
    regression = {"key": "row id", "key_type": "bigint", "task": "regression", "threshold": 15}
    cut = case("cut", one)
    path = tmp_path / "cut" / "rows.json.out"
    path.write_text(path.read_text()[:-10])
    (tmp_path / "nothing").mkdir()
    found = spark.outcomes(
        "glue_postprocess",
        [
            case("numbers", numbers, **regression),
            case("empty", []),
            cut,
            case("high", [*one, {**one[0], "score": 1.5}]),
            case("nan", [*one, {**one[0], "score": float("nan")}]),
            case("no-key", [*one, {**one[0], "flight_id": None}]),
            case("no-date", [*one, {**one[0], "partition_date": "yesterday"}]),
            case("text", [*one, {**one[0], "score": "high"}]),
            arguments(tmp_path, "nothing"),
            arguments(tmp_path, scored_at="2013-04-01T00:00:00"),
            arguments(tmp_path, threshold=1.5),
        ],
        tmp_path,
    )
    for said, message in zip(
        found,
        [
            '{"rows": 3, "positive": 2}',
            '{"rows": 0, "positive": 0}',
            "cut: a line is no score, or was cut off",
            "high: column 'score': 1 of 4 are no number within 0..1",
            "nan: column 'score': 1 of 4 are no number within 0..1",
            "no-key: column 'flight_id': 1 rows are NULL",
            "no-date: a line is no score, or was cut off",
            "text: a line is no score, or was cut off",
            "nothing: holds no .out object",
            "no time zone",
            "between 0 and 1",
        ],
        strict=True,
    ):
        assert message in said
        assert said.startswith(("{", "ERROR: "))
    assert read(tmp_path / "numbers-predictions", "row id")["row id"].to_pylist() == [row["row id"] for row in numbers]
    assert read(tmp_path / "numbers-predictions", "row id")["decision"].to_pylist() == [False, True, True]
