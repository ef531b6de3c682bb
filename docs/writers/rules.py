"""The tables between the lines of docs/decision-rules.md: limits from model.yaml, and what the rules make of them.

A page says where, and which, and keeps what is written there up to the next comment:

    <!-- limits: gate.alpha gate.margin -->
    <!-- table: alpha -->
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

from docs.writers.tables import table
from include.config import Drift, Gate, ModelConfig, Quality
from include.core import alarms, drift, gates, quality

PLACE = re.compile(r"(<!-- (limits|table): ([^>]*?) -->\n).*?(<!-- end -->)", re.DOTALL)
DAY = date(2024, 6, 2)


def filled(page: str) -> str:
    """The page with its tables as the code has them now.

    Raises:
        ValueError: if it asks for a table or a key that there is not.
    """

    def written(place: re.Match[str]) -> str:
        kind, asked = place[2], place[3]
        if kind == "table" and asked not in TABLES:
            raise ValueError(f"there is no table {asked!r}: choose of {', '.join(sorted(TABLES))}")
        lines = limits(asked.split()) if kind == "limits" else TABLES[asked]()
        return f"{place[1]}\n" + "\n".join(lines) + f"\n{place[4]}"

    return PLACE.sub(written, page)


def limits(keys: list[str]) -> list[str]:
    """Keys of model.yaml with what holds unless it is given."""
    rows = []
    for key in keys:
        fields, field = ModelConfig.model_fields, None
        for name in key.split("."):
            field = fields.get(name)
            fields = getattr(field.annotation, "model_fields", {}) if field else {}
        if field is None:
            raise ValueError(f"model.yaml has no key {key}")
        rows.append((f"`{key}`", _shown(field.default), field.description))
    return table(("Limit", "Unless given", "What it is"), rows)


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {one:g}" for name, one in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(_shown, value)) or "none"
    return "null" if value is None else f"{value:g}" if isinstance(value, int | float) else str(value)


def _alpha() -> list[str]:
    """What each use of a holdout may spend."""
    rules = _gate_rules()
    rows = []
    for uses in range(rules.max_holdout_uses + 1):
        spent = gates.alpha_of_use(rules, gates.Circumstances(False, 0, 1.0, uses, True))
        rows.append((
            uses,
            f"{spent:.4f}" if spent else "–",
            _percent(1 - spent) if spent else "HOLD: wait for newer labels",
        ))
    return table(("Models judged on this holdout before", "Alpha", "Confidence asked for"), rows)


def _gate_rules() -> gates.Rules:
    return gates.Rules(task="classification", **Gate().model_dump(exclude={"max_decision_churn"}))


def _noise() -> list[str]:
    """The limits of columns that are the same each day, by rows and columns."""
    rows = []
    for count in (200, 500, 1000, 5000, 50_000, 500_000):
        one, ten, thirty, hundred = (_limits(count, columns) for columns in (1, 10, 30, 100))
        limits = (one[1], ten[1], thirty[1], hundred[1], thirty[7], thirty[28])
        rows.append((f"{count:,}", *(f"{limit:.3f}" for limit in limits)))
    return table(
        ("Rows a day", "Day, 1 column", "10 columns", "30 columns", "100 columns", "7 days, 30 columns", "28 days, 30 columns"),
        rows,
    )


def _limits(rows: int, columns: int) -> dict[int, float]:
    """By horizon, those of each of so many columns, of days that are all alike."""
    cells = {"kind": "numeric", "edges": [*range(1, 10)], "counts": [rows // 10] * 10, "missing": 0, "not_finite": 0}
    profile = {f"column_{number}": cells for number in range(columns)}
    days = {DAY - timedelta(days=past): profile for past in range(57)}
    found = drift.compare(days, DAY, _drift_rules())
    return {one.horizon: one.limit for one in found if one.limit is not None}


def _drift_rules() -> drift.Rules:
    chosen = Drift()
    return drift.Rules(chosen.tolerance, chosen.false_alarms, chosen.min_rows)


def _horizons() -> list[str]:
    whole, columns = Drift().false_alarms, 1 - drift.PAIR_SHARE
    rows = [(_days(days), _percent(share * columns), _percent(whole * share * columns)) for days, share in drift.HORIZONS.items()]
    rows.append((
        f"how columns go together, {_days(drift.PAIR_HORIZON)}, once a week",
        _percent(drift.PAIR_SHARE),
        _percent(whole * drift.PAIR_SHARE),
    ))
    return table(("Window", "Its part of the false alarms", "That is, of runs"), rows)


def _days(days: int) -> str:
    return "the day" if days == 1 else f"the last {days} days"


def _signs() -> list[str]:
    """The signs of broken data; core.drift has them in this order, but for the rows, which are of no column."""
    share, missing = f"{_percent(drift.SHARE)} of the rows", f"{_percent(drift.MISSING)} of the rows"
    rows = [
        (
            "rows",
            f"Fewer than {drift.ROWS:g} of the smallest day before, or more than {1 / drift.ROWS:g} times the largest",
        ),
        ("missing", f"{missing} more than on any day before have no value, or none that is finite"),
        ("constant", "All values are equal, and on no day before they were"),
        ("new values", f"{share} more than on any day before have a category that is not among the known ones"),
        ("vanished", f"A category that each day had, with {share} and {drift.EXPECTED} rows to be expected, is gone"),
        (
            "range",
            f"Values lie further outside of all that is known than its range is wide, with {share} more in the outermost cell",
        ),
        (
            "scale",
            f"The days before look like this one once they are multiplied by what two units have in common "
            f"({len(drift.UNITS)} pairs, as miles and kilometres); of the distance at most {_percent(drift.UNEXPLAINED)} is left",
        ),
    ]
    return table(("Sign", "It is there if"), [(f"*{sign}*", told) for sign, told in rows])


def _verdicts() -> list[str]:
    """What each verdict starts, asked of the rule itself."""
    rows = []
    for outcome, measured in _examples().items():
        first = alarms.judge(DAY, measured, [], Drift().cooldown_days, origin_may_ask=True)
        before = [
            alarms.Earlier(DAY - timedelta(days=past), outcome, first.columns, first.actions)
            for past in range(1, alarms.LASTING_DAYS)
        ]
        lasting = alarms.judge(DAY, measured, before, Drift().cooldown_days, origin_may_ask=True)
        past = alarms.judge(DAY, measured, [], Drift().cooldown_days, origin_may_ask=False)
        if first.outcome != outcome:
            raise ValueError(f"the example of {outcome} is judged {first.outcome}: mend docs/writers/rules.py")
        rows.append((f"**{outcome}**", *(", ".join(verdict.actions) or "nothing" for verdict in (first, lasting, past))))
    lasting_for = f"When it has lasted {alarms.LASTING_DAYS} days, mailed at the first, and no labels come in time"
    return table(("Verdict", "At first", lasting_for, "In a backfill"), rows)


def _examples() -> Mapping[alarms.Outcome, alarms.Measured]:
    """One measurement for each verdict, worst first: each keeps what the ones before it had, but for what they are about."""
    ok, unjudged = _comparison("ok"), _comparison("cannot judge")
    calm = quality.Quality("ok", "", ())
    fine = alarms.Measured([ok], [], [], calm, None, labels_in_time=False)
    worse = quality.Former(10, 1000, 0.1, 0.05, 0.15, True, "")
    return {
        "broken data": replace(fine, faults=[drift.Fault("column", "missing", "")], comparisons=[_comparison("alarm")]),
        "worse champion": replace(fine, former=worse),
        "quality decay": replace(fine, quality=quality.Quality("decay", "", ())),
        "covariate drift": replace(fine, comparisons=[_comparison("alarm")]),
        "cannot judge": replace(fine, comparisons=[unjudged]),
        "ok": fine,
    }


def _comparison(state: drift.State) -> drift.Comparison:
    return drift.Comparison(
        "column", 1, state, 0.5 if state == "alarm" else 0.0, 0.1, 1000, 28_000, 28, None, None, None, None, ""
    )


def _decay() -> list[str]:
    """How much a model must lose more than it expects, by days and by how much days differ."""
    rules = quality.Rules(Quality().max_excess_loss, Quality().false_alarms, Quality().min_labelled)
    rows = []
    for days in (quality.MIN_DAYS, *quality.WINDOWS):
        rows.append((days, *(_excess(days, scatter, rules) for scatter in (0.0, 0.05, 0.1, 0.2))))
    return table(("Matured days", "Days all alike", "They scatter by 5 %", "10 %", "20 %"), rows)


def _excess(days: int, scatter: float, rules: quality.Rules) -> str:
    """The limit of days whose loss lies above and below what is expected by turns, as a share of what is expected."""
    each = [quality.DayLoss(DAY - timedelta(days=past), 1000, 500 * (1 + scatter * (-1) ** past), 500) for past in range(days)]
    window = next(window for window in quality.judge_decay(each, rules).windows if window.found == days)
    assert window.limit is not None
    return _percent(round(window.limit / 0.5, 2))


TABLES: Mapping[str, Callable[[], list[str]]] = {
    "alpha": _alpha,
    "noise": _noise,
    "horizons": _horizons,
    "signs": _signs,
    "verdicts": _verdicts,
    "decay": _decay,
}
