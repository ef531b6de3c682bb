"""Metrics are right where they can be told, and None where they cannot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from include.core.evaluation import evaluate
from include.core.gates import absolute_floors


def test_metrics_of_a_case_worked_out_by_hand() -> None:
    metrics = evaluate("classification", np.array([0, 1, 0, 1]), np.array([0.1, 0.8, 0.6, 0.4]))
    assert metrics["auc"] == pytest.approx(3 / 4)
    assert metrics["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert metrics["brier"] == pytest.approx((0.01 + 0.04 + 0.36 + 0.36) / 4)
    assert metrics["log_loss"] == pytest.approx(-(math.log(0.9) + math.log(0.8) + math.log(0.4) + math.log(0.4)) / 4)


def test_one_class_tells_nothing_about_ranking() -> None:
    metrics = evaluate("classification", np.zeros(5), np.full(5, 0.2))
    assert metrics["auc"] is None
    assert metrics["average_precision"] is None
    assert metrics["brier"] == pytest.approx(0.04)
    assert absolute_floors(metrics, {"auc": 0.0}).outcome == "HOLD"


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


def test_scores_of_zero_and_one_have_a_finite_loss_or_none() -> None:
    loss = evaluate("classification", np.array([0, 1, 1]), np.array([1.0, 0.0, 1.0]))["log_loss"]
    assert loss is None or math.isfinite(loss)
