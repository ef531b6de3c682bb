"""What monitor_<model> and label_<model> would say of a champion on a day of `benchmarks.closed_loop`.

Counts, sums and draws are made here, of rows in memory, where the product makes them by SQL of the lake; what decides are
the product's own functions, with the parameters of the model.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.closed_loop_world import Challenger, Year
from include import labelling
from include.config import ModelConfig
from include.core import alarms, drift, quality
from include.core.evaluation import evaluate
from include.core.features import categories
from include.core.profile import Profile, count
from include.core.training import importance

Columns = tuple[list[drift.Comparison], list[drift.PairComparison], list[drift.Fault]]


@dataclass
class Monitor:
    """Measures champions. What is kept was counted of single days, so it is the same whenever it is asked for."""

    model: ModelConfig
    year: Year
    losses_of: dict[date, dict[date, quality.DayLoss]] = field(default_factory=dict)
    cells_of: dict[date, dict[str, npt.NDArray[np.float64]]] = field(default_factory=dict)
    profiles: dict[tuple[date, date], Profile] = field(default_factory=dict)
    columns: dict[tuple[Any, ...], Columns] = field(default_factory=dict)
    outcomes: dict[tuple[date, date], tuple[float, float]] = field(default_factory=dict)

    def measured(self, one: Challenger, day: date) -> tuple[float, float]:
        """AUC and log loss of a model on a day, as it turned out."""
        if (one.as_of, day) not in self.outcomes:
            rows = self.year.between(day, day)
            found = evaluate(self.model.task, self.year.labels[rows], one.scores[rows])
            assert found["auc"] is not None and found["log_loss"] is not None  # each day has flights of both kinds
            self.outcomes[one.as_of, day] = (found["auc"], found["log_loss"])
        return self.outcomes[one.as_of, day]

    def matured(self, one: Challenger, published: Mapping[date, Challenger], day: date) -> list[date]:
        """The days of the last four weeks, up to those whose labels have come, that a champion has published and not learned
        from."""
        last = day - timedelta(days=self.model.labels.delay_days)
        within = (last - timedelta(days=back) for back in range(max(quality.WINDOWS)))
        return [past for past in within if published.get(past) is one and past > one.trained.holdout.last]

    def losses(self, one: Challenger, days: Sequence[date]) -> list[quality.DayLoss]:
        """What a model loses on days, and expects to."""
        known = self.losses_of.setdefault(one.as_of, {})
        for day in days:
            if day not in known:
                rows = self.year.between(day, day)
                pairs = zip(self.year.labels[rows].tolist(), one.scores[rows].tolist(), strict=True)
                sums = np.sum([quality.log_loss(label, score) for label, score in pairs], axis=0)
                known[day] = quality.DayLoss(day, rows.stop - rows.start, float(sums[0]), float(sums[1]))
        return [known[day] for day in days]

    def compared(self, one: Challenger, published: Mapping[date, Challenger], day: date, broken: Collection[date]) -> Columns:
        """Columns, pairs and faults of a day, as the task `compare` finds them."""
        first = max(self.model.start, day - timedelta(days=self.model.drift.history_days))
        usual = [past for past in _days(first, day) if past not in broken]
        scored = frozenset(past for past in usual if published.get(past) is one)
        key = (one.as_of, day, tuple(usual), scored)
        if key not in self.columns:
            days = {past: self._profile(one, past, past in scored) for past in usual}
            chosen = self.model.drift
            rules = drift.Rules(chosen.tolerance, chosen.false_alarms, chosen.min_rows)
            found = drift.compare(days, day, rules)
            sums = {past: self._pairs(one, past) for past in usual} if day.isoweekday() == 7 else {}
            pairs = drift.compare_pairs(sums, day, rules) if sums else []
            self.columns[key] = (found, pairs, drift.faults(days, day, found))
        return self.columns[key]

    def _profile(self, one: Challenger, day: date, scored: bool) -> Profile:
        """The counts of a day in the cells of a model; of its scores too, if it has published the day."""
        rows = self.year.between(day, day)
        key = (one.as_of, day)
        if key not in self.profiles:
            self.profiles[key] = count(self.year.part(rows), one.trained.reference["features"])
        if not scored:
            return self.profiles[key]
        scores = one.scores[rows]
        decisions = np.where(scores >= self.model.prediction.decision_threshold, "1", "0")
        batch = pa.RecordBatch.from_pydict({"score": pa.array(scores), "decision": pa.array(decisions, pa.string())})
        edges = one.trained.reference["score"]["edges"]
        cells = {"score": {"kind": "numeric", "edges": edges}, "decision": {"kind": "categorical", "values": ["0", "1"]}}
        return {**self.profiles[key], **count(batch, cells)}

    def _pairs(self, one: Challenger, day: date) -> dict[str, list[float]]:
        """Sums of a day over the cells' numbers of the most important features, two by two."""
        if one.as_of not in self.cells_of:
            share = importance(one.trained.booster, one.trained.spec.names)
            chosen = sorted(self.model.features.names, key=lambda name: -share[name])[: self.model.drift.pairs_of]
            reference = one.trained.reference["features"]
            self.cells_of[one.as_of] = {name: _cell_numbers(self.year.rows, name, reference[name]) for name in chosen}
        rows = self.year.between(day, day)
        cells = {name: numbers[rows] for name, numbers in self.cells_of[one.as_of].items()}
        return {f"{a} × {b}": _sums(cells[a], cells[b]) for a, b in combinations(cells, 2)}

    def drawn(
        self, one: Challenger, published: Mapping[date, Challenger], first: date, last: date, wanted: int
    ) -> tuple[list[dict[str, Any]], list[int]]:
        """Rows drawn for labelling with their answers, and which rows: as `label_sample` draws them, by day, band of scores and
        hash of the key. Answers land in no table, so the same question draws the same rows again."""
        edges = labelling.bands(one.trained.reference["score"]["edges"])
        each = max(1, wanted // (((last - first).days + 1) * (len(edges) + 1)))
        answers, places = [], []
        for day in _days(first, last):
            rows = self.year.between(day, day)
            if published.get(day) is not one:
                continue
            bands = np.searchsorted(edges, one.scores[rows], side="left")
            for band in range(len(edges) + 1):
                of_band = np.flatnonzero(bands == band) + rows.start
                for row in of_band[np.argsort(self.year.lots[of_band])][:each].tolist():
                    answer = {"score": float(one.scores[row]), "label": int(self.year.labels[row]), "population": len(of_band)}
                    answers.append({"partition": day, "band": band, **answer})
                    places.append(row)
        return answers, places


def verdict(
    monitor: Monitor,
    day: date,
    champion: Challenger,
    former: Challenger | None,
    published: Mapping[date, Challenger],
    earlier: Sequence[alarms.Earlier],
    labels_in_time: bool,
    may_ask: bool = True,
) -> alarms.Verdict:
    """The verdict of monitor_<model> on a day; `former` is the champion before, as long as the present one is on probation.

    Without labels in time nothing has matured, ever.
    """
    from include.tasks.monitoring import quality_rules  # here, as it brings Airflow along

    before = [each for each in earlier if each.partition < day]
    broken = {each.partition for each in before if each.outcome == "broken data"}
    comparisons, pairs, faults = monitor.compared(champion, published, day, broken)
    days = monitor.matured(champion, published, day) if labels_in_time else []
    rules, lost = quality_rules(monitor.model), monitor.losses(champion, days)
    measured = alarms.Measured(
        comparisons=comparisons,
        pairs=pairs,
        faults=faults,
        quality=quality.judge_decay(lost, rules),
        former=quality.judge_former(lost, monitor.losses(former, days), rules) if former else None,
        labels_in_time=labels_in_time,
    )
    return alarms.judge(day, measured, before, monitor.model.drift.cooldown_days, may_ask)


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


def _cell_numbers(rows: pa.RecordBatch, name: str, cells: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """The number of each row's cell, NaN where there is no value."""
    if cells["kind"] == "numeric":
        values = rows.column(name).cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.isnan(values), np.nan, np.searchsorted(cells["edges"], values, side="left"))
    coded = categories(rows, name)
    known = {value: number for number, value in enumerate(cells["values"])}
    numbers = np.array([*(known.get(value, len(known)) for value in coded.dictionary.to_pylist()), np.nan])
    return numbers[pc.fill_null(coded.indices, -1).to_numpy(zero_copy_only=False)]


def _sums(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> list[float]:
    both = ~np.isnan(a + b)
    a, b = a[both], b[both]
    return [float(len(a)), float(a.sum()), float(b.sum()), float(a @ a), float(b @ b), float(a @ b)]
