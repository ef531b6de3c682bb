"""No feature knows what is known only later: the future is changed, and the features stay."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include import queries
from include.config import load_model
from tests.queries.lake import fill, flight, observation, outcome, plane, rows

START = datetime(2013, 4, 1)
HOURS = [START + timedelta(hours=n) for n in range(72)]
ORIGINS = ("EWR", "JFK", "LGA")
ELEMENTS = ("temperature", "dew_point", "humidity", "wind_speed", "wind_gust", "precipitation", "pressure", "visibility")

TAILS = ("N1", "N2", "N3", None)
FLIGHTS = [
    flight(f"{origin}-{hour:%d%H}", hour + timedelta(minutes=15), origin=origin, tailnum=TAILS[hour.hour % 4])
    for hour in HOURS
    for origin in ORIGINS
]
WEATHER = [
    observation(hour, origin=origin, **{name: float(n) for name in ELEMENTS})
    for n, hour in enumerate(HOURS)
    for origin in ORIGINS
]
PLANES = [plane("N1"), plane("N2", built_year=1999, seats=20), plane("N3", built_year=2012, seats=300)]
OUTCOMES = [outcome(row["flight_id"], row["partition_date"], 0.0) for row in FLIGHTS]
DAY = (START + timedelta(days=1)).date()


@pytest.fixture(scope="module")
def features(connection):
    """Features of the middle day, by flight, given the tables."""
    model = load_model("flight_delays")
    query = queries.build_features(model, "duckdb", {name: name for name in queries.table_names(model)})

    def compute(flights=FLIGHTS, weather=WEATHER, outcomes=OUTCOMES):
        fill(connection, flights=flights, weather=weather, planes=PLANES, flight_outcomes=outcomes)
        return {row["flight_id"]: row for row in rows(connection, query, DAY)}

    return compute


@pytest.fixture(scope="module")
def before(features):
    return features()


VALUES = st.sampled_from([None, math.nan, math.inf, -1e9, 1e9])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(hour=st.sampled_from(HOURS[24:48]), lost=st.booleans(), doubled=st.booleans(), value=VALUES, data=st.data())
def test_weather_from_the_departures_hour_on_is_not_known(features, before, hour, lost, doubled, value, data):
    known = [row for row in WEATHER if row["observed_hour"] < hour]
    future = [row for row in WEATHER if row["observed_hour"] >= hour]
    chosen = data.draw(st.sets(st.sampled_from(range(len(future))), min_size=1).map(sorted))
    changed = [future[n] | dict.fromkeys(ELEMENTS, value) for n in chosen]
    kept = [row for n, row in enumerate(future) if n not in chosen or doubled]

    after = features(weather=known + kept + ([] if lost else changed))

    departed = [f"{origin}-{hour:%d%H}" for origin in ORIGINS]
    assert {key: after[key] for key in departed} == {key: before[key] for key in departed}


@pytest.mark.parametrize("hour", HOURS[24:48], ids=str)
def test_the_observation_of_the_hour_before_is_known(features, before, hour):
    """That the test above can fail: it is this observation that the features have, and no later one."""
    changed = [row | {"temperature": -7.0} if row["observed_hour"] == hour - timedelta(hours=1) else row for row in WEATHER]
    differing = {key for key, row in features(weather=changed).items() if row != before[key]}
    assert differing == {f"{origin}-{hour:%d%H}" for origin in ORIGINS}


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "changed"])
def test_later_partitions_are_not_known(features, before, lost):
    def changed(table, **new):
        return [row if row["partition_date"] <= DAY else row | new for row in table if row["partition_date"] <= DAY or not lost]

    assert before == features(
        flights=changed(FLIGHTS, scheduled_departure=HOURS[30], scheduled_departure_minute=0, carrier="XX"),
        weather=changed(WEATHER, observed_hour=HOURS[30], temperature=1e9),
    )


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_the_planes_of_the_day_itself_are_not_known(features, before, data):
    """A flight without a tail number was always cancelled."""
    all_alike, each_its_own = st.sampled_from([[tail] * 72 for tail in TAILS]), st.lists(st.sampled_from(TAILS), min_size=72)
    tails = data.draw(st.one_of(all_alike, each_its_own))
    ours = iter(tails)
    assert features(flights=[row | {"tailnum": next(ours)} if row["partition_date"] == DAY else row for row in FLIGHTS]) == before


def test_the_planes_of_the_day_before_are_known(features, before):
    """That the test above can fail: these are the planes that the features have."""
    changed = [row | {"tailnum": "N3"} if row["partition_date"] < DAY and row["origin"] == "JFK" else row for row in FLIGHTS]
    differing = {key for key, row in features(flights=changed).items() if row != before[key]}
    assert differing == {key for key, row in before.items() if row["origin"] == "JFK"}


@pytest.mark.parametrize("outcomes", [[], [row | {"arrival_delay": 999.0} for row in OUTCOMES]], ids=["lost", "changed"])
def test_outcomes_are_not_known(features, before, outcomes):
    assert features(outcomes=outcomes) == before
    assert len(before) == 72
