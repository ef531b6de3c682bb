"""Which partition a run is about, for every kind of run, and which are refused."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.partitions import NoPartition, days, origin_of, parse, partition_of, partitions_of, training_day_of

# What a person with no more than the right to trigger may try.
HOSTILE = [
    "2024-01-01' OR '1'='1",
    "2024-01-01\n",
    " 2024-01-01",
    "2024-01-01; DROP TABLE flights",
    "../../etc/passwd",
    "2024-01-01/../../x",
    "$(reboot)",
    "{{ conf }}",
    "http://169.254.169.254/latest",
    "٢٠٢٤-٠١-٠١",
    "2024-1-1",
    "20240101",
    "2024-W01-1",
    "2024-02-30",
    "0000-01-01",
    "",
    None,
    20240101,
    ["2024-01-01"],
    {"2024-01-01": 1},
    float("nan"),
    "x" * 100_000,
]


def run(
    key: str | None = None, kind: str = "manual", conf: dict | None = None, logical: datetime | None = None
) -> SimpleNamespace:
    return SimpleNamespace(partition_key=key, run_type=SimpleNamespace(value=kind), conf=conf, logical_date=logical)


@pytest.mark.parametrize("key", HOSTILE, ids=lambda key: repr(key)[:30])
def test_only_a_plain_day_is_a_partition(key: object) -> None:
    with pytest.raises(NoPartition, match="no partition"):
        parse(key)


@given(st.text())
def test_whatever_passes_is_safe_in_a_path(text: str) -> None:
    try:
        day = parse(text)
    except NoPartition:
        return
    assert day.isoformat() == text and set(text) <= set("0123456789-")


def test_scheduled_and_backfill_runs_are_about_their_key() -> None:
    assert partition_of(run("2013-04-01", "scheduled"), {}) == date(2013, 4, 1)
    assert partition_of(run("2013-04-01", "backfill"), {"partition": None}) == date(2013, 4, 1)


def test_a_run_by_hand_is_about_what_the_form_says() -> None:
    assert partition_of(run(), {"partition": "2013-04-01"}) == date(2013, 4, 1)


def test_a_run_about_nothing_is_refused_with_the_remedy() -> None:
    with pytest.raises(NoPartition, match="fill in the field partition"):
        partition_of(run(), {"partition": None})


def test_a_run_about_two_days_is_refused() -> None:
    with pytest.raises(NoPartition, match="only one of them"):
        partition_of(run("2013-04-01"), {"partition": "2013-04-02"})


def test_a_range_has_both_its_ends() -> None:
    found = partitions_of(run(), {"partition": "2013-02-27", "last_partition": "2013-03-01"})
    assert [day.isoformat() for day in found] == ["2013-02-27", "2013-02-28", "2013-03-01"]


@pytest.mark.parametrize(
    ("first", "last", "why"), [("2013-04-02", "2013-04-01", "is before"), ("2013-01-01", "2014-01-02", "more than 366")]
)
def test_an_impossible_range_is_refused(first: str, last: str, why: str) -> None:
    with pytest.raises(NoPartition, match=why):
        partitions_of(run(), {"partition": first, "last_partition": last})


@given(st.dates(date(1990, 1, 1), date(2090, 1, 1)), st.integers(0, 400))
def test_days_have_no_gap_and_no_double(first: date, length: int) -> None:
    last = date.fromordinal(first.toordinal() + length)
    found = list(days(first, last))
    assert found[0] == first and found[-1] == last and len(set(found)) == length + 1


def test_training_is_as_of_the_form_or_the_tick_and_never_of_the_clock() -> None:
    tick = datetime(2013, 4, 1, 3, tzinfo=UTC)
    assert training_day_of(run(logical=tick), {"as_of": "2013-05-01"}) == date(2013, 5, 1)
    assert training_day_of(run(logical=tick), {"as_of": None}) == date(2013, 4, 1)
    with pytest.raises(NoPartition, match="as_of"):
        training_day_of(run(), {"as_of": None})


@pytest.mark.parametrize(
    ("kind", "conf", "origin"),
    [
        ("scheduled", None, "scheduled"),
        ("backfill", {}, "backfill"),
        ("manual", {}, "manual"),
        ("operator_triggered", {"origin": "arrival"}, "arrival"),
        ("manual", {"origin": "<script>"}, "manual"),
        ("backfill", {"origin": "scheduled"}, "backfill"),
    ],
)
def test_the_origin_cannot_be_made_up(kind: str, conf: dict | None, origin: str) -> None:
    assert origin_of(run(kind=kind, conf=conf)) == origin
