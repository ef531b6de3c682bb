"""What is counted of a partition, on every platform."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from itertools import groupby
from typing import Any

from include import monitoring_sql, partitions, publications
from include.config import ModelConfig
from include.core.files import json_bytes
from include.queries import Dialect


@dataclass(frozen=True)
class Counted:
    """All that the counts of a day depend on, besides its rows."""

    cells: dict[str, Any]
    score: dict[str, Any]
    version: str
    pairs: tuple[tuple[str, str], ...]
    sample: float

    @property
    def digest(self) -> str:
        return hashlib.sha256(json_bytes(asdict(self))).hexdigest()[:16]

    def query(
        self, model: ModelConfig, dialect: Dialect, tables: Mapping[str, str], predictions: str
    ) -> monitoring_sql.ProfileQuery:
        scored = monitoring_sql.Predictions(predictions, self.version, self.score)
        return monitoring_sql.profile(model, dialect, tables, self.cells, scored, self.pairs, self.sample)


def counted(model: ModelConfig, run: Mapping[str, Any], manifest: Mapping[str, Any]) -> Counted:
    """What a monitoring run counts, in the cells of the version that has scored its partition."""
    reference = manifest["reference"]
    return Counted(
        cells=reference["features"],
        score={"kind": "numeric", **reference["score"]},
        version=run["version"]["version"],
        pairs=tuple((a, b) for a, b in run["pairs"]),
        sample=model.drift.sample,
    )


def history_begins(model: ModelConfig, last: date) -> date:
    """The first day that a partition is compared with."""
    return max(model.start, last - timedelta(days=model.drift.history_days))


def states(model: ModelConfig, sources: Mapping[date, str]) -> dict[date, str]:
    """What changes whenever the counts of a day would: the source of the day, and what is published of it."""
    published = {record.body["partition"]: record.body["digest"] for record in publications.history(model.name)}
    return {day: f"{source}.{published.get(day.isoformat(), '-')}" for day, source in sources.items()}


def profiles(
    query: monitoring_sql.ProfileQuery, days: Sequence[date], names: Sequence[str], rows: Sequence[Sequence[Any]]
) -> dict[date, monitoring_sql.DayProfile]:
    """The answer by day. A day without rows is no row of the answer: its counts are zero, and that is worth knowing."""
    found = {profile.partition: profile for profile in (query.read(names, row) for row in rows)}
    nothing = {day: query.read(names, [day if name == "partition_date" else None for name in names]) for day in days}
    return {day: found.get(day, nothing[day]) for day in days}


def days_to_score_again(run: Mapping[str, Any], rows: Sequence[monitoring_sql.QualityRow]) -> list[date]:
    """The matured days that the version has scored and not learned from: the champion before is to score them too."""
    return sorted(
        row.partition
        for row in rows
        if row.slice == ""
        and row.model_version == run["version"]["version"]
        and row.labelled
        and row.partition > partitions.parse(run["trained_to"])
    )


def stretches(days: Sequence[date]) -> Iterator[list[date]]:
    """Days that follow each other without a gap, together: each stretch is one pass over the data."""
    for _, stretch in groupby(enumerate(days), key=lambda numbered: numbered[1].toordinal() - numbered[0]):
        yield [day for _, day in stretch]
