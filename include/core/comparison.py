"""Two models on the same rows: whose scores are better, by how much, and how sure of that the rows make us.

The rows are paired: what is hard for one model is hard for the other, so the difference is far surer than either number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from include.core.evaluation import (
    Floats,
    Groups,
    Ranking,
    Task,
    as_usable,
    group_count,
    losses,
    measure,
    rank,
    standard_error,
    standard_error_of_auc,
)

COMPARED: dict[Task, tuple[str, ...]] = {"classification": ("log_loss", "auc", "brier"), "regression": ("rmse", "mae")}
LARGEST_SLICES = 20
OTHER, MISSING = "(other)", "(missing)"
SCORE_BINS = 20

# Codes [rows], -1 for NULL, and the values that they stand for.
Coded = tuple[npt.NDArray[np.integer], Sequence[str]]


def side_by_side(
    task: Task,
    labels: npt.NDArray,
    champion: npt.NDArray | None,
    challenger: npt.NDArray,
    columns: Mapping[str, Coded],
    threshold: float,
    groups: Groups = None,
) -> dict[str, Any]:
    """All of an evaluation that follows from the labels and the scores [rows] of the models; `champion` is None without one.

    `groups`, codes [rows] of the partitions, say which rows may depend on each other: `evaluation.standard_error`.

    Returns:
        `task`, `rows`, `positives` (None for a regression), `challenger` and `champion` (as `evaluation.measure` says),
        `comparisons` (empty without champion), `slices`, `churn` (of decisions score >= threshold) and `scores`.
    """
    return {
        "task": task,
        "rows": len(labels),
        "positives": int((np.asarray(labels) == 1).sum()) if task == "classification" else None,
        "challenger": measure(task, labels, challenger, groups),
        "champion": None if champion is None else measure(task, labels, champion, groups),
        "comparisons": [] if champion is None else compare(task, labels, champion, challenger, groups),
        "slices": by_slice(task, labels, columns, champion, challenger, groups),
        "churn": None if champion is None else churn(champion, challenger, threshold),
        "scores": score_histograms(champion, challenger),
    }


def compare(
    task: Task, labels: npt.NDArray, champion: npt.NDArray, challenger: npt.NDArray, groups: Groups = None
) -> list[dict[str, Any]]:
    """Per metric the value of both models and the improvement, from the scores [rows] that both gave the same rows.

    The standard errors are those of paired differences: of the mean for log loss, Brier score and MAE; DeLong's for the
    AUC; for the RMSE by the delta method from the squared errors of each row.

    Returns:
        {"metric", "champion", "challenger", "improvement", "standard_error", "groups"}; an improvement is positive where
        the challenger is better, in the metric's unit. `groups` is how many independent groups the standard error rests
        on, None for independent rows. What the rows cannot tell is None.
    """
    return [{**item, "groups": group_count(groups)} for item in _compared(task, labels, champion, challenger, groups)]


def _compared(
    task: Task, labels: npt.NDArray, champion: npt.NDArray, challenger: npt.NDArray, groups: Groups
) -> list[dict[str, Any]]:
    before, after = as_usable(task, labels, champion), as_usable(task, labels, challenger)
    if before is None or after is None:
        return [_comparison(metric, None, None, None) for metric in COMPARED[task]]
    truth, champion, challenger = before[0], before[1], after[1]
    if task == "regression":
        return [
            _of_rmse(losses(task, truth, champion), losses(task, truth, challenger), groups),
            _of_means("mae", np.abs(champion - truth), np.abs(challenger - truth), groups),
        ]
    # One after the other: what a metric needs per row is gone before the next.
    return [
        _of_means("log_loss", losses(task, truth, champion), losses(task, truth, challenger), groups),
        _of_auc(truth, rank(truth, champion), rank(truth, challenger), groups),
        _of_means("brier", (champion - truth) ** 2, (challenger - truth) ** 2, groups),
    ]


def by_slice(
    task: Task,
    labels: npt.NDArray,
    columns: Mapping[str, Coded],
    champion: npt.NDArray | None,
    challenger: npt.NDArray,
    groups: Groups = None,
) -> list[dict[str, Any]]:
    """The same within the rows of each value of some columns: the twenty most frequent values, all others, and NULL.

    Args:
        columns: per column the codes of the rows.
        champion: scores [rows]; None without a champion.

    Returns:
        Per column and value {"column", "value", "rows", "positives", "challenger_loss", "champion_loss", "improvement",
        "standard_error", "groups", "challenger_auc", "champion_auc"}. Losses are means: log loss, or squared error.
        improvement = champion_loss - challenger_loss. None where there is no champion, or where the rows cannot tell.
    """
    after = as_usable(task, labels, challenger)
    before = None if champion is None else as_usable(task, labels, champion)
    if after is None or (champion is not None and before is None):
        after = before = None
    truth = np.asarray(labels, dtype=np.float64)
    new_costs = losses(task, *after) if after else None
    old_costs = losses(task, *before) if before else None
    result = []
    for column, (codes, values) in columns.items():
        for value, rows in _groups(np.asarray(codes), values):
            new, old = (None if costs is None else costs[rows] for costs in (new_costs, old_costs))
            of_new, of_old = (None if model is None else _auc(task, truth[rows], model[1][rows]) for model in (after, before))
            paired = None if new is None or old is None else old - new
            within = None if groups is None else groups[rows]
            result.append({
                "column": column,
                "value": value,
                "rows": len(rows),
                "positives": int((truth[rows] == 1).sum()) if task == "classification" else None,
                "challenger_loss": _mean(new),
                "champion_loss": _mean(old),
                "improvement": _mean(paired),
                "standard_error": None if paired is None else _finite(standard_error(paired, within)),
                "groups": group_count(within),
                "challenger_auc": of_new,
                "champion_auc": of_old,
            })
    return result


def score_histograms(champion: npt.NDArray | None, challenger: npt.NDArray) -> dict[str, Any]:
    """How both models' scores [rows] are spread, over the same twenty bins of equal width.

    Returns:
        `edges` [bins + 1], ascending, the least and the greatest score among them; `challenger` and `champion`, rows per bin
        (`champion` None without one). Without a finite score there is no bin.
    """
    models = {"challenger": challenger, "champion": champion}
    finite = {name: scores[np.isfinite(scores)] for name, scores in models.items() if scores is not None}
    together = [scores for scores in finite.values() if len(scores)]
    if not together:
        return {"edges": [], "challenger": [], "champion": None if champion is None else []}
    low, high = (float(end) for end in (min(s.min() for s in together), max(s.max() for s in together)))
    if not high > low:
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, SCORE_BINS + 1)
    counts = {name: np.histogram(scores, edges)[0].tolist() for name, scores in finite.items()}
    return {"edges": edges.tolist(), "challenger": counts["challenger"], "champion": counts.get("champion")}


def churn(champion: npt.NDArray, challenger: npt.NDArray, threshold: float) -> float | None:
    """The share of rows that both models decide differently; a decision is score >= threshold. None without rows."""
    if len(champion) == 0 or not bool((np.isfinite(champion) & np.isfinite(challenger)).all()):
        return None
    return float(((champion >= threshold) != (challenger >= threshold)).mean())


def _of_means(metric: str, champion: Floats, challenger: Floats, groups: Groups) -> dict[str, Any]:
    error = standard_error(champion - challenger, groups)
    return _comparison(metric, float(champion.mean()), float(challenger.mean()), error)


def _of_rmse(champion: Floats, challenger: Floats, groups: Groups) -> dict[str, Any]:
    before, after = math.sqrt(champion.mean()), math.sqrt(challenger.mean())
    error = None
    if 0 < before < math.inf and 0 < after < math.inf:
        # d sqrt(mean) = d mean / (2 sqrt(mean)), for both; they are correlated row by row.
        error = standard_error(champion / (2 * before) - challenger / (2 * after), groups)
    return _comparison("rmse", before, after, error)


def _of_auc(labels: Floats, champion: Ranking | None, challenger: Ranking | None, groups: Groups) -> dict[str, Any]:
    if champion is None or challenger is None:
        return _comparison("auc", None, None, None)
    error = standard_error_of_auc(labels, challenger.placements - champion.placements, groups)
    return _comparison("auc", champion.auc, challenger.auc, error, sign=-1)


def _comparison(
    metric: str, champion: float | None, challenger: float | None, error: float | None, sign: int = 1
) -> dict[str, Any]:
    champion, challenger = _finite(champion), _finite(challenger)
    improvement = None if champion is None or challenger is None else sign * (champion - challenger)
    values = {"champion": champion, "challenger": challenger, "improvement": improvement, "standard_error": _finite(error)}
    return {"metric": metric, **values}


def _auc(task: Task, labels: Floats, scores: Floats) -> float | None:
    ranking = rank(labels, scores) if task == "classification" else None
    return ranking.auc if ranking else None


def _groups(codes: npt.NDArray[np.integer], values: Sequence[str]) -> list[tuple[str, npt.NDArray[np.int64]]]:
    """The rows of each value, most frequent first; then all other values together, then NULL."""
    counts = np.bincount(codes + 1, minlength=len(values) + 1)
    by_frequency = sorted((i for i in range(len(values)) if counts[i + 1]), key=lambda i: (-int(counts[i + 1]), values[i]))
    largest = by_frequency[:LARGEST_SLICES]
    names = [*(values[i] for i in largest), OTHER, MISSING]
    slot = np.full(len(values) + 1, len(largest), dtype=np.int8)
    slot[0] = len(largest) + 1
    for position, i in enumerate(largest):
        slot[i + 1] = position
    slots = slot[codes + 1]
    # Sorting bytes is a radix sort, which takes time in proportion to the rows.
    order = np.argsort(slots, kind="stable")
    ends = np.cumsum(np.bincount(slots, minlength=len(names)))
    return [(name, rows) for name, rows in zip(names, np.split(order, ends[:-1]), strict=True) if len(rows)]


def _mean(values: Floats | None) -> float | None:
    return None if values is None or len(values) == 0 else _finite(float(values.mean()))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
