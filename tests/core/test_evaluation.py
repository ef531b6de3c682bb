"""Metrics and their intervals are right where they can be told, and None where they cannot."""

from __future__ import annotations

import math
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from include.core.evaluation import calibrate, evaluate, measure, rank, roc, standard_error_of_auc

# Few distinct values, so that most scores are tied: trees give many equal scores.
rows_of_two_classes = st.lists(
    st.tuples(st.sampled_from([0, 1]), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])), min_size=4, max_size=40
).filter(lambda rows: 2 <= sum(label for label, _ in rows) <= len(rows) - 2)


def columns(rows: list[tuple[int, float]]) -> tuple[np.ndarray, np.ndarray]:
    labels, scores = zip(*rows, strict=True)
    return np.array(labels, dtype=np.float64), np.array(scores)


def wins(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Of each pair of a positive and a negative 1, 1/2 or 0: the definition of the AUC, in rows times rows."""
    above, below = scores[labels == 1][:, None], scores[labels == 0][None, :]
    return (above > below) + 0.5 * (above == below)


def test_metrics_of_a_case_worked_out_by_hand() -> None:
    found = evaluate("classification", np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.6, 0.4]))
    assert found["auc"] == pytest.approx(3 / 4)
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
    assert found["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.4)) / 4)


def test_metrics_of_numbers_worked_out_by_hand() -> None:
    found = evaluate("regression", np.array([1.0, 2.0, 3.0, 6.0]), np.array([1.0, 3.0, 3.0, 4.0]))
    assert found == {
        "rmse": pytest.approx(math.sqrt(5 / 4)),
        "mae": pytest.approx(3 / 4),
        "r2": pytest.approx(1 - 5 / (4 + 1 + 0 + 9)),
    }


@given(rows_of_two_classes)
def test_ties_are_counted_as_scikit_learn_counts_them(rows: list[tuple[int, float]]) -> None:
    labels, scores = columns(rows)
    found = evaluate("classification", labels, scores)
    assert found["auc"] == pytest.approx(metrics.roc_auc_score(labels, scores))
    assert found["average_precision"] == pytest.approx(metrics.average_precision_score(labels, scores))


@given(rows_of_two_classes)
def test_the_error_of_the_auc_is_that_of_delongs_definition(rows: list[tuple[int, float]]) -> None:
    labels, scores = columns(rows)
    pairs = wins(labels, scores)
    expected = math.sqrt(pairs.mean(axis=1).var(ddof=1) / pairs.shape[0] + pairs.mean(axis=0).var(ddof=1) / pairs.shape[1])
    ranking = rank(labels, scores)
    assert ranking is not None
    assert ranking.auc == pytest.approx(pairs.mean())
    assert standard_error_of_auc(labels, ranking.placements) == pytest.approx(expected, abs=1e-12)


@given(rows_of_two_classes, st.randoms(use_true_random=False))
def test_the_order_of_rows_is_of_no_consequence(rows: list[tuple[int, float]], random: object) -> None:
    before = evaluate("classification", *columns(rows))
    random.shuffle(rows)  # type: ignore[attr-defined]
    after = evaluate("classification", *columns(rows))
    assert all(after[name] == pytest.approx(value) for name, value in before.items())


def test_intervals_hold_the_truth_in_19_of_20_samples() -> None:
    """Against the value of a sample of 400,000 rows; 300 samples of 1,000, so 95 % is 95 ± 4."""
    random = np.random.default_rng(3)

    def sample(rows: int) -> tuple[np.ndarray, np.ndarray]:
        noise = random.standard_normal(rows)
        return (random.random(rows) < 1 / (1 + np.exp(2 - 1.2 * noise))).astype(float), 1 / (1 + np.exp(2 - 1.5 * noise))

    def numbers(rows: int) -> tuple[np.ndarray, np.ndarray]:
        scores = random.standard_normal(rows)
        return scores + 0.7 * random.standard_t(8, rows), scores

    for task, draw in (("classification", sample), ("regression", numbers)):
        truth = evaluate(task, *draw(400_000))
        held = dict.fromkeys(truth, 0)
        for _ in range(300):
            for name, interval in measure(task, *draw(1000))["metrics"].items():
                held[name] += interval["low"] <= truth[name] <= interval["high"]
        assert all(270 <= count <= 299 for count in held.values()), held


def test_one_class_tells_nothing_about_ranking() -> None:
    found = measure("classification", np.zeros(5), np.full(5, 0.2))
    assert found["metrics"]["auc"] == found["metrics"]["average_precision"] == {"value": None, "low": None, "high": None}
    assert found["metrics"]["brier"]["value"] == pytest.approx(0.04)
    assert found["roc"] is None and found["pr"] is None


@pytest.mark.parametrize(
    ("labels", "scores"),
    [
        ([0, 1], [0.5, math.nan]),
        ([0, 1], [0.5, math.inf]),
        ([0, 1], [0.5, 1.5]),
        ([0, 1], [0.5, -0.1]),
        ([0, math.nan], [0.5, 0.5]),
        ([0, 2], [0.5, 0.5]),
        ([], []),
        ([0, 1], [0.5]),
    ],
)
def test_rows_that_make_no_sense_give_no_metric_at_all(labels: list, scores: list) -> None:
    assert set(evaluate("classification", np.array(labels), np.array(scores)).values()) == {None}
    found = measure("classification", np.array(labels), np.array(scores))
    assert {number for metric in found["metrics"].values() for number in metric.values()} == {None}
    assert found["calibration"] == [] and found["calibration_error"] is None and found["roc"] is None


@pytest.mark.parametrize(
    ("labels", "scores"), [([1.0, 2.0], [1.0, math.nan]), ([1.0, math.inf], [1.0, 2.0]), ([], []), ([1.0], [1.0, 2.0])]
)
def test_numbers_that_make_no_sense_give_no_metric_at_all(labels: list, scores: list) -> None:
    assert set(evaluate("regression", np.array(labels), np.array(scores)).values()) == {None}


def test_numbers_too_large_to_be_squared_give_none() -> None:
    found = evaluate("regression", np.array([1e200, -1e200]), np.array([-1e200, 1e200]))
    assert found["rmse"] is None and found["r2"] is None


def test_labels_that_do_not_vary_have_no_r2() -> None:
    found = measure("regression", np.full(5, 2.0), np.array([1.0, 2, 3, 2, 2]))
    assert found["metrics"]["r2"]["value"] is None
    assert found["calibration_error"] is None


def test_a_sure_and_wrong_score_costs_much_but_not_everything() -> None:
    loss = evaluate("classification", np.array([0, 1, 1]), np.array([1.0, 0.0, 1.0]))["log_loss"]
    assert loss is not None
    assert 10 < loss < 11


def test_what_does_not_vary_has_no_interval() -> None:
    perfect = measure("classification", np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.8, 0.9]))["metrics"]
    assert perfect["auc"] == {"value": 1.0, "low": None, "high": None}
    assert perfect["average_precision"] == {"value": 1.0, "low": None, "high": None}
    assert measure("regression", np.array([1.0]), np.array([2.0]))["metrics"]["mae"] == {"value": 1.0, "low": None, "high": None}


def test_the_interval_of_a_calibration_bin_is_wilsons() -> None:
    bins, error = calibrate("classification", np.array([1.0] * 8 + [0.0] * 2), np.full(10, 0.5))
    assert bins == [
        {
            "forecast": 0.5,
            "outcome": 0.8,
            "low": pytest.approx(0.4902, abs=1e-4),
            "high": pytest.approx(0.9433, abs=1e-4),
            "rows": 10,
        }
    ]
    assert error == pytest.approx(0.3)


@given(st.integers(100, 3000), st.integers(1, 30), st.integers(0, 2**20))
def test_bins_hold_every_row_once_and_equal_scores_together(rows: int, distinct: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores = random.integers(1, distinct + 1, rows) / (distinct + 1)
    bins, error = calibrate("classification", (random.random(rows) < scores).astype(float), scores)
    assert sum(item["rows"] for item in bins) == rows
    assert 1 <= len(bins) <= min(10, distinct, max(1, rows // 100))
    assert [item["forecast"] for item in bins] == sorted({item["forecast"] for item in bins})
    assert all(item["low"] <= item["outcome"] <= item["high"] for item in bins)
    assert error == pytest.approx(sum(item["rows"] * abs(item["forecast"] - item["outcome"]) for item in bins) / rows)


def test_calibration_error_tells_honest_forecasts_from_exaggerated_ones() -> None:
    random = np.random.default_rng(5)
    chances = random.uniform(0.05, 0.95, 20_000)
    labels = (random.random(20_000) < chances).astype(float)
    honest = measure("classification", labels, chances)["calibration_error"]
    exaggerated = measure("classification", labels, (chances > 0.5) * 0.98 + 0.01)["calibration_error"]
    assert honest < 0.02 < 0.2 < exaggerated
    minutes = random.normal(0, 30, 20_000)
    assert measure("regression", minutes + random.normal(0, 30, 20_000), minutes)["calibration_error"] < 0.03
    assert measure("regression", 1e9 + minutes, 1e9 + minutes + 30)["calibration_error"] == pytest.approx(1, abs=0.02)


def test_curves_are_short_whole_and_enclose_the_area() -> None:
    random = np.random.default_rng(6)
    labels = (random.random(50_000) < 0.1).astype(float)
    scores = 1 / (1 + np.exp(2 - labels - random.standard_normal(50_000)))
    found = measure("classification", labels, scores)
    curve, precision = np.array(found["roc"]), np.array(found["pr"])
    assert len(curve) <= 200 and len(precision) <= 200
    assert curve[0].tolist() == [0, 0] and curve[-1].tolist() == [1, 1]
    assert (np.diff(curve, axis=0) >= 0).all()
    assert np.trapezoid(curve[:, 1], curve[:, 0]) == pytest.approx(found["metrics"]["auc"]["value"], abs=1e-3)
    assert precision[-1].tolist() == [1, pytest.approx(labels.mean())]
    area = np.trapezoid(precision[:, 1], precision[:, 0])
    assert area == pytest.approx(found["metrics"]["average_precision"]["value"], abs=0.02)


@given(rows_of_two_classes)
def test_a_short_curve_is_not_thinned(rows: list[tuple[int, float]]) -> None:
    labels, scores = columns(rows)
    ranking = rank(labels, scores)
    assert ranking is not None
    false_alarms, found, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert np.allclose(roc(ranking), np.column_stack([false_alarms, found]))


def test_time_and_memory_grow_with_the_rows_and_no_faster() -> None:
    random = np.random.default_rng(7)
    labels, scores = (random.random(400_000) < 0.1).astype(np.int8), random.random(400_000)
    measure("classification", labels[:1000], scores[:1000])
    started = time.process_time()
    measure("classification", labels, scores)
    assert time.process_time() - started < 5
    tracemalloc.start()
    measure("classification", labels, scores)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400_000 * 8 * 20
