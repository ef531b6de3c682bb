"""How Batch Transform cuts an object into requests, and what its filters make of records: DataProcessing."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from localcloud.service import NotHonoured, Refused

MB = 1024 * 1024
Form = Literal["csv", "json"]
FORMS: dict[str, Form] = {
    "text/csv": "csv",
    "application/json": "json",
    "application/jsonlines": "json",
    "application/x-ndjson": "json",
}
Pick = Callable[[Any], Any]


class Unprocessable(Exception):
    """An object of the input cannot be transformed; the message says why."""


@dataclass(frozen=True)
class Filters:
    """What goes to the model of a record, and what is written of it and of the answer."""

    form: Form
    into: Pick | None
    out: Pick | None
    join: bool

    def sent(self, record: bytes) -> bytes:
        if self.into is None:
            return record
        return self._encoded(_picked(self.into, self._decoded(record)))

    def written(self, record: bytes, answer: bytes) -> bytes:
        """One line of output: the answer, joined to the record it is for if that is asked."""
        if not self.join and self.out is None:
            return answer
        told = self._decoded(answer)
        if self.join:
            given = self._decoded(record)
            if self.form == "csv":
                told = [*given, *told]
            elif isinstance(given, dict):
                told = {**given, "SageMakerOutput": told}
            else:
                told = {"SageMakerInput": given, "SageMakerOutput": told}
        return self._encoded(_picked(self.out, told) if self.out else told)

    def _decoded(self, line: bytes) -> Any:
        try:
            if self.form == "csv":
                (row,) = csv.reader([line.decode()])
                return row
            return json.loads(line)
        except (ValueError, csv.Error) as error:
            raise Unprocessable(f"{line[:100]!r} is no {self.form} record: {error}") from None

    def _encoded(self, value: Any) -> bytes:
        if self.form == "json":
            return json.dumps(value).encode()
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="").writerow(value if isinstance(value, list) else [value])
        return buffer.getvalue().encode()


def path(expression: str) -> Pick | None:
    """A JSONPath of those that filters are made of here: $, $.a.b, $[0], $[-1], $[1:], $[0,2], $['a','b'].

    Raises:
        NotHonoured: for another one.
    """
    if expression in ("", "$"):
        return None
    if re.fullmatch(r"\$(\.[A-Za-z_]\w*)+", expression):
        names = expression[2:].split(".")
        return lambda value: _down(value, names)
    inner = re.fullmatch(r"\$\[(.+)\]", expression)
    if inner and (cut := re.fullmatch(r"(-?\d*):(-?\d*)", inner[1])):
        first, last = (int(each) if each else None for each in cut.groups())
        return lambda value: value[first:last]
    parts = [part.strip() for part in inner[1].split(",")] if inner else []
    if parts and all(re.fullmatch(r"-?\d+", part) for part in parts):
        numbers = [int(part) for part in parts]
        return lambda value: value[numbers[0]] if len(numbers) == 1 else [value[number] for number in numbers]
    if parts and all(re.fullmatch(r"'[^']+'|\"[^\"]+\"", part) for part in parts):
        keys = [part[1:-1] for part in parts]
        return lambda value: value[keys[0]] if len(keys) == 1 else {key: value[key] for key in keys}
    raise NotHonoured(f"the JSONPath {expression!r} of DataProcessing")


def filters(processing: dict[str, str], content_type: str, split: str) -> Filters | None:
    """None if records pass as they are.

    Raises:
        Refused: if filters and content do not fit.
    """
    into, out = path(processing.get("InputFilter", "")), path(processing.get("OutputFilter", ""))
    join = processing.get("JoinSource") == "Input"
    if into is None and out is None and not join:
        return None
    if split != "Line":
        raise NotHonoured("DataProcessing with another SplitType than Line")
    form = FORMS.get(content_type.partition(";")[0].strip().lower())
    if form is None:
        raise Refused("ValidationException", f"DataProcessing needs CSV or JSON as ContentType, not {content_type!r}")
    return Filters(form, into, out, join)


def lines(content: bytes) -> list[bytes]:
    """The records of an object; a line break at its end begins no further one."""
    found = content.split(b"\n")
    return found[:-1] if found and not found[-1] else found


def batches(records: Sequence[bytes], most: int, single: bool) -> Iterator[list[bytes]]:
    """Records by the request.

    Raises:
        Unprocessable: if a record is larger than a request may be.
    """
    batch: list[bytes] = []
    size = 0
    for record in records:
        more = len(record) + 1
        if more > most:
            raise Unprocessable(f"a record of {len(record)} bytes is larger than MaxPayloadInMB={most // MB}")
        if batch and (single or size + more > most):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += more
    if batch:
        yield batch


def _picked(pick: Pick, value: Any) -> Any:
    try:
        return pick(value)
    except (KeyError, IndexError, TypeError) as error:
        raise Unprocessable(f"a filter does not fit {str(value)[:100]}: {error!r}") from None


def _down(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = value[name]
    return value
