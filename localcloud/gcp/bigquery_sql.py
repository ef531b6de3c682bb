"""What the analyser has understood of a query, written for DuckDB.

The analyser gives every column a number, which is its name here, wherever it comes from: `c7`. Types are told, casts and
functions are found, so that nothing is guessed; what is not known here is refused by name.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from localcloud.gcp import bigquery_aggregates as aggregates
from localcloud.gcp import bigquery_functions as functions
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_calls import Call
from localcloud.gcp.bigquery_casts import cast
from localcloud.gcp.bigquery_conditions import Condition, Read, column
from localcloud.gcp.bigquery_types import quoted
from localcloud.gcp.zetasql_check import Node
from localcloud.service import NotHonoured, Refused

SETS = {
    "UNION_ALL": "UNION ALL",
    "UNION_DISTINCT": "UNION",
    "INTERSECT_DISTINCT": "INTERSECT",
    "EXCEPT_DISTINCT": "EXCEPT",
}
BOUNDS = {
    "UNBOUNDED_PRECEDING": "UNBOUNDED PRECEDING",
    "OFFSET_PRECEDING": "{} PRECEDING",
    "CURRENT_ROW": "CURRENT ROW",
    "OFFSET_FOLLOWING": "{} FOLLOWING",
    "UNBOUNDED_FOLLOWING": "UNBOUNDED FOLLOWING",
}
# Where columns are named that come from below, without an expression.
COLUMNS = {
    "SetOperationItem": ("output_column_list",),
    "InsertStmt": ("query_output_column_list",),
}
# Windows whose frame makes no difference, and must not be written.
FRAMELESS = ("row_number", "rank", "dense_rank", "percent_rank", "cume_dist", "ntile", "lag", "lead", "percentile_cont")


@dataclass
class Query:
    """A query for DuckDB. ordered: by which of its columns, for whoever writes the outermost SELECT."""

    sql: str
    order: str = ""


@dataclass
class Translation:
    """One statement while it is translated.

    place: what stands for a table in FROM, by its full name; columns: its columns by name, in order.
    """

    place: Callable[[str], str]
    columns: Callable[[str], Sequence[str]]
    parameters: Mapping[str, str]  # in DuckDB's words
    reads: list[Read] = field(default_factory=list)
    _with: list[str] = field(default_factory=list)
    _entries: dict[str, Node] = field(default_factory=dict)
    _written: set[str] = field(default_factory=set)
    _uses: Counter[str] = field(default_factory=Counter)
    _needed: set[int] = field(default_factory=set)
    _aliases: Any = field(default_factory=lambda: itertools.count(1))

    def begin(self, statement: Node) -> None:
        """Looks at the WITH clauses of a statement, wherever they stand, and at the columns that it needs."""
        for node in statement.walk():
            for lists in COLUMNS.get(node.kind, ()):
                self._needed |= {each.column_id for each in getattr(node, lists)}
            if node.kind in ("ColumnRef", "OutputColumn"):
                self._needed.add(node.column.column_id)
            if node.kind == "WithScan":
                if node.recursive:
                    raise NotHonoured("WITH RECURSIVE")
                for entry in node.with_entry_list:
                    self._entries[entry.with_query_name] = entry.with_subquery
                    self._needed |= {each.column_id for each in entry.with_subquery.column_list}
            elif node.kind == "WithRefScan":
                self._uses[node.with_query_name] += 1

    def finished(self, sql: str) -> str:
        """A statement with the WITH clauses that it has come to need."""
        return f"WITH {', '.join(self._with)} {sql}" if self._with else sql

    # Scans.

    def scan(self, node: Node, conditions: tuple[Condition, ...] = ()) -> str:
        """A SELECT with the columns of a scan by their numbers, in no order."""
        return self.query(node, conditions).sql

    def query(self, node: Node, conditions: tuple[Condition, ...] = ()) -> Query:
        self._no_hints(node)
        write = getattr(self, f"_{node.kind}", None)
        if write is None or not node.kind.endswith("Scan"):
            raise NotHonoured(f"{node.kind} in a query")
        found: Query | str = write(node, conditions)
        return found if isinstance(found, Query) else Query(found)

    def _no_hints(self, node: Node) -> None:
        if getattr(node, "hint_list", None):
            raise NotHonoured("hints in a query")

    def _from(self, sql: str) -> str:
        return f"({sql}) AS t{next(self._aliases)}"

    def _SingleRowScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        return "SELECT 1 AS nothing"

    def _TableScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        if node.for_system_time_expr is not None:
            raise NotHonoured("FOR SYSTEM_TIME AS OF")
        name = node.table.full_name
        known = self.columns(name)
        own = {each.column_id: known[at] for each, at in zip(node.column_list, node.column_index_list, strict=True)}
        kept = tuple(condition for condition in conditions if condition.columns <= own.keys())
        self.reads.append(Read(name, {number: own[number] for number in own if number in self._needed}, kept))
        items = _items(f"{quoted(label)} AS {column(number)}" for number, label in own.items())
        return f"SELECT {items} FROM {self.place(name)}"

    def _ProjectScan(self, node: Node, conditions: tuple[Condition, ...]) -> Query:
        inner = self.query(node.input_scan, conditions)
        computed = self._computed(node.expr_list)
        order = inner.order if node.is_ordered else ""
        shown = [each.column_id for each in node.column_list]
        items = [f"{computed[number]} AS {column(number)}" if number in computed else column(number) for number in shown]
        if order:  # what it is ordered by must come out, too
            passed = [each.column_id for each in node.input_scan.column_list if each.column_id not in shown]
            items += [column(number) for number in passed]
        return Query(f"SELECT {_items(items)} FROM {self._from(inner.sql)}", order)

    def _computed(self, computed: Sequence[Node]) -> dict[int, str]:
        return {each.column.column_id: self.expression(each.expr) for each in computed}

    def _FilterScan(self, node: Node, conditions: tuple[Condition, ...]) -> Query:
        terms = list(self.conjuncts(node.filter_expr))
        known = tuple(filter(None, (self.condition(term) for term in terms)))
        inner = self.query(node.input_scan, (*conditions, *known))
        where = " AND ".join(self.expression(term) for term in terms)
        # All columns of the input: a condition may use one that is not passed on, an order too.
        return Query(f"SELECT * FROM {self._from(inner.sql)} WHERE {where}", inner.order if node.is_ordered else "")

    def condition(self, term: Node) -> Condition | None:
        """A condition on columns and constants alone."""
        nodes = list(term.walk())
        if any(node.kind in ("SubqueryExpr", "AggregateFunctionCall", "AnalyticFunctionCall") for node in nodes):
            return None
        columns = frozenset(node.column.column_id for node in nodes if node.kind == "ColumnRef")
        return Condition(columns, self.expression(term)) if columns else None

    @staticmethod
    def conjuncts(node: Node | None) -> Iterator[Node]:
        """The conditions of which all must hold."""
        if node is not None and node.kind == "FunctionCall" and node.function.name == "ZetaSQL:$and":
            for each in node.argument_list:
                yield from Translation.conjuncts(each)
        elif node is not None:
            yield node

    def _JoinScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        if node.is_lateral:
            raise NotHonoured("LATERAL joins")
        kind = node.join_type
        terms = list(self.conjuncts(node.join_expr))
        on = tuple(filter(None, (self.condition(term) for term in terms)))
        # What is asked of a row of the join is asked of a row of its side, but where that may be filled up with NULL.
        left = {"INNER": (*conditions, *on), "LEFT": conditions, "RIGHT": on, "FULL": ()}[kind]
        right = {"INNER": (*conditions, *on), "LEFT": on, "RIGHT": conditions, "FULL": ()}[kind]
        tables = f"{self._from(self.scan(node.left_scan, left))} {kind if terms else 'CROSS'} JOIN"
        tables += f" {self._from(self.scan(node.right_scan, right))}"
        if not terms and kind != "INNER":
            raise NotHonoured(f"{kind} JOIN without a condition")
        written = " AND ".join(self.expression(term) for term in terms)
        return f"SELECT * FROM {tables}{f' ON {written}' if terms else ''}"

    def _ArrayScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        if len(node.array_expr_list) != 1 or node.array_zip_mode is not None:
            raise NotHonoured("UNNEST of several arrays")
        array = self.expression(node.array_expr_list[0])
        element = column(node.element_column_list[0].column_id)
        items = f"unnest({array}) AS {element}"
        if node.array_offset_column is not None:
            items += f", unnest(range(len({array}))) AS {column(node.array_offset_column.column.column_id)}"
        if node.input_scan is None:
            return f"SELECT {items}"
        on = self.expression(node.join_expr) if node.join_expr is not None else "true"
        inner = self._from(self.scan(node.input_scan, conditions))
        return (
            f"SELECT * FROM {inner} {'LEFT' if node.is_outer else 'INNER'} JOIN LATERAL {self._from(f'SELECT {items}')} ON {on}"
        )

    def _AggregateScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        groups = self._computed(node.group_by_list)
        keys = [column(number) for number in groups]
        names = {
            each.column.column_id: each.expr.column.column_id for each in node.group_by_list if each.expr.kind == "ColumnRef"
        }
        # A condition on a key is one on the rows, but where a grouping set leaves the key out.
        passed = [] if node.grouping_set_list else [each.renamed(names) for each in conditions]
        inner = self._from(self.scan(node.input_scan, tuple(filter(None, passed))))
        if groups:
            inner = self._from(f"SELECT *, {_items(f'{sql} AS {column(number)}' for number, sql in groups.items())} FROM {inner}")
        items = list(keys)
        items += [f"{self._aggregate(each.expr)} AS {column(each.column.column_id)}" for each in node.aggregate_list]
        items += [
            f"CAST(grouping({column(call.group_by_column.column.column_id)}) AS BIGINT) AS {column(call.output_column.column_id)}"
            for call in node.grouping_call_list
        ]
        by = f" GROUP BY {', '.join(keys)}" if keys else ""
        if node.grouping_set_list:
            by = f" GROUP BY GROUPING SETS ({', '.join(self._grouping_set(each) for each in node.grouping_set_list)})"
        return f"SELECT {_items(items)} FROM {inner}{by}"

    def _grouping_set(self, node: Node) -> str:
        if node.kind != "GroupingSet":
            raise NotHonoured(f"GROUP BY {node.kind.upper()}")
        return f"({', '.join(column(each.column.column_id) for each in node.group_by_column_list)})"

    def _AnalyticScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        partitioned: list[set[int]] = []
        items = []
        for group in node.function_group_list:
            by = group.partition_by.partition_by_list if group.partition_by is not None else []
            partitioned.append({each.column.column_id for each in by if each.kind == "ColumnRef"})
            window = f"PARTITION BY {', '.join(self.expression(each) for each in by)}" if by else ""
            order = self._order(group.order_by.order_by_item_list) if group.order_by is not None else ""
            for each in group.analytic_function_list:
                items.append(f"{self._window(each.expr, window, order)} AS {column(each.column.column_id)}")
        # Whoever leaves rows out of a window changes it, but whole partitions.
        common = set.intersection(*partitioned) if partitioned else set()
        passed = tuple(each for each in conditions if each.columns <= common)
        return f"SELECT *, {_items(items)} FROM {self._from(self.scan(node.input_scan, passed))}"

    def _OrderByScan(self, node: Node, conditions: tuple[Condition, ...]) -> Query:
        return Query(self.scan(node.input_scan, conditions), self._order(node.order_by_item_list))

    def _LimitOffsetScan(self, node: Node, conditions: tuple[Condition, ...]) -> Query:
        inner = self.query(node.input_scan)
        sql = f"SELECT * FROM {self._from(inner.sql)}{inner.order} LIMIT {self.expression(node.limit)}"
        if node.offset is not None:
            sql += f" OFFSET {self.expression(node.offset)}"
        return Query(sql, inner.order)

    def _SetOperationScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        if node.column_match_mode != "BY_POSITION" or node.op_type not in SETS:
            raise NotHonoured(f"{node.op_type.replace('_', ' ')} of this kind")
        own = [each.column_id for each in node.column_list]
        parts = []
        for item in node.input_item_list:
            given = [each.column_id for each in item.output_column_list]
            passed = tuple(filter(None, (each.renamed(dict(zip(own, given, strict=True))) for each in conditions)))
            named = _items(f"{column(there)} AS {column(here)}" for here, there in zip(own, given, strict=True))
            parts.append(f"(SELECT {named} FROM {self._from(self.scan(item.scan, passed))})")
        return f" {SETS[node.op_type]} ".join(parts)

    def _WithScan(self, node: Node, conditions: tuple[Condition, ...]) -> Query:
        return self.query(node.query, conditions)

    def _WithRefScan(self, node: Node, conditions: tuple[Condition, ...]) -> str:
        name = node.with_query_name
        entry = self._entries[name]
        own = [each.column_id for each in node.column_list]
        there = [each.column_id for each in entry.column_list]
        if name not in self._written:
            self._written.add(name)
            names = dict(zip(own, there, strict=True))
            # Rows that do not matter here may matter to another who reads it.
            passed = [each.renamed(names) for each in conditions] if self._uses[name] == 1 else []
            inner = self.query(entry, tuple(filter(None, passed)))
            self._with.append(f"{quoted(f'with_{name}')} AS ({inner.sql})")
        named = _items(f"{column(inside)} AS {column(outside)}" for outside, inside in zip(own, there, strict=True))
        return f"SELECT {named} FROM {quoted(f'with_{name}')}"

    # Expressions.

    def expression(self, node: Node) -> str:
        write = getattr(self, f"_{node.kind}", None)
        if write is None or node.kind.endswith("Scan"):
            raise NotHonoured(f"{node.kind} in an expression")
        return str(write(node))

    def _Literal(self, node: Node) -> str:
        value = node.value
        return types.literal(node.type, value.value if value is not None and value.HasField("value") else None)

    def _Parameter(self, node: Node) -> str:
        if not node.name or node.name.lower() not in self.parameters:
            raise Refused("invalidQuery", f"Query parameter '{node.name}' not found", 400)
        return self.parameters[node.name.lower()]

    def _ColumnRef(self, node: Node) -> str:
        return column(node.column.column_id)

    def _Cast(self, node: Node) -> str:
        if node.format is not None or node.time_zone is not None or node.extended_cast is not None:
            raise NotHonoured("CAST with FORMAT or a time zone")
        value, known = self.expression(node.expr), node.expr.kind in ("Literal", "Parameter")
        source, target = types.name_of(node.expr.type), types.name_of(node.type)
        if node.expr.kind == "Literal" and constant(node.expr) is None:
            return types.literal(node.type, None)
        return f"({cast(value, source, target, types.duckdb_of(node.type), node.return_null_on_error, known)})"

    def _FunctionCall(self, node: Node) -> str:
        written = functions.written(self._call(node))
        return f"TRY({written})" if node.error_mode == "SAFE_ERROR_MODE" else written

    def _call(self, node: Node) -> Call:
        if node.generic_argument_list:
            raise NotHonoured(f"lambdas and the like in {node.function.name}")
        if node.collation_list:
            raise NotHonoured("collation")
        arguments = node.argument_list
        return Call(
            name=node.function.name.removeprefix("ZetaSQL:"),
            args=tuple(self.expression(each) for each in arguments),
            kinds=tuple(types.name_of(each.type) for each in arguments),
            constants=tuple(constant(each) for each in arguments),
            result=node.type,
            safe=node.error_mode == "SAFE_ERROR_MODE",
        )

    def _aggregate(self, node: Node, over: str = "") -> str:
        if node.kind == "AggregateFunctionCall":
            extra: tuple[Any, ...] = (node.having_modifier, node.having_expr, node.group_by_list or None)
            order, limit = self._order(node.order_by_item_list), node.limit
        else:
            extra, order, limit = (), "", None
        if any(each is not None for each in (*extra, node.where_expr)) or node.error_mode == "SAFE_ERROR_MODE":
            raise NotHonoured(f"{node.function.name.removeprefix('ZetaSQL:').upper()} with HAVING, WHERE, GROUP BY or SAFE")
        asked = aggregates.Aggregate(
            self._call(node),
            distinct=node.distinct,
            ignore_nulls=node.null_handling_modifier == "IGNORE_NULLS",
            order=order,
            limit=constant(limit) if limit is not None else None,
            over=over,
        )
        return aggregates.written(asked)

    def _window(self, node: Node, partition: str, order: str) -> str:
        name = node.function.name.removeprefix("ZetaSQL:")
        frame = self._frame(node.window_frame) if node.window_frame is not None and name not in FRAMELESS else ""
        over = f"OVER ({' '.join(filter(None, (partition, order, frame)))})"
        call = self._call(node)
        ignores = node.null_handling_modifier == "IGNORE_NULLS"
        if own := aggregates.windowed(name, call.args, ignores):
            if node.distinct or node.where_expr is not None:
                raise NotHonoured(f"{name.upper()} with DISTINCT or WHERE")
            return f"{own} {over}"
        return self._aggregate(node, over)

    def _frame(self, frame: Node) -> str:
        bounds = []
        for bound in (frame.start_expr, frame.end_expr):
            offset = self.expression(bound.expression) if bound.expression is not None else ""
            bounds.append(BOUNDS[bound.boundary_type].format(offset))
        return f"{frame.frame_unit} BETWEEN {bounds[0]} AND {bounds[1]}"

    def _order(self, items: Sequence[Node]) -> str:
        """ORDER BY as BigQuery has it: NULLs come first, then NaN, then the least number."""
        keys = []
        for item in items:
            if item.collation_name is not None:
                raise NotHonoured("COLLATE")
            key, down = self.expression(item.column_ref), item.is_descending
            nulls = {"NULLS_FIRST": "FIRST", "NULLS_LAST": "LAST"}.get(item.null_order, "LAST" if down else "FIRST")
            if types.name_of(item.column_ref.type) == "FLOAT":
                keys.append(f"isnan({key}) {'ASC' if down else 'DESC'} NULLS {nulls}")
            keys.append(f"{key} {'DESC' if down else 'ASC'} NULLS {nulls}")
        return f" ORDER BY {', '.join(keys)}" if keys else ""

    def _SubqueryExpr(self, node: Node) -> str:
        inner = self.query(node.subquery)
        kind = node.subquery_type
        if kind == "EXISTS":
            return f"EXISTS ({inner.sql})"
        only = column(node.subquery.column_list[0].column_id)
        chosen = f"SELECT {only} FROM {self._from(inner.sql)}"
        if kind == "SCALAR":
            return f"({chosen}{inner.order})"
        if kind == "IN":
            return f"({self.expression(node.in_expr)} IN ({chosen}))"
        if kind == "ARRAY":
            return f"coalesce((SELECT list({only}{inner.order}) FROM {self._from(inner.sql)}), [])"
        raise NotHonoured(f"subqueries of the kind {kind}")

    def _MakeStruct(self, node: Node) -> str:
        names = [name for name, _ in types.struct_fields(node.type)]
        values = [self.expression(each) for each in node.field_list]
        return "{" + ", ".join(f"{types.text(name)}: {value}" for name, value in zip(names, values, strict=True)) + "}"

    def _GetStructField(self, node: Node) -> str:
        name, _ = types.struct_fields(node.expr.type)[node.field_idx]
        return f"struct_extract({self.expression(node.expr)}, {types.text(name)})"

    def _DMLDefault(self, node: Node) -> str:
        return types.literal(node.type, None)

    def _DMLValue(self, node: Node) -> str:
        return self.expression(node.value)


def _items(items: Any) -> str:
    return ", ".join(items) or "1 AS nothing"


def constant(node: Node) -> Any:
    """A literal's value, as far as the functions ask for it; None for anything else."""
    if node.kind != "Literal" or node.value is None or not node.value.HasField("value"):
        return None
    member = node.value.value.WhichOneof("value")
    return getattr(node.value.value, member) if member else None


def outermost(translation: Translation, node: Node, columns: Sequence[tuple[int, str]]) -> str:
    """A scan as a whole statement, its columns named, in its order."""
    inner = translation.query(node)
    named = _items(f"{column(number)} AS {quoted(name)}" for number, name in columns)
    return translation.finished(f"SELECT {named} FROM ({inner.sql}) AS answer{inner.order}")


def output_names(outputs: Sequence[Node]) -> list[tuple[int, str]]:
    """The columns of an answer as BigQuery names them: f0_, f1_ ... those without a name.

    Raises:
        Refused: if two have the same name.
    """
    nameless = itertools.count()
    named = []
    for output in outputs:
        name = output.name
        named.append((output.column.column_id, f"f{next(nameless)}_" if name.startswith("$") else name))
    counted = Counter(name.lower() for _, name in named)
    if twice := [name for name, count in counted.items() if count > 1]:
        raise Refused(
            "invalidQuery", f"Duplicate column names in the result are not supported. Found duplicate(s): {', '.join(twice)}", 400
        )
    return named
