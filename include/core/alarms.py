"""What a monitoring run concludes from what it has measured, and what is to be done about it.

Pure rules: comparisons, faults and quality go in, a verdict comes out. In this order, the first that holds:

    broken data       the data is not what it says it is: somebody has to mend it, and nothing is learned from it
    worse champion    the new champion loses more than the one before, on the same rows: back to that one
    quality decay     the model is wrong about the world more often than it expects: train
    covariate drift   the world has changed; whether the model suffers, only labels can tell
    cannot judge      not enough rows or history for most columns, which is not the same as "ok"
    ok
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Literal

from include.core.quality import MIN_DAYS, Former, Quality

if TYPE_CHECKING:
    from include.core.drift import Comparison, Fault, PairComparison  # numpy, which no rule here needs

Outcome = Literal["ok", "cannot judge", "broken data", "covariate drift", "quality decay", "worse champion"]
Action = Literal["mail", "request labels", "request training", "roll back"]

QUIET_DAYS = 3  # an alarm has ended when it was not raised for longer than this
# Labels are bought for a change that lasts, not for a stormy day; and fewer days could not be judged with them.
LASTING_DAYS = MIN_DAYS
MODEL_COLUMNS = ("score", "decision")


@dataclass(frozen=True)
class Measured:
    """All that a verdict rests on. `former` is None outside of a champion's probation; `labels_in_time`: do labels come by
    themselves soon enough to tell what a change means?"""

    comparisons: Sequence[Comparison]
    pairs: Sequence[PairComparison]
    faults: Sequence[Fault]
    quality: Quality
    former: Former | None
    labels_in_time: bool


@dataclass(frozen=True)
class Earlier:
    """The verdict on an earlier partition, and what it started."""

    partition: date
    outcome: Outcome
    columns: tuple[str, ...]
    actions: tuple[Action, ...]


@dataclass(frozen=True)
class Verdict:
    """`columns`: those that alarmed; `sentences`: one per alarm; `notes`: what else a reader should know; `since`: the first
    partition of an alarm that goes on; `repeated`: it was raised already and has not grown."""

    outcome: Outcome
    columns: tuple[str, ...]
    sentences: tuple[str, ...]
    notes: tuple[str, ...]
    since: date
    repeated: bool
    actions: tuple[Action, ...]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "since": self.since.isoformat()}


def judge(partition: date, measured: Measured, earlier: Sequence[Earlier], cooldown_days: int, origin_may_ask: bool) -> Verdict:
    """The verdict on a partition.

    Args:
        earlier: verdicts on partitions before it, in any order.
        cooldown_days: so long an alarm that goes on is neither mailed again nor starts anything.
        origin_may_ask: False for partitions that come of a backfill and the like: these look at the past, so their
            verdict is recorded and starts nothing.
    """
    outcome, columns, sentences = _outcome(measured)
    before = sorted((e for e in earlier if e.partition < partition), key=lambda e: e.partition)
    same = [e for e in before if e.outcome == outcome]
    recent = [e for e in same if (partition - e.partition).days <= cooldown_days]
    told = {column for e in recent if "mail" in e.actions for column in e.columns}
    repeated = any("mail" in e.actions for e in recent) and set(columns) <= told
    since = _since(partition, same)
    actions: tuple[Action, ...] = () if repeated else _actions(outcome, before)
    lasts = (partition - since).days + 1 >= LASTING_DAYS
    asked = any("request labels" in e.actions for e in recent)
    if outcome == "covariate drift" and lasts and not measured.labels_in_time and not asked:
        actions += ("request labels",)
    notes = _notes(outcome, measured)
    if outcome not in ("ok", "cannot judge") and not origin_may_ask:
        actions = ()
        notes.append("The partition comes of a run that looks at the past: nothing is started and nobody is mailed.")
    return Verdict(outcome, columns, sentences, tuple(notes), since, repeated, actions)


def unjudged(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Features that could not be judged on any horizon, each by its shortest."""
    judged = {one.column for one in comparisons if one.state != "cannot judge"}
    open_ = {one.column: one for one in sorted(comparisons, key=lambda one: -one.horizon) if one.column not in judged}
    return [one for column, one in open_.items() if column not in MODEL_COLUMNS]


def _outcome(measured: Measured) -> tuple[Outcome, tuple[str, ...], tuple[str, ...]]:
    judged: list[Comparison | PairComparison] = [*measured.comparisons, *measured.pairs]
    alarms = _worst([one for one in judged if one.state == "alarm"])
    columns = tuple(one.column for one in alarms)
    drifted = tuple(f"{one.column}: {one.why}" for one in alarms)
    if measured.faults:
        broken = tuple(dict.fromkeys(fault.column for fault in measured.faults))
        rest = tuple(f"{one.column}: {one.why}" for one in alarms if one.column not in broken)
        return "broken data", tuple(dict.fromkeys((*broken, *columns))), (*(f.sentence for f in measured.faults), *rest)
    if measured.former is not None and measured.former.worse:
        return "worse champion", (), (measured.former.sentence, *drifted)
    if measured.quality.state == "decay":
        return "quality decay", (), (measured.quality.sentence, *drifted)
    if alarms:
        return "covariate drift", columns, drifted
    features = {one.column for one in measured.comparisons} - set(MODEL_COLUMNS)
    open_ = unjudged(measured.comparisons)
    if len(open_) * 2 >= len(features):
        told = tuple(f"{one.column}: {one.why}" for one in open_[:10]) or ("No column was profiled.",)
        return "cannot judge", tuple(one.column for one in open_), told
    return "ok", (), ()  # a column that is empty on most days is named in the notes: it would hide nothing else


def _worst(alarms: Sequence[Comparison | PairComparison]) -> list[Comparison | PairComparison]:
    """One alarm for each column, on the horizon that is furthest beyond its limit; the furthest first."""

    def excess(one: Comparison | PairComparison) -> float:
        return (one.distance or 0.0) / one.limit if one.limit else 0.0

    worst: dict[str, Comparison | PairComparison] = {}
    for one in sorted(alarms, key=lambda one: (-excess(one), one.column, one.horizon)):
        worst.setdefault(one.column, one)
    return list(worst.values())


def _actions(outcome: Outcome, before: Sequence[Earlier]) -> tuple[Action, ...]:
    match outcome:
        case "broken data" | "covariate drift":
            return ("mail",)
        case "worse champion":
            return ("mail", "roll back")
        case "quality decay":
            return ("mail", "request training")
        case "cannot judge":
            # A model that is new cannot be judged for weeks: that is known. That it could be and no longer can is news.
            return ("mail",) if any(e.outcome != "cannot judge" for e in before) else ()
        case "ok":
            return ()


def _notes(outcome: Outcome, measured: Measured) -> list[str]:
    notes = []
    if outcome not in ("quality decay", "worse champion"):
        notes.append(measured.quality.sentence)
    if measured.former is not None and outcome != "worse champion":
        notes.append(f"New champion against the one before: {measured.former.sentence}")
    if outcome != "cannot judge" and (open_ := unjudged(measured.comparisons)):
        notes.append(f"Not judged: {', '.join(one.column for one in open_)}.")
    model = [one for one in measured.comparisons if one.column in MODEL_COLUMNS]
    if model and all(one.state == "cannot judge" for one in model):
        notes.append(f"What the model says is not judged: {model[0].why}.")
    if outcome == "covariate drift" and not measured.labels_in_time:
        notes.append(
            "Labels that would tell what it means do not come in time by themselves; they are asked for when the change has "
            f"lasted {LASTING_DAYS} days, as far as the label budget goes."
        )
    return notes


def _since(partition: date, same: Sequence[Earlier]) -> date:
    """`same`: earlier verdicts of the same outcome, in order."""
    since = partition
    for e in reversed(same):
        if (since - e.partition).days > QUIET_DAYS + 1:
            break
        since = e.partition
    return since
