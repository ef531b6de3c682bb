"""How good the scores of one model are, and how sure of that these rows make us.

Every number comes with its 95 % interval where the rows can tell one. What they cannot tell is None, never NaN: a gate
that asks for it stays closed. All is vectorised and costs one sort of the scores.

Sources: DeLong, DeLong & Clarke-Pearson, "Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics 44 (1988); Sun & Xu, "Fast implementation of DeLong's algorithm", IEEE Signal
Processing Letters 21 (2014); Boyd, Eng & Page, "Area under the precision-recall curve", ECML PKDD (2013); Wilson,
"Probable inference", JASA 22 (1927).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from include.core.chance import standard_errors_to

Task = Literal["classification", "regression"]
Metrics = dict[str, float | None]
Floats = npt.NDArray[np.float64]
# Which rows may depend on each other: codes [rows] from 0, of their days; None if rows are independent.
Groups = npt.NDArray[np.integer] | None
# The value of a metric and the ends of its 95 % interval.
Interval = dict[str, float | None]

METRICS: dict[Task, tuple[str, ...]] = {
    "classification": ("auc", "average_precision", "log_loss", "brier"),
    "regression": ("rmse", "mae", "r2"),
}
Z95 = NormalDist().inv_cdf(0.975)
# Models score in float32: nearer to 0 or 1 than this is 0 or 1 to them, and a single such row must not make the loss infinite.
NEAREST = float(np.finfo(np.float32).eps)
CALIBRATION_BINS = 10
# Fewer rows would make a bin's outcome a matter of chance, and the calibration error of a perfect model large.
ROWS_PER_BIN = 100
CURVE_POINTS = 200


@dataclass(frozen=True)
class Ranking:
    """How scores order the rows of two classes.

    Attributes:
        auc: P(score of a positive > score of a negative), ties counted half.
        placements: [rows] of a positive the share of negatives below it, of a negative the share of positives above it,
            ties counted half; the mean of either kind is the AUC (the structural components of DeLong).
        found: int64 [distinct scores] positives at or above each score, from the highest score down.
        false_alarms: int64 [distinct scores], the same of negatives.
    """

    auc: float
    placements: Floats
    found: npt.NDArray[np.int64]
    false_alarms: npt.NDArray[np.int64]


def evaluate(task: Task, labels: npt.NDArray, scores: npt.NDArray) -> Metrics:
    """The quality of scores [rows] against labels [rows]: of probabilities against 0 and 1, or of numbers against numbers.

    A metric that these rows cannot tell is None. With rows of one class only that is all of `auc` and
    `average_precision`; without rows, or with a score that is no number (no probability), it is every metric.

    Returns:
        Classification: `auc` and `average_precision` (higher is better), `log_loss` (natural logarithm) and `brier`
        (lower is better). Regression: `rmse` and `mae` (lower is better, in the unit of the label), `r2`.
    """
    usable = as_usable(task, labels, scores)
    if usable is None:
        return dict.fromkeys(METRICS[task])
    intervals = _of_numbers(*usable) if task == "regression" else _of_probabilities(*usable, rank(*usable))
    return {name: interval["value"] for name, interval in intervals.items()}


def measure(task: Task, labels: npt.NDArray, scores: npt.NDArray, groups: Groups = None) -> dict[str, Any]:
    """All that an evaluation says of one model's scores [rows] against labels [rows]; `groups` as `standard_error` says.

    Returns:
        `metrics`: those of `evaluate`, each {"value", "low", "high"}; `calibration` and `calibration_error` as
        `calibrate` says; `roc` [[false positive rate, true positive rate]...] and `pr` [[recall, precision]...], at most
        200 points of the curves, None for a regression or a single class.
    """
    unknown: Interval = {"value": None, "low": None, "high": None}
    empty: dict[str, Any] = {"calibration": [], "calibration_error": None, "roc": None, "pr": None}
    usable = as_usable(task, labels, scores)
    if usable is None:
        return {"metrics": {name: dict(unknown) for name in METRICS[task]}, **empty}
    bins, error = calibrate(task, *usable)
    calibration = {"calibration": bins, "calibration_error": error}
    if task == "regression":
        return {**empty, "metrics": _of_numbers(*usable, groups), **calibration}
    ranking = rank(*usable)
    curves = {"roc": roc(ranking), "pr": pr(ranking)} if ranking else {}
    return {**empty, "metrics": _of_probabilities(*usable, ranking, groups), **calibration, **curves}


def as_usable(task: Task, labels: npt.NDArray, scores: npt.NDArray) -> tuple[Floats, Floats] | None:
    """Both as float64 [rows]; None without rows, or where one of them cannot be a label or a score of this task."""
    labels, scores = np.asarray(labels, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    if len(scores) == 0 or labels.shape != scores.shape:
        return None
    if task == "regression":
        possible = np.isfinite(labels) & np.isfinite(scores)
    else:
        # not (x >= 0) and not (x < 0) differ for NaN: only the first refuses it.
        possible = ((labels == 0) | (labels == 1)) & (scores >= 0) & (scores <= 1)
    return (labels, scores) if bool(possible.all()) else None


def losses(task: Task, labels: Floats, scores: Floats) -> Floats:
    """What each row costs [rows]: its log loss (natural logarithm) or its squared error."""
    if task == "regression":
        # Too large to be squared is infinite, which no metric shows as a number.
        with np.errstate(over="ignore"):
            return (scores - labels) ** 2
    given = np.where(labels == 1, scores, 1 - scores)
    return -np.log(np.clip(given, NEAREST, 1 - NEAREST))


def rank(labels: Floats, scores: Floats) -> Ranking | None:
    """The order of rows by score, in O(rows log rows) and one sort; None if the labels are of one class.

    The placements of all rows with equal scores are found at once, from running counts (Sun & Xu 2014, by counting
    instead of by midranks: it is the same number).
    """
    positives = int(labels.sum())
    negatives = len(labels) - positives
    if positives == 0 or negatives == 0:
        return None
    order = np.argsort(scores)[::-1]
    ordered, positive = scores[order], labels[order] == 1
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], True))
    del ordered  # of a million rows each array counts
    found = np.cumsum(positive)[last]
    false_alarms = last + 1 - found
    tied_positives, tied_negatives = np.diff(found, prepend=0), np.diff(false_alarms, prepend=0)
    below = (negatives - false_alarms + tied_negatives / 2) / negatives
    above = (found - tied_positives / 2) / positives
    placements = np.empty(len(labels))
    placements[order[positive]] = np.repeat(below, tied_positives)
    placements[order[~positive]] = np.repeat(above, tied_negatives)
    return Ranking(float(below @ tied_positives) / positives, placements, found, false_alarms)


def standard_error_of_auc(labels: Floats, placements: Floats, groups: Groups = None) -> float | None:
    """The standard error of the mean placement (DeLong 1988), of one model or of the difference of two models' placements.

    Args:
        placements: [rows], or their difference between two models that scored the same rows.
        groups: as for `standard_error`.
    """
    positive = labels == 1
    of_positives, of_negatives = placements[positive], placements[~positive]
    if len(of_positives) < 2 or len(of_negatives) < 2:
        return None
    if groups is not None:
        influence = np.where(
            positive,
            (placements - of_positives.mean()) / len(of_positives),
            (placements - of_negatives.mean()) / len(of_negatives),
        )
        return _error_of_sums(influence, groups)
    return math.sqrt(of_positives.var(ddof=1) / len(of_positives) + of_negatives.var(ddof=1) / len(of_negatives))


def standard_error(values: Floats, groups: Groups = None) -> float | None:
    """The standard error of the mean of values [rows]; None for fewer than two rows, or groups.

    Rows of one day are not independent: a storm makes all its flights late, and one of two models looks better on all of
    them. With `groups`, codes [rows] from 0, rows of the same group may depend on each other in any way, and only the
    groups count as drawn independently (cluster-robust: Liang & Zeger, Biometrika 73, 1986).
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if groups is not None:
            return _error_of_sums((values - values.mean()) / len(values), groups) if len(values) else None
        return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None


def group_count(groups: Groups) -> int | None:
    """How many different groups there are; None if rows are independent."""
    return None if groups is None else len(np.unique(groups))


def _error_of_sums(influence: Floats, groups: npt.NDArray[np.integer]) -> float | None:
    """The standard error of the sum of influences [rows] that add up to 0, from their sums by group."""
    rows = np.bincount(groups)
    count = int((rows > 0).sum())
    if count < 2:
        return None
    sums = np.bincount(groups, influence)
    return math.sqrt(count / (count - 1) * float(sums @ sums))


def calibrate(task: Task, labels: Floats, scores: Floats) -> tuple[list[dict[str, Any]], float | None]:
    """Does what is forecast come true? Rows in at most ten bins of about equal frequency, by score.

    Rows of equal scores share a bin, and a bin holds a hundred rows where there are as many, so there can be fewer bins.

    Returns:
        Per bin, in order: `forecast` (mean score), `outcome` (mean label) with the ends `low` and `high` of its 95 %
        interval (Wilson's for shares, else mean ± 1.96 standard errors), and `rows`. And the calibration error: the mean
        over all rows of |outcome - forecast| of their bin; for a regression as a share of the labels' standard deviation.
    """
    wanted = min(CALIBRATION_BINS, max(1, len(scores) // ROWS_PER_BIN))
    edges = np.unique(np.quantile(scores, np.arange(1, wanted) / wanted, method="inverted_cdf")) if wanted > 1 else np.empty(0)
    bin_of = np.searchsorted(edges, scores, side="left")
    rows = np.bincount(bin_of, minlength=len(edges) + 1)
    kept = np.flatnonzero(rows)
    counts = rows[kept]
    # Around the mean: sums of squares of large numbers would leave nothing of their differences.
    centre = float(labels.mean())
    forecast = np.bincount(bin_of, scores, len(rows))[kept] / counts
    outcome = centre + np.bincount(bin_of, labels - centre, len(rows))[kept] / counts
    if task == "classification":
        low, high = _wilson(outcome, counts)
        spread = 1.0
    else:
        squares = np.bincount(bin_of, (labels - centre) ** 2, len(rows))[kept] - counts * (outcome - centre) ** 2
        half = Z95 * np.sqrt(np.maximum(squares, 0) / np.maximum(counts - 1, 1) / counts)
        low, high = outcome - half, outcome + half
        spread = float(labels.std())
    columns = {"forecast": forecast, "outcome": outcome, "low": low, "high": high, "rows": counts}
    bins = [dict(zip(columns, row, strict=True)) for row in zip(*(column.tolist() for column in columns.values()), strict=True)]
    error = float(counts @ np.abs(outcome - forecast)) / len(labels)
    return bins, error / spread if spread > 0 else None


def roc(ranking: Ranking) -> list[list[float]]:
    """At most 200 points [false positive rate, true positive rate], from (0, 0) to (1, 1)."""
    found = np.append(0, ranking.found) / ranking.found[-1]
    false_alarms = np.append(0, ranking.false_alarms) / ranking.false_alarms[-1]
    # Evenly along the curve, where it is steep and where it is flat.
    chosen = _thinned(found + false_alarms)
    return np.column_stack([false_alarms[chosen], found[chosen]]).tolist()


def pr(ranking: Ranking) -> list[list[float]]:
    """At most 200 points [recall, precision], by rising recall; the first is that of the highest score."""
    recall = ranking.found / ranking.found[-1]
    chosen = _thinned(recall)
    return np.column_stack([recall, ranking.found / (ranking.found + ranking.false_alarms)])[chosen].tolist()


def _thinned(along: Floats) -> npt.NDArray[np.int64]:
    """At most 200 positions in `along` [points, ascending], evenly spread over its range, its first and last among them."""
    wanted = np.searchsorted(along, np.linspace(along[0], along[-1], CURVE_POINTS - 2))
    return np.unique(np.concatenate([[0], wanted, [len(along) - 1]]))


def _of_probabilities(labels: Floats, scores: Floats, ranking: Ranking | None, groups: Groups = None) -> dict[str, Interval]:
    rows = losses("classification", labels, scores)
    squares = (scores - labels) ** 2
    found = {"auc": _interval(None, None), "average_precision": _interval(None, None)}
    spread = standard_errors_to(0.025, group_count(groups))
    if ranking:
        error = standard_error_of_auc(labels, ranking.placements, groups)
        found["auc"] = _interval(ranking.auc, error, 0, 1, spread)
        found["average_precision"] = _of_average_precision(ranking, _design_effect(labels, ranking, error))
    return {
        **found,
        "log_loss": _interval(float(rows.mean()), standard_error(rows, groups), 0, spread=spread),
        "brier": _interval(float(squares.mean()), standard_error(squares, groups), 0, 1, spread),
    }


def _design_effect(labels: Floats, ranking: Ranking, error: float | None) -> float:
    """By how much dependent rows widen the variance of the AUC; at least 1."""
    independent = standard_error_of_auc(labels, ranking.placements)
    return max(1.0, (error / independent) ** 2) if error and independent else 1.0


def _of_average_precision(ranking: Ranking, design_effect: float) -> Interval:
    """The sum of precision times growth of recall, and the logit interval of Boyd, Eng & Page (2013).

    That interval is one of independent rows; of rows that are not, fewer count: as many less as for the AUC.
    """
    positives = int(ranking.found[-1])
    precision = ranking.found / (ranking.found + ranking.false_alarms)
    value = min(1.0, float(precision @ np.diff(ranking.found, prepend=0)) / positives)
    if not 0 < value < 1:
        return _interval(value, None)
    centre, half = math.log(value / (1 - value)), Z95 / math.sqrt(positives / design_effect * value * (1 - value))
    low, high = ((1 + math.tanh(end / 2)) / 2 for end in (centre - half, centre + half))
    return {"value": value, "low": low, "high": high}


def _of_numbers(labels: Floats, scores: Floats, groups: Groups = None) -> dict[str, Interval]:
    """Means of errors; RMSE and R2 are functions of means, so their standard errors come by the delta method."""
    # Numbers that are finite, and too large to be squared, make a metric None, not an error.
    with np.errstate(over="ignore", invalid="ignore"):
        squares, deviations = (scores - labels) ** 2, (labels - labels.mean()) ** 2
        distances = np.abs(scores - labels)
        mse, variance = float(squares.mean()), float(deviations.mean())
        error = standard_error(squares, groups)
        spread = standard_errors_to(0.025, group_count(groups))
        rmse = math.sqrt(mse)
        result = {
            "rmse": _interval(rmse, error / (2 * rmse) if error is not None and rmse > 0 else None, 0, spread=spread),
            "mae": _interval(float(distances.mean()), standard_error(distances, groups), 0, spread=spread),
            "r2": _interval(None, None),
        }
        if variance > 0:
            influence = (squares - mse / variance * deviations) / variance
            result["r2"] = _interval(1 - mse / variance, standard_error(influence, groups), high=1, spread=spread)
    return result


def _interval(
    value: float | None, error: float | None, low: float = -math.inf, high: float = math.inf, spread: float = Z95
) -> Interval:
    """value ± `spread` standard errors, no further than `low` and `high`. Rows that do not vary at all tell no interval."""
    if value is None or not math.isfinite(value):
        return {"value": None, "low": None, "high": None}
    if error is None or not math.isfinite(error) or error <= 0:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": max(low, value - spread * error), "high": min(high, value + spread * error)}


def _wilson(shares: Floats, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
    """The 95 % interval of Wilson (1927) of shares [bins] of so many rows each."""
    square = Z95**2 / rows
    centre = (shares + square / 2) / (1 + square)
    half = Z95 / (1 + square) * np.sqrt(shares * (1 - shares) / rows + square / (4 * rows))
    return np.maximum(centre - half, 0), np.minimum(centre + half, 1)
