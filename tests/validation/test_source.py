"""What the suite and the contract of flight_delays say of a feed that is whole, and of one that is not."""

from __future__ import annotations

import re

import pytest

from tests.validation.conftest import Ask


def test_the_blizzard_passes_without_a_warning(source: Ask) -> None:
    report = source()
    assert report.success, report.summary()
    assert not report.warnings
    assert re.fullmatch(r"flight_delays\.source: \d+ checks passed", report.summary())


BROKEN = {
    "empty partition": ("SELECT * FROM flights LIMIT 0", "table: 0 rows (limit: at least 500)"),
    "a third of the rows": ("SELECT * FROM flights LIMIT 228", "table: 228 rows (limit: at least 500)"),
    "duplicate keys": (
        "SELECT * FROM flights UNION ALL (SELECT * FROM flights WHERE carrier = 'HA')",
        "flight_id: 0.292 % duplicated (2 rows), for example 2013-02-09-HA-51-JFK-0900 (limit: never duplicated)",
    ),
    "a key that is null": (
        "SELECT * REPLACE (nullif(flight_id, '2013-02-09-HA-51-JFK-0900') AS flight_id) FROM flights",
        "flight_id: 0.146 % null (1 rows) (limit: never null)",
    ),
    "missing column": ("SELECT * EXCLUDE (dest) FROM flights", "dest: column is missing (limit: a column of type string)"),
    "renamed column": (
        "SELECT * RENAME (tailnum AS tail_number) FROM flights",
        "tailnum: column is missing (limit: a column of type string)",
    ),
    "retyped column": (
        "SELECT * REPLACE (distance::VARCHAR || ' km' AS distance) FROM flights",
        "distance: VARCHAR (limit: a column of type number)",
    ),
    "all-null column": (
        "SELECT * REPLACE (NULL::VARCHAR AS tailnum) FROM flights",
        "tailnum: 100 % null (684 rows) (limit: at most 50 % null)",
    ),
}


@pytest.mark.parametrize("query, sentence", BROKEN.values(), ids=BROKEN)
def test_a_broken_feed_blocks_and_is_told_with_its_limit(source: Ask, query: str, sentence: str) -> None:
    report = source(query)
    assert not report.success
    assert sentence in [check.sentence for check in report.failed]
    assert sentence in report.summary()


def test_a_renamed_column_is_told_under_both_names(source: Ask) -> None:
    summary = source("SELECT * RENAME (tailnum AS tail_number) FROM flights").summary()
    assert "tailnum: column is missing" in summary
    assert "warning, tail_number: unknown column" in summary


@pytest.mark.parametrize("query", ["* EXCLUDE (carrier)", "* REPLACE (1 AS carrier)"], ids=["missing", "retyped"])
def test_a_column_that_breaks_the_contract_is_told_once(source: Ask, query: str) -> None:
    report = source(f"SELECT {query} FROM flights")
    assert [(check.expectation, check.column) for check in report.failed] == [("contract", "carrier")]


STRANGE = {
    "extra column": ("SELECT *, 1 AS gate FROM flights", "gate: unknown column"),
    "unseen category": (
        "SELECT * REPLACE (CASE carrier WHEN 'HA' THEN 'ZZ' ELSE carrier END AS carrier) FROM flights",
        "carrier: 0.146 % other values (1 rows), for example ZZ (limit: one of 9E, AA,",
    ),
    "kilometres": ("SELECT * REPLACE (distance * 1.609 AS distance) FROM flights", "distance: mean 1,6"),
}


@pytest.mark.parametrize("query, sentence", STRANGE.values(), ids=STRANGE)
def test_a_strange_feed_passes_and_is_reported(source: Ask, query: str, sentence: str) -> None:
    report = source(query)
    assert report.success
    assert any(check.sentence.startswith(sentence) for check in report.warnings), report.summary()
    assert f"warning, {sentence}" in report.summary()


def test_reordered_columns_are_the_same_columns(source: Ask) -> None:
    assert not source("SELECT dest, * EXCLUDE (dest) FROM flights").warnings


def test_limits_that_exclude_each_other_block(source: Ask) -> None:
    assert [check.sentence for check in source(rows_low=800, rows_high=600).failed] == [
        "table: 684 rows (limit: at least 800)",
        "table: 684 rows (limit: at most 600)",
    ]
