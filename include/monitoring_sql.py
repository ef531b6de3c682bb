"""What monitoring asks of a day, one statement and one pass each: where its values lie, and how good its scores were.

`profile` counts what `include.core.profile.count` counts, `quality` compares scores with labels. Both run where the data
is, so that a few hundred numbers travel and no rows do. What they answer is read back by `ProfileQuery.read` and
`read_quality`, whatever the platform makes of a number: DuckDB and BigQuery give numbers and dates, Athena gives text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from include import queries
from include.authored_sql import TABLE
from include.config import ModelConfig
from include.core.quality import binned_auc
from include.queries import Dialect, Query

if TYPE_CHECKING:
    from include.core.profile import Profile

BINS = 40
DECISIONS = ("0", "1")
PAIR_SUMS = ("n", "a", "b", "aa", "bb", "ab")
# No table of a model is called so: their names begin with a letter.
PREDICTIONS = "_predictions"


@dataclass(frozen=True)
class DayProfile:
    """One partition in the cells of a reference.

    rows: that were counted, the sample; population: accepted rows of the day. columns: as `core.profile.count` gives
    them, of each feature; with predictions also "score" and "decision", unless no row was predicted by the version.
    pairs: by "a × b" the number of rows that have both, and Σa, Σb, Σa², Σb², Σab of their cells' numbers.
    """

    partition: date
    rows: int
    population: int
    columns: Profile
    pairs: dict[str, list[int]]

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "partition": self.partition.isoformat()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> DayProfile:
        kept = {name: found[name] for name in ("rows", "population", "columns", "pairs")}
        return cls(partition=date.fromisoformat(found["partition"]), **kept)


@dataclass(frozen=True)
class Predictions:
    """The published predictions of a model.

    table: how they are written on the platform, put into the SQL as it stands, as are `tables`. version: whose scores are
    counted. cells: of the score, as of a numeric feature.
    """

    table: str
    version: str
    cells: Mapping[str, Any]


@dataclass(frozen=True)
class _Column:
    """A column to be counted. source: its name in the statement; cells: the places of its edges or values in `values`."""

    number: int
    name: str
    source: str
    reference: Mapping[str, Any]
    cells: range

    @property
    def kind(self) -> str:
        return str(self.reference["kind"])

    @property
    def comparison(self) -> str:
        return "<=" if self.kind == "numeric" else "="

    @property
    def of_score(self) -> bool:
        return self.source != self.name

    @property
    def origin(self) -> str:
        return f"_predicted.{self.name}" if self.of_score else f'_accepted."{self.name}"'


@dataclass(frozen=True)
class ProfileQuery:
    """The statement, one row per partition that has rows, in no order; and what reads a row."""

    query: Query
    _columns: tuple[_Column, ...]
    _pairs: tuple[tuple[str, str], ...]

    def read(self, columns: Sequence[str], row: Sequence[Any]) -> DayProfile:
        """A row of the answer; `columns` are the names that came with it."""
        found = dict(zip(columns, row, strict=True))
        scored = _count(found.get("scored"))
        return DayProfile(
            partition=_day(found["partition_date"]),
            rows=_count(found["profiled"]),
            population=_count(found["population"]),
            columns={
                column.name: _cells(column, found, scored if column.of_score else _count(found["profiled"]))
                for column in self._columns
                if scored or not column.of_score
            },
            pairs={
                f"{a} × {b}": [_count(found[f"pair_{number}_{kind}"]) for kind in PAIR_SUMS]
                for number, (a, b) in enumerate(self._pairs)
                if scored or not {a, b} & {column.name for column in self._columns if column.of_score}
            },
        )


def profile(
    model: ModelConfig,
    dialect: Dialect,
    tables: Mapping[str, str],
    cells: Mapping[str, Mapping[str, Any]],
    predictions: Predictions | None = None,
    pairs: Sequence[tuple[str, str]] = (),
    sample: float = 1.0,
) -> ProfileQuery:
    """The accepted rows of each day in the cells of a reference, as `core.profile.count` would count them.

    Args:
        tables: as for `queries.build_features`.
        cells: the reference, by feature; only what it has is counted.
        predictions: counts "score" and "decision" too, of the rows that a version predicted.
        pairs: of columns of the answer. The number of a cell is that of an interval from the left, or the place of a
            category in `values`; other categories come after the last.
        sample: share of the rows, 0..1, that is counted. A row is in it by its key alone, so it is in every larger one
            too; where the key is text or a whole number they are the same rows on every platform.

    Raises:
        InvalidQuery, ValueError: as `queries.build_features`; ValueError too if the cells are not of features of the
            model, if a pair is of what is not counted, or if version or sample are none.
    """
    if not 0 < sample <= 1:
        raise ValueError(f"sample is {sample}: it must be a share, above 0 and up to 1")
    if predictions and not re.fullmatch(r"[0-9]+", predictions.version):
        raise ValueError(f"{predictions.version!r} is no version of a model: it must be digits")
    values: list[str | float] = []
    columns = _columns(model, cells, predictions, values)
    numbers = {column.name: column.number for column in columns}
    if unknown := sorted({name for pair in pairs for name in pair} - numbers.keys()):
        raise ValueError(f"pairs: {', '.join(unknown)} is not counted")
    # The first 8 hexadecimal digits of a hash come before these. Never 2³²: its text is longer, and comes before most.
    threshold = f"{min(math.ceil(sample * 2**32), 2**32 - 1):08x}"
    query = queries.render(
        "profile",
        model,
        dialect,
        {**tables, PREDICTIONS: predictions.table} if predictions else tables,
        [*values, threshold, predictions.version if predictions else ""],
        predictions=TABLE + PREDICTIONS if predictions else None,
        counted=columns,
        pairs=[(numbers[a], numbers[b]) for a, b in pairs],
        paired={numbers[name] for pair in pairs for name in pair},
        sampled=sample < 1,
        threshold=len(values),
        version=len(values) + 1,
    )
    return ProfileQuery(query, columns, tuple(pairs))


@dataclass(frozen=True)
class QualityRow:
    """How good the scores were of one partition, version and slice.

    slice: a categorical feature, "" for all rows; value: of this feature, None where it is missing. rows: that were
    predicted; all that follows is over the labelled ones. Losses are log losses, of a regression squared errors.
    expected_sum, variance_sum: what the sum of the losses would be, and its variance, if each score were the true
    probability; None for a regression. bins: rows by score in BINS cells of equal width, positives: those of label 1;
    empty for a regression.
    """

    partition: date
    model_version: str
    slice: str
    value: str | None
    rows: int
    labelled: int
    label_sum: float
    score_sum: float
    loss_sum: float
    loss_squares: float
    expected_sum: float | None
    variance_sum: float | None
    bins: tuple[int, ...]
    positives: tuple[int, ...]

    @property
    def coverage(self) -> float | None:
        """Share of the predicted rows that have a label."""
        return self.labelled / self.rows if self.rows else None

    @property
    def loss(self) -> float | None:
        """Per labelled row."""
        return self.loss_sum / self.labelled if self.labelled else None

    @property
    def expected(self) -> float | None:
        """Loss per labelled row that the scores themselves expect."""
        return self.expected_sum / self.labelled if self.labelled and self.expected_sum is not None else None

    @property
    def auc(self) -> float | None:
        return binned_auc(self.bins, self.positives) if self.bins else None

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "partition": self.partition.isoformat()}

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> QualityRow:
        lists = {name: tuple(found[name]) for name in ("bins", "positives")}
        return cls(**{**found, **lists, "partition": date.fromisoformat(found["partition"])})


def quality(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str], predictions: str, slices: Sequence[str]) -> Query:
    """Scores beside labels, a row per partition, version and slice, in no order; `read_quality` reads them.

    Rows are those that are accepted and predicted. The log loss of a row is -(y ln p + (1 - y) ln(1 - p)) with p kept
    within 1e-15 of 0 and 1; where y is 1 with probability p, its mean is -(p ln p + (1 - p) ln(1 - p)) and its variance
    p (1 - p) ln²(p / (1 - p)).

    Args:
        tables: as for `queries.build_features`; predictions: the published ones, written likewise.
        slices: categorical features.

    Raises:
        InvalidQuery, ValueError: as `queries.build_features`; ValueError too if a slice is no categorical feature.
    """
    if wrong := sorted(set(slices) - set(model.features.categorical)):
        raise ValueError(f"{model.name}: {', '.join(wrong)} is not among features.categorical, so it makes no slices")
    return queries.render(
        "quality",
        model,
        dialect,
        {**tables, PREDICTIONS: predictions},
        predictions=TABLE + PREDICTIONS,
        slices=list(dict.fromkeys(slices)),
        bins=BINS if model.task == "classification" else 0,
    )


def read_quality(columns: Sequence[str], row: Sequence[Any]) -> QualityRow:
    """A row of the answer; `columns` are the names that came with it."""
    found = dict(zip(columns, row, strict=True))
    bins = range(BINS if "b0" in found else 0)
    return QualityRow(
        partition=_day(found["partition_date"]),
        model_version=found["model_version"],
        slice=found["slice"],
        value=found["value"],
        rows=_count(found["rows"]),
        labelled=_count(found["labelled"]),
        label_sum=_number(found["label_sum"]) or 0.0,
        score_sum=_number(found["score_sum"]) or 0.0,
        loss_sum=_number(found["loss_sum"]) or 0.0,
        loss_squares=_number(found["loss_squares"]) or 0.0,
        expected_sum=(_number(found["expected_sum"]) or 0.0) if bins else None,
        variance_sum=(_number(found["variance_sum"]) or 0.0) if bins else None,
        bins=tuple(_count(found[f"b{bin}"]) for bin in bins),
        positives=tuple(_count(found[f"p{bin}"]) for bin in bins),
    )


def label_sample(
    model: ModelConfig,
    dialect: Dialect,
    tables: Mapping[str, str],
    predictions: str,
    version: str,
    edges: Sequence[float],
    each: int,
    request: str,
) -> Query:
    """Rows that a version predicted and that have no label: at most `each` of every day and band of scores between `edges`.

    Columns: key, partition_date, score, band (0..len(edges)), population (unlabelled rows of the day and band). Which rows
    is told by the hash of their key and of the request: asked again while no label has come, they are the same.

    Raises:
        InvalidQuery, ValueError: as `queries.build_features`; ValueError too if version is none.
    """
    if not re.fullmatch(r"[0-9]+", version):
        raise ValueError(f"{version!r} is no version of a model: it must be digits")
    return queries.render(
        "label_sample",
        model,
        dialect,
        {**tables, PREDICTIONS: predictions},
        [*edges, version, request],
        predictions=TABLE + PREDICTIONS,
        edges=list(range(len(edges))),
        version=len(edges),
        request=len(edges) + 1,
        each=int(each),
    )


def _columns(
    model: ModelConfig, cells: Mapping[str, Mapping[str, Any]], predictions: Predictions | None, values: list[str | float]
) -> tuple[_Column, ...]:
    """What is to be counted, and its edges and values at the end of `values`."""
    kinds = dict.fromkeys(model.features.numeric, "numeric") | dict.fromkeys(model.features.categorical, "categorical")
    if wrong := sorted(name for name, reference in cells.items() if kinds.get(name) != reference["kind"]):
        raise ValueError(f"{model.name}: the cells of {', '.join(wrong)} are not of a feature of this kind")
    wanted = [(name, name, reference) for name, reference in cells.items()]
    if predictions:
        decisions = {"kind": "categorical", "values": DECISIONS}
        wanted += [("score", "_score", predictions.cells), ("decision", "_decision", decisions)]
    columns = []
    for number, (name, source, reference) in enumerate(wanted):
        own = _compared(name, reference)
        columns.append(_Column(number, name, source, reference, range(len(values), len(values) + len(own))))
        values += own
    return tuple(columns)


def _compared(name: str, reference: Mapping[str, Any]) -> list[str] | list[float]:
    if reference["kind"] == "categorical":
        return [str(value) for value in reference["values"]]
    edges = [float(edge) for edge in reference["edges"]]
    if not all(math.isfinite(edge) for edge in edges):
        raise ValueError(f"{name}: an edge is not finite")
    return edges


def _cells(column: _Column, found: Mapping[str, Any], rows: int) -> dict[str, Any]:
    """A column as in `core.profile.count`."""
    known = _count(found[f"known_{column.number}"])
    counts = [_count(found[f"cell_{column.number}_{cell}"]) for cell in range(len(column.cells))]
    if column.kind == "categorical":
        return {
            "kind": "categorical",
            "values": list(column.reference["values"]),
            "counts": counts,
            "other": known - sum(counts),
            "missing": rows - known,
        }
    given = _count(found[f"given_{column.number}"])
    return {
        "kind": "numeric",
        "edges": list(column.reference["edges"]),
        "counts": [above - below for below, above in pairwise([0, *counts, known])],
        "missing": rows - given,
        "not_finite": given - known,
        "low": _number(found[f"low_{column.number}"]),
        "high": _number(found[f"high_{column.number}"]),
    }


def _count(found: Any) -> int:
    """DuckDB counts NULL conditions as NULL, where there is no other."""
    return 0 if found is None else int(found)


def _number(found: Any) -> float | None:
    return None if found is None else float(found)


def _day(found: Any) -> date:
    if isinstance(found, datetime):
        return found.date()
    return found if isinstance(found, date) else date.fromisoformat(str(found)[:10])
