"""A function of BigQuery that is called, and what all that write one for DuckDB need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from localcloud.gcp import bigquery_types as types
from localcloud.service import NotHonoured

# Of the analyser's DateTimestampPart.
PARTS = {
    1: "YEAR",
    2: "MONTH",
    3: "DAY",
    4: "DAYOFWEEK",
    5: "DAYOFYEAR",
    6: "QUARTER",
    7: "HOUR",
    8: "MINUTE",
    9: "SECOND",
    10: "MILLISECOND",
    11: "MICROSECOND",
    13: "DATE",
    14: "WEEK",
    15: "DATETIME",
    16: "TIME",
    17: "ISOYEAR",
    18: "ISOWEEK",
    19: "WEEK(MONDAY)",
}


@dataclass(frozen=True)
class Call:
    """A function that is called.

    args: in DuckDB's words; kinds: their types as schemas call them; constants: what they are where they are literals, else
    None; result: the type of what comes out.
    """

    name: str
    args: tuple[str, ...]
    kinds: tuple[str, ...]
    constants: tuple[Any, ...]
    result: Any
    safe: bool = False  # NULL instead of an error

    def sure(self, position: int) -> bool:
        """Is it a literal, and neither NULL nor NaN?"""
        known = self.constants[position]
        return known is not None and known == known

    def part(self, position: int) -> str:
        """The part of a date or time that an argument names."""
        number = self.constants[position]
        if number not in PARTS:
            raise NotHonoured(f"this part of a date or time in {self.name}")
        return PARTS[number]

    def constant(self, position: int) -> Any:
        if self.constants[position] is None:
            raise NotHonoured(f"{self.name} with an argument that is no literal")
        return self.constants[position]


Write = Callable[[Call], str]


def simple(template: str) -> Write:
    """`{0}` is the first argument."""
    return lambda call: template.format(*call.args)


def failing(call: Call, condition: str, message: str, value: str) -> str:
    """A value, or an error of BigQuery's."""
    error = "NULL" if call.safe else f"error({types.text(message)})"
    return f"CASE WHEN {condition} THEN {error} ELSE {value} END"


def with_kind(*kinds: str) -> Callable[[str], Write]:
    def templated(template: str) -> Write:
        def write(call: Call) -> str:
            if call.kinds[0] not in kinds:
                raise NotHonoured(f"{call.name.upper()} of {call.kinds[0]}")
            return template.format(*call.args)

        return write

    return templated
