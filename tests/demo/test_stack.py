"""The Airflow of `make up` and `make demo`: starts, runs, listens on loopback only, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import smtplib
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path

import psutil
import pytest

from demo import stack
from demo.airflow_api import RequestRefused
from demo.postgres import running_postgres
from demo.progress import RunFailed, Screen, follow, runs_of, tasks_of, wait_for_dags
from demo.stack import Airflow, StackFailed, running_airflow, wipe
from include.config import REPOSITORY

DAGS = """
import pathlib, subprocess, sys, time
import pendulum
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import CronPartitionTimetable, Param, dag, task
import include.config

DAILY = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format="%Y-%m-%d")
SPAN = dict(start_date=pendulum.datetime(2013, 1, 1), end_date=pendulum.datetime(2013, 12, 31), catchup=False)

@dag("daily", schedule=DAILY, **SPAN)
def daily():
    @task
    def tell(*, dag_run):
        print("partition", dag_run.partition_key)
    tell()
daily()

@dag("breaks", schedule=None)
def breaks():
    @task
    def give_up():
        raise RuntimeError("the reason why")
    give_up()
breaks()

@dag("asks", schedule=None)
def asks():
    HITLOperator(task_id="ask", subject="May it?", options=["Yes", "No"], params={"why": Param("", type="string")})
asks()

@dag("endless", schedule=None)
def endless():
    @task
    def hang():
        # A grandchild in a session of its own: the hardest to find again.
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
        time.sleep(600)
    hang()
endless()
"""

# Starts the stack as `make up` does, says when it is up, and waits to be stopped.
STAND_IN = """
import sys, time
from pathlib import Path
from demo.stack import running_airflow
with running_airflow(Path(sys.argv[1]), dags=Path(sys.argv[2])) as airflow:
    while not airflow.api.has_dag("endless"):
        time.sleep(0.2)
    airflow.api.unpause("endless")
    airflow.api.trigger("endless", "one", {})
    while airflow.api.tasks("endless", "one")[0]["state"] != "running":
        time.sleep(0.2)
    print("RUNNING", flush=True)
    time.sleep(600)
"""


SERVER = """
import sys, time
from pathlib import Path
from demo.postgres import running_postgres
with running_postgres(Path(sys.argv[1])):
    print("UP", flush=True)
    time.sleep(600)
"""


@pytest.fixture(scope="module")
def dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "some.py").write_text(DAGS)
    return folder


@contextmanager
def new_folder() -> Generator[Path]:
    """Not pytest's own: as root PostgreSQL runs as nobody, and every pytest that starts shuts that one for others."""
    folder = Path(tempfile.mkdtemp(prefix="stack-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    with new_folder() as new:
        yield new


@pytest.fixture(scope="module")
def airflow(dags: Path) -> Iterator[Airflow]:
    with new_folder() as folder, running_airflow(folder, dags=dags) as running:
        wait_for_dags(running, Screen(), ["daily", "breaks", "asks", "endless"], seconds=120)
        yield running


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if word in line:
            return
    raise AssertionError("".join(said))


def processes_of(root: Path) -> list[psutil.Process]:
    """Everything alive whose command line, environment or open files name this folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.pid == os.getpid():
                continue
            # A process that gives itself a title overwrites its environment, but it still writes to its log.
            texts = [*process.cmdline(), *process.environ().values(), *(file.path for file in process.open_files())]
            if any(str(root) in text for text in texts):
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
def test_all_components_are_healthy(airflow: Airflow) -> None:
    assert airflow.api.health() == {
        "metadatabase": "healthy",
        "scheduler": "healthy",
        "triggerer": "healthy",
        "dag_processor": "healthy",
    }


@pytest.mark.slow
def test_a_backfill_is_run_by_the_scheduler(airflow: Airflow) -> None:
    airflow.api.unpause("daily")
    airflow.run("backfill", "create", "--dag-id", "daily", "--from-date", "2013-04-01", "--to-date", "2013-04-03")
    runs = {run["dag_run_id"]: run["partition_key"] for run in airflow.api.runs("daily") if run["run_type"] == "backfill"}
    assert sorted(runs.values()) == ["2013-04-01", "2013-04-02", "2013-04-03"]
    follow(airflow, Screen(), [runs_of(airflow, Screen(), "daily", runs)], seconds=120)
    for run_id, key in runs.items():
        assert f"partition {key}" in airflow.api.log("daily", run_id, "tell", 1)


@pytest.mark.slow
def test_a_failed_run_is_told_with_the_reason_in_its_log(airflow: Airflow) -> None:
    airflow.api.unpause("breaks")
    airflow.api.trigger("breaks", "one", {})
    airflow.api.trigger("breaks", "one", {})  # a second time is not an error
    with pytest.raises(RunFailed, match=r"(?s)give_up failed at try 1.*the reason why"):
        follow(airflow, Screen(), [tasks_of(airflow, Screen(), "breaks", "one")], seconds=120)
    assert len(airflow.api.runs("breaks")) == 1


@pytest.mark.slow
def test_a_question_is_answered_as_in_the_form(airflow: Airflow) -> None:
    airflow.api.unpause("asks")
    for run_id in ("one", "two"):
        airflow.api.trigger("asks", run_id, {})
    asked = []

    def answer() -> None:
        for question in airflow.api.questions("asks", "one"):
            asked.append(question["subject"])
            airflow.api.answer(question, "Yes", {"why": "it may"})

    follow(airflow, Screen(), [tasks_of(airflow, Screen(), "asks", "one", answer=answer)], seconds=120)
    assert asked == ["May it?"]
    path = "/dags/asks/dagRuns/one/taskInstances/ask/xcomEntries/return_value?deserialize=true"
    told = airflow.api.get(path)["value"]
    assert told["chosen_options"] == ["Yes"] and told["params_input"] == {"why": "it may"}, told
    assert airflow.api.questions("asks", "one") == []
    with pytest.raises(RunFailed, match=r"not all has ended \(two ask awaiting_input\) after 3 s"):
        follow(airflow, Screen(), [tasks_of(airflow, Screen(), "asks", "two", name="two")], seconds=3)


@pytest.mark.slow
def test_it_listens_on_loopback_only(airflow: Airflow) -> None:
    ours = {process.pid for process in processes_of(airflow.root)} | {os.getpid()}
    listening = [c for c in psutil.net_connections("inet") if c.status == psutil.CONN_LISTEN and c.pid in ours]
    assert int(airflow.api.address.rsplit(":", 1)[1]) in {c.laddr.port for c in listening}
    assert {c.laddr.ip for c in listening} == {"127.0.0.1"}


@pytest.mark.slow
def test_nobody_gets_in_without_the_password(airflow: Airflow) -> None:
    with pytest.raises(RequestRefused) as refused:
        type(airflow.api)(airflow.api.address, "admin", "admin").get("/dags")
    assert refused.value.status == 401
    for secret in ("airflow.env", "airflow/passwords.json", "airflow/secrets.json"):
        assert stat.S_IMODE((airflow.root / secret).stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_second_airflow_in_the_same_folder_is_refused(airflow: Airflow, dags: Path) -> None:
    with pytest.raises(StackFailed, match=r"running in .* already"), running_airflow(airflow.root, dags=dags):
        pass
    with pytest.raises(StackFailed, match=r"running in .* already"):
        wipe(airflow.root)
    assert airflow.api.health()["scheduler"] == "healthy"


@pytest.mark.slow
def test_another_shell_can_use_the_airflow_command(airflow: Airflow) -> None:
    command = f". {airflow.root / 'airflow.env'} && airflow dags list"
    clean = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(["sh", "-c", command], env=clean, capture_output=True, text=True)
    assert "endless" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("signs", ["SIGINT", "SIGHUP", "SIGTERM SIGTERM"])
def test_signals_while_a_task_runs_leave_nothing(folder: Path, dags: Path, signs: str) -> None:
    process = start(STAND_IN, str(folder), str(dags))
    wait_for(process, "RUNNING")
    assert len(processes_of(folder)) > 5
    for sign in signs.split():  # several: `timeout`, make and a terminal all pass theirs on
        process.send_signal(signal.Signals[sign])
    assert process.wait(60) != 0
    assert processes_of(folder) == []


@pytest.mark.slow
@pytest.mark.parametrize("after", [0.5, 2, 4, 8])
def test_a_signal_during_the_start_leaves_nothing(folder: Path, dags: Path, after: float) -> None:
    process = start(STAND_IN, str(folder), str(dags))
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert processes_of(folder) == []


@pytest.mark.slow
def test_what_a_killed_run_leaves_is_stopped_by_the_next(folder: Path, dags: Path) -> None:
    root = folder / "root"
    process = start(STAND_IN, str(root), str(dags))
    wait_for(process, "RUNNING")
    process.kill()
    process.wait()
    assert len(processes_of(root)) > 5
    wipe(root)
    assert processes_of(root) == []
    assert not root.exists()


def test_the_mail_catcher_keeps_what_it_gets(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "aileron@example.com", "oncall@example.com", "it broke"
    message.set_content("and this is why")
    with stack.catching_mail(tmp_path) as port, smtplib.SMTP("127.0.0.1", port) as server:
        server.send_message(message)
    [kept] = tmp_path.glob("*.eml")
    assert "Subject: it broke" in kept.read_text()
    assert "and this is why" in kept.read_text()


@pytest.mark.parametrize("name", ["short", "with space & 'quote'", "deep/" * 20])
def test_postgres_starts_stops_and_keeps_its_data_wherever_it_lies(folder: Path, name: str) -> None:
    import psycopg2

    for expected in ([], [(1,)]):
        with running_postgres(folder / name) as uri:
            connection = psycopg2.connect(uri)
            with connection, connection.cursor() as cursor:
                cursor.execute("CREATE TABLE IF NOT EXISTS kept (x int)")
                cursor.execute("SELECT x FROM kept")
                assert cursor.fetchall() == expected
                cursor.execute("INSERT INTO kept VALUES (1)")
            connection.close()
    assert processes_of(folder / name) == []


def test_postgres_left_running_by_a_killed_run_is_taken_over(folder: Path) -> None:
    process = start(SERVER, str(folder))
    wait_for(process, "UP")
    process.kill()
    process.wait()
    assert processes_of(folder) != []
    with running_postgres(folder):
        pass
    assert processes_of(folder) == []


def test_postgres_does_not_mistake_another_process_for_its_own(folder: Path) -> None:
    with running_postgres(folder):
        pass
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        (folder / "data" / "postmaster.pid").write_text(f"{stranger.pid}\n{folder}/data\n0\n5432\n\n\n\nready\n")
        with running_postgres(folder):
            pass
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_no_process_is_ended_by_a_number_that_is_no_longer_ours(folder: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        for boot, birth in ((psutil.boot_time(), 1.0), (psutil.boot_time() - 86_400, psutil.Process(stranger.pid).create_time())):
            root = folder / str(boot)
            root.mkdir()
            (root / "processes.json").write_text(f'{{"boot": {boot}, "mark": "x", "leaders": {{"{stranger.pid}": {birth}}}}}')
            wipe(root)
            assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()
