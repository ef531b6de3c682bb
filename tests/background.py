"""What goes on beside a test."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def again_and_again(work: Callable[[], object], seconds: float) -> Iterator[None]:
    """Do something every so often in a thread, until the block ends; a true answer ends it sooner."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(seconds):
            if work():
                return

    thread = threading.Thread(target=go_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)
