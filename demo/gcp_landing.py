"""Lets what the simulated source system has landed in a folder land in BigQuery too, each day by one job.

A stranger to the product, as the simulator is: it knows the layout of the lake and the dataset, and nothing else.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

AT_ONCE = 8


def land(source: Path, bucket: str, dataset: str, bigquery: Any, storage: Any) -> int:
    """Load `<source>/<table>/...` into `<dataset>.<table>`, days in the place of those that are there; the number of jobs.

    Args:
        source: the folder `source` of a local lake.
        bucket: where the files are put on their way.
        dataset: project.dataset, which is there.
        bigquery, storage: clients of Google's libraries.
    """
    from google.cloud.bigquery import Table, TimePartitioning

    jobs: list[tuple[str, str, date | None, pa.Table]] = []
    for folder in sorted(folder for folder in source.iterdir() if folder.is_dir()):
        target, found = f"{dataset}.{folder.name}", _read(folder)
        schema = found[0][1].schema
        made = Table(target, _fields(schema))
        if "partition_date" in schema.names:
            made.time_partitioning = TimePartitioning(field="partition_date")
        is_new = folder.name not in {table.table_id for table in bigquery.list_tables(dataset)}
        bigquery.create_table(made, exists_ok=True)
        if is_new:  # all days at once
            found = [(None, pa.concat_tables([rows for _, rows in found]))]
        jobs += [(folder.name, f"{target}${day:%Y%m%d}" if day else target, day, rows) for day, rows in found]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(lambda job: load(job[0], job[1], job[2], job[3], bucket, bigquery, storage), jobs))
    return len(jobs)


def load(table: str, target: str, day: date | None, rows: pa.Table, bucket: str, bigquery: Any, storage: Any) -> None:
    """Load rows in the place of those that a table, or a day of it, has: one job."""
    from google.cloud.bigquery import LoadJobConfig, SourceFormat, WriteDisposition

    content = io.BytesIO()
    pq.write_table(rows, content)
    blob = storage.bucket(bucket).blob(f"landing/{table}/{day or 'all'}.parquet")
    blob.upload_from_string(content.getvalue())
    config = LoadJobConfig(
        source_format=SourceFormat.PARQUET,
        write_disposition=WriteDisposition.WRITE_TRUNCATE,
        schema=_fields(rows.schema),
    )
    bigquery.load_table_from_uri(f"gs://{bucket}/{blob.name}", target, job_config=config).result()


def _read(folder: Path) -> list[tuple[date | None, pa.Table]]:
    """The rows of each day, the day a column of them; of a table without days all at once."""
    return list(_days(folder))


def _days(folder: Path) -> Iterator[tuple[date | None, pa.Table]]:
    for file in sorted(folder.rglob("*.parquet")):
        # ParquetFile, not read_table: that would take "partition_date=..." in the path for a column.
        rows, name = pq.ParquetFile(file).read(), file.parent.name
        if not name.startswith("partition_date="):
            yield None, rows
            continue
        day = date.fromisoformat(name.removeprefix("partition_date="))
        column = pa.array([day] * rows.num_rows, pa.date32())
        yield day, rows.append_column("partition_date", column)


def _fields(schema: pa.Schema) -> list[Any]:
    from google.cloud.bigquery import SchemaField

    return [SchemaField(field.name, kind_of(field.type)) for field in schema]


def kind_of(kind: pa.DataType) -> str:
    for is_one, name in (
        (pa.types.is_integer, "INT64"),
        (pa.types.is_floating, "FLOAT64"),
        (pa.types.is_boolean, "BOOL"),
        (pa.types.is_date, "DATE"),
        (pa.types.is_string, "STRING"),
        (pa.types.is_large_string, "STRING"),
    ):
        if is_one(kind):
            return name
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP" if kind.tz else "DATETIME"
    raise ValueError(f"{kind}: no type of BigQuery is known for it")
