"""Score a table of features with a registered model: `python -m include.jobs.score <spec.json>`.

Streams: memory depends on the batch, not on the number of rows.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from include.core.artifacts import Artifact, check_golden, load_artifact
from include.core.features import UnusableFeatures, check_columns
from include.core.files import replacing, write_json
from include.core.scoring import Summary, check_rows, score
from include.jobs.process import every_few_seconds, main

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ScoreSpec:
    """The spec of the job. Paths are local."""

    features: str  # Parquet file: key, partition_date and the features of the model
    output: str  # Parquet file to write: key, partition_date, score
    result: str  # JSON file to write
    artifact: str  # folder of the model
    manifest_sha256: str  # from the registry
    key: str
    batch_rows: int = 122880  # DuckDB's row group
    memory_limit: str = "512MB"  # of DuckDB
    threads: int = 2  # that score


def run(spec: ScoreSpec) -> None:
    """Verify the model, try it on its golden rows and on one row of the features, then score."""
    artifact = load_artifact(Path(spec.artifact), spec.manifest_sha256)
    # Each thread scores whole batches: XGBoost's own threads would stand idle while a batch is read or written.
    artifact.booster.set_param({"nthread": 1})
    check_golden(artifact)
    key_type = _check_features(Path(spec.features), artifact, spec.key)

    started, cpu_started = time.monotonic(), time.process_time()
    summary = Summary()
    progress = every_few_seconds(lambda: f"scored {summary.rows:,} rows, {_speed(summary.rows, started):,} rows/s")
    schema = pa.schema({spec.key: key_type, "partition_date": pa.date32(), "score": pa.float64()})
    with replacing(Path(spec.output)) as temporary:
        # A dictionary of unique keys and scores would cost time and save nothing.
        with pq.ParquetWriter(temporary, schema, compression="zstd", use_dictionary=["partition_date"]) as writer:
            for scored, part in _in_order(lambda batch: score(batch, artifact, spec.key), _batches(spec, artifact), spec.threads):
                writer.write_batch(scored)
                summary += part
                progress()
    seconds = time.monotonic() - started
    result = {
        **summary.to_json(),
        "edges": artifact.manifest["reference"]["score"]["edges"],
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu_started,
        "rows_per_second": round(summary.rows / seconds),
        "golden": "ok",
        "manifest_sha256": artifact.manifest_sha256,
    }
    write_json(Path(spec.result), result)
    print(f"scored {summary.rows:,} rows, {result['rows_per_second']:,} rows/s", flush=True)


def _in_order(work: Callable[[Item], Result], items: Iterator[Item], threads: int) -> Iterator[Result]:
    """The results of `work` in the order of its items. One more item is read than there are threads, and no further."""
    running: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def _batches(spec: ScoreSpec, artifact: Artifact) -> Iterator[pa.RecordBatch]:
    """The columns that are needed, in batches of `batch_rows`, in the order of the file."""
    names = (spec.key, "partition_date", *artifact.spec.names)
    columns = ", ".join('"' + name.replace('"', '""') + '"' for name in names)
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": spec.memory_limit}) as connection:
        # A relation streams; execute(), or a query with parameters, would first take the whole result into memory.
        rows = connection.read_parquet(spec.features, hive_partitioning=False).project(columns)
        yield from rows.to_arrow_reader(spec.batch_rows)


def _check_features(path: Path, artifact: Artifact, key: str) -> pa.DataType:
    """Refuse a file without rows or with wrong columns before anything is written. Returns the type of the key."""
    with pq.ParquetFile(path, pre_buffer=False) as file:
        if file.metadata.num_rows == 0:
            raise UnusableFeatures(f"{path}: has no rows, so there is nothing to score: check the source partition")
        first = next(file.iter_batches(batch_size=1))
    check_rows(first, key)
    check_columns(first, artifact.spec.numeric, artifact.spec.categorical)
    return first.schema.field(key).type


def _speed(rows: int, started: float) -> int:
    return round(rows / (time.monotonic() - started))


if __name__ == "__main__":
    main(ScoreSpec, run)
