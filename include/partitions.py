"""Which partition is a run about? The one place that answers, for every kind of run.

A partition is a calendar day. Cron and backfill runs carry it as Airflow's partition key, runs that another DAG
starts carry it in their conf, a person types it into the trigger form. Nothing here reads the clock.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from typing import Any

KEY_FORMAT = "%Y-%m-%d"
MAX_RANGE = 366


class NoPartition(ValueError):
    """The run is about no partition, or about one that cannot be; the message says what to do."""


def parse(key: object) -> date:
    """The day that a partition key names. Only the form 2013-04-01 is taken: what passes here may stand in a path.

    Raises:
        NoPartition: for anything else, also for a key with a line break or non-ASCII digits around it.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", key):
        raise NoPartition(f"{key!r} is no partition: write a day as YYYY-MM-DD")
    try:
        return date.fromisoformat(key)
    except ValueError as error:
        raise NoPartition(f"{key!r} is no partition: {error}") from None


def refuse_unknown_conf(dag_run: Any, *known: str) -> None:
    """Refuse a run whose conf has keys that its DAG does not know: a typing error would be taken for the default.

    The form is checked by the UI; a conf that comes by API or CLI is only as good as this.

    Raises:
        ValueError: naming them, and those that are known.
    """
    if unknown := sorted(set(dag_run.conf or {}) - {*known, "openlineage"}):
        raise ValueError(f"the run's conf has unknown keys {', '.join(map(repr, unknown))}: known are {', '.join(sorted(known))}")


def partition_of(dag_run: Any, params: Mapping[str, Any]) -> date:
    """The (first) day a run is about: its partition key, or the form's `partition` (which conf overrides).

    Raises:
        NoPartition: if the run names none, or names two different ones.
    """
    key, typed = dag_run.partition_key, params.get("partition")
    if key and typed and key != typed:
        raise NoPartition(f"the run has partition key {key!r} and param partition {typed!r}: give only one of them")
    if not (key or typed):
        raise NoPartition(
            "the run is about no partition: fill in the field partition of the trigger form (or Partition Key under "
            "Advanced Options), or start a backfill for a range of days"
        )
    return parse(key or typed)


def partitions_of(dag_run: Any, params: Mapping[str, Any]) -> list[date]:
    """All days a run is about: one, or the range up to the form's `last_partition`.

    Raises:
        NoPartition: as `partition_of`, or for a range that is empty or longer than a year.
    """
    first = partition_of(dag_run, params)
    last = parse(params["last_partition"]) if params.get("last_partition") else first
    if last < first:
        raise NoPartition(f"last_partition {last} is before partition {first}")
    if (last - first).days >= MAX_RANGE:
        raise NoPartition(f"{first} to {last} is more than {MAX_RANGE} partitions: start several ranges")
    return list(days(first, last))


def training_day_of(dag_run: Any, params: Mapping[str, Any]) -> date:
    """The day a training run is as of: it may use nothing that became known later.

    The form's `as_of`, else the day of the cron tick. A run started by hand without either is refused: "today" would
    make the same run learn something else when it is retried tomorrow.

    Raises:
        NoPartition: if the run names no day.
    """
    if params.get("as_of"):
        return parse(params["as_of"])
    if dag_run.logical_date is not None:
        return dag_run.logical_date.date()
    raise NoPartition("the run has no day: fill in the field as_of of the trigger form")


def origin_of(dag_run: Any) -> str:
    """Who asked: scheduled, backfill, arrival, range, retraining, rollback, manual. It travels with what the run publishes."""
    asked = (dag_run.conf or {}).get("origin")
    if asked in ("arrival", "range", "retraining", "rollback"):
        return asked
    kind = getattr(dag_run.run_type, "value", str(dag_run.run_type))
    return {"backfill": "backfill", "scheduled": "scheduled"}.get(kind, "manual")


def workspace_of(dag_run: Any) -> str:
    """A name for what a run works on, the same at each try: 16 hex digits, as a run id is free text that a caller chose."""
    return hashlib.sha256(f"{dag_run.dag_id}/{dag_run.run_id}".encode()).hexdigest()[:16]


def days(first: date, last: date) -> Iterator[date]:
    """Every day from first to last, both included."""
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)
