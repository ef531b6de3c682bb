"""How the values of a document are written on a page. They come of data: what is none, or no number, is shown as a dash."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from include import charts

MISSING = "–"
MAX_TEXT = 2000


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and -charts.HUGE < value < charts.HUGE


def number(value: float, decimals: int) -> str:
    if abs(value) >= 1e12:
        return f"{value:.3g}".replace("-", "−")
    text = f"{value:,.{decimals}f}"
    return text.removeprefix("-") if not any(digit in text for digit in "123456789") else text.replace("-", "−")


def count(value: Any) -> str:
    return number(value, 0) if is_number(value) else MISSING


def word(value: Any, length: int = MAX_TEXT) -> str:
    if value is None or value == "":
        return MISSING
    text = str(value)
    return text if len(text) <= length else text[: length - 1] + "…"


def as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def clean(node: Any) -> Any:
    """A copy without what cannot be shown: numbers that are none become null, characters that are no text become spaces."""
    if isinstance(node, str):
        return "".join(char if char.isprintable() else " " for char in node)
    if isinstance(node, Mapping):
        return {clean(name): clean(value) for name, value in node.items()}
    if isinstance(node, Iterable):
        return [clean(each) for each in node]
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node
