"""Tables of BigQuery: what has landed, what a run makes, and what readers see.

<dataset>.<source table>                            what has landed, by days of partition_date; a day lands by one job
<dataset>.<model>_<what>_<workspace>                what a run is working on; expires
<dataset>.<model>_predictions, <model>_quarantine   what readers see, by days
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud.bigquery import SchemaField, Table, TimePartitioning

from include import partitions, queries
from include.config import ColumnType, ModelConfig
from include.platforms.base import SourceMissing
from include.platforms.gcp.clients import client
from include.platforms.gcp.settings import gcp, labels
from include.queries import Dialect

DIALECT: Dialect = "bigquery"
STAGED_DAYS = 7  # that a table of a run is kept
PAGE = 1000
TYPES: Mapping[ColumnType, str] = {
    "string": "STRING",
    "integer": "INT64",
    "number": "FLOAT64",
    "boolean": "BOOL",
    "date": "DATE",
    "timestamp": "TIMESTAMP",
}


def full(table: str) -> str:
    """project.dataset.table."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,200}", table):
        raise ValueError(f"{table!r} cannot be the name of a table")
    return f"{gcp().project}.{gcp().dataset}.{table}"


def named(table: str) -> str:
    """How a table of our dataset is written in a statement."""
    return f"`{full(table)}`"


def reference(table: str, partition: date | None = None) -> dict[str, str]:
    """How the configuration of a job names a table of our dataset, or a day of it."""
    project, dataset, name = full(table).split(".")
    return {"projectId": project, "datasetId": dataset, "tableId": f"{name}${partition:%Y%m%d}" if partition else name}


def of(model: ModelConfig, until: date | None = None) -> dict[str, str]:
    """How BigQuery reads each table of a model; with a day, as if no later partition had landed."""
    return {name: _as_of(name, until) for name in queries.table_names(model)}


def _as_of(table: str, until: date | None) -> str:
    if until is None or not is_partitioned(table):
        return named(table)
    return f"(SELECT * FROM {named(table)} WHERE partition_date <= DATE '{until}')"


def predictions(model: ModelConfig) -> str:
    return f"{model.name}_predictions"


def quarantine(model: ModelConfig) -> str:
    return f"{model.name}_quarantine"


def staged(model: ModelConfig, run: Mapping[str, Any], what: str) -> str:
    """The name of a table that only one run makes and reads."""
    if not re.fullmatch(r"[0-9a-f]{16}", run["workspace"]):
        raise ValueError(f"{run['workspace']!r} is no workspace")
    return f"{model.name}_{what}_{run['workspace']}"


def parameters(days: Mapping[str, date]) -> list[dict[str, Any]]:
    """The days of a query, as the configuration of a job has them."""
    return [
        {"name": name, "parameterType": {"type": "DATE"}, "parameterValue": {"value": day.isoformat()}}
        for name, day in days.items()
    ]


def exists(table: str) -> bool:
    return _get(table) is not None


def is_partitioned(table: str) -> bool:
    found = _get(table)
    if found is None:
        raise LookupError(f"BigQuery has no table {full(table)}: create it (docs/platforms/gcp.md)")
    return found.time_partitioning is not None and found.time_partitioning.field == "partition_date"


def ensure(model: ModelConfig, table: str, columns: Mapping[str, str]) -> None:
    """Make a table by days of partition_date; one that is there stays as it is.

    Args:
        columns: name → type, as BigQuery has them.
    """
    if exists(table):
        return
    made = Table(full(table), [SchemaField(name, kind) for name, kind in columns.items()])
    made.time_partitioning, made.labels = TimePartitioning(field="partition_date"), labels(model)
    _client().create_table(made, exists_ok=True)


def keep(table: str, days: int) -> None:
    """Keep a table of a run for so many days from now on; of one that is gone nothing is kept."""
    found = _get(table)
    if found is not None:
        found.expires = datetime.now(UTC) + timedelta(days=days)
        _client().update_table(found, ["expires"])


def keep_for_ever(table: str) -> None:
    """
    Raises:
        LookupError: if it is gone.
    """
    found = _needed(table)
    if found.expires is not None:
        found.expires = None
        _client().update_table(found, ["expires"])


def forget(table: str) -> None:
    """Remove a table of a run, or a version that no reader sees.

    Raises:
        ValueError: for any other table: what has landed, or is seen by readers, is never removed here.
    """
    if not re.search(r"_[0-9a-f]{16}$", table):
        raise ValueError(f"{table}: is no table of a run")
    _client().delete_table(full(table), not_found_ok=True)


def rows(job: str) -> tuple[list[str], list[list[Any]]]:
    """The names of the columns of a query that has ended, and its rows. For answers that are small."""
    found = _client().get_job(job, project=gcp().project, location=gcp().location).result(page_size=PAGE)
    return [field.name for field in found.schema], [list(row.values()) for row in found]


def answer(job: str) -> list[dict[str, Any]]:
    names, found = rows(job)
    return [dict(zip(names, row, strict=True)) for row in found]


def ask(sql: str, days: Mapping[str, date] | None = None) -> list[dict[str, Any]]:
    """The rows of a small query that changes nothing, asked in passing."""
    from google.cloud.bigquery import QueryJobConfig

    told = {
        "query": {"useLegacySql": False, "queryParameters": parameters(days or {}), "maximumBytesBilled": str(gcp().most_bytes)}
    }
    found = _client().query_and_wait(sql, job_config=QueryJobConfig.from_api_repr(told))
    return [dict(row.items()) for row in found]


def made(table: str) -> str:
    """Another one for each table that was made under this name, and for other rows in it.

    Raises:
        LookupError: if there is no such table.
    """
    found = _needed(table)
    facts = f"{_born(found)} {found.num_rows} {found.num_bytes}"
    return hashlib.sha256(facts.encode()).hexdigest()[:16]


def born(table: str) -> str:
    """The table and when it was made, whatever becomes of its rows.

    Raises:
        LookupError: if there is no such table.
    """
    return _born(_needed(table))


def _born(found: Table) -> str:
    return f"{found.full_table_id} {found.created.isoformat()}"


def checked(name: str) -> str:
    """A table that a service has named, project.dataset.table, if it may stand in a statement.

    Raises:
        ValueError: otherwise.
    """
    if not re.fullmatch(r"[a-z0-9-]+\.[A-Za-z0-9_]+\.[A-Za-z0-9_-]+", name):
        raise ValueError(f"{name!r} is not the name of a table")
    return name


def days_landed(table: str) -> list[date]:
    """The days that a source table has, in order."""
    return sorted(day for _, day, _ in _states([table]))


def fingerprint(model: ModelConfig, partition: date, also: Collection[str] = ()) -> str:
    """Changes whenever the day does, in the entity table, a lookup or one of the tables in `also`.

    Raises:
        SourceMissing: if the day has not landed.
    """
    found = fingerprints(model, also)
    if partition not in found:
        raise SourceMissing(
            f"{model.source.table}: partition {partition} has not landed: {full(model.source.table)} has no such day"
        )
    return found[partition]


def fingerprints(model: ModelConfig, also: Collection[str] = ()) -> dict[date, str]:
    """Of every day that has landed: what `fingerprint` says, by one query of what BigQuery knows of its partitions."""
    names = (model.source.table, *model.source.lookups, *also)
    told: dict[date, list[str]] = {}
    complete = set()
    for table, day, state in _states(names):
        told.setdefault(day, []).append(f"{table} {state}")
        if table == model.source.table:
            complete.add(day)
    return {day: hashlib.sha256("\n".join(sorted(told[day])).encode()).hexdigest()[:16] for day in sorted(complete)}


def _states(names: Collection[str]) -> Iterator[tuple[str, date, str]]:
    """Table, day and state of each partition that has rows."""
    listed = ", ".join(f"'{full(name).rpartition('.')[2]}'" for name in dict.fromkeys(names))
    found = ask(
        "SELECT table_name, partition_id, last_modified_time, total_rows "
        f"FROM `{gcp().project}.{gcp().dataset}.INFORMATION_SCHEMA.PARTITIONS` WHERE table_name IN ({listed})"
    )
    for row in found:
        if row["total_rows"] and re.fullmatch(r"[0-9]{8}", str(row["partition_id"])):
            day = partitions.parse(f"{row['partition_id'][:4]}-{row['partition_id'][4:6]}-{row['partition_id'][6:]}")
            yield str(row["table_name"]), day, f"{row['last_modified_time'].isoformat()} {row['total_rows']}"


def url() -> str:
    """For SQLAlchemy, which takes credentials as every client of Google does."""
    _let_booleans_be_listed()
    return f"bigquery://{gcp().project}/{gcp().dataset}?location={gcp().location}"


def _let_booleans_be_listed() -> None:
    """`decision IN (TRUE, FALSE)` binds a list to one parameter; SQLAlchemy's check of a boolean knows no lists, and fails."""
    from sqlalchemy import Boolean
    from sqlalchemy_bigquery import BigQueryDialect

    class Listed(Boolean):
        def bind_processor(self, dialect: Any) -> None:
            """BigQuery's client checks the values itself."""

    if Boolean not in BigQueryDialect.colspecs:
        BigQueryDialect.colspecs = {**BigQueryDialect.colspecs, Boolean: Listed}


def key_type(model: ModelConfig) -> str:
    return TYPES[model.source.columns[model.source.key]]


def _get(table: str) -> Table | None:
    try:
        found: Table = _client().get_table(full(table))
    except NotFound:
        return None
    return found


def _needed(table: str) -> Table:
    found = _get(table)
    if found is None:
        raise LookupError(f"BigQuery has no table {full(table)}: clear the tasks that make it")
    return found


def _client() -> Any:
    return client("bigquery")
