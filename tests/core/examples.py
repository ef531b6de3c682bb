"""Small flights to train on, and models trained on them."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa

from include.core.artifacts import save_artifact
from include.core.training import Parameters, Trained, train

NUMERIC = ("distance", "hour")
CATEGORICAL = ("carrier", "origin")
PARAMETERS = Parameters(trees=20, max_depth=4, seed=7, holdout_days=3, min_rows=100)


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


def trained(rows: pa.Table | None = None, parameters: Parameters = PARAMETERS) -> Trained:
    return train(flights() if rows is None else rows, NUMERIC, CATEGORICAL, "label", parameters)


def saved(folder: Path, rows: pa.Table | None = None) -> str:
    """Train and write an artifact. Returns the SHA-256 of its manifest."""
    model = trained(rows)
    description = {"model": "flight_delays", "score_reference": model.reference, "metrics": model.metrics}
    return save_artifact(folder, model.booster, model.spec, model.golden, description)
