"""The page about one evaluation: what was decided about a challenger, by which rule, and all numbers behind it.

One HTML file that loads nothing and runs nothing. Everything it shows may be missing: a first model has no champion, a small
holdout no curve. What is missing is said, never shown as a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from markupsafe import Markup

from include import charts
from include.core.chance import standard_errors_to
from include.page_values import MISSING, as_list, as_mapping, clean, count, is_number, number, word

PAGE = Path(__file__).resolve().parent / "templates" / "evaluation.html"
MAX_CHANGES = 30

METRICS = {  # name → (in words, direction)
    "auc": ("AUC (ranking)", "higher"),
    "average_precision": ("Average precision", "higher"),
    "log_loss": ("Log loss", "lower"),
    "brier": ("Brier score", "lower"),
    "rmse": ("RMSE", "lower"),
    "mae": ("Mean absolute error", "lower"),
    "r2": ("R²", "higher"),
}
OUTCOMES = {  # outcome → (sign, first model, later models)
    "PROMOTE": (
        "✔",
        "The challenger may become the first champion.",
        "The challenger may replace the champion.",
    ),
    "HOLD": (
        "‖",
        "Not enough evidence yet. No model is promoted.",
        "Not enough evidence yet, for or against the challenger. The champion stays.",
    ),
    "REJECT": (
        "✕",
        "The challenger is not good enough. No model is promoted.",
        "The challenger is not good enough. The champion stays.",
    ),
}
RULES = {
    "first model": "There is no champion to compare with: the challenger must meet every absolute limit.",
    "superiority": "The challenger must be shown to be better than the champion on the same rows, with no more than the small "
    "chance of error that the gate allows. And it must meet every absolute limit.",
    "non-inferiority": "The champion has decayed or is older than it may be. So the challenger must look better than it, and be "
    "shown not to be worse by more than a margin of no consequence. And it must meet every absolute limit.",
}
FINDINGS = {"PROMOTE": ("passed", 2), "HOLD": ("not enough evidence", 1), "REJECT": ("failed", 0)}


def render(title: str, run: Mapping[str, Any], evaluation: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    """The page, as one self-contained HTML document.

    Args:
        title: what people call the model.
        run: as_of, reason, run_id, snapshot, first, last (days of the snapshot), git_revision.
        evaluation: the document that the evaluation wrote. Keys that are absent are taken for null.
        verdict: `Verdict.to_json()` of the gate.
    """
    from jinja2 import Environment, StrictUndefined

    title, run, evaluation, verdict = (clean(each) for each in (title, run, evaluation, verdict))
    champion, challenger = as_mapping(evaluation.get("champion")), as_mapping(evaluation.get("challenger"))
    regression = evaluation.get("task") == "regression"
    models = [("challenger", challenger), *([("champion", champion)] if champion else [])]
    view = {
        "title": title,
        "style": charts.STYLE,
        "keys": [charts.key(0), charts.key(1)],
        "has_champion": bool(champion),
        "regression": regression,
        "run": {name: word(run.get(name)) for name in ("as_of", "reason")},
        "verdict": _verdict(verdict, evaluation, bool(champion)),
        "metrics": _metrics(challenger, champion, evaluation.get("comparisons")),
        "curves": [] if regression else _curves(models, evaluation),
        "calibration": _calibration(models, regression),
        "slices": _slices(evaluation.get("slices"), regression, bool(champion), verdict.get("findings")),
        "changes": _changes(evaluation.get("data_changes")),
        "scores": _scores(evaluation.get("scores"), bool(champion), regression),
        "findings": _findings(verdict.get("findings")),
        "facts": _facts(run, evaluation, verdict),
        "model_facts": _model_facts(models),
    }
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(view)


def _verdict(verdict: Mapping[str, Any], evaluation: Mapping[str, Any], has_champion: bool) -> dict[str, Any]:
    outcome = str(verdict.get("outcome"))
    if outcome not in OUTCOMES:
        outcome = "HOLD"
    sign, *sentences = OUTCOMES[outcome]
    rule = str(verdict.get("rule") or "")
    return {
        "outcome": outcome,
        "sign": sign,
        "sentence": sentences[has_champion],
        "rule": rule or "not recorded",
        "rule_sentence": RULES.get(rule, ""),
        "reasons": [word(reason) for reason in as_list(verdict.get("reasons"))],
        "needed": _needed(verdict.get("rows_needed"), evaluation) if outcome == "HOLD" else "",
    }


def _needed(rows: Any, evaluation: Mapping[str, Any]) -> str:
    """How much more evidence it would take, in rows and, at the pace of the holdout, in days."""
    if not is_number(rows) or rows <= 0:
        return "It cannot be said how many more labelled rows would settle it."
    told = f"About {count(rows)} more labelled rows would be needed to settle it"
    days, had = _days(evaluation), evaluation.get("rows")
    if not days or not is_number(had) or not had:
        return f"{told}."
    more = math.ceil(rows / (had / days))
    return f"{told}: at the pace of this holdout, {count(more)} more {'day' if more == 1 else 'days'} of labels."


def _metrics(challenger: Mapping[str, Any], champion: Mapping[str, Any], comparisons: Any) -> list[dict[str, Any]]:
    """A row for each metric of either model: both values, and the paired improvement where it was computed."""
    ours, theirs = as_mapping(challenger.get("metrics")), as_mapping(champion.get("metrics"))
    compared = {str(each.get("metric")): each for each in as_list(comparisons) if isinstance(each, Mapping)}
    names = [name for name in METRICS if name in ours or name in theirs]
    rows = []
    for name in [*names, *sorted((ours.keys() | theirs.keys()) - METRICS.keys())]:
        title, direction = METRICS.get(name, (name, ""))
        challenged, defended = _estimate(ours.get(name), 0), _estimate(theirs.get(name), 1)
        improvement = _improvement(compared.get(name))
        told = f"{title}: challenger {_interval(challenged)}" + (f", champion {_interval(defended)}" if champion else "")
        rows.append({
            "title": title,
            "direction": f"{direction} is better" if direction else "",
            "challenger": _interval(challenged),
            "champion": _interval(defended),
            "plot": _levels([defended, challenged] if champion else [challenged], told),
            "improvement": _interval(improvement, signed=True),
            "judgement": _judged(improvement),
            "improvement_plot": _improvement_plot(title, improvement),
        })
    return rows


def _levels(estimates: Sequence[charts.Estimate], told: str) -> Markup | str:
    return charts.interval_plot(estimates, title=told) if any(is_number(each.value) for each in estimates) else ""


def _improvement_plot(title: str, improvement: charts.Estimate) -> Markup | str:
    if improvement.value is None:
        return ""
    told = f"{title}: improvement {_interval(improvement, signed=True)}"
    return charts.interval_plot([improvement], title=told, reference=0.0)


def _curves(models: Sequence[tuple[str, Mapping[str, Any]]], evaluation: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows, positives = evaluation.get("rows"), evaluation.get("positives")
    base = positives / rows if is_number(rows) and is_number(positives) and rows else None
    wanted: list[tuple[str, str, str, str, str, list[tuple[float, float]], str]] = [
        (
            *("roc", "ROC", "false positive rate", "true positive rate", "auc"),
            [(0.0, 0.0), (1.0, 1.0)],
            "Towards the upper left is better. Dotted: a model that guesses.",
        ),
        (
            *("pr", "Precision and recall", "recall", "precision", "average_precision"),
            [(0.0, base), (1.0, base)] if base is not None else [],
            f"Towards the upper right is better. Dotted: a model that guesses, {_percent(base)} of the rows are positive.",
        ),
    ]
    figures = []
    for name, title, x_label, y_label, metric, reference, caption in wanted:
        lines = [charts.Line(who, _points(model.get(name))) for who, model in models]
        if not any(line.points for line in lines):
            figures.append({"title": title, "chart": "", "caption": "There is no such curve: the holdout does not allow it."})
            continue
        areas = [f"{who} {_interval(_estimate(as_mapping(model.get('metrics')).get(metric), 0))}" for who, model in models]
        chart = charts.line_chart(
            lines,
            title=f"{title} curve. {METRICS[metric][0]}: {', '.join(areas)}",
            x_label=x_label,
            y_label=y_label,
            x_range=(0.0, 1.0),
            y_range=(0.0, 1.0),
            reference=reference,
        )
        missing = "".join(f" No curve of the {who}." for (who, _), line in zip(models, lines, strict=True) if not line.points)
        figures.append({"title": title, "chart": chart, "caption": caption + missing})
    return figures


def _calibration(models: Sequence[tuple[str, Mapping[str, Any]]], regression: bool) -> dict[str, Any]:
    """Forecast against outcome in bins of the forecast, drawn and as numbers."""
    lines, tables = [], []
    for who, model in models:
        bins = [each for each in as_list(model.get("calibration")) if isinstance(each, Mapping)]
        usable = [each for each in bins if is_number(each.get("forecast")) and is_number(each.get("outcome"))]
        whiskers = [_whisker(each.get("low"), each.get("high")) for each in usable]
        lines.append(charts.Line(who, [(each["forecast"], each["outcome"]) for each in usable], whiskers, dots=True))
        tables.append({
            "who": who,
            "error": _figure(model.get("calibration_error")),
            "rows": [
                {
                    "forecast": _figure(each.get("forecast")),
                    "outcome": _interval(charts.Estimate(each.get("outcome"), each.get("low"), each.get("high"))),
                    "rows": count(each.get("rows")),
                }
                for each in bins
            ],
        })
    drawn = [line for line in lines if line.points]
    if not drawn:
        return {"chart": "", "tables": tables}
    ends = [value for line in drawn for point in line.points for value in point]
    ends += [value for line in drawn for whisker in line.whiskers if whisker for value in whisker]
    low, high = min(ends), max(ends)
    if not regression:
        low, high = 0.0, min(1.0, high * 1.05)
    errors = ", ".join(f"{table['who']} {table['error']}" for table in tables)
    chart = charts.line_chart(
        lines,
        title=f"Outcome against forecast. Calibration error: {errors}",
        x_label="mean forecast" if regression else "forecast probability",
        y_label="mean outcome" if regression else "share of positives",
        x_range=(low, high),
        y_range=(low, high),
        reference=[(low, low), (high, high)],
    )
    return {"chart": chart, "tables": tables}


def _whisker(low: Any, high: Any) -> tuple[float, float] | None:
    return (low, high) if is_number(low) and is_number(high) else None


def _slices(slices: Any, regression: bool, has_champion: bool, findings: Any) -> dict[str, Any]:
    """Slices by column, and a forest plot of their improvement: one strip per slice, all on the same scale.

    What the gate judged it says in a finding `slice <column> = <value>`; other slices are grey.
    """
    found = [each for each in as_list(slices) if isinstance(each, Mapping)]
    results = {str(each.get("check")): str(each.get("outcome")) for each in as_list(findings) if isinstance(each, Mapping)}
    names = [f"slice {each.get('column')} = {each.get('value')}" for each in found]
    small = [name not in results for name in names]
    estimates = [_improvement(each, muted=grey) for each, grey in zip(found, small, strict=True)]
    forest = None
    if has_champion and any(estimate.value is not None for estimate in estimates):
        titles = [f"{word(each.get('column'))} {word(each.get('value'))}: improvement" for each in found]
        forest = charts.forest(
            estimates,
            titles=[f"{title} {_interval(estimate, signed=True)}" for title, estimate in zip(titles, estimates, strict=True)],
            axis_title="Scale of the improvement; to the right of zero the challenger is better",
        )
    columns: dict[str, list[dict[str, Any]]] = {}
    for place, (each, grey, estimate) in enumerate(zip(found, small, estimates, strict=True)):
        columns.setdefault(word(each.get("column")), []).append({
            "value": word(each.get("value"), 60),
            "small": grey,
            "result": FINDINGS.get(results.get(names[place], ""), ("", 0))[0],
            "failed": results.get(names[place]) in ("REJECT", "HOLD"),
            "rows": count(each.get("rows")),
            "positives": count(each.get("positives")),
            "challenger_loss": _figure(each.get("challenger_loss")),
            "champion_loss": _figure(each.get("champion_loss")),
            "challenger_auc": _figure(each.get("challenger_auc"), 3),
            "champion_auc": _figure(each.get("champion_auc"), 3),
            "improvement": _interval(estimate, signed=True),
            "strip": forest.rows[place] if forest else "",
        })
    return {
        "columns": columns,
        "axis": forest.axis if forest else "",
        "loss": "Squared error" if regression else "Log loss",
        "any_small": any(small),
        "any_auc": any(is_number(each.get(f"{who}_auc")) for each in found for who in ("challenger", "champion")),
    }


def _changes(changes: Any) -> dict[str, Any] | None:
    """None: it was not looked at. No rows: looked at, and nothing to tell."""
    if not isinstance(changes, list):
        return None
    found = [each for each in changes if isinstance(each, Mapping)]
    rows = []
    for each in found[:MAX_CHANGES]:
        rows.append({
            "feature": word(each.get("feature"), 60),
            "distance": _figure(each.get("distance"), 3),
            "cell": word(each.get("cell"), 80),
            "before": _percent(each.get("before")),
            "after": _percent(each.get("after")),
        })
    return {"rows": rows, "more": max(0, len(found) - MAX_CHANGES)}


def _scores(scores: Any, has_champion: bool, regression: bool) -> Markup | str:
    scores = as_mapping(scores)
    counts = [(who, as_list(scores.get(who))) for who in ("challenger", "champion") if who == "challenger" or has_champion]
    counts = [(who, each) for who, each in counts if all(is_number(count) and count >= 0 for count in each) and sum(each)]
    edges = as_list(scores.get("edges"))
    if not counts or counts[0][0] != "challenger":
        return ""
    # JSON has no infinity: an end without a number is open.
    edges = [sign * math.inf if edge is None else edge for sign, edge in zip([-1, *[1] * len(edges)], edges, strict=False)]
    who = "both models" if len(counts) > 1 else "the challenger"
    x_label = "forecast" if regression else "score (probability)"
    try:
        return charts.histogram(edges, counts, title=f"Distribution of the scores of {who}", x_label=x_label)
    except ValueError:
        return ""


def _findings(findings: Any) -> list[dict[str, str]]:
    """What failed first, then what could not be told, then what passed."""
    found = [each for each in as_list(findings) if isinstance(each, Mapping)]
    rows = []
    for each in found:
        told, order = FINDINGS.get(str(each.get("outcome")), ("not enough evidence", 1))
        value, limit = _short(each.get("value")), _short(each.get("limit"))
        row = {"check": word(each.get("check")), "sentence": word(each.get("sentence")), "value": value, "limit": limit}
        rows.append((order, {**row, "told": told, "kind": ("failed", "open", "passed")[order]}))
    return [row for _, row in sorted(rows, key=lambda ordered: ordered[0])]


def _facts(run: Mapping[str, Any], evaluation: Mapping[str, Any], verdict: Mapping[str, Any]) -> dict[str, str]:
    days = _days(evaluation)
    holdout = f"{word(evaluation.get('first'))} to {word(evaluation.get('last'))}"
    rows, positives = evaluation.get("rows"), evaluation.get("positives")
    facts = {
        "As of": word(run.get("as_of")),
        "Why this run": word(run.get("reason")),
        "Holdout": f"{holdout} ({days} {'day' if days == 1 else 'days'})" if days else holdout,
        "Labelled rows in it": count(rows),
    }
    if evaluation.get("task") != "regression":
        share = f" ({_percent(positives / rows)})" if is_number(rows) and is_number(positives) and rows else ""
        facts["Positives"] = count(positives) + share
    return facts | {
        "Rows both models decide differently": _percent(evaluation.get("churn")),
        "Chance of a wrong promotion spent": _percent(verdict.get("alpha_spent")),
        "Snapshot": word(run.get("snapshot")),
        "Days of the snapshot": f"{word(run.get('first'))} to {word(run.get('last'))}",
        "Run": word(run.get("run_id")),
        "Code revision": word(run.get("git_revision")),
    }


def _model_facts(models: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, list[str]]]:
    def each(told: Any) -> list[str]:
        return [told(model) for _, model in models]

    return [
        ("Trained on", each(lambda m: f"{word(m.get('trained_from'))} to {word(m.get('trained_to'))}")),
        ("Training rows", each(lambda m: count(m.get("training_rows")))),
        ("Size", each(lambda m: _with_unit(m.get("megabytes"), "MB"))),
        ("CPU time per million rows", each(lambda m: _with_unit(m.get("seconds_per_million"), "s"))),
        ("Calibration error", each(lambda m: _figure(m.get("calibration_error")))),
        ("Digest of the manifest", each(lambda m: word(m.get("manifest_sha256")))),
    ]


def _estimate(metric: Any, style: int) -> charts.Estimate:
    metric = as_mapping(metric)
    return charts.Estimate(metric.get("value"), metric.get("low"), metric.get("high"), style)


def _improvement(compared: Any, *, muted: bool = False) -> charts.Estimate:
    """The paired improvement with its 95 % interval, from its standard error."""
    compared = as_mapping(compared)
    value, error = compared.get("improvement"), compared.get("standard_error")
    if not is_number(value):
        return charts.Estimate(None, muted=muted)
    groups = compared.get("groups")
    half = standard_errors_to(0.025, groups if isinstance(groups, int) else None)
    if not is_number(error) or error < 0 or not math.isfinite(half):
        return charts.Estimate(value, muted=muted)
    return charts.Estimate(value, value - half * error, value + half * error, muted=muted)


def _judged(improvement: charts.Estimate) -> str:
    """Better, worse, or cannot be told apart, at 95 %."""
    if improvement.value is None or improvement.low is None or improvement.high is None:
        return ""
    if improvement.low > 0:
        return "better"
    return "worse" if improvement.high < 0 else "cannot be told apart"


def _interval(estimate: charts.Estimate, *, signed: bool = False) -> str:
    """ "0.7412 [0.7315, 0.7509]", with the decimals that the interval allows: two digits of its half-width."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if not is_number(value):
        return MISSING
    if not is_number(low) or not is_number(high):
        return _signed(_figure(value), value, signed)
    half = (high - low) / 2
    decimals = min(8, max(0, 1 - math.floor(math.log10(half)))) if half > 0 else _decimals(value)
    ends = ", ".join(_signed(number(end, decimals), end, signed) for end in (low, high))
    return f"{_signed(number(value, decimals), value, signed)} [{ends}]"


def _signed(text: str, value: Any, signed: bool) -> str:
    return f"+{text}" if signed and value > 0 and any(digit in text for digit in "123456789") else text


def _figure(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits."""
    return number(value, _decimals(value, digits)) if is_number(value) else MISSING


def _short(value: Any) -> str:
    """A number with at most four significant digits, as people write limits: 500, 0.6, 0.0123."""
    text = _figure(value)
    return text.rstrip("0").rstrip(".") if "." in text else text


def _decimals(value: float, digits: int = 4) -> int:
    if not value:
        return 0
    power = math.floor(math.log10(abs(value)))
    return max(0, digits - 1 - power) if power >= 0 else min(8, max(digits, 1 - power))


def _percent(value: Any) -> str:
    if not is_number(value):
        return MISSING
    percent = 100 * value
    return f"{number(percent, 2 if 0 < abs(percent) < 1 else 1)} %"


def _with_unit(value: Any, unit: str) -> str:
    return f"{_figure(value, 3)} {unit}" if is_number(value) else MISSING


def _days(evaluation: Mapping[str, Any]) -> int | None:
    try:
        first, last = (date.fromisoformat(str(evaluation.get(end))) for end in ("first", "last"))
    except ValueError:
        return None
    return (last - first).days + 1 if last >= first else None


def _points(curve: Any) -> list[tuple[float, float]]:
    points = [tuple(point) for point in as_list(curve) if isinstance(point, list | tuple) and len(point) == 2]
    return [(x, y) for x, y in points if is_number(x) and is_number(y)]
