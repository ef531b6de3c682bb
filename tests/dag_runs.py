"""Real runs of real DAGs, without a scheduler: `dag.test()` with what it cannot be told, the partition key and run type."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest import mock

import airflow.models.dagrun as dagrun_module
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.utils.types import DagRunType

from tests.conftest import ROOT


def load_dag(dag_id: str) -> Any:
    """A DAG of this repository, parsed in the environment of the test."""
    bag = DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder")
    assert bag.import_errors == {}, bag.import_errors
    return bag.dags[dag_id]


def run_dag(
    dag_id: str, partition: str | None = None, conf: dict[str, Any] | None = None, run_type: DagRunType | None = None, **kwargs: Any
) -> DagRun:
    """Run a DAG to its end, as if it had been started for a partition. Look at `.state`: a failed run does not raise."""
    create = dagrun_module.get_or_create_dagrun

    def with_partition(**arguments: Any) -> DagRun:
        run = create(**arguments)
        run.partition_key = partition
        run.run_type = run_type or run.run_type
        arguments["session"].commit()
        return run

    dag = load_dag(dag_id)
    for task in dag.tasks:
        task.retry_delay = timedelta(0)
    with mock.patch.object(dagrun_module, "get_or_create_dagrun", with_partition):
        return dag.test(logical_date=None, run_conf=conf, **kwargs)


def states(run: DagRun) -> dict[str, str]:
    """Task id → state."""
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
