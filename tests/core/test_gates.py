"""The gate opens for numbers that reach their floor, and for nothing else."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.gates import Verdict, absolute_floors, all_of

anything = st.one_of(st.none(), st.floats(), st.sampled_from([math.nan, math.inf, -math.inf]))


@given(
    st.dictionaries(st.sampled_from(["auc", "average_precision"]), anything),
    st.dictionaries(st.sampled_from(["auc", "x"]), st.floats()),
)
def test_only_finite_metrics_at_or_above_finite_floors_promote(metrics: dict, floors: dict) -> None:
    reached = bool(floors) and all(
        math.isfinite(floor) and (value := metrics.get(name)) is not None and math.isfinite(value) and value >= floor
        for name, floor in floors.items()
    )
    assert (absolute_floors(metrics, floors).outcome == "PROMOTE") == reached


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_what_could_not_be_measured_holds(value: float | None) -> None:
    verdict = absolute_floors({"auc": value}, {"auc": 0.6})
    assert verdict.outcome == "HOLD"
    assert "auc could not be measured" in verdict.reasons[0]


@pytest.mark.parametrize("floor", [math.nan, math.inf, -math.inf])
def test_a_floor_that_is_no_number_holds(floor: float) -> None:
    verdict = absolute_floors({"auc": 0.9}, {"auc": floor})
    assert verdict.outcome == "HOLD"
    assert "correct gate.floors" in verdict.reasons[0]


def test_below_the_floor_rejects_and_says_both_numbers() -> None:
    assert absolute_floors({"auc": 0.59}, {"auc": 0.6}) == Verdict("REJECT", ("auc 0.5900 is below its floor 0.6",))


def test_at_the_floor_promotes() -> None:
    assert absolute_floors({"auc": 0.6}, {"auc": 0.6}) == Verdict("PROMOTE", ("auc 0.6000 is at or above its floor 0.6",))


def test_no_rule_is_no_proof() -> None:
    assert absolute_floors({"auc": 0.9}, {}).outcome == "HOLD"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["PROMOTE", "PROMOTE"], "PROMOTE"),
        (["PROMOTE", "HOLD"], "HOLD"),
        (["HOLD", "REJECT", "PROMOTE"], "REJECT"),
    ],
)
def test_the_strictest_verdict_decides(outcomes: list, expected: str) -> None:
    verdict = all_of(*(Verdict(outcome, (outcome,)) for outcome in outcomes))
    assert verdict == Verdict(expected, tuple(outcomes))
