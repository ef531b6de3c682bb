"""Wakes the arrivals DAG when something lands in the local lake."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from airflow.triggers.base import BaseEventTrigger, TriggerEvent


class LandingTrigger(BaseEventTrigger):
    """Fires when the markers of a source table have changed, and once when it starts and finds any.

    The event says only "look": what has landed is read from the lake by the DAG that it wakes. So an event that is
    lost, doubled or merged with another does no harm.
    """

    def __init__(self, folder: str, seconds: float = 10.0) -> None:
        super().__init__()
        self.folder = folder
        self.seconds = seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__qualname__}", {"folder": self.folder, "seconds": self.seconds}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        seen = _markers(Path("/nonexistent"))
        while True:
            now = await asyncio.to_thread(_markers, Path(self.folder))
            if now != seen:
                seen = now
                yield TriggerEvent({"folder": self.folder})
            await asyncio.sleep(self.seconds)


def _markers(folder: Path) -> str:
    """Digest of the names and times of all markers below a table's folder."""
    facts = hashlib.sha256()
    for marker in sorted(folder.glob("partition_date=*/_SUCCESS")):
        try:
            facts.update(f"{marker.parent.name} {marker.stat().st_mtime_ns}\n".encode())
        except FileNotFoundError:
            continue  # replaced at this moment; the next look sees it
    return facts.hexdigest()
