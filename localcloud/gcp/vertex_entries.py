"""Jobs of Vertex AI as resources: made once, looked at, listed, cancelled, and there after a restart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf import empty_pb2

from localcloud.gcp.containers import CANCELLED, DEADLINE_EXCEEDED, INTERNAL
from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.gcp.vertex_resources import (
    Location,
    Store,
    check_list,
    made,
    new_id,
    not_found,
    now,
    page,
    selected,
    stamp,
    too_late,
)
from localcloud.jobs import Job

STATES = {
    "Pending": "PENDING",
    "Running": "RUNNING",
    "Stopping": "CANCELLING",
    "Failed": "FAILED",
    "Stopped": "CANCELLED",
}
OVER = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED")


@dataclass
class Entry:
    resource: dict[str, Any]  # as it was made; of an earlier life of the cloud, as it has ended
    job: Job | None = None  # none of an earlier life

    @property
    def key(self) -> str:
        return str(self.resource["name"].rpartition("/")[2])


@dataclass(frozen=True)
class Kind:
    """One of Vertex's collections of jobs."""

    collection: str  # as in a resource's name
    message: Any
    prefix: str  # of its states
    name: str  # as in CreateCustomJob
    member: str  # of the answer to a List


class Entries:
    def __init__(self, cloud: Cloud, location: Location, kind: Kind) -> None:
        self._location, self._jobs, self.kind = location, cloud.jobs, kind
        self._lock = threading.Lock()
        self._store = Store(cloud.folder / "vertex" / kind.collection)
        self._entries = {key: Entry(resource) for key, resource in self._store.load().items()}
        for key, entry in self._entries.items():
            if entry.resource["state"] not in OVER:
                entry.resource |= {"state": "FAILED", "end_time": now(), "update_time": now()}
                entry.resource["error"] = {"code": INTERNAL, "message": "The local cloud ended while this job was running."}
                self._store.save(key, entry.resource)

    def methods(self, service: str, requests: Any) -> Methods:
        """Get, List and Cancel. requests: where the classes of their messages are."""
        name = self.kind.name
        listed = getattr(requests, f"List{name}sResponse")
        return {
            f"{service}Get{name}": Method(getattr(requests, f"Get{name}Request"), self.get),
            f"{service}List{name}s": Method(getattr(requests, f"List{name}sRequest"), lambda request: self.list(request, listed)),
            f"{service}Cancel{name}": Method(getattr(requests, f"Cancel{name}Request"), self.cancel),
        }

    def begin(self, resource: Mapping[str, Any]) -> Entry:
        """A new one, whose job is still to be started."""
        name = f"{self._location.name}/{self.kind.collection}/{new_id()}"
        entry = Entry({**resource, "name": name, "state": "PENDING", "create_time": now(), "update_time": now()})
        with self._lock:
            self._entries[entry.key] = entry
        self._store.save(entry.key, entry.resource)
        return entry

    def end(self, entry: Entry, job: Job) -> None:
        """Keep how it ends."""
        entry.job = job
        self._store.save(entry.key, self.shown(entry, job.facts["ends"]))

    def shown(self, entry: Entry, ends: str | None = None) -> dict[str, Any]:
        """As Vertex tells of it now, its state without the prefix. ends: the state in which its job is about to end."""
        job = entry.job
        if job is None:
            return entry.resource
        end = ends or job.state
        state = job.facts.get("completes_as", "SUCCEEDED") if end == "Completed" else STATES[end]
        shown = {**entry.resource, **job.facts.get("told", {}).get(self.kind.collection, {}), "state": state}
        if job.started:
            shown["start_time"] = stamp(job.started)
        if state in OVER and job.ended:
            shown["end_time"] = stamp(job.ended)
        shown["update_time"] = shown.get("end_time") or shown.get("start_time") or shown["create_time"]
        if state == "FAILED":
            shown["error"] = {"code": job.facts.get("code", INTERNAL), "message": job.reason}
        if state == "CANCELLED":
            shown["error"] = {"code": CANCELLED, "message": "CANCELED"}
            if job.expired:
                shown["error"] = {"code": DEADLINE_EXCEEDED, "message": "The job was cancelled: it ran longer than its timeout."}
        return shown

    def message(self, entry: Entry) -> Any:
        shown = self.shown(entry)
        return made(self.kind.message, {**shown, "state": f"{self.kind.prefix}{shown['state']}"})

    def get(self, request: Any) -> Any:
        return self.message(self._found(request.name))

    def list(self, request: Any, answer: Any) -> Any:
        """The newest first."""
        check_list(request)
        self._location.check(request.parent)
        meant = selected(request.filter, ("display_name", "state", "labels"))
        with self._lock:
            entries = list(reversed(self._entries.values()))
        entries.sort(key=lambda entry: str(entry.resource["create_time"]), reverse=True)
        shown = [(entry, self.shown(entry)) for entry in entries]
        wanted = [entry for entry, row in shown if meant({**row, "state": f"{self.kind.prefix}{row['state']}"})]
        part, token = page(request, wanted)
        return answer(**{self.kind.member: [self.message(entry) for entry in part]}, next_page_token=token)

    def cancel(self, request: Any) -> empty_pb2.Empty:
        """Asks for it: the job is cancelled when its program has ended."""
        entry = self._found(request.name)
        state = self.shown(entry)["state"]
        if entry.job is None or state in OVER:
            raise too_late(f"{request.name} is in state {self.kind.prefix}{state} and cannot be cancelled.")
        self._jobs.stop(entry.job)
        return empty_pb2.Empty()

    def _found(self, name: str) -> Entry:
        entry = self._entries.get(self._location.id_of(name, self.kind.collection))
        if entry is None:
            raise not_found(f"The {self.kind.name} {name} does not exist.")
        return entry
