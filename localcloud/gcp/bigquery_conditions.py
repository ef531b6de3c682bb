"""What is known of the rows that matter to a query, where it reads a table."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


def column(number: int) -> str:
    """The name of a column in what is translated."""
    # The line at the end tells c1 from c10.
    return f"c{number}_"


@dataclass(frozen=True)
class Condition:
    """A condition that every row must meet which matters to the query, on these columns."""

    columns: frozenset[int]
    sql: str

    def renamed(self, names: Mapping[int, int]) -> Condition | None:
        """The same of other columns; None if one has no other name."""
        if not self.columns <= names.keys():
            return None
        text = re.sub(r"\bc(\d+)_\b", lambda found: column(names.get(int(found[1]), int(found[1]))), self.sql)
        return Condition(frozenset(names[number] for number in self.columns), text)


@dataclass(frozen=True)
class Read:
    """A place where a table is read: its columns by number, and what is known of the rows that matter."""

    table: str
    columns: Mapping[int, str]
    conditions: tuple[Condition, ...]
