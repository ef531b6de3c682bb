"""The lake on S3. The same folders as on a laptop, and what readers see is a table of the Glue catalog.

source/<table>/partition_date=2013-04-01/*.parquet, _SUCCESS        what has landed; the marker comes last
staging/<model>/2013-04-01/<run>/                                   what a run is working on; nobody reads it
versions/<model>/partition_date=2013-04-01/<run>-<digest>/          predictions; readers see those the catalog points at
training/, models/, evaluations/, monitoring/, label_queue/, ledger/
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from botocore.exceptions import ClientError

from include import partitions
from include.config import ModelConfig
from include.platforms.aws.clients import client
from include.platforms.aws.settings import aws
from include.platforms.base import SourceMissing

log = logging.getLogger(__name__)

MARKER = "_SUCCESS"


@dataclass(frozen=True)
class Object:
    uri: str
    size: int
    etag: str  # of its content, except for uploads in parts

    @property
    def name(self) -> str:
        return self.uri.rpartition("/")[2]


def place(*names: str) -> str:
    """A URI in the lake."""
    return "/".join((aws().lake, *names))


def partition_folder(kind: str, name: str, partition: date) -> str:
    return place(kind, name, f"partition_date={partition.isoformat()}")


def workspace(model: str, run: dict[str, Any], *names: str) -> str:
    """Where one run works. Named by a digest: a run id is free text that a caller chose."""
    partition, name = partitions.parse(run["partition"]), run["workspace"]
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise ValueError(f"{name!r} is no workspace")
    return place("staging", model, partition.isoformat(), name, *names)


def marker(model: ModelConfig, partition: date) -> str:
    return f"{partition_folder('source', model.source.table, partition)}/{MARKER}"


def objects(folder: str) -> list[Object]:
    """All objects below a folder, by name."""
    bucket, prefix = _split(f"{folder}/")
    pages = _client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [
        Object(f"s3://{bucket}/{one['Key']}", one["Size"], one["ETag"].strip('"'))
        for page in pages
        for one in page.get("Contents", [])
    ]


def data(folder: str) -> list[Object]:
    """The objects that a query reads: a name that begins with _ or . is not data."""
    return [one for one in objects(folder) if not one.name.startswith(("_", "."))]


def digest(found: Collection[Object]) -> str:
    """Changes whenever an object does."""
    facts = sorted(f"{one.uri} {one.size} {one.etag}" for one in found)
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def read(uri: str) -> bytes:
    """
    Raises:
        FileNotFoundError: if it is not there.
    """
    bucket, key = _split(uri)
    try:
        content: bytes = _client().get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        if error.response["Error"]["Code"] in ("NoSuchKey", "404"):
            raise FileNotFoundError(f"{uri}: is not there") from None
        raise
    return content


def sha256(uri: str) -> str:
    """Of an object's content, which is streamed."""
    bucket, key = _split(uri)
    found = hashlib.sha256()
    for chunk in _client().get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(1 << 20):
        found.update(chunk)
    return found.hexdigest()


def write(uri: str, content: bytes) -> None:
    bucket, key = _split(uri)
    _client().put_object(Bucket=bucket, Key=key, Body=content, **encryption())


def write_json(uri: str, document: Any) -> None:
    write(uri, json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode())


def copy(source: str, target: str) -> None:
    """Within S3; any size."""
    bucket, key = _split(target)
    from_bucket, from_key = _split(source)
    _client().copy({"Bucket": from_bucket, "Key": from_key}, bucket, key, ExtraArgs=encryption())


def remove(folder: str) -> None:
    """All that is below a folder of what can be made again.

    Raises:
        ValueError: for any other place: what has landed, was learned from or decided is never removed here.
    """
    if (
        not re.fullmatch(rf"{re.escape(aws().lake)}/(staging|versions|shadow|label_queue|monitoring)/\S+/\S+", folder)
        or ".." in folder
    ):
        raise ValueError(f"{folder}: is no place for what is temporary")
    for one in objects(folder):
        bucket, key = _split(one.uri)
        _client().delete_object(Bucket=bucket, Key=key)


def exists(uri: str) -> bool:
    bucket, key = _split(uri)
    try:
        _client().head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
            return False
        raise
    return True


def encryption() -> dict[str, str]:
    """Arguments of a put; without a key of one's own the bucket's default holds."""
    return {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": aws().kms_key} if aws().kms_key else {}


def has_landed(table: str, partition: date) -> bool:
    return exists(f"{partition_folder('source', table, partition)}/{MARKER}")


def days_landed(table: str) -> list[date]:
    """The partitions of a source table whose marker is there, in order."""
    return sorted(day for day, found in _by_day(table) if any(one.name == MARKER for one in found))


def fingerprint(model: ModelConfig, partition: date, also: Collection[str] = ()) -> str:
    """Changes whenever an object of the partition does, in the entity table, a lookup or one of the tables in `also`.

    Raises:
        SourceMissing: if the partition has no marker.
    """
    if not has_landed(model.source.table, partition):
        raise SourceMissing(
            f"{model.source.table}: partition {partition} has not landed: {marker(model, partition)} is not there"
        )
    names = (model.source.table, *model.source.lookups, *also)
    return digest([one for name in names for one in objects(partition_folder("source", name, partition))])


def fingerprints(model: ModelConfig, also: Collection[str] = ()) -> dict[date, str]:
    """Of every partition that has landed: what `fingerprint` says, with one listing for each table."""
    names = (model.source.table, *model.source.lookups, *also)
    found: dict[date, list[Object]] = defaultdict(list)
    complete = set()
    for name in names:
        for day, there in _by_day(name):
            found[day] += there
            if name == model.source.table and any(one.name == MARKER for one in there):
                complete.add(day)
    return {day: digest(found[day]) for day in sorted(complete)}


def _by_day(table: str) -> Iterator[tuple[date, list[Object]]]:
    found: dict[date, list[Object]] = defaultdict(list)
    for one in objects(place("source", table)):
        match = re.search(r"/partition_date=([^/]+)/[^/]+$", one.uri)
        try:
            if match:
                found[partitions.parse(match[1])].append(one)
        except partitions.NoPartition:
            log.warning("%s is ignored: the folder of a partition is named like partition_date=2013-04-01", one.uri)
    yield from found.items()


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def _client() -> Any:
    return client("s3")
