"""Evaluations as the evaluating job writes them, of simulated scores."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from scipy.special import expit

RUN = {
    "as_of": "2013-03-31",
    "reason": "the champion has decayed",
    "run_id": "scheduled__2013-03-31T03:00:00+00:00",
    "snapshot": "2013-03-31-5f0c2e8a91b7d364",
    "first": "2013-01-01",
    "last": "2013-03-30",
    "git_revision": "762f6bf0c1de",
}
DIGEST = "9b1f6f1f0f7e0d3f6a5e4c3b2a190817263544536271809fab1c2d3e4f506172"


def run(**changed: Any) -> dict[str, Any]:
    return {**RUN, **changed}


def classification(rows: int = 6000, skill: float = 1.25, seed: int = 7) -> dict[str, Any]:
    """Two models of one truth; `skill` 1 is the champion's, more is better."""
    draw = np.random.default_rng(seed)
    signal, shared = draw.normal(size=rows), draw.normal(size=rows)
    label = draw.random(rows) < expit(1.4 * signal - 1.4)
    scores = {
        "challenger": expit(1.3 * (signal + (0.6 * shared + 0.5 * draw.normal(size=rows)) / skill) / 1.3 - 1.3),
        "champion": expit(1.1 * (signal + 0.6 * shared + 0.5 * draw.normal(size=rows)) - 1.2),
    }
    loss = {who: -np.log(np.where(label, score, 1 - score)) for who, score in scores.items()}
    gain = loss["champion"] - loss["challenger"]
    brier = {who: (score - label) ** 2 for who, score in scores.items()}
    sharper = brier["champion"] - brier["challenger"]
    auc = {who: _auc(label, score) for who, score in scores.items()}
    edges = np.linspace(0, 1, 21)
    return {
        "task": "classification",
        "rows": rows,
        "positives": int(label.sum()),
        "first": "2013-03-17",
        "last": "2013-03-30",
        **{
            who: {
                "manifest_sha256": DIGEST if who == "challenger" else DIGEST[::-1],
                "trained_from": "2013-01-01" if who == "challenger" else "2012-12-01",
                "trained_to": "2013-03-16" if who == "challenger" else "2013-02-14",
                "training_rows": 61_204 if who == "challenger" else 58_911,
                "metrics": {
                    "auc": _around(auc[who], 0.5 / math.sqrt(rows)),
                    "average_precision": _around(auc[who] - 0.21, 0.8 / math.sqrt(rows)),
                    "log_loss": _around(loss[who].mean(), loss[who].std() / math.sqrt(rows)),
                    "brier": _around(brier[who].mean(), brier[who].std() / math.sqrt(rows)),
                },
                "calibration": _calibration(score, label),
                "calibration_error": 0.0141 if who == "challenger" else 0.0312,
                "roc": _roc(label, score),
                "pr": _pr(label, score),
                "megabytes": 1.84,
                "seconds_per_million": 3.412,
            }
            for who, score in scores.items()
        },
        "comparisons": [
            _comparison("log_loss", {who: each.mean() for who, each in loss.items()}, gain.std() / math.sqrt(rows)),
            _comparison("auc", auc, 0.26 / math.sqrt(rows)),
            _comparison("brier", {who: each.mean() for who, each in brier.items()}, sharper.std() / math.sqrt(rows)),
        ],
        "slices": _slices(draw, label, loss, scores),
        "churn": float(((scores["challenger"] > 0.5) != (scores["champion"] > 0.5)).mean()),
        "scores": {
            "edges": edges.tolist(),
            **{who: np.histogram(score, edges)[0].tolist() for who, score in scores.items()},
        },
        "data_changes": [
            {
                "feature": "wind_speed",
                "distance": 0.0712,
                "cell": "12.7 to 16.1",
                "before": 0.102,
                "after": 0.181,
            },
            {"feature": "carrier", "distance": 0.0305, "cell": "WN", "before": 0.034, "after": 0.052},
            {"feature": "visibility", "distance": 0.0021, "cell": "missing", "before": 0.0, "after": 0.0041},
        ],
    }


def regression(rows: int = 4000, seed: int = 3) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    label = 1200 + 900 * draw.gamma(2.0, 1.0, rows)
    scores = {"challenger": label + draw.normal(0, 310, rows), "champion": 0.93 * label + draw.normal(0, 330, rows) + 120}
    error = {who: score - label for who, score in scores.items()}
    gain = error["champion"] ** 2 - error["challenger"] ** 2
    better = np.abs(error["champion"]) - np.abs(error["challenger"])
    rmse = {who: math.sqrt((e**2).mean()) for who, e in error.items()}
    mae = {who: np.abs(e).mean() for who, e in error.items()}
    edges = np.linspace(0, float(max(s.max() for s in scores.values())), 21)
    document = classification(800)
    for who, score in scores.items():
        document[who] |= {
            "metrics": {
                "rmse": _around(rmse[who], rmse[who] / math.sqrt(2 * rows)),
                "mae": _around(mae[who], np.abs(error[who]).std() / math.sqrt(rows)),
                "r2": _around(1 - (error[who] ** 2).mean() / label.var(), 0.004),
            },
            "calibration": _calibration(score, label),
            "calibration_error": 0.021,
            "roc": None,
            "pr": None,
        }
    slices = [
        {
            "column": "store_type",
            "value": value,
            "rows": int(part.sum()),
            "positives": None,
            "challenger_loss": float((error["challenger"][part] ** 2).mean()),
            "champion_loss": float((error["champion"][part] ** 2).mean()),
            "improvement": float(gain[part].mean()),
            "standard_error": float(gain[part].std() / math.sqrt(part.sum())),
            "challenger_auc": None,
            "champion_auc": None,
        }
        for value, share in {"city": 0.6, "mall": 0.3, "outlet": 0.03}.items()
        if (part := draw.random(rows) < share).any()
    ]
    return document | {
        "task": "regression",
        "rows": rows,
        "positives": None,
        "comparisons": [
            _comparison("rmse", rmse, gain.std() / math.sqrt(rows) / 700),
            _comparison("mae", mae, better.std() / math.sqrt(rows)),
        ],
        "slices": slices,
        "scores": {"edges": edges.tolist(), **{who: np.histogram(s, edges)[0].tolist() for who, s in scores.items()}},
    }


def first_model(document: dict[str, Any]) -> dict[str, Any]:
    """The same evaluation as it is when there is no champion yet."""
    nothing = {"champion_loss": None, "improvement": None, "standard_error": None, "champion_auc": None}
    return document | {
        "champion": None,
        "comparisons": [],
        "slices": [each | nothing for each in document["slices"]],
        "churn": None,
        "scores": document["scores"] | {"champion": None},
        "data_changes": None,
    }


def bare(task: str = "classification") -> dict[str, Any]:
    """All that may be null is null."""
    metrics = {"auc": {"value": None, "low": None, "high": None}} if task == "classification" else {}
    model = dict.fromkeys([
        *("manifest_sha256", "trained_from", "trained_to", "training_rows", "calibration_error", "roc", "pr", "megabytes"),
        "seconds_per_million",
    ])
    return {
        "task": task,
        "rows": 0,
        "positives": None,
        "first": None,
        "last": None,
        "challenger": {**model, "metrics": metrics, "calibration": []},
        "champion": None,
        "comparisons": [],
        "slices": [],
        "churn": None,
        "scores": {"edges": [], "challenger": [], "champion": None},
        "data_changes": None,
    }


def verdict(outcome: str = "PROMOTE", rule: str = "superiority", **changed: Any) -> dict[str, Any]:
    findings = [
        ("artifact", "PROMOTE", "digest, schema and golden batch agree", None, None),
        ("rows", "PROMOTE", "6,000 labelled rows, at least 500 are needed", 6000, 500),
        ("floor auc", "PROMOTE", "auc 0.7712 is at or above its floor 0.6", 0.7712, 0.6),
        ("improvement", outcome, f"log loss improves by 0.0123, which decides for {outcome}", 0.0123, 0.0),
        ("slices carrier", "PROMOTE", "carrier: 2 of 10 values have the 200 rows it takes to judge them.", 2, None),
        ("slice carrier = UA", "PROMOTE", "carrier = UA: mean loss 0.5096, then 0.4726", 0.037, -0.0255),
        ("slice carrier = B6", "REJECT", "carrier = B6: shown to be worse", -0.03, -0.0245),
        ("slice store_type = city", "PROMOTE", "store_type = city: mean loss 108,121, then 95,998", 12_123, -5_406),
        ("cost", "PROMOTE", "3.4 s of CPU per million rows, at most 600", 3.412, 600),
    ]
    names = ("check", "outcome", "sentence", "value", "limit")
    return {
        "outcome": outcome,
        "rule": rule,
        "reasons": [findings[3][2]],
        "findings": [dict(zip(names, finding, strict=True)) for finding in findings],
        "rows_needed": 12_345 if outcome == "HOLD" else None,
        "alpha_spent": 0.025,
        **changed,
    }


def _around(value: float, error: float) -> dict[str, float]:
    return {"value": float(value), "low": float(value - 1.96 * error), "high": float(value + 1.96 * error)}


def _comparison(metric: str, values: dict[str, float], error: float) -> dict[str, Any]:
    gain = float(values["champion"] - values["challenger"])
    told = {who: float(value) for who, value in values.items()}
    return {"metric": metric, **told, "improvement": -gain if metric == "auc" else gain, "standard_error": float(error)}


def _ranked(label: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    hits = label[np.argsort(-score)]
    return np.cumsum(hits), np.cumsum(~hits)


def _auc(label: np.ndarray, score: np.ndarray) -> float:
    positives = label.sum()
    ranks = score.argsort().argsort() + 1
    return float((ranks[label].sum() - positives * (positives + 1) / 2) / (positives * (len(label) - positives)))


def _roc(label: np.ndarray, score: np.ndarray) -> list[list[float]]:
    hits, misses = _ranked(label, score)
    chosen = np.linspace(0, len(label) - 1, 150).astype(int)
    return [[0.0, 0.0], *np.column_stack([misses / misses[-1], hits / hits[-1]])[chosen].tolist()]


def _pr(label: np.ndarray, score: np.ndarray) -> list[list[float]]:
    hits, misses = _ranked(label, score)
    chosen = np.linspace(20, len(label) - 1, 150).astype(int)
    return np.column_stack([hits / hits[-1], hits / (hits + misses)])[chosen].tolist()


def _calibration(score: np.ndarray, outcome: np.ndarray) -> list[dict[str, float]]:
    bins = []
    for part in np.array_split(np.argsort(score), 10):
        mean, error = outcome[part].mean(), outcome[part].std() / math.sqrt(len(part))
        ends = {"low": float(mean - 1.96 * error), "high": float(mean + 1.96 * error)}
        bins.append({"forecast": float(score[part].mean()), "outcome": float(mean), **ends, "rows": len(part)})
    return bins


def _slices(
    draw: np.random.Generator, label: np.ndarray, loss: dict[str, np.ndarray], scores: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    gain = loss["champion"] - loss["challenger"]
    shares = {"UA": 0.2, "B6": 0.18, "EV": 0.17, "DL": 0.15, "AA": 0.1, "MQ": 0.08, "US": 0.06, "9E": 0.04, "HA": 0.004}
    carrier = draw.choice([*shares, "(other)"], len(label), p=[*shares.values(), 1 - sum(shares.values())])
    origin = draw.choice(["EWR", "JFK", "LGA"], len(label))
    found = []
    for column, values in {"carrier": carrier, "origin": origin}.items():
        names, counts = np.unique(values, return_counts=True)
        for name in names[np.argsort(-counts)]:
            part = values == name
            found.append({
                "column": column,
                "value": str(name),
                "rows": int(part.sum()),
                "positives": int(label[part].sum()),
                "challenger_loss": float(loss["challenger"][part].mean()),
                "champion_loss": float(loss["champion"][part].mean()),
                "improvement": float(gain[part].mean()),
                "standard_error": float(gain[part].std() / math.sqrt(part.sum())),
                "challenger_auc": _auc(label[part], scores["challenger"][part]) if label[part].any() else None,
                "champion_auc": _auc(label[part], scores["champion"][part]) if label[part].any() else None,
            })
    return found
