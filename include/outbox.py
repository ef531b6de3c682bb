"""Mails on their way: written to the outbox first, sent second, marked as sent last.

So no alert is lost when a mail server is down or a process is killed at any of the three steps: what is not marked is
sent again, under the same Message-ID, which mail clients show once. A mail's name is its identity: the second writer
of a name is told so, which is how many failing tasks of one run become one mail.

The outbox is a folder, or any place that ObjectStoragePath can reach (AILERON_OUTBOX=s3://bucket/outbox); workers and
DAG processor must see the same one.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from typing import Any

from include import couriers, storage
from include.config import settings

log = logging.getLogger(__name__)

# Airflow kills a task's process 20 s after the task has ended, callbacks included, and a failed task that is killed
# there is retried although it must not be. Sending has to be over well before.
CALLBACK_SECONDS = 12.0


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Mail:
    """One mail as it will be sent. `name` identifies it in the outbox; `to` may be empty: then the sender gets it."""

    name: str
    to: list[str]
    subject: str
    text: str
    html: str
    answers: str = ""  # name of an earlier mail: mail clients show both as one conversation
    at: str = field(default_factory=_now)


def put(mail: Mail) -> bool:
    """Write a mail into the outbox; False if one of this name is there already, sent or not.

    Raises:
        OSError: if the outbox cannot be written.
    """
    return storage.create_once(_outbox() / f"{mail.name}.json", json.dumps(asdict(mail), indent=1).encode())


def send_pending(seconds: float = CALLBACK_SECONDS) -> int:
    """Send what has not been sent yet, the newest first, for at most so many seconds; how many are still waiting then.

    A mail server that is down, slow or refuses a mail raises nothing: it is logged, and the mails wait for the next call.
    """
    mails = _pending()
    if mails:
        send(mails, seconds)
    return len(_pending())


def send(mails: list[Mail], seconds: float = CALLBACK_SECONDS) -> None:
    """Send these mails now, in this order, and mark each as sent. Raises nothing, and returns within the given seconds."""
    # A socket timeout limits one step of the talk with a server, not the talk, and no name look-up. A thread does.
    deadline = time.monotonic() + seconds
    thread = threading.Thread(target=_send, args=(mails, deadline), name="outbox", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        log.warning("The mail server did not answer within %g s; the alerts wait in the outbox.", seconds)


def _send(mails: list[Mail], deadline: float) -> None:
    try:
        with couriers.opened() as deliver:
            for mail in mails:
                if time.monotonic() > deadline:
                    return
                with _claim(mail) as ours:
                    if not ours or _is_sent(mail):
                        continue
                    try:
                        deliver(partial(message, mail))
                    except couriers.Refused as error:
                        log.warning("Alert %s stays in the outbox: %s", mail.name, error)
                        continue
                    storage.create_once(_outbox() / f"{mail.name}.sent", _now().encode())
    except Exception as error:
        log.warning("The alerts wait in the outbox, no mail could be sent: %s: %s", type(error).__name__, error)


def message(mail: Mail, sender: str) -> EmailMessage:
    """The mail as it goes over the wire: text and HTML, an identity that never changes, no answers from robots."""
    built = EmailMessage(policy=SMTP)
    built["From"] = sender
    built["To"] = ", ".join(mail.to or [sender])
    built["Subject"] = mail.subject
    built["Date"] = format_datetime(datetime.fromisoformat(mail.at))
    built["Message-ID"] = f"<{mail.name}@aileron>"
    if mail.answers:
        built["References"] = f"<{mail.answers}@aileron>"
    built["Auto-Submitted"] = "auto-generated"
    built.set_content(mail.text)
    built.add_alternative(mail.html, subtype="html")
    return built


def _pending() -> list[Mail]:
    outbox = _outbox()
    names = set(storage.names(outbox))
    waiting = [name for name in names if name.endswith(".json") and not name.startswith(".") and f"{name[:-5]}.sent" not in names]
    mails = []
    for name in waiting:
        try:
            mails.append(Mail(**json.loads(storage.read(outbox / name))))
        except (TypeError, ValueError) as error:
            log.error("%s is no mail (%s); remove it.", outbox / name, error)
    return sorted(mails, key=lambda mail: mail.at, reverse=True)


@contextmanager
def _claim(mail: Mail) -> Generator[bool]:
    """True for one process at a time; the kernel lets go when it dies. Also true for a mail that is in no outbox.

    Object stores have no such lock: two who send at once send the same Message-ID twice.
    """
    path = _outbox() / f"{mail.name}.json"
    if path.protocol != "file" or not storage.exists(path):
        yield True
        return
    with Path(path.path).open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def _is_sent(mail: Mail) -> bool:
    return storage.exists(_outbox() / f"{mail.name}.sent")


def _outbox() -> Any:
    return storage.place(os.environ.get("AILERON_OUTBOX") or f"{settings().lake}/outbox")
