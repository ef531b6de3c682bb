"""The label queue of the embedded platform: a folder of the lake for each request.

label_queue/<model>/<request>/rows.parquet                      what is asked for: key, partition_date, score, band, population
label_queue/<model>/<request>/answers.parquet (or .csv), _SUCCESS    what was answered: key and label; the marker comes last
"""

from __future__ import annotations

import glob
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.filesystem import FileSensor

from include import labelling, monitoring_sql, partitions
from include.config import ModelConfig, settings
from include.model_task import model_task
from include.platforms import label_files, lake
from include.platforms import local_engine as engine
from include.platforms.local_training import manifest_of

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator

log = logging.getLogger(__name__)

MARKER = "{{ ti.xcom_pull(task_ids='queue_labels')['marker'] }}"


@model_task
def queue_labels(model: ModelConfig, asked: dict[str, Any]) -> dict[str, Any]:
    """Draw the rows that are to be labelled. They are drawn once: labels that come meanwhile do not change what was asked."""
    place = _folder(model, asked["request"])
    if not (place / label_files.ROWS).is_file():
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
            engine.write(connection, query, {"first_partition": first, "last_partition": last}, place / label_files.ROWS)
    with engine.connected() as connection:
        rows = engine.value(connection, f"SELECT count(*) FROM {engine.parquet(str(place / label_files.ROWS))}")
    log.info(f"{rows} rows wait for their labels: {place / label_files.ROWS}; answers go beside them, {lake.MARKER} comes last")
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
    place = _folder(model, request)
    return label_files.read(model, place, str(place))


def _folder(model: ModelConfig, request: str) -> Path:
    label_files.check_request(request)
    return settings().lake / "label_queue" / model.name / request
