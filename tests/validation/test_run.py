"""Running a suite: every kind of expectation has both verdicts, and nothing passes because it could not be checked."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from include.validation import PORTABLE, Dataset, MissingParameter, Report, UnreadableDataset, run_suite
from tests.validation.conftest import Ask

# key 0..99, share 0.00..0.99, twice half of key, odd 0/1, name a/b or null on every tenth row
TABLE = """SELECT range AS key, range / 100 AS share, range // 2 AS twice, range % 2 AS odd,
           CASE WHEN range % 10 = 0 THEN NULL WHEN range % 2 = 0 THEN 'a' ELSE 'b' END AS name FROM range(100)"""
# type without its prefix: arguments that hold, arguments that do not, what is then said
VERDICTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "table_row_count_to_be_between": (
        {"min_value": 100, "max_value": 100},
        {"max_value": 99},
        "table: 100 rows (limit: at most 99)",
    ),
    "column_values_to_not_be_null": (
        {"column": "name", "mostly": 0.9},
        {"column": "name", "mostly": 0.99},
        "name: 10 % null (10 rows) (limit: at most 1 % null)",
    ),
    "column_values_to_be_null": (
        {"column": "name", "mostly": 0.1},
        {"column": "name"},
        "name: 90 % not null (90 rows), for example b, a (limit: never not null)",
    ),
    "column_values_to_be_unique": ({"column": "key"}, {"column": "name"}, "name: 100 % duplicated (90 rows), for example"),
    "compound_columns_to_be_unique": (
        {"column_list": ["twice", "key"]},
        {"column_list": ["odd", "name"]},
        "odd, name: 90 % duplicated (90 rows), for example 1 b, 0 a (limit: never duplicated)",
    ),
    "column_values_to_be_between": (
        {"column": "share", "min_value": 0, "max_value": 0.89, "mostly": 0.9},
        {"column": "share", "min_value": 0, "max_value": 0.89, "mostly": 0.95},
        "share: 10 % out of range (10 rows), for example 0.9, 0.91, 0.92 (limit: 0 to 0.89, for at least 95 %)",
    ),
    "column_values_to_be_in_set": (
        {"column": "name", "value_set": ["a", "b"]},
        {"column": "name", "value_set": ["b"]},
        "name: 44.4 % other values (40 rows), for example a (limit: one of b)",
    ),
    "column_values_to_not_be_in_set": (
        {"column": "name", "value_set": ["c"]},
        {"column": "name", "value_set": ["a"]},
        "name: 44.4 % forbidden values (40 rows), for example a (limit: none of a)",
    ),
    "column_value_lengths_to_be_between": (
        {"column": "name", "min_value": 1, "max_value": 1},
        {"column": "name", "min_value": 2},
        "name: 100 % of another length (90 rows), for example b, a (limit: at least 2)",
    ),
    "column_pair_values_a_to_be_greater_than_b": (
        {"column_A": "key", "column_B": "twice", "or_equal": True},
        {"column_A": "twice", "column_B": "key", "or_equal": True},
        "twice, key: 99 % not greater (99 rows)",
    ),
    "column_mean_to_be_between": (
        {"column": "share", "max_value": 0.5},
        {"column": "share", "max_value": 0.4},
        "share: mean 0.495 (limit: at most 0.4)",
    ),
    "column_min_to_be_between": (
        {"column": "key", "min_value": 0},
        {"column": "key", "min_value": 1},
        "key: minimum 0 (limit: at least 1)",
    ),
    "column_max_to_be_between": (
        {"column": "key", "max_value": 99},
        {"column": "key", "max_value": 98},
        "key: maximum 99 (limit: at most 98)",
    ),
    "column_sum_to_be_between": (
        {"column": "key", "max_value": 4950},
        {"column": "key", "max_value": 1},
        "key: sum 4,950 (limit: at most 1)",
    ),
    "column_stdev_to_be_between": (
        {"column": "key", "min_value": 29, "max_value": 30},
        {"column": "key", "min_value": 1, "max_value": 2},
        "key: standard deviation 29 (limit: 1 to 2)",
    ),
    "column_unique_value_count_to_be_between": (
        {"column": "name", "min_value": 2, "max_value": 2},
        {"column": "name", "min_value": 3},
        "name: distinct values 2 (limit: at least 3)",
    ),
    "column_proportion_of_unique_values_to_be_between": (
        {"column": "key", "min_value": 1},
        {"column": "twice", "min_value": 1},
        "twice: share of distinct values 0.5 (limit: at least 1)",
    ),
    "column_proportion_of_non_null_values_to_be_between": (
        {"column": "name", "min_value": 0.9},
        {"column": "name", "min_value": 1},
        "name: share of values that are not null 0.9 (limit: at least 1)",
    ),
}


def test_all_types_that_a_suite_may_use_are_tried_here() -> None:
    assert {f"expect_{kind}" for kind in VERDICTS} == set(PORTABLE)


def test_what_holds_passes(ask: Ask) -> None:
    report = ask(TABLE, *({"type": f"expect_{kind}", "kwargs": holds} for kind, (holds, _, _) in VERDICTS.items()))
    assert report.success, report.summary()
    assert len(report.checks) == len(VERDICTS) + 1
    assert not report.warnings


def test_what_does_not_hold_fails_and_is_told(ask: Ask) -> None:
    report = ask(TABLE, *({"type": f"expect_{kind}", "kwargs": fails} for kind, (_, fails, _) in VERDICTS.items()))
    told = {check.expectation: check.sentence for check in report.failed}
    assert told.keys() == PORTABLE.keys()
    for kind, (_, _, sentence) in VERDICTS.items():
        assert told[f"expect_{kind}"].startswith(sentence)


def test_nan_is_out_of_range(ask: Ask) -> None:
    between = {"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "min_value": 0, "max_value": 1}}
    assert (
        ask("SELECT unnest([0.5, 'NaN'::DOUBLE, 'inf'::DOUBLE]) AS x", between)
        .failed[0]
        .observed.startswith("66.7 % out of range")
    )


def test_a_warning_is_reported_and_does_not_block(ask: Ask) -> None:
    report = ask(TABLE, {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "name"}, "severity": "warning"})
    assert report.success
    assert report.summary() == "small: 1 of 2 checks passed; warning, name: 10 % null (10 rows) (limit: never null)"


def test_what_cannot_be_checked_blocks_even_as_a_warning(ask: Ask) -> None:
    mean = {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "name", "min_value": 0}, "severity": "warning"}
    (failed,) = ask(TABLE, mean).failed
    assert failed.severity == "critical"
    assert failed.observed.startswith("could not be checked:")
    assert "No function matches" in failed.observed


def test_a_column_that_is_not_there_blocks_even_as_a_warning(ask: Ask) -> None:
    absent = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "seats"}, "severity": "warning"}
    assert [check.sentence for check in ask(TABLE, absent).failed] == ["seats: column is missing (limit: never null)"]


def test_without_a_check_nothing_has_passed() -> None:
    report = Report("empty", (), "page.html")
    assert not report.success
    assert report.summary() == "empty: nothing was checked"


@pytest.mark.parametrize("given", [{}, {"low": float("nan")}, {"low": float("inf")}, {"lo": 1.0}], ids=str)
def test_a_limit_that_is_not_given_is_an_error(ask: Ask, page: Path, given: dict[str, float]) -> None:
    minimum = {"type": "expect_column_min_to_be_between", "kwargs": {"column": "key", "min_value": {"$PARAMETER": "low"}}}
    with pytest.raises(MissingParameter, match=r"small: \$low is (missing|nan|inf)"):
        ask(TABLE, minimum, **given)
    assert not page.exists()


def test_a_limit_that_is_given_is_the_limit(ask: Ask) -> None:
    minimum = {"type": "expect_column_min_to_be_between", "kwargs": {"column": "key", "min_value": {"$PARAMETER": "low"}}}
    assert ask(TABLE, minimum, low=0).success
    assert [check.sentence for check in ask(TABLE, minimum, low=1).failed] == ["key: minimum 0 (limit: at least 1)"]


@pytest.mark.parametrize("query", ["SELECT * FROM read_parquet('/nowhere/*.parquet')", "SELECT * FROM", "DROP TABLE x"])
def test_data_that_cannot_be_read_are_an_error(ask: Ask, query: str) -> None:
    with pytest.raises(UnreadableDataset, match="cannot read the dataset: "):
        ask(query)


def test_a_query_is_run_as_it_is_written(ask: Ask) -> None:
    query = "SELECT {'a':key}.a AS key, '100 % :x ::' AS text FROM (SELECT 1 AS key) -- a comment"
    in_set = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "text", "value_set": ["100 % :x ::"]}}
    report = ask(query, {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "key"}}, in_set)
    assert report.success, report.summary()


def test_another_engine_is_not_given_a_query_that_it_would_be_given_changed(suite: Any, page: Path) -> None:
    with pytest.raises(UnreadableDataset, match="colon"):
        run_suite(suite(), Dataset("SELECT ':x' AS text", url="sqlite://"), {}, str(page))


def test_the_same_suite_runs_on_another_engine(suite: Any, page: Path) -> None:
    name = {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "name", "mostly": 0.6}}
    rows = Dataset("SELECT 1 AS key, NULL AS name UNION ALL SELECT 2, 'b'", url="sqlite://")
    report = run_suite(suite(name), rows, {}, str(page))
    assert [check.sentence for check in report.failed] == ["name: 50 % null (1 rows) (limit: at most 40 % null)"]


def test_the_page_needs_no_network_and_shows_values_as_text(ask: Ask, page: Path) -> None:
    in_set = {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "text", "value_set": ["<i>"]}}
    report = ask("SELECT '<script>alert(1)</script>' AS text", in_set)
    html = Path(report.page).read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "one of &lt;i&gt;" in html
    assert "<script" not in html
    assert re.findall(r'(?:href|src)="([^"]+)"', html) == ["source.json"]
    given = json.loads(page.with_name("source.json").read_text())
    assert given["statistics"]["unsuccessful_expectations"] == 1
    assert {file.name for file in page.parent.iterdir()} == {"source.html", "source.json"}


def test_two_suites_at_once_each_get_their_own_answer(suite: Any, tmp_path: Path) -> None:
    path = suite({"type": "expect_column_max_to_be_between", "kwargs": {"column": "n", "min_value": -1}})

    def observe(number: int) -> str:
        return run_suite(path, Dataset(f"SELECT {number} AS n"), {}, str(tmp_path / f"{number}.html")).checks[-1].observed

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(observe, range(8))) == [f"maximum {number}" for number in range(8)]


def test_the_log_of_a_task_is_not_full_of_great_expectations(tmp_path: Path) -> None:
    """Airflow logs whatever says INFO, and every warning: hundreds of lines, if Great Expectations may."""
    suite = {
        "name": "small",
        "expectations": [{"type": f"expect_{kind}", "kwargs": holds} for kind, (holds, _, _) in VERDICTS.items()],
    }
    (tmp_path / "small.json").write_text(json.dumps(suite))
    code = """import logging, os, pathlib, sys
logging.basicConfig(level=logging.INFO)
logging.captureWarnings(True)
from include.validation import Dataset, run_suite
folder = pathlib.Path(sys.argv[1])
print(run_suite(folder / "small.json", Dataset(sys.argv[2]), {}, str(folder / "small.html")).summary(), flush=True)
os._exit(0)"""  # as a task ends: without the farewell of DuckDB
    run = subprocess.run([sys.executable, "-c", code, str(tmp_path), TABLE], capture_output=True, text=True)
    assert run.stdout == f"small: {len(VERDICTS)} checks passed\n"
    assert [line for line in run.stderr.splitlines() if "alembic" not in line] == [], "but Alembic, which Airflow has imported"


def test_parsing_a_dag_does_not_import_great_expectations() -> None:
    heavy = "great_expectations", "sqlalchemy", "duckdb", "pandas", "pyarrow"
    code = f"import sys; before = set(sys.modules); import include.validation; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip() == "[]"
