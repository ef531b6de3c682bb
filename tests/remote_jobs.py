"""Tries of tasks that have remote jobs, as Airflow makes them: in a worker, in a triggerer, in another worker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.triggers.base import BaseTrigger, TriggerEvent

from include.platforms.base import JobFailed

both_ways = pytest.mark.parametrize("deferrable", ["true", "false"], ids=["deferred", "waiting"])


def context() -> Any:
    return {"dag_run": mock.Mock(dag_id="jobs", run_id="manual__jobs"), "ti": mock.MagicMock(), "task_instance": mock.MagicMock()}


def handed_over(trigger: BaseTrigger) -> BaseTrigger:
    """A trigger as a triggerer has it: only what was serialised."""
    path, arguments = trigger.serialize()
    made: BaseTrigger = import_string(path)(**arguments)
    return made


def triggered(trigger: BaseTrigger) -> TriggerEvent:
    """What a trigger says, in a triggerer."""

    async def first() -> TriggerEvent:
        async for event in handed_over(trigger).run():
            return event
        raise AssertionError("no event")

    return asyncio.run(asyncio.wait_for(first(), 60))


def failing(operator: Any) -> threading.Thread:
    """A worker that waits for a job which will not succeed."""

    def wait() -> None:
        with pytest.raises(JobFailed):
            operator.execute(context())

    worker = threading.Thread(target=wait, daemon=True)
    worker.start()
    return worker


def until(holds: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.1)
    return holds()
