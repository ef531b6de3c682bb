"""A column made from the label is found whatever its form; an honest one, however strong, and chance are not."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from include.core.errors import Refused
from include.core.evaluation import Task
from include.core.features import UnusableFeatures
from include.core.leakage import FEWEST, Leak, auc, refuse_leaks, repeated_keys, strength

RANDOM = np.random.default_rng(1)
ROWS = 4000
LABELS = (RANDOM.random(ROWS) < 0.2).astype(np.int8)
MINUTES = RANDOM.gamma(2, 20, ROWS) - 30
NOISE = RANDOM.standard_normal(ROWS)
LIMIT = 0.98


def of(task: Task, values: Any, labels: np.ndarray | None = None, categorical: bool = False) -> dict[str, float | None]:
    if labels is None:
        labels = LABELS if task == "classification" else MINUTES
    return strength(task, labels, pa.record_batch({"x": values}), "x", categorical)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=60, max_size=120))
def test_the_auc_is_that_of_scikit_learn_ties_and_all(rows: list[tuple[bool, int]]) -> None:
    positive, values = np.array([p for p, _ in rows]), np.array([float(v) for _, v in rows])
    found = auc(positive, values)
    if min(positive.sum(), (~positive).sum()) < FEWEST:
        assert found is None
    else:
        expected = sklearn.metrics.roc_auc_score(positive, values)
        assert found == pytest.approx(max(expected, 1 - expected))


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(0, 6)), min_size=40, max_size=80))
def test_numbers_are_measured_by_spearmans_rank_correlation(rows: list[tuple[int, int]]) -> None:
    labels, values = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    found = of("regression", values, labels)["auc"]
    if len(set(labels)) == 1 or len(set(values)) == 1:
        assert found == 0.5
    else:
        assert found == pytest.approx(0.5 + abs(scipy.stats.spearmanr(labels, values).statistic) / 2)


@pytest.mark.parametrize("direction", [1, -1])
def test_a_copy_of_the_label_is_found_in_any_unit(direction: int) -> None:
    copy = direction * (LABELS * 1000.0 + NOISE)
    assert of("classification", copy)["auc"] == 1.0
    # On the rows that have it: a value for every second row only is found too.
    assert of("classification", pa.array(copy, mask=np.arange(ROWS) % 2 == 0))["auc"] == 1.0
    assert (of("regression", direction * np.exp(MINUTES / 50))["auc"] or 0) > 0.999


def test_a_category_that_says_the_label_is_found() -> None:
    names = np.where(LABELS == 1, RANDOM.choice(["late", "very late"], ROWS), RANDOM.choice(["early", "on time"], ROWS))
    assert of("classification", names.tolist(), categorical=True)["auc"] == 1.0
    bands = [f"band {value:.0f}" for value in MINUTES // 5]
    assert (of("regression", bands, categorical=True)["auc"] or 0) > LIMIT


def test_a_value_that_is_missing_as_the_label_says_is_found() -> None:
    values = pa.array(NOISE, mask=LABELS == 1)
    found = of("classification", values)
    assert found == {"auc": None, "missing_auc": 1.0}
    carrier = pa.array(["AA"] * ROWS, mask=LABELS == 1)
    assert of("classification", carrier, categorical=True) == {"auc": None, "missing_auc": 1.0}
    late = np.quantile(MINUTES, 0.9)
    assert of("regression", pa.array(NOISE, mask=late < MINUTES))["missing_auc"] == 1.0


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_chance_tells_nothing(task: Task) -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        found = of(task, pa.array(random.standard_normal(ROWS), mask=random.random(ROWS) < 0.3))
        assert max(found["auc"] or 0, found["missing_auc"] or 0) < 0.55
        carriers = [f"c{number}" for number in random.integers(0, 50, ROWS)]
        assert (of(task, carriers, categorical=True)["auc"] or 0) < 0.55
    # Nor does a category of its own for every row: no row sees its own label.
    assert (of(task, [f"flight {number}" for number in range(ROWS)], categorical=True)["auc"] or 0) < 0.6


def test_a_strong_but_honest_feature_is_let_through() -> None:
    found = {"x": of("classification", LABELS * 2 + NOISE), "y": of("regression", MINUTES + 30 * NOISE)}
    assert all(0.7 < (one["auc"] or 0) < LIMIT for one in found.values())
    refuse_leaks(found, LIMIT)


def test_too_few_rows_are_not_judged() -> None:
    labels = np.array([1] * (FEWEST - 1) + [0] * 1000)
    assert of("classification", labels * 1.0, labels) == {"auc": None, "missing_auc": None}
    assert of("regression", np.arange(39.0), np.arange(39.0))["auc"] is None
    # Ten rows of 4000 without a value, all very late: not worth stopping for.
    few = np.zeros(ROWS, dtype=bool)
    few[np.argsort(MINUTES)[-30:]] = True
    assert of("regression", pa.array(NOISE, mask=few))["missing_auc"] is None


def test_the_refusal_names_feature_value_limit_and_remedy() -> None:
    found: dict[str, dict[str, float | None]] = {
        "arrival": {"auc": 0.99312, "missing_auc": 0.5},
        "tailnum": {"auc": None, "missing_auc": 0.985},
        "fine": {"auc": 0.98, "missing_auc": None},
    }
    with pytest.raises(Leak) as error:
        refuse_leaks(found, LIMIT)
    message = str(error.value)
    assert "'arrival' tells the label with an AUC of 0.9931" in message
    assert "'tailnum' is NULL as the label says, with an AUC of 0.9850" in message
    assert "fine" not in message
    assert "training.max_feature_auc is 0.98: look at how features.sql makes it" in message
    assert "if it is legitimate, raise training.max_feature_auc" in message
    assert isinstance(error.value, Refused)


def test_infinities_have_a_rank_and_the_result_is_json() -> None:
    found = of("classification", np.where(LABELS == 1, np.inf, -np.inf))
    assert found["auc"] == 1.0
    assert json.loads(json.dumps(of("classification", pa.nulls(ROWS, pa.float64())), allow_nan=False)) == {
        "auc": None,
        "missing_auc": 0.5,
    }


def test_a_column_of_another_type_is_refused() -> None:
    with pytest.raises(UnusableFeatures, match="'x' holds string"):
        of("classification", ["a"] * ROWS)
    with pytest.raises(UnusableFeatures, match="'x' holds double"):
        of("classification", NOISE, categorical=True)


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", None]), st.integers(0, 2)), max_size=12))
def test_keys_that_repeat_are_counted(rows: list[tuple[str | None, int]]) -> None:
    table = pa.table({
        "key": pa.array([key for key, _ in rows], pa.string()),
        "day": pa.array([day for _, day in rows], pa.int32()),
    })
    assert repeated_keys(table) == sum(row[0] is None or rows.count(row) > 1 for row in rows)
