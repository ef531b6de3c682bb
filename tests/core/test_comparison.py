"""Paired comparisons: the right sign, the right error, and no number where there is none to tell."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.comparison import by_slice, churn, compare, score_histograms, side_by_side
from include.core.evaluation import evaluate
from tests.core.test_evaluation import wins

SCORES = st.sampled_from([0.05, 0.2, 0.5, 0.7, 0.95])
paired_rows = st.lists(st.tuples(st.sampled_from([0, 1]), SCORES, SCORES), min_size=6, max_size=40).filter(
    lambda rows: 2 <= sum(row[0] for row in rows) <= len(rows) - 2
)


def columns(rows: list[tuple[int, float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels, champion, challenger = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return labels, champion, challenger


def named(comparisons: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {item["metric"]: item for item in comparisons}


@given(paired_rows)
def test_values_are_those_of_each_model_alone_and_signs_say_who_is_better(rows: list[tuple[int, float, float]]) -> None:
    labels, champion, challenger = columns(rows)
    for task in ("classification", "regression"):
        before, after = evaluate(task, labels, champion), evaluate(task, labels, challenger)
        for item in compare(task, labels, champion, challenger):
            metric = item["metric"]
            assert item["champion"] == pytest.approx(before[metric]) and item["challenger"] == pytest.approx(after[metric])
            towards_better = 1 if metric == "auc" else -1
            assert item["improvement"] == pytest.approx(towards_better * (after[metric] - before[metric]), abs=1e-12)


@given(paired_rows)
def test_the_paired_error_of_the_auc_is_that_of_delongs_definition(rows: list[tuple[int, float, float]]) -> None:
    labels, champion, challenger = columns(rows)
    gain = wins(labels, challenger) - wins(labels, champion)
    expected = math.sqrt(gain.mean(axis=1).var(ddof=1) / gain.shape[0] + gain.mean(axis=0).var(ddof=1) / gain.shape[1])
    assert named(compare("classification", labels, champion, challenger))["auc"]["standard_error"] == pytest.approx(
        expected, abs=1e-12
    )


@given(paired_rows)
def test_the_other_way_round_is_the_same_with_the_other_sign(rows: list[tuple[int, float, float]]) -> None:
    labels, champion, challenger = columns(rows)
    for task in ("classification", "regression"):
        there, back = named(compare(task, labels, champion, challenger)), named(compare(task, labels, challenger, champion))
        for metric, item in there.items():
            assert item["improvement"] == pytest.approx(-back[metric]["improvement"], abs=1e-12)
            assert item["standard_error"] == pytest.approx(back[metric]["standard_error"], abs=1e-12)


@given(paired_rows)
def test_a_model_is_exactly_as_good_as_itself(rows: list[tuple[int, float, float]]) -> None:
    labels, champion, _ = columns(rows)
    for task in ("classification", "regression"):
        for item in compare(task, labels, champion, champion):
            assert item["improvement"] == 0 and item["standard_error"] == 0


def test_errors_are_as_large_as_chance_makes_the_improvements() -> None:
    """Without a true difference, improvement / standard error has a standard deviation of 1."""
    random = np.random.default_rng(2)
    found: dict[str, list[float]] = {}
    for _ in range(400):
        signal = random.standard_normal(800)
        labels = (random.random(800) < 1 / (1 + np.exp(1.5 - signal))).astype(float)
        models = [1 / (1 + np.exp(1.5 - signal - 0.4 * random.standard_normal(800))) for _ in range(2)]
        minutes = 10 * signal + 5 * random.standard_normal(800)
        guesses = [10 * signal + 3 * random.standard_normal(800) for _ in range(2)]
        for item in (*compare("classification", labels, *models), *compare("regression", minutes, *guesses)):
            found.setdefault(item["metric"], []).append(item["improvement"] / item["standard_error"])
    assert set(found) == {"log_loss", "auc", "brier", "rmse", "mae"}
    for metric, ratios in found.items():
        assert abs(np.mean(ratios)) < 0.2 and 0.88 < np.std(ratios) < 1.12, metric


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -0.5, 1.5])
def test_a_score_that_is_no_probability_leaves_nothing_to_compare(wrong: float) -> None:
    labels, good, bad = np.array([0, 1, 0, 1]), np.array([0.1, 0.9, 0.2, 0.8]), np.array([0.1, wrong, 0.2, 0.8])
    for champion, challenger in ((good, bad), (bad, good)):
        for item in compare("classification", labels, champion, challenger):
            assert [item[key] for key in ("champion", "challenger", "improvement", "standard_error")] == [None] * 4
        slices = by_slice("classification", labels, {"c": (np.zeros(4, int), ["x"])}, champion, challenger)
        assert {slices[0][key] for key in ("challenger_loss", "champion_loss", "improvement", "standard_error")} == {None}


def test_one_class_has_no_auc_to_compare() -> None:
    found = named(compare("classification", np.zeros(6), np.linspace(0.1, 0.6, 6), np.linspace(0.2, 0.3, 6)))
    assert found["auc"]["improvement"] is None and found["auc"]["standard_error"] is None
    assert found["log_loss"]["improvement"] is not None


def test_a_perfect_forecast_has_no_error_of_its_rmse() -> None:
    labels = np.array([1.0, 2.0, 3.0])
    assert named(compare("regression", labels, labels + 1, labels))["rmse"]["standard_error"] is None
    assert named(compare("regression", labels * 1e200, -labels * 1e200, labels))["rmse"]["improvement"] is None


@given(st.integers(1, 400), st.integers(1, 40), st.integers(0, 2**20), st.booleans())
def test_slices_hold_every_row_once(rows: int, values: int, seed: int, with_champion: bool) -> None:
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    champion, challenger = random.uniform(0.01, 0.99, (2, rows))
    codes, names = random.integers(-1, values, rows), [f"v{i}" for i in range(values)]
    found = by_slice("classification", labels, {"kind": (codes, names)}, champion if with_champion else None, challenger)
    assert sum(item["rows"] for item in found) == rows
    assert sum(item["positives"] for item in found) == labels.sum()
    shown = [item for item in found if item["value"] not in ("(other)", "(missing)")]
    counts = np.bincount(codes[codes >= 0], minlength=values)
    assert [item["rows"] for item in shown] == sorted((int(c) for c in counts if c), reverse=True)[:20]
    for item in found:
        if item["value"] == "(other)":
            inside = np.isin(codes, [i for i in range(values) if f"v{i}" not in {other["value"] for other in shown}])
            inside &= codes >= 0
        else:
            inside = codes == (-1 if item["value"] == "(missing)" else names.index(item["value"]))
        assert item["rows"] == inside.sum()
        after = evaluate("classification", labels[inside], challenger[inside])
        assert item["challenger_loss"] == pytest.approx(after["log_loss"]) and item["challenger_auc"] == pytest.approx(
            after["auc"]
        )
        if with_champion:
            before = evaluate("classification", labels[inside], champion[inside])
            assert item["champion_loss"] == pytest.approx(before["log_loss"]) and item["champion_auc"] == pytest.approx(
                before["auc"]
            )
            assert item["improvement"] == pytest.approx(item["champion_loss"] - item["challenger_loss"], abs=1e-12)
        else:
            assert [item[key] for key in ("champion_loss", "improvement", "standard_error", "champion_auc")] == [None] * 4


def test_slices_of_numbers_have_squared_errors_and_no_positives() -> None:
    labels, champion, challenger = np.array([1.0, 2, 3, 4]), np.array([2.0, 2, 3, 6]), np.array([1.0, 3, 3, 4])
    found = by_slice("regression", labels, {"kind": (np.array([0, 0, 1, 1]), ["a", "b"])}, champion, challenger)
    assert [(item["value"], item["champion_loss"], item["challenger_loss"], item["positives"]) for item in found] == [
        ("a", 0.5, 0.5, None),
        ("b", 2.0, 0.0, None),
    ]
    assert found[1]["standard_error"] == pytest.approx(np.array([0.0, 4.0]).std(ddof=1) / math.sqrt(2))


def test_the_error_of_a_slice_is_that_of_its_paired_rows() -> None:
    random = np.random.default_rng(4)
    labels, champion, challenger = random.integers(0, 2, 500), *random.uniform(0.01, 0.99, (2, 500))
    whole = by_slice("classification", labels, {"all": (np.zeros(500, int), ["x"])}, champion, challenger)[0]
    paired = named(compare("classification", labels, champion, challenger))["log_loss"]
    assert whole["improvement"] == pytest.approx(paired["improvement"])
    assert whole["standard_error"] == pytest.approx(paired["standard_error"])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_both_histograms_count_all_rows_on_the_same_edges(champion: list[float], challenger: list[float]) -> None:
    found = score_histograms(np.array(champion), np.array(challenger))
    assert len(found["edges"]) == len(found["champion"]) + 1 == len(found["challenger"]) + 1
    assert sum(found["champion"]) == len(champion) and sum(found["challenger"]) == len(challenger)
    assert found["edges"] == sorted(found["edges"])
    assert found["edges"][0] <= min(champion + challenger) and found["edges"][-1] >= max(champion + challenger)


def test_without_a_champion_there_is_one_histogram() -> None:
    assert score_histograms(None, np.array([0.1, 0.2]))["champion"] is None
    assert score_histograms(None, np.array([math.nan])) == {"edges": [], "challenger": [], "champion": None}


def test_churn_is_the_share_of_rows_that_change_sides() -> None:
    assert churn(np.array([0.1, 0.5, 0.6, 0.9]), np.array([0.5, 0.49, 0.7, 0.9]), 0.5) == 0.5
    assert churn(np.array([]), np.array([]), 0.5) is None
    assert churn(np.array([0.1]), np.array([math.nan]), 0.5) is None


def test_the_whole_of_an_evaluation_without_a_champion() -> None:
    found = side_by_side("classification", np.array([0, 1, 1]), None, np.array([0.2, 0.7, 0.4]), {}, 0.5)
    assert found["champion"] is None and found["comparisons"] == [] and found["churn"] is None and found["slices"] == []
    assert (found["rows"], found["positives"]) == (3, 2)
    assert side_by_side("regression", np.array([0.0, 1]), None, np.array([0.2, 0.7]), {}, 0.5)["positives"] is None
