"""May a challenger become champion? Plain rules over the numbers of an evaluation.

Every check is closed unless a number opens it: what is missing, no number, or measured on the wrong rows holds the
challenger. PROMOTE needs proof, REJECT needs proof of the contrary, and HOLD says how many more labelled rows would decide.

Sources: paired tests as in `core.comparison`; sums of alpha as in alpha spending for sequential tests (Lan & DeMets,
Biometrika 70, 1983), here for one holdout that several challengers are judged on; Bonferroni over slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from include.core.chance import standard_errors_to

if TYPE_CHECKING:
    from include.core.evaluation import Task

Outcome = Literal["PROMOTE", "HOLD", "REJECT"]
Rule = Literal["first model", "superiority", "non-inferiority"]

# What is tested, and in which metric a difference of no consequence is told (`Rules.margin`).
LOSS: dict[str, str] = {"classification": "log_loss", "regression": "rmse"}
QUALITY: dict[str, str] = {"classification": "auc", "regression": "rmse"}
SHOWN = {"auc": "AUC", "log_loss": "log loss", "rmse": "RMSE", "average_precision": "average precision", "r2": "R²"}
# The first gate of a holdout spends this share of alpha, each further one this share of what is then left.
SPENT_PER_USE = 0.8
POWER = 0.8
NORMAL = NormalDist()
# A difference of two numbers may be off by rounding, relative to the numbers.
ROUNDING = 1e-6


@dataclass(frozen=True)
class Rules:
    """The limits, as model.yaml's section `gate` says. Margins: `margin` in AUC, or as a share of the champion's RMSE."""

    task: Task
    floors: Mapping[str, float]
    alpha: float
    max_holdout_uses: int
    margin: float
    slices: Sequence[str]
    slice_margin: float
    min_slice_rows: int
    max_calibration_error: float
    min_rows: int
    min_positives: int
    min_label_coverage: float
    max_megabytes: float
    max_seconds_per_million: float
    max_champion_age_days: int | None


@dataclass(frozen=True)
class Circumstances:
    """What the evaluation cannot know.

    Attributes:
        decay_confirmed: labels have shown that the champion got worse.
        champion_age_days: days since the last partition that the champion was trained on; None without a champion.
        label_coverage: share of the rows of the holdout that have a label; None if unknown.
        holdout_uses: how many other artifacts a gate has judged on this holdout before.
        artifact_checked: digest, schema and golden batch of the challenger are right.
    """

    decay_confirmed: bool
    champion_age_days: int | None
    label_coverage: float | None
    holdout_uses: int
    artifact_checked: bool


@dataclass(frozen=True)
class Finding:
    """One check: its short name, what it says for itself, a sentence with value and limit, and both as numbers."""

    check: str
    outcome: Outcome
    sentence: str
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Verdict:
    """PROMOTE: shown to be good enough. REJECT: shown not to be. HOLD: not enough evidence for either.

    Attributes:
        findings: every check, those that passed too.
        rows_needed: how many more labelled rows would decide a HOLD, where more rows can.
        alpha_spent: what this gate used up of the holdout's alpha.
    """

    outcome: Outcome
    rule: Rule
    findings: tuple[Finding, ...]
    rows_needed: int | None = None
    alpha_spent: float = 0.0

    @property
    def reasons(self) -> list[str]:
        """The sentences of the findings that decided."""
        if self.outcome != "PROMOTE":
            return [finding.sentence for finding in self.findings if finding.outcome == self.outcome]
        decisive = (self.rule, "floor") if self.rule == "first model" else (self.rule,)
        return [finding.sentence for finding in self.findings if finding.check.startswith(decisive)]

    def to_json(self) -> dict[str, Any]:
        return {
            "outcome": self.outcome,
            "rule": self.rule,
            "reasons": self.reasons,
            "findings": [asdict(each) | {"value": number(each.value), "limit": number(each.limit)} for each in self.findings],
            "rows_needed": self.rows_needed,
            "alpha_spent": self.alpha_spent,
        }


def judge(evaluation: Mapping[str, Any], rules: Rules, circumstances: Circumstances) -> Verdict:
    """The verdict on the challenger of an evaluation (the document that jobs/evaluate.py writes). Never raises.

    Three groups of checks. Facts about the artifact (intact, small, fast): one that fails rejects. Evidence (enough rows,
    later than training, a holdout not used up): where it is lacking the verdict is HOLD whatever the metrics say, because
    then they say nothing. Merit (floors, calibration, the comparison, slices): the strictest decides.
    """
    evaluation = _mapping(evaluation)
    rule = _rule(evaluation, rules, circumstances)
    if wrong := tuple(_rules(rules)):
        return Verdict("HOLD", rule, wrong)
    facts = list(_facts(evaluation, rules, circumstances))
    evidence = list(_evidence(evaluation, rules, circumstances, rule))
    merit = [*_floors(evaluation, rules), _calibration(evaluation, rules), *_slices(evaluation, rules, rule)]
    spent, needed = 0.0, _rows_lacking(evaluation, rules)
    if rule == "first model":
        merit.append(_first([*facts, *evidence, *merit]))
    else:
        spent = alpha_of_use(rules, circumstances)
        comparison, more = _comparison(evaluation, rules, rule, spent)
        merit += comparison
        needed = max(needed, more)
    outcome = _outcome(facts, evidence, merit)
    return Verdict(outcome, rule, (*facts, *evidence, *merit), needed or None if outcome == "HOLD" else None, spent)


def alpha_of_use(rules: Rules, circumstances: Circumstances) -> float:
    """The chance of a wrong promotion that this use of the holdout may take.

    4/5 of alpha at the first use, then 4/5 of what is left: alpha * 0.8 * 0.2**uses. The sum over all uses is below alpha.
    """
    uses = number(circumstances.holdout_uses)
    if uses is None or uses < 0 or uses >= rules.max_holdout_uses:
        return 0.0
    return rules.alpha * SPENT_PER_USE * (1 - SPENT_PER_USE) ** int(uses)


def number(value: object) -> float | None:
    """The value if it is a finite number; None for all else: NaN, infinity, text, and truth, which Python counts as 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _outcome(facts: Sequence[Finding], evidence: Sequence[Finding], merit: Sequence[Finding]) -> Outcome:
    if any(finding.outcome == "REJECT" for finding in facts):
        return "REJECT"
    if any(finding.outcome != "PROMOTE" for finding in evidence):
        return "HOLD"
    outcomes = {finding.outcome for finding in (*facts, *merit)}
    return "REJECT" if "REJECT" in outcomes else "PROMOTE" if outcomes == {"PROMOTE"} else "HOLD"


def _rule(evaluation: Mapping[str, Any], rules: Rules, circumstances: Circumstances) -> Rule:
    """Without a champion the first model; superiority, unless waiting costs more than a model that is only not worse."""
    if "champion" in evaluation and evaluation["champion"] is None and circumstances.champion_age_days is None:
        return "first model"
    age, oldest = number(circumstances.champion_age_days), number(rules.max_champion_age_days)
    too_old = age is not None and oldest is not None and age > oldest
    return "non-inferiority" if circumstances.decay_confirmed is True or too_old else "superiority"


def _rules(rules: Rules) -> Iterator[Finding]:
    """What of the rules themselves cannot be used; normally nothing."""
    if rules.task not in list(LOSS):
        yield Finding("rules", "HOLD", f"the task {rules.task!r} is unknown: correct it in the model.yaml")
    limits: dict[str, Any] = {
        name: getattr(rules, name)
        for name in ("alpha", "max_holdout_uses", "margin", "slice_margin", "min_slice_rows", "max_calibration_error", "min_rows",
                     "min_positives", "min_label_coverage", "max_megabytes", "max_seconds_per_million")
    }  # fmt: skip
    if rules.max_champion_age_days is not None:
        limits["max_champion_age_days"] = rules.max_champion_age_days
    for name, limit in limits.items():
        value = number(limit)
        if value is None or value < 0 or (name == "alpha" and not 1e-6 <= value < 0.5):
            yield Finding("rules", "HOLD", f"gate.{name} is {limit!r}, which is no limit: correct it in the model.yaml")
    if not rules.floors:
        yield Finding(
            "rules", "HOLD", "gate.floors is empty, so nothing would be asked of a first model: add one in the model.yaml"
        )
    for name, floor in rules.floors.items():
        if number(floor) is None:
            yield Finding(
                "rules", "HOLD", f"the floor of {name} is {floor!r}, which is no number: correct gate.floors in the model.yaml"
            )


def _facts(evaluation: Mapping[str, Any], rules: Rules, circumstances: Circumstances) -> Iterator[Finding]:
    checked = circumstances.artifact_checked
    if checked is True:
        yield Finding(
            "artifact",
            "PROMOTE",
            "The model's files are what was registered, and it scores its golden rows as it did after training.",
        )
    elif checked is False:
        yield Finding("artifact", "REJECT", "The model's files failed their check (digest, schema or golden rows): train again.")
    else:
        yield Finding("artifact", "HOLD", "The model's files have not been checked (digest, schema, golden rows).")
    challenger = _mapping(evaluation.get("challenger"))
    yield _at_most("size", "The model file", challenger.get("megabytes"), rules.max_megabytes, "MB")
    speed = challenger.get("seconds_per_million")
    yield _at_most("speed", "Scoring a million rows", speed, rules.max_seconds_per_million, "s of CPU time")


def _evidence(evaluation: Mapping[str, Any], rules: Rules, circumstances: Circumstances, rule: Rule) -> Iterator[Finding]:
    if evaluation.get("task") != rules.task:
        yield Finding("task", "HOLD", f"The evaluation is one of {evaluation.get('task')!r}, the model is a {rules.task}.")
    yield _rows(evaluation, rules)
    if rules.task == "classification":
        yield _classes(evaluation, rules)
    yield _coverage(circumstances.label_coverage, rules.min_label_coverage)
    yield _later(evaluation, "challenger")
    if rule == "first model":
        if evaluation.get("comparisons"):
            yield Finding("champion", "HOLD", "The evaluation has no champion, and yet compares the challenger with one.")
        return
    yield _same_champion(evaluation)
    yield _later(evaluation, "champion")
    yield _uses(circumstances.holdout_uses, rules)
    if rules.max_champion_age_days is not None and circumstances.decay_confirmed is not True:
        yield _age(circumstances.champion_age_days, rules.max_champion_age_days)
    if not isinstance(circumstances.decay_confirmed, bool):
        yield Finding(
            "decay", "HOLD", f"Whether the champion's decay is confirmed is unknown ({circumstances.decay_confirmed!r})."
        )


def _rows(evaluation: Mapping[str, Any], rules: Rules) -> Finding:
    rows = number(evaluation.get("rows"))
    if rows is None or rows < 0:
        return _unknown("rows", "The number of labelled rows", evaluation.get("rows"), rules.min_rows)
    if rows == 0:
        return Finding("rows", "HOLD", "The holdout is empty: nothing was measured.", rows, rules.min_rows)
    sentence = f"The holdout has {rows:,.0f} labelled rows; at least {rules.min_rows:,} are needed."
    return Finding("rows", "PROMOTE" if rows >= rules.min_rows else "HOLD", sentence, rows, rules.min_rows)


def _classes(evaluation: Mapping[str, Any], rules: Rules) -> Finding:
    rows, positives = number(evaluation.get("rows")), number(evaluation.get("positives"))
    if rows is None or positives is None or not 0 <= positives <= rows:
        return _unknown("classes", "The number of positive rows", evaluation.get("positives"), rules.min_positives)
    rarer = min(positives, rows - positives)
    # One row of each class is the least of which anything can be told, whatever the rules say.
    enough = rarer >= max(rules.min_positives, 1)
    what = "Of the rarer class" if rarer else "All labels are of one class: of the other"
    sentence = f"{what} the holdout has {rarer:,.0f} rows; at least {rules.min_positives:,} are needed."
    return Finding("classes", "PROMOTE" if enough else "HOLD", sentence, rarer, rules.min_positives)


def _coverage(coverage: object, least: float) -> Finding:
    value = number(coverage)
    if value is None or not 0 <= value <= 1:
        return _unknown("label coverage", "The share of rows that have a label", coverage, least)
    sentence = f"{value:.1%} of the holdout's rows have a label; at least {least:.1%} are needed, or those that have one mislead."
    return Finding("label coverage", "PROMOTE" if value >= least else "HOLD", sentence, value, least)


def _later(evaluation: Mapping[str, Any], role: str) -> Finding:
    first, trained = _day(evaluation.get("first")), _day(_mapping(evaluation.get(role)).get("trained_to"))
    check = f"split {role}"
    if first is None or trained is None:
        return Finding(check, "HOLD", f"Whether the holdout is later than the {role}'s training is unknown.")
    if first > trained:
        return Finding(check, "PROMOTE", f"The holdout begins on {first}, after the {role}'s last day of training, {trained}.")
    return Finding(
        check,
        "HOLD",
        f"The holdout begins on {first}, but the {role} was trained up to {trained}: it has seen rows that it is judged on.",
    )


def _same_champion(evaluation: Mapping[str, Any]) -> Finding:
    champion, challenger = _mapping(evaluation.get("champion")), _mapping(evaluation.get("challenger"))
    if not champion:
        return Finding("champion", "HOLD", "There is a champion, but it was not evaluated: nothing can be compared.")
    digests = champion.get("manifest_sha256"), challenger.get("manifest_sha256")
    if not all(isinstance(digest, str) and digest for digest in digests):
        return Finding("champion", "HOLD", "Which models were compared is unknown.")
    if digests[0] == digests[1]:
        return Finding(
            "champion", "HOLD", f"The challenger is the champion itself ({str(digests[0])[:12]}): there is nothing to promote."
        )
    return Finding("champion", "PROMOTE", "Champion and challenger were evaluated on the same rows.")


def _uses(uses: object, rules: Rules) -> Finding:
    value = number(uses)
    if value is None or value < 0 or value != int(value):
        return _unknown("holdout uses", "How often this holdout was used", uses, rules.max_holdout_uses)
    if value >= rules.max_holdout_uses:
        sentence = (
            f"This holdout has judged {value:.0f} other models, and may judge {rules.max_holdout_uses}: wait for newer labels."
        )
        return Finding("holdout uses", "HOLD", sentence, value, rules.max_holdout_uses)
    sentence = (
        f"This holdout has judged {value:.0f} other models; it may judge {rules.max_holdout_uses} before newer labels are needed."
    )
    return Finding("holdout uses", "PROMOTE", sentence, value, rules.max_holdout_uses)


def _age(age: object, oldest: int) -> Finding:
    value = number(age)
    if value is None or value < 0:
        return _unknown("champion age", "How old the champion is", age, oldest)
    sentence = f"The champion was trained up to {value:,.0f} days ago; beyond {oldest:,} days one that is not worse replaces it."
    return Finding("champion age", "PROMOTE", sentence, value, oldest)


def _floors(evaluation: Mapping[str, Any], rules: Rules) -> list[Finding]:
    metrics = _mapping(_mapping(evaluation.get("challenger")).get("metrics"))
    return [_floor(name, _mapping(metrics.get(name)), floor) for name, floor in sorted(rules.floors.items())]


def _floor(name: str, metric: Mapping[str, Any], floor: float) -> Finding:
    check, shown = f"floor {name}", SHOWN.get(name, name)
    value, high = number(metric.get("value")), number(metric.get("high"))
    if value is None:
        return Finding(
            check, "HOLD", f"{shown} could not be measured ({metric.get('value')!r}); its floor is {floor:g}.", None, floor
        )
    if value >= floor:
        return Finding(check, "PROMOTE", f"{shown} {value:.4f} is at or above its floor {floor:g}.", value, floor)
    if high is None or high >= floor:
        sentence = f"{shown} {value:.4f} is below its floor {floor:g}, though by no more than chance could make it."
        return Finding(check, "HOLD", sentence, value, floor)
    return Finding(check, "REJECT", f"{shown} {value:.4f} is below its floor {floor:g}, beyond chance.", value, floor)


def _calibration(evaluation: Mapping[str, Any], rules: Rules) -> Finding:
    """Above the limit the challenger is held; it is rejected if what lies outside the bins' intervals alone is above it."""
    challenger, limit = _mapping(evaluation.get("challenger")), rules.max_calibration_error
    value = number(challenger.get("calibration_error"))
    if value is None or value < 0:
        return _unknown("calibration", "The calibration error", challenger.get("calibration_error"), limit)
    sentence = f"Forecasts differ from outcomes by {value:.4f} on average; at most {limit:g} is tolerated."
    if value <= limit:
        return Finding("calibration", "PROMOTE", sentence, value, limit)
    shown = value * _beyond_chance(_list(challenger.get("calibration"))) > limit
    return Finding("calibration", "REJECT" if shown else "HOLD", sentence, value, limit)


def _beyond_chance(bins: Sequence[Any]) -> float:
    """The share of the calibration error that lies outside the intervals of the bins' outcomes."""
    distance = outside = 0.0
    for item in map(_mapping, bins):
        values = [number(item.get(key)) for key in ("forecast", "outcome", "low", "high", "rows")]
        forecast, outcome, low, high, rows = (math.nan if value is None else value for value in values)
        distance += rows * abs(forecast - outcome)
        outside += rows * max(0.0, forecast - high, low - forecast)
    # A comparison with NaN is false: bins that lack a number show nothing.
    return outside / distance if distance > 0 and outside > 0 else 0.0


def _first(others: Sequence[Finding]) -> Finding:
    if all(finding.outcome == "PROMOTE" for finding in others):
        return Finding("first model", "PROMOTE", "There is no champion yet, and the model passes every absolute check.")
    return Finding("first model", "HOLD", "There is no champion yet, but the model does not pass every absolute check.")


def _comparison(evaluation: Mapping[str, Any], rules: Rules, rule: Rule, alpha: float) -> tuple[list[Finding], int]:
    """The findings of the comparison with the champion, and how many more labelled rows would decide it."""
    names = list(dict.fromkeys((LOSS[rules.task], QUALITY[rules.task])))
    pairs = {name: _pair(evaluation, name) for name in names}
    faults = [pair for pair in pairs.values() if isinstance(pair, Finding)]
    loss, quality = pairs[names[0]], pairs[names[-1]]
    if isinstance(loss, Finding) or isinstance(quality, Finding):
        return faults, 0
    if alpha <= 0:
        return [
            Finding(rule, "HOLD", "Nothing is left of the chance of error that this holdout allows: wait for newer labels.")
        ], 0
    margin = rules.margin * (1.0 if quality.metric == "auc" else quality.champion)
    if not margin > 0:
        return [Finding(rule, "HOLD", f"The champion's {SHOWN[quality.metric]} is 0: no share of it can be told.")], 0
    z = standard_errors_to(alpha, loss.groups)
    if not math.isfinite(z):
        return [Finding(rule, "HOLD", "Rows of one day depend on each other, so a single day shows nothing: hold out more.")], 0
    finding = (_superiority if rule == "superiority" else _non_inferiority)(loss, quality, margin, z, alpha)
    shown = SHOWN[quality.metric]
    worse = quality.improvement < -margin
    guard = Finding(
        "ranking" if quality.metric == "auc" else "error",
        "REJECT" if quality.at_most(z) < -margin else "HOLD" if worse else "PROMOTE",
        f"{shown} {quality.champion:.4f} of the champion, {quality.challenger:.4f} of the challenger ({quality.improvement:+.4f} "
        f"towards better); worse by more than {margin:.4g} would be of consequence.",
        quality.improvement,
        -margin,
    )
    undecided = "HOLD" in (finding.outcome, guard.outcome)
    return [finding, guard], _rows_to_decide(number(evaluation.get("rows")), quality.error, margin, z) if undecided else 0


@dataclass(frozen=True)
class _Pair:
    """One metric of both models; `improvement` is positive where the challenger is better, `error` its standard error,
    which rests on so many independent `groups` of rows (None: on the rows themselves)."""

    metric: str
    champion: float
    challenger: float
    improvement: float
    error: float
    groups: int | None

    def at_least(self, z: float) -> float:
        return self.improvement - z * self.error

    def at_most(self, z: float) -> float:
        return self.improvement + z * self.error


def _pair(evaluation: Mapping[str, Any], metric: str) -> _Pair | Finding:
    """A comparison that can be believed: all numbers there, and the same that the models' own metrics say."""
    check, shown = f"comparison {metric}", SHOWN[metric]
    found = [item for item in _list(evaluation.get("comparisons")) if _mapping(item).get("metric") == metric]
    if len(found) != 1:
        return Finding(check, "HOLD", f"The evaluation compares {shown} {len(found)} times, not once.")
    values = {name: number(found[0].get(name)) for name in ("champion", "challenger", "improvement", "standard_error")}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        return Finding(check, "HOLD", f"The comparison of {shown} lacks a number: {', '.join(missing)}.")
    champion, challenger, improvement, error = (value for value in values.values() if value is not None)
    if error < 0 or (error == 0 and improvement != 0):
        return Finding(check, "HOLD", f"How sure the comparison of {shown} is cannot be told (standard error {error:g}).", error)
    difference = challenger - champion if metric == "auc" else champion - challenger
    models = [
        _mapping(_mapping(_mapping(evaluation.get(role)).get("metrics")).get(metric)) for role in ("champion", "challenger")
    ]
    own = [number(model.get("value")) for model in models]
    agree = all(one is not None and _close(one, other) for one, other in zip(own, (champion, challenger), strict=True))
    if not agree or not _close(improvement, difference, champion, challenger):
        compared = f"champion {champion:g}, challenger {challenger:g}, improvement {improvement:g}"
        sentence = f"The comparison of {shown} ({compared}) contradicts itself, or the models' own metrics ({own[0]}, {own[1]})."
        return Finding(check, "HOLD", sentence)
    groups = found[0].get("groups")
    if groups is not None and (not isinstance(groups, int) or isinstance(groups, bool) or groups < 1):
        return Finding(check, "HOLD", f"On how many days the comparison of {shown} rests cannot be told ({groups!r}).")
    return _Pair(metric, champion, challenger, improvement, error, groups)


def _superiority(loss: _Pair, quality: _Pair, margin: float, z: float, alpha: float) -> Finding:
    least, most, best = loss.at_least(z), loss.at_most(z), quality.at_most(z)
    numbers = f"{_both(loss)}, with {1 - alpha:.1%} confidence"
    if least > 0:
        return Finding("superiority", "PROMOTE", f"{numbers} at least {least:+.4f}: shown to be better.", least, 0.0)
    if most < 0:
        return Finding("superiority", "REJECT", f"{numbers} at most {most:+.4f}: shown to be worse.", least, 0.0)
    if best < margin:
        sentence = (
            f"{numbers} at least {least:+.4f}: not shown to be better; and in {SHOWN[quality.metric]} better by at most "
            f"{best:+.4f}, while less than {margin:.4g} is of no consequence."
        )
        return Finding("superiority", "REJECT", sentence, least, 0.0)
    return Finding(
        "superiority", "HOLD", f"{numbers} at least {least:+.4f}: above 0 is needed, this could be chance.", least, 0.0
    )


def _non_inferiority(loss: _Pair, quality: _Pair, margin: float, z: float, alpha: float) -> Finding:
    least = quality.at_least(z)
    numbers = f"{_both(quality)}, with {1 - alpha:.1%} confidence at least {least:+.4f} ({-margin:+.4g} is tolerated)"
    if loss is not quality:
        numbers += f"; {_both(loss)}"
    if least > -margin and quality.improvement > 0 and loss.improvement > 0:
        return Finding("non-inferiority", "PROMOTE", f"{numbers}: shown to be not worse, and better on average.", least, -margin)
    if quality.at_most(z) < 0 or loss.at_most(z) < 0:
        return Finding("non-inferiority", "REJECT", f"{numbers}: shown to be worse.", least, -margin)
    return Finding("non-inferiority", "HOLD", f"{numbers}: not shown to be at least as good.", least, -margin)


def _both(pair: _Pair) -> str:
    values = f"{pair.champion:.4f} of the champion, {pair.challenger:.4f} of the challenger"
    shown = SHOWN[pair.metric]
    return f"{shown[0].upper()}{shown[1:]} {values}: an improvement of {pair.improvement:+.4f}"


def _rows_to_decide(rows: float | None, error: float, margin: float, z: float) -> int:
    """More labelled rows for 80 % power to see an improvement of `margin`: standard errors shrink with the root of the rows.

    Where that power is there already, the estimate lies between nothing and the margin: then as many as make the interval
    no wider than the margin, which tells one from the other.
    """
    if rows is None or rows <= 0 or error <= 0:
        return 0
    for spread in (z + NORMAL.inv_cdf(POWER), 2 * z):
        times = spread * error / margin
        more = rows * times * times - rows
        if 0 < more < math.inf:
            return math.ceil(more)
    return 0


def _rows_lacking(evaluation: Mapping[str, Any], rules: Rules) -> int:
    """More labelled rows until there are `min_rows`, and `min_positives` of the rarer class at its present share."""
    rows, positives = number(evaluation.get("rows")), number(evaluation.get("positives"))
    if rows is None or rows < 0:
        return 0
    more = max(0.0, rules.min_rows - rows)
    if rules.task == "classification" and positives is not None and 0 < positives < rows:
        rarer = min(positives, rows - positives)
        more = max(more, (rules.min_positives - rarer) * rows / rarer)
    return math.ceil(more) if math.isfinite(more) else 0


def _slices(evaluation: Mapping[str, Any], rules: Rules, rule: Rule) -> list[Finding]:
    """No judged slice may be worse by more than its margin, shown at alpha over the number of judged slices (Bonferroni)."""
    findings, judged = [], []
    for column in rules.slices:
        found = [item for item in map(_mapping, _list(evaluation.get("slices"))) if item.get("column") == column]
        counts = [number(item.get("rows")) for item in found]
        large = [item for item, rows in zip(found, counts, strict=True) if rows is not None and rows >= rules.min_slice_rows]
        judged += large
        outcome: Outcome = "HOLD"
        if not found:
            sentence = f"The evaluation has no slices by {column}, which gate.slices asks for."
        elif None in counts or sum(rows or 0 for rows in counts) != number(evaluation.get("rows")):
            sentence = f"The slices by {column} together are not the rows of the holdout: some are missing."
        else:
            outcome = "PROMOTE"
            sentence = (
                f"{column}: {len(large)} of {len(found)} values have the {rules.min_slice_rows:,} rows it takes to judge them."
            )
        findings.append(Finding(f"slices {column}", outcome, sentence, float(len(large))))
    share = rules.alpha / max(1, len(judged))
    return [*findings, *(_slice(item, rules, rule, share) for item in judged)]


def _slice(item: Mapping[str, Any], rules: Rules, rule: Rule, alpha: float) -> Finding:
    name = f"{item.get('column')} = {item.get('value')}"
    asked = (
        ("challenger_loss",) if rule == "first model" else ("challenger_loss", "champion_loss", "improvement", "standard_error")
    )
    values = {key: number(item.get(key)) for key in asked}
    missing = [key for key, value in values.items() if value is None]
    if missing:
        return Finding(f"slice {name}", "HOLD", f"{name}: a number is missing: {', '.join(missing)}.")
    if rule == "first model":
        return Finding(
            f"slice {name}", "PROMOTE", f"{name}: mean loss {values['challenger_loss']:.4f}; no champion to compare it with."
        )
    challenger, champion, improvement, error = (value for value in values.values() if value is not None)
    if error < 0 or not _close(improvement, champion - challenger, champion, challenger):
        return Finding(f"slice {name}", "HOLD", f"{name}: its numbers contradict each other.")
    limit = -rules.slice_margin * champion
    groups = item.get("groups")
    spread = standard_errors_to(alpha, groups if isinstance(groups, int) else None)
    worse, shown = improvement < limit, improvement + spread * error < 0
    losses = f"mean loss {champion:.4f} of the champion, {challenger:.4f} of the challenger"
    sentence = f"{name}: {losses}; at most {champion - limit:.4f} is tolerated"
    if worse and shown:
        return Finding(f"slice {name}", "REJECT", f"{sentence}: shown to be worse.", improvement, limit)
    return Finding(f"slice {name}", "PROMOTE", f"{sentence}{', and more could be chance' if worse else ''}.", improvement, limit)


def _at_most(check: str, what: str, value: object, limit: float, unit: str) -> Finding:
    measured = number(value)
    if measured is None or measured < 0:
        return _unknown(check, what, value, limit)
    sentence = f"{what} takes {measured:,.2f} {unit}; at most {limit:,.0f} {unit} is allowed."
    return Finding(check, "PROMOTE" if measured <= limit else "REJECT", sentence, measured, limit)


def _unknown(check: str, what: str, value: object, limit: float) -> Finding:
    return Finding(check, "HOLD", f"{what} is unknown ({value!r}); the limit is {limit:g}.", None, limit)


def _close(one: float, other: float, *scale: float) -> bool:
    return abs(one - other) <= ROUNDING * max(abs(one), abs(other), *map(abs, scale))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _day(value: object) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
