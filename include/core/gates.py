"""May a model be promoted? Plain rules over measured numbers. Every rule is closed unless the numbers open it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Outcome = Literal["PROMOTE", "HOLD", "REJECT"]


@dataclass(frozen=True)
class Verdict:
    """PROMOTE: shown to be good enough. REJECT: shown not to be. HOLD: not enough evidence for either."""

    outcome: Outcome
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {"outcome": self.outcome, "reasons": list(self.reasons)}


def absolute_floors(metrics: Mapping[str, float | None], floors: Mapping[str, float]) -> Verdict:
    """Promote only a model whose every metric in `floors` is a number at or above its floor.

    A metric that was not measured holds the model, and so does a floor that is no number, or no floor at all.
    """
    return all_of(*(_floor(metrics.get(name), name, floor) for name, floor in sorted(floors.items())))


def all_of(*verdicts: Verdict) -> Verdict:
    """One verdict from several: REJECT if one rejects, else HOLD if one holds (or there is none), else PROMOTE."""
    if not verdicts:
        return Verdict("HOLD", ("no rule was applied, so nothing is shown",))
    outcomes = {verdict.outcome for verdict in verdicts}
    outcome: Outcome = "REJECT" if "REJECT" in outcomes else "PROMOTE" if outcomes == {"PROMOTE"} else "HOLD"
    return Verdict(outcome, tuple(reason for verdict in verdicts for reason in verdict.reasons))


def _floor(value: float | None, name: str, floor: float) -> Verdict:
    if not _is_finite(floor):
        return Verdict("HOLD", (f"the floor of {name} is {floor}, which is no number: correct gate.floors in the model.yaml",))
    if value is None or not _is_finite(value):
        return Verdict("HOLD", (f"{name} could not be measured ({value}), its floor is {floor:g}",))
    if value >= floor:
        return Verdict("PROMOTE", (f"{name} {value:.4f} is at or above its floor {floor:g}",))
    return Verdict("REJECT", (f"{name} {value:.4f} is below its floor {floor:g}",))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
