"""Jobs of Dataflow as resources: their states, times and messages, by the names of its REST interface."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from localcloud.gcp.vertex_resources import now, stamp
from localcloud.jobs import Job

STATES = {
    "Pending": "JOB_STATE_QUEUED",
    "Running": "JOB_STATE_RUNNING",
    "Stopping": "JOB_STATE_CANCELLING",
    "Completed": "JOB_STATE_DONE",
    "Failed": "JOB_STATE_FAILED",
    "Stopped": "JOB_STATE_CANCELLED",
}
OVER = ("Completed", "Failed", "Stopped")


@dataclass
class Entry:
    resource: dict[str, Any]  # as it was launched; of an earlier life of the cloud, as it has ended
    job: Job | None = None  # none of an earlier life

    def die(self) -> None:
        """It was running when the cloud ended."""
        self.resource |= {"currentState": "JOB_STATE_FAILED", "currentStateTime": now()}
        self.resource["messages"] = [
            *self.resource.get("messages", ()),
            _message(9, self.resource["currentStateTime"], "ERROR", "The local cloud ended while this job was running."),
        ]


def of_job(
    key: str,
    name: str,
    project: str,
    region: str,
    labels: Mapping[str, str],
    parameters: Mapping[str, str],
    settings: Mapping[str, Any],
    created: datetime,
) -> dict[str, Any]:
    """A job that has just been launched."""
    account = {"serviceAccountEmail": settings["serviceAccountEmail"]} if "serviceAccountEmail" in settings else {}
    temp = {"tempStoragePrefix": settings["tempLocation"]} if "tempLocation" in settings else {}
    return {
        "id": key,
        "projectId": project,
        "name": name,
        "type": "JOB_TYPE_BATCH",
        "currentState": "JOB_STATE_QUEUED",
        "currentStateTime": stamp(created),
        "createTime": stamp(created),
        "location": region,
        **({"labels": dict(labels)} if labels else {}),
        "environment": {**account, **temp, "sdkPipelineOptions": {"options": dict(parameters)}},
    }


def shown(entry: Entry, ends: str | None = None) -> dict[str, Any]:
    """As it is now. ends: the state in which its job is about to end."""
    job = entry.job
    if job is None:
        return entry.resource
    state = ends or job.state
    moment = (job.ended if state in OVER else None) or (datetime.now(UTC) if state == "Stopping" else job.started) or job.created
    if state == "Stopping":
        moment = job.facts.setdefault("stopped_at", moment)
    started = {"startTime": stamp(job.started)} if job.started else {}
    return {**entry.resource, **started, "currentState": STATES[state], "currentStateTime": stamp(moment)}


def told(entry: Entry, ends: str | None = None) -> list[dict[str, Any]]:
    """The messages so far, the oldest first."""
    job = entry.job
    if job is None:
        return list(entry.resource.get("messages", ()))
    state = ends or job.state
    rows = [_message(0, stamp(job.created), "BASIC", "The job was created and is queued.")]
    if job.started:
        rows.append(_message(1, stamp(job.started), "BASIC", "The worker has started."))
    if state == "Failed" and job.ended:
        rows.append(_message(2, stamp(job.ended), "ERROR", job.reason))
    if state in OVER and job.ended:
        rows.append(_message(3, stamp(job.ended), "BASIC", f"The job is {STATES[state]}."))
    return rows


def _message(number: int, time: str, importance: str, text: str) -> dict[str, Any]:
    return {"id": f"{number:03}", "time": time, "messageImportance": f"JOB_MESSAGE_{importance}", "messageText": text}
