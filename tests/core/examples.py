"""Small flights to train on, and models trained on them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from include.core.artifacts import save_artifact
from include.core.evaluation import Task
from include.core.training import Parameters, Trained, train

NUMERIC = ("distance", "hour")
CATEGORICAL = ("carrier", "origin")
PARAMETERS = Parameters(trees=20, max_depth=4, seed=7)
HOLDOUT_DAYS = 3


def flights(rows: int = 3000, days: int = 12, seed: int = 1, first: date = date(2013, 1, 1)) -> pa.Table:
    """Rows in order of time; late flights depend on hour, carrier and chance. Some values are NULL."""
    random = np.random.default_rng(seed)
    carrier, origin = random.choice(["AA", "DL", "UA", "WN"], rows), random.choice(["EWR", "JFK"], rows)
    hour, distance = random.integers(5, 24, rows), random.uniform(100, 3000, rows)
    late = random.random(rows) < 1 / (1 + np.exp(-((hour - 16) / 4 + (carrier == "UA") - (origin == "JFK"))))
    return pa.table({
        "flight_id": [f"flight-{number:06d}" for number in range(rows)],
        "partition_date": pa.array([first + timedelta(days=int(day)) for day in np.arange(rows) * days // rows], pa.date32()),
        "distance": pa.array(distance, mask=random.random(rows) < 0.05),
        "hour": pa.array(hour, pa.int64()),
        "carrier": pa.array(carrier.tolist(), pa.string(), mask=random.random(rows) < 0.05),
        "origin": pa.array(origin.tolist(), pa.string()),
        "label": pa.array(late.astype(np.int32)),
    })


def delays(rows: int = 3000, days: int = 12, seed: int = 1, first: date = date(2013, 1, 1)) -> pa.Table:
    """The same flights with minutes of delay, below and above 0, as their label."""
    table = flights(rows, days, seed, first)
    random = np.random.default_rng(seed + 1000)
    hour = table["hour"].to_numpy()
    minutes = 6.0 * (hour - 16) + 20 * (table["origin"].to_numpy(zero_copy_only=False) == "EWR") + random.normal(0, 15, rows)
    return table.set_column(table.column_names.index("label"), "label", pa.array(minutes))


def trained(
    rows: pa.Table | None = None,
    parameters: Parameters = PARAMETERS,
    task: Task = "classification",
    holdout_days: int = HOLDOUT_DAYS,
    min_rows: int = 100,
    **options: Any,
) -> Trained:
    if rows is None:
        rows = flights() if task == "classification" else delays()
    options = {"holdout_days": holdout_days, "min_rows": min_rows, **options}
    return train(rows, task, NUMERIC, CATEGORICAL, "label", parameters, **options)


def saved(folder: Path, rows: pa.Table | None = None, task: Task = "classification", parameters: Parameters = PARAMETERS) -> str:
    """Train and write an artifact. Returns the SHA-256 of its manifest."""
    model = trained(rows, parameters, task)
    description = {
        "model": "flight_delays",
        "task": task,
        "parameters": parameters.to_json(),
        "training": model.training.to_json(),
        "holdout": model.holdout.to_json(),
        "reference": model.reference,
        "metrics": model.metrics,
    }
    return save_artifact(folder, model.booster, model.spec, model.golden, description)
