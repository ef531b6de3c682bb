"""Mails that tell or ask something, where nothing has failed: an approval is awaited, a model was rolled back.

Each has a name and is sent once under it, however often the task that writes it is tried. What cannot be sent now waits in
the outbox, and no task fails because of a mail.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from include import outbox
from include.config import ModelConfig, settings
from include.notifications import render_mail, run_url

log = logging.getLogger(__name__)


def send(
    model: ModelConfig,
    *,
    name: str,
    to: Sequence[str],
    subject: str,
    paragraphs: Sequence[str],
    dag_run: Any,
    link: tuple[str, str] | None = None,
) -> None:
    """Put a mail into the outbox and try to send it; never raises.

    Args:
        name: its identity, letters, digits, _ and - only.
        link: what to click first, as text and URL; the run is linked in any case.
    """
    try:
        view = {
            "title": model.title,
            "headline": subject,
            "paragraphs": list(paragraphs),
            "link": {"text": link[0], "url": link[1]} if link else None,
            "run_url": run_url(dag_run.dag_id, dag_run.run_id),
            "facts": {
                "Environment": settings().environment,
                "Owner": model.owner.team,
                "DAG": dag_run.dag_id,
                "Run id": dag_run.run_id,
                "Code revision": settings().revision,
            },
        }
        mail = outbox.Mail(
            name=name,
            to=list(to),
            subject=f"[{settings().environment}][tier {model.tier}] {subject}",
            text=render_mail("notice_mail.txt", view),
            html=render_mail("notice_mail.html", view),
        )
        outbox.put(mail)
        outbox.send_pending()
    except Exception:
        log.exception("The mail %s could not be written.", name)
