"""What an author may not write is refused, with file, line, dialect and reason."""

from __future__ import annotations

import pytest

from include import queries
from include.config import load_model, load_models
from tests.queries.conftest import FEATURES, LABELS

TABLES = {"orders": "orders", "shops": "shops", "returns": "returns"}


@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.name)
def test_models_of_this_repository_are_usable(model):
    queries.check(model)


def test_usual_model_is_usable(author):
    queries.check(
        author(rules={"amount_is_possible": "amount BETWEEN 0 AND 1e6", "was_paid": "paid", "not_void": "NOT paid IS NULL"})
    )


def features(old: str, new: str) -> dict[str, str]:
    assert old in FEATURES
    return {"features.sql": FEATURES.replace(old, new)}


def labels(old: str, new: str) -> dict[str, str]:
    assert old in LABELS
    return {"labels.sql": LABELS.replace(old, new)}


BOUNDS = "orders.partition_date BETWEEN :first_partition AND :last_partition"
AMOUNT = "orders.amount,"
REFUSED = {
    "does not parse": (features("LEFT JOIN", "LEFT AND JOIN"), "features.sql:4 (duckdb): does not parse"),
    "labels do not parse": (labels("CASE WHEN", "CASE WHEN WHEN"), "labels.sql:2 (duckdb): does not parse"),
    "no template": (features("{{ table", "{{ table table"), "features.sql:3 (duckdb): not a valid template"),
    "undefined variable": (features(AMOUNT, "{{ amount }} AS amount,"), "features.sql:2 (duckdb): 'amount' is undefined"),
    "unknown table": (
        features('"shops"', '"customers"'),
        "features.sql:4 (duckdb): 'customers' is not a table of this model (orders, shops)",
    ),
    "labels in features": (
        features('"shops"', '"returns"'),
        "features.sql:4 (duckdb): features must not read the label table 'returns'",
    ),
    "table not by name": (features('{{ table("shops") }}', "shops"), "features.sql:4 (duckdb): reads 'shops', which is neither"),
    "file": (
        features('{{ table("shops") }} ON', "read_parquet('/etc/passwd') AS shops ON"),
        "(duckdb): reads \"READ_PARQUET('/etc/passwd') AS shops\"",
    ),
    "file by path": (features('{{ table("shops") }} ON', "'/etc/passwd' AS shops ON"), "(duckdb): reads '/etc/passwd'"),
    "table of another schema": (features('{{ table("shops") }} ON', "other.shops ON"), "features.sql:4 (duckdb): reads 'shops'"),
    "two statements": ({"features.sql": FEATURES + "; DROP TABLE orders"}, "features.sql (duckdb): must be one SELECT"),
    "no SELECT": ({"features.sql": "DELETE FROM orders"}, "features.sql (duckdb): must be one SELECT"),
    "empty": ({"features.sql": "-- later"}, "features.sql (duckdb): must be one SELECT"),
    "missing column": (features(", shops.city", ""), "features.sql (duckdb): lacks city"),
    "surplus column": (
        features(AMOUNT, "orders.amount, orders.shop, orders.amount + 1,"),
        "has, beyond model.yaml, shop, a column without a name",
    ),
    "missing and surplus": (features("shops.city", "shops.city AS town"), "lacks city; has, beyond model.yaml, town"),
    "column twice": (features(AMOUNT, "orders.amount, 2 AS amount,"), "has twice amount"),
    "star": (features(AMOUNT, "orders.*,"), "ends in SELECT *"),
    "labels lack label": (
        labels(" AS label", " AS returned"),
        "labels.sql (duckdb): lacks label; has, beyond model.yaml, returned",
    ),
    "no days": (features(f"WHERE {BOUNDS}", ""), "features.sql:3 (duckdb): reads 'orders' without WHERE partition_date"),
    "labels without days": (
        labels("WHERE partition_date BETWEEN :first_partition AND :last_partition", ""),
        "labels.sql:3 (duckdb): reads 'returns' without",
    ),
    "no first day": (features(BOUNDS, "orders.partition_date <= :last_partition"), "reads 'orders' without"),
    "no last day": (features(BOUNDS, "orders.partition_date >= :first_partition"), "reads 'orders' without"),
    "days swapped": (
        features(BOUNDS, "orders.partition_date BETWEEN :last_partition AND :first_partition"),
        "reads 'orders' without",
    ),
    "days as one of two ways": (features(BOUNDS, f"{BOUNDS} OR amount > 5"), "reads 'orders' without"),
    "other column": (features(BOUNDS, "orders.shipped BETWEEN :first_partition AND :last_partition"), "reads 'orders' without"),
    "a day more": (
        features(BOUNDS, "orders.partition_date BETWEEN :first_partition AND :last_partition + INTERVAL 1 DAY"),
        "reads 'orders' without",
    ),
    "days only outside": (
        features('{{ table("orders") }}', '(SELECT * FROM {{ table("orders") }}) AS orders'),
        "features.sql:3 (duckdb): reads 'orders' without",
    ),
    "other parameter": (
        features(BOUNDS, f"{BOUNDS} AND amount > :least"),
        "binds $least: only :first_partition and :last_partition",
    ),
    "positional parameter": (features(BOUNDS, f"{BOUNDS} AND amount > ?"), "binds ?"),
    "clock": (features(AMOUNT, "now() AS amount,"), "features.sql:2 (duckdb): NOW() gives another answer"),
    "day": (features(AMOUNT, "orders.partition_date - current_date AS amount,"), "CURRENT_DATE gives another answer"),
    "today": (features(AMOUNT, "today() AS amount,"), "gives another answer"),
    "chance": (features(AMOUNT, "random() AS amount,"), "RANDOM() gives another answer"),
    "sample": (features('{{ table("orders") }}', '{{ table("orders") }} TABLESAMPLE 10%'), "gives another answer"),
    "clock in labels": (labels("returned THEN", "returned AND now() > partition_date THEN"), "labels.sql:2 (duckdb): NOW()"),
    "unknown function": (
        features(AMOUNT, "list_cosine_similarity(orders.amount) AS amount,"),
        "features.sql:2 (bigquery): list_cosine_similarity() is not known",
    ),
    "join of one dialect": (features("LEFT JOIN {{", "ASOF JOIN {{"), "features.sql:4 (bigquery): ASOF JOIN is not known there"),
    "division that rounds": (features(AMOUNT, "orders.amount // 10 AS amount,"), "features.sql:2 (athena): a // b rounds there"),
    "wrong in one dialect": (
        {"features.athena.sql": FEATURES.replace("LEFT JOIN", "LEFT AND JOIN")},
        "features.athena.sql:4 (athena): does not parse",
    ),
    "wrong columns in one dialect": (
        {"labels.bigquery.sql": LABELS.replace("label", "outcome")},
        "labels.bigquery.sql (bigquery): lacks label",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_query_is_refused(author, case):
    files, reason = REFUSED[case]
    model = author(files)
    with pytest.raises(queries.InvalidQuery) as refused:
        queries.check(model)
    assert reason in str(refused.value)
    assert str(refused.value).startswith(str(model.folder))


RULES = {
    "amount > 0; DROP TABLE orders": "must be one condition",
    "amount > 0) OR (TRUE": "does not parse",
    "amount >": "does not parse",
    "": "must be one condition",
    "amount": "must be true or false",
    "amount + 1": "must be true or false",
    "'paid'": "must be true or false",
    "SELECT TRUE": "must be one condition",
    "amount > (SELECT avg(amount) FROM orders)": "has no place in a rule",
    "EXISTS (SELECT 1 FROM orders)": "has no place in a rule",
    "amount > avg(amount)": "has no place in a rule",
    "row_number() OVER () = 1": "has no place in a rule",
    "partition_date >= :first_partition": "has no place in a rule",
    "cheap(amount)": "has no place in a rule",
    "price > 0": "price is not among source.columns",
    "orders.amount > 0": "orders.amount is not among source.columns",
    "partition_date < current_date": "gives another answer",
    "random() < 0.5": "gives another answer",
    "amount > 0 AS fine": "must be one condition",
}


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_refused(author, rule):
    model = author(rules={"amount_is_fine": rule})
    for query in (queries.check, lambda model: queries.accepted_features(model, "duckdb", TABLES)):
        with pytest.raises(queries.InvalidQuery) as refused:
            query(model)
        assert "model.yaml: source.row_rules.amount_is_fine (duckdb): " in str(refused.value)
        assert RULES[rule] in str(refused.value)


def test_label_table_is_no_lookup(author):
    with pytest.raises(queries.InvalidQuery, match=r"features.sql \(duckdb\): source.lookups has the label table 'returns'"):
        queries.check(author(lookups=["shops", "returns"]))


def test_rendering_checks_too(author):
    model = author(REFUSED["labels in features"][0])
    with pytest.raises(queries.InvalidQuery, match="must not read the label table"):
        queries.accepted_features(model, "duckdb", TABLES)


def test_history_of_the_entities_may_be_read_back_but_not_forward(author):
    history = """
    WITH shop_totals AS (
      SELECT shop, SUM(amount) AS total FROM {{ table("orders") }}
      WHERE partition_date >= :first_partition - INTERVAL 7 DAY AND partition_date < :last_partition
      GROUP BY shop
    )
    SELECT o.order_id, o.partition_date, shop_totals.total AS amount, o.shop AS city
    FROM {{ table("orders") }} AS o LEFT JOIN shop_totals ON shop_totals.shop = o.shop
    WHERE o.partition_date BETWEEN :first_partition AND :last_partition
    """
    queries.check(author({"features.sql": history}))


def test_reference_of_every_table_is_needed():
    with pytest.raises(ValueError, match="flight_delays: no reference is given for table weather, planes"):
        queries.labels(load_model("flight_delays"), "duckdb", {"flights": "flights", "flight_outcomes": "flight_outcomes"})
