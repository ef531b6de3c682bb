"""What the ledger says was published: the fold that other tasks ask."""

from __future__ import annotations

from datetime import date
from typing import Any

from include import ledger
from include.config import ModelConfig

VERDICT, MATURED = "monitoring_verdict", "matured_quality"


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


def verdicts(model: str) -> dict[str, dict[str, Any]]:
    """The last verdict of monitoring on every partition, by partition key."""
    last: dict[str, dict[str, Any]] = {}
    for record in ledger.read(VERDICT, model):
        known = last.get(record.body["partition"])
        if known is None or known["publication"] <= record.body["publication"]:
            last[record.body["partition"]] = record.body
    return last


def matured_key(partition: date, version: str) -> str:
    """The ledger's name for what was first known of a day of a version, when its labels had come."""
    return f"{partition}.v{int(version)}"


def record_attempt(model: ModelConfig, run: dict[str, Any], source: str) -> None:
    """An ordinary run is about to predict a partition from this state of its source."""
    if run["model_choice"] == "champion" and not run["dry_run"]:
        body = {"partition": run["partition"], "run_id": run["run_id"], "source": source}
        ledger.append("attempt", model.name, f"{run['partition']}.{run['workspace']}.{source}", body)


def attempts(model: str, partition: date, source: str) -> list[str]:
    """Ids of the ordinary runs that were to predict a partition from this state of its source."""
    records = ledger.read("attempt", model, prefix=f"{partition.isoformat()}.")
    return [record.body["run_id"] for record in records if record.body["source"] == source]


def record_failed_checks(model: str, run: dict[str, Any], stage: str, failed: list[str]) -> None:
    """The data of a partition did not pass its checks in a run; `failed` says what did not hold, in sentences."""
    body = {
        "partition": run["partition"],
        "origin": run["origin"],
        "run_id": run["run_id"],
        "stage": stage,
        "failed": failed[:10],
    }
    ledger.append("failed_checks", model, f"{run['partition']}.{run['workspace']}.{stage}", body)


def failed_in_a_row(model: str) -> list[ledger.Record]:
    """The newest partitions that were tried, as far as the features or predictions of each failed their checks and nothing
    of it was published since; oldest first, one record each.

    What fails already in the source is broken data and no reason to learn from it: such a partition ends the row.
    """
    done = set(published(model))
    tried = sorted({record.body["partition"] for record in ledger.read("attempt", model)}, reverse=True)
    failed = {record.body["partition"]: record for record in ledger.read("failed_checks", model)}
    row: list[ledger.Record] = []
    for partition in tried:
        record = failed.get(partition)
        if partition in done or record is None or record.body["stage"] == "source":
            break
        row.append(record)
    return row[::-1]
