"""What was decided: append-only JSON documents, one per decision, never changed and never deleted.

The ledger is the memory of the control plane: which partition was published from which source by which model, what
was promoted and why. Current state is a fold over its records. It is written through Airflow's ObjectStoragePath, so
the same code serves a folder, S3 and Cloud Storage, and any warehouse can load it as a table.

A record's key is its identity: the second writer of a key is told so and nothing changes. That is what makes a
retried task harmless and lets two runs race for one decision.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    return create_once(path, text.encode())


def find(kind: str, model: str, key: str) -> Record | None:
    """The record with this key; None if there is none.

    Raises:
        InvalidRecord: as `read`.
    """
    path = _root() / f"{_safe(kind)}/{_safe(model)}" / f"{_safe(key)}.json"
    return _record(path) if path.exists() else None


def read(kind: str, model: str, prefix: str = "") -> list[Record]:
    """All records of a kind, oldest first; with a prefix only those whose key starts with it.

    Raises:
        InvalidRecord: if a document is damaged: a decision that cannot be read must not be taken for one never made.
    """
    folder = _root() / f"{_safe(kind)}/{_safe(model)}"
    if not folder.exists():
        return []
    paths = [path for path in folder.iterdir() if path.name.endswith(".json") and path.name.startswith(prefix)]
    return sorted(map(_record, paths), key=lambda record: (record.at, record.key))


def _record(path: Any) -> Record:
    try:
        return Record(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise InvalidRecord(f"{path}: damaged ledger record ({error}); restore it from a backup or remove it") from None


def create_once(path: Any, data: bytes) -> bool:
    """Create a document (ObjectStoragePath) whole or not at all; False if it exists, which is then left as it is."""
    if path.protocol == "file":
        # A hard link is the one portable call that is atomic, complete and refuses to replace.
        target = Path(path.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            with draft.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(draft, target)
        except FileExistsError:
            return False
        finally:
            draft.unlink(missing_ok=True)
        return True
    try:
        path.fs.pipe_file(path.path, data, mode="create")  # S3 and Cloud Storage: a conditional PUT
    except FileExistsError:
        return False
    return True


def _root() -> Any:
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(settings().ledger)


def _safe(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.=-]{0,150}", name) or ".." in name:
        raise InvalidRecord(f"{name!r} cannot be part of a ledger key: letters, digits, _ . = - only")
    return name
