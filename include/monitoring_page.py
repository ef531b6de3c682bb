"""The page about one monitoring run: whether the data and the model are still as they should be, and all numbers behind it.

And the page that lists all runs of a model. Each is one HTML file that loads nothing and runs nothing. Every number may be
missing: what is not known is said, never shown as a number, and "cannot judge" never looks like "ok".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from include import charts
from include.page_values import MISSING, as_list, as_mapping, clean, count, is_number, number, word

TEMPLATES = Path(__file__).resolve().parent / "templates"
MAX_NAME = 80
NARROW_DAYS = 28  # of quality by day on a narrow screen
SHOWN = 12  # rows of a table before the rest is folded away; alarms are always shown, up to the next
SHOWN_ALARMS = 40
MAX_SENTENCES = 10
MAX_FIGURES = 6
MAX_VALUES = 8  # of a categorical feature in its chart
MAX_STRIPS = 12
SHOWN_RUNS = 31

OUTCOMES = {  # outcome → (sign, the same as a picture, tone, CSS class, what it means)
    "ok": ("✔", "check", "good", "ok", "No alarm: nothing that could be judged is beyond its limits."),
    "cannot judge": (
        *("?", "question", "warn", "unjudged"),
        "There is not enough to judge by. This does not say that all is well.",
    ),
    "broken data": (
        "✕",
        "cross",
        "bad",
        "broken",
        "The data that came in are broken: what the model says about them is doubtful.",
    ),
    "covariate drift": ("▲", "up", "warn", "drift", "The data are no longer like those of the days before."),
    "quality decay": ("▽", "down", "bad", "decay", "The model is worse than it was expected to be."),
    "worse champion": ("◆", "diamond", "bad", "worse", "The model does worse than the one that it replaced."),
}
MODEL_COLUMNS = ("score", "decision")
QUALITY = {"ok": ("✔", "passed", "as expected"), "decay": ("▽", "failed", "worse than expected")}
ACTIONS = {
    "mail": "a mail to those who look after the model",
    "request labels": "labels are requested",
    "request training": "a training is requested",
    "roll back": "the champion before is put back",
}
OTHER = "other values"
PERIODS = {1: "in a day", 7: "in a week", 28: "in four weeks"}
SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")  # what may stand in a link of the index


def render(title: str, document: Mapping[str, Any]) -> str:
    """The page of one run, as one self-contained HTML document.

    Args:
        title: what people call the model.
        document: what the monitoring of a partition found. Keys that are absent are taken for null.
    """
    title, document = clean(title), as_mapping(clean(document))
    comparisons = _rows(document.get("comparisons"))
    features = [each for each in comparisons if each.get("column") not in MODEL_COLUMNS]
    model = [each for each in comparisons if each.get("column") in MODEL_COLUMNS]
    profiles = {who: as_mapping(document.get(who)) for who in ("reference", "baseline", "current")}
    heats = {
        "features": _heat(features, _horizons(comparisons)),
        "model": _heat(model, _horizons(comparisons), MODEL_COLUMNS),
        "pairs": _heat(_rows(document.get("pairs")), _horizons(_rows(document.get("pairs"))), pairs=True),
    }
    quality = _quality(as_mapping(document.get("quality")), _rows(document.get("changes")))
    view = {
        "title": title,
        "style": charts.STYLE,
        "partition": word(document.get("partition")),
        "model_version": word(document.get("model_version")),
        "sample": _sample(document),
        "verdict": _verdict(as_mapping(document.get("verdict")), document.get("partition")),
        "faults": [
            {name: word(each.get(name)) for name in ("column", "kind", "sentence")} for each in _rows(document.get("faults"))
        ],
        "heats": heats,
        "power": _power(features, document.get("rows")),
        "distributions": _distributions(heats["features"], profiles),
        "score": _score(profiles),
        "labels": _labels(_rows(as_mapping(document.get("quality")).get("labels")), _rows(document.get("changes"))),
        "quality": quality,
        "missing": _missing(_rows(document.get("missing"))),
        "proxies": _proxies(_rows(document.get("proxies")), _rows(document.get("changes"))),
        "slices": _slices(_rows(as_mapping(document.get("quality")).get("slices"))),
        "facts": _facts(document),
        "links": [_link(each) for each in _rows(document.get("links"))],
        "keys": [charts.key(0, dots=False), charts.key(1, dots=False), charts.dot_key(2)],
        "bar_keys": [charts.bar_key(style) for style in (0, 1, 2)],
    }
    return _filled("monitoring.html", view)


def render_index(title: str, entries: Sequence[Mapping[str, Any]]) -> str:
    """The page of all runs of a model, the newest first.

    Args:
        title: what people call the model.
        entries: partition, outcome, sentence, rows, model_version, origin, and `href`: where the page is from the folder of
            this one, "2013-07-01/report.html". One that is no such path gets no link. Of several entries of one partition,
            the first of them with the highest `publication` stands for it in the calendar.
    """
    title, entries = clean(title), _rows(clean(entries))
    newest = sorted(entries, key=lambda each: (str(each.get("partition")), _or_zero(each.get("publication"))), reverse=True)
    runs = []
    for each in newest:
        outcome = str(each.get("outcome"))
        told, picture, tone, kind, _ = _outcome(outcome)
        href, origin = str(each.get("href") or ""), str(each.get("origin") or "scheduled")
        runs.append({
            "partition": word(each.get("partition"), MAX_NAME),
            "publication": count(each.get("publication")),
            "href": href if all(SEGMENT.fullmatch(part) for part in href.split("/")) else "",
            "origin": "" if origin == "scheduled" else word(origin, MAX_NAME),
            "outcome": word(outcome if each.get("outcome") else "cannot judge", MAX_NAME),
            "sign": charts.sign(picture, tone),
            "text_sign": told,
            "kind": kind,
            "sentence": word(each.get("sentence")),
            "rows": count(each.get("rows")),
            "model_version": word(each.get("model_version"), MAX_NAME),
        })
    marks, width = _calendar(newest)
    counts = {name: sum(str(each.get("outcome")) == name for each in newest) for name in OUTCOMES}
    view = {
        "title": title,
        "style": charts.STYLE,
        "runs": runs[:SHOWN_RUNS],
        "older": runs[SHOWN_RUNS:],
        "calendar": marks,
        "width": width,
        "latest": runs[0] if runs else None,
        "any_rows": any(is_number(each.get("rows")) for each in entries),
        "legend": [
            {"sign": charts.sign(OUTCOMES[name][1], OUTCOMES[name][2]), "outcome": name, "count": number}
            for name, number in counts.items()
        ],
    }
    return _filled("monitoring_index.html", view)


def _filled(template: str, view: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string((TEMPLATES / template).read_text(encoding="utf-8")).render(view)


def _outcome(outcome: str) -> tuple[str, str, str, str, str]:
    """How an outcome is shown; one that nobody knows is not judged."""
    return OUTCOMES.get(outcome, OUTCOMES["cannot judge"])


def _calendar(entries: Sequence[Mapping[str, Any]]) -> tuple[Markup | str, int]:
    """The newest publication of each day; `entries` are the newest first."""
    marks: dict[date, charts.Mark] = {}
    for each in entries:
        day = _day(each.get("partition"))
        if day is not None and day not in marks:
            outcome = str(each.get("outcome"))
            _, picture, tone, _, _ = _outcome(outcome)
            marks[day] = charts.Mark(picture, tone, outcome if outcome in OUTCOMES else "cannot judge")
    if not marks:
        return "", 0
    first, last = min(marks), max(marks)
    alarms = sum(mark.words not in ("ok", "cannot judge") for mark in marks.values())
    title = f"Outcome of each day from {first.isoformat()} to {last.isoformat()}: {alarms} of {len(marks)} days with an alarm"
    return charts.calendar(marks, title=title, last=last)


def _verdict(verdict: Mapping[str, Any], partition: Any) -> dict[str, Any]:
    outcome = str(verdict.get("outcome") or "")
    sign, _, _, kind, meaning = _outcome(outcome)
    since, told = verdict.get("since"), ""
    if outcome not in OUTCOMES or outcome in ("ok", "cannot judge"):
        told = f"So it has been since {word(since)}." if since and since != partition else ""
    elif since:
        told = "It began on this day." if since == partition else f"It began on {word(since)}."
    if verdict.get("repeated") is True:
        told = f"{told} It was told before and has not grown.".strip()
    sentences = [word(each) for each in as_list(verdict.get("sentences"))]
    return {
        "outcome": "OK" if outcome == "ok" else outcome.capitalize() if outcome in OUTCOMES else "Cannot judge",
        "unknown": outcome if outcome not in OUTCOMES else "",
        "sign": sign,
        "kind": kind,
        "meaning": meaning,
        "sentences": sentences[:MAX_SENTENCES],
        "more": sentences[MAX_SENTENCES:],
        "actions": [ACTIONS.get(str(each), word(each)) for each in as_list(verdict.get("actions"))],
        "since": told,
        "notes": [word(each) for each in as_list(verdict.get("notes"))],
    }


def _sample(document: Mapping[str, Any]) -> str:
    """How many rows were looked at, of how many."""
    rows, population, sample = (document.get(name) for name in ("rows", "population", "sample"))
    if not is_number(rows):
        return "It is not known how many rows were looked at."
    if is_number(population) and population > rows:
        share = _percent(sample if is_number(sample) and 0 < sample < 1 else rows / population)
        return f"{count(rows)} of the {count(population)} published rows were looked at, a sample of {share}."
    if rows == population:
        return f"All {count(rows)} published rows were looked at." if rows else "No row was published."
    return f"{count(rows)} rows were looked at."


def _heat(
    comparisons: Sequence[Mapping[str, Any]], horizons: Sequence[float], order: Sequence[str] = (), *, pairs: bool = False
) -> dict[str, Any]:
    """Columns by horizons: the furthest from its baseline, in parts of its limit, first; alarms before all others.

    Returns:
        `rows` to be shown, and `rest` to be folded away.
    """
    columns: dict[str, dict[float, Mapping[str, Any]]] = {}
    for each in comparisons:
        if is_number(each.get("horizon")):
            columns.setdefault(word(each.get("column")), {})[each["horizon"]] = each
    rows: list[dict[str, Any]] = []
    for column, found in columns.items():
        ratios = [ratio for each in found.values() if (ratio := _ratio(each)) is not None]
        alarm = any(each.get("state") == "alarm" for each in found.values())
        worst = max(found.values(), key=lambda each: (each.get("state") == "alarm", _or_least(_ratio(each))))
        rows.append({
            "column": word(column, MAX_NAME),
            "name": column,
            "alarm": alarm,
            "largest": max(ratios, default=-1.0),
            "cells": [_cell(column, horizon, found.get(horizon)) for horizon in horizons],
            "words": _change(worst, pairs, _most_rows(comparisons, worst.get("horizon"))),
            "reasons": _reasons(found),
            "judged": any(each.get("state") in ("ok", "alarm") for each in found.values()),
        })
    if order:
        rows.sort(key=lambda row: order.index(row["name"]))
    else:
        rows.sort(key=lambda row: (not row["alarm"], -row["largest"], row["name"]))
    alarms = sum(row["alarm"] for row in rows)
    shown = max(SHOWN, min(alarms, SHOWN_ALARMS))
    # A reason that all rows share is told once.
    shared = [reason for reason in (rows[0]["reasons"] if len(rows) > 1 else []) if all(reason in row["reasons"] for row in rows)]
    for row in rows:
        row["why"] = "; ".join(reason for reason in row["reasons"] if reason not in shared)
    unjudged = sum(not row["judged"] for row in rows)
    told = f"{alarms} of {len(rows)} with an alarm" + (f", {unjudged} cannot be judged" if unjudged else "")
    return {
        "rows": rows[:shown],
        "rest": rows[shown:],
        "shared": shared,
        "told": f"{told}. {_sizes(comparisons)}.",
        "horizons": [_days(horizon) for horizon in horizons],
    }


def _cell(column: str, horizon: float, compared: Mapping[str, Any] | None) -> dict[str, Any]:
    if compared is None:
        return {
            "kind": "none",
            "figure": MISSING,
            "figures": "",
            "heat": "0",
            "title": f"{column}, {_days(horizon)}: not compared",
        }
    ratio, state = _ratio(compared), compared.get("state")
    kind = state if state in ("alarm", "ok") else "unjudged"
    figure = _ratio_word(ratio) if ratio is not None else "cannot judge" if kind == "unjudged" else MISSING
    figures = f"{_small(compared.get('distance'))} of {_small(compared.get('limit'))}"
    told = [
        f"{column}, {_days(horizon)}: {kind if kind != 'unjudged' else 'cannot judge'}",
        f"distance {_figure(compared.get('distance'), 3)}, limit {_figure(compared.get('limit'), 3)}",
        f"{count(compared.get('rows'))} rows against {count(compared.get('baseline_rows'))}",
        f"windows {count(compared.get('windows'))}",
    ]
    if compared.get("why"):
        told.append(word(compared.get("why"), 300))
    return {
        "kind": kind,
        "figure": figure,
        "figures": figures if ratio is not None else f"{count(compared.get('rows'))} rows",
        "heat": f"{min(max(ratio or 0.0, 0.0), 1.5) / 1.5:.2f}",
        "title": ". ".join(told),
    }


def _change(compared: Mapping[str, Any], pairs: bool, usual_rows: float | None) -> dict[str, str]:
    """What changed most, in words, over the horizon that says most."""
    before, after, shift = (compared.get(name) for name in ("before", "after", "shift"))
    what = ""
    if pairs:
        if is_number(before) or is_number(after):
            what = f"rank correlation {_figure(before, 2)} → {_figure(after, 2)}"
    elif compared.get("cell"):
        what = f"{word(compared.get('cell'), 120)}: {_percent(before)} → {_percent(after)}"
    if what and is_number(shift) and abs(shift) >= 0.005 and not pairs:
        what += f", values {'grew' if shift > 0 else 'fell'} ({_signed(shift, 2)})"
    small = _days(compared.get("horizon"))
    if compared.get("rows") != usual_rows:
        small += f", {count(compared.get('rows'))} rows against {count(compared.get('baseline_rows'))}"
    return {"what": what, "small": small}


def _reasons(found: Mapping[float, Mapping[str, Any]]) -> list[str]:
    """What was not judged and why; of an alarm what changed is said anyway."""
    reasons: dict[str, list[float]] = {}
    for horizon, each in sorted(found.items()):
        if each.get("why") and (
            each.get("state") not in ("ok", "alarm") or (each.get("state") == "alarm" and not _has_change(each))
        ):
            reasons.setdefault(word(each.get("why"), 300), []).append(horizon)
    return [f"{_days_together(horizons)}: {reason}" for reason, horizons in reasons.items()]


def _has_change(compared: Mapping[str, Any]) -> bool:
    return bool(compared.get("cell")) or is_number(compared.get("before"))


def _days_together(horizons: Sequence[float]) -> str:
    *others, last = horizons
    return f"{', '.join(map(count, others))} and {_days(last)}" if others else _days(last)


def _ratio(compared: Mapping[str, Any]) -> float | None:
    distance, limit = compared.get("distance"), compared.get("limit")
    return distance / limit if is_number(distance) and is_number(limit) and limit > 1e-12 and distance >= 0 else None


def _ratio_word(ratio: float) -> str:
    return f"{ratio:,.2f}" if ratio < 10 else f"{ratio:,.0f}" if ratio < 1e6 else f"{ratio:.0e}"


def _horizons(comparisons: Sequence[Mapping[str, Any]]) -> list[float]:
    return sorted({each["horizon"] for each in comparisons if is_number(each.get("horizon"))})[:6]


def _sizes(comparisons: Sequence[Mapping[str, Any]]) -> str:
    """How many rows stand behind each horizon."""
    told = []
    for horizon in _horizons(comparisons):
        rows, before = (_most_rows(comparisons, horizon, name) for name in ("rows", "baseline_rows"))
        told.append(f"{_days(horizon)}: {count(rows)} rows against {count(before)}")
    return "; ".join(told)


def _most_rows(comparisons: Sequence[Mapping[str, Any]], horizon: Any, name: str = "rows") -> float | None:
    found = [count for each in comparisons if each.get("horizon") == horizon and is_number(count := each.get(name))]
    return max(found, default=None)


def _power(features: Sequence[Mapping[str, Any]], rows: Any) -> str:
    """The smallest shift that would be seen: the distance is about the square of the shift in standard deviations."""
    seen: dict[float, list[float]] = {}
    for each in features:
        limit, horizon = each.get("limit"), each.get("horizon")
        if is_number(limit) and limit > 0 and is_number(horizon):
            seen.setdefault(horizon, []).append(math.sqrt(limit))
    if not seen:
        return "How small a shift would be seen cannot be said: no feature has a limit yet."
    told = [f"{_figure(median(shifts), 2)} {_period(horizon)}" for horizon, shifts in sorted(seen.items())]
    first = min(seen)
    sentence = f"With {count(rows)} rows a day, a shift of the mean of a typical feature by "
    sentence += f"{told[0].replace(' ', ' standard deviations would be seen ', 1)}"
    sentence += "".join(f", by {each}" for each in told[1:])
    low, high = min(seen[first]), max(seen[first])
    if _figure(low, 2) != _figure(high, 2):
        sentence += f" ({_figure(low, 2)} to {_figure(high, 2)} {_period(first)}, by feature)"
    return f"{sentence}. Smaller shifts may pass unseen."


def _period(horizon: float) -> str:
    return PERIODS.get(int(horizon), f"in {_days(horizon)}")


def _days(horizon: Any) -> str:
    return "1 day" if horizon == 1 else f"{count(horizon)} days"


def _distributions(heat: Mapping[str, Any], profiles: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The features that changed most, cell by cell; where nothing was compared, the first ones."""
    compared = {row["name"]: row for row in [*heat["rows"], *heat["rest"]]}
    names = [*compared, *(name for name in profiles["current"] if name not in compared and name not in MODEL_COLUMNS)]
    figures = []
    for name in names:
        figure = _distribution(name, profiles, bool(compared.get(name, {}).get("alarm")))
        if figure:
            figures.append(figure)
        if len(figures) == MAX_FIGURES:
            break
    return figures


def _distribution(name: str, profiles: Mapping[str, Mapping[str, Any]], alarm: bool = False) -> dict[str, Any] | None:
    """Shares of the day, of the days before and of the training in the same cells. None: nothing to show."""
    found = {who: as_mapping(profile.get(name)) for who, profile in profiles.items()}
    cells = found["current"] or found["baseline"]
    words = _cell_words(cells)
    # What was counted in other cells cannot stand beside it.
    counts = {who: _all_counts(each) if _same_cells(each, cells) else [] for who, each in found.items()}
    counts = {who: each if len(each) == len(words) else [] for who, each in counts.items()}
    totals = {who: sum(each) for who, each in counts.items()}
    if not totals["current"] and not totals["baseline"]:
        return None
    shares = {who: [count / totals[who] for count in each] if totals[who] else [] for who, each in counts.items()}
    order = _order(cells, shares, len(words))
    pairs = []
    for places, label in order:
        now, before, reference = (
            sum(shares[who][place] for place in places) if shares[who] else None for who in ("current", "baseline", "reference")
        )
        label = label or words[places[0]]
        told = f"{label}: {_percent(now)} of the day, {_percent(before)} before, {_percent(reference)} in training"
        figures = f"{_plain_percent(before)} → {_plain_percent(now)}"
        summed = len(places) > 1 or (cells.get("kind") == "categorical" and places[0] == len(words) - 2)
        pairs.append(charts.Pair(word(label, MAX_NAME), now, before, reference, figures, told, cut=summed))
    sizes = {"current": "of the day", "baseline": "of the days before", "reference": "of the training"}
    caption = ", ".join(f"{count(totals[who])} rows {told}" for who, told in sizes.items() if totals[who])
    missing = [told for who, told in sizes.items() if not totals[who]]
    ends = [(told, _span_of(found[who])) for who, told in (("current", "of the day"), ("baseline", "before")) if totals[who]]
    ranges = ", ".join(f"{span} {told}" for told, span in ends if span)
    title = f"{word(name, MAX_NAME)}: shares of the day, of the days before and of the training"
    return {
        "name": word(name, MAX_NAME),
        "alarm": alarm,
        "chart": charts.bars(pairs, title=title, heading="before → day, %"),
        "caption": f"{caption}."
        + (f" Least to largest: {ranges}." if ranges else "")
        + "".join(f" No comparable rows {told}." for told in missing),
    }


def _span_of(cells: Mapping[str, Any]) -> str:
    low, high = cells.get("low"), cells.get("high")
    return f"{_edge_label(low, 4)} to {_edge_label(high, 4)}" if is_number(low) and is_number(high) else ""


def _order(cells: Mapping[str, Any], shares: Mapping[str, Sequence[float]], length: int) -> list[tuple[list[int], str]]:
    """Which cells make a row of the chart, and its name if it is not that of the cell."""

    def most(place: int) -> float:
        return max((each[place] for each in shares.values() if each), default=0.0)

    def moved(place: int) -> float:
        now, before = shares["current"], shares["baseline"] or shares["reference"]
        return abs(now[place] - before[place]) if now and before else most(place)

    if cells.get("kind") != "categorical":
        return [([place], "") for place in range(length) if most(place) > 0]
    values, other, missing = list(range(length - 2)), length - 2, length - 1
    frequent = sorted(values, key=lambda place: -most(place))
    changed = sorted(frequent[MAX_VALUES // 2 :], key=lambda place: -moved(place))
    kept = sorted([*frequent[: MAX_VALUES // 2], *changed[: MAX_VALUES - MAX_VALUES // 2]])
    rest = [place for place in values if place not in kept]
    rows: list[tuple[list[int], str]] = [([place], "") for place in kept]
    if rest or most(other) > 0:
        rows.append(([*rest, other], OTHER))
    return [*rows, *([([missing], "")] if most(missing) > 0 else [])]


def _cell_words(cells: Mapping[str, Any]) -> list[str]:
    """The cells of a profile in the order of their counts, in words short enough for a chart."""
    if cells.get("kind") == "categorical":
        return [*(word(value, MAX_NAME) for value in as_list(cells.get("values"))), OTHER, "missing"]
    edges = as_list(cells.get("edges"))
    if not all(is_number(edge) for edge in edges):
        return []
    rest = ["missing", "not finite"]
    if not edges:
        return ["any number", *rest]
    labels = _edge_labels(edges)
    words = [f"up to {labels[0]}"]
    for (low, high), (below, above) in zip(pairwise(edges), pairwise(labels), strict=True):
        if _is_alone(low, high):
            words[-1] = f"below {above}" if len(words) == 1 else f"between {words[-1].replace(' to ', ' and ')}"
            words.append(f"exactly {above}")
        else:
            words.append(f"{below} to {above}")
    return [*words, f"above {labels[-1]}", *rest]


def _edge_labels(edges: Sequence[float]) -> list[str]:
    """With as many digits as tell them apart; a cell of a single value has the same name for both of its edges."""
    for digits in range(3, 8):
        labels = [_edge_label(edge, digits) for edge in edges]
        if all(a != b or _is_alone(low, high) for (a, b), (low, high) in zip(pairwise(labels), pairwise(edges), strict=True)):
            break
    return labels


def _edge_label(edge: float, digits: int) -> str:
    if abs(edge) < 1e-300:
        return "0"
    if not 1e-4 <= abs(edge) < 1e7:
        return f"{edge:.{digits}g}".replace("-", "−")
    text = number(edge, max(0, digits - 1 - math.floor(math.log10(abs(edge)))))
    return text.rstrip("0").rstrip(".") if "." in text else text


def _is_alone(low: float, high: float) -> bool:
    """Whether the cell between two edges holds a single value: the lower one is the number just below."""
    return low == math.nextafter(high, -math.inf) or (high == 0 and -1e-300 < low < 0)


def _all_counts(cells: Mapping[str, Any]) -> list[float]:
    rest = ("other", "missing") if cells.get("kind") == "categorical" else ("missing", "not_finite")
    counts = [*as_list(cells.get("counts")), *(cells.get(name, 0) for name in rest)]
    return counts if all(is_number(count) and count >= 0 for count in counts) else []


def _same_cells(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return bool(one) and all(one.get(key) == other.get(key) for key in ("kind", "edges", "values"))


def _score(profiles: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    figures = [figure for name in MODEL_COLUMNS if (figure := _distribution(name, profiles))]
    return {"figures": figures}


def _labels(labels: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Mean label against mean score of the same rows. None: there are no labels."""
    rate, score = _series("mean label", labels, "rate"), _series("mean score", labels, "score_mean")
    if not _has_values(rate):
        return None
    labelled = sum(each["labelled"] for each in labels if is_number(each.get("labelled")))
    chart = charts.timeline(
        [rate, score], title="Mean label and mean score of the same rows, by day", y_label="mean", events=_events(changes)
    )
    return {"chart": chart, "caption": f"{count(labelled)} labelled rows of {_span(rate)}."}


def _quality(quality: Mapping[str, Any], changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Loss against what the model itself expects, in windows and by day."""
    metric, days = word(quality.get("metric") or "loss", MAX_NAME), _rows(quality.get("days"))
    metric = metric[:1].upper() + metric[1:]
    sign, kind, state = QUALITY.get(str(quality.get("state")), ("?", "open", "cannot judge"))
    loss, expected = _series("loss", days, "loss"), _series("expected", days, "expected")
    then = _series("known then", days, "loss_known_then", dots=True)
    auc, auc_then = _series("AUC", days, "auc"), _series("known then", days, "auc_known_then", dots=True)
    events, names = _events(changes), ("rows", "labelled")
    told = [(f"{metric} by day against the model's own expectation", metric.lower(), [loss, expected, then], 250)]
    told.append(("AUC by day", "AUC", [auc, charts.Series("", []), auc_then], 170))
    return {
        "metric": metric,
        "sign": sign,
        "kind": kind,
        "state": state,
        "sentence": word(quality.get("sentence")) if quality.get("sentence") else "",
        "windows": _windows(_rows(quality.get("windows")), metric),
        "figures": [_over_time(*each, events) for each in told if _has_values(each[2][0])],
        "any_then": _has_values(then),
        "any_auc": any(is_number(each.get("auc")) or is_number(each.get("auc_known_then")) for each in days),
        "labelled": count(sum(each["labelled"] for each in days if is_number(each.get("labelled")))),
        "days": [
            {
                "partition": word(each.get("partition"), MAX_NAME),
                "model_version": word(each.get("model_version"), MAX_NAME),
                **{name: count(each.get(name)) for name in names},
                "coverage": _percent(each.get("coverage")),
                "loss": _figure(each.get("loss")),
                "expected": _figure(each.get("expected")),
                "auc": _figure(each.get("auc"), 3),
                "loss_then": _figure(each.get("loss_known_then")),
                "auc_then": _figure(each.get("auc_known_then"), 3),
                "coverage_then": _percent(each.get("coverage_known_then")),
            }
            for each in reversed(days)
        ],
        "previous": _previous(quality.get("previous")),
    }


def _over_time(
    title: str, y_label: str, series: Sequence[charts.Series], height: int, events: Sequence[tuple[date, str]]
) -> dict[str, Any]:
    """All days in a wide chart, and the last ones in one for a narrow screen."""
    last = max(day for each in series for day, _ in each.values)
    late = [replace(each, values=[(d, v) for d, v in each.values if (last - d).days < NARROW_DAYS]) for each in series]
    wide = charts.timeline(series, title=f"{title}, {_span(series[0])}", y_label=y_label, events=events, width=720, height=height)
    title = f"{title}, the last {NARROW_DAYS} days"
    return {"wide": wide, "narrow": charts.timeline(late, title=title, y_label=y_label, events=events)}


def _windows(windows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    estimates = [_apart(each) for each in windows]
    told = [
        f"{metric} less expected, {_days(each.get('days'))}: {_interval(e)}" for each, e in zip(windows, estimates, strict=True)
    ]
    limits = [each.get("limit") for each in windows]
    forest = None
    if any(estimate.value is not None for estimate in estimates):
        axis = "Scale of the loss less what was expected; to the right of zero the model is worse than expected"
        forest = charts.forest(estimates, titles=told, axis_title=axis, limits=limits)
    rows = []
    for place, (each, estimate) in enumerate(zip(windows, estimates, strict=True)):
        rows.append({
            "days": f"Last {_days(each.get('days'))}",
            "found": f"{count(each.get('found'))} with labels" if is_number(each.get("found")) else "",
            "state": "{0} {2}".format(*QUALITY.get(str(each.get("state")), ("?", "open", "cannot judge")))
            if each.get("state")
            else "",
            "labelled": count(each.get("labelled")),
            "coverage": _percent(each.get("coverage")),
            "loss": _figure(each.get("loss")),
            "expected": _figure(each.get("expected")),
            "difference": _interval(estimate),
            "limit": _figure(each.get("limit"), 2),
            "strip": forest.rows[place] if forest else "",
        })
    return {
        "rows": rows,
        "axis": forest.axis if forest else "",
        "any_coverage": any(is_number(each.get("coverage")) for each in windows),
    }


def _apart(window: Mapping[str, Any]) -> charts.Estimate:
    """The loss less what was expected, with its interval."""
    loss, expected, low, high = (window.get(name) for name in ("loss", "expected", "low", "high"))
    if not is_number(loss) or not is_number(expected):
        return charts.Estimate(None)
    return charts.Estimate(loss - expected, *((low, high) if is_number(low) and is_number(high) else ()))


def _previous(previous: Any) -> dict[str, str] | None:
    previous = as_mapping(previous)
    if not previous:
        return None
    estimate = charts.Estimate(previous.get("difference"), previous.get("low"), previous.get("high"))
    return {
        "version": f" (version {word(previous.get('version'), MAX_NAME)})" if previous.get("version") else "",
        "days": _days(previous.get("days")),
        "labelled": f", {count(previous.get('labelled'))} labelled rows" if is_number(previous.get("labelled")) else "",
        "difference": _interval(estimate),
        "sentence": word(previous.get("sentence")) if previous.get("sentence") else "",
    }


def _missing(days: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of missing values by day, of the columns that ever have some; those of today and the most first."""
    shares = [as_mapping(each.get("shares")) for each in days]
    names = dict.fromkeys(name for each in shares for name in each)
    rows: list[dict[str, Any]] = []
    for name in names:
        values = [value if is_number(value := each.get(name)) else None for each in shares]
        known = [value for value in values if value is not None]
        if not known or max(known) <= 0:
            continue
        last, highest = values[-1], max(known)
        earlier = [value for value in values[:-1] if value is not None]
        rows.append({
            "column": word(name, MAX_NAME),
            "last": _percent(last),
            "usual": _percent(median(earlier)) if earlier else MISSING,
            "highest": _percent(highest),
            "rank": (-abs((last or 0.0) - (median(earlier) if earlier else 0.0)), -highest, str(name)),
            "strip": charts.spark(values, title=f"{word(name, MAX_NAME)}: missing values by day, at most {_percent(highest)}"),
        })
    rows.sort(key=lambda row: row["rank"])
    return {
        "rows": rows[:MAX_STRIPS],
        "rest": rows[MAX_STRIPS:],
        "days": len(days),
        "columns": len(names),
        "none": len(names) - len(rows),
        "first": word(days[0].get("partition"), MAX_NAME) if days else MISSING,
        "last": word(days[-1].get("partition"), MAX_NAME) if days else MISSING,
    }


def _proxies(days: Sequence[Mapping[str, Any]], changes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What can be seen of the model without any label."""
    wanted = {
        "score_mean": ("Mean score", "mean score", None),
        "positive_rate": ("Share of positive decisions", "share", None),
        "confidence": ("Confidence", "mean confidence", None),
        "rows": ("Rows", "rows", 0.0),
    }
    figures = []
    for name, (title, label, floor) in wanted.items():
        series = _series(title, days, name)
        if _has_values(series):
            last = next(value for _, value in reversed(series.values) if value is not None)
            chart = charts.timeline(
                [series],
                title=f"{title} by day, {_span(series)}",
                y_label=label,
                events=_events(changes),
                height=150,
                floor=floor,
            )
            told = count(last) if name == "rows" else _figure(last, 3)
            figures.append({"title": title, "chart": chart, "caption": f"Last: {told}."})
    rows = [
        {
            "partition": word(each.get("partition"), MAX_NAME),
            "model_version": word(each.get("model_version"), MAX_NAME),
            "rows": count(each.get("rows")),
            **{name: _figure(each.get(name), 3) for name in ("score_mean", "positive_rate", "confidence")},
        }
        for each in reversed(days)
    ]
    return {"figures": figures, "rows": rows}


def _slices(slices: Sequence[Mapping[str, Any]]) -> dict[str, list[dict[str, str]]]:
    """By feature; the values that are furthest above what was expected come first."""
    columns: dict[str, list[tuple[float, dict[str, str]]]] = {}
    for each in slices:
        difference = _apart(each).value
        row = {
            "value": word(each.get("value"), 60),
            "labelled": count(each.get("labelled")),
            "loss": _figure(each.get("loss")),
            "expected": _figure(each.get("expected")),
            "difference": _interval(charts.Estimate(difference)),
        }
        columns.setdefault(word(each.get("slice"), MAX_NAME), []).append((-_or_least(difference), row))
    return {name: [row for _, row in sorted(rows, key=lambda each: each[0])] for name, rows in columns.items()}


def _facts(document: Mapping[str, Any]) -> dict[str, str]:
    run = as_mapping(document.get("run"))
    return {
        "Partition": word(document.get("partition")),
        "Publication": count(document.get("publication")),
        "Model version": word(document.get("model_version")),
        "Kind of run": word(document.get("origin")),
        "Rows published": count(document.get("population")),
        "Rows looked at": f"{count(document.get('rows'))} (sample: {_percent(document.get('sample'))})",
        "DAG": word(run.get("dag_id")),
        "Run": word(run.get("run_id")),
        "Code revision": word(run.get("git_revision")),
    }


def _link(link: Mapping[str, Any]) -> dict[str, str]:
    """An address that a browser may follow as a page; any other is shown as text."""
    href = str(link.get("href") or "")
    followed = re.fullmatch(r"https?://[^\s\\]+|(?!//)[./]{0,30}[A-Za-z0-9#?_%][^\s:\\]*", href)
    return {"text": word(link.get("text") or href, 200), "href": href if followed else "", "address": word(href, 300)}


def _events(changes: Sequence[Mapping[str, Any]]) -> list[tuple[date, str]]:
    """When a version was promoted, or rolled back to."""
    found = []
    for each in changes:
        day = _day(each.get("partition"))
        if day is not None:
            action = str(each.get("action"))
            told = {"promote": "version {}", "roll_back": "back to {}"}.get(action, "version {}")
            found.append((day, told.format(word(each.get("version"), 12))))
    return found


def _series(name: str, days: Sequence[Mapping[str, Any]], key: str, *, dots: bool = False) -> charts.Series:
    # Of a day that two versions share, the one with more labels.
    ranked = sorted(days, key=lambda each: _or_zero(each.get("labelled")))
    found = {day: each for each in ranked if (day := _day(each.get("partition"))) is not None}
    values = [(day, value if is_number(value := each.get(key)) else None) for day, each in sorted(found.items())]
    return charts.Series(name, values, dots)


def _has_values(series: charts.Series) -> bool:
    return any(value is not None for _, value in series.values)


def _span(series: charts.Series) -> str:
    days = [day for day, value in series.values if value is not None]
    return f"{min(days).isoformat()} to {max(days).isoformat()}" if len(days) > 1 else days[0].isoformat()


def _day(value: Any) -> date | None:
    try:
        return date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _interval(estimate: charts.Estimate) -> str:
    """ "+0.012 [−0.010, +0.034]", with the decimals that the interval allows."""
    value, low, high = estimate.value, estimate.low, estimate.high
    if not is_number(value):
        return MISSING
    if not is_number(low) or not is_number(high):
        return _signed(value, 4 if abs(value) < 10 else 1)
    half = abs(high - low) / 2
    decimals = min(8, max(0, 1 - math.floor(math.log10(half)))) if half > 1e-12 else 4
    return f"{_signed(value, decimals)} [{_signed(low, decimals)}, {_signed(high, decimals)}]"


def _signed(value: float, decimals: int) -> str:
    text = number(value, decimals)
    return f"+{text}" if value > 0 and any(digit in text for digit in "123456789") else text


def _figure(value: Any, digits: int = 4) -> str:
    """A number with so many significant digits."""
    if not is_number(value):
        return MISSING
    power = math.floor(math.log10(abs(value))) if abs(value) > 1e-12 else 0
    decimals = 0 if not value else max(0, digits - 1 - power) if power >= 0 else min(8, digits - 1 - power)
    return number(value, decimals)


def _small(value: Any) -> str:
    return "<0.0001" if is_number(value) and 0 < value < 0.0001 else _figure(value, 2)


def _percent(value: Any) -> str:
    return f"{_plain_percent(value)} %" if is_number(value) else MISSING


def _plain_percent(value: Any) -> str:
    if not is_number(value):
        return MISSING
    percent = 100 * value
    return number(percent, 2 if 0 < abs(percent) < 1 else 0 if percent == 100 else 1)


def _or_zero(value: Any) -> float:
    return value if is_number(value) else 0.0


def _or_least(value: float | None) -> float:
    return -math.inf if value is None else value


def _rows(value: Any) -> list[Mapping[str, Any]]:
    return [each for each in as_list(value) if isinstance(each, Mapping)]
