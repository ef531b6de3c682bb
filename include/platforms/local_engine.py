"""What the embedded platform works with: DuckDB for SQL, and job scripts in processes of their own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include import queries
from include.config import REPOSITORY, ModelConfig, settings
from include.core.files import replacing
from include.platforms import lake
from include.platforms.base import JobFailed

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

log = logging.getLogger(__name__)

DIALECT: queries.Dialect = "duckdb"
MEMORY_LIMIT = "1GB"


def tables(model: ModelConfig, until: date | None = None) -> dict[str, str]:
    """How DuckDB reads each table of a model; with a day, as if no later partition had landed."""
    return {name: _table(name, until) for name in queries.table_names(model)}


def _table(name: str, until: date | None) -> str:
    files = lake.table_files(name)
    if not lake.is_partitioned(name):
        return parquet(files)
    return partitioned(files) if until is None else f"(FROM {partitioned(files)} WHERE partition_date <= DATE '{until}')"


def predictions(model: ModelConfig) -> str:
    """How DuckDB reads all published predictions of a model."""
    return parquet(str(settings().lake / "predictions" / model.name / "*" / lake.DATA))


def parquet(pattern: str) -> str:
    """DuckDB's way to read files. The path is ours; a quote in the folder of a checkout is doubled."""
    return f"read_parquet({text(pattern)}, hive_partitioning = false, union_by_name = true)"


def parquet_files(paths: Sequence[str]) -> str:
    """The same for files that are named one by one."""
    return f"read_parquet([{', '.join(map(text, paths))}], hive_partitioning = false, union_by_name = true)"


def partitioned(pattern: str) -> str:
    """As `parquet`, for files below folders like partition_date=2013-04-01, which become a column of days."""
    return (
        f"read_parquet({text(pattern)}, hive_partitioning = true, hive_types = {{'partition_date': DATE}}, union_by_name = true)"
    )


def text(value: str) -> str:
    """A value as a literal of SQL."""
    return "'" + value.replace("'", "''") + "'"


@contextmanager
def connected() -> Iterator[DuckDBPyConnection]:
    import duckdb

    # Without threads for reading and writing ahead: with them, DuckDB 2.0 may hang for ever when a disk is full.
    chosen: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "autoload_known_extensions": False,
        "async_threads": 0,
    }
    with duckdb.connect(config=chosen) as connection:
        # It believes the least and largest value that a Parquet file states, which leave NaN out: NaN would pass as finite.
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        yield connection


def write(connection: DuckDBPyConnection, query: queries.Query, bound: dict[str, date], path: Path) -> int:
    """Stream the result of a query to a Parquet file, which appears whole; the number of rows."""
    with replacing(path) as draft:
        return value(connection, f"COPY ({query.sql}) TO {text(str(draft))} (FORMAT parquet, COMPRESSION zstd)", bound)


def value(connection: DuckDBPyConnection, statement: str, bound: dict[str, date] | None = None) -> int:
    ((value,),) = connection.execute(statement, bound).fetchall()
    return int(value)


def run_job(job: str, place: Path, spec: dict[str, Any]) -> dict[str, Any]:
    """Run `include/jobs/<job>.py` and return what it reports.

    The child's standard input is a pipe that nobody writes to: when this process dies, however it dies, the pipe
    closes and the child stops too.

    Returns:
        What the job has written, and `job_seconds`, from its start to its end.

    Raises:
        ValueError: if the job says that its input is wrong (no retry can help).
        JobFailed: if it ended in any other way.
    """
    place.mkdir(parents=True, exist_ok=True)
    result = place / f"{job}.result.json"
    result.unlink(missing_ok=True)
    file = place / f"{job}.json"
    file.write_text(json.dumps({**spec, "result": str(result)}, indent=1))
    started = time.monotonic()
    # XGBoost's threads would wait for each other in loops: with one core less than threads that is most of the time.
    environment = {
        "OMP_WAIT_POLICY": "PASSIVE",
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "AILERON_PARENT_PIPE": "1",
        "PYTHONUNBUFFERED": "1",
    }
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
    return {**json.loads(result.read_text()), "job_seconds": time.monotonic() - started}
