"""What was decided: append-only JSON documents, one per decision, never changed and never deleted.

The ledger is the memory of the control plane: which partition was published from which source by which model, what
was promoted and why. Current state is a fold over its records. It is written through Airflow's ObjectStoragePath, so
the same code serves a folder, S3 and Cloud Storage, and any warehouse can load it as a table.

A record's key is its identity: the second writer of a key is told so and nothing changes. That is what makes a
retried task harmless and lets two runs race for one decision.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from include import storage
from include.config import settings


@dataclass(frozen=True)
class Record:
    """One decision. `body` is plain JSON; `at` is when it was written (UTC, ISO 8601, microseconds)."""

    kind: str
    model: str
    key: str
    at: str
    body: dict[str, Any]


class InvalidRecord(ValueError):
    """A record cannot be written or read; the message names it."""


def append(kind: str, model: str, key: str, body: Mapping[str, Any]) -> bool:
    """Write a record; False if one with this key is there already, which is then left as it is.

    Raises:
        InvalidRecord: if a name cannot be part of a path, or the body is not JSON (NaN and infinity are not).
    """
    folder = f"{_safe(kind)}/{_safe(model)}"
    record = {"kind": kind, "model": model, "key": key, "at": datetime.now(UTC).isoformat(timespec="microseconds")}
    try:
        text = json.dumps({**record, "body": dict(body)}, allow_nan=False, indent=1, sort_keys=True) + "\n"
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"ledger record {folder}/{key}: not plain JSON: {error}") from None
    path = _root() / folder / f"{_safe(key)}.json"
    return storage.create_once(path, text.encode())


def once(kind: str, model: str, key: str, body: Mapping[str, Any]) -> Record:
    """The record with this key, written now if there is none: whoever comes second gets what the first has said.

    Raises:
        InvalidRecord: as `append` and `read`.
    """
    said = find(kind, model, key)
    if said is None:
        append(kind, model, key, body)
        said = find(kind, model, key)
    if said is None:
        raise InvalidRecord(f"{kind}/{model}/{key}: was just written and is not there: look at the place of the ledger")
    return said


def find(kind: str, model: str, key: str) -> Record | None:
    """The record with this key; None if there is none.

    Raises:
        InvalidRecord: as `read`.
    """
    path = _root() / f"{_safe(kind)}/{_safe(model)}" / f"{_safe(key)}.json"
    try:
        return _record(path, storage.read(path))
    except FileNotFoundError:
        return None


def read(kind: str, model: str, prefix: str = "") -> list[Record]:
    """All records of a kind, oldest first; with a prefix only those whose key starts with it.

    Raises:
        InvalidRecord: if a document is damaged: a decision that cannot be read must not be taken for one never made.
    """
    folder = _root() / f"{_safe(kind)}/{_safe(model)}"
    chosen = [name for name in storage.names(folder) if name.endswith(".json") and name.startswith(prefix) and name[0] != "."]
    records = [_record(folder / name, content) for name, content in storage.read_all(folder, chosen).items()]
    return sorted(records, key=lambda record: (record.at, record.key))


def _record(path: Any, content: str | bytes) -> Record:
    try:
        return Record(**json.loads(content))
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"{path}: damaged ledger record ({error}); restore it from a backup or remove it") from None


def _root() -> Any:
    return storage.place(settings().ledger)


def _safe(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,150}", name) or ".." in name:
        raise InvalidRecord(f"{name!r} cannot be part of a ledger key: letters, digits, _ . = - only")
    return name
