"""The folder of a cloud's state: one cloud's alone, and nobody else's files in it."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path
from typing import IO

MARK = ".localcloud"  # in the folder of a state: it is ours to empty


class Occupied(Exception):
    """A folder cannot be taken for the state of a cloud; the message says why."""


def taken(folder: Path) -> IO[str]:
    """Make the folder of a state ours alone, as long as the file that this gives is open.

    Raises:
        Occupied: if it has files of somebody else, or another local cloud uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if any(folder.iterdir()) and not mark.is_file():
        raise Occupied(f"{folder} has files that are not those of a local cloud, and would be emptied: name another folder")
    held = mark.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Occupied(f"{folder} is in use by another local cloud: stop it, or name another folder") from None
    return held


def emptied(folder: Path, *keep: str) -> None:
    """Remove all that is in the folder of a state, but what is to be kept."""
    for path in folder.iterdir():
        if path.name not in (MARK, *keep):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
