"""The predictions of Beam are those of the postprocess job, row by row."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import beam

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

STAMP = {
    "key": "flight_id",
    "threshold": 0.35,
    "model_version": "3",
    "run_id": "scheduled__2013-04-01T00:00:00+00:00",
    "scored_at": "2013-04-01T02:00:00.123456+02:00",
    "git_revision": "abc123",
    "task": "classification",
}
DAY = date(2013, 4, 1)


@pytest.fixture
def scores(tmp_path: Path) -> pa.Table:
    """Scores as BigQuery exports them: several files, and a column that is of no use here."""
    random = np.random.default_rng(3)
    values = np.concatenate([[0.0, 1.0, 0.35, np.nextafter(0.35, 0)], random.random(2996).astype(np.float32).astype(float)])
    table = pa.table({
        "flight_id": [f'ü"{n:04d}' for n in range(len(values))],
        "partition_date": pa.array([DAY] * len(values), pa.date32()),
        "score": values,
    })
    folder = tmp_path / "scores" / "partition_date=2013-04-01"
    folder.mkdir(parents=True)
    with_more = table.append_column("unseen", pa.array([["dest"]] * len(values)))
    for number in range(3):
        pq.write_table(with_more.slice(number * 1000, 1000), folder / f"{number:012d}.parquet", row_group_size=300)
    return table


def arguments(tmp_path: Path, scores: str = "scores/partition_date=2013-04-01", **change: object) -> dict[str, object]:
    places = {
        "input": f"{tmp_path / scores}/*.parquet",
        "output": tmp_path / "predictions" / "partition_date=2013-04-01" / "part",
    }
    return {**STAMP, "key_type": "string", **places, **change}


def test_every_prediction_is_that_of_the_postprocess_job(scores: pa.Table, tmp_path: Path) -> None:
    given = arguments(tmp_path)
    output = Path(str(given["output"]))
    output.parent.mkdir(parents=True)
    # Of a run before, which wrote more files.
    for number in range(7):
        (output.parent / f"part-{number:05d}-of-00007.parquet").write_bytes(b"old")
    done = beam.launch(given)
    assert done.returncode == 0, done.stderr
    pq.write_table(scores, tmp_path / "scores.parquet")
    spec = {**STAMP, "scores": str(tmp_path / "scores.parquet"), "output": str(tmp_path / "predictions.parquet")}
    beam.local_job("postprocess", {**spec, "result": str(tmp_path / "result.json")}, tmp_path)
    assert beam.read(output).equals(pq.read_table(tmp_path / "predictions.parquet").sort_by("flight_id"))
    assert json.loads(done.stdout.splitlines()[-1]) == json.loads((tmp_path / "result.json").read_bytes())
    assert "INFO include.jobs.beam_postprocess: wrote 3000 predictions\n" in done.stderr


def test_a_regression_a_key_of_numbers_and_what_is_refused(scores: pa.Table, tmp_path: Path) -> None:
    def case(name: str, rows: pa.Table, **change: object) -> dict[str, object]:
        (tmp_path / name).mkdir(exist_ok=True)
        pq.write_table(rows, tmp_path / name / "rows.parquet", row_group_size=3)
        return arguments(tmp_path, name, output=tmp_path / f"{name}-predictions" / "part", **change)

    def more(**change: Any) -> pa.Table:
        """Rows of which only the last one, in a row group of its own, is wrong."""
        return pa.concat_tables([
            scores.slice(0, 3),
            pa.table({**scores.slice(3, 1).to_pydict(), **change}, schema=scores.schema),
        ])

    numbers = pa.table({
        "row id": [2**53, 2**53 + 1, 2**53 + 2],
        "partition_date": pa.array([DAY] * 3),
        "score": [-20.0, 15.0, 240.0],
    })
    regression = {"key": "row id", "task": "regression", "threshold": 15}
    (tmp_path / "two-keys").mkdir()
    texts = numbers.set_column(0, "row id", pa.array(["1", "2", "3"]))
    pq.write_table(texts, tmp_path / "two-keys" / "texts.parquet")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "rows.parquet").write_text("no Parquet")
    found = beam.outcomes(
        "beam_postprocess",
        [
            case("numbers", numbers, **regression),
            case("high", more(score=[1.5])),
            case("nan", more(score=[float("nan")])),
            case("no-key", more(flight_id=[None])),
            case("no-date", more(partition_date=[None])),
            case("renamed", scores.rename_columns(["flight", "partition_date", "score"])),
            case("no-score", scores.drop_columns(["score"])),
            case("two-keys", numbers, **regression),
            case("empty", scores.slice(0, 0)),
            arguments(tmp_path, "nothing"),
            arguments(tmp_path, "text"),
            arguments(tmp_path, scored_at="2013-04-01T00:00:00"),
            arguments(tmp_path, threshold=1.5),
            arguments(tmp_path, output=f"{tmp_path}/predictions/"),
        ],
    )
    for (code, said), message in zip(
        found,
        [
            "",
            "column 'score': 1 of 1 are no number within 0..1: score the partition again",
            "column 'score': 1 of 1 are no number within 0..1",
            "column 'flight_id': 1 rows are NULL",
            "column 'partition_date': 1 rows are NULL",
            "column 'flight_id' is missing",
            "column 'score' is missing",
            "column 'row id' holds string, in another file int64: score the partition again",
            "empty/*.parquet: has no rows: check the source partition",
            "nothing/*.parquet: no file matches: let the step before write it",
            "rows.parquet: is no Parquet file",
            "no time zone",
            "between 0 and 1",
            "predictions/: is a folder: give the beginning of the names of files in it",
        ],
        strict=True,
    ):
        assert (code, said[:7]) == ((1, "ERROR: ") if message else (0, "")), said
        assert message in said and "while running" not in said
    predictions = beam.read(tmp_path / "numbers-predictions" / "part", "row id")
    assert predictions["row id"].equals(numbers["row id"])
    assert predictions["decision"].to_pylist() == [False, True, True]
    for name in ("high", "nan", "no-key", "renamed", "empty"):
        assert not list((tmp_path / f"{name}-predictions").glob("*.parquet"))
