"""Does the gate promote what is better, and only that? `python -m benchmarks.gates [--small]`

Simulated retrains, judged by the product's own functions from scores to verdict: 10 % positives, normal scores in both
classes, champion AUC 0.80, correlation of the models' scores 0.95, calibrated probabilities, three slices. Beside it,
the rules that templates of retraining pipelines use, written down from what they say they do. Three tables:

1. P(promote) in %, by true difference in AUC and rows of the holdout; no difference, or a worse model, is a harmful one.
2. A year of weekly retrains (sd of a model's true AUC 0.003, one in fifty is broken: -0.03), in a world that stays and
   in one where every model loses 0.001 a week. Harmful: a true loss above 0.002. The templates' estimates are drawn
   from their normal distributions, the product's are made from rows, one by one.
3. CPU seconds of one evaluation and its verdict, by rows.

Prints the tables and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np

from include.core.comparison import side_by_side
from include.core.gates import Circumstances, Rules, judge

POSITIVES, AUC, CORRELATION = 0.10, 0.80, 0.95
DIFFERENCES = (-0.010, -0.005, -0.002, 0.0, 0.002, 0.005, 0.010)
SLICES = (("north", 0.5), ("south", 0.3), ("west", 0.2))
HARMFUL = 0.002
WEEKS = 52
# Two weeks of 400 rows a day, whose odds go up and down together; models that expect a bit more or less than the mean day.
DAYS, ROWS_A_DAY, WEATHER, BIAS = 14, 400, 0.5, 0.2
# Of the difference of two AUCs, and of one, times the root of the rows; as DeLong finds in these simulations.
ERROR_OF_DIFFERENCE, ERROR_OF_AUC = 0.255, 0.72

# The smallest holdout of the table has about fifty positives: asking for that many would hold half of its retrains.
RULES = Rules(
    task="classification",
    floors={"auc": 0.6},
    alpha=0.05,
    max_holdout_uses=3,
    margin=0.005,
    slices=("region",),
    slice_margin=0.05,
    min_slice_rows=50,
    max_calibration_error=0.1,
    min_rows=500,
    min_positives=20,
    min_label_coverage=0.9,
    max_megabytes=100,
    max_seconds_per_million=600,
    max_champion_age_days=None,
)
SCHEDULED = Circumstances(decay_confirmed=False, champion_age_days=7, label_coverage=1.0, holdout_uses=0, artifact_checked=True)
DECAYED = replace(SCHEDULED, decay_confirmed=True)


@dataclass(frozen=True)
class Plan:
    """How much is simulated: retrains per cell without and with a difference, by rows; retrains with dependent rows; years
    per world; rows to time."""

    nothing: dict[int, int]
    something: dict[int, int]
    days: int
    years: dict[int, int]
    timed: tuple[int, ...]


FULL = Plan(
    nothing={500: 4000, 2000: 4000, 10_000: 2000, 50_000: 2000},
    something={500: 1000, 2000: 1000, 10_000: 500, 50_000: 100},
    days=2000,
    years={2000: 60, 10_000: 20},
    timed=(10_000, 100_000, 1_000_000),
)
SMALL = Plan(nothing={500: 300, 2000: 300}, something={2000: 100}, days=200, years={2000: 3}, timed=(10_000, 100_000))

# What the rules of templates look at: the AUCs of this holdout, the champion's AUC as once stored, and agreement.
TEMPLATES: dict[str, Callable[[float, float, float, float], bool]] = {
    "challenger > champion": lambda champion, challenger, stored, agreement: challenger > champion,
    "challenger >= stored metric": lambda champion, challenger, stored, agreement: challenger >= stored,
    "agreement >= 95 %": lambda champion, challenger, stored, agreement: agreement >= 0.95,
    "AUC >= 0.75": lambda champion, challenger, stored, agreement: challenger >= 0.75,
    "compared with itself": lambda champion, challenger, stored, agreement: challenger >= challenger,
}
OURS = ("this gate, scheduled", "this gate, after decay")


def retrain(rows: int, difference: float, random: np.random.Generator, auc: float = AUC) -> dict[str, Any]:
    """An evaluation of a challenger that is truly better by `difference`, as the evaluate job would write it."""
    positive = random.random(rows) < POSITIVES
    shared = np.sqrt(CORRELATION) * random.standard_normal(rows)
    scores = [
        _probability(positive, shared + np.sqrt(1 - CORRELATION) * random.standard_normal(rows), quality)
        for quality in (auc, auc + difference)
    ]
    region = random.choice(len(SLICES), rows, p=[share for _, share in SLICES])
    columns = {"region": (region, [name for name, _ in SLICES])}
    return _described(side_by_side("classification", positive, scores[0], scores[1], columns, threshold=0.5))


def promotions_of_days(retrains: int, seed: int) -> tuple[float, float]:
    """The share of retrains promoted where rows of a day share its weather, and neither model is better.

    The odds of all rows of a day move together (normal, sd 0.5); the champion expects days that are a little worse than they
    are on average, the challenger days that are as much better. Over the year both lose the same; in two weeks one wins.

    Returns:
        That of this gate, which counts days, and that of the same gate if it took rows for independent.
    """
    random = np.random.default_rng([seed, DAYS])
    counts = [0, 0]
    day = np.repeat(np.arange(DAYS), ROWS_A_DAY)
    for _ in range(retrains):
        weather = WEATHER * random.standard_normal(DAYS)[day]
        positive = random.random(len(day)) < 1 / (1 + np.exp(-weather))
        shared = np.sqrt(CORRELATION) * random.standard_normal(len(day)) + positive - 0.5
        scores = [
            1 / (1 + np.exp(-(bias + shared + np.sqrt(1 - CORRELATION) * random.standard_normal(len(day)))))
            for bias in (-BIAS, BIAS)
        ]
        # Each other retrain the roles are changed: what is left of a difference between the two cannot favour one of them.
        champion, challenger = scores if random.random() < 0.5 else scores[::-1]
        region = random.choice(len(SLICES), len(day), p=[share for _, share in SLICES])
        columns = {"region": (region, [name for name, _ in SLICES])}
        for counted, groups in enumerate((day, None)):
            found = side_by_side("classification", positive, champion, challenger, columns, 0.5, groups)
            counts[counted] += judge(_described(found), RULES, SCHEDULED).outcome == "PROMOTE"
    return counts[0] / retrains, counts[1] / retrains


def _described(evaluation: dict[str, Any]) -> dict[str, Any]:
    """An evaluation with what the evaluate job adds to the comparison."""
    for name in ("champion", "challenger"):
        evaluation[name] |= {"manifest_sha256": name, "trained_to": "2013-03-16", "megabytes": 1.0, "seconds_per_million": 5.0}
    return evaluation | {"first": "2013-03-17", "last": "2013-03-30"}


def _probability(positive: np.ndarray, noise: np.ndarray, auc: float) -> np.ndarray:
    """P(positive | score) of scores that are normal in either class, with sd 1 and so far apart as the AUC says."""
    apart = np.sqrt(2) * NormalDist().inv_cdf(auc)
    logit = apart * (apart * positive + noise) - apart**2 / 2 + np.log(POSITIVES / (1 - POSITIVES))
    return 1 / (1 + np.exp(-logit))


def promotions(rows: int, difference: float, retrains: int, seed: int) -> dict[str, float]:
    """The share of retrains that each rule promotes."""
    random = np.random.default_rng([seed, rows, round(difference * 1000) + 100])
    counts = dict.fromkeys((*OURS, *TEMPLATES), 0)
    for _ in range(retrains):
        evaluation = retrain(rows, difference, random)
        for name, circumstances in zip(OURS, (SCHEDULED, DECAYED), strict=True):
            counts[name] += judge(evaluation, RULES, circumstances).outcome == "PROMOTE"
        champion, challenger = (evaluation[role]["metrics"]["auc"]["value"] for role in ("champion", "challenger"))
        stored = AUC + ERROR_OF_AUC / np.sqrt(rows) * random.standard_normal()
        for name, rule in TEMPLATES.items():
            counts[name] += rule(champion, challenger, stored, 1 - evaluation["churn"])
    return {name: count / retrains for name, count in counts.items()}


@dataclass
class Year:
    """What a year came to, per rule: summed over weeks, then divided by years."""

    harmful: float = 0.0
    auc: float = 0.0
    broken: float = 0.0
    promoted: float = 0.0


Decide = Callable[[float, float, int], bool]


def year(decide: Decide, decay: float, random: np.random.Generator) -> Year:
    """52 retrains. `decide` is told the champion's true AUC, the challenger's, and the champion's age in weeks."""
    live, born, broken_live, result = AUC, 0, False, Year()
    for week in range(1, WEEKS + 1):
        broken = random.random() < 0.02
        challenger = AUC + 0.003 * random.standard_normal() - 0.03 * broken
        champion = live - decay * (week - born)
        if decide(champion, challenger, week - born):
            result.harmful += challenger < champion - HARMFUL
            result.promoted += 1
            live, born, champion, broken_live = challenger, week, challenger, broken_live or broken
        result.auc += champion / WEEKS
    result.broken = float(broken_live)
    return result


def years(rows: int, count: int, decay: float, seed: int) -> dict[str, Year]:
    """The mean year under each rule."""
    random = np.random.default_rng([seed, rows, round(decay * 1e4)])
    stored = AUC

    def by_rows(oldest_weeks: int | None) -> Decide:
        rules = replace(RULES, max_champion_age_days=None if oldest_weeks is None else 7 * oldest_weeks)

        def decide(champion: float, challenger: float, age: int) -> bool:
            evaluation = retrain(rows, challenger - champion, random, champion)
            return judge(evaluation, rules, replace(SCHEDULED, champion_age_days=7 * age)).outcome == "PROMOTE"

        return decide

    def by_template(rule: Callable[[float, float, float, float], bool]) -> Decide:
        def decide(champion: float, challenger: float, age: int) -> bool:
            nonlocal stored
            noise = random.standard_normal(2) / np.sqrt(rows)
            found = challenger + ERROR_OF_AUC * noise[0]
            promoted = rule(found - (challenger - champion) + ERROR_OF_DIFFERENCE * noise[1], found, stored, 1.0)
            stored = found if promoted else stored
            return promoted

        return decide

    rules: dict[str, Decide] = {
        "this gate": by_rows(None),
        "this gate, champion <= 4 weeks": by_rows(4),
        **{name: by_template(rule) for name, rule in TEMPLATES.items()},
        "never retrain": lambda champion, challenger, age: False,
    }
    result = {}
    for name, decide in rules.items():
        # Templates are cheap: so many years that chance has no part in their figures.
        repeated = count if name.startswith("this gate") else max(count, 400 if count >= 20 else 20)
        total = Year()
        for _ in range(repeated):
            stored = AUC
            one = year(decide, decay, random)
            for key, value in vars(one).items():
                setattr(total, key, getattr(total, key) + value / repeated)
        result[name] = total
    return result


def seconds(rows: int, seed: int) -> float:
    """CPU seconds from the scores of both models to the verdict, without making the scores; the least of three."""
    random = np.random.default_rng([seed, rows])
    positive = random.random(rows) < POSITIVES
    shared = np.sqrt(CORRELATION) * random.standard_normal(rows)
    champion, challenger = (
        _probability(positive, shared + np.sqrt(1 - CORRELATION) * random.standard_normal(rows), AUC) for _ in range(2)
    )
    columns = {"region": (random.choice(len(SLICES), rows), [name for name, _ in SLICES])}
    taken = []
    for _ in range(3):
        started = time.process_time()
        judge(side_by_side("classification", positive, champion, challenger, columns, threshold=0.5), RULES, SCHEDULED)
        taken.append(time.process_time() - started)
    return min(taken)


def run(plan: Plan, seed: int = 1) -> dict[str, Any]:
    """Simulate, print the tables, and return the figures."""
    figures: dict[str, Any] = {}
    harmful: dict[str, float] = {}
    for rows, retrains in plan.nothing.items():
        cells = {
            difference: promotions(rows, difference, count, seed)
            for difference in DIFFERENCES
            if (count := retrains if difference == 0 else plan.something.get(rows, 0))
        }
        print(f"\nP(promote), %, {rows:,} rows of holdout, {retrains:,} retrains without a difference")
        print(f"{'by true difference in AUC':<28}" + "".join(f"{difference:>+8.3f}" for difference in cells))
        for name in (*OURS, *TEMPLATES):
            print(f"{name:<28}" + "".join(f"{100 * cell[name]:>8.1f}" for cell in cells.values()))
        for difference, cell in cells.items():
            if difference <= 0:
                harmful[f"{rows}{difference:+.3f}"] = cell[OURS[0]]
            else:
                figures[f"power_{_short(rows)}_plus_{round(difference * 1000):03d}"] = cell[OURS[0]]
        figures[f"harmful_{_short(rows)}"] = cells[0.0][OURS[0]]
        sys.stdout.flush()
    by_day, by_row = promotions_of_days(plan.days, seed)
    print(f"\nP(promote), %, no true difference, rows of a day depend on each other, {plan.days:,} retrains")
    print(
        f"{'this gate, which counts days':<40}{100 * by_day:>8.1f}\n{'if it took rows for independent':<40}{100 * by_row:>8.1f}"
    )
    harmful["days"] = figures["harmful_days"] = by_day
    figures["harmful_days_as_rows"] = by_row
    figures["harmful_max"] = max(harmful.values())

    for rows, count in plan.years.items():
        for decay in (0.0, 0.001):
            print(
                f"\nA year of weekly retrains, {rows:,} rows of holdout, every model loses {decay} of AUC a week, {count} years"
            )
            print(f"{'':<32}{'harmful/year':>13}{'promoted/year':>14}{'mean AUC':>10}{'P(broken live)':>15}")
            for name, one in years(rows, count, decay, seed).items():
                print(f"{name:<32}{one.harmful:>13.2f}{one.promoted:>14.1f}{one.auc:>10.4f}{one.broken:>15.2f}")
                key = f"{_short(rows)}{'_decaying' if decay else ''}"
                if name.startswith("this gate"):
                    kind = "_aged" if name != "this gate" else ""
                    figures |= {f"harmful_per_year{kind}_{key}": one.harmful, f"year_auc{kind}_{key}": round(one.auc, 5)}
                    figures[f"broken_live{kind}_{key}"] = one.broken
            sys.stdout.flush()

    print(f"\n{'rows':>10}{'CPU s':>10}{'µs/row':>10}")
    for rows in plan.timed:
        taken = seconds(rows, seed)
        figures[f"cpu_seconds_{_short(rows)}"] = round(taken, 4)
        print(f"{rows:>10,}{taken:>10.3f}{1e6 * taken / rows:>10.2f}")
    return figures


def _short(rows: int) -> str:
    return f"{rows // 1_000_000}m" if rows >= 1_000_000 else f"{rows // 1000}k" if rows >= 1000 else str(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="half a minute instead of ten")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    figures = run(SMALL if chosen.small else FULL, chosen.seed)
    print(json.dumps(figures))
    return 1 if figures["harmful_max"] > (0.07 if chosen.small else 0.05) else 0


if __name__ == "__main__":
    sys.exit(main())
