"""A worker that dies at every call which changes something in a cloud, before it and after it, until its run has ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from include.config import REPOSITORY

MOST_KILLS = 400


class Place(Protocol):
    """Where runs work: tests.aws.places or tests.gcp.places.

    kills: by service, what is found in the calls at which workers die.
    """

    cloud: Any
    kills: Mapping[str, str]

    def environment(self, **chosen: str) -> dict[str, str]: ...


@dataclass
class Killed:
    """What has become of a run whose worker was killed again and again."""

    place: Place
    run_id: str
    boundaries: list[dict[str, str]] = field(default_factory=list)
    kills: int = 0
    seconds: float = 0.0
    jobs: list[dict[str, Any]] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)

    @property
    def operations(self) -> set[str]:
        return {boundary["operation"] for boundary in self.boundaries}


def run_of(run_id: str) -> DagRun:
    with create_session() as session:
        return session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()


def killed_everywhere(
    place: Place, log: Path, asked: dict[str, Any], look: Callable[[], None] = lambda: None, **chosen: str
) -> Killed:
    """Do a run, its worker being killed at every boundary that is met for the first time; `look` after each death."""
    cloud, found, began = place.cloud, Killed(place, asked["run_id"]), time.monotonic()
    jobs_before, calls_before = len(cloud.jobs()), len(cloud.calls())
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AILERON_", "AWS_", "GOOGLE_"))}
    answers, answer = os.pipe()
    with (
        log.open("a") as output,
        os.fdopen(answers) as told,
        subprocess.Popen(
            [sys.executable, "-m", "tests.worker", str(answer)],
            cwd=REPOSITORY, env=environment | place.environment(**chosen), text=True, pass_fds=[answer],
            stdin=subprocess.PIPE, stdout=output, stderr=output,
        ) as worker,
    ):  # fmt: skip
        os.close(answer)
        orders = worker.stdin
        assert orders is not None

        def say(line: str) -> str:
            """Tell the worker something, and hear its answer."""
            orders.write(line + "\n")
            orders.flush()
            heard = told.readline()
            assert heard, f"the worker is gone: {log.read_text()[-5000:]}"
            return heard

        try:
            for service, match in place.kills.items():
                cloud.fault("kill", service, match=match, pid=worker.pid, each_boundary=True)
            status = -1
            while status != 0:
                cloud.move_kills(int(say(json.dumps(asked))))
                status = int(say("go"))
                assert os.WIFSIGNALED(status) or status == 0, f"it was not killed, and failed: {log.read_text()[-5000:]}"
                asked = {"dag_id": asked["dag_id"], "run_id": asked["run_id"], "again": True}
                found.kills += os.WIFSIGNALED(status)
                assert found.kills < MOST_KILLS
                look()
            found.boundaries = cloud.boundaries()
        finally:
            cloud.forget_faults()
            orders.close()
    found.seconds = time.monotonic() - began
    found.jobs, found.calls = cloud.jobs()[jobs_before:], cloud.calls()[calls_before:]
    met = Counter(f"{boundary['service']} {boundary['operation']}" for boundary in found.boundaries)
    print(
        f"\n{asked['dag_id']}: {found.kills} deaths at {len(found.boundaries)} boundaries in {found.seconds:.0f} s: {dict(met)}"
    )
    return found
