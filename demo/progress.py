"""Shows runs of a real Airflow while they happen, and why one failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from demo.airflow_api import RequestRefused
from demo.stack import Airflow

FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}
BAD = {"failed", "upstream_failed"}
POLL = 0.5
LOG_LINES = 40


class RunFailed(RuntimeError):
    """A run failed, or took too long; the message names its failed tasks, with the end of their logs."""


class Screen:
    """Lines with the time since the start and, on a terminal, one line that changes in place."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._live = sys.stdout.isatty()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def say(self, text: str) -> None:
        print(f"{self._erase()}{self.seconds:6.1f} s  {text}", flush=True)

    def now(self, text: str) -> None:
        """What is going on at the moment; the next line takes its place."""
        if self._live:
            print(f"{self._erase()}          {text[:100]}", end="", flush=True)

    def _erase(self) -> str:
        return "\r\x1b[K" if self._live else ""


def wait_for_dags(airflow: Airflow, screen: Screen, dag_ids: list[str], seconds: float) -> None:
    """Until Airflow has parsed these DAGs.

    Raises:
        RunFailed: with what went wrong at the import of the DAG files.
    """

    def parsed() -> bool:
        screen.now("parsing DAGs")
        errors = airflow.api.import_errors()
        if errors:
            raise RunFailed("DAGs cannot be imported:\n" + "\n".join(errors))
        return all(airflow.api.has_dag(dag_id) for dag_id in dag_ids)

    _poll(airflow, parsed, seconds, f"{', '.join(dag_ids)}: not parsed; see {airflow.logs / 'dag-processor.log'}")


def follow_tasks(airflow: Airflow, screen: Screen, dag_id: str, run_id: str, seconds: float) -> None:
    """One line for each task of a run that has ended.

    Raises:
        RunFailed: if the run does not succeed, or not in time.
    """
    shown: set[tuple[str, int, int]] = set()

    def ended() -> bool:
        run = airflow.api.run(dag_id, run_id)  # before its tasks: once it has ended, nothing of them changes any more
        tasks = airflow.api.tasks(dag_id, run_id)
        for task in sorted(tasks, key=lambda task: task["end_date"] or ""):
            identity = (task["task_id"], task["map_index"], task["try_number"])
            if task["state"] in FINISHED | {"up_for_retry"} and identity not in shown:
                shown.add(identity)
                screen.say(f"{dag_id:<22} {task['task_id']:<24} {task['state']:<14} {_duration(task)}")
        screen.now(
            ", ".join(
                f"{task['task_id']} {task['state']}" for task in tasks if task["state"] in ("running", "queued", "deferred")
            )
        )
        return _check_end(airflow, dag_id, run)

    _poll(airflow, ended, seconds, f"{dag_id} {run_id} has not ended")


def follow_runs(airflow: Airflow, screen: Screen, dag_id: str, runs: Mapping[str, str], seconds: float) -> None:
    """One line for each run that has ended. `runs`: what to call each run id.

    Raises:
        RunFailed: as soon as one does not succeed, or if they do not all end in time.
    """
    open_runs = dict(runs)

    def ended() -> bool:
        states = {run["dag_run_id"]: run for run in airflow.api.runs(dag_id)}
        for run_id, name in list(open_runs.items()):
            if _check_end(airflow, dag_id, states[run_id]):
                del open_runs[run_id]
                screen.say(f"{dag_id:<22} {name:<24} {states[run_id]['state']:<14} {_duration(states[run_id])}")
        screen.now(", ".join(f"{name} {states[run_id]['state']}" for run_id, name in open_runs.items()))
        return not open_runs

    _poll(airflow, ended, seconds, f"{dag_id}: not all runs have ended")


def _check_end(airflow: Airflow, dag_id: str, run: dict[str, Any]) -> bool:
    if run["state"] == "failed":
        raise RunFailed(f"{dag_id} {run['dag_run_id']} failed\n{_why(airflow, dag_id, run['dag_run_id'])}")
    return bool(run["state"] == "success")


def _why(airflow: Airflow, dag_id: str, run_id: str) -> str:
    """The failed tasks with the ends of their logs; tasks that failed only because these did are left out."""
    tasks = airflow.api.tasks(dag_id, run_id)
    texts = []
    for task in [t for t in tasks if t["state"] == "failed"] or [t for t in tasks if t["state"] in BAD]:
        try:
            log = airflow.api.log(dag_id, run_id, task["task_id"], max(task["try_number"], 1), task["map_index"])
        except (RequestRefused, OSError) as error:
            log = f"(its log cannot be read: {error})"
        tail = "\n".join(log.splitlines()[-LOG_LINES:])
        texts.append(f"--- {task['task_id']} {task['state']} at try {task['try_number']}; the end of its log:\n{tail}")
    return "\n".join(texts) or f"(no task failed; see {airflow.logs / 'scheduler.log'})"


def _poll(airflow: Airflow, done: Callable[[], bool], seconds: float, late: str) -> None:
    until = time.monotonic() + seconds
    while not done():
        airflow.check()
        if time.monotonic() > until:
            raise RunFailed(f"{late} after {seconds:.0f} s")
        time.sleep(POLL)


def _duration(thing: dict[str, Any]) -> str:
    return f"{thing['duration']:.1f} s" if thing.get("duration") is not None else ""
