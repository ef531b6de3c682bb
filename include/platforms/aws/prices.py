"""The price book of AWS: US dollars, of one region, as of its date."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from include.config import SAFE_LOADER
from include.platforms.costs import TooExpensive

PRICES = Path(__file__).with_name("prices.yaml")


@cache
def book() -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(PRICES.read_text(), Loader=SAFE_LOADER)  # noqa: S506  it is the safe loader
    return found


def hourly(resource: str) -> float:
    """Price of an hour of an instance type of SageMaker (`ml.m5.xlarge`), or of a worker of Glue (`G.1X`).

    Raises:
        TooExpensive: if the price book does not have it: what it costs is then not known.
    """
    price = book()["hours"].get(resource)
    if price is None:
        raise TooExpensive(f"{resource} is not in the price book ({PRICES.name}): add its price per hour, or choose another")
    return float(price)


def scanned(size: int) -> float:
    """Price of a query of Athena that reads so many bytes."""
    athena = book()["athena"]
    return max(size, athena["least_bytes"]) / 1e12 * athena["per_terabyte"]
