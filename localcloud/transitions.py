"""The secondary status of training jobs: how far they are, and when each step began."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from localcloud.jobs import Job


def note(job: Job, status: str, message: str = "") -> None:
    """From now on."""
    now = datetime.now(UTC)
    noted: list[dict[str, Any]] = job.facts.setdefault("transitions", [])
    if noted:
        noted[-1].setdefault("EndTime", now)
    noted.append({"Status": status, "StartTime": now, "StatusMessage": message or f"{status} the training job"})


def ended(job: Job) -> None:
    """The last of them."""
    end = job.facts["ends"]
    note(job, "MaxRuntimeExceeded" if end == "Stopped" and job.expired else end)
    job.facts["transitions"][-1]["EndTime"] = job.ended


def transitions(job: Job) -> list[dict[str, Any]]:
    first = {"Status": "Starting", "StartTime": job.created, "StatusMessage": "Launching requested ML instances"}
    return [first, *job.facts.get("transitions", ())]


def secondary(job: Job) -> str:
    return str(transitions(job)[-1]["Status"])
