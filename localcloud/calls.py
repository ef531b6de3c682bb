"""The log of calls, and what befalls a call by the faults that are asked for: the same for every cloud."""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from localcloud.faults import Call, Faults, Lost
from localcloud.jobs import coming_fault
from localcloud.service import Refused

T = TypeVar("T")


@dataclass
class Logged:
    """One call, in the order of arrival."""

    service: str
    operation: str
    subject: str
    mutating: bool
    params: dict[str, Any]
    at: str
    status: int | None = None  # None while it is answered, 0 if the connection was closed without an answer
    error: str = ""


class Calls:
    """Every call so far, and the faults that wait for the next ones."""

    def __init__(self) -> None:
        self.faults = Faults()
        self._logged: list[Logged] = []
        self._lock = threading.Lock()

    def shown(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(call) for call in self._logged]

    def clear(self) -> None:
        with self._lock:
            self._logged.clear()

    def note(self, call: Call, params: dict[str, Any]) -> Logged:
        """Put a call at the end of the log."""
        at = datetime.now(UTC).isoformat()
        logged = Logged(call.service, call.operation, call.subject, call.mutating, params, at)
        with self._lock:
            self._logged.append(logged)
        return logged

    def strange(self, shown: str, error: Refused) -> None:
        """Note a request that is no call we know."""
        at = datetime.now(UTC).isoformat()
        with self._lock:
            self._logged.append(Logged("?", shown, "", True, {}, at, error.status, f"{error.code}: {error.message}"))

    @contextmanager
    def noted(self, call: Call, params: dict[str, Any], internal: str) -> Iterator[Logged]:
        """Note a call, and how it ends; with an error only if there is one, else its status is for the caller to set.

        Args:
            internal: the code of an error that is the cloud's own fault.

        Raises:
            Refused: in the place of any error that is none of these two.
            Lost: if the connection shall be closed without an answer.
        """
        logged = self.note(call, params)
        try:
            yield logged
        except Lost:
            logged.status, logged.error = 0, "the connection was closed"
            raise
        except Refused as error:
            logged.status, logged.error = error.status, f"{error.code}: {error.message}"
            raise
        except Exception as error:
            traceback.print_exc()
            fault = Refused(internal, f"a fault of the local cloud: {type(error).__name__}: {error}", 500)
            logged.status, logged.error = fault.status, f"{fault.code}: {fault.message}"
            raise fault from None

    def disturbed(self, call: Call, answer: Callable[[], T], throttled: Refused, broken: Callable[[int], Refused]) -> T:
        """Answer a call, with the faults that are meant for it.

        Args:
            throttled: how this cloud says that it is asked too often.
            broken: how it says that it has an error, given the status.
        """
        self.faults.kill(call, "before")
        if fault := self.faults.take(call, "delay"):
            time.sleep(fault.seconds)
        if self.faults.take(call, "throttle"):
            raise throttled
        if fault := self.faults.take(call, "error"):
            raise broken(fault.status)
        token = coming_fault.set(lambda: self.faults.job_fault(call))
        try:
            answered = answer()
        finally:
            coming_fault.reset(token)
        self.faults.kill(call, "after")
        if self.faults.take(call, "lose_response"):
            raise Lost
        return answered
