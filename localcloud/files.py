"""S3 seen as folders: the objects that were asked for, below `<folder>/s3/<bucket>/<key>`."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

from boto3.exceptions import S3UploadFailedError

from localcloud.service import own_client


class Unusable(ValueError):
    """A bucket that is not there, or a key that no path can stand for; the message names it."""


class Files:
    """A mirror of S3, kept in step by ETag and size.

    A file appears whole or not at all. What somebody has written below the mirror and not uploaded yet is left alone.
    """

    def __init__(self, url: str, region: str, folder: Path) -> None:
        self.root = folder / "s3"
        shutil.rmtree(self.root, ignore_errors=True)  # S3 begins empty, and so does its mirror
        self.root.mkdir(parents=True)
        self._url, self._region = url, region
        self._seen: dict[str, tuple[str, int]] = {}  # uri: ETag and size of the file that is here
        self._lock = threading.RLock()

    @property
    def _s3(self) -> Any:
        return own_client("s3", self._url, self._region)

    def keys(self, uri: str) -> list[str]:
        """The URIs of all objects whose own begins so, in order. Folders' markers, whose name ends with /, are no objects."""
        return list(self._listed(uri))

    def sizes(self, uri: str) -> dict[str, int]:
        """The same, each with its size in bytes."""
        return {one: size for one, (_, size) in self._listed(uri).items()}

    def path(self, uri: str) -> Path:
        """Where the mirror has an object, or the objects below a prefix."""
        bucket, key = split(uri)
        if any(part in ("..", ".") for part in key.split("/")) or "//" in key or key.startswith("/"):
            raise Unusable(f"{uri}: a part of this key is empty, . or .., which no folder can be")
        return self.root / bucket / key

    def fetch(self, uri: str) -> Path:
        """Bring an object, or all below a prefix, into the mirror, and drop what is gone. The path of it."""
        with self._lock:
            now = self._listed(uri)
            for gone in [known for known in self._seen if known.startswith(uri) and known not in now]:
                self._forget(gone)
            for one, seen in now.items():
                if self._seen.get(one) != seen or not self.path(one).is_file():
                    self._bring(one, seen)
        path = self.path(uri)
        if not path.exists() and not now:
            path.mkdir(parents=True, exist_ok=True)
        return path

    def read(self, uri: str) -> bytes:
        """Raises FileNotFoundError if there is no such object."""
        bucket, key = split(uri)
        try:
            body: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except (self._s3.exceptions.NoSuchKey, self._s3.exceptions.NoSuchBucket):
            raise FileNotFoundError(uri) from None
        return body

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = split(uri)
        try:
            self._s3.put_object(Bucket=bucket, Key=key, Body=data)
        except self._s3.exceptions.NoSuchBucket:
            raise Unusable(f"{uri}: there is no such bucket") from None

    def upload(self, folder: Path, uri: str) -> list[str]:
        """Every file below a folder, below a prefix of S3. What was put there."""
        put = []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            one = f"{uri.rstrip('/')}/{path.relative_to(folder).as_posix()}"
            bucket, key = split(one)
            try:
                self._s3.upload_file(str(path), bucket, key)
            except S3UploadFailedError as error:
                raise Unusable(str(error)) from None
            put.append(one)
        return put

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        self._s3.delete_object(Bucket=bucket, Key=key)

    def reset(self) -> None:
        with self._lock:
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            self._seen.clear()

    def _listed(self, uri: str) -> dict[str, tuple[str, int]]:
        bucket, prefix = split(uri)
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        try:
            objects = [each for page in pages for each in page.get("Contents", ())]
        except self._s3.exceptions.NoSuchBucket:
            return {}
        return {f"s3://{bucket}/{each['Key']}": (each["ETag"], each["Size"]) for each in objects if not each["Key"].endswith("/")}

    def _bring(self, uri: str, seen: tuple[str, int]) -> None:
        path = self.path(uri)
        bucket, key = split(uri)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.parent / f".{path.name[:200]}.draft"
            self._s3.download_file(bucket, key, str(draft))
            draft.replace(path)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise Unusable(f"{uri}: is an object and a folder of objects at once, which no file system can hold") from None
        self._seen[uri] = seen

    def _forget(self, uri: str) -> None:
        path = self.path(uri)
        path.unlink(missing_ok=True)
        del self._seen[uri]
        # Empty folders would look like empty tables.
        for folder in path.parents:
            if folder == self.root or not folder.is_dir() or any(os.scandir(folder)):
                break
            folder.rmdir()


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of an s3:// URI."""
    if not uri.startswith("s3://"):
        raise Unusable(f"{uri!r} must begin with s3://")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
