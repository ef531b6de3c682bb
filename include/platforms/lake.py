"""The local lake: Parquet in folders, one file per partition, replaced by an atomic rename.

    source/<table>/partition_date=2013-04-01/data.parquet, _SUCCESS     what has landed; the marker comes last
    staging/<model>/2013-04-01/<run>/                                   what a run is working on; nobody reads it
    versions/<model>/partition_date=2013-04-01/<digest>.parquet         what was ever live, the last few
    predictions/<model>/partition_date=2013-04-01/data.parquet          what readers see
    quarantine/<model>/partition_date=2013-04-01/data.parquet           rows that were not scored, and why

No server and no lock for readers: a file that is being read stays readable when its name is given to another.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

from include import partitions, publications
from include.config import ModelConfig, settings
from include.core.files import replacing, sha256_of
from include.platforms.base import Publication, SourceMissing

log = logging.getLogger(__name__)

MARKER = "_SUCCESS"
DATA = "data.parquet"
KEPT_VERSIONS = 5


def partition_folder(kind: str, name: str, partition: date) -> Path:
    """Folder of one partition, e.g. of kind `source` and table `flights`."""
    return _of_partition(settings().lake, kind, name, partition)


def _of_partition(root: Path, kind: str, name: str, partition: date) -> Path:
    return root / kind / name / f"partition_date={partition.isoformat()}"


def table_files(table: str) -> str:
    """Glob of all files of a source table, partitioned or not."""
    return str(settings().lake / "source" / table / "**" / "*.parquet")


def is_partitioned(table: str) -> bool:
    return any((settings().lake / "source" / table).glob("partition_date=*"))


def workspace(model: str, run: dict[str, Any]) -> Path:
    """Where one run works. Named by a digest: a run id is free text that a caller chose."""
    partition, name = partitions.parse(run["partition"]), run["workspace"]
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise ValueError(f"{name!r} is no workspace")
    return settings().lake / "staging" / model / partition.isoformat() / name


def has_landed(table: str, partition: date) -> bool:
    return (partition_folder("source", table, partition) / MARKER).is_file()


def landed(model: ModelConfig) -> dict[date, str]:
    """Fingerprint of every partition whose marker is there."""
    found = {}
    for partition in days_landed(model.source.table):
        try:
            found[partition] = fingerprint(model, partition)
        except (SourceMissing, FileNotFoundError):
            continue  # it is landing again at this moment; its marker comes last
    return found


def days_landed(table: str) -> list[date]:
    """The partitions of a source table whose marker is there, in order. No file but the markers is looked at."""
    found = []
    for marker in (settings().lake / "source" / table).glob(f"partition_date=*/{MARKER}"):
        try:
            found.append(partitions.parse(marker.parent.name.removeprefix("partition_date=")))
        except partitions.NoPartition:
            log.warning("%s is ignored: the folder of a partition is named like partition_date=2013-04-01", marker.parent)
    return sorted(found)


def fingerprint(model: ModelConfig, partition: date, also: Collection[str] = ()) -> str:
    """Changes whenever a file of the partition does, in the entity table or the same day of a lookup or of the tables in `also`.

    Names, sizes and times, as an object store's listing has them: reading a year of files at each wake-up would not do.

    Raises:
        SourceMissing: if the partition has no marker.
    """
    folders = [partition_folder("source", table, partition) for table in (model.source.table, *model.source.lookups, *also)]
    if not has_landed(model.source.table, partition):
        raise SourceMissing(f"{model.source.table}: partition {partition} has not landed: {folders[0] / MARKER} is not there")
    facts = []
    for folder in folders:
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            stat = file.stat()
            facts.append(f"{folder.parent.name}/{file.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]


def publish(model: ModelConfig, partition: date, predictions: Path, quarantine: Path, facts: dict[str, Any]) -> Publication:
    """Show the staged files to readers, and record it. Killed anywhere, a second call completes the first.

    Order: keep the new files under their digest; show them; record. Readers see the old partition or the new one,
    never half of one, and the version before stays under versions/.
    """
    with _one_writer(model.name, partition):
        digest = sha256_of(predictions)[:16]
        kept = partition_folder("versions", model.name, partition)
        _link(predictions, kept / f"{digest}.parquet")
        _link(quarantine, kept / f"{digest}.quarantine.parquet")
        return _show(model, partition, digest, facts)


def restore(model: ModelConfig, partition: date, by: str) -> Publication:
    """Put back what readers saw before the present version. A second call goes back to the present one.

    Raises:
        LookupError: if there is no earlier version, or it is no longer kept.
    """
    with _one_writer(model.name, partition):
        facts = publications.to_restore(model, partition, by)
        kept = partition_folder("versions", model.name, partition) / f"{facts['digest']}.parquet"
        if not kept.is_file() or sha256_of(kept)[:16] != facts["digest"]:
            raise LookupError(f"{model.name}: version {facts['digest']} of partition {partition} is gone or damaged: {kept}")
        return _show(model, partition, facts["digest"], facts)


def version_file(root: Path, model: str, partition: date, digest: str) -> Path:
    """Where a lake keeps a version of what is published."""
    return _of_partition(root, "versions", model, partition) / f"{digest}.parquet"


def show(model: str, partition: date, digest: str) -> Path:
    """Let readers see a version that is kept; the file they see."""
    kept = version_file(settings().lake, model, partition, digest)
    live = partition_folder("predictions", model, partition) / DATA
    _link(kept.with_suffix(".quarantine.parquet"), partition_folder("quarantine", model, partition) / DATA)
    _link(kept, live)
    return live


def _show(model: ModelConfig, partition: date, digest: str, facts: dict[str, Any]) -> Publication:
    live = show(model.name, partition, digest)
    version = publications.record(model, partition, digest, str(live), facts)
    digests = [record.body["digest"] for record in publications.history(model.name, partition)]
    _prune(partition_folder("versions", model.name, partition), digests)
    return Publication(partition.isoformat(), version, digest, facts["rows_scored"], str(live))


def _prune(kept: Path, digests: list[str]) -> None:
    """Forget all but the newest versions. Files that no record names are left: another writer may be about to show them."""
    recent = set(list(dict.fromkeys(reversed(digests)))[:KEPT_VERSIONS])
    for digest in set(digests) - recent:
        (kept / f"{digest}.parquet").unlink(missing_ok=True)
        (kept / f"{digest}.quarantine.parquet").unlink(missing_ok=True)


@contextmanager
def _one_writer(model: str, partition: date) -> Iterator[None]:
    """One writer per partition. The kernel lets go of the lock when its holder dies."""
    path = settings().lake / "locks" / model / f"{partition.isoformat()}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _link(source: Path, target: Path) -> None:
    """Give a file a second name in one step, replacing whatever has that name."""
    with replacing(target) as draft:
        draft.unlink()
        try:
            os.link(source, draft)
        except OSError:  # a file system without links
            shutil.copyfile(source, draft)
