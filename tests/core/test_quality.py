"""Has a model got worse? By its own expectation, by days, and never without enough of them."""

from __future__ import annotations

import math
from datetime import date, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from include.core.quality import DayLoss, Rules, binned_auc, judge_decay, judge_former, log_loss, mean_by_day

FIRST = date(2013, 4, 1)
RULES = Rules()


def day(number: int, excess: float, labelled: float = 500, expected: float = 0.5) -> DayLoss:
    return DayLoss(FIRST + timedelta(days=number), labelled, labelled * (expected + excess), labelled * expected)


def days(count: int, excess: float, scatter: float = 0.01, seed: int = 1) -> list[DayLoss]:
    random = np.random.default_rng(seed)
    return [day(number, excess + scatter * random.standard_normal()) for number in range(count)]


def test_the_loss_of_a_row_is_expected_to_be_its_entropy() -> None:
    for score in (0.01, 0.3, 0.5, 0.97):
        (yes, expected), (no, _) = log_loss(1, score), log_loss(0, score)
        assert score * yes + (1 - score) * no == pytest.approx(expected)
    assert all(map(math.isfinite, (*log_loss(1, 0.0), *log_loss(0, 1.0))))


def test_a_model_that_knows_what_it_says_is_ok_however_hard_the_days() -> None:
    hard = [day(number, 0.0, expected=0.3 if number % 2 else 0.69) for number in range(28)]
    assert judge_decay(hard, RULES).state == "ok"


def test_a_model_that_is_wrong_has_decayed_and_the_sentence_says_by_how_much() -> None:
    judged = judge_decay(days(28, 0.2, scatter=0.0), RULES)
    assert judged.state == "decay"
    assert "0.700" in judged.sentence and "expects 0.500" in judged.sentence and "40% more" in judged.sentence


def test_what_is_tolerated_and_what_chance_does_are_no_decay() -> None:
    assert judge_decay(days(28, 0.04), RULES).state == "ok"
    assert judge_decay(days(28, 0.06, scatter=0.2), RULES).state == "ok"


def test_a_sudden_decay_shows_in_the_week_before_it_shows_in_four() -> None:
    late = days(21, 0.0) + [day(number, 0.15) for number in range(21, 28)]
    week, month = judge_decay(late, RULES).windows
    assert (week.state, month.state) == ("decay", "ok")


def test_nothing_is_judged_without_days_and_labels() -> None:
    for few in ([], [day(0, 9.0, labelled=0)], days(4, 9.0), [day(number, 9.0, labelled=10) for number in range(7)]):
        judged = judge_decay(few, RULES)
        assert judged.state == "cannot judge" and "cannot be judged yet" in judged.sentence
    assert all(
        None not in w.values() or w["state"] == "cannot judge" for w in judge_decay(days(1, 9.0), RULES).to_json()["windows"]
    )


def test_days_of_a_storm_are_one_observation_each_not_thousands() -> None:
    """With the same total loss: five days that agree say something, one storm among quiet days does not."""
    storm = [day(number, 0.0, labelled=5000) for number in range(6)] + [day(6, 0.7, labelled=5000)]
    steady = [day(number, 0.1 + 0.001 * (number % 2), labelled=5000) for number in range(7)]
    assert judge_decay(storm, RULES).state == "ok"
    assert judge_decay(steady, RULES).state == "decay"


def test_false_alarms_at_the_limit_are_as_rare_as_promised() -> None:
    """At the very excess that is tolerated; each run is 28 days, so 2000 runs are 2000 independent looks."""
    random = np.random.default_rng(7)
    alarms = sum(
        judge_decay([day(n, 0.05 + 0.05 * random.standard_normal()) for n in range(28)], RULES).state == "decay"
        for _ in range(2000)
    )
    assert alarms <= 0.015 * 2000


def test_a_worse_champion_is_told_from_an_unlucky_one() -> None:
    before = days(10, 0.0, seed=3)
    worse = [
        DayLoss(d.partition, d.labelled, d.loss + d.labelled * (0.05 + 0.004 * (n % 3)), d.expected) for n, d in enumerate(before)
    ]
    unlucky = [
        DayLoss(d.partition, d.labelled, d.loss + d.labelled * (0.4 if n == 2 else 0.0), d.expected) for n, d in enumerate(before)
    ]
    assert judge_former(worse, before, RULES).worse
    assert not judge_former(unlucky, before, RULES).worse
    assert not judge_former(before, worse, RULES).worse
    assert "per row more than the champion before" in judge_former(worse, before, RULES).sentence


def test_champions_are_compared_on_the_same_rows_or_not_at_all() -> None:
    now, then = days(10, 0.5), days(10, 0.0)
    assert not judge_former(now[:4], then, RULES).worse
    assert "5 days" in judge_former(now[:4], then, RULES).sentence
    other = [DayLoss(d.partition, d.labelled - 1, d.loss, d.expected) for d in then]
    assert "not scored the same rows" in judge_former(now, other, RULES).sentence


def test_the_error_is_that_of_a_ratio_by_clusters() -> None:
    mean = mean_by_day([10.0, 30.0, 20.0], [100, 200, 100])
    assert mean.value == pytest.approx(60 / 400)
    left = [10 - 15, 30 - 30, 20 - 15]
    assert mean.error == pytest.approx(math.sqrt(3 / 2 * sum(each**2 for each in left)) / 400)
    assert mean_by_day([1.0], [10]).error == math.inf


@given(st.lists(st.tuples(st.integers(0, 39), st.booleans()), min_size=2, max_size=200))
def test_binned_auc_is_the_auc_of_the_bins(rows: list[tuple[int, bool]]) -> None:
    labelled, positives = [0] * 40, [0] * 40
    for cell, label in rows:
        labelled[cell] += 1
        positives[cell] += label
    labels, cells = np.array([label for _, label in rows]), np.array([cell for cell, _ in rows], dtype=float)
    found = binned_auc(labelled, positives)
    if 0 < labels.sum() < len(rows):
        assert found == pytest.approx(roc_auc_score(labels, cells))
    else:
        assert found is None
