"""A table of features becomes the matrix that a model sees: one function, for training and for scoring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as kinds

from include.core.errors import Refused

Matrix = npt.NDArray[np.float32]


class UnusableFeatures(Refused):
    """The table is not what the model was trained on; the message names the column and what is wrong with it."""


@dataclass(frozen=True)
class FeatureSpec:
    """What a model reads, and the number that stands for each category.

    `encodings[column][category]` is the mean label that the training rows of that category had, smoothed (for labels of
    0 and 1 the share of positive ones); `unseen[column]` stands for every category that training did not see: the mean
    over all training rows.
    """

    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    encodings: Mapping[str, Mapping[str, float]]
    unseen: Mapping[str, float]

    @property
    def names(self) -> tuple[str, ...]:
        """All features in the order of the matrix: numeric, then categorical."""
        return (*self.numeric, *self.categorical)

    def to_json(self) -> dict[str, Any]:
        return {
            "numeric": list(self.numeric),
            "categorical": list(self.categorical),
            "encodings": {column: dict(table) for column, table in self.encodings.items()},
            "unseen": dict(self.unseen),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> FeatureSpec:
        return cls(
            numeric=tuple(document["numeric"]),
            categorical=tuple(document["categorical"]),
            encodings=document["encodings"],
            unseen=document["unseen"],
        )


def encode(batch: pa.RecordBatch, spec: FeatureSpec) -> tuple[Matrix, dict[str, int]]:
    """The rows of a batch as the model sees them.

    Columns are found by name: their order is of no consequence, further columns are ignored. A number that is NULL or
    NaN becomes NaN, "missing" to the model. A category that is NULL becomes NaN; one that training did not see becomes
    `spec.unseen` and is counted.

    Returns:
        A float32 matrix [rows, features], C-contiguous, columns as `spec.names`; and per categorical feature how many
        rows hold a category that training did not see.

    Raises:
        UnusableFeatures: for a column that is missing, of another type, or infinite as float32.
    """
    matrix = np.empty((batch.num_rows, len(spec.names)), dtype=np.float32)
    unseen = {}
    check_columns(batch, spec.numeric, spec.categorical)
    for position, name in enumerate(spec.numeric):
        matrix[:, position] = numbers(batch, name)
    for position, name in enumerate(spec.categorical, start=len(spec.numeric)):
        matrix[:, position], unseen[name] = _encoded(batch, name, spec.encodings[name], spec.unseen[name])
    return matrix, unseen


def unseen_categories(batch: pa.RecordBatch, spec: FeatureSpec) -> list[list[str]]:
    """Of each row the categorical features whose category training did not see, in the order of the spec. NULL is none."""
    found: list[list[str]] = [[] for _ in range(batch.num_rows)]
    for name in spec.categorical:
        coded = categories(batch, name)
        new = pa.array([value not in spec.encodings[name] for value in coded.dictionary.to_pylist()], pa.bool_())
        for row in np.flatnonzero(pc.fill_null(new.take(coded.indices), False).to_numpy(zero_copy_only=False)):
            found[row].append(name)
    return found


def check_columns(batch: pa.RecordBatch, numeric: Sequence[str], categorical: Sequence[str]) -> None:
    """Refuse a batch that lacks a feature, or holds it in another type. All faults are named at once.

    Raises:
        UnusableFeatures: naming each column, its type, a value of it, and what the model wants.
    """
    faults = []
    for name in (*numeric, *categorical):
        found = batch.schema.get_all_field_indices(name)
        if len(found) != 1:
            faults.append(f"column {name!r} is {'there twice' if found else 'missing'}")
            continue
        kind = batch.schema.field(found[0]).type
        wanted, fits = ("a string", _is_string(kind)) if name in categorical else ("a number", _is_number(kind))
        if not fits and not (kinds.is_null(kind)):
            faults.append(f"column {name!r} holds {kind}{_sample(batch.column(found[0]))}, the model wants {wanted}")
    if faults:
        raise UnusableFeatures(f"{'; '.join(faults)}: let features.sql give what the model was trained on, or train it again")


def numbers(batch: pa.RecordBatch, name: str) -> Matrix:
    """A numeric column as float32 [rows], NULL as NaN.

    Raises:
        UnusableFeatures: if a value is infinite, or too large for float32: a model would take it for a number.
    """
    column = batch.column(name)
    if column.type != pa.float32():
        # Through float64: integers of 64 bits and decimals have no safe cast to float32, and need none.
        column = column.cast(pa.float64(), safe=False)
    with np.errstate(over="ignore"):
        values: Matrix = column.to_numpy(zero_copy_only=False).astype(np.float32, copy=False)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise UnusableFeatures(
            f"column {name!r}: {infinite} of {len(values)} values are infinite or too large: correct them at the source, or "
            "let a row rule quarantine them"
        )
    return values


def categories(batch: pa.RecordBatch, name: str) -> pa.DictionaryArray:
    """A categorical column as codes [rows] (NULL stays NULL) and its distinct values."""
    column = batch.column(name)
    if column.type != pa.string():
        column = column.cast(pa.string())
    return column.dictionary_encode()


def _encoded(batch: pa.RecordBatch, name: str, encodings: Mapping[str, float], unseen: float) -> tuple[Matrix, int]:
    coded = categories(batch, name)
    values: list[str] = coded.dictionary.to_pylist()
    # One row more than there are values: NULL's.
    table = np.array([*(encodings.get(value, unseen) for value in values), np.nan], dtype=np.float32)
    codes = pc.fill_null(coded.indices, len(values)).to_numpy(zero_copy_only=False)
    new = np.array([value not in encodings for value in values], dtype=bool)
    count = int(np.bincount(codes, minlength=len(values) + 1)[:-1][new].sum()) if new.any() else 0
    return table[codes], count


def _is_number(kind: pa.DataType) -> bool:
    return kinds.is_integer(kind) or kinds.is_floating(kind) or kinds.is_decimal(kind) or kinds.is_boolean(kind)


def _is_string(kind: pa.DataType) -> bool:
    value = kind.value_type if kinds.is_dictionary(kind) else kind
    return kinds.is_string(value) or kinds.is_large_string(value) or kinds.is_string_view(value)


def _sample(column: pa.Array) -> str:
    value = next((item.as_py() for item in column[:1000] if item.is_valid), None)
    return "" if value is None else f" (such as {str(value)[:40]!r})"
