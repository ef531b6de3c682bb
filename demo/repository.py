"""Where the demo's parts are, and how they fail: all that a container of a local cloud needs to know of the rest."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent


class StackFailed(RuntimeError):
    """Airflow did not start, or a part of it died; the message has the end of its log."""
