"""A mail server of our own on a free port, and DAG runs in processes of their own."""

from __future__ import annotations

import email
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from email import policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller

HERE = Path(__file__).parent


class Inbox:
    """What a mail server has taken; `refuse` names readers it does not know, `kill` a sender that dies before the answer."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.refuse: set[str] = set()
        self.kill: int | None = None

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.refuse:
            return "550 no such reader"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.mails.append(email.message_from_bytes(envelope.content, policy=policy.default))
        if self.kill:
            os.kill(self.kill, signal.SIGKILL)
        return "250 OK"

    def of(self, dag_id: str) -> list[EmailMessage]:
        return [mail for mail in self.mails if re.search(rf"\] {dag_id}\b", mail["Subject"])]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def connection(port: int) -> str:
    """The value of AIRFLOW_CONN_SMTP_DEFAULT for a server on this port."""
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "aileron@example.com"}
    return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra})


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[int], Inbox]]:
    """Starts a mail server on a port."""
    controllers = []

    def start(port: int) -> Inbox:
        inbox = Inbox()
        controller = Controller(inbox, hostname="127.0.0.1", port=port)
        controller.start()
        controllers.append(controller)
        return inbox

    yield start
    for controller in controllers:
        controller.stop()


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> int:
    """The port of the configured mail server, which nobody has started yet."""
    port = free_port()
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", connection(port))
    return port


@pytest.fixture
def inbox(port: int, serve: Callable[[int], Inbox]) -> Inbox:
    """The mail server, running."""
    return serve(port)


def run_dags(*dag_ids: str, **environment: str) -> Mapping[str, Any]:
    """Run DAGs of dags/failing_dags.py with dag.test(): {dag id: {"state": ..., "tasks": {task id: state}}}."""
    done = subprocess.run(
        [sys.executable, str(HERE / "dags" / "failing_dags.py"), *dag_ids],
        env={**os.environ, "AIRFLOW__CORE__DAGS_FOLDER": str(HERE / "dags"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    results = [json.loads(line.removeprefix("RESULT ")) for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return {result["dag"]: result for result in results}
