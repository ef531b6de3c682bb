"""Scores of batches of features, and what an audit wants to know about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from include.core.artifacts import Artifact, predict
from include.core.errors import Refused
from include.core.features import UnusableFeatures, encode
from include.core.profile import histogram

BINS = 20


class UnusableScores(Refused):
    """The model gave scores that are no numbers; the message says how many."""


def score_reference(scores: npt.NDArray) -> dict[str, list[float] | list[int]]:
    """What scores look like, small enough to keep in a manifest: twenty bins of about equal frequency.

    Returns:
        `edges`: at most 19, ascending, distinct, each one of the scores; `counts`: one more than edges. Bin i has the
        scores above edge i-1 up to and with edge i. Counted, not assumed equal: trees give many equal scores.
    """
    ranks = np.arange(1, BINS) / BINS
    edges = np.unique(np.quantile(scores.astype(np.float64), ranks, method="inverted_cdf")) if len(scores) else np.empty(0)
    return {"edges": [float(edge) for edge in edges], "counts": histogram(scores, edges).tolist()}


@dataclass(frozen=True)
class Summary:
    """What an audit wants to know of scored rows. Summaries add up; `Summary()` is that of no rows.

    `counts` are the rows per bin of the model's score reference; `unseen` and `missing` are rows per feature: with a
    category that training did not see, and without a value.
    """

    rows: int = 0
    total: float = 0.0
    lowest: float = float("inf")
    highest: float = float("-inf")
    counts: tuple[int, ...] = ()
    unseen: Mapping[str, int] = field(default_factory=dict)
    missing: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Summary) -> Summary:
        if not (self.rows and other.rows):
            return self if self.rows else other
        return Summary(
            rows=self.rows + other.rows,
            total=self.total + other.total,
            lowest=min(self.lowest, other.lowest),
            highest=max(self.highest, other.highest),
            counts=tuple(a + b for a, b in zip(self.counts, other.counts, strict=True)),
            unseen={name: count + other.unseen[name] for name, count in self.unseen.items()},
            missing={name: count + other.missing[name] for name, count in self.missing.items()},
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "unseen": dict(self.unseen),
            "missing": dict(self.missing),
            "histogram": list(self.counts),
            "mean": self.total / self.rows if self.rows else None,
            "min": self.lowest if self.rows else None,
            "max": self.highest if self.rows else None,
        }


def score(batch: pa.RecordBatch, artifact: Artifact, key: str) -> tuple[pa.RecordBatch, Summary]:
    """The scores of a batch, rows in its order, and their summary. Several threads may call it with one artifact.

    Returns:
        The columns `key`, `partition_date` (as they come in) and `score` (float64; of a classification
        0..1, of a regression in the unit of the label); and the summary.

    Raises:
        UnusableFeatures: if a feature, the key or the partition date is missing or of another type.
        UnusableScores: if a score is NaN or infinite.
    """
    check_rows(batch, key)
    rows, unseen = encode(batch, artifact.spec)
    scores = predict(artifact.booster, rows).astype(np.float64)
    wrong = int((~np.isfinite(scores)).sum())
    if wrong:
        raise UnusableScores(f"{wrong} of {len(scores)} scores are NaN or infinite: check what the model was trained on")
    scored = pa.record_batch({key: batch.column(key), "partition_date": batch.column("partition_date"), "score": scores})
    if len(scores) == 0:
        return scored, Summary()
    return scored, Summary(
        rows=len(scores),
        total=float(scores.sum()),
        lowest=float(scores.min()),
        highest=float(scores.max()),
        counts=tuple(histogram(scores, artifact.manifest["reference"]["score"]["edges"]).tolist()),
        unseen=unseen,
        missing=dict(zip(artifact.spec.names, np.count_nonzero(np.isnan(rows), axis=0).tolist(), strict=True)),
    )


def check_rows(batch: pa.RecordBatch, key: str) -> None:
    """Refuse a batch without the columns that identify a row.

    Raises:
        UnusableFeatures: naming the column.
    """
    for name in (key, "partition_date"):
        if len(batch.schema.get_all_field_indices(name)) != 1:
            raise UnusableFeatures(f"column {name!r} is missing or there twice: features.sql must give it once")
    if not pa.types.is_date32(batch.schema.field("partition_date").type):
        raise UnusableFeatures(
            f"column 'partition_date' holds {batch.schema.field('partition_date').type}: features.sql must give a DATE"
        )
