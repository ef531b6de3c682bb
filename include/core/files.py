"""Files that are either there or not: written beside their place, synced, and moved there in one step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """A temporary file to write; it takes the place of `path` when the block ends well, and is removed when it does not.

    Readers see the old file or the new one, whole, whatever happens to this process. Two writers do not meet: the one
    that ends last wins.

    Raises:
        OSError: from writing, syncing or moving; `path` is then what it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _draft(path)
    try:
        temporary.touch(0o600, exist_ok=False)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Generator[Path, None, None]:
    """A temporary folder to fill; it becomes `path` when the block ends well, and is removed when it does not.

    Raises:
        FileExistsError: if `path` is there already, or another process was first. A folder is never replaced.
        OSError: from writing, syncing or moving; there is then no `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _draft(path)
    try:
        temporary.mkdir(0o700)
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        try:
            # The system refuses to put a folder in the place of one that has files in it.
            temporary.rename(path)
        except OSError as error:
            if path.exists():
                raise FileExistsError(f"{path}: is there already") from error
            raise
        _sync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, document: Mapping[str, Any]) -> None:
    """Write a JSON document, whole or not at all. The same document gives the same bytes; NaN and infinity are refused.

    Raises:
        ValueError: for a number that JSON does not have.
        OSError: from writing; `path` is then what it was.
    """
    content = json_bytes(document)
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def json_bytes(document: Mapping[str, Any]) -> bytes:
    """The one way a document is written: sorted keys, so that equal documents have equal digests."""
    return (json.dumps(document, sort_keys=True, indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal, read in pieces.

    Raises:
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _draft(path: Path) -> Path:
    """A name beside the path. It is known before there is anything of that name, so whoever is stopped in between removes it."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The umask of this process; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
