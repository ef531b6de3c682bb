"""Rows of BigQuery as the instances that batch prediction makes of them."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any


def as_instance(row: Mapping[str, Any], as_object: bool) -> Any:
    """An object, or an array in the order of the columns."""
    members = {name: as_json(value) for name, value in row.items()}
    return members if as_object else list(members.values())


def as_json(value: Any) -> Any:
    """A value of BigQuery as Vertex converts it: what JSON does not have is a string."""
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        # JSON has no such numbers; protobuf's JSON, which Vertex's is, has these words.
        return value if math.isfinite(value) else "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, Decimal):
        return format(value.normalize(), "f")
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {name: as_json(each) for name, each in value.items()}
    if isinstance(value, list):
        return [as_json(each) for each in value]
    raise TypeError(f"{type(value).__name__} is no type of BigQuery's that is known here")
