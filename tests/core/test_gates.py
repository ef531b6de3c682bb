"""The gate opens for a challenger that is shown to be good enough, and for nothing else."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import gates as simulation
from include.config import Gate
from include.core.gates import Circumstances, Rules, Verdict, alpha_of_use, judge

RULES = Rules(
    task="classification",
    floors={"auc": 0.6},
    alpha=0.05,
    max_holdout_uses=3,
    margin=0.005,
    slices=("origin",),
    slice_margin=0.05,
    min_slice_rows=200,
    max_calibration_error=0.1,
    min_rows=500,
    min_positives=50,
    min_label_coverage=0.9,
    max_megabytes=100,
    max_seconds_per_million=600,
    max_champion_age_days=180,
)
CIRCUMSTANCES = Circumstances(
    decay_confirmed=False, champion_age_days=14, label_coverage=0.98, holdout_uses=0, artifact_checked=True
)
NO_CHAMPION = replace(CIRCUMSTANCES, champion_age_days=None)
DECAYED = replace(CIRCUMSTANCES, decay_confirmed=True)
JUNK: list[Any] = [None, math.nan, math.inf, -math.inf, True, False, "0.9", [], {}, 10**400]


def model(name: str, auc: float, log_loss: float, trained_to: str = "2013-03-16") -> dict[str, Any]:
    bins = [{"forecast": 0.2, "outcome": 0.2, "low": 0.19, "high": 0.21, "rows": 5000}]
    return {
        "manifest_sha256": name * 32,
        "trained_from": "2013-01-01",
        "trained_to": trained_to,
        "training_rows": 50_000,
        "metrics": {
            "auc": {"value": auc, "low": auc - 0.02, "high": auc + 0.02},
            "log_loss": {"value": log_loss, "low": log_loss - 0.01, "high": log_loss + 0.01},
        },
        "calibration": bins,
        "calibration_error": 0.02,
        "roc": None,
        "pr": None,
        "megabytes": 1.5,
        "seconds_per_million": 8.0,
    }


def pair(metric: str, champion: float, improvement: float, error: float) -> dict[str, Any]:
    """A comparison; the challenger's value follows from the improvement."""
    challenger = champion + (improvement if metric == "auc" else -improvement)
    values = {"champion": champion, "challenger": challenger, "improvement": improvement, "standard_error": error}
    return {"metric": metric, **values}


def evaluation(
    gain: float = 0.010, error: float = 0.003, auc_gain: float = 0.010, auc_error: float = 0.003, rows: int = 10_000
) -> dict[str, Any]:
    """Of a challenger whose log loss is better by `gain` and its AUC by `auc_gain`: as it stands, shown to be better."""
    champion, challenger = model("a", 0.75, 0.45, "2013-03-02"), model("b", 0.75 + auc_gain, 0.45 - gain)
    shares = {"EWR": 0.5, "JFK": 0.4, "LGA": 0.09, "HPN": 0.01}
    better = {"challenger_loss": 0.44, "champion_loss": 0.45, "improvement": 0.01, "standard_error": 0.004}
    slices = [
        {
            "column": "origin",
            "value": value,
            "rows": round(rows * share),
            "positives": round(rows * share * 0.2),
            **better,
            "challenger_auc": 0.7,
            "champion_auc": 0.7,
        }
        for value, share in shares.items()
    ]
    return {
        "task": "classification",
        "rows": rows,
        "positives": rows // 5,
        "first": "2013-03-17",
        "last": "2013-03-30",
        "challenger": challenger,
        "champion": champion,
        "comparisons": [pair("log_loss", 0.45, gain, error), pair("auc", 0.75, auc_gain, auc_error)],
        "slices": slices,
        "churn": 0.05,
        "scores": {"edges": [], "challenger": [], "champion": []},
        "data_changes": None,
    }


def first_model(auc: float = 0.75) -> dict[str, Any]:
    found = evaluation() | {"champion": None, "comparisons": [], "churn": None, "challenger": model("b", auc, 0.45)}
    unknown = dict.fromkeys(("champion_loss", "improvement", "standard_error", "champion_auc"))
    found["slices"] = [item | unknown for item in found["slices"]]
    return found


NUMBERS = Rules(**{**vars(RULES), "task": "regression", "floors": {"r2": 0.2}, "margin": 0.01})


def numbers(gain: float = 0.5, error: float = 0.1) -> dict[str, Any]:
    """A regression: the champion's RMSE is 20, a share of 0.01 of it is 0.2."""
    found = evaluation() | {"task": "regression", "positives": None, "comparisons": [pair("rmse", 20.0, gain, error)]}
    for name, rmse in (("champion", 20.0), ("challenger", 20.0 - gain)):
        found[name]["metrics"] = {
            "rmse": {"value": rmse, "low": rmse - 1, "high": rmse + 1}, "r2": {"value": 0.4, "low": 0.35, "high": 0.45}
        }  # fmt: skip
    return found


def outcome(verdict: Verdict, check: str) -> str:
    return next(finding.outcome for finding in verdict.findings if finding.check == check)


def paths(document: Any, so_far: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The place of every value in a document."""
    items = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in items:
        yield (*so_far, key)
        yield from paths(value, (*so_far, key))


def changed(document: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(document)
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return result


def without(document: dict[str, Any], path: tuple[Any, ...]) -> dict[str, Any]:
    result = copy.deepcopy(document)
    inner: Any = result
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return result


def read_by_the_gate(path: tuple[Any, ...]) -> bool:
    """Values that a verdict rests on, of the document `evaluation()` makes; the rest is for the reader."""
    match path:
        case ("task" | "rows" | "positives" | "first" | "comparisons" | "slices" | "challenger" | "champion",):
            return True
        case (
            "challenger",
            "megabytes" | "seconds_per_million" | "calibration_error" | "manifest_sha256" | "trained_to" | "metrics",
        ):
            return True
        case ("champion", "manifest_sha256" | "trained_to" | "metrics"):
            return True
        case ("challenger" | "champion", "metrics", _) | ("challenger" | "champion", "metrics", _, "value"):
            return True
        case ("comparisons", _) | ("comparisons", _, _):
            return True
        case ("slices", _) | ("slices", _, "column" | "rows"):
            return True
        case ("slices", 0 | 1 | 2, "challenger_loss" | "champion_loss" | "improvement" | "standard_error"):
            return True
    return False


EVERY_PATH = sorted(paths(evaluation()), key=str)


@pytest.mark.parametrize(
    ("document", "rules", "circumstances", "rule"),
    [
        (evaluation(), RULES, CIRCUMSTANCES, "superiority"),
        (evaluation(gain=0.001, auc_gain=0.001), RULES, DECAYED, "non-inferiority"),
        (first_model(), RULES, NO_CHAMPION, "first model"),
        (numbers(), NUMBERS, CIRCUMSTANCES, "superiority"),
        (numbers(gain=0.05), NUMBERS, DECAYED, "non-inferiority"),
    ],
)
def test_a_challenger_that_passes_every_check_is_promoted(
    document: dict[str, Any], rules: Rules, circumstances: Circumstances, rule: str
) -> None:
    verdict = judge(document, rules, circumstances)
    assert (verdict.outcome, verdict.rule, verdict.rows_needed) == ("PROMOTE", rule, None)
    assert {finding.outcome for finding in verdict.findings} == {"PROMOTE"}
    shown = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert shown["reasons"] and len(shown["findings"]) == len(verdict.findings)
    assert set(shown["findings"][0]) == {"check", "outcome", "sentence", "value", "limit"}


@pytest.mark.parametrize("path", EVERY_PATH, ids=lambda path: ".".join(map(str, path)))
def test_no_value_can_be_missing_or_no_number(path: tuple[Any, ...]) -> None:
    """Every value, replaced by junk or taken away: what the gate reads holds, what it does not read changes nothing."""
    documents = [without(evaluation(), path)] if isinstance(path[-1], str) else []
    # Any text could be a digest.
    documents += [changed(evaluation(), path, junk) for junk in JUNK if (path[-1], junk) != ("manifest_sha256", "0.9")]
    for document in documents:
        verdict = judge(document, RULES, CIRCUMSTANCES)
        assert verdict.outcome == ("HOLD" if read_by_the_gate(path) else "PROMOTE"), verdict.reasons
        assert verdict.reasons


@given(st.sets(st.sampled_from(EVERY_PATH), min_size=1, max_size=4), st.sampled_from(JUNK))
def test_junk_in_several_places_never_raises_and_never_promotes(places: set[tuple[Any, ...]], junk: Any) -> None:
    document = evaluation()
    for path in sorted(places, key=len, reverse=True):
        document = changed(document, path, junk)
    for circumstances in (CIRCUMSTANCES, DECAYED, NO_CHAMPION):
        verdict = judge(document, RULES, circumstances)
        if any(read_by_the_gate(path) for path in places if (path[-1], junk) != ("manifest_sha256", "0.9")):
            assert verdict.outcome != "PROMOTE"
        json.dumps(verdict.to_json(), allow_nan=False)


@given(
    st.sets(st.sampled_from(EVERY_PATH), min_size=1, max_size=4),
    st.sampled_from([1e308, -1e308, 5e-324, 0, -1, 1e200]),
    st.sampled_from(["alpha", "margin", "min_rows", "slice_margin", "max_holdout_uses"]),
    st.sampled_from([1e-6, 5e-324, 0.49, 0, 1e308]),
    st.integers(0, 2),
)
def test_extreme_numbers_never_raise(places: set[tuple[Any, ...]], extreme: float, name: str, limit: float, uses: int) -> None:
    document = evaluation()
    for path in sorted(places, key=len, reverse=True):
        document = changed(document, path, extreme)
    for circumstances in (CIRCUMSTANCES, DECAYED, NO_CHAMPION):
        for rules in (RULES, replace(RULES, **{name: limit})):
            verdict = judge(document, rules, replace(circumstances, holdout_uses=uses))
            json.dumps(verdict.to_json(), allow_nan=False)


@pytest.mark.parametrize("document", [{}, None, [], "evaluation"])
def test_no_evaluation_holds(document: Any) -> None:
    assert judge(document, RULES, CIRCUMSTANCES).outcome == judge(document, RULES, NO_CHAMPION).outcome == "HOLD"


@pytest.mark.parametrize("name", [field.name for field in fields(Rules) if field.name not in ("floors", "slices")])
@pytest.mark.parametrize("junk", [math.nan, math.inf, -1, "1", True, []], ids=str)
def test_a_limit_that_is_none_holds_and_names_it(name: str, junk: Any) -> None:
    verdict = judge(evaluation(), replace(RULES, **{name: junk}), CIRCUMSTANCES)
    assert verdict.outcome == "HOLD"
    assert ("task" if name == "task" else f"gate.{name}") in verdict.reasons[0]


@pytest.mark.parametrize("floors", [{}, {"auc": math.nan}, {"auc": 0.6, "average_precision": None}])
def test_floors_that_are_none_hold(floors: dict[str, Any]) -> None:
    verdict = judge(first_model(), replace(RULES, floors=floors), NO_CHAMPION)
    assert verdict.outcome == "HOLD" and "gate.floors" in verdict.reasons[0]


@pytest.mark.parametrize(
    ("change", "check"),
    [
        *(({"label_coverage": junk}, "label coverage") for junk in (None, math.nan, 0.89, 1.2, True)),
        *(({"holdout_uses": junk}, "holdout uses") for junk in (None, math.nan, -1, 3, 4, 1.5, True, "0")),
        *(({"champion_age_days": junk}, "champion age") for junk in (None, math.nan, -1, True)),
        *(({"artifact_checked": junk}, "artifact") for junk in (None, 1, "yes")),
        *(({"decay_confirmed": junk}, "decay") for junk in (None, 1, "no")),
    ],
    ids=str,
)
def test_circumstances_that_are_unknown_or_wrong_hold(change: dict[str, Any], check: str) -> None:
    verdict = judge(evaluation(), RULES, replace(CIRCUMSTANCES, **change))
    assert verdict.outcome == "HOLD"
    assert outcome(verdict, check) == "HOLD"


def test_an_artifact_that_failed_its_check_is_rejected() -> None:
    verdict = judge(evaluation(), RULES, replace(CIRCUMSTANCES, artifact_checked=False))
    assert verdict.outcome == "REJECT" and "golden" in verdict.reasons[0]


@pytest.mark.parametrize(("key", "limit"), [("megabytes", 100), ("seconds_per_million", 600)])
def test_a_model_too_large_or_too_slow_is_rejected(key: str, limit: float) -> None:
    assert judge(changed(evaluation(), ("challenger", key), limit), RULES, CIRCUMSTANCES).outcome == "PROMOTE"
    verdict = judge(changed(evaluation(), ("challenger", key), limit * 1.01), RULES, CIRCUMSTANCES)
    assert verdict.outcome == "REJECT" and f"{limit:,}" in verdict.reasons[0]


@pytest.mark.parametrize(("auc", "expected"), [(0.6, "PROMOTE"), (0.5999, "HOLD"), (0.5801, "HOLD"), (0.5799, "REJECT")])
def test_a_floor_is_reached_missed_by_chance_or_missed(auc: float, expected: str) -> None:
    """The interval of the AUC is ± 0.02."""
    verdict = judge(first_model(auc), RULES, NO_CHAMPION)
    assert verdict.outcome == expected
    assert any("floor 0.6" in reason and f"{auc:.4f}" in reason for reason in verdict.reasons)


def test_a_floor_counts_for_a_challenger_too() -> None:
    assert judge(evaluation(), replace(RULES, floors={"auc": 0.9}), CIRCUMSTANCES).outcome == "REJECT"


@pytest.mark.parametrize(
    ("rows", "positives", "needed"),
    [(499, 250, 1), (0, 0, 500), (1000, 0, None), (1000, 1000, None), (1000, 25, 1000), (1000, 975, 1000)],
)
def test_too_few_rows_hold_and_say_how_many_more(rows: int, positives: int, needed: int | None) -> None:
    document = first_model() | {"rows": rows, "positives": positives}
    verdict = judge(document, RULES, NO_CHAMPION)
    assert (verdict.outcome, verdict.rows_needed) == ("HOLD", needed)


def test_a_single_class_holds_whatever_the_rules_say() -> None:
    document = first_model() | {"positives": 0}
    assert judge(document, replace(RULES, min_positives=0), NO_CHAMPION).outcome == "HOLD"


def test_where_evidence_is_lacking_bad_metrics_hold_instead_of_rejecting() -> None:
    assert judge(first_model(0.3), RULES, NO_CHAMPION).outcome == "REJECT"
    assert judge(first_model(0.3) | {"rows": 20, "positives": 10}, RULES, NO_CHAMPION).outcome == "HOLD"


@pytest.mark.parametrize("role", ["challenger", "champion"])
def test_a_holdout_that_a_model_was_trained_on_holds(role: str) -> None:
    verdict = judge(changed(evaluation(), (role, "trained_to"), "2013-03-17"), RULES, CIRCUMSTANCES)
    assert verdict.outcome == "HOLD"
    assert f"the {role} was trained up to 2013-03-17" in verdict.reasons[0]


@pytest.mark.parametrize("name", ["champion", "challenger"])
def test_a_metric_that_was_not_measured_on_these_rows_holds(name: str) -> None:
    """A stored metric of another holdout is not what the comparison says."""
    document = changed(evaluation(), (name, "metrics", "auc", "value"), 0.71)
    verdict = judge(document, RULES, CIRCUMSTANCES)
    assert verdict.outcome == "HOLD" and "contradicts" in verdict.reasons[0]


def test_an_improvement_of_the_wrong_sign_holds() -> None:
    for index in (0, 1):
        document = evaluation()
        document["comparisons"][index]["improvement"] *= -1
        assert judge(document, RULES, CIRCUMSTANCES).outcome == "HOLD"


def test_the_champion_itself_is_no_challenger() -> None:
    document = changed(evaluation(), ("challenger", "manifest_sha256"), "a" * 32)
    assert judge(document, RULES, CIRCUMSTANCES).outcome == "HOLD"


def test_a_champion_that_was_not_evaluated_does_not_make_a_first_model() -> None:
    verdict = judge(first_model(), RULES, CIRCUMSTANCES)
    assert verdict.outcome == "HOLD" and verdict.rule == "superiority"
    assert judge(first_model() | {"comparisons": evaluation()["comparisons"]}, RULES, NO_CHAMPION).outcome == "HOLD"


@pytest.mark.parametrize(
    ("gain", "error", "auc_gain", "auc_error", "expected"),
    [
        (0.0100, 0.003, 0.0100, 0.0030, "PROMOTE"),
        (0.0053, 0.003, 0.0053, 0.0030, "PROMOTE"),  # the bound of the first use: 1.7507 standard errors
        (0.0052, 0.003, 0.0052, 0.0030, "HOLD"),
        (0.0100, 0.003, -0.0040, 0.0030, "PROMOTE"),  # the AUC is worse by less than the margin
        (0.0100, 0.003, -0.0060, 0.0030, "HOLD"),
        (0.0100, 0.003, -0.0110, 0.0030, "REJECT"),
        (0.0010, 0.003, 0.0010, 0.0030, "HOLD"),
        (0.0010, 0.003, 0.0010, 0.0020, "REJECT"),  # at most 0.0045 of AUC better: of no consequence
        (-0.0060, 0.003, 0.0010, 0.0030, "REJECT"),  # worse
        (0.0000, 0.000, 0.0000, 0.0000, "REJECT"),  # the same model under another name
    ],
)
def test_superiority(gain: float, error: float, auc_gain: float, auc_error: float, expected: str) -> None:
    verdict = judge(evaluation(gain, error, auc_gain, auc_error), RULES, CIRCUMSTANCES)
    assert (verdict.outcome, verdict.rule) == (expected, "superiority")
    assert (verdict.rows_needed is not None) == (expected == "HOLD")


@pytest.mark.parametrize(
    ("gain", "auc_gain", "auc_error", "expected"),
    [
        (0.001, 0.001, 0.003, "PROMOTE"),
        (0.001, 0.001, 0.004, "HOLD"),  # as much as 0.006 worse is possible
        (-0.001, 0.001, 0.003, "HOLD"),
        (0.001, -0.001, 0.001, "HOLD"),
        (0.001, -0.002, 0.001, "REJECT"),
        (-0.010, 0.001, 0.003, "REJECT"),
    ],
)
def test_non_inferiority_after_decay(gain: float, auc_gain: float, auc_error: float, expected: str) -> None:
    document = evaluation(gain, 0.003, auc_gain, auc_error)
    assert judge(document, RULES, DECAYED).outcome == expected
    assert judge(document, RULES, replace(CIRCUMSTANCES, champion_age_days=181)).outcome == expected
    assert judge(document, RULES, replace(CIRCUMSTANCES, champion_age_days=180)).outcome != "PROMOTE"
    ageless = replace(RULES, max_champion_age_days=None)
    assert judge(document, ageless, replace(CIRCUMSTANCES, champion_age_days=999)).outcome != "PROMOTE"


@pytest.mark.parametrize(
    ("gain", "error", "scheduled", "decayed"),
    [
        (0.5, 0.1, "PROMOTE", "PROMOTE"),
        (0.05, 0.1, "HOLD", "PROMOTE"),
        (0.05, 0.05, "REJECT", "PROMOTE"),
        (-0.05, 0.1, "REJECT", "HOLD"),
        (-0.5, 0.1, "REJECT", "REJECT"),
        (-0.3, 0.3, "HOLD", "HOLD"),
    ],
)
def test_a_regression_is_compared_by_its_relative_rmse(gain: float, error: float, scheduled: str, decayed: str) -> None:
    assert judge(numbers(gain, error), NUMBERS, CIRCUMSTANCES).outcome == scheduled
    assert judge(numbers(gain, error), NUMBERS, DECAYED).outcome == decayed


def test_rows_needed_give_eighty_percent_power_to_see_the_margin() -> None:
    verdict = judge(evaluation(0.001, 0.003, 0.001, 0.004), RULES, CIRCUMSTANCES)
    assert verdict.rows_needed is not None
    error = 0.004 * math.sqrt(10_000 / (10_000 + verdict.rows_needed))
    assert RULES.margin / error == pytest.approx(1.7507 + 0.8416, abs=1e-3)


def test_rows_needed_decide_between_nothing_and_the_margin() -> None:
    """The power is there, the estimate lies between: so many rows that one of both bounds must be passed."""
    verdict = judge(evaluation(0.0025, 0.0019, 0.0025, 0.0019), RULES, CIRCUMSTANCES)
    assert verdict.outcome == "HOLD" and verdict.rows_needed is not None
    shrunk = 0.0019 * math.sqrt(10_000 / (10_000 + verdict.rows_needed))
    assert 2 * 1.7507 * shrunk == pytest.approx(RULES.margin, rel=1e-3)


@given(st.floats(0.001, 0.2), st.integers(1, 10))
def test_all_uses_of_a_holdout_together_spend_no_more_than_alpha(alpha: float, uses: int) -> None:
    rules = replace(RULES, alpha=alpha, max_holdout_uses=uses)
    spent = [alpha_of_use(rules, replace(CIRCUMSTANCES, holdout_uses=use)) for use in range(uses + 3)]
    assert sum(spent) <= alpha and spent[0] == pytest.approx(0.8 * alpha)
    assert spent[:uses] == sorted(set(spent[:uses]), reverse=True)
    assert spent[uses:] == [0.0] * 3


def test_each_use_of_a_holdout_asks_for_more() -> None:
    document = evaluation(gain=0.0060)
    verdicts = [judge(document, RULES, replace(CIRCUMSTANCES, holdout_uses=uses)) for uses in range(4)]
    assert [verdict.outcome for verdict in verdicts] == ["PROMOTE", "HOLD", "HOLD", "HOLD"]
    assert [verdict.alpha_spent for verdict in verdicts] == pytest.approx([0.04, 0.008, 0.0016, 0])
    assert "wait for newer labels" in " ".join(verdicts[3].reasons)
    assert judge(evaluation(gain=0.02), RULES, replace(CIRCUMSTANCES, holdout_uses=2)).outcome == "PROMOTE"


def test_the_first_model_spends_nothing() -> None:
    assert judge(first_model(), RULES, NO_CHAMPION).alpha_spent == 0


@pytest.mark.parametrize(
    ("improvement", "error", "rows", "expected"),
    [
        (-0.030, 0.010, 5000, "REJECT"),
        (-0.022, 0.010, 5000, "PROMOTE"),  # within 5 % of 0.45
        (-0.030, 0.016, 5000, "PROMOTE"),  # could be chance among three slices: 2.128 standard errors are asked for
        (-0.030, 0.014, 5000, "REJECT"),
        (-0.300, 0.010, 199, "PROMOTE"),  # too small to be judged
        (-0.300, 0.010, 200, "REJECT"),
    ],
)
def test_a_slice_that_is_shown_to_be_much_worse_rejects(improvement: float, error: float, rows: int, expected: str) -> None:
    document = evaluation()
    bad = {"rows": rows, "improvement": improvement, "standard_error": error, "challenger_loss": 0.45 - improvement}
    document["slices"][1]["rows"] += document["slices"][0]["rows"] - rows
    document["slices"][0] |= bad
    for circumstances in (CIRCUMSTANCES, DECAYED):
        verdict = judge(document, RULES, circumstances)
        assert verdict.outcome == expected
        assert expected == "PROMOTE" or "origin = EWR" in verdict.reasons[0]
        assert any(finding.check == "slices origin" for finding in verdict.findings)


def test_slices_of_other_columns_are_for_the_reader() -> None:
    document = evaluation()
    document["slices"].append(document["slices"][0] | {"column": "carrier", "improvement": -9.0, "challenger_loss": math.nan})
    assert judge(document, RULES, CIRCUMSTANCES).outcome == "PROMOTE"


def test_a_column_of_the_rules_without_slices_holds() -> None:
    for rules, document, circumstances in (
        (replace(RULES, slices=("origin", "carrier")), evaluation(), CIRCUMSTANCES),
        (replace(RULES, slices=("origin", "carrier")), first_model(), NO_CHAMPION),
    ):
        verdict = judge(document, rules, circumstances)
        assert verdict.outcome == "HOLD" and "carrier" in verdict.reasons[0]
    assert judge(evaluation(), replace(RULES, slices=()), CIRCUMSTANCES).outcome == "PROMOTE"


def test_calibration_beyond_the_limit_holds_and_beyond_chance_rejects() -> None:
    document = changed(evaluation(), ("challenger", "calibration_error"), 0.12)
    bins = [{"forecast": 0.32, "outcome": 0.2, "low": 0.1, "high": 0.3, "rows": 10_000}]
    document["challenger"]["calibration"] = bins
    assert judge(document, RULES, CIRCUMSTANCES).outcome == "HOLD"
    document["challenger"] |= {"calibration": [bins[0] | {"low": 0.19, "high": 0.21}]}
    assert judge(document, RULES, CIRCUMSTANCES).outcome == "REJECT"
    document["challenger"] |= {"calibration": [bins[0] | {"low": 0.19, "high": None}]}
    assert judge(document, RULES, CIRCUMSTANCES).outcome == "HOLD"


def test_the_rules_are_those_of_model_yaml() -> None:
    section = Gate().model_dump(exclude={"max_decision_churn"})
    assert judge(first_model(), Rules(task="classification", **section), NO_CHAMPION).outcome == "PROMOTE"


def test_simulated_retrains_are_promoted_if_better_and_seldom_if_not() -> None:
    """The small form of the benchmark; the bounds are generous, its full form has the figures."""
    figures = simulation.run(simulation.SMALL)
    assert figures["harmful_max"] <= 0.07
    assert figures["power_2k_plus_010"] >= 0.4
    assert figures["broken_live_2k"] == figures["broken_live_2k_decaying"] == 0
    assert figures["cpu_seconds_100k"] < 3
