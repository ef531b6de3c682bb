"""Who carries a mail out of the outbox: a mail server, or Amazon's; and who is told beside it.

AILERON_MAIL=smtp (the connection smtp_default) or ses (AILERON_SES_SENDER, a verified address). AILERON_SNS_TOPIC: the ARN of a
topic that gets the text of every mail too, for pagers and chats.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

log = logging.getLogger(__name__)

CONNECTION = "smtp_default"
SUBJECT_LENGTH, TEXT_BYTES = 99, 250_000  # of SNS
HURRY = {"connect_timeout": 5, "read_timeout": 5, "retries": {"total_max_attempts": 1}}

Build = Callable[[str], EmailMessage]
"""Makes the message of a mail, given its sender."""


class Refused(Exception):
    """This message was refused for good; the next one may go."""


@contextmanager
def opened() -> Generator[Callable[[Build], None], None, None]:
    """What delivers a message.

    Raises:
        ValueError: if the environment names no courier that there is.
        Refused: from a delivery; anything else that it raises means that nobody can be reached now.
    """
    couriers = {"smtp": _smtp, "ses": _ses}
    name, topic = os.environ.get("AILERON_MAIL") or "smtp", os.environ.get("AILERON_SNS_TOPIC")
    if name not in couriers:
        raise ValueError(f"AILERON_MAIL {name!r} must be one of {', '.join(couriers)}")
    with couriers[name]() as send:

        def deliver(build: Build) -> None:
            send(build)
            if topic:
                _publish(topic, build(""))

        yield deliver


@contextmanager
def _smtp() -> Generator[Callable[[Build], None], None, None]:
    from smtplib import SMTPRecipientsRefused, SMTPResponseException, SMTPServerDisconnected

    from airflow.providers.smtp.hooks.smtp import SmtpHook

    class Hook(SmtpHook):
        """Airflow's own, with its connection settings, but in a hurry: by default it waits 6 times 30 s."""

        timeout = 5
        smtp_retry_limit = 0

    with Hook(CONNECTION) as hook:
        sender = hook.from_email
        if not sender:
            raise ValueError(f"connection {CONNECTION} has no from_email in its extra")

        def send(build: Build) -> None:
            message = build(sender)
            try:
                # The hook itself can send HTML only; its client is what knows TLS and log-in.
                refused = hook._smtp_client.send_message(message)  # type: ignore[union-attr]
            except SMTPServerDisconnected:
                raise
            except (SMTPRecipientsRefused, SMTPResponseException) as error:
                raise Refused(f"the mail server refused it: {error}") from error
            if refused:
                log.warning("%s reached not all of its readers, refused: %s", message["Subject"], refused)

        yield send


@contextmanager
def _ses() -> Generator[Callable[[Build], None], None, None]:
    from airflow.providers.amazon.aws.hooks.ses import SesHook
    from botocore.exceptions import ClientError

    sender = os.environ.get("AILERON_SES_SENDER")
    if not sender:
        raise ValueError("AILERON_MAIL=ses needs AILERON_SES_SENDER, an address that SES has verified")
    client = SesHook(aws_conn_id=_connection(), config=_config()).conn

    def send(build: Build) -> None:
        message = build(sender)
        readers = [one.strip() for one in message["To"].split(",")]
        try:
            client.send_raw_email(Source=sender, Destinations=readers, RawMessage={"Data": message.as_bytes()})
        except ClientError as error:
            if error.response["Error"]["Code"] == "MessageRejected":
                raise Refused(f"SES refused it: {error}") from error
            raise

    yield send


def _publish(topic: str, message: EmailMessage) -> None:
    from airflow.providers.amazon.aws.hooks.sns import SnsHook

    body = message.get_body(("plain",))
    text = (body.get_content() if body else "").encode()[:TEXT_BYTES].decode(errors="ignore")
    # A subject of SNS is one line of ASCII.
    subject = "".join(char if " " <= char <= "~" else "?" for char in message["Subject"])[:SUBJECT_LENGTH]
    SnsHook(aws_conn_id=_connection(), config=_config()).conn.publish(TopicArn=topic, Subject=subject, Message=text)


def _connection() -> str:
    return os.environ.get("AILERON_AWS_CONNECTION") or "aws_default"


def _config() -> Any:
    from botocore.config import Config

    return Config(**HURRY)
