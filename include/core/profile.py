"""Profiles: how often the values of each feature lie in which cell. The reference that drift is measured against.

A profile is small JSON, one entry per feature, counted in one pass over the rows:

    numeric      {"kind": "numeric", "edges": [...], "counts": [...], "missing": 3, "not_finite": 0, "low": 80.0, "high": 4983.0}
    categorical  {"kind": "categorical", "values": [...], "counts": [...], "other": 12, "missing": 0}

Cell i of a number holds the values above edge i-1 up to and with edge i; there is one more count than edges. Every row
is in exactly one cell, so counts in the same cells add up: profiles of the parts of a table give that of the whole. So do
`low` and `high`, the least and the largest finite value; they are None where there is none. A profile may lack them, and
so does any sum that it is part of.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from include.core.features import categories

BINS = 10
VALUES = 20

Profile = dict[str, dict[str, Any]]


class DifferentCells(ValueError):
    """Two profiles were not counted in the same cells, so they cannot be compared or added. Count both with one reference."""


def reference(batch: pa.RecordBatch, numeric: Sequence[str], categorical: Sequence[str]) -> Profile:
    """The profile that makes the cells: those of the training rows of a model.

    Numbers get the deciles of the batch as edges. A value that is several deciles at once gets a cell of its own: a
    column that is nearly always 0 shows values above and below it. Categories get the 20 most frequent values, and
    "other". The counts are counted in these cells, not assumed to be a tenth each.
    """
    cells: Profile = {name: {"kind": "numeric", "edges": _edges(_numbers(batch, name)[0])} for name in numeric}
    cells |= {name: {"kind": "categorical", "values": _most_frequent(batch, name)} for name in categorical}
    return count(batch, cells)


def count(batch: pa.RecordBatch, reference: Mapping[str, Mapping[str, Any]]) -> Profile:
    """The rows of a batch in the cells of a reference.

    Raises:
        KeyError: if the batch lacks a column of the reference.
    """
    return {
        name: _count_numbers(batch, name, cells["edges"])
        if cells["kind"] == "numeric"
        else _count_categories(batch, name, cells["values"])
        for name, cells in reference.items()
    }


def merge(one: Mapping[str, Mapping[str, Any]], other: Mapping[str, Mapping[str, Any]]) -> Profile:
    """The profile of the rows of both.

    Raises:
        DifferentCells: if they were not counted with the same reference.
    """
    if one.keys() != other.keys():
        raise DifferentCells(
            f"one profile is of {', '.join(one) or 'no feature'}, the other of {', '.join(other) or 'no feature'}"
        )
    merged: Profile = {}
    for name, cells in one.items():
        _same_cells(cells, other[name], name)
        merged[name] = dict(cells)
        for key in cells.keys() & {"missing", "not_finite", "other"}:
            merged[name][key] = cells[key] + other[name][key]
        for key, outer in (("low", min), ("high", max)):
            merged[name].pop(key, None)
            if key in cells and key in other[name]:
                known = [one[key] for one in (cells, other[name]) if one[key] is not None]
                merged[name][key] = outer(known, default=None)
        merged[name]["counts"] = [a + b for a, b in zip(cells["counts"], other[name]["counts"], strict=True)]
    return merged


def distance(a: Mapping[str, Any], b: Mapping[str, Any]) -> float | None:
    """How far two profiles of one feature are apart: G / N_eff, None where one of them has no rows.

    G = 2 * sum(O * ln(O / E)) is the statistic of the two-sample G test (Sokal & Rohlf, Biometry, 17.4) over all cells,
    those of missing values among them, and N_eff = n * m / (n + m). For small shifts it equals the population stability
    index; an empty cell, where that is infinite, adds a finite number. 0 for equal shares; for a number that moved by a
    few tenths of its standard deviation, about the square of that.

    Raises:
        DifferentCells: if they were not counted in the same cells.
    """
    _same_cells(a, b, "the feature")
    counts = np.array([all_counts(a), all_counts(b)], dtype=np.float64)
    return float(distances(counts[0], counts[1])) if counts.sum(axis=1).all() else None


def distances(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`distance` of many pairs of windows at once: counts [..., cells] on both sides, each with at least one row."""
    counts = np.stack([a, b])
    rows = counts.sum(axis=-1, keepdims=True)
    expected = counts.sum(axis=0) * rows / rows.sum(axis=0)
    ratio = np.divide(counts, expected, out=np.ones_like(counts), where=counts > 0)
    g = 2 * (counts * np.log(ratio)).sum(axis=(0, -1))
    return np.maximum(0.0, g * (rows.sum(axis=0) / rows.prod(axis=0))[..., 0])


def changes(a: Mapping[str, Mapping[str, Any]], b: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How each feature changed from one profile to the other, the largest change first.

    Returns:
        One dictionary per feature: `feature`, its `distance`, and the `cell` whose share changed most, in words, with
        its share `before` (in `a`) and `after` (in `b`), 0..1. All but the name are None where one side has no rows:
        these come first, for nothing is known of them.

    Raises:
        DifferentCells: if the profiles were not counted with the same reference.
    """
    _same_features(a, b)
    found = [_change(name, a[name], b[name]) for name in a]
    return sorted(found, key=lambda one: (one["distance"] is not None, -(one["distance"] or 0.0), one["feature"]))


def histogram(values: npt.NDArray, edges: npt.NDArray | Sequence[float]) -> npt.NDArray[np.int64]:
    """How many values lie in each of the len(edges) + 1 cells; a value equal to an edge lies below it."""
    cells = np.searchsorted(np.asarray(edges, dtype=np.float64), values.astype(np.float64), side="left")
    return np.bincount(cells, minlength=len(edges) + 1).astype(np.int64)


def all_counts(cells: Mapping[str, Any]) -> list[int]:
    """The rows of every cell, those without a value last: every row is in one of them."""
    rest = ("missing", "not_finite") if cells["kind"] == "numeric" else ("other", "missing")
    return [*cells["counts"], *(cells[key] for key in rest)]


def words(cells: Mapping[str, Any]) -> list[str]:
    """The cells in the order of `all_counts`, for people."""
    if cells["kind"] == "categorical":
        return [*(repr(value) for value in cells["values"]), "other values", "missing"]
    edges = cells["edges"]
    if not edges:
        return ["any number", "missing", "not finite"]
    alone = [low == _just_below(np.array([high]))[0] for low, high in pairwise(edges)]
    named = [f"up to {edges[0]:.4g}"]
    for (low, high), single in zip(pairwise(edges), alone, strict=True):
        if single:
            named[-1] = named[-1].replace(f"up to {low:.4g}", f"below {high:.4g}")
        named.append(f"exactly {high:.4g}" if single else f"above {low:.4g}, up to {high:.4g}")
    return [*named, f"above {edges[-1]:.4g}", "missing", "not finite"]


def _change(name: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    apart = distance(a, b)
    if apart is None:
        return {"feature": name, "distance": None, "cell": None, "before": None, "after": None}
    before, after = (np.array(all_counts(cells)) / sum(all_counts(cells)) for cells in (a, b))
    largest = int(np.abs(after - before).argmax())
    shares = {"before": float(before[largest]), "after": float(after[largest])}
    return {"feature": name, "distance": apart, "cell": words(a)[largest], **shares}


def _count_numbers(batch: pa.RecordBatch, name: str, edges: Sequence[float]) -> dict[str, Any]:
    finite, missing = _numbers(batch, name)
    return {
        "kind": "numeric",
        "edges": list(edges),
        "counts": histogram(finite, edges).tolist(),
        "missing": missing,
        "not_finite": batch.num_rows - missing - len(finite),
        "low": float(finite.min()) if len(finite) else None,
        "high": float(finite.max()) if len(finite) else None,
    }


def _count_categories(batch: pa.RecordBatch, name: str, values: Sequence[str]) -> dict[str, Any]:
    coded = categories(batch, name)
    counts = np.bincount(pc.drop_null(coded.indices).to_numpy(zero_copy_only=False), minlength=len(coded.dictionary))
    known = dict(zip(coded.dictionary.to_pylist(), counts.tolist(), strict=True))
    kept = [known.get(value, 0) for value in values]
    missing = coded.null_count
    other = batch.num_rows - missing - sum(kept)
    return {"kind": "categorical", "values": list(values), "counts": kept, "other": other, "missing": missing}


def _edges(values: npt.NDArray) -> list[float]:
    if len(values) == 0:
        return []
    ranks = np.arange(1, BINS) / BINS
    deciles, times = np.unique(np.quantile(values, ranks, method="inverted_cdf"), return_counts=True)
    alone = _just_below(deciles[times > 1])
    return [float(edge) for edge in np.union1d(deciles, alone[np.isfinite(alone)])]


def _just_below(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The edge that, with a value itself as the next, makes a cell of this value alone."""
    with np.errstate(over="ignore"):  # below the least finite number is -inf, which is no edge
        below = np.nextafter(values, -np.inf)
    # Where a library has switched off denormal numbers, the one below 0 is 0.
    tiny = np.finfo(np.float64).tiny
    return np.where(np.abs(below) < tiny, -tiny, below)


def _most_frequent(batch: pa.RecordBatch, name: str) -> list[str]:
    found = pc.value_counts(pc.drop_null(categories(batch, name).cast(pa.string()))).to_pylist()
    # By name where equally frequent: the order of the rows is of no consequence.
    return [one["values"] for one in sorted(found, key=lambda one: (-one["counts"], one["values"]))[:VALUES]]


def _numbers(batch: pa.RecordBatch, name: str) -> tuple[npt.NDArray[np.float64], int]:
    """The finite values of a column, and how many are NULL."""
    column = batch.column(name)
    values = pc.drop_null(column.cast(pa.float64(), safe=False)).to_numpy(zero_copy_only=False)
    return values[np.isfinite(values)], column.null_count


def _same_features(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    if a.keys() != b.keys():
        names = " and ".join(", ".join(profile) or "no feature" for profile in (a, b))
        raise DifferentCells(f"the profiles are of other features, {names}; count both with one reference")


def _same_cells(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> None:
    for key in ("kind", "edges", "values"):
        if a.get(key) != b.get(key):
            raise DifferentCells(f"{name}: the profiles have different {key}; count both with one reference")
