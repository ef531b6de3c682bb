"""What a real scheduler is given to do beside a local cloud: one training, some days that are predicted, their monitoring."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from demo import quick
from demo.progress import Screen, follow, follow_tasks, tasks_of, wait_for_dags
from demo.stack import Airflow, running_airflow

PREDICT, TRAIN, ARRIVALS, MONITOR = (f"{kind}_flight_delays" for kind in ("predict", "train", "arrivals", "monitor"))
DAYS = ("2013-02-01", "2013-02-02")
AS_OF = "2013-02-01"


@contextmanager
def airflow_at_work(environment: Callable[[Path], dict[str, str]]) -> Iterator[Airflow]:
    """An Airflow that has trained once and predicted the days, and whose monitoring has followed. All waits are deferred.

    Not below pytest's own folder: PostgreSQL does not run as root, and others may not look into it.

    Args:
        environment: of its processes, by its folder, where `models` are those of the repository, learned quickly.
    """
    root = Path(tempfile.mkdtemp(prefix="aileron-e2e-"))
    root.chmod(0o755)
    quick.models(root / "models")
    with running_airflow(root, extra=environment(root)) as running:
        screen = Screen()
        wait_for_dags(running, screen, [PREDICT, TRAIN, ARRIVALS, MONITOR], seconds=120)
        running.api.unpause(TRAIN)
        running.api.trigger(TRAIN, "first", {"as_of": AS_OF})
        follow_tasks(running, screen, TRAIN, "first", seconds=1200, answer=lambda: _approve(running))
        running.api.unpause(PREDICT)
        running.api.unpause(MONITOR)
        for day in DAYS:
            running.api.trigger(PREDICT, f"of-{day}", {"partition": day})
        follow(running, screen, [tasks_of(running, screen, PREDICT, f"of-{day}", day) for day in DAYS], seconds=1200)
        eventually(lambda: len(running.api.runs(MONITOR)) >= len(DAYS))
        runs = [run["dag_run_id"] for run in running.api.runs(MONITOR)]
        follow(running, screen, [tasks_of(running, screen, MONITOR, run_id, "monitor") for run_id in runs], seconds=1200)
        yield running
    shutil.rmtree(root)


def _approve(airflow: Airflow) -> None:
    for question in airflow.api.questions(TRAIN, "first"):
        airflow.api.answer(question, "Approve", {"why": "seen the report"})


def eventually(done: Callable[[], Any], seconds: float = 300) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := done():
            return found
        time.sleep(1)
    raise AssertionError(f"not within {seconds} s")


def arrivals_are_woken(airflow: Airflow) -> None:
    """The cloud tells of what has landed, and that starts a run; the cron of the DAG does so too."""
    airflow.api.call("PATCH", f"/dags/{PREDICT}", {"is_paused": True})  # what arrivals find is not predicted here
    airflow.api.unpause(ARRIVALS)
    woken = ("asset_triggered", "success")
    eventually(lambda: [run for run in airflow.api.runs(ARRIVALS) if (run["run_type"], run["state"]) == woken])
