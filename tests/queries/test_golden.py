"""The SQL of the demo is, in each dialect, the one that was reviewed; after a change: UPDATE_GOLDEN=1 pytest tests/queries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlglot

from include import monitoring_sql, queries
from include.config import load_model

GOLDEN = Path(__file__).parent / "golden"
REFERENCES = {
    "duckdb": "read_parquet('/lake/source/{}/**/*.parquet', hive_partitioning = true)",
    "bigquery": "`my-project.source.{}`",
    "athena": '"awsdatacatalog"."source"."{}"',
}
PREDICTIONS = {
    "duckdb": "read_parquet('/lake/predictions/**/*.parquet', hive_partitioning = true)",
    "bigquery": "`my-project.predictions.flight_delays`",
    "athena": '"awsdatacatalog"."predictions"."flight_delays"',
}
CELLS = {
    "distance": {"kind": "numeric", "edges": [-0.1, 2475.0]},
    "carrier": {"kind": "categorical", "values": ["B6", "O'Hare \\ Sons"]},
}


def profile(model, dialect, tables):
    """Of few cells, and a sample: everything that there is to the statement."""
    predictions = monitoring_sql.Predictions(PREDICTIONS[dialect], "3", {"kind": "numeric", "edges": [0.5]})
    return monitoring_sql.profile(model, dialect, tables, CELLS, predictions, [("distance", "score")], 0.1).query


def quality(model, dialect, tables):
    return monitoring_sql.quality(model, dialect, tables, PREDICTIONS[dialect], ["carrier", "origin"])


QUERIES = (*queries.QUERIES, profile, quality)


@pytest.mark.parametrize("dialect", queries.DIALECTS)
@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.__name__)
def test_rendered_sql_is_the_reviewed_one(query, dialect):
    model = load_model("flight_delays")
    rendered = query(model, dialect, {name: REFERENCES[dialect].format(name) for name in queries.table_names(model)})

    file = GOLDEN / f"{query.__name__}.{dialect}.sql"
    text = f"-- binds {', '.join(rendered.parameters)}\n{rendered.sql}\n"
    if os.environ.get("UPDATE_GOLDEN"):
        file.write_text(text)
    assert text == file.read_text(), (
        f"{file.name} is out of date: if the change is wanted, run UPDATE_GOLDEN=1 pytest tests/queries"
    )


@pytest.mark.parametrize("file", sorted(GOLDEN.glob("*.sql")), ids=lambda file: file.stem)
def test_reviewed_sql_parses_in_its_dialect(file):
    query, dialect = file.stem.split(".")
    binds, sql = file.read_text().split("\n", 1)
    bound = binds.removeprefix("-- binds ").split(", ")

    statement = sqlglot.parse_one(sql, dialect=dialect)

    assert query in {known.__name__ for known in QUERIES}, "nothing writes this file any more: delete it"
    if dialect == "athena":
        assert len(list(statement.find_all(sqlglot.exp.Placeholder))) == len(bound)
    else:
        assert bound == ["first_partition", "last_partition"]
    assert "__" not in sql
