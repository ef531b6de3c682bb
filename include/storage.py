"""Places that are folders or prefixes of an object store, read as they are now.

The file systems of object stores remember what they have listed, so a process would not see what others have written
since: here nothing is asked of that memory.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def place(uri: str) -> Any:
    """The ObjectStoragePath of a URI or of a path of this machine."""
    from airflow.sdk import ObjectStoragePath

    return ObjectStoragePath(uri if "://" in uri else f"file://{Path(uri).absolute()}")


def names(folder: Any) -> list[str]:
    """Of all that is in a folder; nothing if it is not there."""
    if folder.protocol == "file":
        there = Path(folder.path)
        return [path.name for path in there.iterdir()] if there.is_dir() else []
    try:
        found = folder.fs.ls(folder.path, detail=False, refresh=True)
    except FileNotFoundError:
        return []
    return [one.rstrip("/").rpartition("/")[2] for one in found if one.rstrip("/") != folder.path.rstrip("/")]


def read(path: Any) -> bytes:
    """
    Raises:
        FileNotFoundError: if it is not there.
    """
    content: bytes = Path(path.path).read_bytes() if path.protocol == "file" else path.fs.cat_file(path.path)
    return content


def read_all(folder: Any, chosen: Iterable[str]) -> dict[str, bytes]:
    """Several documents of a folder, by name; of an object store all at once: one after the other, a year is a minute."""
    if folder.protocol == "file":
        return {name: read(folder / name) for name in chosen}
    by_path = {f"{folder.path.rstrip('/')}/{name}": name for name in chosen}
    found: dict[str, bytes] = folder.fs.cat(list(by_path)) if by_path else {}
    return {path.rpartition("/")[2]: content for path, content in found.items()}


def exists(path: Any) -> bool:
    if path.protocol == "file":
        return Path(path.path).exists()
    return path.name in names(path.parent)


def create_once(path: Any, data: bytes) -> bool:
    """Create a document whole or not at all; False if it exists, which is then left as it is."""
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
