"""Training: rows in, model out. The same rows, parameters and seed give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xgboost
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from include.core.artifacts import GOLDEN_ROWS, predict
from include.core.errors import Refused
from include.core.evaluation import Metrics, evaluate
from include.core.features import FeatureSpec, Matrix, categories, check_columns, encode, numbers
from include.core.scoring import score_reference

FOLDS = 5


class CannotTrain(Refused):
    """The training set does not allow a model; the message says what is wrong with it."""


@dataclass(frozen=True)
class Parameters:
    """How a model is trained. `threads` changes the speed, not the model."""

    trees: int = 300
    max_depth: int = 6
    learning_rate: float = 0.1
    seed: int = 7
    holdout_days: int = 14
    min_rows: int = 1000
    threads: int = 2


@dataclass(frozen=True)
class Part:
    """One side of the split: which partitions, how many rows, how many of them positive."""

    first: date
    last: date
    rows: int
    positives: int

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first.isoformat(), "last": self.last.isoformat(), "rows": self.rows, "positives": self.positives}


@dataclass(frozen=True)
class Trained:
    """A model and what is known of it. `golden` are encoded rows [at most 100, features] of the holdout."""

    booster: xgboost.Booster
    spec: FeatureSpec
    training: Part
    holdout: Part
    metrics: Metrics
    reference: dict[str, Any]
    golden: Matrix


def train(
    rows: pa.Table,
    numeric: Sequence[str],
    categorical: Sequence[str],
    label: str,
    parameters: Parameters,
    progress: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train on the older partitions, measure on the last `holdout_days` of those there are.

    The holdout has no part in the model: not in its trees, not in its encodings. `progress` is told the number of
    trees after each one.

    Args:
        rows: the features, `partition_date` (DATE) and the label (0 or 1, never NULL), one row per entity.

    Raises:
        CannotTrain: if there are too few partitions, rows, or rows of one class; or the label is not 0 or 1.
        UnusableFeatures: if a feature is missing, of another type, or infinite.
    """
    batch = _one_batch(rows)
    check_columns(batch, numeric, categorical)
    labels, dates = _labels(batch, label), _dates(batch)
    held_out = _held_out(dates, parameters.holdout_days)
    _enough(labels[~held_out], parameters.min_rows)

    older, newer = batch.filter(pa.array(~held_out)), batch.filter(pa.array(held_out))
    spec, encoded = fit_encodings(older, labels[~held_out], numeric, categorical, parameters.seed)
    matrix = np.column_stack([*(numbers(older, name) for name in numeric), encoded]).astype(np.float32)
    booster = _boost(matrix, labels[~held_out], spec, parameters, progress)

    holdout, _ = encode(newer, spec)
    scores = predict(booster, holdout)
    chosen = np.unique(np.linspace(0, len(holdout) - 1, GOLDEN_ROWS).astype(int))
    return Trained(
        booster=booster,
        spec=spec,
        training=_part(dates[~held_out], labels[~held_out]),
        holdout=_part(dates[held_out], labels[held_out]),
        metrics=evaluate("classification", labels[held_out], scores),
        reference=score_reference(scores),
        golden=holdout[chosen],
    )


def fit_encodings(
    batch: pa.RecordBatch, labels: npt.NDArray, numeric: Sequence[str], categorical: Sequence[str], seed: int
) -> tuple[FeatureSpec, Matrix]:
    """Learn the number that stands for each category, and encode the training rows without showing them their own label.

    Each fifth of the rows is encoded with what the other four fifths say (cross-fitting); the encodings that are kept
    are learned from all rows. So a rare category does not tell the model the label of its only row.

    Returns:
        The spec, and the categorical columns of the training rows, float32 [rows, categorical features].
    """
    if not categorical:
        return FeatureSpec(tuple(numeric), (), {}, {}), np.empty((batch.num_rows, 0), dtype=np.float32)
    coded = [categories(batch, name) for name in categorical]
    codes = np.column_stack([pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) for column in coded])
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    encoder = TargetEncoder(target_type="binary", cv=folds)
    encoded = encoder.fit_transform(codes, labels).astype(np.float32)
    encoded[codes < 0] = np.nan
    values = [column.dictionary.to_pylist() for column in coded]
    mean = float(encoder.target_mean_)
    return FeatureSpec(
        numeric=tuple(numeric),
        categorical=tuple(categorical),
        encodings={
            name: {values[i][int(code)]: float(number) for code, number in zip(known, learned, strict=True) if code >= 0}
            for i, (name, known, learned) in enumerate(zip(categorical, encoder.categories_, encoder.encodings_, strict=True))
        },
        unseen=dict.fromkeys(categorical, mean),
    ), encoded


def _boost(
    matrix: Matrix, labels: npt.NDArray, spec: FeatureSpec, parameters: Parameters, progress: Callable[[int], None]
) -> xgboost.Booster:
    class Progress(xgboost.callback.TrainingCallback):
        def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
            progress(epoch + 1)
            return False

    return xgboost.train(
        {
            "objective": "binary:logistic",
            "tree_method": "hist",
            "max_depth": parameters.max_depth,
            "learning_rate": parameters.learning_rate,
            "seed": parameters.seed,
            "nthread": parameters.threads,
            "verbosity": 1,
        },
        xgboost.DMatrix(matrix, label=labels, feature_names=list(spec.names)),
        num_boost_round=parameters.trees,
        callbacks=[Progress()],
    )


def _one_batch(rows: pa.Table) -> pa.RecordBatch:
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)


def _labels(batch: pa.RecordBatch, label: str) -> npt.NDArray:
    if label not in batch.schema.names:
        raise CannotTrain(f"the training set has no column {label!r}: labels.sql must give it")
    column = batch.column(label)
    if not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
        raise CannotTrain(f"the label {label!r} holds {column.type}: labels.sql must give 0 or 1")
    values = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
    wrong = int((~((values == 0) | (values == 1))).sum())
    if wrong:
        raise CannotTrain(f"the label {label!r} of {wrong} of {len(values)} rows is not 0 or 1: labels.sql must decide each")
    return values.astype(np.int8)


def _dates(batch: pa.RecordBatch) -> npt.NDArray:
    found = batch.schema.get_field_index("partition_date")
    if found < 0 or not pa.types.is_date32(batch.schema.field(found).type) or batch.column(found).null_count:
        raise CannotTrain("the training set needs a column 'partition_date' of type DATE, without NULL: rows are split by it")
    return batch.column(found).to_numpy(zero_copy_only=False)


def _held_out(dates: npt.NDArray, holdout_days: int) -> npt.NDArray[np.bool_]:
    partitions = np.unique(dates)
    if len(partitions) <= holdout_days:
        raise CannotTrain(
            f"the training set has {len(partitions)} partitions, of which training.holdout_days takes the last {holdout_days}: "
            "nothing is left to learn from; widen training.window_days"
        )
    return dates >= partitions[-holdout_days]


def _enough(labels: npt.NDArray, min_rows: int) -> None:
    positives = int(labels.sum(dtype=np.int64))
    fewest = min(positives, len(labels) - positives)
    if len(labels) < min_rows:
        raise CannotTrain(f"{len(labels)} rows to learn from, training.min_rows asks for {min_rows}: widen training.window_days")
    if fewest < FOLDS:
        raise CannotTrain(
            f"{positives} of {len(labels)} rows to learn from are positive: at least {FOLDS} of either class are needed; "
            "widen training.window_days, or check labels.sql"
        )


def _part(dates: npt.NDArray, labels: npt.NDArray) -> Part:
    first, last = (np.datetime64(day, "D").astype(date) for day in (dates.min(), dates.max()))
    return Part(first, last, len(labels), int(labels.sum(dtype=np.int64)))
