"""What was published of each partition: versions counted from 1 in the ledger, one writer each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from include import ledger
from include.config import ModelConfig

KIND = "publication"


def history(model: str, partition: date | None = None) -> list[ledger.Record]:
    """Publication records in the order of their versions; of one partition, or of all."""
    records = ledger.read(KIND, model, prefix=f"{partition.isoformat()}." if partition else "")
    return sorted(records, key=lambda record: (record.body["partition"], record.body["version"]))


def record(model: ModelConfig, partition: date, digest: str, location: str, facts: Mapping[str, Any]) -> int:
    """The version of what is published now: the next one, or that of the last record if it says the same already.

    Raises:
        RuntimeError: if another writer came first.
    """
    before = history(model.name, partition)
    if before and before[-1].body["digest"] == digest:
        return int(before[-1].body["version"])
    version = before[-1].body["version"] + 1 if before else 1
    body = {**facts, "partition": partition.isoformat(), "version": version, "digest": digest, "location": location}
    if not ledger.append("publication", model.name, f"{partition.isoformat()}.v{version:05d}", body):
        raise RuntimeError(f"{model.name}: version {version} of partition {partition} was recorded by another writer meanwhile")
    return version


def to_restore(model: ModelConfig, partition: date, by: str) -> dict[str, Any]:
    """The record, before the present one, of what is to be seen again, as it is to be recorded.

    Raises:
        LookupError: if there is none.
    """
    published = history(model.name, partition)
    if not published:
        raise LookupError(f"{model.name}: partition {partition} was never published")
    live = published[-1].body
    before = next((each.body for each in reversed(published) if each.body["digest"] != live["digest"]), None)
    if before is None:
        raise LookupError(f"{model.name}: partition {partition} has only one version: there is nothing to put back")
    # What has landed counts as dealt with: the next arrival must not undo what a person has just put back.
    return {**before, "source": live["source"], "origin": "restore", "restored_by": by}
