"""The search is repeatable, bounded, judged in order of time, and knows nothing of the holdout."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import sklearn.metrics

from include.core.artifacts import predict
from include.core.evaluation import Task
from include.core.features import encode
from include.core.files import json_bytes
from include.core.training import CannotTrain, Parameters, train
from include.core.tuning import Space, Trial, Tuned, tune
from tests.core.examples import CATEGORICAL, NUMERIC, delays, flights

SPACE = Space(windows=(4, 6, None), half_lives=(None, 3.0), max_trees=30)
# 12 days: 1..5 or 7 to learn from, 6..7 and 8..9 to judge, 10..12 are the holdout.
LAST_DAY = date(2013, 1, 9)

each_task = pytest.mark.parametrize("task", ["classification", "regression"])


def tuned(rows: pa.Table | None = None, task: Task = "classification", space: Space = SPACE, **changes: Any) -> Tuned:
    if rows is None:
        rows = flights() if task == "classification" else delays()
    options = {"trials": 6, "validation_days": 2, "holdout_days": 3, "min_rows": 100, "seed": 7, **changes}
    return tune(rows, task, NUMERIC, CATEGORICAL, "label", space, **options)


def replaced(table: pa.Table, name: str, values: Any) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@each_task
def test_the_same_rows_and_seed_give_the_same_result(task: Task) -> None:
    first = tuned(task=task)
    assert json_bytes(first.to_json()) == json_bytes(tuned(task=task).to_json())
    assert json_bytes(first.to_json()) == json_bytes(tuned(task=task, threads=1).to_json())
    assert [trial.parameters for trial in first.trials[1:]] != [trial.parameters for trial in tuned(task=task, seed=8).trials[1:]]


@each_task
def test_nothing_of_the_holdout_reaches_the_search(task: Task) -> None:
    """Other labels, features and even types of trouble after the last day of training: the same answer, to the byte."""
    rows = flights() if task == "classification" else delays()
    later = pc.greater(rows["partition_date"], pa.scalar(LAST_DAY))
    label = pc.if_else(later, None, rows["label"])
    other = replaced(replaced(rows, "label", label), "carrier", pc.if_else(later, "ZZ", rows["carrier"]))
    other = replaced(replaced(other, "distance", pc.if_else(later, math.inf, rows["distance"])), "hour", rows["hour"])
    # Half as many rows in it, too.
    kept = pc.or_(pc.invert(later), pa.array(np.arange(rows.num_rows) % 2 == 0))
    assert tuned(other.filter(kept), task).to_json() == tuned(rows, task).to_json()


def test_the_first_trial_is_fixed_whatever_the_seed() -> None:
    found = [tuned(trials=1, seed=seed) for seed in (7, 8)]
    for one, seed in zip(found, (7, 8), strict=True):
        assert [trial.parameters for trial in one.trials] == [one.parameters]
        assert one.parameters == Parameters(seed=seed, trees=one.parameters.trees)
    finite = tuned(space=Space(windows=(4, 6), half_lives=(2.0, 3.0), max_trees=30), trials=1).parameters
    assert (finite.window_days, finite.half_life_days) == (6, 3.0)


@each_task
def test_the_best_trial_is_chosen(task: Task) -> None:
    found = tuned(task=task, trials=9)
    assert len(found.trials) == 9
    losses = [trial.loss for trial in found.trials if trial.loss is not None]
    assert found.loss == min(losses) <= found.trials[0].loss
    assert found.parameters == next(trial.parameters for trial in found.trials if trial.loss == found.loss)
    assert found.loss < found.baseline_loss
    for trial in found.trials:
        assert 1 <= trial.parameters.trees <= 30
        assert trial.parameters.window_days in {4, 6, None}
        assert trial.parameters.half_life_days in {3.0, None}
        assert Parameters.from_json(trial.parameters.to_json()) == trial.parameters


@each_task
def test_a_loss_is_that_of_models_trained_on_what_came_before(task: Task) -> None:
    """Two models by the product's own training, each on the days before a set: their mean loss is the trial's."""
    rows = flights() if task == "classification" else delays()
    for seed in (7, 8):
        # Without early stopping no tree is dropped, so both trials have all three.
        trial = tuned(rows, task, Space((5,), (2.0,), max_trees=3), trials=2, seed=seed).trials[-1]
        losses = []
        for last in (date(2013, 1, 9), date(2013, 1, 7)):
            known = rows.filter(pc.less_equal(rows["partition_date"], pa.scalar(last)))
            model = train(known, task, NUMERIC, CATEGORICAL, "label", trial.parameters, holdout_days=2, min_rows=1)
            assert model.training.rows == 5 * 250
            judged = known.filter(pc.greater(known["partition_date"], pa.scalar(model.training.last))).combine_chunks()
            scores = predict(model.booster, encode(judged.to_batches()[0], model.spec)[0])
            labels = judged["label"].to_numpy()
            losses.append(
                sklearn.metrics.log_loss(labels, scores)
                if task == "classification"
                else math.sqrt(np.mean((labels - scores) ** 2))
            )
        assert trial.parameters.trees == 3
        assert trial.loss == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_validation_sets_end_where_the_holdout_begins() -> None:
    found = tuned(trials=1)
    assert [(one.first, one.last, one.rows) for one in found.validation] == [
        (date(2013, 1, 8), date(2013, 1, 9), 500),
        (date(2013, 1, 6), date(2013, 1, 7), 500),
    ]
    rows = flights()
    share = rows["label"].to_numpy()[:1750].mean()
    judged = rows["label"].to_numpy()[1750:2250]
    assert found.validation[0].baseline_loss == pytest.approx(sklearn.metrics.log_loss(judged, np.full(500, share)))


def test_a_short_window_wins_where_the_world_has_turned() -> None:
    rows = flights(6000, days=30)
    old = pc.less(rows["partition_date"], pa.scalar(date(2013, 1, 16)))
    rows = replaced(rows, "label", pc.if_else(old, pc.subtract(1, rows["label"]), rows["label"]))
    found = tuned(rows, space=Space((5, None), (None,), 30), trials=8, validation_days=2)
    assert found.parameters.window_days == 5
    assert found.trials[0].parameters.window_days is None


def test_windows_that_are_all_the_same_are_tried_once() -> None:
    """The later set has 7 days before it: 7, 30 and all of them are the same rows."""
    found = tuned(space=Space((7, 30, None), (None,), 10), trials=8)
    assert {trial.parameters.window_days for trial in found.trials} == {None}
    found = tuned(space=Space((7, 30), (None,), 10), trials=8)
    assert {trial.parameters.window_days for trial in found.trials} == {30}


def test_a_window_with_too_few_rows_is_not_tried() -> None:
    found = tuned(min_rows=1001, trials=8)
    assert 4 not in {trial.parameters.window_days for trial in found.trials}
    with pytest.raises(CannotTrain, match=r"no window of training.search.windows has enough.*4 days: 1000 rows to learn from"):
        tuned(space=Space((4,), (None,), 10), min_rows=1001)


def test_a_trial_without_hope_is_cut_short_and_never_chosen() -> None:
    found = tuned(flights(6000, days=30), space=Space((2, 10, None), (None, 1.0), 60), trials=20)
    cut = [trial for trial in found.trials if trial.loss is None]
    assert 0 < len(cut) < 16
    assert found.trials[0].loss is not None
    assert all(trial.loss is not None for trial in found.trials[:4])
    assert found.parameters not in [trial.parameters for trial in cut]


def test_progress_is_told_every_trial() -> None:
    seen: list[tuple[int, Trial, float]] = []
    found = tuned(progress=lambda *told: seen.append(told))
    assert [number for number, _, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert tuple(trial for _, trial, _ in seen) == found.trials
    assert [best for _, _, best in seen] == [
        min(trial.loss for trial in found.trials[:number] if trial.loss is not None) for number in range(1, 7)
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"holdout_days": 12}, "nothing is left to learn from"),
        ({"holdout_days": 8}, r"has 4 partitions before the holdout, of which .*validation_days = 2 leave none"),
        ({"trials": 0}, "training.search.trials is 0"),
        ({"validation_days": 0}, "validation_days = 0"),
    ],
    ids=str,
)
def test_a_search_that_cannot_be_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(CannotTrain, match=message):
        tuned(**changes)


@pytest.mark.parametrize(
    ("windows", "half_lives", "max_trees", "message"),
    [
        ((), (None,), 10, "windows: is empty"),
        ((None,), (), 10, "half_lives: is empty"),
        ((0,), (None,), 10, "windows: 0 must be at least 1"),
        ((None,), (0.0,), 10, "half_lives: 0.0 must be above 0"),
        ((None,), (math.nan,), 10, "half_lives: nan must be above 0"),
        ((None,), (None,), 0, "max_trees: 0 must be at least 1"),
    ],
)
def test_a_space_with_nothing_in_it_is_refused(windows: tuple, half_lives: tuple, max_trees: int, message: str) -> None:
    with pytest.raises(CannotTrain, match=message):
        Space(windows, half_lives, max_trees)
