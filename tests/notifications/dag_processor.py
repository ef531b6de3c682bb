"""Airflow's own way from a callback request to our callback; `python dag_processor.py` does it in a process of its own."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("dags") / "failing_dags.py"
RUN: dict[str, Any] = {
    "run_id": "manual__2013-04-04T00:00:00+00:00",
    "logical_date": None,
    "data_interval_start": None,
    "data_interval_end": None,
    "run_after": "2013-04-04T00:00:00Z",
    "start_date": "2013-04-04T00:00:00Z",
    "end_date": "2013-04-04T00:01:00Z",
    "run_type": "manual",
    "state": "failed",
    "consumed_asset_events": [],
    "partition_key": None,
}
NO_TASK = ""


def dag_failed(dag_id: str = "predict_killed", task_id: str = "score", msg: str = "task_failure", **run: Any) -> None:
    """What the DAG processor does when the scheduler says that a run failed; without a task if Airflow knows none."""
    from airflow.callbacks.callback_requests import DagCallbackRequest

    run = {**RUN, "dag_id": dag_id, **run}
    context = {"dag_run": run, "last_ti": _instance(run, task_id) if task_id else None}
    _process(DagCallbackRequest, {"dag_id": dag_id, "run_id": run["run_id"], "context_from_server": context, "msg": msg})


def task_failed(dag_id: str = "predict_killed", task_id: str = "score", max_tries: int = 0, **run: Any) -> None:
    """What it does when the scheduler cleans up a task without heartbeat."""
    from airflow.callbacks.callback_requests import TaskCallbackRequest

    run = {**RUN, "dag_id": dag_id, **run}
    _process(
        TaskCallbackRequest,
        {
            "ti": _instance(run, task_id),
            "task_callback_type": "failed",
            "context_from_server": {"dag_run": run, "max_tries": max_tries},
            "msg": "no heartbeat",
        },
    )


def _instance(run: dict[str, Any], task_id: str) -> dict[str, Any]:
    names = {"dag_id": run["dag_id"], "run_id": run["run_id"], "task_id": task_id}
    return {**names, "id": str(uuid.uuid4()), "dag_version_id": str(uuid.uuid4()), "try_number": 1}


def _process(kind: Any, request: dict[str, Any]) -> None:
    import json

    import structlog
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.dag_processing.processor import _execute_callbacks

    parsed = kind.from_json(json.dumps({"filepath": FILE.name, "bundle_name": "dags-folder", "bundle_version": None, **request}))
    bag = BundleDagBag(dag_folder=str(FILE), bundle_path=FILE.parent, bundle_name="dags-folder", load_op_links=False)
    assert not bag.import_errors
    _execute_callbacks(bag, [parsed], structlog.get_logger())


if __name__ == "__main__":
    dag_failed(run_id=sys.argv[1])
