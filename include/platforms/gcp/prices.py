"""The price book of Google Cloud: US dollars, of one region, as of its date."""

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


def hourly(service: str, machine: str) -> float:
    """Price of an hour of a machine type at a service: `vertex` or `dataflow`.

    Raises:
        TooExpensive: if the price book does not have it: what it costs is then not known.
    """
    price = book()[service].get(machine)
    if price is None:
        raise TooExpensive(
            f"{machine} is not in the price book for {service} ({PRICES.name}): add its price per hour, or choose another"
        )
    return float(price)


def billed(size: int) -> float:
    """Price of a query of BigQuery that is billed for so many bytes."""
    return size / 2**40 * float(book()["bigquery"]["per_tebibyte"])
