"""The label queue on S3: a folder of the lake for each request.

label_queue/<model>/<request>/rows/*.parquet                       what is asked for
label_queue/<model>/<request>/answers.parquet (or .csv), _SUCCESS  what was answered: key and label; the marker comes last
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.amazon.aws.sensors.s3 import S3KeySensor
from airflow.sdk import TaskGroup

from include import labelling, monitoring_sql, partitions
from include.config import ModelConfig
from include.model_task import Read, model_task
from include.platforms import label_files
from include.platforms.aws import lake, models, requests, tables
from include.platforms.aws.jobs import AthenaQuery
from include.platforms.aws.settings import aws
from include.platforms.steps import steps

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

MARKER = "{{ ti.xcom_pull(task_ids='queue_labels.facts')['marker'] }}"


def queue_labels(model: ModelConfig, request: XComArg) -> XComArg:
    with TaskGroup("queue_labels") as group:
        planned = model_task(plan_queue, task_id="plan")(model, request)
        drawn = AthenaQuery(task_id="draw", model=model, step="labels", request=Read(planned, "draw"))
        counted = AthenaQuery(
            task_id="count", model=model, step="count_labels", request=Read(planned, "count"), after=[drawn.output]
        )
        facts = model_task(queued, task_id="facts")(model, request, planned, counted.output)
    return steps(group, planned, drawn, counted, facts)


def plan_queue(model: ModelConfig, asked: dict[str, Any]) -> dict[str, Any]:
    """The statement that draws the rows that are to be labelled; a request that is made again is the same draw."""
    first, last = partitions.parse(asked["first"]), partitions.parse(asked["last"])
    edges = labelling.bands(models.manifest_of(model, asked["version"])["reference"]["score"]["edges"])
    strata = ((last - first).days + 1) * (len(edges) + 1)
    query = monitoring_sql.label_sample(
        model,
        tables.DIALECT,
        tables.of(model),
        tables.named(tables.predictions(model)),
        asked["version"]["version"],
        edges,
        max(1, asked["rows"] // strata),
        asked["request"],
    )
    select = tables.bound(query, {"first_partition": first, "last_partition": last})
    run = {"partition": asked["last"], "run_id": asked["run_id"]}
    name = f"{model.name}_labels_{asked['request'].replace('-', '').replace('.', '_')}"
    table = tables.new(name, f"{_folder(model, asked['request'])}/rows")
    # Drawn once: labels that come meanwhile do not change what was asked.
    draw = requests.query(
        model, "labels", run, tables.create_as(table, select, one_file_by=model.source.key), asked["request"], table
    )
    count = requests.query(model, "count_labels", run, f'SELECT COUNT(*) AS "rows" FROM {tables.named(name)}', asked["request"])
    return {"draw": draw, "count": count, "table": name}


def queued(model: ModelConfig, asked: dict[str, Any], planned: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many rows wait, and where their answers go."""
    (row,) = tables.answer(counted["ref"])
    folder = _folder(model, asked["request"])
    place, marker = tables.location(planned["table"]), f"{folder}/{lake.MARKER}"
    log.info("%s rows wait for their labels: %s; answers go to %s, %s comes last", row["rows"], place, folder, lake.MARKER)
    return {"rows": int(row["rows"] or 0), "place": folder, "marker": marker, "table": planned["table"]}


def await_labels(model: ModelConfig) -> BaseOperator:
    return S3KeySensor(
        task_id="await_labels",
        bucket_key=MARKER,
        aws_conn_id=aws().connection,
        deferrable=True,
        poke_interval=aws().seconds,
        timeout=model.labelling.wait_days * 86400,
        doc_md="Waits, without holding a worker, until the answers are there: their marker comes last.",
    )


def label_answers(model: ModelConfig, request: str) -> list[dict[str, Any]]:
    """See `platforms.base.Platform`."""
    folder = _folder(model, request)
    asked = tables.location(f"{model.name}_labels_{request.replace('-', '').replace('.', '_')}")
    with tempfile.TemporaryDirectory(prefix="labels-") as here:
        place = Path(here)
        (rows,) = lake.data(asked)
        (place / label_files.ROWS).write_bytes(lake.read(rows.uri))
        for name in label_files.ANSWERS:
            if lake.exists(f"{folder}/{name}"):
                (place / name).write_bytes(lake.read(f"{folder}/{name}"))
        return label_files.read(model, place, folder)


def _folder(model: ModelConfig, request: str) -> str:
    label_files.check_request(request)
    return lake.place("label_queue", model.name, request)
