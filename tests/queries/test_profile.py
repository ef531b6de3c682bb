"""The profile that a platform counts is the one that `core.profile.count` counts, on the same rows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlglot
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlglot import exp

from include import queries
from include.config import ModelConfig, read_model
from include.core import profile as core
from include.monitoring_sql import DayProfile, Predictions, profile

DAY = date(2020, 1, 1)
NEXT = DAY + timedelta(days=1)
# Names that the statement itself uses somewhere: a model may have them too.
NUMERIC, CATEGORICAL = ["cell_0_0", "population", "x"], ["profiled", "select"]
FLOAT32_MAX = 3.4028234663852886e38
SCORE_CELLS = {"kind": "numeric", "edges": [0.1, 0.5]}
HOSTILE = [
    "a'b",
    '"',
    "a\\b",
    "\\",
    "\\'",
    "'; DROP TABLE facts; --",
    "-- ",
    "/* */",
    "{{ 1 }}{% x %}{#",
    "a\nb",
    "\r\n\t",
    "é☃𝄞\u2028",
    "",
    " ",
    "NULL",
    "other",
    "?",
    "$first_partition",
    ":last_partition",
    "@last_partition",
    '"__table_facts"',
    '"__value_0"',
    "`__value_0`",
    '"__parameter_first_partition"',
    "%s",
    "\x01\x1a",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("profile")


@pytest.fixture(scope="module")
def model(place) -> ModelConfig:
    folder = place / "facts_known"
    folder.mkdir()
    columns = {"row_id": "string"} | dict.fromkeys(NUMERIC, "number") | dict.fromkeys(CATEGORICAL, "string")
    document = {
        "name": "facts_known",
        "title": "Facts",
        "description": "What is known?",
        "owner": {"team": "facts", "emails": ["facts@example.com"]},
        "start": "2020-01-01",
        "source": {"table": "facts", "key": "row_id", "columns": columns},
        "labels": {"table": "outcomes", "delay_days": 1},
        "features": {"numeric": NUMERIC, "categorical": CATEGORICAL},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(document))
    listed = ", ".join(f'"{name}"' for name in columns)
    bounds = "WHERE partition_date BETWEEN :first_partition AND :last_partition"
    (folder / "features.sql").write_text(f'SELECT {listed}, partition_date FROM {{{{ table("facts") }}}} {bounds}')
    (folder / "labels.sql").write_text(f'SELECT row_id, partition_date, label FROM {{{{ table("outcomes") }}}} {bounds}')
    return read_model(folder)


@pytest.fixture(autouse=True)
def models(place, lake, monkeypatch) -> None:
    monkeypatch.setenv("AILERON_MODELS", str(place))


@pytest.fixture(scope="module")
def parquet(place):
    """Writes a table, with the statistics that lake files have too; how DuckDB reads it."""
    files = count()

    def write(table: pa.Table) -> str:
        for old in sorted(place.glob("*.parquet"))[:-2]:
            old.unlink()
        file = place / f"{next(files):06d}.parquet"
        pq.write_table(table, file)
        return f"read_parquet('{file}')"

    return write


@pytest.fixture(scope="module")
def accepted(model, connection, parquet):
    """The rows of a day that would be scored, as a batch."""

    def answer(rows: pa.Table, day: date = DAY) -> pa.RecordBatch:
        query = queries.accepted_features(model, "duckdb", {"facts": parquet(rows), "outcomes": "outcomes"})
        found = connection.sql(query.sql, params=dict.fromkeys(query.parameters, day)).to_arrow_table()
        return pa.RecordBatch.from_pylist(found.to_pylist(), found.schema)

    return answer


@pytest.fixture(scope="module")
def days(model, connection, parquet):
    """Profiles of rows written to Parquet, by day."""

    def answer(
        rows: pa.Table, cells: Mapping[str, Any], predicted: pa.Table | None = None, **more: Any
    ) -> dict[date, DayProfile]:
        tables = {"facts": parquet(rows), "outcomes": "outcomes"}
        if predicted is not None:
            more["predictions"] = Predictions(parquet(predicted), "7", SCORE_CELLS)
        asked = profile(model, "duckdb", tables, cells, **more)
        found = connection.execute(asked.query.sql, {"first_partition": DAY, "last_partition": NEXT})
        names = [column[0] for column in found.description]
        read = [asked.read(names, row) for row in found.fetchall()]
        assert len({day.partition for day in read}) == len(read)
        return {day.partition: day for day in read}

    return answer


def facts(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows in which what is not given is NULL; keys by their place unless given."""
    schema = pa.schema(
        {"row_id": pa.string(), "partition_date": pa.date32()}
        | dict.fromkeys(NUMERIC, pa.float64())
        | dict.fromkeys(CATEGORICAL, pa.string())
    )
    return pa.Table.from_pylist([{"row_id": str(place), "partition_date": DAY} | row for place, row in enumerate(rows)], schema)


def predictions(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    schema = pa.schema({
        "row_id": pa.string(),
        "partition_date": pa.date32(),
        "score": pa.float64(),
        "decision": pa.bool_(),
        "model_version": pa.string(),
    })
    return pa.Table.from_pylist([{"partition_date": DAY, "model_version": "7"} | row for row in rows], schema)


PECULIAR = [
    0.0,
    -0.0,
    -2.2250738585072014e-308,
    5e-324,
    -5e-324,
    0.1,
    0.1 + 0.2,
    1.0,
    1e15,
    -1e15,
    FLOAT32_MAX,
    -FLOAT32_MAX,
    2.0**53 + 2,
    1 / 3,
]
NEIGHBOURS = [float(np.nextafter(value, way)) for value in PECULIAR for way in (-math.inf, math.inf)]
FINITE = st.one_of(st.sampled_from(PECULIAR + NEIGHBOURS), st.floats(allow_nan=False, allow_infinity=False))
NUMBERS = st.one_of(st.none(), FINITE, st.sampled_from([math.nan, math.inf, -math.inf]))
TEXTS = st.one_of(
    st.sampled_from(HOSTILE), st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=6)
)
EDGES = st.lists(st.one_of(FINITE, st.sampled_from(NEIGHBOURS)), max_size=9, unique=True).map(sorted)
VALUES = st.lists(TEXTS, max_size=5, unique=True)


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, Any]]:
    cells: dict[str, Any] = {name: {"kind": "numeric", "edges": draw(EDGES)} for name in NUMERIC}
    cells |= {name: {"kind": "categorical", "values": draw(VALUES)} for name in CATEGORICAL}
    row = st.fixed_dictionaries(
        {"partition_date": st.sampled_from([DAY, NEXT, NEXT + timedelta(days=1)])}
        | {name: st.one_of(st.sampled_from([None, *cells[name]["edges"]]), NUMBERS) for name in NUMERIC}
        | {name: st.one_of(st.sampled_from([None, *cells[name]["values"]]), TEXTS) for name in CATEGORICAL}
    )
    return facts(draw(st.lists(row, max_size=12))), cells


EVERY_CELL = {
    **{name: {"kind": "numeric", "edges": sorted({*PECULIAR, *NEIGHBOURS})} for name in NUMERIC},
    **{name: {"kind": "categorical", "values": HOSTILE} for name in CATEGORICAL},
}
NO_CELL = {
    **{name: {"kind": "numeric", "edges": []} for name in NUMERIC},
    **{name: {"kind": "categorical", "values": []} for name in CATEGORICAL},
}
EVERY_VALUE = facts([
    *({NUMERIC[0]: value} for value in [*PECULIAR, *NEIGHBOURS, None, math.nan, math.inf, -math.inf]),
    *({CATEGORICAL[1]: value} for value in [*HOSTILE, None, "A'B", "not there"]),
])


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@example((EVERY_VALUE, EVERY_CELL))
@example((EVERY_VALUE, NO_CELL))
@given(tables())
def test_counts_are_those_of_core(days, accepted, table):
    rows, cells = table
    wanted = {day: accepted(rows, day) for day in (DAY, NEXT)}

    found = days(rows, cells)

    assert found.keys() == {day for day, batch in wanted.items() if batch.num_rows}
    for day, answer in found.items():
        assert answer.columns == core.count(wanted[day], cells)
        assert (answer.rows, answer.population) == (wanted[day].num_rows,) * 2


def test_nan_is_no_number_where_a_file_tells_minimum_and_maximum(days):
    """DuckDB believes them, and they do not tell of NaN: at or below an edge above the maximum is, to it, every value."""
    rows = facts([{NUMERIC[0]: value} for value in (math.nan, 0.5, None, -1.0)])
    found = days(rows, {NUMERIC[0]: {"kind": "numeric", "edges": [-2.0, 0.0, 2.0]}})[DAY]
    cells = found.columns[NUMERIC[0]]
    assert (cells["counts"], cells["missing"], cells["low"], cells["high"]) == ([0, 1, 1, 0], 1, -1.0, 0.5)
    assert cells["not_finite"] == found.rows - 3


def of_version(keys: Sequence[str], scores: Sequence[Mapping[str, Any]]) -> pa.RecordBatch:
    """What core would be given to count: score and decision, as text, of these rows where version 7 predicted them."""
    kept = [row for row in scores if row["row_id"] in keys and row["model_version"] == "7"]
    return pa.record_batch({
        "score": pa.array([row["score"] for row in kept], pa.float64()),
        "decision": pa.array([None if row["decision"] is None else str(int(row["decision"])) for row in kept], pa.string()),
    })


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.fixed_dictionaries({
            "row_id": st.sampled_from("0123456789"),
            "score": st.one_of(st.sampled_from([0.1, 0.5, 0.1 + 2**-56]), NUMBERS),
            "decision": st.sampled_from([True, False, None]),
            "model_version": st.sampled_from(["7", "7", "70", "6"]),
        }),
        unique_by=lambda row: row["row_id"],
    )
)
def test_scores_are_those_of_the_version(days, scores):
    rows = facts([*({} for _ in range(7)), {NUMERIC[0]: math.inf}])  # 0 to 6 are accepted, 7 is not, 8 and 9 are not there
    cells = {"score": SCORE_CELLS, "decision": {"kind": "categorical", "values": ["0", "1"]}}
    batch = of_version("0123456", scores)

    found = days(rows, {}, predictions(scores))[DAY]

    assert found.columns == (core.count(batch, cells) if batch.num_rows else {})
    assert (found.rows, found.population) == (7, 7)


def test_a_prediction_is_that_of_the_same_day(days):
    rows = facts([{"row_id": "a"}, {"row_id": "a", "partition_date": NEXT}, {"row_id": "b", "partition_date": NEXT}])
    scores = [{"row_id": "a", "score": 0.3, "decision": False}, {"row_id": "b", "score": 0.3, "decision": False}]
    found = days(rows, {}, predictions(scores), pairs=[("score", "decision")])
    assert {day: sum(one.columns.get("score", {"counts": []})["counts"]) for day, one in found.items()} == {DAY: 1, NEXT: 0}
    # A day without scores has no pairs with them: zeros would say that it was counted.
    assert (found[DAY].pairs, found[NEXT].pairs) == ({"score × decision": [1, 1, 0, 1, 0, 0]}, {})


def ranks(values: Sequence[Any], cells: Mapping[str, Any]) -> list[int | None]:
    if cells["kind"] == "numeric":
        return [
            None if value is None or not math.isfinite(value) else sum(value > edge for edge in cells["edges"])
            for value in values
        ]
    known = list(cells["values"])
    return [None if value is None else known.index(value) if value in known else len(known) for value in values]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example((EVERY_VALUE, EVERY_CELL))
@given(tables())
def test_pairs_are_sums_over_the_numbers_of_cells(days, accepted, table):
    rows, cells = table
    pairs = [(NUMERIC[0], NUMERIC[1]), (NUMERIC[0], CATEGORICAL[0]), (CATEGORICAL[0], CATEGORICAL[1]), (NUMERIC[2], NUMERIC[2])]
    for day, answer in days(rows, cells, pairs=pairs).items():
        batch = accepted(rows, day)
        for a, b in pairs:
            numbers = zip(ranks(batch[a].to_pylist(), cells[a]), ranks(batch[b].to_pylist(), cells[b]), strict=True)
            both = [(x, y) for x, y in numbers if x is not None and y is not None]
            products = [sum(part) for part in zip(*((x, y, x * x, y * y, x * y) for x, y in both), strict=True)] or [0] * 5
            assert answer.pairs[f"{a} × {b}"] == [len(both), *products]


def chosen(keys: Sequence[str], sample: float) -> set[str]:
    return {key for key in keys if int(hashlib.md5(key.encode()).hexdigest()[:8], 16) < sample * 2**32}


def test_a_sample_is_told_by_the_keys(days):
    """The same rows every time, fewer in a smaller sample, as many as was asked for within four standard deviations."""
    keys = [f"row é {number}" for number in range(4000)]
    rows = facts([{"row_id": key, NUMERIC[0]: float(place), CATEGORICAL[0]: "a"} for place, key in enumerate(keys)])
    scores = predictions([{"row_id": key, "score": 0.3, "decision": True} for key in keys])
    cells = {NUMERIC[0]: {"kind": "numeric", "edges": [1000.0]}, CATEGORICAL[0]: {"kind": "categorical", "values": ["a"]}}
    earlier: set[str] = set()
    for sample in (1e-12, 0.01, 0.1, 0.5, 1 - 1e-12, 1.0):
        wanted = chosen(keys, sample)
        assert earlier <= wanted
        assert abs(len(wanted) - 4000 * sample) <= 4 * math.sqrt(4000 * sample * (1 - sample)) + 1e-6
        earlier = wanted

        found = days(rows, cells, scores, sample=sample, pairs=[(NUMERIC[0], "score")])[DAY]

        batch = pa.RecordBatch.from_pylist([row for row in rows.to_pylist() if row["row_id"] in wanted], rows.schema)
        features = {name: found.columns[name] for name in cells}
        assert (found.rows, found.population, features) == (len(wanted), 4000, core.count(batch, cells))
        assert found.pairs.get(f"{NUMERIC[0]} × score", [0])[0] == len(wanted)
        assert sum(found.columns.get("score", {"counts": []})["counts"]) == len(wanted)


def test_the_keys_of_a_sample_may_be_numbers(place, connection):
    """A whole number is hashed as its digits, on every platform."""
    keys = [-7, 0, 12, 9_000_000_000]
    digests = connection.execute("SELECT MD5(CAST(k AS VARCHAR)) FROM (SELECT UNNEST($1) AS k)", [keys]).fetchall()
    assert [digest for (digest,) in digests] == [hashlib.md5(str(key).encode()).hexdigest() for key in keys]


# Athena runs a SELECT in Trino, where a backslash is nothing but a backslash; sqlglot reads it as Hive's.
READERS = {"duckdb": "duckdb", "bigquery": "bigquery", "athena": "trino"}


@pytest.mark.parametrize("dialect", queries.DIALECTS)
def test_values_come_back_from_the_text(model, dialect):
    edges = EVERY_CELL[NUMERIC[0]]["edges"]
    cells = {name: EVERY_CELL[name] for name in (NUMERIC[0], CATEGORICAL[0])}
    asked = profile(model, dialect, {"facts": "facts", "outcomes": "outcomes"}, cells, pairs=[tuple(cells)])

    [statement] = sqlglot.parse(asked.query.sql, dialect=READERS[dialect])

    conditions = [call.this for call in statement.find_all(exp.CountIf)]
    assert [one.expression.this for one in conditions if isinstance(one, exp.EQ)] == HOSTILE
    assert [float(one.expression.sql()) for one in conditions if isinstance(one, exp.LTE)] == edges
    branches = [branch.this for branch in statement.find_all(exp.If)]
    assert [one.expression.this for one in branches if isinstance(one, exp.EQ)] == HOSTILE
    assert {table.name for table in statement.find_all(exp.Table)} == {"facts"}
    assert all("e" in one.expression.sql() for one in conditions if isinstance(one, exp.LTE)), "a DECIMAL, not a DOUBLE"


def test_a_row_is_read_whatever_its_types(model):
    """Athena gives text, BigQuery numbers; a day may come as a time."""
    cells = {NUMERIC[0]: {"kind": "numeric", "edges": [1.0]}, CATEGORICAL[0]: {"kind": "categorical", "values": ["a"]}}
    asked = profile(model, "athena", {"facts": "facts", "outcomes": "outcomes"}, cells)
    columns = [
        "partition_date",
        "population",
        "profiled",
        "known_0",
        "given_0",
        "low_0",
        "high_0",
        "cell_0_0",
        "known_1",
        "cell_1_0",
    ]
    numbers = [DAY, 5, 5, 3, 3, 0.5, 2.0, 1, 4, 4]
    assert asked.read(columns, numbers) == asked.read(columns, [str(value) for value in numbers])
    assert asked.read(columns, numbers).columns[NUMERIC[0]]["counts"] == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"cells": {"unheard": {"kind": "numeric", "edges": []}}}, "the cells of unheard are not of a feature"),
        ({"cells": {NUMERIC[0]: {"kind": "categorical", "values": []}}}, "are not of a feature of this kind"),
        ({"cells": {NUMERIC[0]: {"kind": "numeric", "edges": [math.inf]}}}, "an edge is not finite"),
        ({"pairs": [("x", "score")]}, "pairs: score, x is not counted"),
        ({"sample": 0.0}, "sample is 0.0"),
        ({"sample": math.nan}, "sample is nan"),
        ({"sample": 1.5}, "sample is 1.5"),
        ({"predictions": Predictions("predictions", "7' OR '1", SCORE_CELLS)}, "no version of a model"),
        ({"predictions": Predictions("predictions", "７", SCORE_CELLS)}, "no version of a model"),
        ({"tables": {"facts": "facts"}}, "no reference is given for table outcomes"),
    ],
    ids=str,
)
def test_what_is_refused(model, arguments, reason):
    with pytest.raises(ValueError, match=reason):
        profile(model, "duckdb", **{"tables": {"facts": "facts", "outcomes": "outcomes"}, "cells": {}} | arguments)
