"""The suites of flight_delays on features made of real days, and on predictions that are right or wrong."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import pytest

from include import queries
from include.config import load_model
from include.validation import Dataset, Report, Stage, run_suite, stage_columns, suite_file
from tests.validation.conftest import BLIZZARD, NEW_YEARS_DAY, NEW_YEARS_EVE

Check = Callable[[Stage, str], Report]

PREDICTIONS = """
    SELECT 'flight-' || range AS flight_id, DATE '2013-02-09' AS partition_date, (range + 1) / 300.0::DOUBLE AS score,
    range > 90 AS decision, '7' AS model_version, 'manual__1' AS run_id, 'abc1234' AS git_revision,
    TIMESTAMPTZ '2013-02-09 00:00:00+00' AS scored_at FROM range(200)"""


@pytest.fixture
def check(page: Path) -> Check:
    def run(stage: Stage, query: str) -> Report:
        contract = stage_columns(load_model("flight_delays"), stage)
        return run_suite(suite_file("flight_delays", stage), Dataset(query), {}, str(page), contract)

    return run


@pytest.fixture
def features(landed: Path, tmp_path: Path) -> Callable[[date], str]:
    """A query on the features of one day, made by the model's own SQL."""

    def build(day: date) -> str:
        model, file = load_model("flight_delays"), tmp_path / f"{day}.parquet"
        options = "hive_partitioning = true, hive_types = {'partition_date': DATE}"
        tables = {name: f"read_parquet('{landed}/source/{name}/*/*.parquet', {options})" for name in ("flights", "weather")}
        tables |= {"planes": f"read_parquet('{landed}/source/planes/*.parquet')", "flight_outcomes": "not_read"}
        query = queries.accepted_features(model, "duckdb", tables)
        with duckdb.connect() as connection:
            rows = connection.sql(query.sql, params=dict.fromkeys(query.parameters, day)).to_arrow_table()
            connection.register("made", rows).execute(f"COPY made TO '{file}' (FORMAT parquet)")
        return f"SELECT * FROM read_parquet('{file}')"

    return build


def test_features_of_the_blizzard_pass_without_a_warning(check: Check, features: Callable[[date], str]) -> None:
    report = check("features", features(BLIZZARD))
    assert report.success, report.summary()
    assert not report.warnings


def test_a_day_without_weather_is_predicted_and_told(check: Check, features: Callable[[date], str]) -> None:
    report = check("features", features(NEW_YEARS_EVE))
    assert report.success, report.summary()
    assert "warning, temperature: 100 % null (776 rows) (limit: at most 20 % null)" in report.summary()


def test_the_first_day_of_all_is_predicted_and_told(check: Check, features: Callable[[date], str]) -> None:
    report = check("features", features(NEW_YEARS_DAY))
    assert report.success, report.summary()
    assert [(found.column, found.observed) for found in report.warnings] == [
        ("route_plane_age", "100 % null (842 rows)"),
        ("route_seats", "100 % null (842 rows)"),
    ]


@pytest.mark.parametrize("feature", ["departure_hour", "distance", "scheduled_minutes", "carrier", "dest"])
def test_a_feature_that_is_null_everywhere_blocks(check: Check, features: Callable[[date], str], feature: str) -> None:
    type_of = "VARCHAR" if feature in ("carrier", "dest") else "DOUBLE"
    report = check("features", f"SELECT * REPLACE (NULL::{type_of} AS {feature}) FROM ({features(BLIZZARD)})")
    assert [(found.column, found.observed) for found in report.failed] == [(feature, "100 % null (684 rows)")]


def test_right_predictions_pass_without_a_warning(check: Check) -> None:
    report = check("predictions", PREDICTIONS)
    assert report.success, report.summary()
    assert not report.warnings


WRONG = {
    "none": ("SELECT * FROM p LIMIT 0", "table: 0 rows (limit: at least 1)"),
    "score above one": ("SELECT * REPLACE (score * 2 AS score) FROM p", "score: 25 % out of range (50 rows), for example 1.0"),
    "score is no number": (
        "SELECT * REPLACE ('NaN'::DOUBLE AS score) FROM p",
        "score: 100 % out of range (200 rows), for example nan",
    ),
    "score is null": ("SELECT * REPLACE (NULL::DOUBLE AS score) FROM p", "score: 100 % null (200 rows) (limit: never null)"),
    "scored twice": ("SELECT * FROM p UNION ALL SELECT * FROM p", "flight_id: 100 % duplicated (400 rows), for example flight-"),
    "no decision": ("SELECT * REPLACE (NULL::BOOLEAN AS decision) FROM p", "decision: 100 % null (200 rows)"),
    "a decision in words": (
        "SELECT * REPLACE (decision::VARCHAR AS decision) FROM p",
        "decision: VARCHAR (limit: a column of type boolean)",
    ),
    "no version": ("SELECT * REPLACE ('' AS model_version) FROM p", "model_version: 100 % of another length (200 rows)"),
    "two versions": (
        "SELECT * REPLACE (decision::VARCHAR AS model_version) FROM p",
        "model_version: distinct values 2 (limit: 1 to 1)",
    ),
}


@pytest.mark.parametrize("query, sentence", WRONG.values(), ids=WRONG)
def test_wrong_predictions_block(check: Check, query: str, sentence: str) -> None:
    report = check("predictions", f"WITH p AS ({PREDICTIONS}) {query}")
    assert not report.success
    assert any(found.sentence.startswith(sentence) for found in report.failed), report.summary()


def test_scores_that_say_nothing_are_reported(check: Check) -> None:
    report = check("predictions", f"WITH p AS ({PREDICTIONS}) SELECT * REPLACE (0.9::DOUBLE AS score) FROM p")
    assert report.success
    assert [found.sentence for found in report.warnings] == [
        "score: mean 0.9 (limit: 0.05 to 0.75)",
        "score: standard deviation 0 (limit: at least 0.01)",
    ]
