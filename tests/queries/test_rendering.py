"""How a model's SQL becomes a statement of a platform."""

from __future__ import annotations

import subprocess
import sys
from datetime import date

import duckdb
import pytest

from include import queries
from include.config import load_model
from tests.queries.conftest import FEATURES

TABLES = {"orders": "orders", "shops": "shops", "returns": "returns"}
DAY = date(2020, 1, 1)
BOUND = {"first_partition": DAY, "last_partition": DAY}


def one_order(connection, order_id="order_id", amount="amount", city="city", more=""):
    """Tables with one order from one shop, their columns named as the test wants them."""
    order = f"""7 AS "{order_id}", 1.5 AS "{amount}", 's' AS shop, TRUE AS paid, DATE '{DAY}' AS partition_date{more}"""
    connection.execute(f"CREATE TABLE orders AS SELECT {order}")
    connection.execute(f"""CREATE TABLE shops AS SELECT 's' AS shop, 'Ulm' AS "{city}" """)


def test_override_takes_the_place_of_the_file_in_its_dialect_only(author):
    override = """
    SELECT orders.order_id, orders.partition_date, SAFE_DIVIDE(orders.amount, 100) AS amount, `orders`.shop AS city
    FROM {{ table("orders") }}
    WHERE orders.partition_date BETWEEN :first_partition AND :last_partition
    """
    model = author({"features.bigquery.sql": override})

    queries.check(model)
    rendered = {dialect: queries.accepted_features(model, dialect, TABLES).sql for dialect in queries.DIALECTS}

    assert "SAFE_DIVIDE" in rendered["bigquery"] and "`shops`" not in rendered["bigquery"]
    assert "SAFE_DIVIDE" not in rendered["duckdb"] + rendered["athena"]
    assert "@last_partition" in rendered["bigquery"]


def test_references_are_put_in_as_they_are(author):
    reference = """read_parquet('/lake/it''s/**/*.parquet', hive_types = {'partition_date': DATE})"""
    sql = queries.training_set(author(), "duckdb", dict.fromkeys(TABLES, reference)).sql
    assert sql.count(reference) == 3


def test_parameters_of_athena_come_in_the_order_of_their_question_marks(author):
    bounds = "orders.partition_date <= :last_partition AND orders.partition_date >= :first_partition"
    swapped = FEATURES.replace("orders.partition_date BETWEEN :first_partition AND :last_partition", bounds)
    query = queries.accepted_features(author({"features.sql": swapped}), "athena", TABLES)
    assert query.parameters == ("last_partition", "first_partition", "first_partition", "last_partition")
    assert query.sql.count("?") == 4


def test_a_model_without_rules_or_numeric_features(author):
    model = author({"features.sql": FEATURES.replace("orders.amount, ", "")})
    yaml = model.folder / "model.yaml"
    yaml.write_text(yaml.read_text().replace("  numeric:\n  - amount\n", "  numeric: []\n"))
    model = load_model("orders_back")
    with duckdb.connect() as connection:
        one_order(connection)
        assert connection.execute(queries.accepted_features(model, "duckdb", TABLES).sql, BOUND).fetchall() == [(7, DAY, "Ulm")]
        assert connection.execute(queries.quarantined_rows(model, "duckdb", TABLES).sql, BOUND).fetchall() == []


def test_names_that_are_words_of_sql_are_quoted(author):
    model = author()
    words = {"order_id": "order", "amount": "group", "city": "select"}
    for file in ("model.yaml", "features.sql", "labels.sql"):
        path = model.folder / file
        text = path.read_text()
        for name, word in words.items():
            text = text.replace(name, word) if file == "model.yaml" else text.replace(name, f'"{word}"')
        path.write_text(text)
    model = load_model("orders_back")
    queries.check(model)
    with duckdb.connect() as connection:
        one_order(connection, order_id="order", amount="group", city="select")
        assert connection.execute(queries.build_features(model, "duckdb", TABLES).sql, BOUND).fetchall() == [
            (7, DAY, 1.5, "Ulm", None)
        ]


def test_columns_beyond_the_contract_cannot_be_features(author):
    """A column that someone adds to the entity table, such as the outcome itself, is not there for features.sql."""
    model = author({"features.sql": FEATURES.replace("orders.amount", "orders.came_back AS amount")})
    with duckdb.connect() as connection:
        one_order(connection, more=", 1 AS came_back")
        with pytest.raises(duckdb.BinderException, match="came_back"):
            connection.execute(queries.accepted_features(model, "duckdb", TABLES).sql, BOUND)


def test_importing_stays_light():
    """The module is imported while DAGs are parsed."""
    code = (
        "import sys, include.queries; print([name for name in ('sqlglot', 'duckdb', 'pandas', 'jinja2') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
