"""Training is repeatable, keeps the holdout out, and refuses rows that cannot make a model."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.artifacts import predict
from include.core.evaluation import Task, evaluate
from include.core.features import encode
from include.core.files import json_bytes
from include.core.profile import reference
from include.core.training import RANGES, CannotTrain, InvalidParameters, Parameters, fit_encodings, train, weights
from tests.core.examples import CATEGORICAL, HOLDOUT_DAYS, NUMERIC, PARAMETERS, delays, flights, saved, trained

TUNED = replace(
    PARAMETERS, subsample=0.8, colsample_bytree=0.7, min_child_weight=3.0, reg_lambda=2.0, window_days=6, half_life_days=2.5
)
each_task = pytest.mark.parametrize("task", ["classification", "regression"])


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@each_task
@pytest.mark.parametrize("parameters", [PARAMETERS, TUNED], ids=["plain", "tuned"])
def test_the_same_rows_and_seed_give_the_same_bytes(tmp_path: Path, task: Task, parameters: Parameters) -> None:
    assert saved(tmp_path / "one", None, task, parameters) == saved(tmp_path / "two", None, task, parameters)
    for name in ("model.ubj", "golden.parquet", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.mark.parametrize("parameters", [PARAMETERS, TUNED], ids=["plain", "tuned"])
def test_threads_do_not_change_the_model(parameters: Parameters) -> None:
    one, two = (trained(parameters=parameters, threads=threads) for threads in (1, 2))
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")


@pytest.mark.parametrize("name", sorted(RANGES))
def test_every_parameter_has_a_part_in_the_model(name: str) -> None:
    plain = replace(PARAMETERS, subsample=0.9)
    changed = replace(TUNED, trees=21, max_depth=3, learning_rate=0.2, seed=8)
    other = replace(plain, **{name: getattr(changed, name)})
    assert trained(parameters=plain).booster.save_raw("ubj") != trained(parameters=other).booster.save_raw("ubj")


def test_the_last_partitions_are_the_holdout() -> None:
    model = trained()
    assert (model.training.first, model.training.last) == (date(2013, 1, 1), date(2013, 1, 9))
    assert (model.holdout.first, model.holdout.last) == (date(2013, 1, 10), date(2013, 1, 12))
    assert (model.training.rows, model.holdout.rows) == (2250, 750)


def test_a_window_is_of_days_before_the_holdout() -> None:
    model = trained(parameters=TUNED)
    assert (model.training.first, model.training.last) == (date(2013, 1, 4), date(2013, 1, 9))
    assert model.holdout == trained().holdout
    assert model.training.rows == 1500


def test_rows_before_the_window_have_no_part_in_the_model() -> None:
    """Rows 1500..2249 lie in the window; the first 750 rows can be anything."""
    rows, parameters = flights(), replace(PARAMETERS, window_days=6)
    other = pa.concat_tables([flights(seed=5).slice(0, 750), rows.slice(750)])
    one, two = trained(rows, parameters), trained(other, parameters)
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")
    assert (one.spec, one.reference) == (two.spec, two.reference)
    assert one.booster.save_raw("ubj") != trained(rows).booster.save_raw("ubj")


def test_a_half_life_weighs_new_rows_more() -> None:
    """The label turns over in the last days of training: only a short half-life believes them."""
    rows = flights(days=30)
    turned = pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 21)))
    rows = replaced(rows, "label", pc.if_else(turned, pc.subtract(1, rows["label"]), rows["label"]).cast(pa.int32()))
    alike, recent = (trained(rows, replace(PARAMETERS, half_life_days=days)).metrics["auc"] or 0 for days in (None, 2.0))
    assert alike < 0.5 < recent


@given(st.integers(1, 40), st.floats(0.1, 100))
def test_a_row_of_the_half_life_counts_half(days: int, half_life: float) -> None:
    dates = np.datetime64("2013-03-01") - np.arange(days)
    found = weights(dates, half_life)
    assert found is not None
    assert found[0] == 1.0
    np.testing.assert_allclose(found, [2 ** (-age / half_life) for age in range(days)])


@each_task
def test_nothing_of_the_holdout_reaches_the_model(task: Task) -> None:
    """Other values and labels in the holdout, and a category that only it has: the same model, to the bit."""
    rows = flights() if task == "classification" else delays()
    later = pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 9)))
    other = replaced(rows, "label", pc.if_else(later, pc.subtract(1, rows["label"]), rows["label"]))
    other = replaced(other, "carrier", pc.if_else(later, "ZZ", other["carrier"]))
    other = replaced(other, "distance", pc.if_else(later, 1.0, other["distance"]))
    one, two = trained(rows, task=task), trained(other, task=task)
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")
    assert one.spec == two.spec
    assert one.reference["features"] == two.reference["features"]
    assert "ZZ" not in two.spec.encodings["carrier"]
    assert one.metrics != two.metrics


@each_task
def test_the_metrics_are_those_of_the_holdout(task: Task) -> None:
    rows, model = (flights() if task == "classification" else delays()), trained(task=task)
    holdout = rows.filter(pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 9)))).combine_chunks()
    matrix, _ = encode(holdout.to_batches()[0], model.spec)
    assert model.metrics == evaluate(task, holdout["label"].to_numpy(), predict(model.booster, matrix))
    assert (model.metrics["auc" if task == "classification" else "r2"] or 0) > 0.6


def test_the_order_of_columns_and_extra_columns_are_of_no_consequence() -> None:
    rows = flights()
    shuffled = rows.select(rows.column_names[::-1]).append_column("extra", pa.nulls(rows.num_rows))
    assert trained(rows).booster.save_raw("ubj") == trained(shuffled).booster.save_raw("ubj")


def test_encodings_are_smoothed_shares_of_positive_labels() -> None:
    rows = flights(20_000)
    batch = rows.combine_chunks().to_batches()[0]
    labels = rows["label"].to_numpy()
    spec, encoded = fit_encodings("classification", batch, labels, NUMERIC, CATEGORICAL, seed=7)
    assert spec.unseen == pytest.approx({"carrier": labels.mean(), "origin": labels.mean()})
    for carrier in ("AA", "DL", "UA", "WN"):
        share = labels[pc.fill_null(pc.equal(rows["carrier"], carrier), False).to_numpy()].mean()
        assert spec.encodings["carrier"][carrier] == pytest.approx(share, abs=0.01)
    assert np.isnan(encoded[:, 0]).sum() == rows["carrier"].null_count


def test_a_row_does_not_see_its_own_label() -> None:
    """A category of its own for every row: encoded with its own label the column would be the label."""
    rows = flights(2000)
    rows = replaced(rows, "carrier", rows["flight_id"])
    labels = rows["label"].to_numpy()
    _, encoded = fit_encodings("classification", rows.combine_chunks().to_batches()[0], labels, NUMERIC, ("carrier",), seed=7)
    assert abs(evaluate("classification", labels, encoded[:, 0])["auc"] - 0.5) < 0.1


def test_a_categorical_feature_that_is_always_null_can_be_trained_with() -> None:
    rows = replaced(flights(), "carrier", pa.nulls(3000, pa.string()))
    assert trained(rows).spec.encodings["carrier"] == {}


def test_a_model_needs_no_categorical_feature() -> None:
    model = train(flights(), "classification", NUMERIC, (), "label", PARAMETERS, holdout_days=HOLDOUT_DAYS, min_rows=100)
    assert model.spec.names == NUMERIC


def test_progress_is_told_every_tree() -> None:
    seen: list[int] = []
    trained(progress=seen.append)
    assert seen == list(range(1, 21))


def test_the_reference_counts_the_scores_of_the_holdout() -> None:
    model = trained()
    score = model.reference["score"]
    assert sum(score["counts"]) == model.holdout.rows
    assert len(score["counts"]) == len(score["edges"]) + 1
    assert sorted(set(score["edges"])) == score["edges"]


def test_the_reference_counts_the_features_of_the_rows_that_were_learned_from() -> None:
    used = flights().slice(750, 1500).combine_chunks().to_batches()[0]
    assert trained(parameters=TUNED).reference["features"] == reference(used, NUMERIC, CATEGORICAL)


@pytest.mark.parametrize(
    ("parameters", "options", "message"),
    [
        (PARAMETERS, {"holdout_days": 12}, "has 12 partitions, of which training.holdout_days takes the last 12"),
        (PARAMETERS, {"min_rows": 2251}, "2250 rows to learn from, training.min_rows asks for 2251"),
        (TUNED, {"min_rows": 1501}, "1500 rows to learn from, training.min_rows asks for 1501"),
    ],
)
def test_too_few_partitions_or_rows_are_refused(parameters: Parameters, options: dict[str, int], message: str) -> None:
    with pytest.raises(CannotTrain, match=message):
        trained(None, parameters, **options)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(label: int) -> None:
    with pytest.raises(CannotTrain, match="at least 5 of either class"):
        trained(replaced(flights(), "label", pa.array([label] * 3000)))


def test_labels_that_are_all_equal_are_no_regression() -> None:
    with pytest.raises(CannotTrain, match="labels of 2250 rows to learn from are all equal"):
        trained(replaced(delays(), "label", pa.array([7.5] * 3000)), task="regression")


def test_a_holdout_of_one_class_trains_but_has_no_auc() -> None:
    rows = flights()
    later = pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 9)))
    model = trained(replaced(rows, "label", pc.if_else(later, 0, rows["label"]).cast(pa.int32())))
    assert model.metrics["auc"] is None
    assert model.metrics["brier"] is not None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (pa.array([None, *[0, 1] * 1499, 1]), "of 1 of 3000 rows is not 0 or 1"),
        (pa.array([2, *[0, 1] * 1499, 1]), "of 1 of 3000 rows is not 0 or 1"),
        (pa.array(["yes", "no"] * 1500), "'label' holds string"),
    ],
)
def test_a_label_must_be_zero_or_one(values: pa.Array, message: str) -> None:
    with pytest.raises(CannotTrain, match=message):
        trained(replaced(flights(), "label", values))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 1e39])
def test_a_label_of_a_regression_must_be_finite(value: float | None) -> None:
    values = pa.array([value, *delays()["label"].to_pylist()[1:]], pa.float64())
    with pytest.raises(CannotTrain, match="of 1 of 3000 rows is not a finite number"):
        trained(replaced(delays(), "label", values), task="regression")


def test_a_training_set_without_label_or_dates_is_refused() -> None:
    with pytest.raises(CannotTrain, match="no column 'label'"):
        trained(flights().drop_columns(["label"]))
    with pytest.raises(CannotTrain, match="'partition_date' of type DATE"):
        trained(flights().drop_columns(["partition_date"]))


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "trees": st.integers(1, 5000),
            "max_depth": st.integers(1, 20),
            "learning_rate": st.floats(0, 1, exclude_min=True),
            "min_child_weight": st.floats(0, 1e6) | st.integers(0, 100),
            "subsample": st.just(1),
            "window_days": st.none() | st.integers(1, 36600),
            "half_life_days": st.none() | st.integers(1, 36600),
            "seed": st.integers(0, 2**31 - 1),
        },
    )
)
def test_parameters_survive_json(raw: dict[str, Any]) -> None:
    parameters = Parameters.from_json(raw)
    assert {name: parameters.to_json()[name] for name in raw} == raw
    again = Parameters.from_json(json.loads(json_bytes(parameters.to_json())))
    assert json_bytes(again.to_json()) == json_bytes(parameters.to_json())
    assert parameters.to_json().keys() == RANGES.keys()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"depth": 3}, "depth: unknown; choose of trees, max_depth"),
        ({"trees": 0}, "trees: 0 must be at least 1 and at most 5000"),
        ({"trees": 20.0}, "trees: 20.0 must be an integer"),
        ({"trees": True}, "trees: True must be an integer"),
        ({"trees": None}, "trees: None must be an integer"),
        ({"learning_rate": 0}, "learning_rate: 0 must be above 0 and at most 1"),
        ({"learning_rate": math.nan}, "learning_rate: nan must be above 0"),
        ({"reg_lambda": math.inf}, "reg_lambda: inf must be at least 0 and at most 1e"),
        ({"subsample": "all"}, "subsample: 'all' must be a number"),
        ({"window_days": 0}, "window_days: 0 must be at least 1"),
        ({"window_days": 1.5}, "window_days: 1.5 must be an integer or null"),
        ({"half_life_days": -1}, "half_life_days: -1 must be above 0"),
        ({"seed": -1, "max_depth": 99}, "max_depth: 99 .*; seed: -1 must be"),
    ],
    ids=str,
)
def test_parameters_that_cannot_be_used_are_named(raw: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidParameters, match=message):
        Parameters.from_json(raw)
