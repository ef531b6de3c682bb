"""Signals must end a program that has started others, but never in the middle of starting or stopping one."""

from __future__ import annotations

import signal
import time
from collections.abc import Generator
from contextlib import contextmanager

SECONDS_AS_ONE = 1.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def terminating() -> Generator[None]:
    """Ctrl-C, SIGTERM and SIGHUP all end the program by an exception, so that all is cleaned up. Main thread only.

    Several within a second count as one: `timeout`, make and a terminal all pass on what they get, and the second must
    not interrupt what the first began.
    """
    last = float("-inf")

    def leave(number: int, frame: object) -> None:
        nonlocal last
        before, last = last, time.monotonic()
        if last - before >= SECONDS_AS_ONE:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred_signals() -> Generator[None]:
    """Signals wait for the end of the block: no process is started without being noted, no clean-up is cut short."""
    arrived: list[int] = []
    before = {waiting: signal.signal(waiting, lambda number, frame: arrived.append(number)) for waiting in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if arrived:
        signal.raise_signal(arrived[0])
