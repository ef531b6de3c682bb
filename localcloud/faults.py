"""What shall go wrong: asked for over HTTP, by the service, the operation and the subject of a call."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Protocol, get_args

from localcloud.jobs import JobFault
from localcloud.service import Refused

Kind = Literal["throttle", "error", "lose_response", "delay", "fail", "hang", "stop", "kill"]
When = Literal["before", "after"]
# Of a name, what differs from run to run: UUIDs, digests and numbers.
RUN = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|(?<![0-9a-z])[0-9a-f]{8,}(?![0-9a-z])|\d+")


class Call(Protocol):
    """Of a call of any cloud, what a fault can be meant for."""

    @property
    def service(self) -> str: ...

    @property
    def operation(self) -> str: ...

    @property
    def subject(self) -> str: ...

    @property
    def mutating(self) -> bool: ...


class Lost(Exception):
    """The connection is closed without an answer."""


@dataclass
class Fault:
    kind: Kind
    service: str = ""  # empty: any
    operation: str = ""  # empty: any
    match: str = ""  # found in the subject of the call
    times: int = 1  # how many calls more
    seconds: float = 1.0  # of a delay
    status: int = 500  # of an error: 500 or 503
    reason: str = ""  # of a job that fails
    pid: int = 0  # of whom to kill
    when: When | None = None  # kill before or after the call is done; at each boundary None means both
    each_boundary: bool = False  # kill at every boundary that is met for the first time, any number of times

    def meant(self, call: Call) -> bool:
        return (
            self.service in ("", call.service)
            and self.operation in ("", call.operation)
            and re.search(self.match, call.subject) is not None
            and (self.each_boundary or self.times > 0)
            and not (self.each_boundary and not call.mutating)
        )


@dataclass
class Faults:
    """The faults that are asked for, and the boundaries of calls that were met."""

    waiting: list[Fault] = field(default_factory=list)
    boundaries: list[dict[str, str]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def ask(self, raw: Mapping[str, Any]) -> Fault:
        """Raises Refused, naming what a fault does not have."""
        if unknown := raw.keys() - {each.name for each in fields(Fault)}:
            raise Refused("InvalidFault", f"a fault has no {', '.join(sorted(unknown))}")
        try:
            fault = Fault(**raw)
            re.compile(fault.match)
        except (TypeError, re.error) as error:
            raise Refused("InvalidFault", str(error)) from None
        if fault.kind not in get_args(Kind):
            raise Refused("InvalidFault", f"kind must be one of {', '.join(get_args(Kind))}, not {fault.kind}")
        if fault.kind == "kill":
            _check_pid(fault.pid)
            if fault.when not in ((None, "before", "after") if fault.each_boundary else ("before", "after")):
                raise Refused("InvalidFault", "when must be before or after")
        with self._lock:
            self.waiting.append(fault)
        return fault

    def shown(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self.waiting if fault.each_boundary or fault.times > 0]

    def clear(self) -> None:
        with self._lock:
            self.waiting.clear()
            self.boundaries.clear()

    def move(self, pid: int) -> None:
        """The process to kill was started anew."""
        _check_pid(pid)
        with self._lock:
            for fault in self.waiting:
                if fault.kind == "kill":
                    fault.pid = pid

    def take(self, call: Call, *kinds: Kind) -> Fault | None:
        """The first fault of these kinds that is meant for a call; it counts as used."""
        with self._lock:
            for fault in self.waiting:
                if fault.kind in kinds and fault.meant(call):
                    fault.times -= 1
                    return fault
        return None

    def job_fault(self, call: Call) -> JobFault | None:
        fault = self.take(call, "fail", "hang", "stop")
        return JobFault(fault.kind, fault.reason) if fault else None  # type: ignore[arg-type]

    def kill(self, call: Call, when: When) -> None:
        """Kill who is to be killed at this boundary.

        Raises:
            Lost: if somebody was killed.
        """
        with self._lock:
            new = self._met(call, when)
            for fault in self.waiting:
                if fault.kind != "kill" or fault.when not in (None, when) or not fault.meant(call):
                    continue
                if fault.each_boundary and not new:
                    continue
                fault.times -= 1
                with suppress(ProcessLookupError):
                    os.kill(fault.pid, signal.SIGKILL)
                raise Lost

    def _met(self, call: Call, when: When) -> bool:
        """Is this boundary met for the first time since kills at boundaries were asked for?"""
        if not call.mutating or not any(fault.each_boundary and fault.meant(call) for fault in self.waiting):
            return False
        boundary = {
            "service": call.service,
            "operation": call.operation,
            "subject": RUN.sub("", call.subject),
            "when": when,
        }
        if boundary in self.boundaries:
            return False
        self.boundaries.append(boundary)
        return True


def _check_pid(pid: int) -> None:
    if not isinstance(pid, int) or pid <= 1 or pid == os.getpid():
        raise Refused("InvalidFault", f"pid must be that of another process, not {pid!r}")
