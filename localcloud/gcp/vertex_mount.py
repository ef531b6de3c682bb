"""The folder that stands for /gcs, where Vertex AI shows a training container all buckets as Cloud Storage FUSE does."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from localcloud.gcp.service import Objects
from localcloud.jobs import JobFailed

Seen = tuple[int, int, int]


class Mount:
    """A copy of all objects, made when a job starts; what the program changes becomes objects when it ends.

    A copy, not links: a program that opens a file to write it would write into the bucket's own.
    """

    def __init__(self, objects: Objects, folder: Path, say: Callable[[str], None]) -> None:
        self.folder = folder
        self._objects, self._say = objects, say
        self._seen: dict[str, Seen] = {}

    def fill(self) -> None:
        self.folder.mkdir(parents=True)
        buckets = self._objects.buckets()
        for bucket in buckets:
            (self.folder / bucket).mkdir()
        for uri in (uri for bucket in buckets for uri in self._objects.keys(f"gs://{bucket}/")):
            path = self._path(uri)
            if path is None:
                continue
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # An object that is deleted meanwhile is not there.
                with suppress(FileNotFoundError):
                    shutil.copyfile(self._objects.path(uri), path)
                    self._seen[uri] = _seen(path)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                self._say(f"/gcs: {uri} is an object and a folder of objects at once: only one of them is there")

    def publish(self) -> None:
        """Raises JobFailed if something was written where no bucket is."""
        there = {f"gs://{path.relative_to(self.folder).as_posix()}": path for path in self._files()}
        for uri, path in there.items():
            if self._seen.get(uri) == _seen(path):
                continue
            if "/" not in uri.removeprefix("gs://"):
                raise JobFailed(f"/gcs/{path.name}: Input/output error: a file must be in a bucket")
            try:
                self._objects.write(uri, path.read_bytes())
            except Exception as error:
                raise JobFailed(f"/gcs/{uri.removeprefix('gs://')}: Input/output error: {error}") from None
        for uri in self._seen.keys() - there.keys():
            with suppress(FileNotFoundError):
                self._objects.delete(uri)

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink())

    def _path(self, uri: str) -> Path | None:
        parts = uri.removeprefix("gs://").split("/")
        if not parts[-1]:
            return None  # the marker of a folder
        if any(part in ("", ".", "..") for part in parts):
            self._say(f"/gcs: {uri} is left out: a part of its name is empty, . or .., which no file can be")
            return None
        return self.folder.joinpath(*parts)


def _seen(path: Path) -> Seen:
    now = path.stat()
    return now.st_ino, now.st_size, now.st_mtime_ns
