"""Remote jobs that are started once, on any cloud.

The operators of the providers start a second job when a task is tried again, leave a job running and billing when its task is
killed, and take some jobs that were stopped for successes. Here the name of a job says what it does, on what and for the
how many-th time, so that a task which is tried again finds the job of the try before:

* running: it is waited for; succeeded: its result is used; failed or stopped: a new attempt is made;
* a task that is killed or cleared stops its job, also when it was deferred;
* a state that is not known is a failure, and starts nothing.

Each operator works with a worker that waits, or deferred. What a cloud has of its own is in its `jobs`: how to look at a
job of each kind, how to stop it, and operators that submit with those of the provider.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from typing import Any, ClassVar, Literal

from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from include.config import ModelConfig, load_model
from include.core.files import json_bytes
from include.model_task import Read
from include.platforms import costs
from include.platforms.base import JobFailed

MOST_ATTEMPTS = 20
UNREACHABLE = 5  # looks in a row that fail before a trigger gives the task back

State = Literal["absent", "running", "stopping", "succeeded", "failed", "unknown"]


@dataclass(frozen=True)
class Found:
    """What is known of a remote job. seconds: billed, of one machine; cost: in US dollars, as far as it is known."""

    state: State
    told: str = ""
    seconds: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True)
class Kind:
    """How to look at a job, and how to stop it; both take a client of the service and a reference to the job.

    client: of the service, by the id of a connection of Airflow.
    """

    client: Callable[[str], Any]
    look: Callable[[Any, str], Found]
    stop: Callable[[Any, str], Any]


@dataclass(frozen=True)
class Terms:
    """On what terms a cloud's jobs are run, as the environment has it now.

    poll_seconds: between two looks. most_seconds: that a job may take; most_cost: US dollars, estimated, of one job;
    hours_variable, cost_variable: which variables say so. prices: date of the price book.
    """

    connection: str
    defers: bool
    poll_seconds: float
    most_seconds: float
    most_cost: float
    hours_variable: str
    cost_variable: str
    prices: str


def job_name(model: ModelConfig, step: str, partition: str, depends_on: Mapping[str, Any], longest: int = 60) -> str:
    """The name of a job, without its attempt. The same work on the same input has the same name, any other another.

    Args:
        depends_on: all that the result of the job depends on: its request, and the state of what it reads.
    """
    digest = hashlib.sha256(json_bytes(depends_on)).hexdigest()[:10]
    rest = f"-{step}-{partition.replace('-', '')}-{digest}".replace("_", "-")
    return model.name.replace("_", "-")[: longest - len(rest)].rstrip("-") + rest


def filled(request: Any, job: str) -> Any:
    """A request with the name of the attempt in the places that wait for it: `{job}`, and `{job_}` where it may have no -."""
    if isinstance(request, Mapping):
        return {name: filled(value, job) for name, value in request.items()}
    if isinstance(request, list):
        return [filled(value, job) for value in request]
    if isinstance(request, str):
        return request.replace("{job}", job).replace("{job_}", job.replace("-", "_"))
    return request


def known_state(states: Mapping[str, State], state: str, told: str | None) -> tuple[State, str]:
    """What a service's own word for a state means, and what a person is told of it."""
    known = states.get(state)
    return (known, f"{state}: {told}" if told else state) if known else ("unknown", f"state {state!r} is not known")


def kind_of(cloud: str, kind: str) -> Kind:
    """The kind of this name that a cloud has."""
    found: Kind = import_module(f"include.platforms.{cloud}.jobs").KINDS[kind]
    return found


def stop(kind: Kind, client: Any, ref: str) -> None:
    """Stop a job. One that has ended since it was looked at cannot be stopped any more, and need not be.

    Raises:
        Exception: of the service, if it runs on.
    """
    try:
        kind.stop(client, ref)
    except Exception:
        if kind.look(client, ref).state == "running":
            raise


class RemoteJob:
    """What all operators of remote jobs share; stands before the provider's operator among the bases of a class.

    `model`, `step`: for names, costs and the ledger. `request`: one of the cloud's `requests`: `name`, without the attempt, and
    what the service is asked. Empty: there is nothing to do, and the task is skipped. `after`: the results of the jobs that
    this one builds on: if they were made again, it is another job.
    """

    cloud: ClassVar[str]
    kind: ClassVar[str]
    template_fields: Any
    log: Any

    @staticmethod
    def terms() -> Terms:
        raise NotImplementedError

    def prepare(self, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg]) -> None:
        terms = self.terms()
        self.of_model, self.step, self.request = model.name, step, request
        self.after = [Read(result, "ref") for result in after]
        self.connection, self.defers, self.poll_seconds = terms.connection, terms.defers, terms.poll_seconds
        self.name = ""  # of the attempt that this try is about
        self.ref = ""

    @cached_property
    def client(self) -> Any:
        return kind_of(self.cloud, self.kind).client(self.connection)

    def execute(self, context: Any) -> Any:
        request: Any = self.request
        if not request:
            raise AirflowSkipException("there is nothing to do")
        digest = f"-{hashlib.sha256('/'.join(map(str, self.after)).encode()).hexdigest()[:6]}" if self.after else ""
        for attempt in range(1, MOST_ATTEMPTS + 1):
            self.name = f"{request['name']}{digest}-{attempt}"
            self.ref, found = self._find(self.name)
            if found.state == "stopping":
                found = self._await_end()
            if found.state == "absent":
                self._admit(context)
                self.ref = self._start(context)
                break
            if found.state in ("running", "succeeded"):
                self.log.info("%s is there already, and is adopted: %s", self.name, found.told or found.state)
                break
            if found.state == "unknown":
                raise JobFailed(f"{self.name}: {found.told}; nothing was started: look at it in the console of the cloud")
            self._settle(found)
            self.log.info("%s: %s; a new attempt is made", self.name, found.told or found.state)
        else:
            raise JobFailed(f"{request['name']}: {MOST_ATTEMPTS} attempts have failed; find out why before this task is cleared")
        if self.defers:
            if self._look().state == "running":
                terms = self.terms()
                until = time.time() + terms.most_seconds
                waiting = (self.connection, self.poll_seconds, until, terms.hours_variable)
                trigger = JobTrigger(self.cloud, self.kind, self.name, self.ref, *waiting)
                self.defer(trigger=trigger, method_name="finish")  # type: ignore[attr-defined]
        else:
            self._await_end()
        return self.finish(context, {"name": self.name, "ref": self.ref})

    def finish(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """What the service itself says of the job decides, not how the wait for it has ended.

        Raises:
            JobFailed: unless it has succeeded.
        """
        self.name, self.ref = event["name"], event["ref"]
        found = self._look()
        if found.state in ("succeeded", "failed"):
            self._settle(found)
        if found.state != "succeeded":
            waited = f" ({event['told']})" if event.get("told") else ""
            raise JobFailed(f"{self.name} has not succeeded: {found.state}: {found.told or 'no reason given'}{waited}")
        self.log.info("%s succeeded: %.0f s billed, %.4f USD", self.name, found.seconds, found.cost)
        request: Any = self.request
        output = filled(request.get("output", ""), self.name)
        return {"job": self.name, "ref": self.ref, "seconds": found.seconds, "cost": found.cost, "output": output}

    def on_kill(self) -> None:
        """The job of a task that is killed goes on billing unless it is stopped."""
        if not self.name:
            return
        ref, found = self._find(self.name)
        if found.state == "running":
            self.log.info("stopping %s", self.name)
            stop(kind_of(self.cloud, self.kind), self.client, ref)

    def _find(self, name: str) -> tuple[str, Found]:
        """The job of this name: how the service refers to it, and its state."""
        return name, self._with_price(kind_of(self.cloud, self.kind).look(self.client, name))

    def _start(self, context: Any) -> str:
        """Submit the job, and say how the service refers to it."""
        raise NotImplementedError

    def _admit(self, context: Any) -> None:
        run, terms = context["dag_run"], self.terms()
        told = {"dag_id": run.dag_id, "run_id": run.run_id, "service": self.kind}
        model, limit = load_model(self.of_model), (terms.most_cost, terms.cost_variable)
        costs.admit(model, self.step, self.name, self._estimate(), *limit, told)

    def _estimate(self) -> float:
        """US dollars."""
        return self._price() * costs.expected_seconds(self.of_model, self.step) / 3600

    def _price(self) -> float:
        """Of an hour of all machines of the job."""
        return 0.0

    def _with_price(self, found: Found) -> Found:
        return found if found.cost else replace(found, cost=found.seconds / 3600 * self._price())

    def _look(self) -> Found:
        return self._with_price(kind_of(self.cloud, self.kind).look(self.client, self.ref))

    def _settle(self, found: Found) -> None:
        costs.settle(self.of_model, self.step, self.name, found.seconds, found.cost, self.terms().prices)

    def _await_end(self) -> Found:
        terms = self.terms()
        deadline = time.monotonic() + terms.most_seconds
        while (found := self._look()).state in ("running", "stopping"):
            if time.monotonic() > deadline and found.state == "running":
                self.log.error("%s has run for more than %s: it is stopped", self.name, terms.hours_variable)
                stop(kind_of(self.cloud, self.kind), self.client, self.ref)
            time.sleep(self.poll_seconds)
        return found


class JobTrigger(BaseTrigger):
    """Waits until a job has ended, or its time is over (`until`, seconds since 1970); then the job is stopped. Killed or cleared
    by a person, it stops the job.

    It never says how the job has ended: the task looks. When the service cannot be reached the task is woken too, and fails
    in its worker, where it is retried and mailed.
    """

    def __init__(
        self,
        cloud: str,
        kind: str,
        name: str,
        ref: str,
        connection: str,
        poll_seconds: float,
        until: float,
        limit: str,
    ) -> None:
        super().__init__()
        self.cloud, self.kind, self.name, self.ref, self.connection = cloud, kind, name, ref, connection
        self.poll_seconds, self.until, self.limit = poll_seconds, until, limit  # another triggerer may go on with it

    def serialize(self) -> tuple[str, dict[str, Any]]:
        names = ("cloud", "kind", "name", "ref", "connection", "poll_seconds", "until", "limit")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in names}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        kind = await asyncio.to_thread(kind_of, self.cloud, self.kind)
        client = await asyncio.to_thread(kind.client, self.connection)
        failures, told, stopped = 0, "", False
        while failures < UNREACHABLE:
            # Before the first look too: the task has just looked, and Airflow 3.3 may take a task that is woken within a second
            # for one that was lost (https://github.com/apache/airflow/issues/72716).
            await asyncio.sleep(self.poll_seconds)
            try:
                found = await asyncio.to_thread(kind.look, client, self.ref)
                failures = 0
                if found.state not in ("running", "stopping"):
                    break
                if time.time() > self.until and not stopped:
                    told, stopped = f"it ran for more than {self.limit} and was stopped", True
                    await asyncio.to_thread(stop, kind, client, self.ref)
            except Exception as error:
                failures, told = failures + 1, f"the service could not be asked: {error}"
                self.log.warning("%s: %s", self.name, error)
        yield TriggerEvent({"name": self.name, "ref": self.ref, "told": told})

    async def on_kill(self) -> None:
        await asyncio.to_thread(self._stop)

    def _stop(self) -> None:
        kind = kind_of(self.cloud, self.kind)
        client = kind.client(self.connection)
        if kind.look(client, self.ref).state == "running":
            stop(kind, client, self.ref)
