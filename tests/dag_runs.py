"""Real runs of real DAGs, without a scheduler: `dag.test()` with what it cannot be told, such as the partition key.

`python -m tests.dag_runs '{"dag_id": ..., "conf": ...}' ...` does one run after the other, in a process of its own and the
environment that it is given; with "again" in the object, it is `run_again`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import airflow.models
import airflow.models.dagrun as dagrun_module
from airflow.dag_processing.dagbag import DagBag
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.models.trigger import handle_event_submit
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunType
from sqlalchemy import select
from sqlalchemy.orm import configure_mappers

from tests.background import again_and_again

ROOT = Path(__file__).resolve().parents[1]
NO_RUNS = datetime(1900, 1, 1, tzinfo=UTC)  # dag.test() clears all runs of the date it is given
ENDED = {"success", "failed", "skipped", "upstream_failed", "removed"}


def load_dag(dag_id: str) -> Any:
    """A DAG of this repository, parsed in the environment of the test."""
    bag = DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder")
    assert bag.import_errors == {}, bag.import_errors
    return bag.dags[dag_id]


def run_dag(
    dag_id: str,
    partition: str | None = None,
    conf: dict[str, Any] | None = None,
    run_type: DagRunType = DagRunType.MANUAL,
    run_id: str | None = None,
    answer: str | Callable[[], str] = "Approve",
) -> DagRun:
    """Run a DAG to its end, as if it had been started for a partition. Look at `.state`: a failed run does not raise.

    `answer` is what a person says, at once, when a task asks for one, or what is called to know; "" lets the time run out.
    """

    def create(**arguments: Any) -> DagRun:
        dag = arguments.pop("dag")
        own = {"logical_date": None, "data_interval": None, "partition_key": partition, "run_type": run_type}
        own |= {"state": DagRunState.RUNNING, "run_id": run_id or arguments["run_id"]}
        return dag.create_dagrun(**{**arguments, **own})

    with _answering(answer):
        return _run(load_dag(dag_id), create, conf)


def run_again(dag_id: str, run_id: str, tasks: Collection[str] = (), answer: str | Callable[[], str] = "Approve") -> DagRun:
    """The same run once more, with the given tasks cleared; without any, those that have not succeeded."""
    with create_session() as session:
        instances = _run_of(dag_id, run_id, session).get_task_instances(session=session)
        for instance in instances:
            if str(instance.state) not in ENDED:
                instance.state = "failed"  # as the scheduler finds when a process has gone
        chosen = [ti for ti in instances if (ti.task_id in tasks if tasks else str(ti.state) not in ("success", "skipped"))]
        clear_task_instances(chosen, session, dag_run_state=DagRunState.RUNNING)

    def get(*, dag: Any, session: Any, **arguments: Any) -> DagRun:
        run = _run_of(dag_id, run_id, session)
        run.dag, run.state = dag, DagRunState.RUNNING  # it may never have run: then it is still queued
        session.commit()
        return run

    with _answering(answer):
        return _run(load_dag(dag_id), get, None)


def states(run: DagRun) -> dict[str, str]:
    """Task id → state."""
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


@contextmanager
def _answering(answer: str | Callable[[], str]) -> Iterator[None]:
    """Answer the questions of tasks, as the form of the UI does; or as the scheduler does when the time is over."""

    def answer_all() -> None:
        with create_session() as session:
            for instance in session.scalars(select(TaskInstance).where(TaskInstance.state == "awaiting_input")):
                detail = session.scalars(select(HITLDetail).where(HITLDetail.ti_id == instance.id)).one_or_none()
                if detail is None:
                    continue
                said = answer() if callable(answer) else answer
                detail.responded_at = datetime.now(UTC)
                detail.chosen_options = [said] if said else detail.defaults
                detail.responded_by = {"id": "ada", "name": "ada"} if said else None
                detail.params_input = {"why": "seen the report"} if said else {}
                event = TriggerEvent(detail.as_resume_event_payload(timedout=not said))
                handle_event_submit(event, task_instance=instance, session=session)

    # Before the thread asks for the first time: two threads that make the mappings at once get in each other's way.
    airflow.models.import_all_models()
    configure_mappers()
    with again_and_again(answer_all, 0.1):
        yield


def _run(dag: Any, run: Callable[..., DagRun], conf: dict[str, Any] | None) -> DagRun:
    for task in dag.tasks:
        task.retry_delay = timedelta(0)
    pause, waiting = time.sleep, type(dag).test.__code__

    def sleep(seconds: float) -> None:
        """dag.test() pauses for a second wherever a failure has left nothing to do, again and again."""
        pause(0.01 if sys._getframe(1).f_code is waiting else seconds)

    with mock.patch.object(dagrun_module, "get_or_create_dagrun", run), mock.patch.object(time, "sleep", sleep):
        return dag.test(logical_date=NO_RUNS, run_conf=conf)


def _run_of(dag_id: str, run_id: str, session: Any) -> DagRun:
    return session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).one()


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        asked = json.loads(argument)
        ended = run_again(**asked) if asked.pop("again", False) else run_dag(**asked)
        print(f"run {ended.run_id} {ended.state}", flush=True)
