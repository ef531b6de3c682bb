"""A whole Airflow on this machine: metadata in an embedded PostgreSQL, LocalExecutor, a mail catcher. No Docker.

Everything listens on loopback only and lives below one folder. Each component of Airflow is a process of its own, as
`airflow standalone` would start it, but without the log servers, which listen on every address of the machine.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from demo.airflow_api import AirflowApi, RequestRefused
from demo.postgres import running_postgres, stop_postgres
from demo.repository import REPOSITORY, StackFailed
from demo.signals import deferred_signals, terminating

COMPONENTS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
}
AIRFLOW = [sys.executable, "-m", "airflow"]
HEALTHY = {"metadatabase", "scheduler", "triggerer", "dag_processor"}
USER = "admin"
MARK = "AILERON_STACK"  # an environment variable by which a process is known to be of this Airflow
STARTS_WITHIN = 180.0  # seconds; ten on a free machine


@dataclass(frozen=True)
class Airflow:
    """A running Airflow: where it is, how to log in, and the environment of its processes."""

    api: AirflowApi
    root: Path
    lake: Path
    mail: Path
    user: str
    password: str = field(repr=False)
    environment: dict[str, str] = field(repr=False)
    check: Callable[[], None] = field(repr=False)  # raises StackFailed if a component has died

    @property
    def logs(self) -> Path:
        return self.root / "airflow" / "logs"

    def run(self, *arguments: str) -> str:
        """What `airflow <arguments>` prints.

        Raises:
            StackFailed: if it fails.
        """
        done = subprocess.run(
            [*AIRFLOW, *arguments], env=self.environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise StackFailed(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout


@contextmanager
def running_airflow(
    root: Path,
    *,
    dags: Path = REPOSITORY / "dags",
    port: int | None = None,
    extra: dict[str, str] | None = None,
    say: Callable[[str], None] = print,
) -> Generator[Airflow]:
    """Starts Airflow below `root` and stops all of it at the end: also after an exception, Ctrl-C, SIGTERM or SIGHUP,
    also while it is starting. What a killed run left behind is stopped first. Must be called in the main thread.

    Args:
        root: its folder: airflow/ (AIRFLOW_HOME), postgres/, mail/, and lake/ unless `extra` sets AILERON_LAKE.
        dags: the DAG folder.
        port: of the API and the UI; a free one by default.
        extra: more environment variables of all processes; its PYTHONPATH comes before what they have anyway.
        say: told how the start goes on.

    Raises:
        StackFailed: if another Airflow runs in this folder, or it does not become healthy.
    """
    root = root.resolve()
    stack = ExitStack()
    with terminating():
        try:
            yield _start(stack, root, dags, port or _free_port(), extra or {}, say)
        finally:
            with deferred_signals():
                stack.close()


def _start(stack: ExitStack, root: Path, dags: Path, port: int, extra: dict[str, str], say: Callable[[str], None]) -> Airflow:
    began = time.monotonic()
    home, mail = root / "airflow", root / "mail"
    with deferred_signals():  # nothing is started without its end being on the stack
        stack.enter_context(_only_one(root))
        _stop_leftovers(root)
        (home / "logs").mkdir(parents=True, exist_ok=True)
        database = stack.enter_context(running_postgres(root / "postgres"))
        mail_port = stack.enter_context(catching_mail(mail))
    password = _secret(home / "passwords.json", USER, 12)
    environment = _environment(root, dags, database, port, mail_port)
    environment |= extra | {"PYTHONPATH": _joined(extra.get("PYTHONPATH"), environment["PYTHONPATH"])}
    _write_private(root / "airflow.env", _exports(environment, extra))
    processes = _Processes(root, environment)
    stack.callback(processes.stop)
    airflow = Airflow(
        api=AirflowApi(f"http://127.0.0.1:{port}", USER, password),
        root=root,
        lake=Path(environment["AILERON_LAKE"]),
        mail=mail,
        user=USER,
        password=password,
        environment=environment,
        check=processes.check,
    )
    say("Creating the metadata database")
    processes.start("db-migrate", ["db", "migrate"])
    processes.wait_for("db-migrate", STARTS_WITHIN)
    say("Starting " + ", ".join(COMPONENTS))
    for name, arguments in COMPONENTS.items():
        processes.start(name, arguments)
    _wait_until_healthy(airflow, processes)
    say(f"Airflow is up after {time.monotonic() - began:.0f} s")
    return airflow


def wipe(root: Path) -> None:
    """Removes a folder of `running_airflow`, with whatever a killed run left running in it.

    Raises:
        StackFailed: if an Airflow is being run in it right now.
    """
    root = root.resolve()
    if root.exists():
        with _only_one(root):
            _stop_leftovers(root)
            shutil.rmtree(root)


def _environment(root: Path, dags: Path, database: str, port: int, mail_port: int) -> dict[str, str]:
    """Of every process. Of the caller's own Airflow, if there is one, nothing is inherited."""
    home, address = root / "airflow", f"http://127.0.0.1:{port}"
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW_", "_AIRFLOW_"))}
    if inherited.pop("PYTHONDONTWRITEBYTECODE", None):
        # Not a wish to compile Airflow anew in each of its processes: the bytecode goes where it disturbs nobody.
        inherited["PYTHONPYCACHEPREFIX"] = str(REPOSITORY / ".local" / "pycache")
    slots = max(4, 2 * (os.cpu_count() or 1))
    airflow = {
        "API__BASE_URL": address,
        "API__HOST": "127.0.0.1",
        "API__PORT": str(port),
        "API__SECRET_KEY": _secret(home / "secrets.json", "secret_key", 48),
        "API__WORKERS": "1",
        "API_AUTH__JWT_SECRET": _secret(home / "secrets.json", "jwt_secret", 64),
        "CORE__AUTH_MANAGER": "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "CORE__DAGS_FOLDER": str(dags),
        "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__PARALLELISM": str(slots),
        "CORE__PLUGINS_FOLDER": str(REPOSITORY / "plugins"),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
        "CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
        "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
        "DATABASE__SQL_ALCHEMY_CONN": database.replace("postgresql:", "postgresql+psycopg2:", 1),
        "LOGGING__BASE_LOG_FOLDER": str(home / "logs"),
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",  # a second by default, which is most of a short task's time
        "USAGE_DATA_COLLECTION__ENABLED": "False",
        # Five by default, by which a process is noticed too late to have ended: the scheduler then takes a task that has waited,
        # deferred, for less than that for one that has died, and tries it again.
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    unsecured = {"disable_ssl": True, "disable_tls": True, "from_email": "aileron@example.com"}
    smtp = {"conn_type": "smtp", "host": "127.0.0.1", "port": mail_port, "extra": unsecured}
    return (
        inherited
        | {f"AIRFLOW__{key}": value for key, value in airflow.items()}
        | {
            "AIRFLOW_CONN_FS_DEFAULT": json.dumps({"conn_type": "fs", "extra": {"path": "/"}}),
            "AIRFLOW_CONN_SMTP_DEFAULT": json.dumps(smtp),
            "AIRFLOW_HOME": str(home),
            "AILERON_LAKE": str(Path(os.environ.get("AILERON_LAKE") or root / "lake").resolve()),
            "DO_NOT_TRACK": "1",
            "GX_ANALYTICS_ENABLED": "False",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "NO_PROXY": "127.0.0.1,localhost",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
            "PYTHONPATH": _joined(str(REPOSITORY), os.environ.get("PYTHONPATH")),
            "PYTHONUNBUFFERED": "1",
        }
    )


def _joined(*paths: str | None) -> str:
    """Search paths one after another, each of their folders once."""
    return os.pathsep.join(dict.fromkeys(part for path in paths if path for part in path.split(os.pathsep) if part))


def _exports(environment: dict[str, str], extra: Collection[str]) -> str:
    """What another shell must source for its `airflow` command to talk to this Airflow, and to the cloud that it works on."""
    ours = {"PATH", "PYTHONPATH", *extra}
    wanted = sorted(key for key in environment if key.startswith(("AIRFLOW_", "AILERON_")) or key in ours)
    return "".join(f"export {key}={shlex.quote(environment[key])}\n" for key in wanted)


class _Processes:
    """The processes of one Airflow: each the leader of a session, so that everything it starts can be found again.

    Process groups do not suffice: Airflow gives every task a group of its own.
    """

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self._file, self._logs = root / "processes.json", root / "airflow" / "logs"
        self._environment = environment | {MARK: secrets.token_hex(8)}
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, arguments: Sequence[str]) -> None:
        with deferred_signals(), Path(self._log(name)).open("ab") as log:
            self._started[name] = subprocess.Popen(
                [*AIRFLOW, *arguments],
                env=self._environment,
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            leaders = {str(p.pid): _birth(p.pid) for p in self._started.values()}
            known = {"boot": psutil.boot_time(), "mark": self._environment[MARK], "leaders": leaders}
            _write_private(self._file, json.dumps(known))

    def wait_for(self, name: str, seconds: float) -> None:
        try:
            if self._started[name].wait(seconds) != 0:
                raise StackFailed(f"{name} failed; the end of {self._log(name)}:\n{self.log_tail(name)}")
        except subprocess.TimeoutExpired:
            raise StackFailed(f"{name} took more than {seconds:.0f} s; see {self._log(name)}:\n{self.log_tail(name)}") from None

    def stop(self) -> None:
        """Ends all of them, and all that they started."""
        _stop_sessions([p.pid for p in self._started.values()], self._environment[MARK])
        for process in self._started.values():
            process.wait()
        self._file.unlink(missing_ok=True)

    def check(self) -> None:
        """Raises StackFailed if a component has died."""
        for name in COMPONENTS:
            code = self._started[name].poll()
            if code is not None:
                raise StackFailed(f"{name} ended with code {code}; the end of {self._log(name)}:\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 25) -> str:
        file = self._log(name)
        return "\n".join(file.read_text(errors="replace").splitlines()[-lines:]) if file.is_file() else "(no log)"

    def _log(self, name: str) -> Path:
        return self._logs / f"{name}.log"


def _stop_leftovers(root: Path) -> None:
    """Ends what an earlier run of this folder left running, and nothing else: a number may be another process's by now."""
    file = root / "processes.json"
    try:
        known = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        known = None
    if known and abs(known["boot"] - psutil.boot_time()) < 5:
        leaders = [int(pid) for pid, birth in known["leaders"].items() if _birth(int(pid)) in (birth, None)]
        _stop_sessions(leaders, known["mark"])
    file.unlink(missing_ok=True)
    stop_postgres(root / "postgres")


def _stop_sessions(leaders: Sequence[int], mark: str) -> None:
    """Asks the leaders first (Airflow then ends its own children), then everyone, then no one is asked."""
    asked = {pid for pid in leaders if psutil.pid_exists(pid)}
    for sign, seconds, whom in ((signal.SIGINT, 6, asked), (signal.SIGTERM, 3, None), (signal.SIGKILL, 5, None)):
        members = _members(leaders, mark)
        for process in members:
            if whom is None or process.pid in whom:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(sign)
        until = time.monotonic() + seconds
        while _members(leaders, mark) and time.monotonic() < until:
            time.sleep(0.05)
        if not _members(leaders, mark):
            return


def _members(leaders: Sequence[int], mark: str) -> list[psutil.Process]:
    """The living processes of these sessions, and those that left them but still carry the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if os.getsid(process.pid) in leaders or process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _birth(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None


def _wait_until_healthy(airflow: Airflow, processes: _Processes) -> None:
    until, missing = time.monotonic() + STARTS_WITHIN, HEALTHY
    while time.monotonic() < until:
        processes.check()
        try:
            healthy = {component for component, state in airflow.api.health().items() if state == "healthy"}
        except (OSError, RequestRefused):
            healthy = set()
        if healthy >= HEALTHY:
            return
        missing = HEALTHY - healthy
        time.sleep(0.2)
    tails = "\n".join(f"--- {name}\n{processes.log_tail(name)}" for name in COMPONENTS)
    raise StackFailed(f"not healthy after {STARTS_WITHIN:.0f} s: {', '.join(sorted(missing))}; the ends of the logs:\n{tails}")


@contextmanager
def _only_one(root: Path) -> Generator[None]:
    """One Airflow per folder. The kernel lets go of the lock when its holder dies, however it dies."""
    root.mkdir(parents=True, exist_ok=True)
    with Path(root / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackFailed(f"an Airflow is running in {root} already: stop it first (Ctrl-C in its terminal)") from None
        yield


@contextmanager
def catching_mail(folder: Path) -> Generator[int]:
    """A mail server that keeps every message as a file of `folder` and sends none on. Yields its port."""
    from aiosmtpd.controller import Controller

    class Keep:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            (folder / f"{time.time_ns()}.eml").write_bytes(envelope.content)
            return "250 kept"

    folder.mkdir(parents=True, exist_ok=True)
    controller = Controller(Keep(), hostname="127.0.0.1", port=_free_port())
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _secret(file: Path, name: str, size: int) -> str:
    """A random secret that stays the same from start to start, in a file that only its owner can read."""
    known: dict[str, str] = json.loads(file.read_text()) if file.is_file() else {}
    if name not in known:
        known[name] = secrets.token_urlsafe(size)
        _write_private(file, json.dumps(known) + "\n")
    return known[name]


def _write_private(file: Path, content: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=file.parent)  # mode 0600
    with os.fdopen(handle, "w") as out:
        out.write(content)
    Path(temporary).replace(file)
