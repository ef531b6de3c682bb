"""Documents of a run, JSON or pages, by their place: a path, or a URI that Airflow's ObjectStoragePath can reach."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path
from typing import Any

from include import storage
from include.core.files import replacing


class DamagedDocument(ValueError):
    """A document is missing or is not what it should be; the message names it."""


def read_json(place: str) -> dict[str, Any]:
    """A JSON object.

    Raises:
        DamagedDocument: if it is not there, or is none.
    """
    try:
        found = json.loads(storage.read(storage.place(place)))
    except FileNotFoundError:
        raise DamagedDocument(f"{place}: not found; clear the task that wrote it") from None
    except ValueError as error:
        raise DamagedDocument(f"{place}: is not JSON ({error}); clear the task that wrote it") from None
    if not isinstance(found, dict):
        raise DamagedDocument(f"{place}: must be a JSON object; clear the task that wrote it")
    return found


def write(place: str, content: bytes) -> None:
    """Write a document, whole or not at all."""
    if "://" in place:
        path = storage.place(place)
        path.fs.pipe_file(path.path, content)  # an object appears when it is complete
        return
    with replacing(Path(place)) as draft:
        draft.write_bytes(content)


def sibling(place: str, name: str) -> str:
    """The place of another document in the same folder."""
    return f"{place.rpartition('/')[0]}/{name}"


def link(page: str, target: str) -> str:
    """How a page links to another document of the same root, so that the link holds wherever both are served or copied to."""
    if ("://" in page) != ("://" in target):
        return target
    return posixpath.relpath(target, posixpath.dirname(page))
