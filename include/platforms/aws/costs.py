"""What remote jobs cost: estimated, and refused if too much, before they are submitted; settled when they have ended."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from include import ledger
from include.config import SAFE_LOADER, ModelConfig
from include.platforms.aws.settings import aws

JOB, COST = "remote_job", "remote_cost"
EXPECTED_SECONDS = 900  # of a job that never ran before
PRICES = Path(__file__).with_name("prices.yaml")


class TooExpensive(ValueError):
    """A job was not submitted: its estimate is above the limit."""


@cache
def prices() -> dict[str, Any]:
    """The price book: US dollars, of one region, as of its date."""
    book: dict[str, Any] = yaml.load(PRICES.read_text(), Loader=SAFE_LOADER)  # noqa: S506  it is the safe loader
    return book


def hourly(resource: str) -> float:
    """Price of an hour of an instance type of SageMaker (`ml.m5.xlarge`), or of a worker of Glue (`G.1X`).

    Raises:
        TooExpensive: if the price book does not have it: what it costs is then not known.
    """
    price = prices()["hours"].get(resource)
    if price is None:
        raise TooExpensive(f"{resource} is not in the price book ({PRICES.name}): add its price per hour, or choose another")
    return float(price)


def scanned(size: int) -> float:
    """Price of a query of Athena that reads so many bytes."""
    book = prices()["athena"]
    return max(size, book["least_bytes"]) / 1e12 * book["per_terabyte"]


def expected_seconds(model: str, step: str) -> float:
    """How long the last jobs of a step took, or a guess."""
    past = [record.body["seconds"] for record in ledger.read(COST, model, prefix=f"{step}.")][-20:]
    return median(past) if past else EXPECTED_SECONDS


def admit(model: ModelConfig, step: str, name: str, estimate: float, facts: dict[str, Any]) -> None:
    """Record a job before it is submitted; the first record of a name stands.

    Raises:
        TooExpensive: if the estimate is above AILERON_AWS_MAX_JOB_COST.
    """
    most = float(aws().max_job_cost)
    if estimate > most:
        raise TooExpensive(
            f"{model.name}: {step} would cost about {estimate:.2f} USD and at most {most:g} are allowed for a job: it was not "
            "submitted. Raise AILERON_AWS_MAX_JOB_COST, or make the job smaller"
        )
    ledger.append(JOB, model.name, f"{step}.{name}", {**facts, "step": step, "job": name, "estimate": round(estimate, 6)})


def was_admitted(model: str, step: str, name: str) -> bool:
    return ledger.find(JOB, model, f"{step}.{name}") is not None


def settle(model: str, step: str, name: str, seconds: float, cost: float) -> None:
    """Record what a job that has ended took and cost; once."""
    body = {"step": step, "job": name, "seconds": seconds, "cost": round(cost, 6), "prices": str(prices()["as_of"])}
    ledger.append(COST, model, f"{step}.{name}", body)
