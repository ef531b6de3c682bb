"""Settings of a cloud: one variable of the environment for each field of a data class, checked before anything is asked."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import TypeVar

Settings = TypeVar("Settings")


class InvalidSettings(ValueError):
    """The environment lacks something, or has what cannot be; the message names the variable and what it should be."""


def given(kind: type[Settings], prefix: str) -> Settings:
    """The fields of a data class as the environment has them; one that is not set has its default, or is empty."""
    told = {field.name: os.environ.get(variable(prefix, field.name), "") for field in fields(kind)}  # type: ignore[arg-type]
    required = {field.name for field in fields(kind) if field.default is MISSING}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in told.items() if value or name in required})


def faults(settings: object, prefix: str, patterns: Mapping[str, tuple[str, str]]) -> list[str]:
    """A sentence for each field that does not match its pattern.

    Args:
        patterns: field → regular expression of the whole value, and in words what it must be.
    """
    return [
        f"{variable(prefix, name)} {getattr(settings, name)!r} must be {told}"
        for name, (pattern, told) in patterns.items()
        if not re.fullmatch(pattern, getattr(settings, name))
    ]


def variable(prefix: str, name: str) -> str:
    return f"{prefix}{name.upper()}"
