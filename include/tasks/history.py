"""What the ledger says was published: the fold that other tasks ask."""

from __future__ import annotations

from datetime import date

from include import ledger


def published(model: str) -> dict[str, ledger.Record]:
    """The present publication of every partition, by partition key."""
    current: dict[str, ledger.Record] = {}
    for record in ledger.read("publication", model):
        partition = record.body["partition"]
        if partition not in current or record.body["version"] > current[partition].body["version"]:
            current[partition] = record
    return current


def before(model: str, partition: date, count: int = 7) -> list[ledger.Record]:
    """The present publications of the last partitions before a day, nearest last."""
    earlier = sorted((key, record) for key, record in published(model).items() if key < partition.isoformat())
    return [record for _, record in earlier[-count:]]
