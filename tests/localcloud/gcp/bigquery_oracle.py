"""Asks Google's reference implementation and the local BigQuery the same: run by the interpreter of the local cloud.

Reads expressions of SQL from stdin as a JSON list; writes for each [what the reference says, what the local cloud says], values
as BigQuery writes them as text, `error` for an error, and the reason for what is not honoured.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from localcloud.gcp import bigquery_results, bigquery_statements, zetasql_check
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_tables import Session, Store
from localcloud.service import NotHonoured, Refused

TOGETHER = 25  # expressions that are asked for by one query, as long as none fails


def main() -> None:
    store = Store(Path(tempfile.mkdtemp()), "project")
    asked = json.load(sys.stdin)
    found: list[list[Any]] = []
    with store.connected() as session:
        for begin in range(0, len(asked), TOGETHER):
            some = asked[begin : begin + TOGETHER]
            both = [_all_or_each(session, ask, some) for ask in (_reference, _local)]
            found += [list(pair) for pair in zip(*both, strict=True)]
    json.dump(found, sys.stdout)


def _all_or_each(session: Session, ask: Callable[[Session, str], list[Any]], expressions: list[str]) -> list[Any]:
    try:
        return ask(session, _query(expressions))
    except Refused:
        return [_one(session, ask, expression) for expression in expressions]


def _one(session: Session, ask: Callable[[Session, str], list[Any]], expression: str) -> Any:
    try:
        return ask(session, _query([expression]))[0]
    except NotHonoured as error:
        return f"not honoured: {error.message}"
    except Refused:
        return "error"


def _query(expressions: list[str]) -> str:
    # From a table, lest anything is known before the query is run.
    return f"SELECT {', '.join(f'{each} AS x{number}' for number, each in enumerate(expressions))} FROM (SELECT 1) AS one"


def _reference(session: Session, sql: str) -> list[Any]:
    cells = zetasql_check.evaluated(sql)
    outputs = zetasql_check.analysed(sql, {}, {}).output_column_list
    kinds = [output.column.type for output in outputs]
    return [_shown(session, types.literal(kind, cell), kind) for kind, cell in zip(kinds, cells, strict=True)]


def _local(session: Session, sql: str) -> list[Any]:
    with session.reading():
        statement = bigquery_statements.prepared(session, {"query": sql})
        bigquery_statements.answered(session, statement, "answer_")
        row = session.first("SELECT * FROM answer_")
    assert row is not None
    return [bigquery_results.value(each, field, whole=True) for each, field in zip(row, statement.fields, strict=True)]


def _shown(session: Session, literal: str, kind: Any) -> Any:
    row = session.first(f"SELECT {literal}")
    assert row is not None
    return bigquery_results.value(row[0], types.field_of("x", kind), whole=True)


main()
