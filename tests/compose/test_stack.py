"""docker-compose.yaml on a real engine: `make test-compose PROFILE=local`, or celery, aws, gcp. One story, in this order."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from demo.airflow_api import AirflowApi
from demo.progress import READS
from tests.compose import standins
from tests.compose.engine import Engine, engine
from tests.conftest import ROOT

pytestmark = [pytest.mark.compose, pytest.mark.timeout(3600)]

PREDICT, TRAIN, MONITOR = (f"{kind}_flight_delays" for kind in ("predict", "train", "monitor"))
PROFILE = os.environ.get("AILERON_COMPOSE_PROFILE") or "local"
CLOUDS = {"aws": "demo.aws_cloud", "gcp": "demo.google_cloud"}  # and what lands days there
BESIDE = {"local": (), "celery": ("broker", "worker"), "aws": ("aws",), "gcp": ("gcp",)}[PROFILE]
RUNNING = ("api-server", "dag-processor", "mail", "postgres", "scheduler", "triggerer", *BESIDE)
TASKS_RUN_IN = "worker" if PROFILE == "celery" else "scheduler"
on_the_volume = pytest.mark.skipif(PROFILE in CLOUDS, reason="looks at the lake that is a volume")
PROJECT = f"aileron-test-{os.getpid()}"
# Ends the first child of the container's first process, which the container cannot outlive; nothing is told before.
CRASH = "import os; os.kill(int(open('/proc/1/task/1/children').read().split()[0]), 9)"
# What readers see, and every publication of the ledger.
LOOK = """
import json, pathlib
lake = pathlib.Path('/opt/airflow/lake')
read = sorted(path.parent.name.partition('=')[2] for path in lake.glob('predictions/flight_delays/*/data.parquet'))
told = [json.loads(path.read_text())['body']['partition'] for path in lake.glob('ledger/publication/flight_delays/*.json')]
print(json.dumps({'read': read, 'told': sorted(told)}))
"""


@dataclass(frozen=True)
class Stack:
    engine: Engine
    compose: tuple[str, ...]
    api: AirflowApi
    mail: str

    def run(self, *arguments: str, timeout: float = 600) -> str:
        """`docker compose <arguments>`. Its standard output."""
        run = subprocess.run(
            [*self.compose, *arguments],
            cwd=ROOT, env=self.engine.environment, stdout=subprocess.PIPE, text=True, timeout=timeout,
        )  # fmt: skip
        assert run.returncode == 0, f"{' '.join(arguments)}: {run.returncode}\n{run.stdout[-4000:]}"
        return run.stdout

    def container(self, service: str) -> Any:
        return json.loads(self.engine.docker("inspect", self.run("ps", "--all", "--quiet", service).strip()))[0]

    def python(self, code: str, service: str = "scheduler") -> str:
        return self.run("exec", "-T", service, "python", "-c", code)

    def succeeded(self, dag_id: str) -> dict[str, str]:
        """The runs that have succeeded: their ids and partitions."""
        return {run["dag_run_id"]: run["partition_key"] for run in self.api.runs(dag_id) if run["state"] == "success"}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="aileron-compose-") as folder:
        yield from _running(Path(folder))


def _running(folder: Path) -> Iterator[Stack]:
    """Not in a folder of pytest's: another pytest removes those of old ones, and `down` needs what is in it."""
    for name in ("Makefile", ".env.example", "requirements.lock", "requirements.txt"):
        shutil.copy(ROOT / name, folder)
    subprocess.run(["make", "-s", "compose-env"], cwd=folder, check=True)
    ports = {name: _free_port() for name in ("AIRFLOW_PORT", "MAIL_PORT")}
    with (folder / ".env").open("a") as file:
        file.writelines(f"{name}={port}\n" for name, port in ports.items())
        file.write("" if PROFILE == "local" else f"COMPOSE_PROFILES={PROFILE}\n")
    settings = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines() if line[:1].isalpha())
    with ExitStack() as ending:
        found = ending.enter_context(engine())
        if found.ours:
            standins.make(found)
        command = (*_compose(found.environment), "--project-name", PROJECT, "--env-file", str(folder / ".env"))
        address = f"http://127.0.0.1:{ports['AIRFLOW_PORT']}"
        api = AirflowApi(address, "admin", settings["AIRFLOW_ADMIN_PASSWORD"])
        running = Stack(found, command, api, f"http://127.0.0.1:{ports['MAIL_PORT']}")
        ending.callback(running.run, "down", "--volumes", "--remove-orphans")
        for service in ("init", *(BESIDE if PROFILE in CLOUDS else ())):
            running.run("build", service, timeout=1800)
        running.run("up", "--detach")
        yield running


def test_it_comes_up_healthy_with_every_dag(stack: Stack) -> None:
    eventually(lambda: all(_health(stack, service) == "healthy" for service in RUNNING))
    assert all(state == "healthy" for state in stack.api.health().values())
    eventually(lambda: all(stack.api.has_dag(dag) for dag in (PREDICT, TRAIN, MONITOR)))
    assert stack.api.import_errors() == []
    assert stack.container("init")["State"]["ExitCode"] == 0


def test_nothing_is_open_that_need_not_be(stack: Stack) -> None:
    """As the engine has it, whatever the file says."""
    for service in RUNNING:
        container = stack.container(service)
        opened = [each for bindings in container["NetworkSettings"]["Ports"].values() for each in bindings or []]
        assert {each["HostIp"] for each in opened} <= {"127.0.0.1"}
        assert bool(opened) == (service in ("api-server", "mail"))
        assert not container["HostConfig"]["Privileged"]
        for mount in container["Mounts"]:
            assert mount["Type"] == "volume" or not mount["RW"], f"{service}: {mount['Source']}"
            assert "docker.sock" not in mount["Source"]
    assert stack.python("import os; print(os.getuid())").strip() == "50000"
    with pytest.raises(AssertionError):
        stack.python("open('/opt/airflow/include/new.py', 'w')")


def test_it_trains_and_predicts(stack: Stack) -> None:
    _land(stack, "land", "2013-01-01", "2013-02-10")
    _land(stack, "outcomes", "2013-01-01", "2013-02-08")
    stack.api.unpause(TRAIN)
    stack.api.trigger(TRAIN, "first", {"as_of": "2013-02-01"})
    eventually(lambda: _trained(stack), 900)
    for dag_id in (PREDICT, MONITOR):
        stack.api.unpause(dag_id)
    _backfill(stack, "2013-02-01", "2013-02-02")
    eventually(lambda: {"2013-02-01", "2013-02-02"} <= set(stack.succeeded(PREDICT).values()), 900)
    eventually(lambda: {"2013-02-01", "2013-02-02"} <= set(stack.succeeded(MONITOR).values()), 600)


def test_its_pages_can_be_looked_at(stack: Stack) -> None:
    with urllib.request.urlopen(f"{stack.api.address}/auth/login/", timeout=30) as page:
        assert page.status == 200 and b"password" in page.read()
    with urllib.request.urlopen(f"{stack.mail}/api/v1/messages", timeout=30) as answer:
        assert "messages" in json.loads(answer.read())


@on_the_volume
def test_a_scheduler_or_worker_that_is_killed_comes_back_and_goes_on(stack: Stack) -> None:
    """With the tasks that ran in its container."""
    _backfill(stack, "2013-02-03", "2013-02-05")
    eventually(lambda: any(task["state"] == "running" for task in _tasks(stack)), 120)
    before = stack.container(TASKS_RUN_IN)["RestartCount"]
    _crash(stack, TASKS_RUN_IN, "python", "-c", CRASH)
    eventually(lambda: stack.container(TASKS_RUN_IN)["RestartCount"] > before, 60)
    eventually(lambda: _looked(stack)["read"] == [f"2013-02-0{day}" for day in range(1, 6)], 1200)
    assert _looked(stack)["told"] == [f"2013-02-0{day}" for day in range(1, 6)], "each is published once"


@on_the_volume
def test_a_database_that_is_killed_comes_back_with_all_it_had(stack: Stack) -> None:
    runs = stack.succeeded(TRAIN) | stack.succeeded(PREDICT)
    _backfill(stack, "2013-02-06", "2013-02-07")
    eventually(lambda: any(task["state"] == "running" for task in _tasks(stack)), 120)
    before = stack.container("postgres")["RestartCount"]
    # PostgreSQL's word for an end without a checkpoint: it recovers from its log, as after a crash.
    _crash(stack, "postgres", "bash", "-c", "kill -QUIT 1")
    eventually(lambda: stack.container("postgres")["RestartCount"] > before, 60)
    eventually(lambda: _looked(stack)["read"] == [f"2013-02-0{day}" for day in range(1, 8)], 1200)
    assert _looked(stack)["told"] == [f"2013-02-0{day}" for day in range(1, 8)], "each is published once"
    eventually(lambda: runs.items() <= (stack.succeeded(TRAIN) | stack.succeeded(PREDICT)).items())
    eventually(lambda: all(_health(stack, service) == "healthy" for service in RUNNING))


def eventually(done: Callable[[], Any], seconds: float = 300) -> Any:
    """While a part is away, so is the API: that is no answer yet."""
    until, last = time.monotonic() + seconds, ""
    while time.monotonic() < until:
        try:
            if found := done():
                return found
        except (OSError, RuntimeError, AssertionError) as error:
            last = str(error)
        time.sleep(2)
    raise AssertionError(f"not within {seconds} s: {last}")


def _land(stack: Stack, what: str, first: str, last: str) -> None:
    if PROFILE in CLOUDS:
        address = f"http://{PROFILE}:4599"
        stack.run("exec", "-T", PROFILE, "python", "-m", CLOUDS[PROFILE], what, first, last, "--url", address, timeout=1200)
    else:
        stack.run("run", "--rm", "simulator", what, first, last)


def _backfill(stack: Stack, first: str, last: str) -> None:
    """One at a time for a DAG, says Airflow."""
    eventually(lambda: all(each["completed_at"] for each in stack.api.get(f"/backfills?dag_id={PREDICT}")["backfills"]))
    stack.run(
        *("exec", "-T", "scheduler", "airflow", "backfill", "create", "--dag-id", PREDICT),
        *("--from-date", first, "--to-date", last, "--max-active-runs", "2"),
    )


def _trained(stack: Stack) -> bool:
    """The first model of all needs a yes, which comes by the API as from the form of the UI."""
    for question in stack.api.questions(TRAIN, "first"):
        time.sleep(READS)  # whoever answers within the second that it is asked in may come before Airflow has seen it asked
        stack.api.answer(question, "Approve", {"why": "seen the report"})
    return "first" in stack.succeeded(TRAIN)


def _tasks(stack: Stack) -> list[dict[str, Any]]:
    unfinished = [run["dag_run_id"] for run in stack.api.runs(PREDICT) if run["state"] == "running"]
    return [task for run in unfinished for task in stack.api.tasks(PREDICT, run)]


def _looked(stack: Stack) -> dict[str, list[str]]:
    looked: dict[str, list[str]] = json.loads(stack.python(LOOK, "api-server"))
    return looked


def _crash(stack: Stack, service: str, *command: str) -> None:
    """Whatever that answers: it may be gone before it can."""
    subprocess.run(
        [*stack.compose, "exec", "-T", service, *command], cwd=ROOT, env=stack.engine.environment, capture_output=True, timeout=60
    )


def _health(stack: Stack, service: str) -> str:
    return str(stack.container(service)["State"]["Health"]["Status"])


def _compose(environment: Mapping[str, str]) -> tuple[str, ...]:
    for command in (("docker", "compose"), ("docker-compose",)):
        try:
            if subprocess.run([*command, "version"], env=environment, capture_output=True).returncode == 0:
                return command
        except FileNotFoundError:
            continue
    pytest.skip("there is an engine, but no Docker Compose (Debian: apt-get install docker-compose)")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
