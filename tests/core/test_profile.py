"""Every row is in one cell, parts add up to the whole, and the distance is 0 for equal shares and always finite."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.files import json_bytes
from include.core.profile import DifferentCells, all_counts, changes, count, distance, distances, merge, reference

few = st.sampled_from([0.0, -0.0, 1.0, 2.5, 1e300, math.nan, math.inf, -math.inf, None])
numbers = st.one_of(few, st.floats(), st.integers(-3, 3).map(float))
carriers = st.one_of(st.none(), st.sampled_from(["AA", "DL", ""]), st.text(max_size=2))
rows = st.lists(st.tuples(numbers, carriers), max_size=60)


def batch(values: list[tuple[float | None, str | None]]) -> pa.RecordBatch:
    return pa.record_batch({
        "distance": pa.array([number for number, _ in values], pa.float64()),
        "carrier": pa.array([carrier for _, carrier in values], pa.string()),
    })


def of(values: list[tuple[float | None, str | None]]) -> dict:
    return reference(batch(values), ("distance",), ("carrier",))


def cells(profile: dict) -> list[int]:
    return [*profile["counts"], *(profile[key] for key in ("missing", "not_finite", "other") if key in profile)]


def numeric(values: np.ndarray, reference_of: np.ndarray | None = None) -> dict:
    """The profile of one numeric column, in the cells of another if one is given."""
    made = pa.record_batch({"x": pa.array(values, pa.float64())})
    if reference_of is None:
        return reference(made, ("x",), ())["x"]
    return count(made, reference(pa.record_batch({"x": pa.array(reference_of, pa.float64())}), ("x",), ()))["x"]


@given(rows, rows)
def test_every_row_is_in_one_cell(first: list, second: list) -> None:
    cells_of_first = of(first)
    for values, profile in ((first, cells_of_first), (second, count(batch(second), cells_of_first))):
        assert all(sum(cells(one)) == len(values) for one in profile.values())
        given_numbers = [number for number, _ in values]
        assert profile["distance"]["missing"] == given_numbers.count(None)
        finite = np.array([number for number in given_numbers if number is not None and math.isfinite(number)])
        assert profile["distance"]["not_finite"] == len(values) - given_numbers.count(None) - len(finite)
        edges = [-math.inf, *cells_of_first["distance"]["edges"], math.inf]
        assert profile["distance"]["counts"] == [int(((finite > low) & (finite <= high)).sum()) for low, high in pairwise(edges)]
        given_carriers = [carrier for _, carrier in values]
        assert profile["carrier"]["missing"] == given_carriers.count(None)
        for value, found in zip(profile["carrier"]["values"], profile["carrier"]["counts"], strict=True):
            assert found == given_carriers.count(value)
        assert json.loads(json_bytes(profile)) == profile


@given(rows, st.integers(0, 60))
def test_the_parts_add_up_to_the_whole(values: list, cut: int) -> None:
    whole = of(values)
    assert merge(count(batch(values[:cut]), whole), count(batch(values[cut:]), whole)) == whole


@given(rows.filter(bool), st.integers(2, 5))
def test_equal_shares_are_no_distance(values: list, times: int) -> None:
    once = of(values)
    often = count(batch(values * times), once)
    for name, profile in once.items():
        assert distance(profile, often[name]) == pytest.approx(0, abs=1e-12)


@given(rows.filter(bool), rows.filter(bool))
def test_a_distance_is_finite_and_the_same_both_ways(first: list, second: list) -> None:
    one = of(first)
    other = count(batch(second), one)
    for name, profile in one.items():
        there, back = distance(profile, other[name]), distance(other[name], profile)
        assert there is not None
        assert 0 <= there < math.inf
        assert there == pytest.approx(back)
        assert (there < 1e-12) == (
            np.allclose(np.array(cells(profile)) * len(second), np.array(cells(other[name])) * len(first), rtol=0, atol=0)
        )


def test_a_small_shift_has_the_distance_of_the_population_stability_index() -> None:
    random = np.random.default_rng(1)
    before = random.standard_normal(200_000)
    for shift in (0.05, 0.1, 0.2):
        after = numeric(random.standard_normal(150_000) + shift, before)
        p, q = (np.array(one["counts"]) / sum(one["counts"]) for one in (numeric(before), after))
        index = float(((p - q) * np.log(p / q)).sum())
        assert distance(numeric(before), after) == pytest.approx(index, rel=0.03)
        assert distance(numeric(before), after) == pytest.approx(shift**2, rel=0.2)


def test_without_a_shift_the_statistic_is_chi_squared() -> None:
    """G = distance * N_eff has the mean of its degrees of freedom: 10 cells, so 9."""
    random = np.random.default_rng(2)
    found = []
    for _ in range(400):
        a, b = random.standard_normal(3000), random.standard_normal(2000)
        together = np.concatenate([a, b])
        apart = distance(numeric(a, together), numeric(b, together))
        assert apart is not None
        found.append(apart * 3000 * 2000 / 5000)
    assert np.mean(found) == pytest.approx(9, abs=4 * math.sqrt(18 / 400))


def test_cells_are_tenths_where_values_differ() -> None:
    profile = numeric(np.random.default_rng(1).random(10_000))
    assert len(profile["edges"]) == 9
    assert profile["counts"] == [1000] * 10


@pytest.mark.parametrize("usual", [0.0, 5.0, -3.0])
@pytest.mark.parametrize("unusual", [-7.0, 7.0])
def test_a_value_that_is_nearly_always_there_has_a_cell_of_its_own(usual: float, unusual: float) -> None:
    before, after = np.full(1000, usual), np.array([usual] * 900 + [unusual] * 100)
    assert (distance(numeric(before), numeric(after, before)) or 0) > 0.05
    (change,) = changes({"x": numeric(before)}, {"x": numeric(after, before)})
    assert change["cell"] in {f"exactly {usual:.4g}", f"below {usual:.4g}", f"above {usual:.4g}"}
    assert abs(change["after"] - change["before"]) == pytest.approx(0.1)


def test_cells_have_words() -> None:
    profile = numeric(np.array([0.0] * 60 + [float(number) for number in range(1, 41)]))
    missing = {**profile, "counts": [0] * 6, "missing": 1}
    words = []
    for cell in range(6):
        counts = [int(cell == number) for number in range(6)]
        words.append(changes({"x": missing}, {"x": {**profile, "counts": counts}})[0]["cell"])
    assert words == ["below 0", "exactly 0", "above 0, up to 10", "above 10, up to 20", "above 20, up to 30", "above 30"]


@pytest.mark.parametrize("kind", [pa.int8(), pa.float32(), pa.bool_(), pa.decimal128(21, 1)], ids=str)
def test_numbers_of_any_type_are_counted(kind: pa.DataType) -> None:
    column = pa.array([0, 1, 1, None, 0, 0], pa.int64()).cast(kind)
    profile = reference(pa.record_batch({"x": column}), ("x",), ())["x"]
    assert (sum(profile["counts"]), sorted(profile["counts"])[-2:], profile["missing"]) == (5, [2, 3], 1)


def test_only_the_most_frequent_values_are_named() -> None:
    # The last in the alphabet are the most frequent.
    values = [f"v{99 - number}" for number in range(30) for _ in range(30 - number)]
    profile = reference(pa.record_batch({"x": [*values[::-1], None]}), (), ("x",))["x"]
    assert profile["values"] == [f"v{99 - number}" for number in range(20)]
    assert (profile["other"], profile["missing"]) == (sum(range(1, 11)), 1)


def test_changes_come_largest_first_with_the_cell_in_words() -> None:
    random = np.random.default_rng(3)
    carriers_before = ["AA"] * 500 + ["DL"] * 500
    before = pa.record_batch({"still": random.random(1000), "carrier": carriers_before, "gone": random.random(1000)})
    after = pa.record_batch({
        "still": before.column("still"),
        "carrier": ["AA"] * 400 + ["DL"] * 500 + ["ZZ"] * 100,
        "gone": pa.nulls(1000, pa.float64()),
    })
    profile = reference(before, ("still", "gone"), ("carrier",))
    found = changes(profile, count(after, profile))
    assert [one["feature"] for one in found] == ["gone", "carrier", "still"]
    assert (found[0]["cell"], found[0]["before"], found[0]["after"]) == ("missing", 0.0, 1.0)
    assert found[1]["cell"] in {"'AA'", "other values"}
    assert found[2]["distance"] == 0.0


def test_without_rows_nothing_is_known_and_that_comes_first() -> None:
    profile = of([(1.0, "AA"), (2.0, "DL")])
    empty = count(batch([]), profile)
    assert distance(profile["distance"], empty["distance"]) is None
    assert [one["distance"] for one in changes(profile, empty)] == [None, None]


def test_profiles_of_different_cells_are_not_compared() -> None:
    one, other = of([(1.0, "AA")]), of([(2.0, "DL")])
    for name in ("distance", "carrier"):
        with pytest.raises(DifferentCells, match="count both with one reference"):
            distance(one[name], other[name])
    with pytest.raises(DifferentCells):
        merge(one, other)
    with pytest.raises(DifferentCells, match="other features, distance, carrier and distance;"):
        changes(one, {"distance": one["distance"]})


@given(rows, rows)
def test_ranges_add_up_to_that_of_all_rows(first: list, second: list) -> None:
    whole = of(first + second)
    merged = merge(count(batch(first), whole), count(batch(second), whole))["distance"]
    finite = [number for number, _ in first + second if number is not None and math.isfinite(number)]
    assert (merged["low"], merged["high"]) == (min(finite, default=None), max(finite, default=None))


def test_a_range_that_is_not_known_of_one_part_is_not_known_of_the_whole() -> None:
    one = of([(1.0, "AA")])
    other = {**one, "distance": {key: value for key, value in one["distance"].items() if key not in {"low", "high"}}}
    assert merge(one, one)["distance"]["low"] == 1.0
    for merged in (merge(one, other), merge(other, one)):
        assert not merged["distance"].keys() & {"low", "high"}


@given(rows.filter(bool), rows.filter(bool))
def test_distances_of_many_are_those_of_each(first: list, second: list) -> None:
    one = of(first)["distance"]
    other = count(batch(second), of(first))["distance"]
    both = np.array([all_counts(one), all_counts(other)], dtype=float)
    assert distances(both, both[::-1]) == pytest.approx([distance(one, other), distance(other, one)])
