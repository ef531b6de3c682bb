"""Predictions carry the decision and where they come from, and nothing half known becomes one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.postprocessing import Stamp, UnusableRows, postprocess, predictions_schema

STAMP = Stamp("flight_id", 0.35, "3", "manual__1", datetime(2013, 4, 1, 2, tzinfo=timezone(timedelta(hours=2))), "abc123")


def scores(values: list, keys: list | None = None, day: date | None = date(2013, 4, 1)) -> pa.RecordBatch:
    return pa.record_batch({
        "flight_id": pa.array(keys or [f"f{n}" for n in range(len(values))], pa.string()),
        "partition_date": pa.array([day] * len(values), pa.date32()),
        "score": pa.array(values, pa.float64()),
    })


@given(st.lists(st.one_of(st.floats(0, 1), st.just(0.35)), max_size=50))
def test_every_row_is_decided_and_stamped(values: list[float]) -> None:
    rows = postprocess(scores(values), STAMP)
    assert rows.schema == predictions_schema("flight_id", pa.string())
    assert rows.column("score").to_pylist() == values
    assert rows.column("decision").to_pylist() == [value >= 0.35 for value in values]
    for name, value in (("model_version", "3"), ("run_id", "manual__1"), ("git_revision", "abc123")):
        assert rows.column(name).to_pylist() == [value] * len(values)
    assert rows.column("scored_at").to_pylist() == [datetime(2013, 4, 1, tzinfo=UTC)] * len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.01, 1.01])
def test_a_score_that_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(UnusableRows, match=r"'score': 1 of 2 are no number within 0\.\.1"):
        postprocess(scores([0.5, value]), STAMP)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=50), st.floats(-1e6, 1e6))
def test_a_regression_has_any_finite_score_and_threshold(values: list[float], threshold: float) -> None:
    rows = postprocess(scores(values), replace(STAMP, task="regression", threshold=threshold))
    assert rows.column("score").to_pylist() == values
    assert rows.column("decision").to_pylist() == [value >= threshold for value in values]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(UnusableRows, match="'score': 1 of 2 are no finite number"):
        postprocess(scores([15.0, value]), replace(STAMP, task="regression"))
    with pytest.raises(ValueError, match="a finite number"):
        replace(STAMP, task="regression", threshold=value)


def test_rows_without_score_key_or_date_are_refused() -> None:
    with pytest.raises(UnusableRows, match="'score': 1 rows are NULL"):
        postprocess(scores([0.5, None]), STAMP)
    with pytest.raises(UnusableRows, match="'flight_id': 1 rows are NULL"):
        postprocess(scores([0.5, 0.5], ["a", None]), STAMP)
    with pytest.raises(UnusableRows, match="'partition_date': 1 rows are NULL"):
        postprocess(scores([0.5], day=None), STAMP)
    with pytest.raises(UnusableRows, match="'score' is missing"):
        postprocess(scores([0.5]).drop_columns(["score"]), STAMP)


def test_the_key_keeps_its_type() -> None:
    batch = pa.record_batch({"flight_id": pa.array([7], pa.int64()), "partition_date": [date(2013, 4, 1)], "score": [0.5]})
    assert postprocess(batch, STAMP).schema.field("flight_id").type == pa.int64()


def test_an_instant_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        replace(STAMP, scored_at=datetime(2013, 4, 1))


@pytest.mark.parametrize("threshold", [0.0, 1.0, -1.0, float("nan"), float("inf")])
def test_a_threshold_that_decides_nothing_is_refused(threshold: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        replace(STAMP, threshold=threshold)
