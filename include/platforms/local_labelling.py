"""The label queue of the embedded platform: a folder of the lake for each request.

label_queue/<model>/<request>/rows.parquet                      what is asked for: key, partition_date, score, band, population
label_queue/<model>/<request>/answers.parquet (or .csv), _SUCCESS    what was answered: key and label; the marker comes last
"""

from __future__ import annotations

import glob
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.filesystem import FileSensor

from include import labelling, monitoring_sql, partitions
from include.config import ModelConfig, settings
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms.local_training import manifest_of

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

ROWS = "rows.parquet"
MARKER = "{{ ti.xcom_pull(task_ids='queue_labels')['marker'] }}"


@model_task
def queue_labels(model: ModelConfig, asked: dict[str, Any]) -> dict[str, Any]:
    """Draw the rows that are to be labelled. They are drawn once: labels that come meanwhile do not change what was asked."""
    place = _folder(model, asked["request"])
    if not (place / ROWS).is_file():
        first, last = partitions.parse(asked["first"]), partitions.parse(asked["last"])
        edges = labelling.bands(manifest_of(model, asked["version"])["reference"]["score"]["edges"])
        strata = ((last - first).days + 1) * (len(edges) + 1)
        query = monitoring_sql.label_sample(
            model,
            engine.DIALECT,
            engine.tables(model),
            engine.predictions(model),
            asked["version"]["version"],
            edges,
            max(1, asked["rows"] // strata),
            asked["request"],
        )
        with engine.connected() as connection:
            engine.write(connection, query, {"first_partition": first, "last_partition": last}, place / ROWS)
    with engine.connected() as connection:
        rows = engine.value(connection, f"SELECT count(*) FROM {engine.parquet(str(place / ROWS))}")
    log.info(f"{rows} rows wait for their labels: {place / ROWS}; answers go beside them, {lake.MARKER} comes last")
    return {"rows": rows, "place": str(place), "marker": glob.escape(str(place / lake.MARKER))}


def await_labels(model: ModelConfig) -> BaseOperator:
    return FileSensor(
        task_id="await_labels",
        filepath=MARKER,
        deferrable=True,
        poke_interval=10,
        timeout=model.labelling.wait_days * 86400,
        doc_md="Waits, without holding a worker, until the answers are there: their marker comes last.",
    )


def label_answers(model: ModelConfig, request: str) -> list[dict[str, Any]]:
    """See `platforms.base.Platform`."""
    place, key = _folder(model, request), model.source.key
    with engine.connected() as connection:
        answers = _answers(connection, place, key)
        connection.execute(f"CREATE TEMP VIEW answers AS SELECT * FROM {answers}")
        connection.execute(f"CREATE TEMP VIEW asked AS SELECT * FROM {engine.parquet(str(place / ROWS))}")
        _refuse(connection, key, model.task, place)
        found = connection.execute(
            f"SELECT asked.partition_date AS partition, score, band, population, TRY_CAST(label AS DOUBLE) AS label "
            f'FROM asked LEFT JOIN answers ON CAST(asked."{key}" AS VARCHAR) = CAST(answers."{key}" AS VARCHAR) ORDER BY ALL'
        )
        names = [column[0] for column in found.description or []]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _answers(connection: DuckDBPyConnection, place: Path, key: str) -> str:
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
        raise ValueError(f"{place}: put one of {' and '.join(tables)} there before {lake.MARKER}; there is {there or 'none'}")
    table = tables[there[0]]
    columns = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {table}").fetchall()}
    if missing := {key, "label"} - columns:
        raise ValueError(f"{place / there[0]}: has no column {', '.join(sorted(missing))}; it needs {key} and label")
    return table


def _refuse(connection: DuckDBPyConnection, key: str, task: str, place: Path) -> None:
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
            raise ValueError(f"{place}: {found[0]!r} {told}; mend the answers and clear this task")


def _folder(model: ModelConfig, request: str) -> Path:
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}\.v[0-9]{5}", request):
        raise ValueError(f"{request!r} is no label request: they are named like 2013-04-01.v00001")
    return settings().lake / "label_queue" / model.name / request
