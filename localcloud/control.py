"""What a test or a person asks the local cloud itself, below `/_localcloud/`: the log, the ledger of jobs, faults, a reset."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from localcloud.calls import Calls
from localcloud.jobs import Job, Jobs
from localcloud.service import Refused

CONTROL = "/_localcloud/"
THIS_MACHINE = "127.0.0.1"
# What is asked for without a body: given nothing, gives the members of the answer.
Shown = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Control:
    calls: Calls
    jobs: Jobs
    health: Shown
    reset: Callable[[], None]
    more: Mapping[str, Shown] = field(default_factory=dict)  # of one cloud only: what GET gives of it

    def answer(self, method: str, path: str, content_type: str, body: bytes) -> dict[str, Any]:
        """Raises Refused."""
        what = (method, path.removeprefix(CONTROL))
        raw = _members(content_type, body) if method in ("POST", "PUT") else {}
        faults = self.calls.faults
        if what == ("POST", "faults"):
            return asdict(faults.ask(raw))
        if what == ("PUT", "faults/pid"):
            faults.move(raw.get("pid", 0))
            return {}
        shown: dict[tuple[str, str], Shown] = {
            ("GET", "health"): self.health,
            ("GET", "calls"): lambda: {"calls": self.calls.shown()},
            ("GET", "jobs"): lambda: {"jobs": [_shown(job) for job in self.jobs.all()]},
            ("GET", "faults"): lambda: {"faults": faults.shown()},
            ("GET", "boundaries"): lambda: {"boundaries": faults.boundaries},
            **{("GET", name): show for name, show in self.more.items()},
        }
        done: dict[tuple[str, str], Callable[[], None]] = {
            ("DELETE", "calls"): self.calls.clear,
            ("DELETE", "faults"): faults.clear,
            ("POST", "reset"): self.reset,
        }
        if what in shown:
            return shown[what]()
        if what in done:
            done[what]()
            return {}
        raise Refused("NotFound", f"there is no {' '.join(what)} below {CONTROL}", 404)


def listens_on(name: str) -> str:
    """The address for a cloud that its clients know by this name: a network of containers has them elsewhere."""
    return THIS_MACHINE if name == THIS_MACHINE else "0.0.0.0"  # noqa: S104


def check_host(header: str, name: str = THIS_MACHINE) -> None:
    """Refuse a page in a browser whose name has come to mean this machine; `name` is what its clients call it."""
    host = urlsplit(f"//{header}").hostname or ""
    if host not in ("127.0.0.1", "localhost", name):
        raise Refused("AccessDenied", f"{host!r} is not this machine: use http://127.0.0.1 and path-style addresses", 403)


def _members(content_type: str, body: bytes) -> dict[str, Any]:
    # A page in a browser cannot send this type elsewhere without asking first, and is never answered.
    if content_type.partition(";")[0] != "application/json":
        raise Refused("InvalidRequest", "the body must be of type application/json", 415)
    try:
        raw = json.loads(body or b"{}")
    except ValueError as error:
        raise Refused("InvalidRequest", f"the body is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise Refused("InvalidRequest", "the body must be a JSON object")
    return raw


def _shown(job: Job) -> dict[str, Any]:
    """A job in the ledger of what would be billed."""
    return {
        "service": job.service,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "created": _iso(job.created),
        "started": _iso(job.started),
        "ended": _iso(job.ended),
        "billed_seconds": job.billed_seconds,
        "instance_type": job.facts.get("instance_type"),
        "instance_count": job.facts.get("instance_count"),
        "tags": job.facts.get("tags", {}),
        "stops": job.stops,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
