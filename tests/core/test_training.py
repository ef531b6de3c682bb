"""Training is repeatable, keeps the holdout out, and refuses rows that cannot make a model."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from include.core.artifacts import predict
from include.core.evaluation import evaluate
from include.core.features import encode
from include.core.training import CannotTrain, Parameters, fit_encodings, train
from tests.core.examples import CATEGORICAL, NUMERIC, PARAMETERS, flights, saved, trained


def replaced(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


def test_the_same_rows_and_seed_give_the_same_bytes(tmp_path) -> None:
    assert saved(tmp_path / "one") == saved(tmp_path / "two")
    for name in ("model.ubj", "golden.parquet", "manifest.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_threads_do_not_change_the_model() -> None:
    one, two = (trained(parameters=replace(PARAMETERS, threads=threads)) for threads in (1, 2))
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")


def test_the_last_partitions_are_the_holdout() -> None:
    model = trained()
    assert (model.training.first, model.training.last) == (date(2013, 1, 1), date(2013, 1, 9))
    assert (model.holdout.first, model.holdout.last) == (date(2013, 1, 10), date(2013, 1, 12))
    assert (model.training.rows, model.holdout.rows) == (2250, 750)


def test_nothing_of_the_holdout_reaches_the_model() -> None:
    """Other values and labels in the holdout, and a category that only it has: the same model, to the bit."""
    rows = flights()
    later = pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 9)))
    other = replaced(rows, "label", pc.if_else(later, pc.subtract(1, rows["label"]), rows["label"]).cast(pa.int32()))
    other = replaced(other, "carrier", pc.if_else(later, "ZZ", other["carrier"]))
    other = replaced(other, "distance", pc.if_else(later, 1.0, other["distance"]))
    one, two = trained(rows), trained(other)
    assert one.booster.save_raw("ubj") == two.booster.save_raw("ubj")
    assert one.spec == two.spec
    assert "ZZ" not in two.spec.encodings["carrier"]
    assert one.metrics != two.metrics


def test_the_metrics_are_those_of_the_holdout() -> None:
    rows, model = flights(), trained()
    holdout = rows.filter(pc.greater(rows["partition_date"], pa.scalar(date(2013, 1, 9)))).combine_chunks()
    matrix, _ = encode(holdout.to_batches()[0], model.spec)
    assert model.metrics == evaluate("classification", holdout["label"].to_numpy(), predict(model.booster, matrix))
    assert model.metrics["auc"] > 0.6


def test_the_order_of_columns_and_extra_columns_are_of_no_consequence() -> None:
    rows = flights()
    shuffled = rows.select(rows.column_names[::-1]).append_column("extra", pa.nulls(rows.num_rows))
    assert trained(rows).booster.save_raw("ubj") == trained(shuffled).booster.save_raw("ubj")


def test_encodings_are_smoothed_shares_of_positive_labels() -> None:
    rows = flights(20_000)
    batch = rows.combine_chunks().to_batches()[0]
    labels = rows["label"].to_numpy()
    spec, encoded = fit_encodings(batch, labels, NUMERIC, CATEGORICAL, seed=7)
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
    _, encoded = fit_encodings(rows.combine_chunks().to_batches()[0], labels, NUMERIC, ("carrier",), seed=7)
    assert abs(evaluate("classification", labels, encoded[:, 0])["auc"] - 0.5) < 0.1


def test_a_categorical_feature_that_is_always_null_can_be_trained_with() -> None:
    rows = replaced(flights(), "carrier", pa.nulls(3000, pa.string()))
    assert trained(rows).spec.encodings["carrier"] == {}


def test_a_model_needs_no_categorical_feature() -> None:
    model = train(flights(), NUMERIC, (), "label", PARAMETERS)
    assert model.spec.names == NUMERIC


def test_progress_is_told_every_tree() -> None:
    seen: list[int] = []
    train(flights(), NUMERIC, CATEGORICAL, "label", PARAMETERS, seen.append)
    assert seen == list(range(1, 21))


def test_the_reference_counts_the_scores_of_the_holdout() -> None:
    model = trained()
    assert sum(model.reference["counts"]) == model.holdout.rows
    assert len(model.reference["counts"]) == len(model.reference["edges"]) + 1
    assert sorted(set(model.reference["edges"])) == model.reference["edges"]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (replace(PARAMETERS, holdout_days=12), "has 12 partitions, of which training.holdout_days takes the last 12"),
        (replace(PARAMETERS, min_rows=2251), "2250 rows to learn from, training.min_rows asks for 2251"),
    ],
)
def test_too_few_partitions_or_rows_are_refused(parameters: Parameters, message: str) -> None:
    with pytest.raises(CannotTrain, match=message):
        trained(parameters=parameters)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_is_refused(label: int) -> None:
    with pytest.raises(CannotTrain, match="at least 5 of either class"):
        trained(replaced(flights(), "label", pa.array([label] * 3000)))


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


def test_a_training_set_without_label_or_dates_is_refused() -> None:
    with pytest.raises(CannotTrain, match="no column 'label'"):
        trained(flights().drop_columns(["label"]))
    with pytest.raises(CannotTrain, match="'partition_date' of type DATE"):
        trained(flights().drop_columns(["partition_date"]))
