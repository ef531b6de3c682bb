"""Objects on disk: an index of them, and a file for the content of each generation, which is never written to again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google_crc32c

from localcloud.service import Refused

TABLES = """
    CREATE TABLE IF NOT EXISTS buckets (name TEXT PRIMARY KEY, resource TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS objects (
        bucket TEXT NOT NULL, name TEXT NOT NULL, generation INTEGER NOT NULL, metageneration INTEGER NOT NULL,
        created TEXT NOT NULL, size INTEGER NOT NULL, md5 TEXT NOT NULL, crc32c TEXT NOT NULL, metadata TEXT NOT NULL,
        PRIMARY KEY (bucket, name)
    );
"""
COLUMNS = "bucket, name, generation, metageneration, created, size, md5, crc32c, metadata"


@dataclass(frozen=True)
class Stored:
    """One generation of an object."""

    bucket: str
    name: str
    generation: int
    metageneration: int
    created: str
    size: int
    md5: str
    crc32c: str
    metadata: Mapping[str, Any]  # what was said of it: contentType, metadata, ...


@dataclass(frozen=True)
class Condition:
    """What must hold of the generation that is there, else nothing is done."""

    generation: int | None = None  # 0: there must be none
    generation_not: int | None = None
    metageneration: int | None = None
    metageneration_not: int | None = None

    def check(self, found: Stored | None, *, reading: bool = False) -> None:
        """Raises Refused."""
        if self.generation is not None and self.generation != (found.generation if found else 0):
            raise _unmet()
        if self.metageneration is not None and (found is None or self.metageneration != found.metageneration):
            raise _unmet()
        for unwanted, there in (
            (self.generation_not, found.generation if found else 0),
            (self.metageneration_not, found.metageneration if found else 0),
        ):
            if unwanted is not None and unwanted == there:
                raise Refused("notModified", "Not Modified", 304) if reading else _unmet()


class StoredObjects:
    """All buckets and their objects. One thread at a time changes anything."""

    def __init__(self, folder: Path) -> None:
        self._content = folder / "content"
        self._content.mkdir(parents=True, exist_ok=True)
        self._lock = threading.RLock()
        self._index = sqlite3.connect(folder / "index.db", check_same_thread=False, isolation_level=None)
        self._index.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;" + TABLES)
        newest = self._index.execute("SELECT max(generation) FROM objects").fetchone()[0]
        self._generation = newest or 0

    def close(self) -> None:
        with self._lock:
            self._index.close()

    # What the cloud itself asks, by URI.

    def read(self, uri: str) -> bytes:
        with self._lock:  # else it might be replaced between the two
            return self.path(uri).read_bytes()

    def write(self, uri: str, content: bytes) -> None:
        bucket, name = split(uri)
        self.put(bucket, name, content, {"contentType": "application/octet-stream"}, Condition())

    def keys(self, prefix: str) -> list[str]:
        bucket, begin = split(prefix)
        return [f"gs://{bucket}/{found.name}" for found in self.listed(bucket, begin)]

    def matching(self, pattern: str) -> list[str]:
        begin, *rest = pattern.split("*")
        wanted = re.compile(".*".join(re.escape(part) for part in [begin, *rest]), re.DOTALL)
        return [uri for uri in self.keys(begin) if wanted.fullmatch(uri)]

    def delete(self, uri: str) -> None:
        bucket, name = split(uri)
        if self.find(bucket, name):
            self.remove(bucket, name, Condition())

    def path(self, uri: str) -> Path:
        found = self.find(*split(uri))
        if found is None:
            raise FileNotFoundError(uri)
        return self.file(found)

    # What clients ask.

    def file(self, stored: Stored) -> Path:
        return self._content / str(stored.generation)

    def bucket(self, name: str) -> dict[str, Any]:
        """Raises Refused if there is none."""
        with self._lock:
            row = self._index.execute("SELECT resource FROM buckets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise Refused("notFound", "The specified bucket does not exist.", 404)
        resource: dict[str, Any] = json.loads(row[0])
        return resource

    def buckets(self) -> list[str]:
        with self._lock:
            return [name for (name,) in self._index.execute("SELECT name FROM buckets ORDER BY name")]

    def add_bucket(self, name: str, resource: Mapping[str, Any]) -> None:
        with self._lock:
            try:
                self._index.execute("INSERT INTO buckets VALUES (?, ?)", (name, json.dumps(resource)))
            except sqlite3.IntegrityError:
                said = "Your previous request to create the named bucket succeeded and you already own it."
                raise Refused("conflict", said, 409) from None

    def find(self, bucket: str, name: str) -> Stored | None:
        with self._lock:
            found = self._index.execute(f"SELECT {COLUMNS} FROM objects WHERE bucket = ? AND name = ?", (bucket, name)).fetchone()
        return _stored(found) if found else None

    def listed(self, bucket: str, prefix: str = "") -> Iterator[Stored]:
        """The objects whose names begin so, in the order of their names' bytes."""
        with self._lock:
            rows = self._index.execute(
                f"SELECT {COLUMNS} FROM objects WHERE bucket = ? AND substr(name, 1, ?) = ? AND name >= ? ORDER BY name",
                (bucket, len(prefix), prefix, prefix),
            ).fetchall()
        return map(_stored, rows)

    def put(self, bucket: str, name: str, content: bytes, metadata: Mapping[str, Any], condition: Condition) -> Stored:
        """A new generation of an object.

        Raises:
            Refused: if the bucket is not there, or the condition does not hold; nothing is changed then.
        """
        self.bucket(bucket)
        _check_name(name)
        md5, crc32c = digests(content)
        with self._changing():
            before = self.find(bucket, name)
            condition.check(before)
            self._generation = max(self._generation + 1, time.time_ns() // 1000)
            created = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            made = Stored(bucket, name, self._generation, 1, created, len(content), md5, crc32c, metadata)
            self.file(made).write_bytes(content)
            self._index.execute(
                f"INSERT OR REPLACE INTO objects ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (bucket, name, made.generation, 1, created, made.size, md5, crc32c, json.dumps(metadata)),
            )
        self._forget(before)
        return made

    def remove(self, bucket: str, name: str, condition: Condition) -> None:
        """Raises Refused if there is none, or the condition does not hold."""
        with self._changing():
            found = self.find(bucket, name)
            condition.check(found)
            if found is None:
                self.bucket(bucket)
                raise missing(bucket, name)
            self._index.execute("DELETE FROM objects WHERE bucket = ? AND name = ?", (bucket, name))
        self._forget(found)

    def _forget(self, stored: Stored | None) -> None:
        """The content of what is not in the index any more."""
        if stored:
            with self._lock:
                self.file(stored).unlink(missing_ok=True)

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """All of what is done inside, or nothing."""
        with self._lock:
            self._index.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._index.execute("ROLLBACK")
                raise
            self._index.execute("COMMIT")


def split(uri: str) -> tuple[str, str]:
    """Bucket and name of a gs:// URI. Raises ValueError."""
    if not uri.startswith("gs://"):
        raise ValueError(f"{uri!r} must begin with gs://")
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name


def digests(content: bytes) -> tuple[str, str]:
    """MD5 and CRC32C as Cloud Storage writes them."""
    md5 = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(md5).decode(), base64.b64encode(google_crc32c.value(content).to_bytes(4, "big")).decode()


def missing(bucket: str, name: str) -> Refused:
    return Refused("notFound", f"No such object: {bucket}/{name}", 404)


def _check_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= 1024 or "\r" in name or "\n" in name or name in (".", ".."):
        raise Refused("invalid", f"The specified object name is not valid: {name[:100]!r}")


def _stored(row: tuple[Any, ...]) -> Stored:
    members = dict(zip(COLUMNS.split(", "), row, strict=True))
    return Stored(**{**members, "metadata": json.loads(members["metadata"])})


def _unmet() -> Refused:
    return Refused("conditionNotMet", "At least one of the pre-conditions you specified did not hold.", 412)
