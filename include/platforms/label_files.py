"""Answers to a label request, in a folder: what was asked for, and what was answered.

rows.parquet                      key, partition_date, score, band, population
answers.parquet or answers.csv    key and label
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.config import ModelConfig
from include.platforms import local_engine as engine

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROWS = "rows.parquet"
ANSWERS = ("answers.parquet", "answers.csv")


def check_request(request: str) -> None:
    """
    Raises:
        ValueError: if it cannot be the name of a label request, and so no part of a path.
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.v[0-9]{5}", request):
        raise ValueError(f"{request!r} is no label request: they are named like 2013-04-01.v00001")


def read(model: ModelConfig, place: Path, shown: str) -> list[dict[str, Any]]:
    """What was asked for, with the answers: partition, score, band, population, label (None: not answered).

    Args:
        shown: how the folder is called in errors.

    Raises:
        ValueError: naming what is wrong with the answers.
    """
    key = model.source.key
    with engine.connected() as connection:
        answers = _answers(connection, place, key, shown)
        connection.execute(f"CREATE TEMP VIEW answers AS SELECT * FROM {answers}")
        connection.execute(f"CREATE TEMP VIEW asked AS SELECT * FROM {engine.parquet(str(place / ROWS))}")
        _refuse(connection, key, model.task, shown)
        found = connection.execute(
            f"SELECT asked.partition_date AS partition, score, band, population, TRY_CAST(label AS DOUBLE) AS label "
            f'FROM asked LEFT JOIN answers ON CAST(asked."{key}" AS VARCHAR) = CAST(answers."{key}" AS VARCHAR) ORDER BY ALL'
        )
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _answers(connection: DuckDBPyConnection, place: Path, key: str, shown: str) -> str:
    """How the answers are read.

    Raises:
        ValueError: if there are none, or they lack a column.
    """
    tables = {
        "answers.parquet": engine.parquet(str(place / "answers.parquet")),
        "answers.csv": f"read_csv({engine.text(str(place / 'answers.csv'))}, header = true, all_varchar = true)",
    }
    there = [name for name in tables if (place / name).is_file()]
    if len(there) != 1:
        raise ValueError(f"{shown}: put one of {' and '.join(tables)} there before _SUCCESS; there is {there or 'none'}")
    table = tables[there[0]]
    columns = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
    if missing := {key, "label"} - columns:
        raise ValueError(f"{shown}/{there[0]}: has no column {', '.join(sorted(missing))}; it needs {key} and label")
    return table


def _refuse(connection: DuckDBPyConnection, key: str, task: str, shown: str) -> None:
    """Answers that cannot be believed.

    Raises:
        ValueError: naming the first of them.
    """
    possible = "IN (0, 1)" if task == "classification" else "BETWEEN -1.7976931348623157e308 AND 1.7976931348623157e308"
    wrong = {
        "is answered twice": f'SELECT "{key}" FROM answers GROUP BY 1 HAVING count(*) > 1',
        "was not asked for": (
            f'SELECT "{key}" FROM answers ANTI JOIN asked ON CAST(answers."{key}" AS VARCHAR) = CAST(asked."{key}" AS VARCHAR) '
            f'WHERE "{key}" IS NOT NULL'
        ),
        f"has a label that is not {'0 or 1' if task == 'classification' else 'a finite number'}": (
            f'SELECT "{key}" FROM answers WHERE label IS NOT NULL AND NOT coalesce(TRY_CAST(label AS DOUBLE) {possible}, false)'
        ),
        "has no key": f"SELECT 'a row' FROM answers WHERE \"{key}\" IS NULL",
    }
    for told, query in wrong.items():
        if found := connection.execute(f"{query} LIMIT 1").fetchone():
            raise ValueError(f"{shown}: {found[0]!r} {told}; mend the answers and clear this task")
