"""Types of the parts of a query, and where DuckDB is kinder to them than the engine it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify

# The columns of tables by their names, with their types.
Columns = Mapping[str, Mapping[str, str]]


def divide_integers(query: exp.Expr, columns: Columns, dialect: str) -> None:
    """5 / 2 is 2 in Athena and Redshift, and 2.5 in DuckDB: where both sides are known to be integers, it is said so."""
    divisions = list(query.find_all(exp.Div))
    if not divisions:
        return
    for number, division in enumerate(divisions):
        division.meta["division"] = number
    whole = set()
    for division in _typed(query, columns, dialect).find_all(exp.Div):
        if all(side.is_type(*exp.DataType.INTEGER_TYPES) for side in (division.this, division.expression)):
            whole.add(division.meta.get("division"))
    for number, division in enumerate(divisions):
        # The generator would cast, by types that it does not know here.
        division.set("typed", False)
        division.set("safe", False)
        if number in whole:
            division.replace(exp.IntDiv(this=division.this, expression=division.expression))


def mixed(query: exp.Expr, columns: Columns, dialect: str) -> str:
    """A comparison of what Athena does not compare, such as a day with the text of one; "" if none is found."""
    for node in _typed(query, columns, dialect).find_all(exp.Predicate):
        if isinstance(node, exp.Binary | exp.Between | exp.In):
            others = [node.args.get(name) for name in ("expression", "low", "high")]
            sides = [node.this, *others, *node.args.get("expressions", [])]
            kinds = {kind for side in sides if isinstance(side, exp.Expr) and (kind := _kind(side))}
            if len(kinds) > 1:
                return f"{' and '.join(sorted(kinds))}: {node.sql(dialect)[:200]}"
    return ""


def _typed(query: exp.Expr, columns: Columns, dialect: str) -> exp.Expr:
    """The query with the types of its parts, as far as they can be told."""
    schema: dict[str, object] = {
        table: {name: kind for name, kind in each.items() if kind.isalnum()} for table, each in columns.items()
    }
    # sqlglot takes 1e0+1 for one number, which it then cannot read.
    with suppress(SqlglotError, ValueError, ArithmeticError):
        return annotate_types(qualify(query.copy(), dialect=dialect, schema=schema), schema=schema, dialect=dialect)
    with suppress(SqlglotError, ValueError, ArithmeticError):
        return annotate_types(query.copy(), dialect=dialect)
    return query


def _kind(node: exp.Expr) -> str | None:
    """What may be compared with each other. None where it is not told, or does not matter."""
    if node.is_type(*exp.DataType.TEXT_TYPES):
        return "varchar"
    if node.is_type(*exp.DataType.TEMPORAL_TYPES):
        return "date"
    if node.is_type(*exp.DataType.NUMERIC_TYPES):
        return "number"
    return "boolean" if node.is_type("boolean") else None
