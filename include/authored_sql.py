"""What an author of a model writes in SQL: `features.sql`, `labels.sql` and the row rules, read and checked.

The files are Jinja and DuckDB's SQL; a file for one dialect, `features.bigquery.sql`, takes the place of `features.sql`
there and is written in that dialect. Only what is checked here gets into a statement that runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, get_args

from include.config import REPOSITORY, ModelConfig

if TYPE_CHECKING:
    from sqlglot import exp

Dialect = Literal["duckdb", "bigquery", "athena"]
DIALECTS: tuple[Dialect, ...] = get_args(Dialect)
AUTHORED: Dialect = "duckdb"
PARAMETERS = ("first_partition", "last_partition")
# In a statement, a table is this identifier until it is rendered. No author can have written it: names begin with a letter.
TABLE = "__table_"

SQL_TYPES = {
    "string": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}
LEAK = "a model would be told what it must foresee"
# Functions that sqlglot does not tell apart from those of an author's own.
UNSTABLE_NAMES = {"now", "transaction_timestamp", "clock_timestamp", "statement_timestamp", "setseed", "nextval", "generate_uuid"}


class InvalidQuery(ValueError):
    """The SQL of a model cannot be used; the message names file, line (where known), dialect and reason."""


class _UnknownTable(Exception):
    """A template asks for a table that it may not read."""


@dataclass(frozen=True)
class _File:
    path: Path
    written_in: Dialect
    rendered_for: Dialect

    def refuse(self, reason: str, line: int | None = None) -> NoReturn:
        raise InvalidQuery(f"{_shown(self.path)}{f':{line}' if line else ''} ({self.rendered_for}): {reason}")


def read(model: ModelConfig, name: Literal["features", "labels"], dialect: Dialect) -> exp.Query:
    """The query in a model's file, as it is to run in a dialect; tables are the identifiers `__table_<name>`.

    Raises:
        InvalidQuery: if it is not usable, see `queries.check`.
    """
    override = model.folder / f"{name}.{dialect}.sql"
    file = _File(override, dialect, dialect) if override.is_file() else _File(model.folder / f"{name}.sql", AUTHORED, dialect)
    readable = [model.source.table, *model.source.lookups]
    if name == "labels":
        readable.append(model.labels.table)
        columns = [model.source.key, "partition_date", "label"]
        bounded = {model.source.table, model.labels.table}
    else:
        if model.labels.table != model.source.table and model.labels.table in model.source.lookups:
            file.refuse(f"source.lookups has the label table {model.labels.table!r}: {LEAK}")
        columns = [model.source.key, "partition_date", *model.features.names]
        bounded = {model.source.table}
    query = _parsed(file, _text(file, model, readable))
    _refuse_other_tables(file, query)
    _refuse_other_parameters(file, query)
    _refuse_unstable(file, query)
    _refuse_other_columns(file, query, columns)
    _refuse_unbounded(file, query, bounded)
    _refuse_untranslatable(file, query)
    return query


def row_rules(model: ModelConfig) -> dict[str, str]:
    """The conditions of source.row_rules in DuckDB's SQL, and one that every row must meet: it has a key.

    Raises:
        InvalidQuery: if a rule is not one condition on the columns of the contract.
    """
    rules = {name: _rule(model, name, rule) for name, rule in model.source.row_rules.items()}
    return {**rules, "key_is_known": f'"{model.source.key}" IS NOT NULL'}


def _text(file: _File, model: ModelConfig, readable: list[str]) -> str:
    import jinja2

    def table(name: str) -> str:
        if name not in readable:
            if name == model.labels.table:
                raise _UnknownTable(f"features must not read the label table {name!r}: {LEAK}")
            raise _UnknownTable(f"{name!r} is not a table of this model ({', '.join(readable)}): add it to source.lookups")
        return TABLE + name

    environment = jinja2.Environment(  # ruff: ignore[jinja2-autoescape-false]  SQL, not HTML
        loader=jinja2.FileSystemLoader(file.path.parent), undefined=jinja2.StrictUndefined
    )
    try:
        return environment.get_template(file.path.name).render(table=table)
    except jinja2.TemplateSyntaxError as error:
        file.refuse(f"not a valid template: {error.message}", error.lineno)
    except (jinja2.TemplateError, _UnknownTable, TypeError) as error:
        file.refuse(str(error), _template_line(error, file.path))


def _parsed(file: _File, text: str) -> exp.Query:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        statements = [statement for statement in sqlglot.parse(text, dialect=file.written_in) if statement is not None]
    except SqlglotError as error:
        file.refuse(f"does not parse: {_reason(error)}", _error_line(error))
    if len(statements) != 1 or not isinstance(statements[0], exp.Query) or statements[0].find(exp.Into, exp.DML, exp.DDL):
        file.refuse("must be one SELECT and nothing else")
    return statements[0]


def _refuse_other_tables(file: _File, query: exp.Query) -> None:
    from sqlglot import exp

    for table in query.find_all(exp.Table):
        if table.name.startswith(TABLE) and isinstance(table.this, exp.Identifier) and not table.db:
            continue
        if not table.db and table.name in _common_tables(table):
            continue
        shown = table.name or table.sql(file.written_in)
        file.refuse(f'reads {shown!r}, which is neither a WITH query nor written as {{{{ table("...") }}}}', _line(table))


def _common_tables(table: exp.Table) -> Iterator[str]:
    """Names that WITH gives at the place of a table."""
    from sqlglot import exp

    place: exp.Expr | None = table
    while place is not None:
        if isinstance(place, exp.Query):
            yield from (common.alias for common in place.ctes)
        place = place.parent


def _refuse_other_parameters(file: _File, query: exp.Query) -> None:
    from sqlglot import exp

    for node in query.find_all(exp.Placeholder, exp.Parameter):
        if not isinstance(node, exp.Placeholder) or node.name not in PARAMETERS:
            given = " and ".join(f":{name}" for name in PARAMETERS)
            file.refuse(f"binds {node.sql(file.written_in)}: only {given} are given", _line(node))


def _refuse_unstable(file: _File, query: exp.Expr) -> None:
    for node in _unstable(query):
        file.refuse(
            f"{node.sql(file.written_in)} gives another answer at each run: use :first_partition and :last_partition", _line(node)
        )


def _unstable(expression: exp.Expr) -> Iterator[exp.Expr]:
    from sqlglot import exp

    clocks = (exp.CurrentDate, exp.CurrentDatetime, exp.CurrentTime, exp.CurrentTimestamp, exp.Localtime, exp.Localtimestamp)
    chance = (exp.Rand, exp.Randn, exp.Uuid, exp.TableSample)
    yield from expression.find_all(*clocks, *chance)
    yield from (call for call in expression.find_all(exp.Anonymous) if call.name.lower() in UNSTABLE_NAMES)


def _refuse_other_columns(file: _File, query: exp.Query, wanted: list[str]) -> None:
    found = [column.output_name for column in query.selects]
    if any(column.is_star for column in query.selects):
        file.refuse("ends in SELECT *: name the columns, so that a new column of a table is no new feature")
    problems = [
        _listed("lacks", [name for name in wanted if name not in found]),
        _listed("has, beyond model.yaml,", [name or "a column without a name" for name in found if name not in wanted]),
        _listed("has twice", sorted({name for name in found if found.count(name) > 1})),
    ]
    if any(problems):
        file.refuse("; ".join(problem for problem in problems if problem))


def _refuse_unbounded(file: _File, query: exp.Query, tables: set[str]) -> None:
    """Each SELECT that reads the entities or the labels must say which days it wants, and none after the last."""
    from sqlglot import exp

    for table in query.find_all(exp.Table):
        name = table.name.removeprefix(TABLE)
        select = table.find_ancestor(exp.Select)
        if table.name.startswith(TABLE) and name in tables and not (select and _is_bounded(select)):
            file.refuse(f"reads {name!r} without WHERE partition_date BETWEEN :first_partition AND :last_partition", _line(table))


def _is_bounded(select: exp.Select) -> bool:
    from sqlglot import exp

    where = select.args.get("where")
    below = above = False
    for condition in _conjuncts(where.this) if where else []:
        if not isinstance(condition, (exp.Between, exp.GTE, exp.LTE, exp.LT)) or not _is_partition(condition.this):
            continue
        low = condition.args["low"] if isinstance(condition, exp.Between) else condition.expression
        high = condition.args["high"] if isinstance(condition, exp.Between) else condition.expression
        if isinstance(condition, (exp.Between, exp.GTE)):
            below |= any(node.name == "first_partition" for node in low.find_all(exp.Placeholder))
        if isinstance(condition, (exp.Between, exp.LTE, exp.LT)):
            above |= _is_last_or_before(high)
    return below and above


def _conjuncts(condition: exp.Expr) -> Iterator[exp.Expr]:
    from sqlglot import exp

    condition = condition.unnest()
    if isinstance(condition, exp.And):
        yield from _conjuncts(condition.left)
        yield from _conjuncts(condition.right)
    else:
        yield condition


def _is_partition(node: exp.Expr) -> bool:
    from sqlglot import exp

    return isinstance(node, exp.Column) and node.name.lower() == "partition_date"


def _is_last_or_before(node: exp.Expr) -> bool:
    """`:last_partition`, or days taken from it: what is added to it reads the future."""
    from sqlglot import exp

    while isinstance(node, (exp.Cast, exp.Paren, exp.Sub)):
        node = node.this
    return isinstance(node, exp.Placeholder) and node.name == "last_partition"


def _refuse_untranslatable(file: _File, query: exp.Query) -> None:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ErrorLevel, ParseError, SqlglotError

    if file.written_in != file.rendered_for:
        remedy = f"write it otherwise, or give {file.rendered_for} a file of its own, {file.path.stem}.{file.rendered_for}.sql"
        for node in query.find_all(exp.Anonymous, exp.IntDiv, exp.Join):
            if isinstance(node, exp.Anonymous):
                file.refuse(f"{node.name}() is not known to translate to {file.rendered_for}: {remedy}", _line(node))
            if isinstance(node, exp.IntDiv) and file.rendered_for == "athena":
                file.refuse("a // b rounds there where it should cut off: write FLOOR(a / b)", _line(node))
            if isinstance(node, exp.Join) and node.args.get("method") in ("ASOF", "POSITIONAL"):
                file.refuse(f"{node.args['method']} JOIN is not known there: {remedy}", _line(node))
    try:
        text = query.copy().sql(file.rendered_for, unsupported_level=ErrorLevel.RAISE)
        sqlglot.parse_one(text, dialect=file.rendered_for)
    except ParseError as error:
        file.refuse(f"does not parse once translated: {_reason(error)}")
    except SqlglotError as error:
        file.refuse(f"cannot be translated: {error}")


def _rule(model: ModelConfig, name: str, rule: str) -> str:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError
    from sqlglot.optimizer.annotate_types import annotate_types

    def refuse(reason: str) -> NoReturn:
        raise InvalidQuery(f"{_shown(model.folder / 'model.yaml')}: source.row_rules.{name} ({AUTHORED}): {reason}")

    try:
        statements = sqlglot.parse(rule, dialect=AUTHORED)
    except SqlglotError as error:
        refuse(f"does not parse: {_reason(error)}")
    if len(statements) != 1 or not isinstance(statements[0], exp.Condition):
        refuse("must be one condition, such as distance > 0")
    condition = statements[0]
    unfit = (exp.Query, exp.AggFunc, exp.Window, exp.Placeholder, exp.Parameter, exp.Anonymous, exp.Star, exp.Alias)
    foreign = condition.find(*unfit)
    if foreign is not None:
        refuse(f"{foreign.sql(AUTHORED)} has no place in a rule: it is a condition on the columns of one row")
    for node in _unstable(condition):
        refuse(f"{node.sql(AUTHORED)} gives another answer at each run")
    types = {column: SQL_TYPES[kind] for column, kind in model.source.columns.items()} | {"partition_date": "DATE"}
    for column in condition.find_all(exp.Column):
        if column.table or column.name not in types:
            refuse(f"{column.sql(AUTHORED)} is not among source.columns")
    typed = condition.transform(lambda node: exp.column(node.this, table="row") if isinstance(node, exp.Column) else node)
    select = annotate_types(exp.select(typed.as_("rule")).from_("row"), schema={"row": types}, dialect=AUTHORED)
    if not select.selects[0].is_type("boolean"):
        refuse("must be true or false for a row, such as distance > 0")
    return condition.sql(AUTHORED, comments=False)


def _listed(what: str, names: list[str]) -> str:
    return f"{what} {', '.join(names)}" if names else ""


def _line(node: exp.Expr) -> int | None:
    lines = [found.meta["line"] for found in node.walk() if "line" in found.meta]
    return min(lines, default=None)


def _error_line(error: Exception) -> int | None:
    return next((detail["line"] for detail in getattr(error, "errors", []) if detail.get("line")), None)


def _reason(error: Exception) -> str:
    """Without the excerpt that sqlglot underlines with control characters."""
    details = getattr(error, "errors", None)
    if not details:
        return str(error)
    return f"{details[0]['description']} near {details[0]['highlight']!r}"


def _template_line(error: BaseException, path: Path) -> int | None:
    """Jinja gives frames of a template their place in its file."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
