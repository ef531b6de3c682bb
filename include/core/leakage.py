"""Leaks: a single feature that tells the label nearly always was made from the label, or from what came after it.

How well a feature tells the label is measured on the scale of the AUC, 0.5 (not at all) to 1 (always). For a label of
classes it is the AUC itself: the chance that of two rows of different classes the feature puts them in order, ties
counted half (Hanley & McNeil, Radiology 143, 1982). For a label of numbers it is (1 + |rho|) / 2 with Spearman's rank
correlation rho: of a label of two values that is what the AUC is of Somers' D, so the same limit means about the same.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import rankdata

from include.core.errors import Refused
from include.core.evaluation import Task
from include.core.features import check_columns
from include.core.training import fit_encodings

# Fewer rows on either side can be in order by chance.
FEWEST = 20
# A few rows without a value that all have long delays are no leak worth stopping for.
SMALLEST_SHARE = 0.01

Strength = dict[str, float | None]


class Leak(Refused):
    """Features tell the label too well; the message names each with its value, the limit and the remedy."""


def strength(task: Task, labels: npt.NDArray, batch: pa.RecordBatch, name: str, categorical: bool, seed: int = 0) -> Strength:
    """How well one feature tells the label by itself, each 0.5..1, or None where too few rows could tell.

    Args:
        labels: of the rows of `batch`: 0 and 1, or finite numbers.

    Returns:
        `auc`: of its values, on the rows where it has one. A category counts as the mean label of the other rows of it
        (cross-fitted as in training, so a category of one row tells nothing). `missing_auc`: of whether it has a value;
        for numbers as labels, how far the labels of rows without one lie above or below those of rows with one, as an
        AUC, where at least 1 % of the rows are on either side.

    Raises:
        UnusableFeatures: if the feature is missing or of another type.
    """
    check_columns(batch, () if categorical else (name,), (name,) if categorical else ())
    values = _encoded(task, labels, batch, name, seed) if categorical else _numbers(batch, name)
    there = ~np.isnan(values)
    return {
        "auc": _order(task, labels[there], values[there]),
        "missing_auc": _missing(task, labels, there),
    }


def refuse_leaks(strengths: Mapping[str, Strength], limit: float) -> None:
    """Refuse features that tell the label better than `limit` (0.5..1).

    Raises:
        Leak: naming each of them.
    """
    says = {"auc": "tells the label with an AUC of", "missing_auc": "is NULL as the label says, with an AUC of"}
    faults = [
        f"{name!r} {says[kind]} {value:.4f}"
        for name, found in strengths.items()
        for kind, value in found.items()
        if value is not None and value > limit
    ]
    if faults:
        raise Leak(
            f"feature {', feature '.join(faults)}, training.max_feature_auc is {limit:g}: look at how features.sql makes it, it "
            "may know what happened after the prediction; if it is legitimate, raise training.max_feature_auc"
        )


def auc(positive: npt.NDArray[np.bool_], values: npt.NDArray) -> float | None:
    """max(AUC, 1 - AUC) of values against classes, None with fewer than 20 rows of a class."""
    positives = int(np.count_nonzero(positive))
    negatives = len(positive) - positives
    if min(positives, negatives) < FEWEST:
        return None
    above = float(rankdata(values)[positive].sum()) - positives * (positives + 1) / 2
    found = above / (positives * negatives)
    return max(found, 1 - found)


def _order(task: Task, labels: npt.NDArray, values: npt.NDArray) -> float | None:
    if task == "classification":
        return auc(labels == 1, values)
    if len(labels) < 2 * FEWEST:
        return None
    a, b = (ranks - ranks.mean() for ranks in (rankdata(labels), rankdata(values)))
    spread = float(np.sqrt((a @ a) * (b @ b)))
    # Where all values, or all labels, are equal, neither tells the other.
    return 0.5 if spread == 0 else 0.5 + min(abs(float(a @ b)) / spread, 1.0) / 2


def _missing(task: Task, labels: npt.NDArray, there: npt.NDArray[np.bool_]) -> float | None:
    if task == "classification":
        return auc(labels == 1, there)
    rarer = min(np.count_nonzero(there), np.count_nonzero(~there))
    return auc(there, labels) if rarer >= SMALLEST_SHARE * len(labels) else None


def _encoded(task: Task, labels: npt.NDArray, batch: pa.RecordBatch, name: str, seed: int) -> npt.NDArray:
    encoded: npt.NDArray = fit_encodings(task, batch, labels, (), (name,), seed)[1][:, 0]
    return encoded


def _numbers(batch: pa.RecordBatch, name: str) -> npt.NDArray:
    """A column as float64, NULL as NaN. Whatever it holds: infinities have a rank too."""
    return batch.column(name).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)


def repeated_keys(keys: pa.Table) -> int:
    """How many rows have a key that another row of their partition has as well, or none at all."""
    counted = keys.group_by(keys.column_names).aggregate([([], "count_all")])
    missing = pc.is_null(counted[keys.column_names[0]])
    return pc.sum(pc.if_else(pc.or_(missing, pc.greater(counted["count_all"], 1)), counted["count_all"], 0)).as_py() or 0
