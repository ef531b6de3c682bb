"""Backups of the local platform: ledger, registry and what they name, as they were at one moment; and the way back.

Nothing stops while a backup is made. Files of the lake and records of the ledger are written beside their place and renamed,
never changed; so a copy during which no record was added is the lake as a crash of that moment would have left it, and from a
crash everything here goes on. Where a record was added or a source landed meanwhile, the next round copies what is new.

    manifest.json            written last: the digest of every file; a folder without it is no backup
    ledger/, registry.db
    source/, versions/, models/, training/, evaluations/, ...

What readers see is not in it: it is made of `versions/`, as the ledger says what is published.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from include import partitions, publications
from include.config import settings
from include.core.files import new_folder, replacing, sha256_of, write_json
from include.platforms import lake

MANIFEST = "manifest.json"
FORMAT = 1
LEDGER, REGISTRY, SOURCE = "ledger", "registry.db", "source"
KEPT = ("versions", "models", "training", "evaluations", "monitoring", "validations", "label_queue")
SHOWN = ("predictions", "quarantine")
ROUNDS = 5


class Refused(ValueError):
    """No backup was made, or none was restored, and nothing was changed; the message says why, and what to do."""


@dataclass(frozen=True)
class Backup:
    """`published` is the digest of what readers see: model → day → digest."""

    folder: Path
    at: str
    files: dict[str, str]
    published: dict[str, dict[str, str]]
    bytes: int


def make(to: Path, with_source: bool = True) -> Backup:
    """Back up the lake of this environment to a folder that is not there yet. Runs may go on meanwhile.

    Raises:
        Refused: if something is not on this machine, if the folder will not do, if a published version is not in the lake, or if
            runs do not stop deciding. There is then no such folder.
    """
    root, ledger, registry = _places()
    to = to.absolute()
    if to.exists():
        raise Refused(f"{to}: is there already; name a folder that is not")
    if to.is_relative_to(root) or to.is_relative_to(ledger):
        raise Refused(f"{to}: lies in what is backed up, and would be lost with it; name another place")
    if not any(_files(ledger)):
        raise Refused(f"{ledger}: has no record: there is nothing to back up. Is AILERON_LAKE what you mean?")
    with new_folder(to) as draft:
        for _ in range(ROUNDS):
            begun, at = set(_files(ledger)), datetime.now(UTC).isoformat(timespec="seconds")
            _mirror(ledger, draft / LEDGER)
            published = {folder.name: _published(folder.name) for folder in sorted(_folders(ledger / publications.KIND))}
            if registry.exists():
                _copy_registry(registry, draft / REGISTRY)
            for name in KEPT:
                _mirror(root / name, draft / name)
            landed = _mirror(root / SOURCE, draft / SOURCE) if with_source else False
            if not landed and set(_files(ledger)) == begun:
                break
        else:
            raise Refused("runs go on deciding, or sources landing, while the lake is copied: pause the DAGs, or try again later")
        _check_published(draft, published)
        files = {name: sha256_of(draft / name) for name in sorted(_files(draft))}
        size = sum((draft / name).stat().st_size for name in files)
        os.sync()
        places = {"lake": str(root), "ledger": str(ledger), "registry": str(registry)}
        body = {"format": FORMAT, "at": at, "places": places, "files": files, "published": published, "bytes": size}
        write_json(draft / MANIFEST, body | {"source": with_source, "revision": settings().revision})
    return Backup(to, at, files, published, size)


def read(folder: Path) -> Backup:
    """A backup, every file of which is as it was when it was made.

    Raises:
        Refused: if it is not whole, or not one.
    """
    return _read(folder)[0]


def restore(folder: Path) -> Backup:
    """Put a backup where it was made, which must be empty, and show readers what they saw then.

    The ledger comes last, in one step. Until then nobody is champion and no run gets far.

    Raises:
        Refused: if the backup is not whole, or of another place, or if there is something in this one.
    """
    backup, places = _read(folder)
    root, ledger, registry = _places()
    here = {"lake": str(root), "ledger": str(ledger), "registry": str(registry)}
    if here != places:
        wrong = "; ".join(f"{name} {places[name]}, and here it is {here[name]}" for name in here if here[name] != places[name])
        raise Refused(f"{folder}: is of another place ({wrong}), and its records name their files by path: restore it there")
    for there in (
        *(root / name for name in (*KEPT, *SHOWN)),
        ledger,
        registry,
        *([root / SOURCE] if _has_source(backup) else []),
    ):
        if there.is_file() or any(_files(there)):
            raise Refused(f"{there}: is not empty, and nothing is put over it: move it away first")
    for name, digest in backup.files.items():
        if not name.startswith(f"{LEDGER}/"):
            _put(backup.folder / name, registry if name == REGISTRY else root / name, digest)
    for model, day, digest in _each(backup.published):
        lake.show(model, day, digest)
    if ledger.is_dir():
        shutil.rmtree(ledger)  # of empty folders
    with new_folder(ledger) as draft:
        for name, digest in backup.files.items():
            if name.startswith(f"{LEDGER}/"):
                _put(backup.folder / name, draft / name.removeprefix(f"{LEDGER}/"), digest)
        os.sync()
    return backup


def _places() -> tuple[Path, Path, Path]:
    """Lake, ledger and file of the registry."""
    set_ = settings()
    if set_.platform != "local":
        raise Refused(f"AILERON_PLATFORM={set_.platform}: its bucket and registry keep what they had: see docs/operations.md")
    scheme, sign, path = set_.ledger.rpartition("://")
    if sign and scheme != "file":
        raise Refused(
            f"AILERON_LEDGER={set_.ledger}: is not on this machine: its bucket keeps what it had: see docs/operations.md"
        )
    if not set_.registry.startswith("sqlite:///"):
        raise Refused("AILERON_REGISTRY is a server: back up its database with its own means, in the order of docs/operations.md")
    return set_.lake, Path(path).absolute(), Path(set_.registry.removeprefix("sqlite:///"))


def _files(folder: Path) -> Iterator[str]:
    """Names of all files below a folder, but drafts, which begin with a dot."""
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (str((Path(path) / name).relative_to(folder)) for name in files if not name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []


def _mirror(folder: Path, copy: Path) -> bool:
    """Copy what is not there yet or is another file by now, remove what has gone; whether there was anything to do."""
    changed, seen = False, set(_files(folder))
    for name in seen | set(_files(copy)):
        target = copy / name
        try:
            found = (folder / name).stat()
            if target.exists() and (target.stat().st_size, target.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / name, target)
        except FileNotFoundError:
            target.unlink(missing_ok=True)
        changed = True
    return changed


def _copy_registry(file: Path, copy: Path) -> None:
    """As SQLite does it: whole, whoever writes meanwhile."""
    with replacing(copy) as draft:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as there, closing(sqlite3.connect(draft)) as here:
            there.backup(here)


def _published(model: str) -> dict[str, str]:
    """Digest of what readers see, by day: records come in the order of their versions."""
    return {record.body["partition"]: record.body["digest"] for record in publications.history(model)}


def _check_published(draft: Path, published: dict[str, dict[str, str]]) -> None:
    for model, day, digest in _each(published):
        kept = lake.version_file(draft, model, day, digest)
        if not kept.is_file() or sha256_of(kept)[:16] != digest:
            raise Refused(
                f"{model}: version {digest} of partition {day} is published, and is gone or damaged in the lake: "
                "predict the day again, then back up"
            )


def _each(published: dict[str, dict[str, str]]) -> Iterator[tuple[str, date, str]]:
    """Model, day and digest of what readers see."""
    for model, days in published.items():
        yield from ((model, partitions.parse(day), digest) for day, digest in days.items())


def _read(folder: Path) -> tuple[Backup, dict[str, str]]:
    try:
        body: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError) as error:
        raise Refused(f"{folder}: is no whole backup, its {MANIFEST} cannot be read ({error}): choose another one") from None
    if body.get("format") != FORMAT:
        raise Refused(f"{folder}: its format is {body.get('format')}, not {FORMAT}: restore it with the code that made it")
    files: dict[str, str] = body["files"]
    there = set(_files(folder)) - {MANIFEST}
    wrong = sorted(there ^ files.keys()) or [name for name, digest in files.items() if sha256_of(folder / name) != digest]
    published = body["published"]
    shown = {str(lake.version_file(Path(), *one)) for one in _each(published)}
    if wrong := wrong or sorted(shown - there):
        raise Refused(f"{folder}: {len(wrong)} files are missing, damaged or strange, such as {wrong[0]}: choose another backup")
    return Backup(folder, body["at"], files, published, body["bytes"]), body["places"]


def _has_source(backup: Backup) -> bool:
    return any(name.startswith(f"{SOURCE}/") for name in backup.files)


def _put(file: Path, target: Path, digest: str) -> None:
    """Copy with its times: by those the lake knows whether a source has changed."""
    with replacing(target) as draft:
        shutil.copyfile(file, draft)
        if sha256_of(draft) != digest:
            raise OSError(f"{target}: was not written as it was read from {file}: is the disk sound?")
        shutil.copystat(file, draft)
