"""No alert is lost, and none is sent twice, whatever happens to the mail server or to the sender."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from include.outbox import Mail, put, send_pending

from .conftest import HERE, Inbox, run_dags
from .dag_processor import dag_failed


def a_mail(name: str = "one") -> Mail:
    return Mail(name=name, to=["oncall@example.com"], subject=f"[dev] {name}: broke", text="text", html="<p>html</p>")


@pytest.fixture
def deaf(port: int) -> Iterator[socket.socket]:
    """A mail server that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", port)) as sock:
        yield sock


def test_a_server_that_is_down_changes_no_state_and_loses_no_alert(
    airflow_database: None, port: int, lake: Path, serve: Callable[[int], Inbox]
) -> None:
    down = run_dags("predict_check")
    assert len(list((lake / "outbox").glob("*.json"))) == 1
    assert not list((lake / "outbox").glob("*.sent"))
    inbox = serve(port)
    assert send_pending() == 0
    assert send_pending() == 0
    (mail,) = inbox.mails
    assert "predict_check: feature check failed" in mail["Subject"]
    up = run_dags("predict_check")
    assert down == up
    assert up["predict_check"]["tasks"] == {
        "validate_source": "success",
        "build_features": "failed",
        "publish": "upstream_failed",
    }


def test_the_next_alert_brings_those_that_wait(port: int, serve: Callable[[int], Inbox]) -> None:
    dag_failed(run_id="first")
    inbox = serve(port)
    dag_failed(run_id="second")
    assert len(inbox.mails) == 2
    assert send_pending() == 0


def test_a_deaf_server_takes_bounded_time(deaf: socket.socket) -> None:
    started = time.monotonic()
    dag_failed()
    assert time.monotonic() - started < 15
    assert send_pending(seconds=0.5) == 1


def test_a_server_that_answers_ever_so_slowly_takes_bounded_time(deaf: socket.socket) -> None:
    def drip() -> None:
        client, _ = deaf.accept()
        with client:
            for letter in b"220 " + b"x" * 20:
                time.sleep(1)
                try:
                    client.send(bytes([letter]))
                except OSError:
                    return

    threading.Thread(target=drip, daemon=True).start()
    put(a_mail())
    started = time.monotonic()
    assert send_pending(seconds=7) == 1
    assert 6.5 < time.monotonic() - started < 9


def test_killed_while_sending_the_alert_is_sent_later(
    deaf: socket.socket, port: int, lake: Path, serve: Callable[[int], Inbox]
) -> None:
    sender = subprocess.Popen([sys.executable, str(HERE / "dag_processor.py"), "killed"], cwd=HERE.parents[1])
    deaf.settimeout(60)
    client, _ = deaf.accept()
    sender.send_signal(signal.SIGKILL)
    assert sender.wait() == -signal.SIGKILL
    client.close()
    deaf.close()
    inbox = serve(port)
    assert send_pending() == 0
    assert len(inbox.mails) == 1


def test_killed_before_it_is_marked_the_same_mail_comes_again(inbox: Inbox) -> None:
    put(a_mail())
    sender = subprocess.Popen(
        [sys.executable, "-c", "input(); from include.outbox import send_pending; send_pending()"], stdin=subprocess.PIPE
    )
    inbox.kill = sender.pid
    sender.communicate(b"go\n")
    assert sender.returncode == -signal.SIGKILL
    inbox.kill = None
    assert send_pending() == 0
    first, second = inbox.mails
    assert first["Message-ID"] == second["Message-ID"]
    assert send_pending() == 0 and len(inbox.mails) == 2


def test_many_processes_send_it_once(inbox: Inbox) -> None:
    for number in range(5):
        put(a_mail(f"mail-{number}"))
    code = "input(); from include.outbox import send_pending; send_pending(30)"
    senders = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(3)]
    for sender in senders:
        assert sender.stdin is not None
        sender.stdin.write(b"go\n")
        sender.stdin.close()
    assert [sender.wait() for sender in senders] == [0] * 3
    assert send_pending() == 0
    assert sorted(mail["Subject"] for mail in inbox.mails) == [f"[dev] mail-{number}: broke" for number in range(5)]


def test_only_the_first_writer_of_a_name_counts(inbox: Inbox) -> None:
    assert put(a_mail())
    assert not put(replace(a_mail(), text="another"))
    send_pending()
    assert not put(a_mail())
    send_pending()
    (mail,) = inbox.mails
    body = mail.get_body(("plain",))
    assert body is not None and body.get_content().strip() == "text"


def test_a_refused_mail_holds_up_no_other(inbox: Inbox) -> None:
    inbox.refuse.add("gone@example.com")
    put(replace(a_mail("fine"), at="2026-11-19T00:00:00+00:00"))
    put(replace(a_mail("refused"), to=["gone@example.com"], at="2026-11-20T00:00:00+00:00"))
    assert send_pending() == 1
    assert [mail["Subject"] for mail in inbox.mails] == ["[dev] fine: broke"]


def test_a_mail_without_readers_goes_to_its_sender(inbox: Inbox) -> None:
    put(replace(a_mail(), to=[]))
    assert send_pending() == 0
    assert inbox.mails[0]["To"] == "aileron@example.com"


def test_a_damaged_file_holds_up_no_mail(inbox: Inbox, lake: Path) -> None:
    put(a_mail())
    (lake / "outbox" / "torn.json").write_text('{"name": "to')
    assert send_pending() == 0
    assert len(inbox.mails) == 1


def test_without_a_connection_alerts_wait(monkeypatch: pytest.MonkeyPatch, lake: Path) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_SMTP_DEFAULT", raising=False)
    put(a_mail())
    assert send_pending() == 1


def test_an_outbox_that_cannot_be_written_does_not_stop_the_alert(
    inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("AILERON_OUTBOX", str(tmp_path / "file" / "outbox"))
    dag_failed()
    assert len(inbox.mails) == 1


def test_the_outbox_can_be_moved(inbox: Inbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILERON_OUTBOX", str(tmp_path / "elsewhere"))
    put(a_mail())
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["one.json"]
    send_pending()
    assert {path.name for path in (tmp_path / "elsewhere").iterdir()} == {"one.json", "one.sent"}
