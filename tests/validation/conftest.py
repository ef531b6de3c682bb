"""Small tables in Parquet, suites in a few lines, and three real days."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from demo import simulator
from include.config import load_model
from include.validation import Dataset, Report, run_suite, stage_columns, suite_file

NEW_YEARS_DAY, BLIZZARD, NEW_YEARS_EVE = date(2013, 1, 1), date(2013, 2, 9), date(2013, 12, 31)
ROWS = {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 1}}

Ask = Callable[..., Report]


@pytest.fixture(scope="session")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of a source, two of them with the week before.

    Before New Year's Day nothing had landed; in the blizzard a quarter of the flights had no plane; on New Year's Eve no
    weather was observed.
    """
    lake = tmp_path_factory.mktemp("landed")
    simulator.land(lake, NEW_YEARS_DAY, NEW_YEARS_DAY)
    for day in (BLIZZARD, NEW_YEARS_EVE):
        simulator.land(lake, day - timedelta(days=7), day)
    return lake


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "pages" / "source.html"


@pytest.fixture
def source(landed: Path, tmp_path: Path, page: Path) -> Ask:
    """The suite and the contract of flight_delays on the flights of a day, changed by an SQL query on `flights`."""

    def ask(query: str = "SELECT * FROM flights", rows_low: float = 500, rows_high: float = 1500) -> Report:
        file = tmp_path / "flights.parquet"
        with duckdb.connect() as connection:
            files = f"{landed}/source/flights/partition_date={BLIZZARD}/*.parquet"
            options = "hive_partitioning = true, hive_types = {'partition_date': DATE}"
            connection.execute(f"CREATE VIEW flights AS SELECT * FROM read_parquet('{files}', {options})")
            connection.execute(f"COPY ({query}) TO '{file}' (FORMAT parquet)")
        dataset = Dataset(f"SELECT * FROM read_parquet('{file}')")
        contract = stage_columns(load_model("flight_delays"), "source")
        limits = {"rows_low": rows_low, "rows_high": rows_high}
        return run_suite(suite_file("flight_delays", "source"), dataset, limits, str(page), contract)

    return ask


@pytest.fixture
def suite(tmp_path: Path) -> Callable[..., Path]:
    """A suite file of the given expectations, after one that asks for rows."""

    def write(*expectations: dict[str, Any]) -> Path:
        path = tmp_path / "suite.json"
        path.write_text(json.dumps({"name": "small", "expectations": [ROWS, *expectations]}))
        return path

    return write


@pytest.fixture
def ask(suite: Callable[..., Path], page: Path) -> Ask:
    """The report of a suite of the given expectations on a query."""

    def run(query: str, *expectations: dict[str, Any], **parameters: float) -> Report:
        return run_suite(suite(*expectations), Dataset(query), parameters, str(page))

    return run
