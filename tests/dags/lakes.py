"""What tests do to a lake, and what they look at afterwards."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import duckdb
from airflow.models.dagrun import DagRun

from tests.dag_runs import states

MODEL = "flight_delays"
PREDICT, TRAIN, ARRIVALS, MONITOR, LABEL, ROLLBACK = (
    f"{kind}_{MODEL}" for kind in ("predict", "train", "arrivals", "monitor", "label", "rollback")
)


def source_file(lake: Path, day: str, table: str = "flights") -> Path:
    return lake / "source" / table / f"partition_date={day}" / "data.parquet"


def live_file(lake: Path, day: str, kind: str = "predictions", model: str = MODEL) -> Path:
    return lake / kind / model / f"partition_date={day}" / "data.parquet"


def reland(lake: Path, day: str, query: str, table: str = "flights", declared: int | None = None) -> int:
    """Land a partition again, as a query makes it of the rows `landed`; the number of rows, which the marker declares too."""
    file = source_file(lake, day, table)
    draft, marker = file.with_name("draft"), file.with_name("_SUCCESS")
    with duckdb.connect() as connection:
        connection.execute(f"CREATE VIEW landed AS FROM read_parquet('{file}', hive_partitioning = false)")
        ((rows,),) = connection.execute(f"COPY ({query}) TO '{draft}' (FORMAT parquet)").fetchall()
    marker.unlink(missing_ok=True)
    draft.replace(file)
    marker.write_text(json.dumps({"rows": rows if declared is None else declared}))
    return int(rows)


def rows(file: Path, columns: str = "flight_id, score, decision, model_version") -> list[Any]:
    return duckdb.sql(f"SELECT {columns} FROM read_parquet('{file}', hive_partitioning = false) ORDER BY ALL").fetchall()


def visible(lake: Path) -> dict[str, str]:
    """All that readers see and all that counts as published: path → digest."""
    files = [file for kind in ("predictions", "quarantine", "ledger/publication") for file in (lake / kind).rglob("*")]
    return {str(file.relative_to(lake)): sha256(file.read_bytes()).hexdigest() for file in files if file.is_file()}


def mails(lake: Path) -> list[dict[str, Any]]:
    """What waits in the outbox."""
    return [json.loads(file.read_text()) for file in sorted((lake / "outbox").glob("*.json"))]


def own_database(folder: Path) -> dict[str, str]:
    """The environment of a process that has a metadata database of its own, as this one's is now."""
    with (
        closing(sqlite3.connect(Path(os.environ["AIRFLOW_HOME"]) / "airflow.db")) as ours,
        closing(sqlite3.connect(folder / "airflow.db")) as theirs,
    ):
        ours.backup(theirs)
    return {**os.environ, "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder}/airflow.db"}


def assert_refused(run: DagRun, task: str, lake: Path, before: dict[str, str], *words: str) -> None:
    """The run failed at this task; readers and ledger know nothing of it; one mail waits, and its text names the cause."""
    found = states(run)
    assert run.state == "failed" and found[task] == "failed", found
    assert found["publish"] == "upstream_failed", found
    assert visible(lake) == before
    (mail,) = mails(lake)
    text = " ".join(mail["text"].split())
    assert all(word in text for word in words), mail["text"]
