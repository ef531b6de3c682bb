"""The SQL of the demo is, in each dialect, the one that was reviewed; after a change: UPDATE_GOLDEN=1 pytest tests/queries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import sqlglot

from include import queries
from include.config import load_model

GOLDEN = Path(__file__).parent / "golden"
REFERENCES = {
    "duckdb": "read_parquet('/lake/source/{}/**/*.parquet', hive_partitioning = true)",
    "bigquery": "`my-project.source.{}`",
    "athena": '"awsdatacatalog"."source"."{}"',
}


@pytest.mark.parametrize("dialect", queries.DIALECTS)
@pytest.mark.parametrize("query", queries.QUERIES, ids=lambda query: query.__name__)
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

    assert query in {known.__name__ for known in queries.QUERIES}, "nothing writes this file any more: delete it"
    if dialect == "athena":
        assert len(list(statement.find_all(sqlglot.exp.Placeholder))) == len(bound)
    else:
        assert bound == ["first_partition", "last_partition"]
    assert "__" not in sql
