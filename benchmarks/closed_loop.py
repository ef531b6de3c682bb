"""Does the gate pay? `python -m benchmarks.closed_loop [--policy frozen,always,ours] [--weeks 39]`

The flights of 2013 in their order, with the product's own functions: a first model as of 1 April, then each Monday a
challenger is tuned and trained on what was known that morning, and each policy decides whether it replaces its champion:

    frozen   never                                   the first model all year
    always   whatever was trained last               what a scheduled retraining without a gate does
    ours     what core.gates says, by the model.yaml

Each day is scored by the champion of that morning and judged by what happened. All policies choose among the same
challengers. Nothing here is chosen by looking at the months that are measured: the parameters are those of the
model.yaml, the rules of the gate come from the simulations of `benchmarks.gates`.

A release is harmful if the new champion's log loss over the next four weeks is higher than the old one's would have been.

Prints a table per policy and month and, last, one line of JSON: auc_*, logloss_*, releases_*, harmful_*.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from include.config import ModelConfig, load_model
from include.core import gates
from include.core.artifacts import predict
from include.core.comparison import side_by_side
from include.core.evaluation import evaluate, standard_error
from include.core.features import categories, encode
from include.core.training import Trained, train
from include.core.tuning import Space, tune

MODEL = "flight_delays"
FIRST_AS_OF = date(2013, 4, 1)
LAST_DAY = date(2013, 12, 31)
HARM_DAYS = 28


@dataclass(frozen=True)
class Challenger:
    """What was trained on a Monday, and its score of every row of the year, in the order of the rows."""

    as_of: date
    trained: Trained
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Year:
    """The rows of the year, ordered by day: features and label."""

    rows: pa.Table
    days: npt.NDArray[np.datetime64]
    labels: npt.NDArray[np.int64]

    def between(self, first: date, last: date) -> slice:
        """Where the rows of the days from first to last are, both included."""
        low, high = np.searchsorted(self.days, [np.datetime64(first), np.datetime64(last) + 1])
        return slice(int(low), int(high))


@dataclass(frozen=True)
class Release:
    as_of: date
    why: str
    harm: float  # of log loss over the next four weeks; above 0 the new champion was worse than the old one


@dataclass(frozen=True)
class Outcome:
    """`daily`: day → (AUC, log loss) of what was published."""

    policy: str
    daily: dict[date, tuple[float, float]]
    releases: list[Release]
    verdicts: dict[str, int]

    @property
    def auc(self) -> float:
        return float(np.mean([auc for auc, _ in self.daily.values()]))

    @property
    def log_loss(self) -> float:
        return float(np.mean([loss for _, loss in self.daily.values()]))

    @property
    def harmful(self) -> int:
        return sum(release.harm > 0 for release in self.releases)


Decision = Callable[[Challenger, Challenger], tuple[bool, str]]


def mondays(weeks: int) -> list[date]:
    return [day for week in range(1, weeks + 1) if (day := FIRST_AS_OF + timedelta(weeks=week)) <= LAST_DAY]


def the_year(model: ModelConfig, folder: Path) -> Year:
    """Land the year and make all its features and labels by the product's SQL."""
    from demo import simulator
    from include import queries
    from include.platforms import local_engine as engine

    lake = folder / "lake"
    os.environ["AILERON_LAKE"] = str(lake)
    simulator.land(lake, model.start, LAST_DAY)
    simulator.land_outcomes(lake, model.start, LAST_DAY)
    file = folder / "year.parquet"
    with engine.connected() as connection:
        query = queries.training_set(model, engine.DIALECT, engine.tables(model))
        engine.write(connection, query, {"first_partition": model.start, "last_partition": LAST_DAY}, file)
    rows = pq.read_table(file, partitioning=None)
    return Year(rows, rows["partition_date"].to_numpy(), rows["label"].to_numpy())


def challenger(model: ModelConfig, year: Year, as_of: date, trials: int) -> Challenger:
    """What train_<model> would have trained that morning: the same window, search and seed."""
    training, search = model.training, model.training.search
    last = as_of - timedelta(days=model.labels.delay_days)
    known = year.rows.slice(*_span(year.between(last - timedelta(days=training.window_days - 1), last)))
    numeric, categorical = model.features.numeric, model.features.categorical
    tuned = tune(
        known,
        model.task,
        numeric,
        categorical,
        "label",
        Space(tuple(search.windows), tuple(search.half_lives), training.max_trees),
        trials=trials,
        validation_days=search.validation_days,
        holdout_days=training.holdout_days,
        min_rows=training.min_rows,
        seed=training.seed,
    )
    trained = train(
        known,
        model.task,
        numeric,
        categorical,
        "label",
        tuned.parameters,
        holdout_days=training.holdout_days,
        min_rows=training.min_rows,
    )
    matrix, _ = encode(_one_batch(year.rows), trained.spec)
    return Challenger(as_of, trained, predict(trained.booster, matrix).astype(np.float64))


def by_the_gate(model: ModelConfig, year: Year) -> Decision:
    """What the gate of the model.yaml says of a challenger: the same evaluation, rules and holdout as in train_<model>."""
    coded = {name: categories(_one_batch(year.rows), name) for name in model.gate.slices}

    def decide(champion: Challenger, other: Challenger) -> tuple[bool, str]:
        seen = max(champion.trained.training.last, other.trained.training.last)
        held_out = year.between(seen + timedelta(days=1), other.as_of - timedelta(days=model.labels.delay_days))
        columns = {
            name: (pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False)[held_out], codes.dictionary.to_pylist())
            for name, codes in coded.items()
        }
        document = side_by_side(
            model.task,
            year.labels[held_out],
            champion.scores[held_out],
            other.scores[held_out],
            columns,
            model.prediction.decision_threshold,
            np.unique(year.days[held_out], return_inverse=True)[1],
        )
        days = year.days[held_out]
        document |= {"first": str(days[0]), "last": str(days[-1]), "data_changes": None}
        for role, one in (("challenger", other), ("champion", champion)):
            part = one.trained.training
            document[role] |= {
                "manifest_sha256": f"{one.as_of}",
                "trained_from": part.first.isoformat(),
                "trained_to": part.last.isoformat(),
                "training_rows": part.rows,
                "megabytes": len(one.trained.booster.save_raw("ubj")) / 1e6,
                "seconds_per_million": 1.0,
            }
        circumstances = gates.Circumstances(
            decay_confirmed=False,
            champion_age_days=(other.as_of - champion.trained.training.last).days,
            label_coverage=1.0,
            holdout_uses=0,
            artifact_checked=True,
        )
        verdict = gates.judge(document, model.gate_rules, circumstances)
        return verdict.outcome == "PROMOTE", verdict.outcome if verdict.outcome != "PROMOTE" else f"PROMOTE ({verdict.rule})"

    return decide


def replay(policy: str, decide: Decision, year: Year, challengers: Sequence[Challenger], last_day: date) -> Outcome:
    """A year under a policy; challengers[0] is the first champion of all of them."""
    champion, releases = challengers[0], list[Release]()
    verdicts: dict[str, int] = {}
    daily: dict[date, tuple[float, float]] = {}
    coming = list(challengers[1:])
    for offset in range((last_day - FIRST_AS_OF).days + 1):
        day = FIRST_AS_OF + timedelta(days=offset)
        if coming and coming[0].as_of == day:
            other = coming.pop(0)
            promoted, why = decide(champion, other)
            verdicts[why] = verdicts.get(why, 0) + 1
            if promoted:
                releases.append(Release(day, why, _harm(year, champion, other, day)))
                champion = other
        rows = year.between(day, day)
        measured = evaluate("classification", year.labels[rows], champion.scores[rows])
        if measured["auc"] is not None and measured["log_loss"] is not None:
            daily[day] = (measured["auc"], measured["log_loss"])
    return Outcome(policy, daily, releases, verdicts)


def _harm(year: Year, old: Challenger, new: Challenger, day: date) -> float:
    rows = year.between(day, min(day + timedelta(days=HARM_DAYS - 1), LAST_DAY))
    losses = [evaluate("classification", year.labels[rows], one.scores[rows])["log_loss"] for one in (old, new)]
    assert losses[0] is not None and losses[1] is not None
    return losses[1] - losses[0]


def run(policies: Sequence[str], weeks: int, trials: int | None, folder: Path) -> list[Outcome]:
    model = load_model(MODEL)
    year = the_year(model, folder)
    started, trained = time.monotonic(), []
    days = [FIRST_AS_OF, *mondays(weeks)]
    for number, as_of in enumerate(days, start=1):
        trained.append(challenger(model, year, as_of, trials or model.training.search.trials))
        print(f"trained {number} of {len(days)}: as of {as_of}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    known: dict[str, Decision] = {
        "frozen": lambda champion, other: (False, "never"),
        "always": lambda champion, other: (True, "always"),
        "ours": by_the_gate(model, year),
    }
    last_day = min(LAST_DAY, days[-1] + timedelta(days=6))
    return [replay(policy, known[policy], year, trained, last_day) for policy in policies]


def show(outcomes: Sequence[Outcome]) -> None:
    months = sorted({day.replace(day=1) for outcome in outcomes for day in outcome.daily})
    print(f"{'mean daily AUC':16}" + "".join(f"{month:%b}".rjust(8) for month in months) + "    year")
    for outcome in outcomes:
        means = [np.mean([auc for day, (auc, _) in outcome.daily.items() if day.replace(day=1) == month]) for month in months]
        print(f"{outcome.policy:16}" + "".join(f"{mean:8.4f}" for mean in means) + f"{outcome.auc:8.4f}")
    print(f"{'mean daily log loss':16}")
    for outcome in outcomes:
        means = [np.mean([loss for day, (_, loss) in outcome.daily.items() if day.replace(day=1) == month]) for month in months]
        print(f"{outcome.policy:16}" + "".join(f"{mean:8.4f}" for mean in means) + f"{outcome.log_loss:8.4f}")
    for outcome in outcomes:
        print(f"{outcome.policy}: {len(outcome.releases)} releases, {outcome.harmful} harmful; verdicts {outcome.verdicts}")
        if outcome.policy != "ours" and outcomes[-1].policy == "ours":
            difference, error = apart(outcomes[-1], outcome)
            print(f"  mean daily AUC of ours minus {outcome.policy}: {difference:+.4f}, standard error {error:.4f}")
        for release in outcome.releases if outcome.policy == "ours" else ():
            print(f"  {release.as_of} {release.why}: log loss of the next four weeks {release.harm:+.4f}")


def apart(one: Outcome, other: Outcome) -> tuple[float, float]:
    """The mean daily difference in AUC, and its standard error: days of a week depend on each other, weeks hardly do."""
    days = sorted(one.daily)
    differences = np.array([one.daily[day][0] - other.daily[day][0] for day in days])
    weeks = np.unique([(day - FIRST_AS_OF).days // 7 for day in days], return_inverse=True)[1]
    return float(differences.mean()), standard_error(differences, weeks) or 0.0


def figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for outcome in outcomes:
        found |= {
            f"auc_{outcome.policy}": round(outcome.auc, 4),
            f"logloss_{outcome.policy}": round(outcome.log_loss, 4),
            f"releases_{outcome.policy}": len(outcome.releases),
            f"harmful_{outcome.policy}": outcome.harmful,
        }
    return found


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    return rows.combine_chunks().to_batches()[0]


def _span(rows: slice) -> tuple[int, int]:
    return rows.start, rows.stop - rows.start


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closed_loop", description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default="frozen,always,ours")
    parser.add_argument("--weeks", type=int, default=39, help="Mondays after 1 April")
    parser.add_argument("--trials", type=int, help="parameter sets per search; the model.yaml's by default")
    asked = parser.parse_args()
    policies = asked.policy.split(",")
    if unknown := sorted(set(policies) - {"frozen", "always", "ours"}):
        sys.exit(f"--policy: {', '.join(unknown)} is not one of frozen, always, ours")
    with tempfile.TemporaryDirectory(prefix="closed-loop-") as folder:
        outcomes = run(policies, asked.weeks, asked.trials, Path(folder))
    show(outcomes)
    print(json.dumps(figures(outcomes)))


if __name__ == "__main__":
    main()
