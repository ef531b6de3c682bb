"""Training: rows in, model out. The same rows, parameters and seed give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xgboost
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import TargetEncoder

from include.core import profile
from include.core.artifacts import GOLDEN_ROWS, predict
from include.core.errors import Refused
from include.core.evaluation import Metrics, Task, evaluate
from include.core.features import FeatureSpec, Matrix, categories, check_columns, encode, numbers
from include.core.scoring import score_reference

FOLDS = 5
OBJECTIVES: dict[Task, str] = {"classification": "binary:logistic", "regression": "reg:squarederror"}


@dataclass(frozen=True)
class Range:
    """The values that a parameter may have: from `low`, or above it, up to `high`; whole numbers only, or None too."""

    low: float
    high: float
    whole: bool = False
    above: bool = False
    optional: bool = False

    def fault(self, value: Any) -> str | None:
        """Why it may not have this value."""
        if value is None and self.optional:
            return None
        if isinstance(value, bool) or not isinstance(value, int if self.whole else int | float):
            return f"must be {'an integer' if self.whole else 'a number'}{' or null' if self.optional else ''}"
        # NaN is on neither side of a bound: it is refused too.
        if (value > self.low if self.above else value >= self.low) and value <= self.high:
            return None
        return f"must be {'above' if self.above else 'at least'} {self.low:g} and at most {self.high:g}"


RANGES = {
    "trees": Range(1, 5000, whole=True),
    "max_depth": Range(1, 20, whole=True),
    "learning_rate": Range(0, 1, above=True),
    "min_child_weight": Range(0, 1e6),
    "subsample": Range(0, 1, above=True),
    "colsample_bytree": Range(0, 1, above=True),
    "reg_lambda": Range(0, 1e6),
    "window_days": Range(1, 36600, whole=True, optional=True),
    "half_life_days": Range(0, 36600, above=True, optional=True),
    "seed": Range(0, 2**31 - 1, whole=True),
}


class CannotTrain(Refused):
    """The training set does not allow a model; the message says what is wrong with it."""


class InvalidParameters(Refused):
    """Parameters cannot be used; the message names every wrong key and why."""


@dataclass(frozen=True)
class Parameters:
    """All that a search may choose. Names are XGBoost's where it has the same; see `RANGES`.

    `window_days` and `half_life_days` count calendar days back from the last day of training; None is all days, and all
    rows alike.
    """

    trees: int = 300
    max_depth: int = 6
    learning_rate: float = 0.1
    min_child_weight: float = 1.0
    subsample: float = 1.0
    colsample_bytree: float = 1.0
    reg_lambda: float = 1.0
    window_days: int | None = None
    half_life_days: float | None = None
    seed: int = 7

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Parameters:
        """Parameters from a JSON object; what it does not name has its default.

        Raises:
            InvalidParameters: naming every key that is unknown, of another type, or out of range.
        """
        faults = [f"{key}: unknown; choose of {', '.join(RANGES)}" for key in sorted(raw.keys() - RANGES.keys())]
        faults += [f"{key}: {raw[key]!r} {fault}" for key in RANGES if key in raw and (fault := RANGES[key].fault(raw[key]))]
        if faults:
            raise InvalidParameters(f"parameters: {'; '.join(faults)}")
        # A whole number for a float is the same parameter, and must give the same bytes.
        values: dict[str, Any] = {
            key: value if value is None or RANGES[key].whole else float(value) for key, value in raw.items()
        }
        return cls(**values)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Part:
    """One side of the split: which partitions, how many rows, how many of them positive (None for a regression)."""

    first: date
    last: date
    rows: int
    positives: int | None

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first.isoformat(), "last": self.last.isoformat(), "rows": self.rows, "positives": self.positives}


@dataclass(frozen=True)
class Trained:
    """A model and what is known of it.

    `golden` are encoded rows [at most 100, features] of the holdout. `reference` is what its work is compared with
    later: `features`, the profile of the rows it learned from, and `score`, the histogram of its scores of the holdout
    (the scores of rows that it learned from would look better than any to come).
    """

    booster: xgboost.Booster
    spec: FeatureSpec
    training: Part
    holdout: Part
    metrics: Metrics
    reference: dict[str, Any]
    golden: Matrix


def train(
    rows: pa.Table,
    task: Task,
    numeric: Sequence[str],
    categorical: Sequence[str],
    label: str,
    parameters: Parameters,
    *,
    holdout_days: int,
    min_rows: int,
    threads: int = 2,
    progress: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train on the partitions before the last `holdout_days` of those there are, and measure on these.

    The holdout has no part in the model: not in its trees, not in its encodings, not in its reference profile.

    Args:
        rows: the features, `partition_date` (DATE) and the label (classification: 0 or 1; regression: a finite number;
            never NULL), one row per entity.
        threads: changes the speed, not the model.
        progress: is told the number of trees after each one.

    Raises:
        CannotTrain: if there are too few partitions, rows, or rows of one class; or a label is not what the task says.
        UnusableFeatures: if a feature is missing, of another type, or infinite.
    """
    batch = one_batch(rows)
    check_columns(batch, numeric, categorical)
    labels, dates = labels_of(batch, label, task), dates_of(batch)
    held_out = dates >= holdout_begins(dates, holdout_days)
    used = ~held_out & within(dates, dates[~held_out].max(), parameters.window_days)
    enough(task, labels[used], min_rows)

    older, newer = batch.filter(pa.array(used)), batch.filter(pa.array(held_out))
    spec, encoded = fit_encodings(task, older, labels[used], numeric, categorical, parameters.seed)
    booster = xgboost.train(
        boosting(task, parameters, threads),
        quantiles(
            training_matrix(older, numeric, encoded), labels[used], spec, weights(dates[used], parameters.half_life_days), threads
        ),
        num_boost_round=parameters.trees,
        callbacks=[_Progress(progress)],
    )
    holdout, _ = encode(newer, spec)
    scores = predict(booster, holdout)
    chosen = np.unique(np.linspace(0, len(holdout) - 1, GOLDEN_ROWS).astype(int))
    return Trained(
        booster=booster,
        spec=spec,
        training=_part(task, dates[used], labels[used]),
        holdout=_part(task, dates[held_out], labels[held_out]),
        metrics=evaluate(task, labels[held_out], scores),
        reference={"features": profile.reference(older, numeric, categorical), "score": score_reference(scores)},
        golden=holdout[chosen],
    )


def importance(booster: xgboost.Booster, features: Sequence[str]) -> dict[str, float]:
    """Share of each feature in what the splits of the trees have gained together, 0..1; 0 for one that no tree asks."""
    gained = {name: float(np.sum(gain)) for name, gain in booster.get_score(importance_type="total_gain").items()}
    total = sum(gained.values()) or 1.0
    return {name: gained.get(name, 0.0) / total for name in features}


def fit_encodings(
    task: Task,
    batch: pa.RecordBatch,
    labels: npt.NDArray,
    numeric: Sequence[str],
    categorical: Sequence[str],
    seed: int,
) -> tuple[FeatureSpec, Matrix]:
    """Learn the number that stands for each category, and encode the training rows without showing them their own label.

    Each fifth of the rows is encoded with what the other four fifths say (cross-fitting); the encodings that are kept
    are learned from all rows, each counting alike. So a rare category does not tell the model the label of its only row.

    Returns:
        The spec, and the categorical columns of the training rows, float32 [rows, categorical features].
    """
    if not categorical:
        return FeatureSpec(tuple(numeric), (), {}, {}), np.empty((batch.num_rows, 0), dtype=np.float32)
    coded = [categories(batch, name) for name in categorical]
    codes = np.column_stack([pc.fill_null(column.indices, -1).to_numpy(zero_copy_only=False) for column in coded])
    if task == "classification":
        encoder = TargetEncoder(target_type="binary", cv=StratifiedKFold(FOLDS, shuffle=True, random_state=seed))
    else:
        encoder = TargetEncoder(target_type="continuous", cv=KFold(FOLDS, shuffle=True, random_state=seed))
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


def training_matrix(batch: pa.RecordBatch, numeric: Sequence[str], encoded: Matrix) -> Matrix:
    """The rows as a model learns from them, float32 [rows, features]: numbers, then the cross-fitted encodings."""
    return np.column_stack([*(numbers(batch, name) for name in numeric), encoded]).astype(np.float32)


def quantiles(
    matrix: Matrix, labels: npt.NDArray, spec: FeatureSpec, row_weights: npt.NDArray | None, threads: int
) -> xgboost.QuantileDMatrix:
    """The rows in XGBoost's bins. Weights have no part in where the bins lie, so one matrix serves all half-lives."""
    rows = xgboost.QuantileDMatrix(matrix, label=labels, feature_names=list(spec.names), nthread=threads)
    if row_weights is not None:
        rows.set_weight(row_weights)
    return rows


def boosting(task: Task, parameters: Parameters, threads: int) -> dict[str, Any]:
    """What XGBoost is told."""
    return {
        "objective": OBJECTIVES[task],
        "tree_method": "hist",
        "max_depth": parameters.max_depth,
        "learning_rate": parameters.learning_rate,
        "min_child_weight": parameters.min_child_weight,
        "subsample": parameters.subsample,
        "colsample_bytree": parameters.colsample_bytree,
        "reg_lambda": parameters.reg_lambda,
        "seed": parameters.seed,
        "nthread": threads,
        "verbosity": 1,
    }


def within(dates: npt.NDArray, last: np.datetime64, window_days: int | None) -> npt.NDArray[np.bool_]:
    """Which rows lie in the `window_days` calendar days that end with `last`; None is all up to there."""
    age = (last - dates).astype(np.int64)
    return (age >= 0) & (age < window_days) if window_days is not None else age >= 0


def weights(dates: npt.NDArray, half_life_days: float | None) -> npt.NDArray[np.float64] | None:
    """0.5 ** (age / half-life), age in days before the last of these dates; None if all rows count alike."""
    if half_life_days is None:
        return None
    age = (dates.max() - dates).astype(np.int64)
    return np.asarray(0.5 ** (age / half_life_days), dtype=np.float64)


class _Progress(xgboost.callback.TrainingCallback):
    def __init__(self, told: Callable[[int], None]) -> None:
        super().__init__()
        self.told = told

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        self.told(epoch + 1)
        return False


def one_batch(rows: pa.Table) -> pa.RecordBatch:
    """The rows of a table in one piece."""
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)


def labels_of(batch: pa.RecordBatch, label: str, task: Task) -> npt.NDArray:
    """The labels [rows]: int8 of 0 and 1, or float64.

    Raises:
        CannotTrain: if the column is missing, or a label is not what the task says.
    """
    if label not in batch.schema.names:
        raise CannotTrain(f"the training set has no column {label!r}: labels.sql must give it")
    column, wanted = batch.column(label), "0 or 1" if task == "classification" else "a finite number"
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind)):
        raise CannotTrain(f"the label {label!r} holds {column.type}: labels.sql must give {wanted}")
    values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):
        # XGBoost takes labels in float32.
        right = ((values == 0) | (values == 1)) if task == "classification" else np.isfinite(values.astype(np.float32))
    if wrong := int((~right).sum()):
        raise CannotTrain(f"the label {label!r} of {wrong} of {len(values)} rows is not {wanted}: labels.sql must decide each")
    return values.astype(np.int8) if task == "classification" else values


def dates_of(batch: pa.RecordBatch) -> npt.NDArray:
    """The partition of each row, datetime64[D] [rows].

    Raises:
        CannotTrain: if there is no column of dates, or a NULL in it.
    """
    found = batch.schema.get_field_index("partition_date")
    if found < 0 or not pa.types.is_date32(batch.schema.field(found).type) or batch.column(found).null_count:
        raise CannotTrain("the training set needs a column 'partition_date' of type DATE, without NULL: rows are split by it")
    return batch.column(found).to_numpy(zero_copy_only=False)


def holdout_begins(dates: npt.NDArray, holdout_days: int) -> np.datetime64:
    """The first day of the holdout: the last `holdout_days` partitions of those there are.

    Raises:
        CannotTrain: if nothing would be left to learn from.
    """
    partitions = np.unique(dates)
    if len(partitions) <= holdout_days:
        raise CannotTrain(
            f"the training set has {len(partitions)} partitions, of which training.holdout_days takes the last {holdout_days}: "
            "nothing is left to learn from; widen training.window_days"
        )
    first: np.datetime64 = partitions[-holdout_days]
    return first


def enough(task: Task, labels: npt.NDArray, min_rows: int) -> None:
    """Refuse labels that no model can be learned from.

    Raises:
        CannotTrain: if there are fewer than `min_rows`, or fewer than 5 of a class, or all of a regression are equal.
    """
    if len(labels) < min_rows:
        raise CannotTrain(
            f"{len(labels)} rows to learn from, training.min_rows asks for {min_rows}: "
            "widen training.window_days, or ask for fewer"
        )
    if task == "regression":
        if len(labels) < FOLDS or labels.min() == labels.max():
            raise CannotTrain(
                f"the labels of {len(labels)} rows to learn from are all equal, or fewer than {FOLDS}: "
                "widen training.window_days, or check labels.sql"
            )
        return
    positives = int(labels.sum(dtype=np.int64))
    if min(positives, len(labels) - positives) < FOLDS:
        raise CannotTrain(
            f"{positives} of {len(labels)} rows to learn from are positive: at least {FOLDS} of either class are needed; "
            "widen training.window_days, or check labels.sql"
        )


def _part(task: Task, dates: npt.NDArray, labels: npt.NDArray) -> Part:
    first, last = (np.datetime64(day, "D").astype(date) for day in (dates.min(), dates.max()))
    return Part(first, last, len(labels), int(labels.sum(dtype=np.int64)) if task == "classification" else None)
