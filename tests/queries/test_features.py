"""Features, labels and quarantine of the demo, run on DuckDB: no row is lost, none is counted twice."""

from __future__ import annotations

import math
from collections import Counter
from datetime import date, datetime, timedelta

import pytest
import sqlglot
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include import queries
from include.config import load_model
from tests.queries.lake import fill, flight, observation, outcome, plane, rows

DAY = date(2013, 4, 2)
NOON = datetime(2013, 4, 2, 12)
HOUR = timedelta(hours=1)
QUERIES = {query.__name__: query for query in queries.QUERIES}
FLOAT32_MAX = 3.4028234663852886e38


@pytest.fixture(scope="module")
def rendered():
    model = load_model("flight_delays")
    tables = {name: name for name in queries.table_names(model)}
    return {name: query(model, "duckdb", tables) for name, query in QUERIES.items()}


@pytest.fixture
def run(connection, rendered):
    return lambda name, first=DAY, last=None: rows(connection, rendered[name], first, last)


def test_every_feature_has_its_value(connection, run):
    fill(
        connection,
        flights=[
            flight("a", NOON + timedelta(minutes=30), distance=2475.0),
            flight("b", NOON),
            flight("c", NOON + HOUR),
            flight("yesterday", NOON - 24 * HOUR, tailnum="N7"),
        ],
        weather=[
            observation(NOON - HOUR, temperature=39.0, dew_point=26.0, humidity=59.0, wind_speed=10.0, wind_gust=20.0)
            | {"precipitation": 0.1, "pressure": 1012.0, "visibility": 9.0},
            observation(NOON, temperature=99.0),
            observation(NOON - HOUR, origin="EWR", temperature=-99.0),
        ],
        planes=[plane("N7", built_year=1998, seats=200)],
    )

    found = {row["flight_id"]: row for row in run("accepted_features")}

    assert found["a"] == {
        "flight_id": "a",
        "partition_date": DAY,
        "departure_hour": 12.0,
        "weekday": 1.0,  # 2 April 2013 was a Tuesday
        "distance": 2475.0,
        "scheduled_minutes": 70.0,
        "departures_this_hour": 2.0,
        "route_plane_age": 15.0,
        "route_seats": 200.0,
        "temperature": 39.0,
        "dew_point": 26.0,
        "humidity": 59.0,
        "wind_speed": 10.0,
        "wind_gust": 20.0,
        "precipitation": 0.1,
        "pressure": 1012.0,
        "visibility": 9.0,
        "carrier": "B6",
        "origin": "JFK",
        "dest": "BOS",
    }
    assert found["c"]["departures_this_hour"] == 1
    assert found["c"]["temperature"] == 99


@pytest.mark.parametrize(("day", "weekday"), [(date(2013, 4, 1), 0), (date(2013, 4, 6), 5), (date(2013, 4, 7), 6)])
def test_a_week_starts_on_monday(connection, run, day, weekday):
    fill(connection, flights=[flight("a", datetime.combine(day, datetime.min.time()))])
    assert [row["weekday"] for row in run("accepted_features", day)] == [weekday]


@pytest.mark.parametrize(
    ("departure", "arrival", "minutes"), [(1410, 20, 50), (600, 600, 0), (0, 1439, 1439), (600, 590, 1430), (61, 65, 4)]
)
def test_scheduled_minutes_wrap_past_midnight(connection, run, departure, arrival, minutes):
    fill(connection, flights=[flight("a", NOON, scheduled_departure_minute=departure, scheduled_arrival_minute=arrival)])
    [row] = run("accepted_features")
    assert row["scheduled_minutes"] == minutes
    assert row["departure_hour"] == departure // 60


def test_what_is_unknown_is_null_and_is_scored(connection, run):
    past = [flight(key, NOON - 24 * HOUR, tailnum=tail) for key, tail in (("nobody's", None), ("unregistered", "N9"))]
    fill(connection, flights=[*past, flight("a", NOON, tailnum=None), flight("b", NOON)], planes=[plane("N1"), plane(None)])
    found = run("accepted_features")
    assert len(found) == 2
    for row in found:
        assert (row["route_plane_age"], row["route_seats"], row["temperature"], row["wind_gust"]) == (None, None, None, None)
    assert run("quarantined_rows") == []


def test_weather_before_midnight_is_in_the_partition_before(connection, run):
    midnight = datetime(2013, 4, 2)
    fill(connection, flights=[flight("a", midnight)], weather=[observation(midnight - HOUR, temperature=7.0)])
    assert [row["temperature"] for row in run("accepted_features")] == [7.0]


def test_doubled_lookups_do_not_multiply_rows_and_their_order_does_not_matter(connection, run):
    weather = [observation(NOON - HOUR, temperature=t) for t in (41.0, None, 43.0, 41.0)]
    planes = [plane("N1", built_year=year) for year in (1999, 2001)]
    for order in (1, -1):
        flights = [flight("a", NOON), flight("yesterday", NOON - 24 * HOUR)]
        fill(connection, flights=flights, weather=weather[::order], planes=planes[::order])
        assert [(row["temperature"], row["route_plane_age"]) for row in run("accepted_features")] == [(43.0, 12.0)]


PLANES_OF_KNOWN_AGE = [plane("N1", built_year=2003, seats=150), plane("N2", built_year=2008, seats=200)]


@pytest.mark.parametrize(
    ("days_ago", "other", "age", "seats"),
    [
        (28, {}, 7.5, 175.0),
        (2, {}, 7.5, 175.0),
        (29, {}, 10.0, 150.0),
        (0, {}, 10.0, 150.0),
        (-1, {}, 10.0, 150.0),
        (2, {"carrier": "AA"}, 10.0, 150.0),
        (2, {"origin": "LGA"}, 10.0, 150.0),
        (2, {"dest": "LAX"}, 10.0, 150.0),
        (2, {"distance": -1.0}, 10.0, 150.0),
    ],
    ids=str,
)
def test_planes_are_those_of_the_route_in_the_28_days_before(connection, run, days_ago, other, age, seats):
    past = [
        flight("yesterday", NOON - timedelta(days=1), tailnum="N1"),
        flight("other", NOON - timedelta(days=days_ago), tailnum="N2", **other),
    ]
    fill(connection, flights=[*past, flight("a", NOON)], planes=PLANES_OF_KNOWN_AGE)
    [row] = [row for row in run("accepted_features") if row["flight_id"] == "a"]
    assert (row["route_plane_age"], row["route_seats"]) == (age, seats)


def test_each_past_flight_counts_once_and_what_is_unknown_of_its_plane_does_not(connection, run):
    past = [flight(f"{n}", NOON - timedelta(days=1 + n % 2), tailnum=f"N{1 + n % 3}") for n in range(9)]
    planes = [plane("N1", built_year=2003, seats=100), plane("N2", built_year=None, seats=200), plane("N3", seats=None)]
    fill(connection, flights=[*past, flight("a", NOON)], planes=planes)
    assert [(row["route_plane_age"], row["route_seats"]) for row in run("accepted_features")] == [(10.0, 150.0)]


def test_age_is_counted_in_the_year_of_the_flight(connection, run):
    new_year = datetime(2014, 1, 1, 12)
    fill(connection, flights=[flight("a", new_year), flight("b", new_year - timedelta(days=1))], planes=PLANES_OF_KNOWN_AGE)
    assert [row["route_plane_age"] for row in run("accepted_features", new_year.date())] == [11.0]


def test_training_has_the_features_that_each_day_had_alone(connection, run):
    """Each day flies newer and larger planes than the one before, so that a day more or less in a window shows."""
    start, routes = NOON - timedelta(days=40), [("B6", "JFK", "BOS"), ("AA", "LGA", "ORD"), ("UA", "EWR", "SFO")]
    flights = [
        flight(f"{day} {n}", start + timedelta(days=day, hours=n), carrier=carrier, origin=origin, dest=dest, tailnum=f"N{day}")
        for day in range(47)
        for n, (carrier, origin, dest) in enumerate(routes)
        if (day + n) % 5
    ]
    planes = [plane(f"N{day}", built_year=1960 + day, seats=day * day) for day in range(47)]
    weather = [observation(start + n * HOUR, origin="JFK", temperature=float(n)) for n in range(47 * 24)]
    outcomes = [outcome(row["flight_id"], row["partition_date"], 0.0) for row in flights]
    fill(connection, flights=flights, weather=weather, planes=planes, flight_outcomes=outcomes)
    days = [DAY + timedelta(days=n) for n in range(6)]

    for name in ("accepted_features", "training_set"):
        alone = [row for day in days for row in run(name, day)]
        assert sorted(map(str, run(name, days[0], days[-1]))) == sorted(map(str, alone)), name
    assert {row["partition_date"] for row in alone} == set(days)
    ages = {(row["carrier"], row["route_plane_age"]) for row in alone}
    assert len(ages) == len(alone) > 12, "no two days have the same planes behind them"


def test_a_rejected_row_is_no_departure(connection, run):
    fill(connection, flights=[flight("a", NOON), flight("b", NOON, distance=-1.0)])
    assert [row["departures_this_hour"] for row in run("accepted_features")] == [1]


def test_a_row_that_breaks_rules_is_rejected_with_their_names(connection, run):
    fill(
        connection,
        flights=[
            flight("good", NOON),
            flight("far", NOON, distance=math.inf),
            flight("nowhere", NOON, origin="SFO", distance=None, tailnum="N5"),
            flight(None, NOON),
        ],
    )
    rejected = {row["flight_id"]: row for row in run("rejected_rows")}

    assert {key: row["reason"] for key, row in rejected.items()} == {
        "far": "distance_is_possible",
        "nowhere": "origin_is_ours,distance_is_possible",
        None: "key_is_known",
    }
    assert rejected["nowhere"] == {
        **flight("nowhere", NOON, origin="SFO", distance=None, tailnum="N5"),
        "reason": rejected["nowhere"]["reason"],
    }
    assert {row["flight_id"]: row["reason"] for row in run("quarantined_rows")} == {
        key: row["reason"] for key, row in rejected.items()
    }
    assert [row["flight_id"] for row in run("accepted_features")] == ["good"]


@pytest.mark.parametrize("poison", [math.nan, math.inf, -math.inf, 1e39, -1e39])
def test_a_feature_that_is_no_number_in_float32_is_quarantined(connection, run, poison):
    fill(
        connection,
        flights=[flight("a", NOON), flight("b", NOON + HOUR)],
        weather=[
            observation(NOON - HOUR, temperature=poison, pressure=poison, humidity=None),
            observation(NOON, temperature=FLOAT32_MAX),
        ],
    )
    assert run("quarantined_rows") == [{"flight_id": "a", "partition_date": DAY, "reason": "not_finite: temperature,pressure"}]
    assert [row["flight_id"] for row in run("accepted_features")] == ["b"]
    assert run("rejected_rows") == []


def test_one_pass_tells_the_same_as_the_two(connection, run):
    fill(
        connection,
        flights=[flight("a", NOON), flight("b", NOON + HOUR), flight("c", NOON, distance=0.0)],
        weather=[observation(NOON, humidity=math.nan)],
    )
    built = run("build_features")
    assert [
        {k: v for k, v in row.items() if k != "quarantine_reason"} for row in built if row["quarantine_reason"] is None
    ] == run("accepted_features")
    assert {(row["flight_id"], row["quarantine_reason"]) for row in built} - {("a", None)} == {
        (row["flight_id"], row["reason"]) for row in run("quarantined_rows")
    }


def test_only_the_days_asked_for(connection, run):
    days = [DAY + timedelta(days=n) for n in range(4)]
    fill(
        connection,
        flights=[
            flight(f"{good} {day}", datetime.combine(day, NOON.time()), distance=good) for day in days for good in (100.0, 0.0)
        ],
        flight_outcomes=[outcome(f"100.0 {day}", day, 1.0) for day in days],
    )
    for name in ("accepted_features", "quarantined_rows", "rejected_rows", "labels", "training_set"):
        assert sorted(row["partition_date"] for row in run(name, days[1], days[2])) == days[1:3], name


NUMBERS = st.sampled_from([None, math.nan, math.inf, -math.inf, 1e39, 0.0, -1.0, 50.0])
FLIGHTS = st.lists(
    st.builds(
        lambda key, minute, **other: flight(key, NOON + timedelta(minutes=minute), **other),
        st.sampled_from([None, "a", "b", "c", "d"]),
        st.integers(0, 300),
        distance=NUMBERS,
        origin=st.sampled_from([None, "JFK", "LGA", "SFO"]),
        tailnum=st.sampled_from([None, "N1", "N2", "N3"]),
        flight_number=st.sampled_from([None, 0, 1, 10000]),
        scheduled_departure_minute=st.sampled_from([None, -1, 0, 1439, 1440]),
        scheduled_arrival_minute=st.sampled_from([None, 0, 1439]),
    ),
    max_size=12,
)
WEATHER = st.lists(
    st.builds(
        lambda hour, **other: observation(NOON + hour * HOUR, **other),
        st.integers(-2, 6),
        origin=st.sampled_from([None, "JFK", "LGA"]),
        temperature=NUMBERS,
        wind_gust=NUMBERS,
        pressure=NUMBERS,
    ),
    max_size=25,
)
PLANES = st.lists(
    st.builds(plane, st.sampled_from([None, "N1", "N2"]), built_year=st.sampled_from([None, 1990, 2010])), max_size=5
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flights=FLIGHTS, weather=WEATHER, planes=PLANES)
def test_rows_in_are_rows_accepted_and_rows_quarantined(connection, run, flights, weather, planes):
    fill(connection, flights=flights, weather=weather, planes=planes)

    accepted, quarantined, rejected = run("accepted_features"), run("quarantined_rows"), run("rejected_rows")

    assert Counter(row["flight_id"] for row in flights) == Counter(row["flight_id"] for row in accepted + quarantined)
    assert len(run("build_features")) == len(flights)
    assert all(row["reason"] for row in quarantined)
    assert len(rejected) == sum(not row["reason"].startswith("not_finite") for row in quarantined)
    for row in accepted:
        assert row["flight_id"] is not None
        assert all(abs(value) <= FLOAT32_MAX for value in row.values() if isinstance(value, float))


def test_labels_are_late_or_never_arrived(connection, run):
    delays = {"early": -5.0, "on_the_limit": 15.0, "late": 15.5, "never": None}
    fill(connection, flight_outcomes=[outcome(key, DAY, delay) for key, delay in delays.items()] * 2)
    assert {row["flight_id"]: row["label"] for row in run("labels")} == {"early": 0, "on_the_limit": 0, "late": 1, "never": 1}
    assert len(run("labels")) == 4


def test_training_set_has_what_was_accepted_and_is_labelled_in_one_order(connection, run):
    tomorrow = DAY + timedelta(days=1)
    flights = [
        flight("b", NOON),
        flight("a", NOON),
        flight("unlabelled", NOON),
        flight("rejected", NOON, distance=0.0),
        flight("not_finite", NOON + 2 * HOUR),
        flight("0", NOON + timedelta(days=1)),
    ]
    weather = [observation(NOON + HOUR, temperature=math.nan)]
    outcomes = [
        outcome("a", DAY, 60.0),
        outcome("b", DAY, 0.0),
        outcome("b", tomorrow, 60.0),
        outcome("0", tomorrow, None),
        outcome("rejected", DAY, 1.0),
        outcome("not_finite", DAY, 1.0),
        outcome("unheard_of", DAY, 1.0),
    ]
    for order in (1, -1):
        fill(connection, flights=flights[::order], weather=weather, flight_outcomes=outcomes[::order])
        found = run("training_set", DAY, tomorrow)
        assert [(row["flight_id"], row["label"]) for row in found] == [("a", 1), ("b", 0), ("0", 1)]

    features = {row["flight_id"]: row for row in run("accepted_features", DAY, tomorrow)}
    assert [{k: v for k, v in row.items() if k != "label"} for row in found] == [features[row["flight_id"]] for row in found]


@pytest.mark.parametrize("dialect", ["bigquery", "athena"])
@pytest.mark.parametrize("name", ["build_features", "quarantined_rows", "rejected_rows", "training_set"])
def test_translations_mean_the_same(connection, run, name, dialect):
    """The text for a warehouse, translated back and run: what sqlglot gets wrong only one way round shows here."""
    minutes = range(0, 600, 37)
    fill(
        connection,
        flights=[
            *(flight(f"{n}", NOON + timedelta(minutes=m), distance=float(n % 5) * 100) for n, m in enumerate(minutes)),
            *(flight(f"past {n}", NOON - timedelta(days=n), tailnum=f"N{n}") for n in range(1, 32)),
        ],
        weather=[observation(NOON + n * HOUR, temperature=[41.0, None, math.nan, math.inf][n % 4]) for n in range(12)],
        planes=[plane(f"N{n}", built_year=1980 + n, seats=100 + n * n) for n in range(1, 32, 3)],
        flight_outcomes=[outcome(f"{n}", DAY, float(n * 2)) for n in range(len(minutes))],
    )
    model = load_model("flight_delays")
    query = QUERIES[name](model, dialect, {table: table for table in queries.table_names(model)})
    back = sqlglot.transpile(query.sql, read=dialect, write="duckdb")[0]
    bound = [DAY for _ in query.parameters] if dialect == "athena" else dict.fromkeys(query.parameters, DAY)

    found = connection.sql(back, params=bound).to_arrow_table().to_pylist()

    assert len(found) > 1
    assert sorted(map(str, found)) == sorted(map(str, run(name)))
