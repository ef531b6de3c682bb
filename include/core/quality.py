"""Has a model got worse? Its loss on matured labels against the loss that it expected itself, day by day.

If a score is the probability that it claims to be, the log loss of its row has a known expectation, the entropy
-(p ln p + (1 - p) ln(1 - p)). What is above it on average says that the model is wrong about the world, and not that the
days were hard: harder days are expected to cost more. A regression claims no distribution; what it is expected to cost is
the squared error that it was promoted with.

Rows of a day depend on each other (one storm delays them all), so errors are by day: the days are the observations, and
chance reaches as far as Student's t with one degree of freedom less than there are days. (Cluster-robust variance of a
ratio: Cochran, Sampling Techniques, 3rd ed., 6.5 and 9A.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, Literal

from include.core.chance import standard_errors_to

WINDOWS = (7, 28)  # matured days; a false alarm is shared equally between them
MIN_DAYS = 5

State = Literal["ok", "decay", "cannot judge"]


@dataclass(frozen=True)
class Rules:
    """`max_excess`: tolerated loss above expectation, as a share of it. `false_alarms`: chance of an alarm per run at that
    very excess. `min_labelled`: labelled rows in a window. `looks`: how often a new champion is compared with the one
    before, which share the false alarms."""

    max_excess: float = 0.1
    false_alarms: float = 0.01
    min_labelled: int = 200
    looks: int = 28


@dataclass(frozen=True)
class DayLoss:
    """One matured day of one version: labelled rows (or their weight), and sums over them of the loss and of the expected one."""

    partition: date
    labelled: float
    loss: float
    expected: float


@dataclass(frozen=True)
class Mean:
    """A mean per labelled row with its standard error by days; the error is infinite with a single day."""

    value: float
    error: float
    days: int
    labelled: float

    def low(self, tail: float) -> float:
        return self.value - self._reach(tail)

    def high(self, tail: float) -> float:
        return self.value + self._reach(tail)

    def _reach(self, tail: float) -> float:
        # No error at all comes of identical days, and then there is nothing that chance could do.
        return standard_errors_to(tail, self.days) * self.error if self.error else 0.0


@dataclass(frozen=True)
class Window:
    """The last matured days up to `days` of them. Loss and expectation per labelled row; `low`, `high`: 95 % interval of
    their difference; `limit`: the difference above which, in all likelihood, the model has decayed."""

    days: int
    found: int
    labelled: float
    state: State
    loss: float | None
    expected: float | None
    low: float | None
    high: float | None
    limit: float | None


@dataclass(frozen=True)
class Quality:
    state: State
    sentence: str
    windows: tuple[Window, ...]

    def to_json(self) -> dict[str, Any]:
        return {"state": self.state, "sentence": self.sentence, "windows": [finite(asdict(window)) for window in self.windows]}


@dataclass(frozen=True)
class Former:
    """The new champion against the one before on the same rows: `difference` of the loss per row, above 0 the new one is
    worse; `low`, `high`: 95 % interval; `worse`: beyond what chance does in all looks together."""

    days: int
    labelled: float
    difference: float | None
    low: float | None
    high: float | None
    worse: bool
    sentence: str

    def to_json(self) -> dict[str, Any]:
        return finite(asdict(self))


def log_loss(label: float, score: float) -> tuple[float, float]:
    """Log loss of a row, and its expectation if the score is the true probability: the entropy of the score."""
    p = min(max(score, 1e-15), 1 - 1e-15)
    return -math.log(p if label == 1 else 1 - p), -(p * math.log(p) + (1 - p) * math.log(1 - p))


def binned_auc(labelled: Sequence[int], positives: Sequence[int]) -> float | None:
    """AUC from counts in ascending bins of the score: pairs within a bin count half. None where a class is missing.

    With bins of a fortieth it is within a few thousandths of the AUC of the scores themselves, and bins of days add up.
    """
    negatives = [rows - ones for rows, ones in zip(labelled, positives, strict=True)]
    pairs = sum(positives) * sum(negatives)
    below = won = 0.0
    for ones, zeros in zip(positives, negatives, strict=True):
        won += ones * (below + zeros / 2)
        below += zeros
    return won / pairs if pairs else None


def mean_by_day(sums: Sequence[float], labelled: Sequence[float]) -> Mean:
    """Sum of all values over the number of rows, with the error that the scatter between days tells."""
    rows, days = sum(labelled), len(sums)
    value = sum(sums) / rows
    scatter = math.fsum((total - value * n) ** 2 for total, n in zip(sums, labelled, strict=True))
    error = math.sqrt(days / (days - 1) * scatter) / rows if days > 1 else math.inf
    return Mean(value, error, days, rows)


def judge_decay(days: Sequence[DayLoss], rules: Rules) -> Quality:
    """Does the model lose more than it expects, by more than is tolerated and more than chance explains?

    `days` are matured days of one version that it has not learned from, in any order.
    """
    ordered = sorted((day for day in days if day.labelled), key=lambda day: day.partition)
    windows = tuple(_window(ordered[-length:], length, rules) for length in WINDOWS)
    states = {window.state for window in windows}
    if "decay" in states:
        worst = max((w for w in windows if w.state == "decay"), key=lambda w: (w.loss or 0) - (w.expected or 0))
        return Quality("decay", _decayed(worst), windows)
    if states == {"cannot judge"}:
        return Quality("cannot judge", _unjudged(windows[-1], rules), windows)
    judged = next(window for window in reversed(windows) if window.state == "ok")
    return Quality("ok", f"On {_told(judged)}: within what is tolerated.", windows)


def judge_former(champion: Sequence[DayLoss], former: Sequence[DayLoss], rules: Rules) -> Former:
    """Is the new champion worse than the one before it was? Both have scored the same rows of the same days.

    It is asked each day as long as the new one is on probation, so each time little chance is allowed for.
    """
    before = {day.partition: day for day in former if day.labelled}
    pairs = [(day, before[day.partition]) for day in champion if day.labelled and day.partition in before]
    unequal = [now.partition for now, then in pairs if now.labelled != then.labelled]
    if unequal:
        return Former(0, 0, None, None, None, False, f"Cannot be compared: on {unequal[0]} they have not scored the same rows.")
    labelled = sum(now.labelled for now, _ in pairs)
    if len(pairs) < MIN_DAYS or labelled < rules.min_labelled:
        told = _needed(len(pairs), labelled, rules)
        return Former(len(pairs), labelled, None, None, None, False, f"Cannot be compared yet: {told}.")
    mean = mean_by_day([now.loss - then.loss for now, then in pairs], [now.labelled for now, _ in pairs])
    worse = mean.low(rules.false_alarms / rules.looks) > 0
    told = (
        f"On {labelled:.0f} labelled rows of {len(pairs)} days it loses {abs(mean.value):.4f} per row "
        f"{'more' if mean.value > 0 else 'less'} than the champion before"
    )
    end = "; that is more than chance explains." if worse else "; that is not enough to call it worse."
    return Former(len(pairs), labelled, mean.value, mean.low(0.025), mean.high(0.025), worse, told + end)


def finite(facts: dict[str, Any]) -> dict[str, Any]:
    """For JSON, which has no infinity: None in its place."""
    return {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in facts.items()}


def _window(days: Sequence[DayLoss], length: int, rules: Rules) -> Window:
    labelled = sum(day.labelled for day in days)
    if not labelled:
        return Window(length, len(days), labelled, "cannot judge", None, None, None, None, None)
    excess = mean_by_day([day.loss - day.expected for day in days], [day.labelled for day in days])
    loss, expected = (sum(getattr(day, name) for day in days) / labelled for name in ("loss", "expected"))
    tolerated = rules.max_excess * expected
    limit = tolerated + (excess.value - excess.low(rules.false_alarms / len(WINDOWS)))
    if len(days) < MIN_DAYS or labelled < rules.min_labelled or not math.isfinite(excess.value):
        state: State = "cannot judge"
    else:
        state = "decay" if excess.value > limit else "ok"
    return Window(length, len(days), labelled, state, loss, expected, excess.low(0.025), excess.high(0.025), limit)


def _told(window: Window) -> str:
    assert window.loss is not None and window.expected is not None
    return (
        f"{window.labelled:.0f} labelled rows of the last {window.found} matured days the loss is {window.loss:.3f} per row, "
        f"the model expects {window.expected:.3f}"
    )


def _decayed(window: Window) -> str:
    assert window.loss is not None and window.expected is not None
    more = f"{(window.loss - window.expected) / window.expected:.0%} more" if window.expected else "more"
    return f"On {_told(window)}: {more}, beyond what is tolerated and what chance explains."


def _unjudged(window: Window, rules: Rules) -> str:
    return f"Quality cannot be judged yet: {_needed(window.found, window.labelled, rules)}."


def _needed(days: int, labelled: float, rules: Rules) -> str:
    return f"{days} matured days with {labelled:.0f} labelled rows; {MIN_DAYS} days and {rules.min_labelled} rows are needed"
