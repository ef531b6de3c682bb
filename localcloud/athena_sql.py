"""What Athena is asked, read by sqlglot: which statement it is, which tables it reads, and the same question for DuckDB."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.tokens import TokenType

from localcloud import sql_types

ATHENA = "athena"
CATALOG = "awsdatacatalog"
HIVE = "org.apache.hadoop.hive.ql.io"
TEXT = ("org.apache.hadoop.mapred.TextInputFormat", f"{HIVE}.HiveIgnoreKeyTextOutputFormat")
PARQUET = (f"{HIVE}.parquet.MapredParquetInputFormat", f"{HIVE}.parquet.MapredParquetOutputFormat")
PARQUET_SERDE = f"{HIVE}.parquet.serde.ParquetHiveSerDe"
JSON_SERDE = "org.openx.data.jsonserde.JsonSerDe"
TEXT_SERDE = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"


class Malformed(Exception):
    """The text is no statement that can be run; said when it is sent, as Athena does."""


class QueryFailed(Exception):
    """Why a query that was accepted has failed, in Athena's words."""


@dataclass(frozen=True)
class Name:
    database: str
    table: str

    def __str__(self) -> str:
        return f"{CATALOG}.{self.database}.{self.table}"


@dataclass(frozen=True)
class Select:
    query: exp.Query


@dataclass(frozen=True)
class CreateTableAs:
    name: Name
    query: exp.Query
    if_not_exists: bool
    format: str = "PARQUET"
    compression: str = ""
    location: str = ""
    partitioned_by: tuple[str, ...] = ()
    bucketed_by: tuple[str, ...] = ()
    buckets: int = 0


@dataclass(frozen=True)
class Unload:
    query: exp.Query
    to: str
    format: str
    compression: str = ""


@dataclass(frozen=True)
class Insert:
    name: Name
    columns: tuple[str, ...]
    query: exp.Query


@dataclass(frozen=True)
class CreateTable:
    name: Name
    if_not_exists: bool
    table: Mapping[str, Any]  # a TableInput of Glue


@dataclass(frozen=True)
class DropTable:
    name: Name
    if_exists: bool


@dataclass(frozen=True)
class CreateDatabase:
    name: str
    if_not_exists: bool


@dataclass(frozen=True)
class AddPartitions:
    name: Name
    if_not_exists: bool
    partitions: tuple[tuple[Mapping[str, str], str], ...] = field(default=())  # values by key, and location or ""


Statement = Select | CreateTableAs | Unload | Insert | CreateTable | DropTable | CreateDatabase | AddPartitions


def read(text: str, parameters: Sequence[str], database: str) -> Statement:
    """The one statement of a text, its question marks filled in.

    Raises:
        Malformed: if it is no statement, or one that the local cloud does not run.
        QueryFailed: if the parameters are not as many as the question marks.
    """
    text = _bound(text, parameters)
    if found := re.fullmatch(r"(?is)\s*unload\s*(\(.*\))\s*to\s*'([^']+)'\s*with\s*\((.*)\)[\s;]*", text):
        return _unload(*found.groups())
    if re.match(r"(?is)\s*alter\s+table\s", text):
        return _add_partitions(text, database)
    tree = _parsed(text)
    if isinstance(tree, exp.Query):
        return Select(tree)
    if isinstance(tree, exp.Create) and tree.kind == "TABLE":
        return _create_table_as(tree, database) if tree.expression else _create_table(tree, database)
    if isinstance(tree, exp.Create) and tree.kind in ("DATABASE", "SCHEMA"):
        table = tree.find(exp.Table)
        assert table is not None
        return CreateDatabase((table.name or table.db).lower(), bool(tree.args.get("exists")))
    if isinstance(tree, exp.Drop) and tree.kind == "TABLE":
        return DropTable(_name(tree.this, database), bool(tree.args.get("exists")))
    if isinstance(tree, exp.Insert) and not tree.args.get("overwrite") and isinstance(tree.expression, exp.Query | exp.Values):
        schema = tree.this if isinstance(tree.this, exp.Schema) else None
        columns = tuple(column.name.lower() for column in schema.expressions) if schema else ()
        query = tree.expression if isinstance(tree.expression, exp.Query) else exp.select("*").from_(tree.expression)
        return Insert(_name(schema.this if schema else tree.this, database), columns, query)
    raise _not_here(text)


def _not_here(text: str) -> Malformed:
    kind = " ".join(text.split()[:2])
    return Malformed(f"the local cloud does not run statements like {kind} ...: those of localcloud/athena_sql.py, and no others")


def _bound(text: str, parameters: Sequence[str]) -> str:
    """The text with its parameters, which are literals of SQL, in the place of its question marks."""
    marks = [token for token in _tokens(text) if token.token_type == TokenType.PLACEHOLDER] if "?" in text else []
    if len(marks) != len(parameters):
        found = f"expected {len(marks)} but found {len(parameters)}"
        raise QueryFailed(f"INVALID_PARAMETER_USAGE: line 1:1: Incorrect number of parameters: {found}")
    parts, begin = [], 0
    for mark, value in zip(marks, parameters, strict=True):
        parts += [text[begin : mark.start], _literal(value)]
        begin = mark.end + 1
    return "".join([*parts, text[begin:]])


def _literal(value: str) -> str:
    tree = _parsed(f"SELECT {value}")
    lone = isinstance(tree, exp.Select) and [name for name, part in tree.args.items() if part] == ["expressions"]
    one = tree.expressions[0] if lone and len(tree.expressions) == 1 else None
    plain = (exp.Literal, exp.Boolean, exp.Null, exp.Neg, exp.Cast)
    if not isinstance(one, plain) or one.find(exp.Column, exp.Query) is not None:
        raise QueryFailed(f"INVALID_PARAMETER_USAGE: line 1:1: the parameter {value!r} is no constant: text is given in quotes")
    return value


def _tokens(text: str) -> list[Any]:
    try:
        return sqlglot.tokenize(text, read="trino")  # as Athena's, which does not look into an UNLOAD
    except SqlglotError as error:
        raise Malformed(f"line 1:1: {error}") from None


def _parsed(text: str) -> exp.Expr:
    try:
        trees = [tree for tree in sqlglot.parse(text, read=ATHENA) if tree is not None]
    except SqlglotError as error:
        at: dict[str, Any] = next(iter(getattr(error, "errors", [])), {})
        words = f"{at['description']} near '{at['highlight']}'" if at else str(error)
        raise Malformed(f"line {at.get('line', 1)}:{at.get('col', 1)}: mismatched input: {words}") from None
    if len(trees) != 1:
        raise Malformed("Only one sql statement is allowed. Got: " + text)
    return trees[0]


def _name(table: exp.Expr, database: str) -> Name:
    assert isinstance(table, exp.Table)
    if table.catalog and table.catalog.lower() != CATALOG:
        raise QueryFailed(f"CATALOG_NOT_FOUND: line 1:1: Catalog '{table.catalog}' does not exist")
    return Name((table.db or database).lower(), table.name.lower())


def _unload(query: str, to: str, options: str) -> Unload:
    tree = _parsed(query)
    if not isinstance(tree, exp.Query):
        raise _not_here(f"UNLOAD {query}")
    given = {name.lower(): value for name, value in re.findall(r"(?i)(\w+)\s*=\s*'([^']*)'", options)}
    if others := sorted(given.keys() - {"format", "compression"}):
        raise Malformed(f"the local cloud does not honour {', '.join(others)} of UNLOAD")
    if "format" not in given:
        raise Malformed("line 1:1: UNLOAD needs a format property")
    return Unload(cast(exp.Query, tree.unnest()), to, given["format"].upper(), given.get("compression", "").upper())


def _create_table_as(tree: exp.Create, database: str) -> CreateTableAs:
    if not isinstance(tree.expression, exp.Query):
        raise _not_here(tree.sql(ATHENA))
    given: dict[str, Any] = {}
    for each in tree.args["properties"].expressions if tree.args.get("properties") else ():
        if isinstance(each, exp.FileFormatProperty):
            given["format"] = each.this.name.upper()
        elif isinstance(each, exp.LocationProperty):
            given["location"] = each.this.name
        elif isinstance(each, exp.PartitionedByProperty):
            given["partitioned_by"] = tuple(column.name.lower() for column in each.this.expressions)
        elif type(each) is exp.Property:
            given[each.name.lower()] = each.args["value"]
        else:
            raise Malformed(f"the local cloud does not honour {each.sql(ATHENA)} of CREATE TABLE AS")
    compression = next((given.pop(key).name for key in ("write_compression", "parquet_compression") if key in given), "")
    location = given.pop("external_location", given.pop("location", ""))
    buckets, bucketed = given.pop("bucket_count", None), given.pop("bucketed_by", None)
    whole = CreateTableAs(
        _name(tree.this, database),
        tree.expression,
        bool(tree.args.get("exists")),
        given.pop("format", "PARQUET"),
        compression.upper(),
        location if isinstance(location, str) else location.name,
        given.pop("partitioned_by", ()),
        tuple(column.name.lower() for column in bucketed.expressions) if bucketed else (),
        int(buckets.name) if buckets else 0,
    )
    if given:
        raise Malformed(f"the local cloud does not honour {', '.join(sorted(given))} of CREATE TABLE AS")
    return whole


def _create_table(tree: exp.Create, database: str) -> CreateTable:
    properties = tree.args["properties"].expressions if tree.args.get("properties") else []
    if not any(isinstance(each, exp.ExternalProperty) for each in properties) or not isinstance(tree.this, exp.Schema):
        raise _not_here(tree.sql(ATHENA))
    name = _name(tree.this.this, database)
    keys: list[dict[str, str]] = []
    parameters = {"EXTERNAL": "TRUE"}
    serde, formats, serde_parameters, location = TEXT_SERDE, TEXT, {"serialization.format": "1"}, ""
    for each in properties:
        if isinstance(each, exp.PartitionedByProperty):
            keys = _columns(each.this)
        elif isinstance(each, exp.LocationProperty):
            location = each.this.name
        elif isinstance(each, exp.RowFormatSerdeProperty):
            serde = each.this.name
            given = each.args.get("serde_properties")
            serde_parameters = {p.name: p.args["value"].name for p in given.expressions} if given else {}
        elif isinstance(each, exp.RowFormatDelimitedProperty):
            fields = each.args.get("fields")
            serde_parameters = {"field.delim": fields.name if fields else "\x01"}
        elif isinstance(each, exp.FileFormatProperty):
            if isinstance(each.this, exp.InputOutputFormat):
                formats = (each.this.args["input_format"].name, each.this.args["output_format"].name)
            elif each.this.name.upper() == "PARQUET":
                serde, formats = PARQUET_SERDE, PARQUET
            elif each.this.name.upper() != "TEXTFILE":
                raise Malformed(f"the local cloud does not read STORED AS {each.this.name.upper()}")
        elif type(each) is exp.Property:
            parameters[each.name] = each.args["value"].name
        elif not isinstance(each, exp.ExternalProperty | exp.SchemaCommentProperty):
            raise Malformed(f"the local cloud does not honour {each.sql(ATHENA)} of CREATE EXTERNAL TABLE")
    if not location:
        raise QueryFailed("SYNTAX_ERROR: line 1:1: CREATE EXTERNAL TABLE needs a LOCATION")
    storage = {
        "Columns": _columns(tree.this),
        "Location": location,
        "InputFormat": formats[0],
        "OutputFormat": formats[1],
        "SerdeInfo": {"SerializationLibrary": serde, "Parameters": serde_parameters},
    }
    table = {
        "Name": name.table,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": parameters,
        "PartitionKeys": keys,
        "StorageDescriptor": storage,
    }
    return CreateTable(name, bool(tree.args.get("exists")), table)


def _columns(schema: exp.Expr) -> list[dict[str, str]]:
    return [{"Name": each.name.lower(), "Type": each.args["kind"].sql("hive").lower()} for each in schema.expressions]


def _add_partitions(text: str, database: str) -> AddPartitions:
    """sqlglot reads one partition only, and Athena takes many."""
    partition = r"partition\s*\(([^)]*)\)(?:\s+location\s+'([^']*)')?"
    found = re.fullmatch(rf"(?is)\s*alter\s+table\s+(\S+)\s+add\s+(if\s+not\s+exists\s+)?((?:{partition}\s*)+);?\s*", text)
    if not found:
        raise _not_here(text)
    table = _parsed(f"SELECT 1 FROM {found[1].replace('`', chr(34))}").find(exp.Table)
    assert table is not None
    partitions = []
    for values, location in re.findall(rf"(?is){partition}", found[3]):
        given = re.findall(r"""[`"]?(\w+)[`"]?\s*=\s*(?:'([^']*)'|([\w.-]+))""", values)
        partitions.append(({key.lower(): quoted or bare for key, quoted, bare in given}, location))
    return AddPartitions(_name(table, database), bool(found[2]), tuple(partitions))


# What a query reads, and how DuckDB is asked.


def tables(query: exp.Query) -> list[exp.Table]:
    """Where a query reads a table of the catalog, and not one that a WITH of its own gives."""
    found = []
    for table in query.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise QueryFailed(f"FUNCTION_NOT_FOUND: line 1:1: Function {table.this.sql(ATHENA)} is no table that there is here")
        if table.db or table.name.lower() not in _given_by_with(table):
            found.append(table)
    return found


def table_name(table: exp.Table, database: str) -> Name:
    return _name(table, database)


def _given_by_with(table: exp.Table) -> Iterator[str]:
    """The names that stand at this place: those of a WITH are known to what follows them, not to themselves."""
    inside: exp.Expr = table
    while inside.parent is not None:
        outer = inside.parent
        if isinstance(outer, exp.With):
            recursive = bool(outer.args.get("recursive"))
            for common in outer.expressions:
                if common is inside and not recursive:
                    break
                yield common.alias.lower()
        elif isinstance(outer, exp.Query):
            with_ = outer.args.get("with_")
            if with_ is not None and with_ is not inside:
                yield from (common.alias.lower() for common in with_.expressions)
        inside = outer


def partition_terms(table: exp.Table, keys: Sequence[str]) -> list[exp.Expr]:
    """Conditions that each row of a table must meet to matter to the query, on nothing but its partition keys.

    They are written as if the table stood alone: `partition_date >= DATE '2013-04-01'`. Few are found rather than a wrong one.
    """
    terms: list[exp.Expr] = []
    known = {key.lower(): key.lower() for key in keys}  # as the columns are called at this place: key
    place: exp.Expr = table
    while known:
        select = place.find_ancestor(exp.Select)
        if select is None or not _kept_by_joins(place, select):
            break
        if place.args.get("alias") and place.args["alias"].args.get("columns"):
            break  # t AS a(x, y): the columns have other names
        alias = place.alias_or_name.lower()
        alone = not select.args.get("joins")
        where = select.args.get("where")
        for term in where.this.flatten() if where and isinstance(where.this, exp.And) else [where.this] if where else []:
            if renamed := _on_keys(term.unnest(), alias, known, alone):
                terms.append(renamed)
        known = _passed_on(select, alias, known, alone)
        place = cast(exp.Expr, select.parent)
        if not isinstance(place, exp.Subquery) or place.args.get("pivots"):
            break
    return terms


def _kept_by_joins(place: exp.Expr, select: exp.Select) -> bool:
    """Is a row of this table in the join only where the row itself is? Not on the side that is filled up with NULL."""
    joins: list[exp.Join] = select.args.get("joins") or []
    sides = [(join.side or "").upper() for join in joins]
    if isinstance(place.parent, exp.From):
        return place.parent.parent is select and not {"RIGHT", "FULL"} & set(sides)
    if isinstance(place.parent, exp.Join) and place.parent in joins:
        after = sides[joins.index(place.parent) + 1 :]
        return sides[joins.index(place.parent)] == "" and not {"RIGHT", "FULL"} & set(after)
    return False


def _on_keys(term: exp.Expr, alias: str, known: Mapping[str, str], alone: bool) -> exp.Expr | None:
    """A condition with the keys by their own names; None if it is about anything else."""
    columns = list(term.find_all(exp.Column))
    if not columns or term.find(exp.Query, exp.AggFunc, exp.Window, exp.Is, exp.Coalesce, exp.If, exp.Case, exp.Anonymous):
        return None
    if not all(_is(column, alias, known, alone) for column in columns):
        return None
    return term.transform(lambda node: exp.column(known[node.name.lower()]) if isinstance(node, exp.Column) else node)


def _is(column: exp.Column, alias: str, known: Mapping[str, str], alone: bool) -> bool:
    return column.name.lower() in known and (column.table.lower() == alias or (alone and not column.table))


def _passed_on(select: exp.Select, alias: str, known: Mapping[str, str], alone: bool) -> dict[str, str]:
    """The keys that come out of a SELECT as they went in, so that a condition on them outside is one inside."""
    if (
        select.args.get("limit")
        or select.args.get("offset")
        or select.args.get("distinct")
        or select.find(exp.Window, exp.Unnest)
    ):
        return {}
    group = select.args.get("group")
    if group is None and any(each.find(exp.AggFunc) for each in select.selects):
        return {}
    grouped = [each for each in group.expressions if isinstance(each, exp.Column)] if group else []
    if group and (
        len(grouped) != len(group.expressions) or any(group.args.get(kind) for kind in ("cube", "rollup", "grouping_sets"))
    ):
        return {}
    passed: dict[str, str] = {}
    for each in select.selects:
        column = each.unalias()
        if isinstance(each, exp.Star) and alone:
            passed |= known
        elif isinstance(column, exp.Column) and not isinstance(column.this, exp.Star) and _is(column, alias, known, alone):
            name = column.name.lower()
            if group is not None and name not in [by.name.lower() for by in grouped]:
                continue
            passed[each.alias_or_name.lower()] = known[name]
    return passed


def duckdb(query: exp.Query, views: Sequence[str], columns: Mapping[str, Mapping[str, str]]) -> str:
    """The query in DuckDB's words.

    Args:
        views: what stands for each of its `tables`, in their order.
        columns: of these views, with their types.

    Raises:
        QueryFailed: if it compares what Athena does not compare.
    """
    query = query.copy()
    for table, view in zip(tables(query), views, strict=True):
        alias = table.args.get("alias") or exp.TableAlias(this=exp.to_identifier(table.name.lower(), quoted=True))
        table.replace(exp.Table(this=exp.to_identifier(view, quoted=True), alias=alias, joins=table.args.get("joins")))
    for column in query.find_all(exp.Column):
        column.set("db", None)
        column.set("catalog", None)
    _name_the_nameless(query)
    sql_types.divide_integers(query, columns, ATHENA)
    if mixed := sql_types.mixed(query, columns, ATHENA):
        raise QueryFailed(f"TYPE_MISMATCH: line 1:1: Cannot apply operator to {mixed}")
    return query.sql("duckdb")


def _name_the_nameless(query: exp.Query) -> None:
    """Athena calls the columns that have no name _col0, _col1 and so on."""
    select = query
    while not isinstance(select, exp.Select):
        if isinstance(select, exp.SetOperation | exp.Subquery):
            select = cast(exp.Query, select.this)
        else:
            return
    for number, each in enumerate(select.selects):
        if not each.is_star and not isinstance(each, exp.Alias | exp.Column | exp.Dot):
            each.replace(exp.alias_(each.copy(), f"_col{number}", quoted=True))
