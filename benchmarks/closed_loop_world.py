"""The world of `benchmarks.closed_loop`: the flights of 2013 in their order, and what could have been trained each Monday."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from include.config import ModelConfig
from include.core.artifacts import predict
from include.core.features import encode
from include.core.training import Trained, one_batch, train
from include.core.tuning import Space, tune

MODEL = "flight_delays"
FIRST_AS_OF = date(2013, 4, 1)
LAST_DAY = date(2013, 12, 31)


@dataclass(frozen=True)
class Challenger:
    """What was trained on a Monday, and its score of every row of the year, in the order of the rows."""

    as_of: date
    trained: Trained
    scores: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Year:
    """The rows of the year, ordered by day: features, label, and the hash of the key, by which rows are drawn for labelling."""

    rows: pa.RecordBatch
    days: npt.NDArray[np.datetime64]
    labels: npt.NDArray[np.int64]
    lots: npt.NDArray[np.str_]

    def between(self, first: date, last: date) -> slice:
        """Where the rows of the days from first to last are, both included."""
        low, high = np.searchsorted(self.days, [np.datetime64(first), np.datetime64(last) + 1])
        return slice(int(low), int(high))

    def part(self, rows: slice) -> pa.RecordBatch:
        return self.rows.slice(rows.start, rows.stop - rows.start)


def mondays(weeks: int) -> list[date]:
    return [day for week in range(1, weeks + 1) if (day := FIRST_AS_OF + timedelta(weeks=week)) <= LAST_DAY]


def the_year(model: ModelConfig, folder: Path) -> Year:
    """Land the year and make all its features and labels by the product's SQL."""
    from demo import simulator
    from include import queries
    from include.platforms import local_engine as engine

    lake = folder / "lake"
    os.environ["AILERON_LAKE"] = str(lake)
    simulator.land(lake, model.start, LAST_DAY)
    simulator.land_outcomes(lake, model.start, LAST_DAY)
    file = folder / "year.parquet"
    with engine.connected() as connection:
        query = queries.training_set(model, engine.DIALECT, engine.tables(model))
        engine.write(connection, query, {"first_partition": model.start, "last_partition": LAST_DAY}, file)
    return as_year(model, pq.read_table(file, partitioning=None))


def as_year(model: ModelConfig, table: pa.Table) -> Year:
    rows = one_batch(table)
    lots = np.array([hashlib.md5(str(key).encode()).hexdigest() for key in rows[model.source.key].to_pylist()])
    return Year(rows, table["partition_date"].to_numpy(), table["label"].to_numpy(), lots)


def challenger(model: ModelConfig, year: Year, as_of: date, trials: int) -> Challenger:
    """What train_<model> would have trained that morning: the same window, search and seed."""
    training, search = model.training, model.training.search
    last = as_of - timedelta(days=model.labels.delay_days)
    known = pa.Table.from_batches([year.part(year.between(last - timedelta(days=training.window_days - 1), last))])
    numeric, categorical = model.features.numeric, model.features.categorical
    tuned = tune(
        known,
        model.task,
        numeric,
        categorical,
        "label",
        Space(tuple(search.windows), tuple(search.half_lives), training.max_trees),
        trials=trials,
        validation_days=search.validation_days,
        holdout_days=training.holdout_days,
        min_rows=training.min_rows,
        seed=training.seed,
    )
    trained = train(
        known,
        model.task,
        numeric,
        categorical,
        "label",
        tuned.parameters,
        holdout_days=training.holdout_days,
        min_rows=training.min_rows,
    )
    matrix, _ = encode(year.rows, trained.spec)
    return Challenger(as_of, trained, predict(trained.booster, matrix).astype(np.float64))
