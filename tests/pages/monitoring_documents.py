"""What the monitoring of a day finds, of simulated flights: profiles are counted as the product counts them."""

from __future__ import annotations

import math
from datetime import date, timedelta
from typing import Any

import numpy as np
import pyarrow as pa

from include.core import profile

NUMERIC = ("dep_hour", "distance", "temp", "wind_speed", "precip", "visibility", "pressure")
CATEGORICAL = ("carrier", "origin", "dest")
DAY = date(2013, 7, 1)
LIMITS = {1: 0.12, 7: 0.041, 28: 0.014}
CARRIERS = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E", "WN", "VX", "FL", "AS"]
DESTINATIONS = [f"{a}{b}X" for a in "ABCDEF" for b in "LMNOP"]


def fine_day() -> dict[str, Any]:
    """Nothing to tell, labels up to the day before."""
    current, draw = flights(912, seed=1), np.random.default_rng(5)
    return _document(current, outcome="ok", quality=_quality(draw))


def drift_alarm() -> dict[str, Any]:
    """A windy week, and so higher scores."""
    current, draw = flights(912, seed=2, windier=5.5, later=0.25), np.random.default_rng(6)
    found = _document(current, outcome="covariate drift", quality=_quality(draw, worse=0.02))
    found["pairs"] = [_pair("wind_speed × visibility", -0.31, 0.22, 1.7), *found["pairs"]]
    found["verdict"] |= {
        "sentences": [
            "It is windier than in the four weeks before: wind_speed above 14.1 is now 31 % of the flights, it was 10 %.",
            "The model forecasts more delays than before, as it should when it is windy.",
        ],
        "actions": ["mail", "request labels"],
        "repeated": True,
        "since": "2013-06-29",
        "notes": ["Over 7 days the log loss is 0.52, 0.50 were expected."],
    }
    return found


def broken_data() -> dict[str, Any]:
    """A column came in another unit, another is mostly missing."""
    current, draw = flights(611, seed=3, broken=True), np.random.default_rng(7)
    found = _document(current, outcome="broken data", quality=_quality(draw))
    found["missing"][-1]["shares"] |= {"wind_speed": 0.62, "pressure": 0.31}
    found["faults"] = [
        {"column": "wind_speed", "kind": "missing values", "sentence": "62 % of the rows have no value; it was at most 0.9 %."},
        {"column": "temp", "kind": "another unit", "sentence": "The values fit degrees Fahrenheit; they were degrees Celsius."},
    ]
    found["verdict"] |= {
        "sentences": [f"{each['column']}: {each['sentence']}" for each in found["faults"]],
        "actions": ["mail"],
        "since": "2013-07-01",
    }
    return found | {"population": 6110, "rows": 611, "sample": 0.1, "publication": 2}


def no_labels_yet() -> dict[str, Any]:
    """The first day of a new model: little to compare with, no labels."""
    found = _document(flights(87, seed=4), outcome="cannot judge", quality=_quality(None))
    for each in found["comparisons"]:
        each |= {
            "state": "cannot judge",
            "limit": None,
            "windows": 2,
            "why": "2 past windows with enough rows are too few, 14 are needed",
        }
        if each["horizon"] > 1:
            each |= dict.fromkeys(("distance", "cell", "before", "after", "shift"))
    found["missing"], found["proxies"] = found["missing"][-1:], found["proxies"][-1:]
    found["verdict"]["notes"] = ["Labels of this day are expected by 2013-07-08."]
    return found | {"changes": [], "links": []}


def nothing() -> dict[str, Any]:
    """All that may be null is null, all that may be empty is empty."""
    return {
        **dict.fromkeys(("partition", "publication", "model_version", "origin", "rows", "population", "sample")),
        "run": dict.fromkeys(("dag_id", "run_id", "git_revision")),
        "verdict": {"outcome": "cannot judge", "sentences": [], "actions": [], "repeated": False, "since": None, "notes": []},
        **{name: [] for name in ("comparisons", "pairs", "faults", "missing", "proxies", "changes", "links")},
        **{name: {} for name in ("reference", "baseline", "current")},
        "quality": {
            "metric": "log loss",
            "state": "cannot judge",
            "sentence": "",
            "previous": None,
            **{name: [] for name in ("windows", "days", "slices", "labels")},
        },
    }


def many_columns(count: int = 100) -> dict[str, Any]:
    """A wide table with long names; every tenth column has an alarm."""
    found = fine_day()
    names = [f"rolling_mean_of_departure_delays_of_the_last_{number}_days_at_the_origin" for number in range(count)]
    found["comparisons"] = [
        {
            "column": name,
            "horizon": horizon,
            "state": "alarm" if number % 10 == 0 and horizon == 7 else "ok",
            "distance": limit * (1.5 if number % 10 == 0 and horizon == 7 else number / count),
            "limit": limit,
            "rows": 912,
            "baseline_rows": 25_000,
            "windows": 28,
            "cell": "above 12.7, up to 16.1",
            "before": 0.1,
            "after": 0.2,
            "shift": 0.3,
            "why": "",
        }
        for number, name in enumerate(names)
        for horizon, limit in LIMITS.items()
    ]
    for who in ("reference", "baseline", "current"):
        found[who] = dict.fromkeys(names, found[who]["wind_speed"])
    for each in found["missing"]:
        each["shares"] = {name: 0.01 * (number % 4) for number, name in enumerate(names)}
    return found


def entries(days: int = 120) -> list[dict[str, Any]]:
    """What an index lists: mostly fine days, a bad week, days that were not run."""
    told = {
        "ok": "Nothing is beyond its limits.",
        "cannot judge": "Too few rows to judge by.",
        "covariate drift": "It is windier than in the four weeks before.",
        "quality decay": "Log loss is 0.03 above what was expected.",
        "worse champion": "Version 2 does worse than version 1 did.",
        "broken data": "62 % of wind_speed is missing.",
    }
    found = []
    for back in range(days):
        day, name = DAY - timedelta(days=back), "ok"
        if back % 37 == 20:
            continue
        for outcome, from_, to in (
            ("broken data", 0, 1), ("covariate drift", 1, 5), ("quality decay", 30, 34), ("worse champion", 34, 36),
            ("cannot judge", days - 20, days),
        ):  # fmt: skip
            name = outcome if from_ <= back < to else name
        found.append({
            "partition": day.isoformat(),
            "publication": 1 + (back == 1),
            "outcome": name,
            "sentence": told[name],
            "rows": 900 + back,
            "model_version": "2" if back < 36 else "1",
            "origin": "scheduled",
            "href": f"{day.isoformat()}/v{1 + (back == 1):05d}/report.html",
        })
    return found


def flights(
    rows: int, *, seed: int, windier: float = 0.0, later: float = 0.0, broken: bool = False, warmer: float = 0.0
) -> pa.RecordBatch:
    draw = np.random.default_rng(seed)
    rank = 1 / np.arange(1, len(CARRIERS) + 1)
    wind = np.maximum(0, draw.gamma(4.0, 2.5, rows) + windier * (draw.random(rows) < 0.6))
    temp = draw.normal(22 + warmer, 6, rows)
    values: dict[str, Any] = {
        "dep_hour": draw.integers(5, 24, rows).astype(float),
        "distance": draw.gamma(2.2, 480, rows),
        "temp": temp * 9 / 5 + 32 if broken else temp,
        "wind_speed": np.where(draw.random(rows) < (0.62 if broken else 0.004), np.nan, wind),
        "precip": np.where(draw.random(rows) < 0.88, 0.0, draw.exponential(0.1, rows)),
        "visibility": np.minimum(10, draw.normal(9.5, 2, rows).round(0)),
        "pressure": np.where(draw.random(rows) < (0.31 if broken else 0.09), np.nan, draw.normal(1017, 7, rows)),
        "carrier": draw.choice(CARRIERS, rows, p=rank / rank.sum()),
        "origin": draw.choice(["EWR", "JFK", "LGA"], rows, p=[0.36, 0.33, 0.31]),
        "dest": draw.choice(DESTINATIONS, rows),
    }
    score = 1 / (1 + np.exp(-draw.normal(-1.4 + later + 0.05 * (wind - 10), 0.8, rows)))
    values |= {"score": score, "decision": np.where(score > 0.5, "delayed", "on time")}
    return pa.RecordBatch.from_pydict({
        name: pa.array(each, from_pandas=True) if each.dtype.kind == "f" else pa.array(each.tolist())
        for name, each in values.items()
    })


TRAINING = flights(60_000, seed=90, warmer=-4)
CELLS = profile.reference(TRAINING, (*NUMERIC, "score"), (*CATEGORICAL, "decision"))
BASELINE = profile.count(flights(25_340, seed=91), CELLS)


def _document(current: pa.RecordBatch, *, outcome: str, quality: dict[str, Any]) -> dict[str, Any]:
    counted, draw = profile.count(current, CELLS), np.random.default_rng(11)
    found = profile.changes(BASELINE, counted)
    comparisons = []
    for horizon, limit in LIMITS.items():
        for each in found:
            # Over more days the same change stands out more; what is chance does not.
            distance = each["distance"] / (1 if each["distance"] > 0.08 else horizon)
            alarm = distance > limit
            comparisons.append({
                "column": each["feature"],
                "horizon": horizon,
                "state": "alarm" if alarm else "ok",
                "distance": distance,
                "limit": limit * (1 + 0.2 * draw.random()),
                "rows": current.num_rows * horizon,
                "baseline_rows": 25_340,
                "windows": 28 // horizon,
                "cell": each["cell"],
                "before": each["before"],
                "after": each["after"],
                "shift": _shift(counted, each["feature"]) / (1 if alarm else horizon)
                if "edges" in counted[each["feature"]]
                else None,
                "why": f"distance {distance:.3g} is {'above' if alarm else 'within'} the limit {limit:.3g}",
            })
    if outcome == "covariate drift":
        last = next(each for each in comparisons if each["column"] == "precip" and each["horizon"] == 28)
        last |= {"state": "cannot judge", "limit": None, "why": "9 past windows with enough rows are too few, 14 are needed"}
    shares = {"wind_speed": 0.004, "pressure": 0.09, "visibility": 0.0, "temp": 0.0, "dest": 0.0}
    return {
        "partition": DAY.isoformat(),
        "publication": 3,
        "model_version": "2",
        "origin": "scheduled",
        "rows": current.num_rows,
        "population": current.num_rows,
        "sample": 1.0,
        "run": {"dag_id": "monitoring", "run_id": "scheduled__2013-07-01T05:00:00+00:00", "git_revision": "762f6bf0c1de"},
        "verdict": {"outcome": outcome, "sentences": [], "actions": [], "repeated": False, "since": None, "notes": []},
        "comparisons": comparisons,
        "pairs": [_pair("temp × pressure", -0.22, -0.25, 0.3), _pair("dep_hour × temp", 0.41, 0.4, 0.1)],
        "faults": [],
        "reference": profile.count(TRAINING, CELLS),
        "baseline": BASELINE,
        "current": counted,
        "missing": [
            {"partition": _back(27 - n), "shares": {c: s and max(0.0, s + 0.3 * s * draw.normal()) for c, s in shares.items()}}
            for n in range(28)
        ],
        "quality": quality,
        "proxies": [
            {
                "partition": _back(27 - n),
                "model_version": "1" if n < 16 else "2",
                "rows": int(draw.normal(905, 40)),
                "score_mean": 0.24 + 0.01 * draw.normal(),
                "positive_rate": 0.11 + 0.01 * draw.normal(),
                "confidence": 0.78 + 0.005 * draw.normal(),
            }
            for n in range(28)
        ],
        "changes": [
            {"partition": "2013-05-04", "version": "2", "action": "promote"},
            {"partition": "2013-05-09", "version": "1", "action": "roll_back"},
            {"partition": "2013-06-17", "version": "2", "action": "promote"},
        ],
        "links": [
            {"text": "Checks of the features", "href": "../../validations/features/2013-07-01/index.html"},
            {"text": "Checks of the predictions", "href": "../../validations/predictions/2013-07-01/index.html"},
            {"text": "Evaluation of version 2", "href": "../../evaluations/flight_delays/2013-06-17/evaluation.html"},
        ],
    }


def _quality(draw: np.random.Generator | None, worse: float = 0.0) -> dict[str, Any]:
    if draw is None:
        told = {"metric": "log loss", "state": "cannot judge", "sentence": "No labels have come yet.", "previous": None}
        return told | {name: [] for name in ("windows", "days", "slices", "labels")}
    days, labels = [], []
    for back in range(88, 0, -1):
        seasonal = 0.02 * math.sin(back / 9)
        expected = 0.5 + seasonal + 0.004 * draw.normal()
        loss = expected + worse * (back < 12) + 0.02 * draw.normal()
        rows, gone = int(draw.normal(905, 40)), back == 40
        covered = 0.0 if gone else 0.99 if back > 3 else 0.3 * back
        days.append({
            "partition": _back(back),
            "model_version": "2" if back < 14 else "1",
            "rows": rows,
            "labelled": int(rows * covered),
            "coverage": covered,
            "loss": None if gone else loss,
            "expected": expected,
            "auc": None if gone else 0.74 + 0.015 * draw.normal(),
            "loss_known_then": None if gone else loss + 0.012 * draw.normal(),
            "auc_known_then": None if gone else 0.74 + 0.02 * draw.normal(),
            "coverage_known_then": 0.0 if gone else 0.6,
        })
        if back < 29:
            rate = 0.245 + 0.02 * draw.normal() + worse
            labels.append({"partition": _back(back), "labelled": int(rows * covered), "rate": rate, "score_mean": 0.24})
    slices = [
        {"slice": column, "value": value, "labelled": rows, "loss": 0.5 + 0.02 * draw.normal(), "expected": 0.5}
        for column, values in {"origin": ("EWR", "JFK", "LGA"), "carrier": CARRIERS[:8]}.items()
        for value, rows in zip(values, (2210, 2010, 1870, 840, 512, 302, 97, 31), strict=False)
    ]
    return {
        "metric": "log loss",
        "state": "ok",
        "sentence": "Over 7 days the log loss is 0.52, 0.50 were expected.",
        "days": days,
        "windows": [
            {
                "days": 7,
                "found": 7,
                "state": "ok",
                "labelled": 6000,
                "coverage": 0.95,
                "loss": 0.52,
                "expected": 0.5,
                "low": -0.01,
                "high": 0.05,
                "limit": 0.06,
            },
            {
                "days": 28,
                "found": 27,
                "state": "ok",
                "labelled": 25_000,
                "coverage": 0.98,
                "loss": 0.506,
                "expected": 0.5,
                "low": -0.008,
                "high": 0.02,
                "limit": 0.03,
            },
        ],
        "slices": slices,
        "labels": labels,
        "previous": {
            "version": "1",
            "days": 9,
            "difference": -0.012,
            "low": -0.02,
            "high": -0.004,
            "sentence": "Version 2 does better than version 1 would have done.",
        },
    }


def _shift(counted: profile.Profile, column: str) -> float:
    """How much oftener than half of the time a value is larger than one of the baseline, told from the cells."""
    before, after = (np.array(each[column]["counts"]) / sum(each[column]["counts"]) for each in (BASELINE, counted))
    return float((after * (before.cumsum() - before / 2)).sum() - 0.5)


def _pair(column: str, before: float, after: float, ratio: float) -> dict[str, Any]:
    horizon, limit = 7, LIMITS[7]
    return {
        "column": column,
        "horizon": horizon,
        "state": "alarm" if ratio > 1 else "ok",
        "distance": ratio * limit,
        "limit": limit,
        "rows": 912 * horizon,
        "baseline_rows": 25_340,
        "windows": 28 // horizon,
        "cell": None,
        "before": before,
        "after": after,
        "shift": None,
        "why": f"rank correlation went from {before:.2f} to {after:.2f}",
    }


def _back(days: int) -> str:
    return (DAY - timedelta(days=days)).isoformat()
