"""The tables of the demo, small and made by hand, as DuckDB sees them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import duckdb
import pyarrow as pa

from include.queries import Query

Rows = Sequence[dict[str, Any]]
DAY = pa.date32()
TIME = pa.timestamp("us")
SCHEMAS = {
    "flights": pa.schema({
        "partition_date": DAY,
        "flight_id": pa.string(),
        "carrier": pa.string(),
        "flight_number": pa.int64(),
        "tailnum": pa.string(),
        "origin": pa.string(),
        "dest": pa.string(),
        "distance": pa.float64(),
        "scheduled_departure": TIME,
        "scheduled_departure_minute": pa.int64(),
        "scheduled_arrival_minute": pa.int64(),
    }),
    "weather": pa.schema(
        {"partition_date": DAY, "origin": pa.string(), "observed_hour": TIME}
        | dict.fromkeys(
            [
                "temperature",
                "dew_point",
                "humidity",
                "wind_direction",
                "wind_speed",
                "wind_gust",
                "precipitation",
                "pressure",
                "visibility",
            ],
            pa.float64(),
        )
    ),
    "planes": pa.schema({"tailnum": pa.string(), "built_year": pa.int64(), "seats": pa.int64(), "engines": pa.int64()}),
    "flight_outcomes": pa.schema({"partition_date": DAY, "flight_id": pa.string(), "arrival_delay": pa.float64()}),
}


def flight(flight_id: str | None, departure: datetime, **other: Any) -> dict[str, Any]:
    """A flight from JFK whose local clock, to keep the reader's head free, shows UTC."""
    return {
        "partition_date": departure.date(),
        "flight_id": flight_id,
        "carrier": "B6",
        "flight_number": 11,
        "tailnum": "N1",
        "origin": "JFK",
        "dest": "BOS",
        "distance": 187.0,
        "scheduled_departure": departure,
        "scheduled_departure_minute": departure.hour * 60 + departure.minute,
        "scheduled_arrival_minute": (departure.hour * 60 + departure.minute + 70) % 1440,
    } | other


def observation(hour: datetime, **other: Any) -> dict[str, Any]:
    return {"partition_date": hour.date(), "origin": "JFK", "observed_hour": hour, "temperature": 50.0} | other


def plane(tailnum: str, **other: Any) -> dict[str, Any]:
    return {"tailnum": tailnum, "built_year": 2003, "seats": 150, "engines": 2} | other


def outcome(flight_id: str, day: date, arrival_delay: float | None) -> dict[str, Any]:
    return {"partition_date": day, "flight_id": flight_id, "arrival_delay": arrival_delay}


def fill(connection: duckdb.DuckDBPyConnection, **tables: Rows) -> None:
    """Tables of the demo with these rows; those not given are empty."""
    for name, schema in SCHEMAS.items():
        connection.register(name, pa.Table.from_pylist(list(tables.get(name, [])), schema=schema))


def rows(connection: duckdb.DuckDBPyConnection, query: Query, first: date, last: date | None = None) -> list[dict[str, Any]]:
    """What a query gives for the days from first to last, only first unless given."""
    bound = {"first_partition": first, "last_partition": last or first}
    return connection.sql(query.sql, params=bound).to_arrow_table().to_pylist()
