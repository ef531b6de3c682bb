"""Remote work: a job is asked for, starts a little later, runs for a while, and ends in one of three ways."""

from __future__ import annotations

import math
import subprocess
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from localcloud.children import Children
from localcloud.service import Delays

State = Literal["Pending", "Running", "Stopping", "Completed", "Failed", "Stopped"]
OVER = ("Completed", "Failed", "Stopped")


class JobFailed(Exception):
    """Why a job has failed, as AWS would say it."""


class JobStopped(Exception):
    """Raised in the work of a job that is being stopped."""


@dataclass(frozen=True)
class JobFault:
    """What shall happen to a job instead of its work."""

    kind: Literal["fail", "hang", "stop"]
    reason: str = ""


# Set while a call is answered: a job that it creates takes the fault that is meant for it, if any.
coming_fault: ContextVar[Callable[[], JobFault | None] | None] = ContextVar("coming_fault", default=None)


@dataclass
class Job:
    service: str
    kind: str
    name: str
    request: dict[str, Any]
    children: Children = field(repr=False)
    delays: Delays = field(repr=False)
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: datetime | None = None
    ended: datetime | None = None
    state: State = "Pending"
    reason: str = ""
    facts: dict[str, Any] = field(default_factory=dict)  # what the service keeps of it
    stops: int = 0  # how often a stop was asked for
    expired: bool = False  # it was stopped because its time was up
    on_line: Callable[[str], None] | None = field(default=None, repr=False)  # is told every line of the log
    stopping: threading.Event = field(default_factory=threading.Event, repr=False)
    over: threading.Event = field(default_factory=threading.Event, repr=False)
    _lines: list[str] = field(default_factory=list, repr=False)
    _readers: dict[int, threading.Thread] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def say(self, line: str) -> None:
        """Add a line to the log."""
        self._lines.append(line.rstrip("\n") + "\n")
        if self.on_line:
            self.on_line(line.rstrip("\n"))

    def run(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | Path) -> int:
        """Run a program to its end, its output in the log; its exit code, negative if a signal ended it.

        Raises:
            JobStopped: if the job was stopped meanwhile. The program has had SIGTERM, and time, by then.
            OSError: if it cannot be started.
        """
        child = self.start(argv, env, cwd)
        child.wait()
        return self.end(child)

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | Path) -> subprocess.Popen[str]:
        """Start a program whose output goes to the log. It is ended when the job is stopped."""
        self.check()
        child = self.children.start(
            argv, env, cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace"
        )
        reader = threading.Thread(target=self._read, args=(child,), daemon=True)
        reader.start()
        self._readers[child.pid] = reader
        threading.Thread(target=self._end_when_stopped, args=(child,), daemon=True).start()
        return child

    def end(self, child: subprocess.Popen[str], seconds: float = 0) -> int:
        """End a program, if it has not yet, and read the rest of its output."""
        code = self.children.end(child, seconds)
        self._readers.pop(child.pid).join(10)
        self.check()
        return code

    def check(self) -> None:
        """Raises JobStopped if the job is being stopped: to be called between steps."""
        if self.stopping.is_set():
            raise JobStopped

    @property
    def billed_seconds(self) -> int:
        """Whole seconds of running, so far or in the end; none for a job that only starts others."""
        if self.started is None or self.facts.get("unbilled"):
            return 0
        return math.ceil(((self.ended or datetime.now(UTC)) - self.started).total_seconds())

    def _read(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        with child.stdout:
            for line in child.stdout:
                self.say(line)

    def _end_when_stopped(self, child: subprocess.Popen[str]) -> None:
        while child.poll() is None:
            if self.stopping.wait(0.2):
                self.children.end(child, self.delays.stop_seconds)
                return


class Jobs:
    """All jobs of the cloud, in the order in which they were asked for."""

    def __init__(self, delays: Delays) -> None:
        self.children = Children()
        self._delays = delays
        self._lock = threading.Lock()
        self._jobs: list[Job] = []

    def start(
        self,
        service: str,
        kind: str,
        name: str,
        request: dict[str, Any],
        work: Callable[[Job], None],
        *,
        limit: float | None = None,
        on_end: Callable[[Job], None] | None = None,
        **facts: Any,
    ) -> Job:
        """A new job. It fails if `work` raises JobFailed, and is stopped when it has run for `limit` seconds.

        Args:
            on_end: called when the job knows how it ends, before anyone else can see that it has.
        """
        job = Job(service, kind, name, request, self.children, self._delays, facts=facts)
        take = coming_fault.get()
        fault = take() if take else None
        with self._lock:
            self._jobs.append(job)
        threading.Thread(target=self._do, args=(job, work, fault, limit, on_end), name=f"{kind} {name}", daemon=True).start()
        return job

    def find(self, kind: str, name: str) -> Job | None:
        """The newest job of that name."""
        with self._lock:
            return next((job for job in reversed(self._jobs) if (job.kind, job.name) == (kind, name)), None)

    def list(self, kind: str) -> list[Job]:
        with self._lock:
            return [job for job in self._jobs if job.kind == kind]

    def all(self) -> tuple[Job, ...]:
        with self._lock:
            return tuple(self._jobs)

    def stop(self, job: Job) -> None:
        """Ask a job to stop; a job that is over stays as it is."""
        job.stops += 1
        self._halt(job)

    def reset(self) -> None:
        """Stop and forget all."""
        for job in self.all():
            self.stop(job)
        self.children.end_all()
        for job in self.all():
            job.over.wait(5)
        with self._lock:
            self._jobs.clear()

    def close(self) -> None:
        for job in self.all():
            self.stop(job)
        self.children.close()

    def _do(
        self,
        job: Job,
        work: Callable[[Job], None],
        fault: JobFault | None,
        limit: float | None,
        on_end: Callable[[Job], None] | None,
    ) -> None:
        state: State = "Completed"
        timer: threading.Timer | None = None
        try:
            if job.stopping.wait(self._delays.start_seconds):
                raise JobStopped
            with job._lock:
                job.started = datetime.now(UTC)
                if job.state == "Pending":
                    job.state = "Running"
            if limit is not None:
                timer = threading.Timer(limit, self._expire, (job,))
                timer.daemon = True
                timer.start()
            if fault:
                self._suffer(job, fault)
            else:
                work(job)
        except JobStopped:
            pass
        except JobFailed as error:
            state, job.reason = "Failed", str(error)
        except Exception as error:  # a fault of the local cloud: named as such
            traceback.print_exc()
            state, job.reason = "Failed", f"InternalServerError: the local cloud: {type(error).__name__}: {error}"
        if job.started is not None:
            job.stopping.wait(max(0.0, self._delays.job_seconds - (datetime.now(UTC) - job.started).total_seconds()))
        if timer:
            timer.cancel()
        with job._lock:
            if job.stopping.is_set():
                state, job.reason = "Stopped", ""
            job.ended = datetime.now(UTC)
            job.facts["ends"] = state
        try:
            if on_end:
                on_end(job)
        except Exception as error:
            traceback.print_exc()
            state, job.reason = "Failed", f"InternalServerError: the local cloud: {type(error).__name__}: {error}"
        with job._lock:
            job.state = state
        job.over.set()

    def _halt(self, job: Job) -> None:
        with job._lock:
            if job.state not in OVER:
                job.state = "Stopping"
                job.stopping.set()

    def _expire(self, job: Job) -> None:
        job.expired = True
        self._halt(job)

    def _suffer(self, job: Job, fault: JobFault) -> None:
        if fault.kind == "fail":
            job.stopping.wait(self._delays.job_seconds)
            raise JobFailed(fault.reason or "InternalServerError: a fault that was asked for")
        if fault.kind == "stop":
            job.stopping.wait(self._delays.job_seconds)
            job.stopping.set()
        job.stopping.wait()
        raise JobStopped
