"""The label queue on Google Cloud: a table of what is asked for, and a folder of the lake for the answers.

<dataset>.<model>_labels_<request>                                 what is asked for
label_queue/<model>/<request>/rows/*.parquet                       the same, for those who read files
label_queue/<model>/<request>/answers.parquet (or .csv), _SUCCESS  what was answered: key and label; the marker comes last
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.google.cloud.sensors.gcs import GCSObjectExistenceSensor
from airflow.sdk import TaskGroup

from include import labelling, monitoring_sql, partitions
from include.config import ModelConfig
from include.model_task import Read, model_task
from include.platforms import label_files
from include.platforms.gcp import lake, models, requests, tables
from include.platforms.gcp.jobs import BigQueryJob
from include.platforms.gcp.settings import gcp
from include.platforms.steps import steps

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from airflow.sdk.definitions.xcom_arg import XComArg

log = logging.getLogger(__name__)

MARKER = "{{ ti.xcom_pull(task_ids='queue_labels.facts')['marker'] }}"


def queue_labels(model: ModelConfig, request: XComArg) -> XComArg:
    with TaskGroup("queue_labels") as group:
        planned = model_task(plan_queue, task_id="plan")(model, request)
        drawn = BigQueryJob(task_id="draw", model=model, step="labels", request=Read(planned, "draw"))
        extracting = model_task(plan_extract, task_id="plan_extract")(model, request, planned, drawn.output)
        extract = BigQueryJob(task_id="extract", model=model, step="extract_labels", request=Read(extracting, "extract"))
        count = BigQueryJob(task_id="count", model=model, step="count_labels", request=Read(extracting, "count"))
        found = model_task(queued, task_id="facts")(model, request, extract.output, count.output)
    return steps(group, planned, drawn, extracting, [extract, count], found)


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
    run = {"partition": asked["last"], "run_id": asked["run_id"]}
    label_files.check_request(asked["request"])
    table = f"{model.name}_labels_{asked['request'].replace('-', '').replace('.', '_')}"
    statement = f"CREATE OR REPLACE TABLE {tables.named(table)} AS\n{query.sql}"
    days = {"first_partition": first, "last_partition": last}
    # Drawn once: labels that come meanwhile do not change what was asked.
    return {"draw": requests.query(model, "labels", run, statement, days, asked["request"], table), "table": table, "run": run}


def plan_extract(model: ModelConfig, asked: dict[str, Any], planned: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    """The job that writes them to files, and the statement that counts them."""
    run, table = planned["run"], planned["table"]
    count = f"SELECT COUNT(*) AS `rows` FROM {tables.named(table)}"
    return {
        "extract": requests.extract(
            model, "extract_labels", run, table, f"{_folder(model, asked['request'])}/rows", drawn["ref"]
        ),
        "count": requests.query(model, "count_labels", run, count, {}, drawn["ref"]),
    }


def queued(model: ModelConfig, asked: dict[str, Any], extracted: dict[str, Any], counted: dict[str, Any]) -> dict[str, Any]:
    """How many rows wait, and where their answers go."""
    (row,) = tables.answer(counted["ref"])
    folder = _folder(model, asked["request"])
    marker = f"{folder}/{lake.MARKER}"
    # Where the rows are is told beside the answers, for whoever reads them later knows the request only.
    lake.write_json(f"{folder}/asked.json", {"rows": extracted["output"]})
    log.info(
        "%s rows wait for their labels: %s; answers go to %s, %s comes last",
        row["rows"],
        extracted["output"],
        folder,
        lake.MARKER,
    )
    bucket, _, name = marker.removeprefix("gs://").partition("/")
    return {"rows": int(row["rows"] or 0), "place": folder, "marker": name, "bucket": bucket}


def await_labels(model: ModelConfig) -> BaseOperator:
    return GCSObjectExistenceSensor(
        task_id="await_labels",
        bucket=gcp().bucket,
        object=MARKER,
        google_cloud_conn_id=gcp().connection,
        deferrable=True,
        poke_interval=gcp().seconds,
        timeout=model.labelling.wait_days * 86400,
        doc_md="Waits, without holding a worker, until the answers are there: their marker comes last.",
    )


def label_answers(model: ModelConfig, request: str) -> list[dict[str, Any]]:
    """See `platforms.base.Platform`."""
    import json

    import pyarrow.parquet as pq

    folder = _folder(model, request)
    files = lake.data(json.loads(lake.read(f"{folder}/asked.json"))["rows"])
    with tempfile.TemporaryDirectory(prefix="labels-") as here:
        place, parts = Path(here), Path(here) / "parts"
        parts.mkdir()
        for number, file in enumerate(files):
            (parts / f"{number}.parquet").write_bytes(lake.read(file))
        pq.write_table(pq.read_table(parts, partitioning=None), place / label_files.ROWS)
        for name in label_files.ANSWERS:
            if lake.exists(f"{folder}/{name}"):
                (place / name).write_bytes(lake.read(f"{folder}/{name}"))
        return label_files.read(model, place, folder)


def _folder(model: ModelConfig, request: str) -> str:
    label_files.check_request(request)
    return lake.place("label_queue", model.name, request)
