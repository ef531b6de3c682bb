"""Tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def table(header: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> list[str]:
    """The lines of a table, and an empty one after it."""
    lines = [header, tuple("---" for _ in header), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines] + [""]
