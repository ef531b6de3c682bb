"""A real Airflow: scheduler, API server and DAG processor, and a task that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import Inbox, connection, free_port
from .test_failure_mail import one_line

DAG_FILE = """
import os
import signal
from datetime import datetime, timedelta

from airflow.sdk import DAG, task

from include.notifications import FailureMail

mail = FailureMail("flight_delays")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def work():
    pass


def fail():
    raise RuntimeError("no room left")


for dag_id, step, retries in (("predict_killed", die, 1), ("predict_broken", fail, 0)):
    with DAG(
        dag_id,
        schedule="@once",
        start_date=datetime(2013, 4, 3),
        default_args={"on_failure_callback": mail, "retries": retries, "retry_delay": timedelta(0)},
        params={"partition": "2013-04-03"},
        on_failure_callback=mail,
    ):
        task(task_id="score")(step)() >> task(task_id="publish")(work)()
"""


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition: Callable[[], bool], home: Path, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (home / "airflow.log").read_text()[-5000:]
        time.sleep(0.5)


@pytest.mark.slow
def test_killed_and_failed_tasks_are_one_mail_each(serve: Callable[[int], Inbox], tmp_path: Path, lake: Path) -> None:
    (tmp_path / "dags").mkdir()
    port, api = free_port(), free_port()
    inbox = serve(port)
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__DAGS_FOLDER": str(tmp_path / "dags"),
        "AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://127.0.0.1:{api}/execution/",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "2",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/airflow.db",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(tmp_path / "logs"),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
        "AIRFLOW__API__PORT": str(api),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__BASE_URL": f"http://127.0.0.1:{api}",
        "AIRFLOW_CONN_SMTP_DEFAULT": connection(port),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    with (tmp_path / "airflow.log").open("w") as log:
        airflow = subprocess.Popen(["airflow", "standalone"], env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            wait_for(lambda: answers(api), tmp_path)  # a task that finds no API server never starts
            (tmp_path / "dags" / "broken.py").write_text(DAG_FILE)
            wait_for(lambda: bool(inbox.of("predict_killed") and inbox.of("predict_broken")), tmp_path)
            time.sleep(10)  # long enough for a second mail, were there one
        finally:
            os.killpg(airflow.pid, signal.SIGTERM)
            airflow.wait(60)
    (killed,) = inbox.of("predict_killed")
    assert "score ended without saying why: most likely its process was killed" in killed["Subject"]
    assert "Airflow noticed at try 2 of 2 that the process was gone, and failed the run." in one_line(killed)
    assert "Predictions of 2013-04-03 were not published." in one_line(killed)
    (failed,) = inbox.of("predict_broken")
    assert "RuntimeError: no room left" in failed["Subject"]
