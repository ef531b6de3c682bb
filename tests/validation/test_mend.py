"""The mend that lets Great Expectations ask DuckDB: is it still needed, and is what it promises still true?"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from include.validation import Dataset, run_suite

# In a process of its own, as a worker is; prints by how many MB it has grown, and the verdict.
GROWTH = """
import json, re, resource, sys
from pathlib import Path
from include.validation import Dataset, read_suite, run_suite

suite, data, page = (Path(name) for name in sys.argv[1:])
read_suite(suite)

def peak():
    status = Path("/proc/self/status")  # where there is one: getrusage() would start with the peak of the parent
    if status.exists():
        return int(re.search(r"VmHWM:\\s+(\\d+)", status.read_text())[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20

before = peak()
report = run_suite(suite, Dataset(f"SELECT * FROM read_parquet('{data}')"), {}, str(page))
print(json.dumps({"grown": peak() - before, "success": report.success, "summary": report.summary()}))
"""


def test_without_the_mend_great_expectations_cannot_ask_duckdb() -> None:
    import great_expectations as gx

    source = gx.get_context(mode="ephemeral").data_sources.add_sql(
        "plain", connection_string="duckdb:///:memory:", create_temp_table=False
    )
    batch = source.add_query_asset("rows", query="SELECT 1 AS n").add_batch_definition_whole_table("all").get_batch()
    result = batch.validate(gx.expectations.ExpectTableRowCountToBeBetween(min_value=1, max_value=1))
    assert not result.success, (
        "Great Expectations now asks DuckDB by itself: take the reading out of include.validation._mend_duckdb, and revisit "
        "docs/adr/0001-great-expectations-on-duckdb.md"
    )


@pytest.mark.parametrize("unique", [False, True], ids=["one pass", "unique key"])
def test_memory_does_not_grow_with_the_rows(tmp_path: Path, unique: bool) -> None:
    data, suite = tmp_path / "data.parquet", tmp_path / "suite.json"
    with duckdb.connect() as connection:
        connection.execute(f"""COPY (SELECT 'key-' || range AS key, range / 5e6 AS a, range % 7 AS b, random() AS c, random() AS d
            FROM range(5_000_000)) TO '{data}' (FORMAT parquet)""")
    expectations = [
        {"type": "expect_table_row_count_to_be_between", "kwargs": {"min_value": 5_000_000, "max_value": 5_000_000}},
        {"type": "expect_column_values_to_not_be_null", "kwargs": {"column": "key"}},
        {
            "type": "expect_column_values_to_be_between",
            "kwargs": {"column": "a", "min_value": 0, "max_value": 0.5, "mostly": 0.4},
        },
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "b", "value_set": [0, 1], "mostly": 0.2}},
        {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "c", "min_value": 0.49, "max_value": 0.51}},
    ]
    if unique:
        expectations.append({"type": "expect_column_values_to_be_unique", "kwargs": {"column": "key"}})
    suite.write_text(json.dumps({"name": "many", "expectations": expectations}))
    command = [sys.executable, "-c", GROWTH, str(suite), str(data), str(tmp_path / "page.html")]
    answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    assert answer["success"], answer["summary"]
    # DuckDB is given 512 MB, beyond which it uses the disk; five million rows as Python objects are 1,300 MB.
    assert answer["grown"] < (700 if unique else 250), answer


@pytest.mark.parametrize(
    "url, limit", [("duckdb:///:memory:", "488.2 MiB"), ("duckdb:///:memory:?memory_limit=100MB", "95.3 MiB")]
)
def test_duckdb_is_held_to_a_limit_and_to_utc(suite: Callable[..., Path], page: Path, url: str, limit: str) -> None:
    settings = "SELECT current_setting('memory_limit') AS memory, current_setting('TimeZone') AS zone"
    expected = {"memory": limit, "zone": "UTC"}.items()
    is_set = (
        {"type": "expect_column_values_to_be_in_set", "kwargs": {"column": name, "value_set": [is_]}} for name, is_ in expected
    )
    report = run_suite(suite(*is_set), Dataset(settings, url), {}, str(page))
    assert report.success, report.summary()
