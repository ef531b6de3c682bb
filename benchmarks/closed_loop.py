"""Does the closed loop pay? `python -m benchmarks.closed_loop [--policy frozen,always,ours] [--weeks 39] [--hindsight]`

The flights of 2013 in their order, with the product's own functions: a first model as of 1 April, then each Monday a
challenger is tuned and trained on what was known that morning, and each policy decides whether it is trained at all, and
whether it replaces the champion:

    frozen       never                                    the first model all year
    always       each Monday, whatever was trained        what a scheduled retraining without a gate does
    weekly       each Monday, behind the gate             the default schedule of a model
    cron4        every 4 weeks, behind the gate
    cron         every N weeks, behind the gate           N such that from 1 April it trains at least as often as `ours`
    ours         monitoring day by day; behind the gate   decay of matured labels asks for a training, and 8 weeks without
                                                          one; a new champion that is shown to be worse is rolled back

And as if no labels came by themselves, so that those which judge the champion must be bought:

    fixed        300 rows each week, behind the gate      if these say decay, a training; and 8 weeks without one
    ours_labels  rows after lasting drift, likewise       300 a request, 900 a month, by the model.yaml

Each day is scored by the champion of that morning and judged by what happened. All policies choose among the same
challengers. The labels that a training learns from, and its gate judges by, are the same for each training of all policies,
and are not counted in labels_*.

Nothing here is chosen by looking at the months that are measured: the parameters are those of the model.yaml, the rules of
the gate come from the simulations of `benchmarks.gates`. `--hindsight` shows what other limits of decay would have done in
these very months: to learn from, not to choose by.

Few releases decide a year, and which Mondays a schedule happens to meet decides about them. So each schedule is also begun
in every possible week, and means over these are shown: they say more of a policy than its year from 1 April does.

A release is harmful if the new champion's log loss over the next four weeks is higher than the old one's would have been.

Prints a table per policy and month and, last, one line of JSON: auc_*, logloss_*, retrains_*, releases_*, harmful_*,
rollbacks_*, labels_*, as mean_* the means over all weeks to begin in, and of pairs of policies the mean daily difference with its
standard error.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.closed_loop_monitoring import Monitor
from benchmarks.closed_loop_policies import Daily, Decision, Outcome, Policy, by_the_gate, replay
from benchmarks.closed_loop_world import FIRST_AS_OF, LAST_DAY, MODEL, Challenger, Year, challenger, mondays, the_year
from include.config import ModelConfig, load_model
from include.core import quality
from include.core.evaluation import standard_error

SCHEDULED_WEEKS = 8
CRON, OURS, FIXED, OURS_LABELS = "cron", "ours", "fixed", "ours_labels"
POLICIES = {
    policy.name: policy
    for policy in (
        Policy("frozen"),
        Policy("always", every_weeks=1, gated=False),
        Policy("weekly", every_weeks=1),
        Policy("cron4", every_weeks=4),
        Policy(CRON),  # every_weeks is known when `ours` is through
        Policy(OURS, SCHEDULED_WEEKS, watch="labels in time"),
        Policy(FIXED, SCHEDULED_WEEKS, watch="labels each week"),
        Policy(OURS_LABELS, SCHEDULED_WEEKS, watch="labels after alarms"),
    )
}
CRON_WEEKS = range(2, 14)
LIMITS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)  # of quality.max_excess_loss, in hindsight


def train_all(model: ModelConfig, year: Year, weeks: int, trials: int | None) -> list[Challenger]:
    started, trained = time.monotonic(), []
    days = [FIRST_AS_OF, *mondays(weeks)]
    for number, as_of in enumerate(days, start=1):
        trained.append(challenger(model, year, as_of, trials or model.training.search.trials))
        print(f"trained {number} of {len(days)}: as of {as_of}, {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return trained


def run(
    names: Sequence[str], model: ModelConfig, year: Year, challengers: Sequence[Challenger], folder: Path
) -> dict[str, list[Outcome]]:
    """The year under each policy, with its schedule begun in each possible week, on 1 April first; with `cron` comes `ours`,
    which says how often it trains."""
    monitor, decide = Monitor(model, year), by_the_gate(model, year)
    found: dict[str, list[Outcome]] = {}
    wanted = [name for name in POLICIES if name in names or (name == OURS and CRON in names)]
    for name in sorted(wanted, key=lambda name: name == CRON):
        weeks = cadence(len(found[OURS][0].trainings), len(challengers) - 1) if name == CRON else POLICIES[name].every_weeks
        found[name] = begun_anywhere(replace(POLICIES[name], every_weeks=weeks), monitor, decide, challengers, folder)
    return {name: found[name] for name in wanted}


def begun_anywhere(
    policy: Policy, monitor: Monitor, decide: Decision, challengers: Sequence[Challenger], folder: Path
) -> list[Outcome]:
    """A year for each week in which the schedule may have begun. Few releases decide a year, and which Mondays a schedule
    happens to meet decides about them: a single year says little of a schedule."""
    last_day = min(LAST_DAY, challengers[-1].as_of + timedelta(days=6))
    return [
        replay(replace(policy, begun=begun), monitor, decide, challengers, last_day, folder / f"{policy.name}-{begun}")
        for begun in range(policy.every_weeks or 1)
    ]


def every_cron(model: ModelConfig, year: Year, challengers: Sequence[Challenger], folder: Path) -> dict[int, list[Outcome]]:
    """Of each cadence behind the gate the years of all weeks to begin in: what so many trainings give without monitoring."""
    monitor, decide = Monitor(model, year), by_the_gate(model, year)
    return {
        weeks: begun_anywhere(Policy(CRON, weeks), monitor, decide, challengers, folder / f"{weeks}")
        for weeks in CRON_WEEKS
        if weeks < len(challengers)
    }


def cadence(trainings: int, weeks: int) -> int:
    """The longest time between trainings, in weeks, with which there are at least so many."""
    return max((every for every in range(1, weeks + 1) if weeks // every >= trainings), default=1)


def show(found: Mapping[str, Sequence[Outcome]]) -> None:
    outcomes = [of_policy[0] for of_policy in found.values()]
    months = sorted({day.replace(day=1) for outcome in outcomes for day in outcome.daily})
    for title, number in (("mean daily AUC", 0), ("mean daily log loss", 1)):
        print(f"{title:20}" + "".join(f"{month:%b}".rjust(8) for month in months) + "    year")
        for outcome in outcomes:
            of_months = [[both[number] for day, both in outcome.daily.items() if day.replace(day=1) == month] for month in months]
            means = [*map(np.mean, of_months), outcome.log_loss if number else outcome.auc]
            print(f"{outcome.policy.name:20}" + "".join(f"{mean:8.4f}" for mean in means))
        print()
    heads = ("every weeks", "trainings", "releases", "harmful", "rollbacks", "labels")
    print(" " * 20 + "".join(head.rjust(12) for head in heads))
    for outcome in outcomes:
        released = (len(outcome.releases), outcome.harmful, len(outcome.rollbacks))
        numbers = (len(outcome.trainings), *released, outcome.labels)
        told = (str(outcome.policy.every_weeks or "-"), *map(str, numbers))
        print(f"{outcome.policy.name:20}" + "".join(one.rjust(12) for one in told))
    print()
    for outcome in outcomes:
        print(f"{outcome.policy.name}: {_counted(outcome.verdicts)}")
        if outcome.policy.watch:
            print(f"  monitoring: {_counted(outcome.judged)}")
            print(f"  trainings: {', '.join(f'{day:%d %b} ({why})' for day, why in outcome.trainings)}")
            if outcome.repeated:
                print(f"  labels: {outcome.repeated} of {outcome.labels} were bought before")
        for release in outcome.releases if outcome.policy.name != "always" else ():
            print(f"  {release.as_of} {release.why}: log loss of the next four weeks {release.harm:+.4f}")
        for rollback in outcome.rollbacks:
            print(f"  {rollback.as_of} rolled back, {rollback.why}: log loss of the next four weeks {rollback.harm:+.4f}")


def show_schedules(found: Mapping[str, Sequence[Outcome]], crons: Mapping[int, Sequence[Outcome]]) -> None:
    """What does not hang on the week in which the schedules were begun."""
    print("\nSchedules begun in each possible week, means; and of the AUC the standard deviation, least and most")
    heads = ("years", "trainings", "releases", "harmful", "labels", "log loss", "AUC", "sd", "least", "most")
    print(" " * 24 + "".join(head.rjust(10) for head in heads))
    for name, years in {**found, **{f"cron, every {weeks} weeks": years for weeks, years in crons.items()}}.items():
        counts = np.mean([_counts(outcome) for outcome in years], axis=0)
        aucs, losses = ([getattr(outcome, name) for outcome in years] for name in ("auc", "log_loss"))
        told = [f"{len(years)}", *(f"{one:.1f}" for one in counts[:3]), f"{counts[3]:.0f}"]
        told += [f"{one:.4f}" for one in (np.mean(losses), np.mean(aucs), np.std(aucs), min(aucs), max(aucs))]
        print(f"{name:24}" + "".join(one.rjust(10) for one in told))
    print("\nMean of days ± standard error, begun on 1 April; and of the means over all weeks to begin in")
    for one, other in _pairs(found):
        print(f"{one} minus {other}: {_told(found[one][:1], found[other][:1])}; {_told(found[one], found[other])}")
    for weeks, years in crons.items():
        print(f"{OURS} minus cron, every {weeks} weeks: {_told(found[OURS], years)}")


def averaged(outcomes: Sequence[Outcome]) -> Daily:
    """The mean of each day over several years."""
    days = [[outcome.daily[day] for outcome in outcomes] for day in sorted(outcomes[0].daily)]
    means = [(float(np.mean([auc for auc, _ in day])), float(np.mean([loss for _, loss in day]))) for day in days]
    return dict(zip(sorted(outcomes[0].daily), means, strict=True))


def apart(one: Daily, other: Daily, number: int = 0) -> tuple[float, float]:
    """The mean daily difference in AUC (0) or log loss (1), and its standard error: days of a week depend on each other, weeks
    hardly do."""
    days = sorted(one)
    differences = np.array([one[day][number] - other[day][number] for day in days])
    weeks = np.unique([(day - FIRST_AS_OF).days // 7 for day in days], return_inverse=True)[1]
    return float(differences.mean()), standard_error(differences, weeks) or 0.0


def hindsight(model: ModelConfig, year: Year, challengers: Sequence[Challenger], folder: Path) -> None:
    """What other limits of decay would have done: of the first model, left alone, on how many days it would have been called
    decayed and since when; of `fixed` how many of its weeks; and the year under `ours`, mean of all weeks to begin in."""
    print("\nIn hindsight, on the measured months themselves: to learn from, not to choose by")
    heads = ("days decayed", "first", "weeks of fixed", "trainings", "after decay", "releases", "harmful", "AUC", "log loss")
    print("max_excess_loss" + "".join(head.rjust(15) for head in heads))
    monitor, decide = Monitor(model, year), by_the_gate(model, year)
    last_day = min(LAST_DAY, challengers[-1].as_of + timedelta(days=6))
    days = [FIRST_AS_OF + timedelta(days=offset) for offset in range((last_day - FIRST_AS_OF).days + 1)]
    published = dict.fromkeys(days, challengers[0])
    lost = {day: monitor.losses(challengers[0], monitor.matured(challengers[0], published, day)) for day in days}
    for limit in LIMITS:
        monitor.model = model.model_copy(update={"quality": model.quality.model_copy(update={"max_excess_loss": limit})})
        rules = quality.Rules(limit, model.quality.false_alarms, model.quality.min_labelled)
        decayed = [day for day in days if quality.judge_decay(lost[day], rules).state == "decay"]
        fixed = replay(POLICIES[FIXED], monitor, decide, challengers, last_day, folder / f"{FIXED}-{limit:g}")
        years = begun_anywhere(POLICIES[OURS], monitor, decide, challengers, folder / f"{limit:g}")
        trainings, releases, harmful, _ = np.mean([_counts(outcome) for outcome in years], axis=0)
        after_decay = np.mean([sum(why != "schedule" for _, why in outcome.trainings) for outcome in years])
        seen = (len(decayed), f"{decayed[0]:%d %b}" if decayed else "-", fixed.judged["labels say decay"])
        means = [f"{np.mean(values):.4f}" for values in ([one.auc for one in years], [one.log_loss for one in years])]
        numbers = [*seen, *(f"{one:.1f}" for one in (trainings, after_decay, releases, harmful)), *means]
        print(f"{limit:<15g}" + "".join(str(one).rjust(15) for one in numbers))


def figures(found: Mapping[str, Sequence[Outcome]], crons: Mapping[int, Sequence[Outcome]]) -> dict[str, Any]:
    """By policy, its schedule begun on 1 April; as mean_* the means over all weeks to begin in."""
    told: dict[str, Any] = {}
    measures: dict[str, tuple[int, Callable[[Outcome], float]]] = {
        "auc": (4, lambda outcome: outcome.auc),
        "logloss": (4, lambda outcome: outcome.log_loss),
        "retrains": (1, lambda outcome: len(outcome.trainings)),
        "releases": (1, lambda outcome: len(outcome.releases)),
        "harmful": (1, lambda outcome: outcome.harmful),
        "rollbacks": (1, lambda outcome: len(outcome.rollbacks)),
        "labels": (0, lambda outcome: outcome.labels),
    }
    for name, of_policy in found.items():
        for measure, (digits, of) in measures.items():
            value = of(of_policy[0])
            told[f"{measure}_{name}"] = value if isinstance(value, int) else round(value, digits)
            if len(of_policy) > 1:
                told[f"mean_{measure}_{name}"] = _mean(of_policy, digits, of)
    for one, other in _pairs(found):
        for prefix, of_one, of_other in (("", found[one][:1], found[other][:1]), ("mean_", found[one], found[other])):
            for measure, (mean, error) in _differences(averaged(of_one), averaged(of_other)).items():
                told[f"{prefix}{measure}_{one}_minus_{other}"] = [round(mean, 5), round(error, 5)]
    for weeks, years in crons.items():
        told |= {
            f"mean_{measure}_cron_every_{weeks}": _mean(years, *measures[measure]) for measure in ("retrains", "auc", "logloss")
        }
    return told


def _pairs(names: Iterable[str]) -> list[tuple[str, str]]:
    """Those that are to be told apart: ours from all that has labels in time, and the two ways to buy labels."""
    there = list(names)
    pairs = [(OURS, name) for name in there if name not in (OURS, FIXED, OURS_LABELS)]
    pairs += [(OURS_LABELS, FIXED), (OURS_LABELS, "frozen")]
    return [(one, other) for one, other in pairs if one in there and other in there]


def _counts(outcome: Outcome) -> tuple[int, int, int, int]:
    return len(outcome.trainings), len(outcome.releases), outcome.harmful, outcome.labels


def _told(one: Sequence[Outcome], other: Sequence[Outcome]) -> str:
    differences = _differences(averaged(one), averaged(other)).items()
    return ", ".join(f"{name} {mean:+.4f} ± {error:.4f}" for name, (mean, error) in differences)


def _mean(years: Sequence[Outcome], digits: int, of: Callable[[Outcome], float]) -> float:
    return round(float(np.mean([of(outcome) for outcome in years])), digits)


def _differences(one: Daily, other: Daily) -> dict[str, tuple[float, float]]:
    return {name: apart(one, other, number) for number, name in enumerate(("auc", "logloss"))}


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {times}" for what, times in sorted(counts.items())) or "nothing"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.closed_loop", description=__doc__.splitlines()[0])
    parser.add_argument("--policy", default=",".join(POLICIES))
    parser.add_argument("--weeks", type=int, default=39, help="Mondays after 1 April")
    parser.add_argument("--trials", type=int, help="parameter sets per search; the model.yaml's by default")
    parser.add_argument("--hindsight", action="store_true", help="also: what other limits of decay would have done")
    asked = parser.parse_args()
    names = asked.policy.split(",")
    if unknown := sorted(set(names) - set(POLICIES)):
        sys.exit(f"--policy: {', '.join(unknown)} is not one of {', '.join(POLICIES)}")
    with tempfile.TemporaryDirectory(prefix="closed-loop-") as temporary:
        folder = Path(temporary)
        os.environ["AIRFLOW_HOME"] = str(folder / "airflow")  # the ledger is written through Airflow
        model = load_model(MODEL)
        year = the_year(model, folder)
        challengers = train_all(model, year, asked.weeks, asked.trials)
        found = run(names, model, year, challengers, folder / "ledgers")
        crons = every_cron(model, year, challengers, folder / "crons") if CRON in names else {}
        show(found)
        show_schedules(found, crons)
        if asked.hindsight:
            hindsight(model, year, challengers, folder / "hindsight")
    print(json.dumps(figures(found, crons)))


if __name__ == "__main__":
    main()
