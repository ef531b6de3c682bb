"""Is a batch of predictions fit to be published? Rules over counts; no data is read here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Batch:
    """The counts of one run, in rows."""

    rows_in: int
    rows_quarantined: int
    rows_features: int
    rows_scored: int
    rows_predictions: int
    unseen: Mapping[str, int]
    score_counts: Sequence[int]


@dataclass(frozen=True)
class Limits:
    """Shares of rows, 0..1; `score_shift` is a Kolmogorov-Smirnov distance, 0..1."""

    quarantine_share: float
    unseen_share: float
    score_shift: float


@dataclass(frozen=True)
class ShadowLimits:
    """Shares of rows, 0..1, and a Kolmogorov-Smirnov distance, 0..1."""

    unseen_share: float
    score_shift: float
    churn: float


@dataclass(frozen=True)
class Shadow:
    """A version tried beside the champion on the newest partition. Without a champion, `churn` and `shift` are None.

    `churn` is the share of rows that the two decide differently, `shift` the Kolmogorov-Smirnov distance of their scores.
    """

    partition: str
    rows: int
    rows_scored: int
    unseen: Mapping[str, int]
    churn: float | None
    shift: float | None


def problems(batch: Batch, limits: Limits, earlier: Sequence[Sequence[int]]) -> list[str]:
    """What forbids publishing, in words with the number and its limit; empty if nothing does.

    Args:
        earlier: score counts of batches before this one, scored by the same model version on the same cells.
    """
    found = []
    if batch.rows_scored == 0:
        found.append("no row was scored; an empty batch never replaces what readers have")
    if batch.rows_in != batch.rows_scored + batch.rows_quarantined:
        found.append(
            f"rows were lost or made: {batch.rows_in} came in, {batch.rows_scored} scored + {batch.rows_quarantined} quarantined"
        )
    if not batch.rows_features == batch.rows_scored == batch.rows_predictions:
        found.append(
            f"the steps disagree: {batch.rows_features} rows of features, {batch.rows_scored} scored, "
            f"{batch.rows_predictions} predictions"
        )
    found += _over("quarantined rows", batch.rows_quarantined, batch.rows_in, limits.quarantine_share)
    for feature, rows in sorted(batch.unseen.items()):
        found += _over(f"rows with an unseen {feature}", rows, batch.rows_scored, limits.unseen_share)
    if earlier and batch.rows_scored:
        usual = [sum(cells) for cells in zip(*earlier, strict=True)]
        shift = distance(batch.score_counts, usual)
        if not shift <= limits.score_shift:
            found.append(f"scores moved by {shift:.2f} from the {len(earlier)} batches before (limit {limits.score_shift:.2f})")
    return found


def shadow_problems(shadow: Shadow, limits: ShadowLimits) -> list[str]:
    """What forbids promoting a version, in words with the number and its limit; empty if nothing does."""
    found = []
    if shadow.rows == 0 or shadow.rows_scored != shadow.rows:
        found.append(f"{shadow.rows_scored} of {shadow.rows} rows were scored")
    for feature, rows in sorted(shadow.unseen.items()):
        found += _over(f"rows with an unseen {feature}", rows, shadow.rows_scored, limits.unseen_share)
    if (shadow.churn is None) != (shadow.shift is None):
        found.append("the comparison with the champion is incomplete")
    if shadow.churn is not None and not shadow.churn <= limits.churn:
        found.append(f"{shadow.churn:.1%} of the decisions would change (limit {limits.churn:.1%})")
    if shadow.shift is not None and not shadow.shift <= limits.score_shift:
        found.append(f"scores moved by {shadow.shift:.2f} from the champion's (limit {limits.score_shift:.2f})")
    return found


def distance(counts: Sequence[int], reference: Sequence[int]) -> float:
    """Kolmogorov-Smirnov distance of two histograms over the same ordered cells: the largest gap between cumulative shares.

    Raises:
        ValueError: if the cells differ in number, or one histogram is empty.
    """
    if len(counts) != len(reference):
        raise ValueError(f"histograms of {len(counts)} and {len(reference)} cells cannot be compared")
    total, reference_total = sum(counts), sum(reference)
    if total <= 0 or reference_total <= 0:
        raise ValueError("an empty histogram has no distance")
    gaps = (abs(a / total - b / reference_total) for a, b in zip(accumulate(counts), accumulate(reference), strict=True))
    return max(gaps)


def _over(what: str, rows: int, total: int, limit: float) -> list[str]:
    share = rows / total if total else 0.0
    return [f"{share:.1%} {what} ({rows} of {total}, limit {limit:.1%})"] if share > limit else []
