"""INSERT, UPDATE, DELETE and MERGE: first it is found which row becomes what, then it is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from localcloud.gcp.bigquery_conditions import column
from localcloud.gcp.bigquery_sql import Translation
from localcloud.gcp.bigquery_tables import Session, Table
from localcloud.gcp.bigquery_types import quoted
from localcloud.gcp.zetasql_check import Node
from localcloud.service import NotHonoured, Refused

Kind = Literal["insert", "update", "delete"]


@dataclass(frozen=True)
class Clause:
    """What is done with the rows that were found for it. values: what the columns become, in DuckDB's words."""

    kind: Kind
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    when: str = "true"


@dataclass
class Changes:
    """A SELECT of the rows that change: `row_` of the table, NULL for a new one, and `clause_`, the number of its clause."""

    found: str
    clauses: list[Clause]
    counts: dict[Kind, int] = field(default_factory=dict)

    @property
    def affected(self) -> int:
        return sum(self.counts.values())


def translated(statement: Node, table: Table, translation: Translation) -> Changes:
    """What a statement changes.

    Raises:
        NotHonoured: if it is not done here.
    """
    if getattr(statement, "returning", None) is not None or getattr(statement, "assert_rows_modified", None) is not None:
        raise NotHonoured("RETURNING and ASSERT_ROWS_MODIFIED")
    write = {"InsertStmt": _insert, "UpdateStmt": _update, "DeleteStmt": _delete, "MergeStmt": _merge}[statement.kind]
    return write(statement, table, translation)


def _insert(statement: Node, table: Table, translation: Translation) -> Changes:
    if statement.insert_mode != "OR_ERROR" or statement.on_conflict_clause is not None:
        raise NotHonoured(f"INSERT {statement.insert_mode}")
    names = tuple(each.name for each in statement.insert_column_list)
    if statement.query is not None:
        values = tuple(column(each.column_id) for each in statement.query_output_column_list)
        inner = translation.scan(statement.query)
        found = f"SELECT NULL AS row_, 0 AS clause_, * FROM ({inner}) AS given"
        return Changes(translation.finished(found), [Clause("insert", names, values)])
    values = tuple(f"v{number}_" for number in range(len(names)))
    rows = []
    for row in statement.row_list:
        shown = [f"{translation.expression(each)} AS {name}" for each, name in zip(row.value_list, values, strict=True)]
        rows.append(f"SELECT NULL AS row_, 0 AS clause_, {', '.join(shown)}")
    return Changes(translation.finished(" UNION ALL ".join(rows)), [Clause("insert", names, values)])


def _target(scan: Node, table: Table, translation: Translation, where: Sequence[Node] = ()) -> str:
    """The table's own rows with what tells them apart."""
    conditions = tuple(filter(None, (translation.condition(each) for each in where)))
    inner = translation.scan(scan, conditions)
    return inner.replace("SELECT ", "SELECT rowid AS row_, ", 1)


def _delete(statement: Node, table: Table, translation: Translation) -> Changes:
    terms = list(translation.conjuncts(statement.where_expr))
    inner = _target(statement.table_scan, table, translation, terms)
    where = translation.expression(statement.where_expr)
    found = f"SELECT *, 0 AS clause_ FROM ({inner}) AS own WHERE {where}"
    return Changes(translation.finished(found), [Clause("delete")])


def _update(statement: Node, table: Table, translation: Translation) -> Changes:
    terms = list(translation.conjuncts(statement.where_expr))
    tables = f"({_target(statement.table_scan, table, translation, terms)}) AS own"
    if statement.from_scan is not None:
        tables += f", ({translation.scan(statement.from_scan)}) AS other"
    names, expressions = _assigned(statement.update_item_list, translation)
    values = tuple(f"v{number}_" for number in range(len(names)))
    shown = ", ".join(f"{each} AS {name}" for each, name in zip(expressions, values, strict=True))
    found = f"SELECT row_, 0 AS clause_, {shown} FROM {tables} WHERE {translation.expression(statement.where_expr)}"
    return Changes(translation.finished(found), [Clause("update", names, values)])


def _assigned(items: Sequence[Node], translation: Translation) -> tuple[tuple[str, ...], tuple[str, ...]]:
    for item in items:
        if item.target.kind != "ColumnRef" or item.set_value is None:
            raise NotHonoured("SET of a part of a column")
    return tuple(item.target.column.name for item in items), tuple(translation.expression(item.set_value) for item in items)


def _merge(statement: Node, table: Table, translation: Translation) -> Changes:
    own = f"({_target(statement.table_scan, table, translation, list(translation.conjuncts(statement.merge_expr)))}) AS own"
    other = f"(SELECT *, true AS given_ FROM ({translation.scan(statement.from_scan)}) AS source) AS other"
    clauses = list(_merge_clauses(statement.when_clause_list, translation))
    on = translation.expression(statement.merge_expr)
    cases = " ".join(f"WHEN {clause.when} THEN {number}" for number, clause in enumerate(clauses))
    inner = f"SELECT *, CASE {cases} END AS clause_ FROM {own} FULL JOIN {other} ON {on}"
    shown = [
        f"CASE WHEN clause_ = {number} THEN {value} END AS v{number}_{place}_"
        for number, clause in enumerate(clauses)
        for place, value in enumerate(clause.values)
    ]
    found = f"SELECT {', '.join(['row_', 'clause_', *shown])} FROM ({inner}) AS met WHERE clause_ IS NOT NULL"
    named = [
        Clause(clause.kind, clause.columns, tuple(f"v{number}_{place}_" for place in range(len(clause.values))))
        for number, clause in enumerate(clauses)
    ]
    return Changes(translation.finished(found), named)


def _merge_clauses(whens: Sequence[Node], translation: Translation) -> Iterator[Clause]:
    sides = {
        "MATCHED": "row_ IS NOT NULL AND given_",
        "NOT_MATCHED_BY_SOURCE": "row_ IS NOT NULL AND given_ IS NULL",
        "NOT_MATCHED_BY_TARGET": "row_ IS NULL",
    }
    for when in whens:
        condition = sides[when.match_type]
        if when.match_expr is not None:
            condition += f" AND {translation.expression(when.match_expr)}"
        if when.action_type == "INSERT":
            names = tuple(each.name for each in when.insert_column_list)
            yield Clause("insert", names, tuple(translation.expression(each) for each in when.insert_row.value_list), condition)
        elif when.action_type == "UPDATE":
            yield Clause("update", *_assigned(when.update_item_list, translation), condition)
        else:
            yield Clause("delete", when=condition)


def applied(session: Session, table: Table, changes: Changes) -> None:
    """Does what was found, within the transaction of the session.

    Raises:
        Refused: if a row would be changed twice.
    """
    session.sql.execute(f"CREATE OR REPLACE TEMP TABLE changes_ AS {changes.found}")
    place = table.name.place
    if session.first("SELECT 1 FROM changes_ WHERE row_ IS NOT NULL GROUP BY row_ HAVING count(*) > 1 LIMIT 1"):
        raise Refused("invalidQuery", "UPDATE/MERGE must match at most one source row for each target row", 400)
    touched = _ids(
        session, f"SELECT DISTINCT {table.partition_sql} FROM {place} WHERE rowid IN (SELECT row_ FROM changes_ WHERE row_ >= 0)"
    )
    by_kind = sorted(enumerate(changes.clauses), key=lambda pair: ("delete", "update", "insert").index(pair[1].kind))
    for number, clause in by_kind:
        touched |= _new_days(session, table, number, clause)
        done: Any = session.first(_statement(place, number, clause))
        changes.counts[clause.kind] = changes.counts.get(clause.kind, 0) + int(done[0] if done else 0)
    session.sql.execute("DROP TABLE changes_")
    session.touched(table, touched)


def _statement(place: str, number: int, clause: Clause) -> str:
    chosen = f"FROM changes_ WHERE clause_ = {number}"
    if clause.kind == "delete":
        return f"DELETE FROM {place} WHERE rowid IN (SELECT row_ {chosen})"
    if clause.kind == "update":
        pairs = zip(clause.columns, clause.values, strict=True)
        return (
            f"UPDATE {place} SET {', '.join(f'{quoted(name)} = chosen.{value}' for name, value in pairs)}"
            f" FROM (SELECT * {chosen}) AS chosen WHERE chosen.row_ = {place}.rowid"
        )
    return f"INSERT INTO {place} ({', '.join(map(quoted, clause.columns))}) SELECT {', '.join(clause.values)} {chosen}"


def _new_days(session: Session, table: Table, number: int, clause: Clause) -> set[str]:
    """The partitions into which rows come."""
    if clause.kind == "delete":
        return set()
    given = dict(zip((name.lower() for name in clause.columns), clause.values, strict=True))
    value = given.get(table.day.lower()) if table.day else None
    if value is None and (clause.kind == "update" or not table.day):
        return set() if table.day or clause.kind == "update" else {""}
    inner = f"SELECT {value or 'NULL'} AS {quoted(table.day)} FROM changes_ WHERE clause_ = {number}"
    return _ids(session, f"SELECT DISTINCT {table.partition_sql} FROM ({inner})")


def _ids(session: Session, sql: str) -> set[str]:
    return {str(row[0]) for row in session.sql.execute(sql).fetchall()}
