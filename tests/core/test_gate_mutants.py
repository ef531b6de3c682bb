# ruff: noqa: E501  strings of the source stand here as they stand there
"""Would the tests notice a broken gate? Bugs are planted in copies of its modules, and each must be caught.

A mutant is the source of a module with one string replaced. The battery below is run against the product's modules,
which must pass, and against each mutant, which must not. A string that is no longer in the source fails the test: the
code has moved on, and the mutant must follow.
"""

from __future__ import annotations

import json
import math
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import include.core.comparison
import include.core.evaluation
import include.core.gates
import include.jobs.evaluate
from include.core.chance import standard_errors_to
from include.core.errors import Refused
from include.core.files import sha256_of
from tests.core.examples import flights, saved
from tests.core.test_gates import (
    CIRCUMSTANCES,
    DECAYED,
    NO_CHAMPION,
    RULES,
    changed,
    evaluation,
    first_model,
    model,
    without,
)

MODULES = {
    "evaluation": include.core.evaluation,
    "comparison": include.core.comparison,
    "gates": include.core.gates,
    "job": include.jobs.evaluate,
}


@dataclass(frozen=True)
class Mutant:
    bug: str
    module: str
    old: str
    new: str


MUTANTS = [
    # The comparison
    Mutant("champion and challenger swapped in every comparison", "comparison", "before, after = as_usable(task, labels, champion), as_usable(task, labels, challenger)", "after, before = as_usable(task, labels, champion), as_usable(task, labels, challenger)"),
    Mutant("improvement of the AUC has the wrong sign", "comparison", "challenger.auc, error, sign=-1)", "challenger.auc, error)"),
    Mutant("improvement of losses has the wrong sign", "comparison", "sign * (champion - challenger)", "-sign * (champion - challenger)"),
    Mutant("error of the AUC is not paired", "comparison", "standard_error_of_auc(labels, challenger.placements - champion.placements, groups)", "standard_error_of_auc(labels, challenger.placements, groups)"),
    Mutant("error of the loss is not divided by the root of the rows", "evaluation", "float(values.std(ddof=1)) / math.sqrt(len(values))", "float(values.std(ddof=1))"),
    Mutant("error of the AUC forgets the negatives", "evaluation", " + of_negatives.var(ddof=1) / len(of_negatives))", ")"),
    Mutant("ties count as won", "evaluation", "below = (negatives - false_alarms + tied_negatives / 2) / negatives", "below = (negatives - false_alarms + tied_negatives) / negatives"),
    Mutant("a score that is NaN passes for a probability", "evaluation", "(scores >= 0) & (scores <= 1)", "~(scores < 0) & ~(scores > 1)"),
    Mutant("slices lose their rare values", "comparison", "[(name, rows) for name, rows in zip(names, np.split(order, ends[:-1]), strict=True) if len(rows)]", "[(name, rows) for name, rows in zip(names, np.split(order, ends[:-1]), strict=True) if len(rows) and name != OTHER]"),
    Mutant("losses of slices are those of all rows", "comparison", "None if costs is None else costs[rows] for costs", "None if costs is None else costs for costs"),
    Mutant("slices compare the challenger with itself", "comparison", "old_costs = losses(task, *before) if before else None", "old_costs = losses(task, *after) if before else None"),
    Mutant("the champion's metrics are the challenger's own", "comparison", "None if champion is None else measure(task, labels, champion, groups)", "None if champion is None else measure(task, labels, challenger, groups)"),
    # The holdout
    Mutant("the holdout ignores what the champion has seen", "job", "seen = max(scorers, key=lambda scorer: scorer.trained_to)", "seen = challenger"),
    Mutant("the holdout includes the last day of training", "job", "pc.greater(batch.column(\"partition_date\"), limit)", "pc.greater_equal(batch.column(\"partition_date\"), limit)"),
    Mutant("the holdout is what was trained on", "job", "pc.greater(batch.column(\"partition_date\"), limit)", "pc.less_equal(batch.column(\"partition_date\"), limit)"),
    Mutant("the champion scores with the challenger's model", "job", "_loaded(\"champion\", spec.champion_artifact or \"\", spec.champion_manifest_sha256 or \"\", task)", "_loaded(\"champion\", spec.artifact, spec.manifest_sha256, task)"),
    Mutant("half a champion is taken for none", "job", "if spec.champion_artifact or spec.champion_manifest_sha256:", "if spec.champion_artifact and spec.champion_manifest_sha256:"),
    Mutant("the gate does not look at the split", "gates", "if first > trained:", "if True:"),
    Mutant("the first day may be the last of training", "gates", "if first > trained:", "if first >= trained:"),
    Mutant("the split of the champion is not looked at", "gates", "    yield _later(evaluation, \"champion\")\n", ""),
    # Numbers
    Mutant("NaN is a number", "gates", "return float(value) if math.isfinite(value) else None", "return float(value)"),
    Mutant("truth is a number", "gates", "if isinstance(value, bool) or not isinstance(value, int | float):", "if not isinstance(value, int | float):"),
    Mutant("`nan < floor` is false, so it passes", "gates", "    value, high = number(metric.get(\"value\")), number(metric.get(\"high\"))\n", "    value, high = metric.get(\"value\"), number(metric.get(\"high\"))\n    if isinstance(value, float) and not value < floor:\n        return Finding(check, \"PROMOTE\", \"reached\")\n    value = number(value)\n"),
    Mutant("a comparison without numbers is left out", "gates", "        return faults, 0\n", "        return [], 0\n"),
    Mutant("a comparison that is there twice is believed", "gates", "if len(found) != 1:", "if len(found) < 1:"),
    Mutant("a stored metric of the champion is believed", "gates", "if not agree or not _close(improvement", "if not _close(improvement"),
    Mutant("limits may be NaN", "gates", "if value is None or value < 0 or (name == \"alpha\" and not 1e-6 <= value < 0.5):", "if value is not None and (value < 0 or (name == \"alpha\" and not 1e-6 <= value < 0.5)):"),
    # Absolute checks
    Mutant("a floor must be passed, not reached", "gates", "if value >= floor:", "if value > floor:"),
    Mutant("floors are ceilings", "gates", "if value >= floor:", "if value <= floor:"),
    Mutant("floors count for first models only", "gates", "merit = [*_floors(evaluation, rules), ", "merit = [*(_floors(evaluation, rules) if rule == \"first model\" else []), "),
    Mutant("an unchecked artifact passes", "gates", "elif checked is False:", "elif checked is False or checked is None:\n        return\n    elif False:"),
    Mutant("the check of the artifact is ignored", "gates", "if checked is True:", "if True:"),
    Mutant("coverage of labels is ignored", "gates", "\"PROMOTE\" if value >= least else \"HOLD\", sentence, value, least)", "\"PROMOTE\", sentence, value, least)"),
    Mutant("unknown coverage counts as full", "gates", "    value = number(coverage)\n", "    value = number(coverage) if coverage is not None else 1.0\n"),
    Mutant("too few rows are enough", "gates", "\"PROMOTE\" if rows >= rules.min_rows else \"HOLD\"", "\"PROMOTE\""),
    Mutant("one class is enough", "gates", "rarer = min(positives, rows - positives)\n    # One", "rarer = max(positives, rows - positives)\n    # One"),
    Mutant("no positives are enough if none are asked for", "gates", "max(rules.min_positives, 1)", "rules.min_positives"),
    Mutant("calibration is ignored", "gates", "    if value <= limit:\n", "    if True:\n"),
    Mutant("size and speed are ignored", "gates", "\"PROMOTE\" if measured <= limit else \"REJECT\"", "\"PROMOTE\""),
    Mutant("bad metrics of too few rows reject", "gates", "    if any(finding.outcome != \"PROMOTE\" for finding in evidence):\n        return \"HOLD\"\n", ""),
    Mutant("one passed check outvotes the others", "gates", "\"PROMOTE\" if outcomes == {\"PROMOTE\"} else \"HOLD\"", "\"PROMOTE\" if \"PROMOTE\" in outcomes else \"HOLD\""),
    # Which rule
    Mutant("no champion in the document means none", "gates", "if \"champion\" in evaluation and evaluation[\"champion\"] is None and circumstances.champion_age_days is None:", "if evaluation.get(\"champion\") is None:"),
    Mutant("a champion that was not evaluated is none", "gates", " and circumstances.champion_age_days is None:", ":"),
    Mutant("the rule after decay is always used", "gates", "return \"non-inferiority\" if circumstances.decay_confirmed is True or too_old else \"superiority\"", "return \"non-inferiority\""),
    Mutant("the rule after decay is never used", "gates", "return \"non-inferiority\" if circumstances.decay_confirmed is True or too_old else \"superiority\"", "return \"superiority\""),
    Mutant("decay that is unknown counts as confirmed", "gates", "\"non-inferiority\" if circumstances.decay_confirmed is True or too_old", "\"non-inferiority\" if circumstances.decay_confirmed or too_old"),
    Mutant("the champion may replace itself", "gates", "if digests[0] == digests[1]:", "if False:"),
    # The tests of the rules
    Mutant("better on average is enough", "gates", "    if least > 0:\n", "    if loss.improvement > 0:\n"),
    Mutant("the upper bound is asked, not the lower", "gates", "    if least > 0:\n", "    if most > 0:\n"),
    Mutant("worse is never shown", "gates", "    if most < 0:\n", "    if False:\n"),
    Mutant("the margin is ignored in what is of no consequence", "gates", "    if best < margin:\n", "    if best < 0:\n"),
    Mutant("the ranking may get worse", "gates", "worse = quality.improvement < -margin", "worse = False"),
    Mutant("the margin is ignored after decay", "gates", "if least > -margin and quality.improvement > 0", "if quality.improvement > 0"),
    Mutant("not worse is enough after decay: a ratchet downward", "gates", "if least > -margin and quality.improvement > 0 and loss.improvement > 0:", "if least > -margin:"),
    Mutant("alpha is one half", "gates", "    z = standard_errors_to(alpha, loss.groups)\n", "    z = 0.0\n"),
    Mutant("rows of a day count as independent", "evaluation", "        if groups is not None:\n            return _error_of_sums", "        if False:\n            return _error_of_sums"),
    Mutant("rows of a day count as independent in the AUC", "evaluation", "    if groups is not None:\n        influence", "    if False:\n        influence"),
    Mutant("a few days are as sure as many", "gates", "    z = standard_errors_to(alpha, loss.groups)\n", "    z = standard_errors_to(alpha, None)\n"),
    Mutant("a few days of a slice are as sure as many", "gates", "standard_errors_to(alpha, groups if isinstance(groups, int) else None)", "standard_errors_to(alpha, None)"),
    Mutant("alpha is never spent", "gates", " * (1 - SPENT_PER_USE) ** int(uses)", ""),
    Mutant("all of alpha is spent at once", "gates", "return rules.alpha * SPENT_PER_USE *", "return rules.alpha *"),
    Mutant("uses of the holdout are ignored", "gates", "    yield _uses(circumstances.holdout_uses, rules)\n", ""),
    Mutant("one use too many", "gates", "    if value >= rules.max_holdout_uses:\n", "    if value > rules.max_holdout_uses:\n"),
    Mutant("rows needed are the total, not what is lacking", "gates", "more = rows * times * times - rows", "more = rows * times * times"),
    # Slices
    Mutant("slices are not judged", "gates", "    return [*findings, *(_slice(item, rules, rule, share) for item in judged)]", "    return findings"),
    Mutant("a column without slices passes", "gates", "        if not found:\n", "        if not found:\n            continue\n        if not found:\n"),
    Mutant("a slice that is missing is not missed", "gates", " or sum(rows or 0 for rows in counts) != number(evaluation.get(\"rows\"))", ""),
    Mutant("a slice without numbers passes", "gates", "    if missing:\n        return Finding(f\"slice {name}\", \"HOLD\"", "    if missing:\n        return Finding(f\"slice {name}\", \"PROMOTE\""),
    Mutant("alpha is not divided by the slices", "gates", "rules.alpha / max(1, len(judged))", "rules.alpha"),
    Mutant("chance alone rejects a slice", "gates", "if worse and shown:", "if worse:"),
    Mutant("any loss of a slice rejects", "gates", "if worse and shown:", "if shown:"),
    Mutant("the smallest slices are judged", "gates", "rows is not None and rows >= rules.min_slice_rows", "rows is not None"),
    Mutant("sign of a slice's limit", "gates", "limit = -rules.slice_margin * champion", "limit = -1 - rules.slice_margin * champion"),
]  # fmt: skip


class Product:
    """The modules that decide, as they are or with one of them mutated; they import each other, not the originals."""

    evaluation: Any
    comparison: Any
    gates: Any
    job: Any

    def __init__(self, mutant: Mutant | None, number: int, spec: dict[str, Any]) -> None:
        self.spec = spec
        sources = {name: Path(str(module.__file__)).read_text() for name, module in MODULES.items()}
        if mutant:
            assert mutant.old in sources[mutant.module], f"not in the source any more: {mutant.old}"
            sources[mutant.module] = sources[mutant.module].replace(mutant.old, mutant.new)
        names = {name: f"mutant_{number}_{name}" for name in MODULES}
        for name, source in sources.items():
            for other, module in MODULES.items():
                source = source.replace(f"from {module.__name__} import", f"from {names[other]} import")
            loaded = types.ModuleType(names[name])
            sys.modules[names[name]] = loaded  # data classes look their module up
            exec(compile(source, names[name], "exec"), loaded.__dict__)
            setattr(self, name, loaded)

    def outcome(self, document: Any, rules: Any = RULES, circumstances: Any = CIRCUMSTANCES) -> str:
        return self.gates.judge(document, rules, circumstances).outcome

    def simulated(self, champion: float, challenger: float, rows: int = 20_000, seed: int = 1) -> dict[str, Any]:
        """An evaluation of models with these AUCs, from scores to document; every tenth score is rounded, for ties."""
        random = np.random.default_rng(seed)
        labels = (random.random(rows) < 0.2).astype(np.int8)
        shared, scores = np.sqrt(0.9) * random.standard_normal(rows), []
        for auc in (champion, challenger):
            apart = np.sqrt(2) * NormalDist().inv_cdf(auc)
            noise = shared + np.sqrt(0.1) * random.standard_normal(rows)
            chance = 1 / (1 + np.exp(-(apart * (apart * labels + noise) - apart**2 / 2 + np.log(0.25))))
            chance[::10] = chance[::10].round(1).clip(0.05, 0.95)
            scores.append(chance)
        shares = np.append(np.full(20, 0.045), np.full(10, 0.01))
        columns = {"origin": (random.choice(30, rows, p=shares), [f"v{i}" for i in range(30)])}
        document = self.comparison.side_by_side("classification", labels, *scores, columns, 0.5)
        described = {"megabytes": 1.0, "seconds_per_million": 5.0, "trained_to": "2013-03-16"}
        for name in ("champion", "challenger"):
            document[name] |= described | {"manifest_sha256": name}
        return document | {"first": "2013-03-17", "last": "2013-03-30"}


# The battery


def better_models_are_promoted_and_worse_ones_rejected(product: Product) -> None:
    document = product.simulated(0.75, 0.79)
    verdict = product.gates.judge(document, RULES, CIRCUMSTANCES)
    assert verdict.outcome == "PROMOTE", verdict.reasons
    before, after = (document[role]["metrics"]["auc"]["value"] for role in ("champion", "challenger"))
    assert before == pytest.approx(0.75, abs=0.01) and after == pytest.approx(0.79, abs=0.01)
    assert next(finding.value for finding in verdict.findings if finding.check == "ranking") == pytest.approx(after - before)
    assert product.outcome(product.simulated(0.79, 0.75)) == "REJECT"
    assert product.outcome(product.simulated(0.75, 0.79), RULES, DECAYED) == "PROMOTE"


def days_are_what_counts(product: Product) -> None:
    """Rows of a day share its weather: which of two models it suits says little about the next day."""
    metrics: dict[str, list[float]] = {}
    promoted = 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        day = np.repeat(np.arange(8), 150)
        weather = random.standard_normal(8)[day]
        # One forecasts bad days, the other good ones: over the year they are equally good.
        labels = (random.random(1200) < 1 / (1 + np.exp(-weather))).astype(np.int8)
        own = 0.6 * random.standard_normal((2, 1200)) + 0.5 * (2 * labels - 1)
        models = [1 / (1 + np.exp(bias - score)) for bias, score in zip((0.7, -0.7), own, strict=True)]
        found = product.comparison.compare("classification", labels, *models, day)
        for item in found:
            metrics.setdefault(item["metric"], []).append(item["improvement"] / item["standard_error"])
        loss = found[0]
        wanted = standard_errors_to(0.05, loss["groups"])
        promoted += loss["improvement"] > wanted * loss["standard_error"]
    assert 0.7 < np.std(metrics["log_loss"]) < 1.5, np.std(metrics["log_loss"])
    assert promoted <= 9
    labels, scores = np.tile([0, 1, 1, 0, 1], 60), np.tile([0.2, 0.6, 0.4, 0.5, 0.3], 60)
    single, twice = (
        product.evaluation.measure(
            "classification", np.tile(labels, n), np.tile(scores, n), np.tile(np.repeat(np.arange(12), 25), n)
        )
        for n in (1, 2)
    )
    for metric in ("auc", "log_loss"):  # the same days twice over are no more days
        assert single["metrics"][metric]["low"] == pytest.approx(twice["metrics"][metric]["low"], abs=1e-6)
    few = product.simulated(0.75, 0.76)
    assert product.outcome(few) == "PROMOTE"
    for item in (*few["comparisons"], *few["slices"]):
        item["groups"] = 2
    assert product.outcome(few) != "PROMOTE"
    bad = product.simulated(0.75, 0.79)
    bad["slices"][0] |= {"improvement": -0.2, "standard_error": 0.03, "champion_loss": 0.5, "challenger_loss": 0.7, "groups": 2}
    assert product.outcome(bad) == "PROMOTE", "two days show nothing of a slice"
    bad["slices"][0]["groups"] = None
    assert product.outcome(bad) == "REJECT"


def errors_are_honest(product: Product) -> None:
    """Models alike, many times: the improvements vary as much as their standard errors say; few are promoted."""
    ratios: dict[str, list[float]] = {}
    promoted = 0
    for seed in range(120):
        document = product.simulated(0.75, 0.75, 1500, seed)
        promoted += product.outcome(document, replace(RULES, min_slice_rows=50)) == "PROMOTE"
        for item in document["comparisons"]:
            ratios.setdefault(item["metric"], []).append(item["improvement"] / item["standard_error"])
    assert all(0.8 < np.std(values) < 1.2 for values in ratios.values()), {name: np.std(v) for name, v in ratios.items()}
    assert promoted <= 12


def metrics_are_right(product: Product) -> None:
    labels, scores = np.array([0, 1, 0, 1, 1]), np.array([0.1, 0.8, 0.6, 0.6, 0.4])
    found = product.evaluation.evaluate("classification", labels, scores)
    assert found["auc"] == pytest.approx((1 + 1 + 1 + 0.5 + 1 + 0) / 6)
    # Shares of the other class that each positive (0.8, 0.6, 0.4) and each negative (0.1, 0.6) is placed right to.
    ranking = product.evaluation.rank(labels.astype(float), scores)
    of_positives, of_negatives = np.array([1, 0.75, 0.5]), np.array([1, 0.5])
    expected = math.sqrt(of_positives.var(ddof=1) / 3 + of_negatives.var(ddof=1) / 2)
    assert product.evaluation.standard_error_of_auc(labels.astype(float), ranking.placements) == pytest.approx(expected)
    assert set(product.evaluation.evaluate("classification", labels, np.array([0.1, math.nan, 0.6, 0.6, 0.4])).values()) == {None}
    document = product.simulated(0.75, 0.79, 3000)
    assert sum(item["rows"] for item in document["slices"]) == 3000
    whole = next(item for item in document["comparisons"] if item["metric"] == "log_loss")
    for role in ("champion", "challenger"):
        mean = sum(item["rows"] * item[f"{role}_loss"] for item in document["slices"]) / 3000
        assert mean == pytest.approx(whole[role]) == pytest.approx(document[role]["metrics"]["log_loss"]["value"])
    assert len({item["challenger_loss"] for item in document["slices"]}) > 10


def numbers_that_are_none_hold(product: Product) -> None:
    for junk in (None, math.nan, math.inf, True, "0.9"):
        for path in (
            ("rows",), ("positives",), ("challenger", "megabytes"), ("challenger", "calibration_error"),
            ("challenger", "metrics", "auc", "value"), ("comparisons", 0, "improvement"), ("comparisons", 1, "standard_error"),
            ("slices", 0, "rows"), ("slices", 0, "improvement"), ("slices", 1, "challenger_loss"),
        ):  # fmt: skip
            assert product.outcome(changed(evaluation(), path, junk)) == "HOLD", path
            assert product.outcome(without(evaluation(), path)) == "HOLD"
        assert (
            product.outcome(changed(first_model(), ("challenger", "metrics", "auc", "value"), junk), RULES, NO_CHAMPION) == "HOLD"
        )
        for name in ("label_coverage", "holdout_uses"):
            assert product.outcome(evaluation(), RULES, replace(CIRCUMSTANCES, **{name: junk})) == "HOLD"
    for name in ("slice_margin", "margin", "alpha", "min_rows", "max_megabytes", "max_champion_age_days"):
        assert product.outcome(evaluation(), replace(RULES, **{name: math.nan})) == "HOLD"
    for document in (evaluation() | {"comparisons": []}, evaluation() | {"comparisons": 2 * evaluation()["comparisons"]}):
        assert product.outcome(document) == product.outcome(document, RULES, DECAYED) == "HOLD"


def absolute_checks_hold_or_reject(product: Product) -> None:
    assert product.outcome(first_model(0.6), RULES, NO_CHAMPION) == "PROMOTE"
    assert product.outcome(first_model(0.599), RULES, NO_CHAMPION) == "HOLD"
    assert product.outcome(first_model(0.5), RULES, NO_CHAMPION) == "REJECT"
    assert product.outcome(evaluation(), replace(RULES, floors={"auc": 0.9})) == "REJECT"
    assert product.outcome(evaluation(), RULES, replace(CIRCUMSTANCES, artifact_checked=False)) == "REJECT"
    assert product.outcome(evaluation(), RULES, replace(CIRCUMSTANCES, artifact_checked=None)) == "HOLD"
    assert product.outcome(evaluation(), RULES, replace(CIRCUMSTANCES, label_coverage=0.5)) == "HOLD"
    assert product.outcome(changed(evaluation(), ("challenger", "megabytes"), 101)) == "REJECT"
    assert product.outcome(changed(evaluation(), ("challenger", "seconds_per_million"), 601)) == "REJECT"
    assert product.outcome(changed(evaluation(), ("challenger", "calibration_error"), 0.11)) == "HOLD"
    assert product.outcome(evaluation(), replace(RULES, min_rows=10_001)) == "HOLD"
    assert product.outcome(evaluation() | {"positives": 0}) == product.outcome(evaluation() | {"positives": 10_000}) == "HOLD"
    assert product.outcome(evaluation() | {"positives": 0}, replace(RULES, min_positives=0)) == "HOLD"
    assert product.outcome(first_model(0.3) | {"rows": 20, "positives": 10}, RULES, NO_CHAMPION) == "HOLD"


def only_later_rows_count(product: Product) -> None:
    for role in ("challenger", "champion"):
        assert product.outcome(changed(evaluation(), (role, "trained_to"), "2013-03-17")) == "HOLD"
        assert product.outcome(changed(evaluation(), (role, "trained_to"), "2013-03-20")) == "HOLD"


def a_champion_cannot_be_overlooked(product: Product) -> None:
    assert product.outcome(without(evaluation(), ("champion",))) == "HOLD"
    assert product.outcome(without(first_model(), ("champion",)), RULES, NO_CHAMPION) == "HOLD"
    assert product.outcome(first_model()) == "HOLD"
    assert product.outcome(changed(evaluation(), ("champion",), {})) == "HOLD"
    stale = changed(evaluation(), ("champion", "metrics"), model("a", 0.70, 0.50)["metrics"])
    assert product.outcome(stale) == "HOLD"
    assert product.outcome(changed(evaluation(), ("challenger", "manifest_sha256"), "a" * 32)) == "HOLD"


def superiority_needs_proof(product: Product) -> None:
    for gains, expected in {
        (0.010, 0.003, 0.010, 0.003): "PROMOTE",
        (0.005, 0.003, 0.005, 0.003): "HOLD",
        (0.0051, 0.003, 0.0051, 0.003): "HOLD",  # 1.7 standard errors: enough at 0.05, not at what the first use spends
        (0.010, 0.003, -0.006, 0.003): "HOLD",
        (0.001, 0.003, 0.001, 0.002): "REJECT",
        (-0.006, 0.003, 0.001, 0.003): "REJECT",
    }.items():
        assert product.outcome(evaluation(*gains)) == expected, gains


def after_decay_not_worse_and_better_on_average_is_enough(product: Product) -> None:
    for gains, expected in {
        (0.001, 0.003, 0.001, 0.003): "PROMOTE",
        (0.001, 0.003, 0.001, 0.004): "HOLD",
        (0.001, 0.003, -0.001, 0.001): "HOLD",
        (-0.001, 0.003, 0.001, 0.001): "HOLD",
    }.items():
        document = evaluation(*gains)
        assert product.outcome(document, RULES, DECAYED) == expected, gains
        assert product.outcome(document, RULES, replace(CIRCUMSTANCES, champion_age_days=181)) == expected
    document = evaluation(0.001, 0.003, 0.001, 0.003)
    assert product.outcome(document) == product.outcome(document, RULES, replace(CIRCUMSTANCES, champion_age_days=180)) == "HOLD"
    unknown = product.gates.judge(document, RULES, replace(CIRCUMSTANCES, decay_confirmed="no"))
    assert (unknown.outcome, unknown.rule) == ("HOLD", "superiority")


def a_holdout_wears_out(product: Product) -> None:
    document = evaluation(gain=0.0060)
    outcomes = [product.outcome(document, RULES, replace(CIRCUMSTANCES, holdout_uses=uses)) for uses in range(3)]
    assert outcomes == ["PROMOTE", "HOLD", "HOLD"]
    exhausted = product.gates.judge(evaluation(gain=0.05), RULES, replace(CIRCUMSTANCES, holdout_uses=3))
    assert exhausted.outcome == "HOLD" and "may judge 3: wait for newer labels" in " ".join(exhausted.reasons)
    spent = [product.gates.judge(document, RULES, replace(CIRCUMSTANCES, holdout_uses=uses)).alpha_spent for uses in range(3)]
    assert sum(spent) < RULES.alpha


def a_hold_says_how_many_more_rows(product: Product) -> None:
    verdict = product.gates.judge(evaluation(0.001, 0.003, 0.001, 0.004), RULES, CIRCUMSTANCES)
    assert 0.004 * math.sqrt(10_000 / (10_000 + verdict.rows_needed)) == pytest.approx(0.005 / 2.5923, rel=1e-3)


def slices_are_guarded(product: Product) -> None:
    def with_slice(improvement: float, error: float, rows: int = 5000) -> dict[str, Any]:
        document = evaluation()
        document["slices"][1]["rows"] += document["slices"][0]["rows"] - rows
        document["slices"][0] |= {
            "improvement": improvement, "standard_error": error, "challenger_loss": 0.45 - improvement, "rows": rows
        }  # fmt: skip
        return document

    assert product.outcome(with_slice(-0.03, 0.010)) == "REJECT"
    assert product.outcome(with_slice(-0.02, 0.001)) == "PROMOTE"  # within the margin
    assert product.outcome(with_slice(-0.03, 0.016)) == "PROMOTE"  # 1.9 standard errors: chance, among three slices
    assert product.outcome(with_slice(-0.30, 0.010, 199)) == "PROMOTE"
    assert product.outcome(evaluation(), replace(RULES, slices=("origin", "carrier"))) == "HOLD"
    assert product.outcome(without(evaluation(), ("slices", 0))) == "HOLD"


def the_job_takes_rows_that_neither_model_has_seen(product: Product) -> None:
    spec = product.job.EvaluateSpec(**product.spec)
    product.job.run(spec)
    found = json.loads(Path(spec.result).read_bytes())
    assert (found["first"], found["last"], found["rows"]) == ("2013-01-10", "2013-01-12", 750)
    assert found["challenger"]["trained_to"] == "2013-01-05" and found["champion"]["trained_to"] == "2013-01-09"
    assert found["champion"]["manifest_sha256"] == product.spec["champion_manifest_sha256"]
    with pytest.raises(Refused, match="the champion"):
        product.job.run(replace(spec, champion_artifact=None))


BATTERY: list[Callable[[Product], None]] = [
    metrics_are_right,
    numbers_that_are_none_hold,
    absolute_checks_hold_or_reject,
    only_later_rows_count,
    a_champion_cannot_be_overlooked,
    superiority_needs_proof,
    after_decay_not_worse_and_better_on_average_is_enough,
    a_holdout_wears_out,
    a_hold_says_how_many_more_rows,
    slices_are_guarded,
    better_models_are_promoted_and_worse_ones_rejected,
    errors_are_honest,
    days_are_what_counts,
    the_job_takes_rows_that_neither_model_has_seen,
]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of an evaluate job whose champion has seen later rows than its challenger."""
    folder = tmp_path_factory.mktemp("mutants")
    rows = flights()
    earlier = rows.filter(pc.less_equal(rows["partition_date"], pa.scalar(date(2013, 1, 8))))
    pq.write_table(rows, folder / "snapshot.parquet")
    return {
        "snapshot": str(folder / "snapshot.parquet"),
        "snapshot_sha256": sha256_of(folder / "snapshot.parquet"),
        "artifact": str(folder / "challenger"),
        "manifest_sha256": saved(folder / "challenger", earlier),
        "champion_artifact": str(folder / "champion"),
        "champion_manifest_sha256": saved(folder / "champion", rows),
        "result": str(folder / "evaluation.json"),
        "slices": ("origin",),
    }


def test_the_product_passes(spec: dict[str, Any]) -> None:
    product = Product(None, 0, spec)
    for check in BATTERY:
        check(product)


def test_every_planted_bug_is_caught(spec: dict[str, Any], record_property: Callable[[str, object], None]) -> None:
    survivors = []
    for number, mutant in enumerate(MUTANTS, start=1):
        product = Product(mutant, number, spec)
        if not any(_catches(check, product) for check in BATTERY):
            survivors.append(mutant.bug)
    record_property("mutants", len(MUTANTS))
    record_property("mutants_caught", len(MUTANTS) - len(survivors))
    print(f"mutants {len(MUTANTS)}, mutants_caught {len(MUTANTS) - len(survivors)}")
    assert not survivors


def _catches(check: Callable[[Product], None], product: Product) -> bool:
    """A wrong verdict and a crash both show: what crashes promotes nothing, and somebody looks."""
    try:
        check(product)
    except (Exception, pytest.fail.Exception):
        return True
    return False
