"""The SQL of a model, written once and rendered for DuckDB, BigQuery and Athena.

A model's `features.sql` and `labels.sql` are Jinja and DuckDB's SQL; sqlglot translates them. Tables are written
`{{ table("flights") }}`, the days that are asked for `:first_partition` and `:last_partition`, both included. In
features.sql the entity table has only the rows that meet the row rules, and only the columns of the contract. The
statements around them, shared by all models, are in `include/sql`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from include import authored_sql
from include.authored_sql import AUTHORED, DIALECTS, TABLE, Dialect, InvalidQuery
from include.config import INCLUDE, ModelConfig

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = [
    "DIALECTS",
    "Dialect",
    "InvalidQuery",
    "Query",
    "accepted_features",
    "build_features",
    "check",
    "labels",
    "quarantined_rows",
    "rejected_rows",
    "render",
    "table_names",
    "training_set",
]

# As TABLE: identifiers that stand for something until the text is written.
AUTHORED_QUERY, PARAMETER, VALUE = "__query_", "__parameter_", "__value_"
PLACEHOLDERS: dict[Dialect, str] = {
    "duckdb": "CAST(${} AS DATE)",
    "bigquery": "@{}",
    # Athena puts the text of a value into the SQL: '2013-04-01' in quotes and DATE '2013-04-01' must both do.
    "athena": "CAST(? AS DATE)",
}


@dataclass(frozen=True)
class Query:
    """A SELECT to be bound.

    parameters: what to bind, values being days. DuckDB and BigQuery: by name, each once. Athena: by position, in the
    order of the question marks, so a name comes again.
    """

    sql: str
    parameters: tuple[str, ...]


def build_features(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Every entity row once: key, partition_date, features (numeric as DOUBLE, categorical as text), quarantine_reason.

    quarantine_reason is NULL for a row to be scored; else it names the broken row rules (`a,b`), or the features that
    are not finite (`not_finite: a,b`). Rows in = rows with a reason + rows without, as long as features.sql gives one
    row for each.

    Args:
        tables: how each of `table_names(model)` is written on the platform, e.g. `read_parquet('...')` or
            `project.dataset.table`. It is put into the SQL as it stands: never make it of what a user typed.

    Raises:
        InvalidQuery: if the model's SQL is not usable, see `check`.
        ValueError: if `tables` lacks a table.
    """
    return render("build_features", model, dialect, tables)


def accepted_features(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Key, partition_date and features of the rows to be scored, in no order. Arguments as for `build_features`."""
    return render("accepted_features", model, dialect, tables)


def quarantined_rows(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Key, partition_date and reason of the rows not to be scored, in no order. Arguments as for `build_features`."""
    return render("quarantined_rows", model, dialect, tables)


def rejected_rows(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Rows that break a row rule: partition_date, columns of the contract, reason. Arguments as for `build_features`."""
    return render("rejected_rows", model, dialect, tables)


def labels(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Key, partition_date, label (an integer; for regression a double) where it is known. Arguments as for `build_features`."""
    return render("labels", model, dialect, tables)


def training_set(model: ModelConfig, dialect: Dialect, tables: Mapping[str, str]) -> Query:
    """Accepted features and label, ordered by partition_date and key. Arguments as for `build_features`."""
    return render("training_set", model, dialect, tables)


QUERIES = (build_features, accepted_features, quarantined_rows, rejected_rows, labels, training_set)


def table_names(model: ModelConfig) -> list[str]:
    """The tables that a model reads."""
    return list(dict.fromkeys([model.source.table, *model.source.lookups, model.labels.table]))


def check(model: ModelConfig) -> None:
    """Renders all SQL of a model for every dialect.

    Raises:
        InvalidQuery: naming file, line (where known), dialect and reason, when SQL
            - does not parse, or cannot be translated to a dialect;
            - reads a table that is not the model's, or, for features, the label table;
            - gives other columns than key, partition_date and the features (labels: label);
            - reads entities or labels without bounds on partition_date;
            - gives another answer tomorrow, by now(), random() and their like;
            - or when a row rule is not one condition on columns of the contract.
    """
    tables = {name: name for name in table_names(model)}
    for dialect in DIALECTS:
        for query in QUERIES:
            query(model, dialect, tables)


def render(
    template: str,
    model: ModelConfig,
    dialect: Dialect,
    tables: Mapping[str, str],
    values: Sequence[str | float] = (),
    **names: Any,
) -> Query:
    """A statement of include/sql.

    Args:
        tables: as for `build_features`.
        values: what the statement compares columns with. The template writes the first as `__value_0`: data reaches
            neither Jinja nor the parser, and becomes a literal of the dialect only as the text is written.
        names: what the template knows beyond the model.

    Raises:
        InvalidQuery, ValueError: as `build_features`.
    """
    from sqlglot import exp

    missing = [name for name in table_names(model) if name not in tables]
    if missing:
        raise ValueError(f"{model.name}: no reference is given for table {', '.join(missing)}")
    statement = _shared(template, model, **names)
    for node in list(statement.find_all(exp.Table)):
        if node.name.startswith(AUTHORED_QUERY):
            node.replace(_authored(model, node, dialect))
    for node in list(statement.find_all(exp.Table)):
        if node.name.startswith(TABLE) and not node.alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(node.name.removeprefix(TABLE))))
    for placeholder in list(statement.find_all(exp.Placeholder)):
        placeholder.replace(exp.column(PARAMETER + placeholder.name))
    return _written(statement.sql(dialect, pretty=True, identify=True, comments=False), dialect, tables, values)


def _shared(template: str, model: ModelConfig, **names: Any) -> exp.Query:
    """A statement of include/sql."""
    import jinja2
    import sqlglot
    from sqlglot import exp

    environment = jinja2.Environment(  # ruff: ignore[jinja2-autoescape-false]  SQL, not HTML
        loader=jinja2.FileSystemLoader(INCLUDE / "sql"), undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["quoted"] = lambda name: f'"{name}"'
    text = environment.get_template(f"{template}.sql").render(
        source=TABLE + model.source.table,
        authored=AUTHORED_QUERY,
        key=model.source.key,
        columns=["partition_date", *(column for column in model.source.columns if column != "partition_date")],
        rules=authored_sql.row_rules(model),
        numeric=model.features.numeric,
        categorical=model.features.categorical,
        features=model.features.names,
        label_type="INTEGER" if model.task == "classification" else "DOUBLE",
        **names,
    )
    return cast(exp.Query, sqlglot.parse_one(text, dialect=AUTHORED))


def _authored(model: ModelConfig, place: exp.Table, dialect: Dialect) -> exp.Subquery:
    """What takes the place of `__query_features` or `__query_labels` in a shared statement."""
    from sqlglot import exp

    name = cast(Literal["features", "labels"], place.name.removeprefix(AUTHORED_QUERY))
    query = authored_sql.read(model, name, dialect)
    if name == "features":
        for node in list(query.find_all(exp.Table)):
            if node.name == TABLE + model.source.table:
                node.replace(_shared("accepted_rows", model).subquery(alias=node.alias or model.source.table))
    return query.subquery(alias=place.alias)


def _written(text: str, dialect: Dialect, tables: Mapping[str, str], values: Sequence[str | float]) -> Query:
    """Markers are replaced in the text, not in the tree: parameters then come in the order of their question marks, and
    the reference of a table stays as the platform wrote it. What is put in is not searched again: a value that reads
    like a marker stays a value."""
    parameters: list[str] = []

    def replacement(marker: re.Match[str]) -> str:
        if marker["kind"] == TABLE:
            return tables[marker["name"]]
        if marker["kind"] == VALUE:
            return _literal(values[int(marker["name"])], dialect)
        parameters.append(marker["name"])
        return PLACEHOLDERS[dialect].format(marker["name"])

    text = re.sub(rf'(?P<quote>["`])(?P<kind>{TABLE}|{PARAMETER}|{VALUE})(?P<name>[a-z0-9_]+)(?P=quote)', replacement, text)
    return Query(text, tuple(parameters if dialect == "athena" else dict.fromkeys(parameters)))


def _literal(value: str | float, dialect: Dialect) -> str:
    """Numbers with an exponent, for 0.1 is a DECIMAL in DuckDB and Athena, and with the 17 digits that tell any two apart."""
    from sqlglot import exp

    return exp.Literal.string(value).sql(dialect) if isinstance(value, str) else f"{value:.16e}"
