"""Scores become predictions: the decision, and where each row comes from. One batch in, one batch out.

The same function runs in a local process, in Beam and in Spark's mapInArrow: it needs nothing but Arrow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from include.core.errors import Refused

if TYPE_CHECKING:
    from include.core.evaluation import Task


class UnusableRows(Refused):
    """The scores cannot become predictions; the message names column and count."""


@dataclass(frozen=True)
class Stamp:
    """What every row of a run carries, and the threshold of its decision, in the unit of the score.

    Raises:
        ValueError: if `scored_at` has no time zone: it would mean another instant on another machine; or if no score of
            the task could lie on either side of the threshold.
    """

    key: str
    threshold: float
    model_version: str
    run_id: str
    scored_at: datetime
    git_revision: str
    task: Task = "classification"

    def __post_init__(self) -> None:
        if self.scored_at.tzinfo is None:
            raise ValueError("scored_at has no time zone: write it as 2013-04-01T00:00:00+00:00")
        if self.task == "classification" and not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}: it must lie between 0 and 1")
        if not math.isfinite(self.threshold):
            raise ValueError(f"threshold is {self.threshold}: it must be a finite number")


def predictions_schema(key: str, key_type: pa.DataType) -> pa.Schema:
    """The columns of predictions, on every platform."""
    return pa.schema({
        key: key_type,
        "partition_date": pa.date32(),
        "score": pa.float64(),
        "decision": pa.bool_(),
        "model_version": pa.string(),
        "run_id": pa.string(),
        "scored_at": pa.timestamp("us", tz="UTC"),
        "git_revision": pa.string(),
    })


def postprocess(batch: pa.RecordBatch, stamp: Stamp) -> pa.RecordBatch:
    """Predictions of a batch of scores (key, partition_date, score), rows in its order; decision = score >= threshold.

    Raises:
        UnusableRows: if a column is missing, a key or date is NULL, or a score is not finite; of a classification also
            if it is not within 0..1.
    """
    for name in (stamp.key, "partition_date", "score"):
        if len(batch.schema.get_all_field_indices(name)) != 1:
            raise UnusableRows(f"column {name!r} is missing or there twice: score the partition again")
        if batch.column(name).null_count:
            raise UnusableRows(f"column {name!r}: {batch.column(name).null_count} rows are NULL: every row needs one")
    scores = batch.column("score").cast(pa.float64())
    if stamp.task == "classification":
        # NaN is neither at or above 0 nor at or below 1, so it counts as wrong too.
        right, wanted = pc.and_(pc.greater_equal(scores, 0.0), pc.less_equal(scores, 1.0)), "number within 0..1"
    else:
        right, wanted = pc.is_finite(scores), "finite number"
    if wrong := batch.num_rows - right.true_count:
        raise UnusableRows(f"column 'score': {wrong} of {batch.num_rows} are no {wanted}: score the partition again")

    schema = predictions_schema(stamp.key, batch.schema.field(stamp.key).type)
    columns = {
        stamp.key: batch.column(stamp.key),
        "partition_date": batch.column("partition_date"),
        "score": scores,
        "decision": pc.greater_equal(scores, stamp.threshold),
        "model_version": stamp.model_version,
        "run_id": stamp.run_id,
        "scored_at": stamp.scored_at,
        "git_revision": stamp.git_revision,
    }
    arrays = [
        value.cast(field.type) if isinstance(value, pa.Array) else pa.repeat(pa.scalar(value, field.type), batch.num_rows)
        for field, value in zip(schema, columns.values(), strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
