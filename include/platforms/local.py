"""The embedded platform: a lake of Parquet files, DuckDB for SQL, job scripts as subprocesses.

The functions of `platforms.base.Platform`. Scoring and training run outside the task's process: a model file that
makes the library crash then takes down a child and not the worker, and the same scripts run in the clouds' jobs.
"""

from __future__ import annotations

import glob
import json
import logging
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import AssetWatcher

from include import partitions, queries
from include.config import ModelConfig, settings
from include.model_task import model_task
from include.platforms import lake
from include.platforms import local_engine as engine
from include.platforms.base import Publication, SourceChanged
from include.platforms.landing import LandingTrigger
from include.platforms.local_labelling import await_labels, label_answers, queue_labels
from include.platforms.local_monitoring import evaluate_matured, monitoring_folder, profile
from include.platforms.local_training import (
    evaluate,
    evaluation_folder,
    inspect_training_set,
    labelled_until,
    manifest_of,
    register,
    shadow_score,
    snapshot_manifest,
    snapshot_training_set,
    train,
    tune,
)
from include.validation import Dataset, Stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk.bases.operator import BaseOperator
    from airflow.sdk.definitions.xcom_arg import XComArg

__all__ = [
    "await_labels",
    "await_source",
    "build_features",
    "dataset",
    "declared_rows",
    "deliver",
    "evaluate",
    "evaluate_matured",
    "evaluation_folder",
    "find_predictions",
    "fingerprint",
    "inspect_training_set",
    "label_answers",
    "labelled_until",
    "landed",
    "landing_watchers",
    "manifest_of",
    "marker",
    "monitoring_folder",
    "postprocess",
    "profile",
    "publish",
    "queue_labels",
    "record_figures",
    "register",
    "report_page",
    "restore",
    "score",
    "shadow_score",
    "snapshot_manifest",
    "snapshot_training_set",
    "train",
    "tune",
]

log = logging.getLogger(__name__)

MARKER = "{{ ti.xcom_pull(task_ids='resolve_partition', key='run')['marker'] }}"


def await_source(model: ModelConfig) -> BaseOperator:
    return FileSensor(
        task_id="await_source",
        filepath=MARKER,
        deferrable=True,
        poke_interval=10,
        timeout=model.source.wait_hours * 3600,
        doc_md="Waits, without holding a worker, until the marker of the partition is there: the source has landed it whole.",
    )


def marker(model: ModelConfig, partition: date) -> str:
    # FileSensor takes a glob, and a checkout may lie in a folder with brackets in its name.
    return glob.escape(str(lake.partition_folder("source", model.source.table, partition) / lake.MARKER))


def declared_rows(model: ModelConfig, partition: date) -> int | None:
    file = lake.partition_folder("source", model.source.table, partition) / lake.MARKER
    try:
        content = json.loads(file.read_text() or "{}")
        rows = content.get("rows")
    except (ValueError, AttributeError):
        raise ValueError(f'{file}: a marker is empty or a JSON object like {{"rows": 900}}') from None
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 0):
        raise ValueError(f"{file}: rows is {rows!r}, not a number of rows")
    return rows


def landing_watchers(model: ModelConfig) -> list[AssetWatcher]:
    folder = settings().lake / "source" / model.source.table
    return [AssetWatcher(name=f"{model.name}_landing", trigger=LandingTrigger(folder=str(folder)))]


def fingerprint(model: ModelConfig, partition: date) -> str:
    return lake.fingerprint(model, partition)


def landed(model: ModelConfig) -> dict[date, str]:
    return lake.landed(model)


@model_task
def build_features(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Features of the rows that meet the row rules, and the rows that do not, each in one streaming pass of DuckDB."""
    partition = partitions.parse(run["partition"])
    source = lake.fingerprint(model, partition)
    place = lake.workspace(model.name, run)
    place.mkdir(parents=True, exist_ok=True)
    with engine.connected() as connection:
        tables, bound = engine.tables(model), {"first_partition": partition, "last_partition": partition}
        rows = engine.write(
            connection, queries.accepted_features(model, engine.DIALECT, tables), bound, place / "features.parquet"
        )
        quarantined = engine.write(
            connection, queries.quarantined_rows(model, engine.DIALECT, tables), bound, place / "quarantine.parquet"
        )
        rows_in = engine.value(connection, f"SELECT count(*) FROM {_source(model, partition)}")
        reasons = connection.sql(
            f"SELECT reason, count(*) FROM {engine.parquet(str(place / 'quarantine.parquet'))} "
            "GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
        ).fetchall()
    if lake.fingerprint(model, partition) != source:
        raise SourceChanged(
            f"{model.source.table}: partition {partition} changed while it was read; the next try reads the new one"
        )
    log.info(f"{rows_in} rows in, {rows} with features, {quarantined} quarantined")
    return {"rows_in": rows_in, "rows": rows, "rows_quarantined": quarantined, "reasons": dict(reasons), "source": source}


@model_task
def score(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """Raw scores, by a job script in a process of its own."""
    place = lake.workspace(model.name, run)
    return engine.run_job(
        "score",
        place,
        {
            "features": str(place / "features.parquet"),
            "output": str(place / "scores.parquet"),
            "key": model.source.key,
            "artifact": version["artifact"],
            "manifest_sha256": version["manifest_sha256"],
        },
    )


@model_task
def postprocess(model: ModelConfig, run: dict[str, Any], version: dict[str, Any]) -> dict[str, Any]:
    """Decision and provenance on each row."""
    place = lake.workspace(model.name, run)
    return engine.run_job(
        "postprocess",
        place,
        {
            "scores": str(place / "scores.parquet"),
            "output": str(place / "predictions.parquet"),
            "key": model.source.key,
            "task": model.task,
            "threshold": model.prediction.decision_threshold,
            "model_version": version["version"],
            "run_id": run["run_id"],
            "scored_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "git_revision": settings().revision,
        },
    )


def dataset(model: ModelConfig, stage: Stage, run: dict[str, Any]) -> Dataset:
    partition = partitions.parse(run["partition"])
    if stage == "source":
        return Dataset(f"SELECT * FROM {_source(model, partition)}")
    if stage == "training":
        return Dataset(f"SELECT * FROM {engine.parquet(run['snapshot'])}")
    file = lake.workspace(model.name, run) / f"{stage}.parquet"
    return Dataset(f"SELECT * FROM {engine.parquet(str(file))}")


def report_page(model: ModelConfig, run: dict[str, Any], stage: Stage) -> str:
    partition = partitions.parse(run["partition"]).isoformat()
    return str(settings().lake / "validations" / model.name / partition / run["workspace"] / f"{stage}.html")


def publish(model: ModelConfig, run: dict[str, Any], facts: dict[str, Any]) -> Publication:
    place = lake.workspace(model.name, run)
    partition = partitions.parse(run["partition"])
    return lake.publish(model, partition, place / "predictions.parquet", place / "quarantine.parquet", facts)


def deliver(model: ModelConfig, run: XComArg) -> list[XComArg]:
    return []


def record_figures(model: ModelConfig, figures: Mapping[str, float]) -> None:
    """The page and the ledger have them; a laptop has no other place."""


def find_predictions(model: ModelConfig, key: str, partition: date | None) -> list[dict[str, Any]]:
    live = settings().lake / "predictions" / model.name
    if not any(live.glob("partition_date=*")):
        return []
    files = live / (f"partition_date={partition}" if partition else "*") / lake.DATA
    if partition and not files.is_file():
        return []
    with engine.connected() as connection:
        rows = connection.execute(
            f"SELECT * REPLACE (CAST(partition_date AS VARCHAR) AS partition_date, CAST(scored_at AS VARCHAR) AS scored_at) "
            f'FROM {engine.parquet(str(files))} WHERE CAST("{model.source.key}" AS VARCHAR) = $key ORDER BY partition_date',
            {"key": key},
        )
        names = [column[0] for column in rows.description or []]
        return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def restore(model: ModelConfig, partition: date, by: str) -> Publication:
    return lake.restore(model, partition, by)


def _source(model: ModelConfig, partition: date) -> str:
    return engine.partitioned(str(lake.partition_folder("source", model.source.table, partition) / "*.parquet"))
