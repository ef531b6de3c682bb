"""Shows runs of a real Airflow while they happen, and why one failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from demo.airflow_api import RequestRefused
from demo.stack import Airflow

FINISHED = {"success", "failed", "skipped", "upstream_failed", "removed"}
BAD = {"failed", "upstream_failed"}
BUSY = {"running", "queued", "deferred", "awaiting_input"}
POLL = 1.0  # seconds
READS = 3.0  # seconds: nobody reads faster
LOG_LINES = 40

Watch = Callable[[], str | None]  # looks once: what is going on, or None when it has ended


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

    def more(self, text: str) -> None:
        """A line that belongs to the one before."""
        print(f"{self._erase()}{'':12}{text}", flush=True)

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

    _poll(airflow, parsed, seconds, lambda: f"{', '.join(dag_ids)}: not parsed; see {airflow.logs / 'dag-processor.log'}")


def follow(airflow: Airflow, screen: Screen, watches: Iterable[Watch], seconds: float) -> None:
    """Until all of them have ended; meanwhile, what each says is going on.

    Raises:
        RunFailed: if a run does not succeed, or not in time.
    """
    watched = list(watches)
    last: list[str] = []

    def ended() -> bool:
        found = [(watch, watch()) for watch in watched]
        watched[:] = [watch for watch, now in found if now is not None]
        last[:] = [now for _, now in found if now]
        screen.now(" | ".join(last))
        return not watched

    _poll(airflow, ended, seconds, lambda: f"not all has ended ({' | '.join(last)})")


def follow_tasks(
    airflow: Airflow, screen: Screen, dag_id: str, run_id: str, seconds: float, answer: Callable[[], None] | None = None
) -> None:
    """`follow` for the tasks of one run."""
    follow(airflow, screen, [tasks_of(airflow, screen, dag_id, run_id, answer=answer)], seconds)


def tasks_of(
    airflow: Airflow, screen: Screen, dag_id: str, run_id: str, name: str = "", answer: Callable[[], None] | None = None
) -> Watch:
    """One line for each task of a run that has ended.

    Args:
        name: what to call the run, where several are shown.
        answer: called whenever a task of it waits for a person, once one could have read what it asks. Airflow has yet to
            notice that the process which asked has ended: an answer at once may make it try again.
    """
    shown: set[tuple[str, int, int]] = set()
    asked: list[float] = []

    def watch() -> str | None:
        run = airflow.api.run(dag_id, run_id)  # before its tasks: once it has ended, nothing of them changes any more
        if run["state"] == "queued":
            return f"{name} queued".strip()
        tasks = airflow.api.tasks(dag_id, run_id)
        for task in sorted(tasks, key=lambda task: task["end_date"] or ""):
            identity = (task["task_id"], task["map_index"], task["try_number"])
            if task["state"] in FINISHED | {"up_for_retry"} and identity not in shown:
                shown.add(identity)
                screen.say(f"{dag_id} {name:<11} {task['task_id']:<24} {task['state']:<14} {_duration(task)}")
        if answer and any(task["state"] == "awaiting_input" for task in tasks):
            asked.append(time.monotonic())
            if asked[-1] - asked[0] >= READS:
                answer()
        else:
            asked.clear()
        busy = [f"{task['task_id']} {task['state']}" for task in tasks if task["state"] in BUSY]
        return None if _check_end(airflow, dag_id, run) else f"{name} {', '.join(busy) or run['state']}".strip()

    return watch


def runs_of(airflow: Airflow, screen: Screen, dag_id: str, runs: Mapping[str, str]) -> Watch:
    """One line for each run that has ended; fails as soon as one does. `runs`: what to call each run id."""
    open_runs = dict(runs)

    def watch() -> str | None:
        states = {run["dag_run_id"]: run for run in airflow.api.runs(dag_id)}
        for run_id, name in list(open_runs.items()):
            if _check_end(airflow, dag_id, states[run_id]):
                del open_runs[run_id]
                screen.say(f"{dag_id} {name:<11} {'':<24} {states[run_id]['state']:<14} {_duration(states[run_id])}".rstrip())
        return ", ".join(f"{name} {states[run_id]['state']}" for run_id, name in open_runs.items()) or None

    return watch


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


def _poll(airflow: Airflow, done: Callable[[], bool], seconds: float, late: Callable[[], str]) -> None:
    until = time.monotonic() + seconds
    while not done():
        airflow.check()
        if time.monotonic() > until:
            raise RunFailed(f"{late()} after {seconds:.0f} s")
        time.sleep(POLL)


def _duration(thing: dict[str, Any]) -> str:
    return f"{thing['duration']:.1f} s" if thing.get("duration") is not None else ""
