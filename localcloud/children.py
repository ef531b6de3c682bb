"""Processes that never outlive the cloud."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

# Told of every group of processes; when its input ends, however the cloud ended, it kills those that are left.
KEEPER = """
import os, signal, sys
groups = set()
for line in sys.stdin:
    sign, group = line[0], int(line[1:])
    groups.add(group) if sign == "+" else groups.discard(group)
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        pass
"""


class Children:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._closed = False
        self._running: dict[int, subprocess.Popen[str]] = {}
        self._keeper = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", KEEPER], stdin=subprocess.PIPE, text=True, bufsize=1, start_new_session=True
        )

    def start(self, argv: Sequence[str], env: Mapping[str, str], cwd: str | Path, **more: Any) -> subprocess.Popen[str]:
        """A process in a group of its own."""
        with self._lock:
            if self._closed:
                raise OSError("the local cloud is ending")
            # No file of ours is inherited: a child that held the keeper's pipe would keep it waiting.
            child = subprocess.Popen(list(argv), env=dict(env), cwd=cwd, start_new_session=True, text=True, **more)
            self._running[child.pid] = child
            self._tell(f"+{child.pid}")
        return child

    def end(self, child: subprocess.Popen[str], seconds: float = 0) -> int:
        """End a process with all that it has started: SIGTERM, then SIGKILL. Its exit code."""
        if seconds and child.poll() is None:
            _signal(child.pid, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                child.wait(seconds)
        # Also when it has ended by itself: what it has started may still run.
        _signal(child.pid, signal.SIGKILL)
        code = child.wait()
        with self._lock:
            if self._running.pop(child.pid, None):
                self._tell(f"-{child.pid}")
        return code

    def end_all(self) -> None:
        for child in list(self._running.values()):
            self.end(child)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.end_all()
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()
        self._keeper.wait()

    def _tell(self, line: str) -> None:
        assert self._keeper.stdin is not None
        print(line, file=self._keeper.stdin, flush=True)


def _signal(group: int, number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
