"""Requests and answers against botocore's models of the services: what the client leaves unchecked, AWS does check."""

from __future__ import annotations

import base64
import binascii
import re
import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape

from localcloud.service import Refused

NUMBERS = ("integer", "long", "float", "double")
# Where AWS names another code than ValidationException.
CODES = {"athena": "InvalidRequestException"}


@cache
def service_model(service: str) -> ServiceModel:
    return botocore.session.get_session().get_service_model(service)


def operation_model(service: str, operation: str) -> OperationModel:
    return service_model(service).operation_model(operation)


def checked(service: str, operation: str, raw: Any, complete: bool = True) -> dict[str, Any]:
    """A request as JSON has it, as the handlers want it: times as datetime, blobs as bytes.

    Args:
        complete: whether `raw` holds all of the request, so that a member that is missing can be named.

    Raises:
        Refused: naming every member that AWS would not take, and those that its model does not know at all.
    """
    shape = operation_model(service, operation).input_shape
    if shape is None:
        return {}
    faults: list[str] = []
    request = _taken(shape, raw, "", faults)
    if not complete:
        faults = [fault for fault in faults if not fault.startswith("Value null")]
    if faults:
        count = f"{len(faults)} validation error{'s' if len(faults) > 1 else ''} detected: "
        raise Refused(CODES.get(service, "ValidationException"), count + "; ".join(faults))
    assert isinstance(request, dict)
    return request


def answered(service: str, operation: str, members: Mapping[str, Any]) -> dict[str, Any]:
    """The answer of a handler as JSON. A member that AWS does not know is a fault of ours, and raises TypeError."""
    shape = operation_model(service, operation).output_shape
    if shape is None:
        if members:
            raise TypeError(f"{service} {operation} answers nothing, not {sorted(members)}")
        return {}
    given = _given(shape, members, operation)
    assert isinstance(given, dict)
    return given


def _taken(shape: Shape, value: Any, path: str, faults: list[str]) -> Any:
    """A value as its shape wants it; what is wrong with it is added to `faults`."""
    kind = shape.type_name

    def wrong(must: str) -> None:
        shown = "null" if value is None else f"'{str(value)[:200]}'"
        faults.append(f"Value {shown} at '{path or 'request'}' failed to satisfy constraint: {must}")

    if kind == "structure":
        if not isinstance(value, dict):
            wrong("Member must be a structure")
            return None
        if shape.is_document_type:
            return value
        members = shape.members
        for name in shape.metadata.get("required", ()):
            if value.get(name) is None:
                faults.append(f"Value null at '{_below(path, name)}' failed to satisfy constraint: Member must not be null")
        for name in value.keys() - members.keys():
            faults.append(f"Value at '{_below(path, name)}' failed to satisfy constraint: AWS knows no such member")
        if getattr(shape, "is_tagged_union", False) and len([name for name in value if value[name] is not None]) != 1:
            wrong("exactly one member of a union must be given")
        return {
            name: _taken(members[name], each, _below(path, name), faults)
            for name, each in value.items()
            if name in members and each is not None
        }
    if kind == "list":
        if not isinstance(value, list):
            wrong("Member must be a list")
            return None
        _within(shape, len(value), "length", wrong)
        return [_taken(shape.member, each, f"{path}.{number}.member", faults) for number, each in enumerate(value, 1)]
    if kind == "map":
        if not isinstance(value, dict):
            wrong("Member must be a map")
            return None
        _within(shape, len(value), "length", wrong)
        return {
            _taken(shape.key, name, f"{path}.key", faults): _taken(shape.value, each, f"{path}.{name}", faults)
            for name, each in value.items()
        }
    if kind in NUMBERS:
        whole = kind in ("integer", "long")
        if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
            wrong(f"Member must be a number of type {kind}")
            return None
        _within(shape, value, "value", wrong)
        return value
    if kind == "boolean":
        if not isinstance(value, bool):
            wrong("Member must be true or false")
        return value
    if kind == "timestamp":
        return _time(value, wrong)
    if kind == "blob":
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError, binascii.Error):
            wrong("Member must be Base64")
            return None
    if not isinstance(value, str):
        wrong("Member must be a string")
        return None
    return _text(shape, value, wrong)


def _text(shape: Shape, value: str, wrong: Any) -> str:
    _within(shape, len(value), "length", wrong)
    known = shape.metadata.get("enum")
    if known and value not in known:
        wrong(f"Member must satisfy enum value set: [{', '.join(known)}]")
    pattern = shape.metadata.get("pattern")
    compiled = _compiled(pattern) if pattern else None
    if compiled and not compiled.fullmatch(value):
        wrong(f"Member must satisfy regular expression pattern: {pattern}")
    return value


@cache
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """None for a pattern that only Java reads, or reads otherwise than Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(pattern)
    except (re.error, Warning):
        return None


def _within(shape: Shape, size: float, what: str, wrong: Any) -> None:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        wrong(f"Member must have {what} greater than or equal to {least}")
    if most is not None and size > most:
        wrong(f"Member must have {what} less than or equal to {most}")


def _time(value: Any, wrong: Any) -> datetime | None:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return datetime.fromtimestamp(value, UTC)
        return datetime.fromisoformat(value)
    except (TypeError, ValueError, OverflowError, OSError):
        wrong("Member must be a time")
        return None


def _below(path: str, name: str) -> str:
    """As AWS names members: in camel case."""
    return f"{path}.{name[:1].lower()}{name[1:]}".lstrip(".")


def _given(shape: Shape, value: Any, path: str) -> Any:
    kind = shape.type_name
    if kind == "structure" and shape.is_document_type:
        return value
    if kind == "structure":
        members = shape.members
        if unknown := value.keys() - members.keys():
            raise TypeError(f"{path} has no {sorted(unknown)}")
        return {name: _given(members[name], each, f"{path}.{name}") for name, each in value.items() if each is not None}
    if kind == "list":
        return [_given(shape.member, each, path) for each in value]
    if kind == "map":
        return {name: _given(shape.value, each, f"{path}.{name}") for name, each in value.items()}
    if kind == "timestamp":
        return round(value.timestamp(), 3)
    if kind == "blob":
        return base64.b64encode(value).decode()
    if kind == "string" and not isinstance(value, str):
        raise TypeError(f"{path} must be a string, not {value!r}")
    return value
