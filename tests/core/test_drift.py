"""Equal days are never an alarm, what cannot be told is never "ok", each kind of broken data has its sign, growth has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from include.core.drift import (
    HORIZONS,
    PAIR_HORIZON,
    Comparison,
    Fault,
    Rules,
    compare,
    compare_pairs,
    correlation,
    faults,
)
from include.core.profile import DifferentCells, Profile, all_counts, count, merge, reference

RULES = Rules()
FIRST = date(2026, 1, 1)
ROWS = 600
Columns = dict[str, Any]


def rows(random: np.random.Generator, size: int = ROWS) -> Columns:
    return {
        "distance": random.lognormal(6, 0.7, size),
        "carrier": random.choice(["AA", "B6", "DL", "UA"], size, p=[0.4, 0.3, 0.2, 0.1]),
    }


def batch(columns: Columns) -> pa.RecordBatch:
    return pa.record_batch({
        "distance": pa.array(columns["distance"], pa.float64(), from_pandas=False),
        "carrier": pa.array(columns["carrier"], pa.string()),
    })


CELLS = reference(batch(rows(np.random.default_rng(0), 20_000)), ("distance",), ("carrier",))


def profile(columns: Columns) -> Profile:
    return count(batch(columns), CELLS)


def on(number: int) -> date:
    return FIRST + timedelta(days=number)


def made(many: int, seed: int = 1, last: Callable[[Columns], Columns] = lambda columns: columns) -> dict[date, Profile]:
    """So many days alike, the last of them changed."""
    random = np.random.default_rng(seed)
    days = [rows(random) for _ in range(many)]
    days[-1] = last(days[-1])
    return {on(number): profile(columns) for number, columns in enumerate(days)}


def with_distance(change: Callable[[np.ndarray], Any]) -> Callable[[Columns], Columns]:
    return lambda columns: columns | {"distance": change(columns["distance"])}


def with_carrier(change: Callable[[str], str | None]) -> Callable[[Columns], Columns]:
    return lambda columns: columns | {"carrier": [change(str(carrier)) for carrier in columns["carrier"]]}


def one(found: list[Comparison], column: str, horizon: int = 1) -> Comparison:
    (comparison,) = [each for each in found if (each.column, each.horizon) == (column, horizon)]
    return comparison


def last_day(days: Mapping[date, Profile], rules: Rules = RULES) -> list[Comparison]:
    return compare(days, max(days), rules)


def signs(days: Mapping[date, Profile], training: Profile | None = None) -> list[Fault]:
    return faults(days, max(days), last_day(days), training)


# ---------------------------------------------------------------------------------------------------- columns


@given(st.lists(st.integers(0, 400), min_size=len(CELLS["distance"]["counts"]), max_size=len(CELLS["distance"]["counts"])))
def test_identical_days_are_no_alarm(counts: list[int]) -> None:
    same = {"distance": CELLS["distance"] | {"counts": counts, "missing": 3, "not_finite": 1}}
    for comparison in last_day({on(number): same for number in range(90)}):
        enough = comparison.horizon * (sum(counts) + 4) >= RULES.min_rows and sum(counts) * comparison.horizon >= RULES.min_rows
        assert comparison.state == ("ok" if enough else "cannot judge")
        assert not comparison.distance or comparison.distance < 1e-12


def test_days_alike_are_ok_on_all_horizons() -> None:
    found = last_day(made(90))
    assert [(each.horizon, each.column) for each in found] == [(h, c) for h in HORIZONS for c in ("carrier", "distance")]
    assert {each.state for each in found} == {"ok"}
    assert all(each.distance is not None and each.limit is not None and each.distance <= each.limit for each in found)
    assert [each.rows for each in found[::2]] == [ROWS, 7 * ROWS, 28 * ROWS]
    assert {each.baseline_rows for each in found} == {28 * ROWS}


@pytest.mark.parametrize("seed", range(12))
def test_days_that_wobble_by_themselves_are_no_alarm(seed: int) -> None:
    random = np.random.default_rng(seed)
    days = {
        on(number): profile(columns | {"distance": columns["distance"] * math.exp(random.normal(0, 0.3))})
        for number, columns in enumerate(rows(random) for _ in range(57))
    }
    assert [each for each in last_day(days) if each.state == "alarm"] == []


def test_a_change_is_told_with_its_direction_and_the_cell() -> None:
    found = one(last_day(made(40, last=with_distance(lambda values: values * 1.5))), "distance")
    assert found.state == "alarm"
    assert found.shift == pytest.approx(0.16, abs=0.05)
    assert found.why.startswith("above") and found.why.endswith(f"distance {found.distance:.3g}, limit {found.limit:.3g}")
    assert found.before is not None and found.after is not None and found.after > found.before
    down = one(last_day(made(40, last=with_distance(lambda values: values / 1.5))), "distance")
    assert down.shift is not None and down.shift == pytest.approx(-found.shift, abs=0.05)
    assert one(last_day(made(40)), "carrier").shift is None


def test_what_creeps_is_found_by_longer_windows() -> None:
    random = np.random.default_rng(4)
    days = {}
    for number in range(120):
        columns = rows(random)
        days[on(number)] = profile(columns | {"distance": columns["distance"] * (1.15 if number > 92 else 1)})
    found = last_day(days)
    assert one(found, "distance", 28).state == "alarm"
    assert one(found, "distance", 1).state == "ok"
    assert {each.state for each in found if each.column == "carrier"} == {"ok"}


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_the_order_of_days_and_columns_is_of_no_consequence(random: Any) -> None:
    days = made(40, last=with_distance(lambda values: values * 1.3))
    shuffled = list(days.items())
    random.shuffle(shuffled)
    turned = {day: dict(reversed(cells.items())) for day, cells in shuffled}
    assert compare(turned, max(days), RULES) == last_day(days)
    assert faults(turned, max(days), last_day(days)) == signs(days)


def test_days_counted_in_parts_are_judged_alike() -> None:
    random = np.random.default_rng(5)
    whole, parts = {}, {}
    for number in range(40):
        columns = rows(random)
        whole[on(number)] = profile(columns)
        halves = [profile({name: values[half] for name, values in columns.items()}) for half in (slice(200), slice(200, None))]
        parts[on(number)] = merge(*halves)
    assert last_day(whole) == last_day(parts)


def test_later_days_are_not_looked_at() -> None:
    days = made(60)
    assert compare(days, on(45), RULES) == compare({day: days[day] for day in days if day <= on(45)}, on(45), RULES)


def test_more_columns_make_higher_limits() -> None:
    days = made(40)
    often = {day: {f"{name}{copy}": value for name, value in cells.items() for copy in range(20)} for day, cells in days.items()}
    few, many = one(last_day(days), "distance"), one(last_day(often), "distance3")
    assert few.distance == many.distance
    assert few.limit is not None and many.limit is not None and few.limit < many.limit


def test_columns_that_cannot_be_judged_cost_nothing() -> None:
    days = made(40)
    found = one(last_day(days), "distance")
    days[on(39)] = days[on(39)] | {f"new{number}": CELLS["distance"] for number in range(50)}
    assert one(last_day(days), "distance") == found
    assert one(last_day(days), "new7").state == "cannot judge"


def test_other_cells_are_refused() -> None:
    days = made(3)
    cells = days[on(1)]["distance"]
    days[on(1)] = days[on(1)] | {"distance": cells | {"edges": [edge + 1 for edge in cells["edges"]]}}
    with pytest.raises(DifferentCells, match="distance"):
        last_day(days)


# ---------------------------------------------------------------------------------------------------- cannot judge


def empty() -> Profile:
    return count(batch({"distance": [], "carrier": []}), CELLS)


@pytest.mark.parametrize(
    ("days", "why"),
    [
        ({}, None),
        (made(1), "0 rows in the 28 days before are too few"),
        (made(10), "9 past windows with enough rows are too few, 14 are needed"),
        (made(40) | {on(39): empty()}, "no rows"),
        (made(40, last=lambda columns: {name: values[:150] for name, values in columns.items()}), "150 rows are too few"),
        (dict.fromkeys(map(on, range(40)), empty()) | {on(40): made(1)[FIRST]}, "0 rows in the 28 days before"),
    ],
    ids=["nothing", "a single day", "ten days", "an empty day", "a small day", "no baseline"],
)
def test_what_cannot_be_judged_says_why(days: dict[date, Profile], why: str | None) -> None:
    found = [each for each in compare(days, max(days, default=FIRST), RULES) if each.horizon == 1]
    assert {each.state for each in found} <= {"cannot judge"}
    assert all(each.limit is None and each.why.startswith(why or "") for each in found)
    assert len(found) == (2 if why else 0)


def test_a_window_may_lack_a_day_but_not_two() -> None:
    days = made(60)
    del days[on(55)]
    assert one(last_day(days), "distance", 7).state == "ok"
    del days[on(56)]
    assert one(last_day(days), "distance", 7).why == "only 5 of the 7 days have rows"


def test_a_day_without_the_column_is_not_judged() -> None:
    days = made(40)
    for day in days:
        if day < on(37):
            days[day] = {"distance": days[day]["distance"]}
    assert one(last_day(days), "carrier").state == "cannot judge"
    days[on(39)] = {"carrier": days[on(39)]["carrier"]}
    assert one(last_day(days), "distance").why == "no rows"


@pytest.mark.parametrize("nothing", [None, math.nan, math.inf])
@pytest.mark.parametrize("history", [6, 40])
def test_no_value_at_all_is_an_alarm_even_with_little_history(nothing: float | None, history: int) -> None:
    found = one(last_day(made(history, last=lambda columns: columns | {"distance": [nothing] * ROWS})), "distance")
    assert (found.state, found.after) == ("alarm", 1.0)
    assert found.cell == ("missing" if nothing is None else "not finite")


@pytest.mark.parametrize("nothing", [None, math.nan])
def test_a_column_that_never_has_a_value_cannot_be_judged(nothing: float | None) -> None:
    cells = profile(rows(np.random.default_rng(1)) | {"distance": [nothing] * ROWS})
    found = last_day(dict.fromkeys(map(on, range(90)), cells))
    assert {each.state for each in found if each.column == "distance"} == {"cannot judge"}
    assert one(found, "distance").why.startswith("no value in the 28 days before")
    assert one(found, "carrier").state == "ok"


def test_a_column_that_has_values_on_some_days_only_is_not_ok_without_one() -> None:
    random = np.random.default_rng(3)
    days = {}
    for number in range(85):
        columns = rows(random)
        days[on(number)] = profile(columns if number % 7 else columns | {"distance": [None] * ROWS})
    assert one(last_day(days), "distance").state == "cannot judge"


@given(st.integers(0, ROWS), st.integers(0, 45))
@settings(max_examples=40)
def test_few_values_are_never_ok(valued: int, before: int) -> None:
    def cut(columns: Columns) -> Columns:
        return columns | {"distance": [*columns["distance"][:valued], *[math.nan] * (ROWS - valued)]}

    for found in last_day(made(before + 1, last=cut)):
        if found.column == "distance" and found.horizon == 1 and (valued < RULES.min_rows or before < RULES.min_windows):
            assert found.state != "ok"


def test_missing_values_are_found_in_a_column_that_varies_much() -> None:
    random = np.random.default_rng(6)
    days = {}
    for number in range(60):
        columns = rows(random)
        values = columns["distance"] * math.exp(random.normal(0, 1))
        days[on(number)] = profile(columns | {"distance": [None] * 30 + list(values[30:]) if number == 59 else values})
    found = one(last_day(days), "distance")
    assert (found.state, found.cell, found.after) == ("alarm", "missing", 0.05)


def test_one_broken_day_does_not_hide_the_next() -> None:
    days = made(60, last=with_distance(lambda values: values * 1.5))
    days[on(50)] = made(1, last=with_distance(lambda values: values / 60))[FIRST]
    assert one(last_day(days), "distance").state == "alarm"


# ---------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    ("change", "column", "kind", "sentence"),
    [
        (with_distance(lambda v: [None if n < 60 else x for n, x in enumerate(v)]), "distance", "missing", "10.0 % are missing"),
        (with_distance(lambda v: np.where(v < 200, np.nan, v)), "distance", "missing", "are not finite"),
        (with_distance(lambda v: [None] * len(v)), "distance", "missing", "100.0 % are missing"),
        (with_distance(lambda v: v * 0 + 400), "distance", "constant", "all values are equal"),
        (with_distance(lambda v: v * 1.609344), "distance", "scale", "as if miles had become kilometres"),
        (with_distance(lambda v: v * 1000), "distance", "scale", "times about 1000"),
        (with_distance(lambda v: (v - 32) / 1.8), "distance", "scale", "as if °F had become °C"),
        (with_distance(lambda v: np.where(v < 300, -9999, v)), "distance", "range", "values from -9999 to"),
        (
            with_carrier({"AA": "AA", "B6": "JBU", "DL": "DL", "UA": "UA"}.get),
            "carrier",
            "new values",
            "have values that are not",
        ),
        (with_carrier({"AA": "AA", "B6": "AA", "DL": "DL", "UA": "UA"}.get), "carrier", "vanished", "'B6' (29"),
        (with_carrier(lambda _: "AA"), "carrier", "constant", "all values are equal ('AA')"),
        (with_carrier(lambda carrier: None if carrier == "UA" else carrier), "carrier", "missing", "are missing"),
    ],
)
def test_broken_data_has_a_sign(change: Callable[[Columns], Columns], column: str, kind: str, sentence: str) -> None:
    (fault,) = signs(made(60, last=change))
    assert (fault.column, fault.kind) == (column, kind)
    assert fault.sentence.startswith(f"{column}: ")
    assert sentence in fault.sentence


@pytest.mark.parametrize(
    "change",
    [
        lambda columns: columns,
        with_distance(lambda values: values * 1.2),
        with_distance(lambda values: values + 300),
        with_distance(lambda values: np.minimum(values, 500)),
        with_carrier({"AA": "AA", "B6": "AA", "DL": "DL", "UA": "B6"}.get),
        with_carrier({"AA": "UA", "B6": "B6", "DL": "DL", "UA": "AA"}.get),
    ],
    ids=["nothing", "+ 20 %", "shifted", "shorter", "another mix, one gone", "another mix"],
)
def test_drift_of_the_world_has_none(change: Callable[[Columns], Columns]) -> None:
    assert [fault.kind for fault in signs(made(60, last=change)) if fault.kind != "vanished"] == []


def test_natural_growth_is_no_fault() -> None:
    random = np.random.default_rng(8)
    days = {on(number): profile(rows(random, int(400 * 1.01**number))) for number in range(90)}
    assert all(faults(days, day, compare(days, day, RULES)) == [] for day in list(days)[30::10])


def test_what_the_days_before_showed_is_no_fault() -> None:
    def unlike(columns: Columns) -> Columns:
        return columns | {"distance": [None] * ROWS, "carrier": ["AA"] * ROWS}

    days = made(60, last=unlike)
    days[on(45)] = days[on(59)]
    assert signs(days) == []


@pytest.mark.parametrize(
    ("size", "told"), [(ROWS // 3, "200 rows, where the 28 days before had 600 to 600"), (0, "0 rows"), (1300, "1300")]
)
def test_too_few_or_too_many_rows_are_a_fault_of_all_columns(size: int, told: str) -> None:
    days = made(60)
    days[on(59)] = profile(rows(np.random.default_rng(9), size))
    (fault,) = signs(days)
    assert (fault.column, fault.kind) == ("*", "rows")
    assert fault.sentence.startswith(told)
    del days[on(59)]
    assert [each.kind for each in faults(days, on(59), [])] == ["rows"]


def test_ranges_are_judged_where_days_carry_them() -> None:
    days = made(60, last=with_distance(lambda values: np.where(values < 300, -9999, values)))
    training = {"distance": days[on(3)]["distance"] | {"low": -20_000.0, "high": 50_000.0}}
    assert signs(days, training) == []
    for cells in days.values():
        del cells["distance"]["low"], cells["distance"]["high"]
    assert signs(days) == []


@pytest.mark.parametrize(("often", "kinds"), [(1, ["scale"]), (2, [])])
def test_a_column_that_often_goes_as_far_is_not_in_another_unit(often: int, kinds: list[str]) -> None:
    days = made(60, last=with_distance(lambda values: values * 1.609344))
    for number in range(often):
        days[on(40 + number)] = made(1, last=with_distance(lambda values: values * 3))[FIRST]
    alarmed = [replace(each, state="alarm") for each in last_day(days) if each.column == "distance"]
    assert [fault.kind for fault in faults(days, on(59), alarmed)] == kinds


def test_faults_want_an_alarm() -> None:
    days = made(60, last=with_distance(lambda values: values * 1.609344))
    assert faults(days, on(59), [replace(each, state="ok") for each in last_day(days)]) == []


# ---------------------------------------------------------------------------------------------------- pairs


def sums(random: np.random.Generator, r: float, size: int = 300) -> list[float]:
    a, b = (np.digitize(values, np.linspace(-2, 2, 9)) for values in random.multivariate_normal([0, 0], [[1, r], [r, 1]], size).T)
    return [float(total) for total in (size, a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum())]


def paired(days: int, now: float, seed: int = 1) -> dict[date, dict[str, list[float]]]:
    random = np.random.default_rng(seed)
    return {on(number): {"a × b": sums(random, now if number >= days - 7 else 0.3)} for number in range(days)}


@pytest.mark.parametrize(("now", "state"), [(0.3, "ok"), (0.6, "alarm"), (-0.1, "alarm")])
def test_two_columns_that_go_together_otherwise_are_an_alarm(now: float, state: str) -> None:
    days = paired(126, now)
    (found,) = compare_pairs(days, max(days), RULES)
    assert (found.column, found.horizon, found.state) == ("a × b", PAIR_HORIZON, state)
    assert found.before == pytest.approx(0.3, abs=0.05)
    assert found.after == pytest.approx(now, abs=0.08)
    assert (found.rows, found.baseline_rows) == (2100, 8400)
    assert ("rank correlation" in found.why) == (state == "alarm")


def test_pairs_without_enough_to_tell_are_not_judged() -> None:
    days = paired(126, 0.3)
    assert compare_pairs({}, FIRST, RULES) == []
    few = compare_pairs({day: sums for day, sums in days.items() if day >= on(63)}, max(days), RULES)
    assert (few[0].state, few[0].why) == (
        "cannot judge",
        "fewer than 14 past weeks, and days do not tell how two columns go together over a week",
    )
    single = days | {on(number): {"a × b": [300, 300, 500, 300, 1200, 500]} for number in range(119, 126)}
    assert "single value" in compare_pairs(single, max(days), RULES)[0].why
    assert compare_pairs(days | {on(number): {} for number in range(119, 126)}, max(days), RULES)[0].why == "no rows in 7 days"


def test_a_column_that_is_one_value_each_day_is_no_alarm_every_week() -> None:
    """Weekday and weather: within a week seven points make any correlation. Only weeks tell what weeks do."""
    random, alarms = np.random.default_rng(3), 0
    days = {}
    for number in range(7 * 30):
        a, b = number % 7, int(random.integers(0, 10))
        days[on(number)] = {"a × b": [300, 300 * a, 300 * b, 300 * a * a, 300 * b * b, 300 * a * b]}
    for week in range(6, 30):
        (found,) = compare_pairs({day: each for day, each in days.items() if day < on(7 * week)}, on(7 * week - 1), RULES)
        alarms += found.state == "alarm"
    assert alarms == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=40))
def test_correlations_are_those_of_the_rows(pairs: list[tuple[int, int]]) -> None:
    a, b = np.array(pairs, dtype=float).T
    found = float(correlation([len(a), a.sum(), b.sum(), (a * a).sum(), (b * b).sum(), (a * b).sum()]))
    if np.ptp(a) and np.ptp(b):
        assert found == pytest.approx(np.corrcoef(a, b)[0, 1], abs=1e-9)
    else:
        assert math.isnan(found)


def test_the_cells_of_the_examples_hold_all_rows() -> None:
    assert all(sum(all_counts(cells)) == ROWS for day in made(2).values() for cells in day.values())
