"""What remote jobs cost: estimated, and refused if too much, before they are submitted; settled when they have ended."""

from __future__ import annotations

from statistics import median
from typing import Any

from include import ledger
from include.config import ModelConfig

JOB, COST = "remote_job", "remote_cost"
EXPECTED_SECONDS = 900  # of a job that never ran before


class TooExpensive(ValueError):
    """A job was not submitted: its estimate is above the limit, or what it costs is not known."""


def expected_seconds(model: str, step: str) -> float:
    """How long the last jobs of a step took, or a guess."""
    past = [record.body["seconds"] for record in ledger.read(COST, model, prefix=f"{step}.")][-20:]
    return median(past) if past else EXPECTED_SECONDS


def admit(model: ModelConfig, step: str, name: str, estimate: float, most: float, variable: str, facts: dict[str, Any]) -> None:
    """Record a job before it is submitted; the first record of a name stands.

    Args:
        estimate, most: US dollars; variable: of the environment, which says the most.

    Raises:
        TooExpensive: if the estimate is above the most.
    """
    if estimate > most:
        raise TooExpensive(
            f"{model.name}: {step} would cost about {estimate:.2f} USD and at most {most:g} are allowed for a job: it was not "
            f"submitted. Raise {variable}, or make the job smaller"
        )
    ledger.append(JOB, model.name, f"{step}.{name}", {**facts, "step": step, "job": name, "estimate": round(estimate, 6)})


def was_admitted(model: str, step: str, name: str) -> bool:
    return ledger.find(JOB, model, f"{step}.{name}") is not None


def settle(model: str, step: str, name: str, seconds: float, cost: float, prices: str) -> None:
    """Record what a job that has ended took and cost, by the price book of a day; once."""
    body = {"step": step, "job": name, "seconds": seconds, "cost": round(cost, 6), "prices": prices}
    ledger.append(COST, model, f"{step}.{name}", body)
