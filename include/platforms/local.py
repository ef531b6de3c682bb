"""The embedded platform: a lake of Parquet files, DuckDB for SQL, job scripts as subprocesses.

The functions of `platforms.base.Platform`. Scoring and training run outside the task's process: a model file that
makes the library crash then takes down a child and not the worker, and the same scripts run in the clouds' jobs.
"""

from __future__ import annotations

import glob
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.sensors.filesystem import FileSensor
from airflow.sdk import AssetWatcher

from include import partitions, queries
from include.config import REPOSITORY, ModelConfig, settings
from include.core.files import json_bytes, new_folder, replacing, sha256_of
from include.model_task import model_task
from include.platforms import lake
from include.platforms.base import JobFailed, Publication, SourceChanged, SourceMissing
from include.platforms.landing import LandingTrigger
from include.validation import Dataset, Stage

if TYPE_CHECKING:
    from airflow.sdk.bases.operator import BaseOperator
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

DIALECT: queries.Dialect = "duckdb"
MEMORY_LIMIT = "1GB"
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
    with _duckdb() as connection:
        tables, bound = _tables(model), {"first_partition": partition, "last_partition": partition}
        rows = _write(connection, queries.accepted_features(model, DIALECT, tables), bound, place / "features.parquet")
        quarantined = _write(connection, queries.quarantined_rows(model, DIALECT, tables), bound, place / "quarantine.parquet")
        rows_in = _value(connection, f"SELECT count(*) FROM {_source(model, partition)}")
        reasons = connection.sql(
            f"SELECT reason, count(*) FROM {_parquet(str(place / 'quarantine.parquet'))} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20"
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
    return _run_job(
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
    return _run_job(
        "postprocess",
        place,
        {
            "scores": str(place / "scores.parquet"),
            "output": str(place / "predictions.parquet"),
            "key": model.source.key,
            "threshold": model.prediction.decision_threshold,
            "model_version": version["version"],
            "run_id": run["run_id"],
            "scored_at": datetime.now(UTC).isoformat(timespec="microseconds"),
            "git_revision": settings().revision,
        },
    )


@model_task
def snapshot_training_set(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Features and labels of the window, frozen: named by its content, written once, never changed.

    Raises:
        SourceMissing: naming the partitions of the window that have not landed, or have no labels.
        SourceChanged: if one of them was replaced meanwhile.
    """
    first, last = partitions.parse(run["first"]), partitions.parse(run["last"])
    days = list(partitions.days(first, last))
    missing = [
        f"{table} {day}" for table in (model.source.table, model.labels.table) for day in days if not lake.has_landed(table, day)
    ]
    if missing:
        raise SourceMissing(
            f"{model.name}: {len(missing)} partitions of the training window have not landed: {', '.join(missing[:5])}"
            f"{' …' if len(missing) > 5 else ''}; land them, or give another as_of"
        )
    query, sources = queries.training_set(model, DIALECT, _tables(model)), _training_sources(model, days)
    draft = _training_workspace(model, run) / "snapshot.parquet"
    with _duckdb() as connection:
        rows = _write(connection, query, {"first_partition": first, "last_partition": last}, draft)
    if _training_sources(model, days) != sources:
        raise SourceChanged(
            f"{model.name}: partitions of {first} to {last} changed while they were read; the next try reads the new ones"
        )
    sha256 = sha256_of(draft)
    snapshot = f"{run['as_of']}-{sha256[:16]}"
    folder = settings().lake / "training" / model.name / snapshot
    manifest = {
        "model": model.name,
        "sql": query.sql,
        "first": run["first"],
        "last": run["last"],
        "sources": sources,
        "rows": rows,
    }
    with suppress(FileExistsError), new_folder(folder) as place:
        draft.rename(place / lake.DATA)
        (place / "manifest.json").write_bytes(json_bytes({**manifest, "sha256": sha256, "git_revision": settings().revision}))
    draft.unlink(missing_ok=True)
    log.info(f"snapshot {snapshot}: {rows} rows of {first} to {last}")
    return {"snapshot": snapshot, "file": str(folder / lake.DATA), "sha256": sha256, "rows": rows}


@model_task
def train(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any]) -> dict[str, Any]:
    """A challenger, by a job script in a process of its own. The same snapshot and parameters give the same artifact."""
    parameters = {
        key: getattr(model.training, key) for key in ("trees", "max_depth", "learning_rate", "seed", "holdout_days", "min_rows")
    }
    training = {
        "model": model.name,
        "snapshot_id": snapshot["snapshot"],
        "snapshot_sha256": snapshot["sha256"],
        "numeric": list(model.features.numeric),
        "categorical": list(model.features.categorical),
        **parameters,
    }
    artifact = settings().lake / "models" / model.name / hashlib.sha256(json_bytes(training)).hexdigest()[:16]
    spec = {**training, "snapshot": snapshot["file"], "artifact": str(artifact)}
    trained = _run_job("train", _training_workspace(model, run), spec)
    return {"artifact": trained["artifact"], "manifest_sha256": trained["manifest_sha256"], "snapshot": snapshot["snapshot"]}


@model_task
def evaluate(model: ModelConfig, run: dict[str, Any], snapshot: dict[str, Any], challenger: dict[str, Any]) -> dict[str, Any]:
    """The packaged artifact, loaded as scoring will load it, on the holdout of the snapshot."""
    spec = {
        "snapshot": snapshot["file"],
        "snapshot_sha256": snapshot["sha256"],
        "artifact": challenger["artifact"],
        "manifest_sha256": challenger["manifest_sha256"],
    }
    return _run_job("evaluate", _training_workspace(model, run), spec)


def dataset(model: ModelConfig, stage: Stage, run: dict[str, Any]) -> Dataset:
    partition = partitions.parse(run["partition"])
    if stage == "source":
        return Dataset(f"SELECT * FROM {_source(model, partition)}")
    file = lake.workspace(model.name, run) / f"{stage}.parquet"
    return Dataset(f"SELECT * FROM {_parquet(str(file))}")


def report_page(model: ModelConfig, run: dict[str, Any], stage: Stage) -> str:
    partition = partitions.parse(run["partition"]).isoformat()
    return str(settings().lake / "validations" / model.name / partition / run["workspace"] / f"{stage}.html")


def publish(model: ModelConfig, run: dict[str, Any], facts: dict[str, Any]) -> Publication:
    place = lake.workspace(model.name, run)
    partition = partitions.parse(run["partition"])
    return lake.publish(model, partition, place / "predictions.parquet", place / "quarantine.parquet", facts)


def restore(model: ModelConfig, partition: date, by: str) -> Publication:
    return lake.restore(model, partition, by)


def _training_sources(model: ModelConfig, days: list[date]) -> dict[str, str]:
    """Fingerprint of each day, its labels included."""
    return {day.isoformat(): lake.fingerprint(model, day, also=[model.labels.table]) for day in days}


def _training_workspace(model: ModelConfig, run: dict[str, Any]) -> Path:
    return lake.workspace(model.name, {"partition": run["as_of"], "workspace": run["workspace"]})


def _source(model: ModelConfig, partition: date) -> str:
    return _partitioned(str(lake.partition_folder("source", model.source.table, partition) / "*.parquet"))


def _tables(model: ModelConfig) -> dict[str, str]:
    return {name: _partitioned(files) if lake.is_partitioned(name) else _parquet(files) for name, files in _files(model).items()}


def _files(model: ModelConfig) -> dict[str, str]:
    return {name: lake.table_files(name) for name in queries.table_names(model)}


def _parquet(pattern: str) -> str:
    """DuckDB's way to read files. The path is ours; a quote in the folder of a checkout is doubled."""
    return f"read_parquet({_text(pattern)}, hive_partitioning = false, union_by_name = true)"


def _partitioned(pattern: str) -> str:
    """The same for files below folders like partition_date=2013-04-01, which become a column of days."""
    return (
        f"read_parquet({_text(pattern)}, hive_partitioning = true, hive_types = {{'partition_date': DATE}}, union_by_name = true)"
    )


def _text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@contextmanager
def _duckdb() -> Iterator[DuckDBPyConnection]:
    import duckdb

    # Without threads for reading and writing ahead: with them, DuckDB 2.0 may hang for ever when a disk is full.
    chosen: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "autoload_known_extensions": False,
        "async_threads": 0,
    }
    with duckdb.connect(config=chosen) as connection:
        yield connection


def _write(connection: DuckDBPyConnection, query: queries.Query, bound: dict[str, date], path: Path) -> int:
    """Stream the result of a query to a Parquet file, which appears whole; the number of rows."""
    with replacing(path) as draft:
        return _value(connection, f"COPY ({query.sql}) TO {_text(str(draft))} (FORMAT parquet, COMPRESSION zstd)", bound)


def _value(connection: DuckDBPyConnection, statement: str, bound: dict[str, date] | None = None) -> int:
    ((value,),) = connection.execute(statement, bound).fetchall()
    return int(value)


def _run_job(job: str, place: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Run `include/jobs/<job>.py` and return what it reports.

    The child's standard input is a pipe that nobody writes to: when this process dies, however it dies, the pipe
    closes and the child stops too.

    Raises:
        ValueError: if the job says that its input is wrong (no retry can help).
        JobFailed: if it ended in any other way.
    """
    place.mkdir(parents=True, exist_ok=True)
    result = place / f"{job}.result.json"
    result.unlink(missing_ok=True)
    file = place / f"{job}.json"
    file.write_text(json.dumps({**spec, "result": str(result)}, indent=1))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "AILERON_PARENT_PIPE": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", f"include.jobs.{job}", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        cwd=REPOSITORY,
    ) as process:
        assert process.stdout is not None
        error = ""
        for line in process.stdout:
            log.info(line.rstrip())
            if line.startswith("ERROR: "):
                error = line.removeprefix("ERROR: ").strip()
        code = process.wait()
    if code == 1 and error:
        raise ValueError(error)
    if code != 0 or not result.is_file():
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        raise JobFailed(f"{job} job {how}{': ' + error if error else ''}; its output is in this task's log")
    return json.loads(result.read_text())
