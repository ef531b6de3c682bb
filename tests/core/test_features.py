"""The matrix a model sees is the one that a plain reading of the rules gives, whatever Arrow type the columns have."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.features import FeatureSpec, UnusableFeatures, check_columns, encode

KNOWN = {"AA": 0.25, "DL": 0.5, "": 0.125, "Ünïted": 0.75}
SPEC = FeatureSpec(("distance",), ("carrier",), {"carrier": KNOWN}, {"carrier": 0.3})

distances = st.one_of(st.none(), st.floats(width=32, allow_nan=True, allow_infinity=False), st.integers(-(2**31), 2**31))
carriers = st.one_of(st.none(), st.sampled_from([*KNOWN, "WN", "aa", "AA "]), st.text(max_size=3))


def naive(rows: list[tuple[float | None, str | None]]) -> tuple[list[list[float]], int]:
    """The rules, row by row."""
    matrix = []
    for distance, carrier in rows:
        number = math.nan if distance is None else float(distance)
        category = math.nan if carrier is None else KNOWN.get(carrier, 0.3)
        matrix.append([number, category])
    return matrix, sum(carrier is not None and carrier not in KNOWN for _, carrier in rows)


@given(st.lists(st.tuples(distances, carriers), max_size=40), st.sampled_from(["string", "large", "dictionary", "view"]))
def test_encode_agrees_with_a_row_by_row_reading(rows: list[tuple[float | None, str | None]], kind: str) -> None:
    column = pa.array([carrier for _, carrier in rows], pa.string())
    column = {
        "string": lambda: column,
        "large": lambda: column.cast(pa.large_string()),
        "dictionary": column.dictionary_encode,
        "view": lambda: column.cast(pa.string_view()),
    }[kind]()
    # A column the model does not know comes first: columns are found by name.
    batch = pa.record_batch({
        "extra": pa.nulls(len(rows)),
        "carrier": column,
        "distance": pa.array([None if d is None else float(d) for d, _ in rows], pa.float64()),
    })
    matrix, unseen = encode(batch, SPEC)
    expected, new = naive(rows)
    assert matrix.dtype == np.float32
    assert matrix.flags["C_CONTIGUOUS"]
    assert matrix.shape == (len(rows), 2)
    np.testing.assert_array_equal(matrix, np.array(expected, dtype=np.float32).reshape(len(rows), 2))
    assert unseen == {"carrier": new}


@given(st.integers(0, 30), st.integers(0, 30))
def test_encode_of_a_slice_is_the_slice_of_the_encoded(start: int, length: int) -> None:
    carrier = pa.array((["AA", None, "DL", "new"] * 8)[:30])
    batch = pa.record_batch({"distance": pa.array([float(n) for n in range(30)]), "carrier": carrier})
    whole, _ = encode(batch, SPEC)
    part, _ = encode(batch.slice(start, length), SPEC)
    np.testing.assert_array_equal(part, whole[start : start + length])


@pytest.mark.parametrize(
    "values",
    [
        pa.array([1, None, 3], pa.int8()),
        pa.array([1, None, 3], pa.uint64()),
        pa.array([1, None, 3], pa.float16()),
        pa.array([Decimal("1.00"), None, Decimal("3.00")], pa.decimal128(10, 2)),
        pa.array([1.0, None, 3.0], pa.float32()),
    ],
    ids=lambda values: str(values.type),
)
def test_numbers_of_any_type_are_taken(values: pa.Array) -> None:
    matrix, _ = encode(pa.record_batch({"distance": values, "carrier": pa.array(["AA"] * 3)}), SPEC)
    np.testing.assert_array_equal(matrix[:, 0], np.array([1, np.nan, 3], dtype=np.float32))


def test_booleans_are_zero_and_one() -> None:
    matrix, _ = encode(pa.record_batch({"distance": pa.array([True, False, None]), "carrier": pa.array(["AA"] * 3)}), SPEC)
    np.testing.assert_array_equal(matrix[:, 0], np.array([1, 0, np.nan], dtype=np.float32))


def test_a_column_without_any_value_is_missing_values() -> None:
    matrix, unseen = encode(pa.record_batch({"distance": pa.nulls(2), "carrier": pa.nulls(2)}), SPEC)
    assert np.isnan(matrix).all()
    assert unseen == {"carrier": 0}


@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e39])
def test_a_number_too_large_for_the_model_is_refused(value: float) -> None:
    batch = pa.record_batch({"distance": pa.array([1.0, value]), "carrier": pa.array(["AA", "AA"])})
    with pytest.raises(UnusableFeatures, match="'distance': 1 of 2 values are infinite or too large"):
        encode(batch, SPEC)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"carrier": ["AA"]}, "column 'distance' is missing"),
        ({"distance": [1.0], "Carrier": ["AA"]}, "column 'carrier' is missing"),
        ({"distance": ["1,5"], "carrier": ["AA"]}, r"'distance' holds string \(such as '1,5'\), the model wants a number"),
        ({"distance": [1.0], "carrier": [7]}, r"'carrier' holds int64 \(such as '7'\), the model wants a string"),
    ],
)
def test_a_missing_renamed_or_retyped_column_is_named(columns: dict[str, list], message: str) -> None:
    with pytest.raises(UnusableFeatures, match=message):
        encode(pa.record_batch(columns), SPEC)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(UnusableFeatures, match=r"'distance' is missing; column 'carrier' is missing.*features\.sql"):
        check_columns(pa.record_batch({"x": [1]}), ("distance",), ("carrier",))


def test_a_column_that_is_there_twice_is_refused() -> None:
    batch = pa.RecordBatch.from_arrays(
        [pa.array([1.0]), pa.array([2.0]), pa.array(["AA"])], names=["distance", "distance", "carrier"]
    )
    with pytest.raises(UnusableFeatures, match="'distance' is there twice"):
        encode(batch, SPEC)


def test_a_spec_survives_json() -> None:
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC
