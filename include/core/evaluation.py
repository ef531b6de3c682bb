"""How good scores are, on rows later than all that the model was trained on."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from sklearn import metrics

Task = Literal["classification", "regression"]
Metrics = dict[str, float | None]


def evaluate(task: Task, labels: npt.NDArray, scores: npt.NDArray) -> Metrics:
    """The quality of scores [rows] against labels [rows]: of probabilities against 0 and 1, or of numbers against numbers.

    A metric that these rows cannot tell is None, never NaN: a gate that asks for it stays closed. With rows of one
    class only that is all of `auc` and `average_precision`; without rows, or with a score that is no probability, it
    is every metric.

    Returns:
        Classification: `auc` and `average_precision` (higher is better), `log_loss` (natural logarithm) and `brier`
        (lower is better). Regression: `rmse` and `mae` (lower is better), `r2`.
    """
    if task == "regression":
        return _evaluate_numbers(labels, scores)
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    result: Metrics = dict.fromkeys(("auc", "average_precision", "log_loss", "brier"))
    # not (x >= 0) and not (x < 0) differ for NaN: only the first refuses it.
    if len(scores) == 0 or len(labels) != len(scores) or not bool(((scores >= 0) & (scores <= 1)).all()):
        return result
    if not bool(((labels == 0) | (labels == 1)).all()):
        return result
    labels = labels.astype(np.int8)
    if 0 < labels.sum(dtype=np.int64) < len(labels):
        result["auc"] = float(metrics.roc_auc_score(labels, scores))
        result["average_precision"] = float(metrics.average_precision_score(labels, scores))
    result["log_loss"] = float(metrics.log_loss(labels, scores, labels=[0, 1]))
    result["brier"] = float(np.mean((scores - labels) ** 2))
    return {name: value if value is not None and np.isfinite(value) else None for name, value in result.items()}


def _evaluate_numbers(labels: npt.NDArray, scores: npt.NDArray) -> Metrics:
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    result: Metrics = dict.fromkeys(("rmse", "mae", "r2"))
    if len(scores) == 0 or len(labels) != len(scores) or not bool((np.isfinite(scores) & np.isfinite(labels)).all()):
        return result
    errors, variance = scores - labels, float(labels.var())
    result["rmse"], result["mae"] = float(np.sqrt(np.mean(errors**2))), float(np.mean(np.abs(errors)))
    result["r2"] = 1 - float(np.mean(errors**2)) / variance if variance > 0 else None
    return {name: value if value is not None and np.isfinite(value) else None for name, value in result.items()}
