"""Partial answers: `fields=kind,items(name,owner/entity)` asks for these members and no others."""

from __future__ import annotations

import re
from typing import Any

from localcloud.service import Refused

TOKEN = re.compile(r"[^,/()]+|[,/()]")
# The members that are asked for; an empty one is asked for whole.
Mask = dict[str, "Mask"]


def partial(members: Any, text: str) -> Any:
    """Raises Refused if the text is no selection."""
    tokens = TOKEN.findall(text.replace(" ", ""))
    mask = _selection(tokens)
    if tokens:
        raise _wrong(text)
    return _cut(members, mask)


def _selection(tokens: list[str]) -> Mask:
    mask: Mask = {}
    while tokens:
        inner = mask
        while True:
            name = tokens.pop(0) if tokens else ""
            if not name or name in ",/()":
                raise _wrong(name)
            inner = inner.setdefault(name, {})
            if not tokens or tokens[0] != "/":
                break
            tokens.pop(0)
        if tokens and tokens[0] == "(":
            tokens.pop(0)
            inner.update(_selection(tokens))
            if not tokens or tokens.pop(0) != ")":
                raise _wrong("(")
        if not tokens or tokens[0] != ",":
            break
        tokens.pop(0)
    return mask


def _cut(value: Any, mask: Mask) -> Any:
    if not mask or "*" in mask:
        return value
    if isinstance(value, list):
        return [_cut(each, mask) for each in value]
    if isinstance(value, dict):
        return {name: _cut(each, mask[name]) for name, each in value.items() if name in mask}
    return value


def _wrong(text: str) -> Refused:
    return Refused("invalidParameter", f"Invalid field selection {text}")
