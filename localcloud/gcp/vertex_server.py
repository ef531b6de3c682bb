"""A model's container that serves: started, waited for, asked over HTTP, and ended."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any

from localcloud.gcp.containers import environment, expanded, failure, image_of, last_words, located, variables
from localcloud.gcp.service import Cloud
from localcloud.gcp.vertex_resources import NUMBER, new_id
from localcloud.jobs import Job

SECONDS = 600  # for one request
TRIES = 3  # of a request that the server is to blame for


class Unanswered(Exception):
    """A batch of instances has no predictions; the message says why."""


class ModelServer:
    def __init__(self, cloud: Cloud, job: Job, key: str, model: Mapping[str, Any], machine_type: str) -> None:
        self._cloud, self._job, self._model = cloud, job, model
        self._home = cloud.folder / "vertex" / "work" / key
        self._spec = model["container_spec"]
        self._machine_type = machine_type
        self._connection: http.client.HTTPConnection | None = None

    def __enter__(self) -> ModelServer:
        """Raises JobFailed if the container cannot be started, or is not healthy in time."""
        image = image_of(self._cloud, self._job, self._spec["image_uri"])
        self._port = _free_port()
        endpoint, deployed = new_id(), new_id()
        base = f"/v1/endpoints/{endpoint}/deployedModels/{deployed}"
        self._health = self._spec.get("health_route", base)
        self._predict = self._spec.get("predict_route", f"{base}:predict")
        own = {
            # Many containers share this machine: the port is not that of the model's container_spec.
            "AIP_HTTP_PORT": str(self._port),
            "AIP_HEALTH_ROUTE": self._health,
            "AIP_PREDICT_ROUTE": self._predict,
            "AIP_MODE": "PREDICTION",
            "AIP_STORAGE_URI": self._model.get("artifact_uri", "").rstrip("/"),
            "AIP_PROJECT_NUMBER": NUMBER,
            "AIP_MACHINE_TYPE": self._machine_type,
            "AIP_ENDPOINT_ID": endpoint,
            "AIP_DEPLOYED_MODEL_ID": deployed,
        }
        asked = variables(self._spec.get("env", ()), own)
        shutil.rmtree(self._home, ignore_errors=True)
        self._home.mkdir(parents=True)
        given = environment(self._cloud, image, self._home, own, asked)
        begin = self._spec.get("command") or image.entrypoint
        argv = [expanded(part, {**own, **asked}) for part in (*begin, *self._spec.get("args", ()))]
        try:
            self._process = self._job.start(located(argv, given), given, image.directory)
        except OSError as error:
            raise failure(self._job, f"Model server terminated: the container cannot be started: {error}") from None
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end()

    def predictions(self, instances: Sequence[Any], parameters: Any) -> list[str]:
        """One for each instance, as JSON.

        Raises:
            Unanswered: if the container does not answer as it must, after some tries if it is to blame.
            JobFailed: if it has ended.
        """
        body = json.dumps({"instances": instances, **({} if parameters is None else {"parameters": parameters})}).encode()
        trouble = ""
        for number in range(TRIES):
            if number:
                self._job.stopping.wait(0.1)
            self._job.check()
            try:
                status, answer = self._asked("POST", self._predict, SECONDS, body)
            except (OSError, http.client.HTTPException) as error:
                self._check_alive(0.5)
                trouble = f"the connection to the model failed: {error!r}"
                continue
            if status == 200:
                return _predictions(answer, len(instances))
            trouble = f"the model answered {status}: {answer[:1000].decode(errors='replace')}"
            if status < 500 and status != 429:
                break
        raise Unanswered(trouble)

    def _wait(self) -> None:
        last = "no answer"
        until = time.monotonic() + self._cloud.delays.ping_seconds
        while time.monotonic() < until:
            self._job.check()
            self._check_alive()
            try:
                status, answer = self._asked("GET", self._health, 2)
            except (OSError, http.client.HTTPException) as error:
                last = repr(error)
            else:
                if status == 200:
                    return
                last = f"{status}: {answer[:300].decode(errors='replace')}"
            self._job.stopping.wait(0.05)
        self._job.check()
        raise failure(
            self._job,
            f"Model server never became ready: {self._health} was answered with {last} for"
            f" {self._cloud.delays.ping_seconds:g} seconds.\n{last_words(self._job)}",
        )

    def _check_alive(self, seconds: float = 0) -> None:
        """Raises JobFailed if the container has ended, or does so in time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if (code := self._process.poll()) is not None:
            time.sleep(0.1)  # what it said last is still being read
            self._job.check()
            raise failure(self._job, f"Model server terminated: exit code {code}.\n{last_words(self._job)}")

    def _asked(self, verb: str, path: str, seconds: float, body: bytes | None = None) -> tuple[int, bytes]:
        connection = self._connection or http.client.HTTPConnection("127.0.0.1", self._port)
        connection.timeout = seconds
        if connection.sock:
            connection.sock.settimeout(seconds)
        try:
            connection.request(verb, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            content = answer.read()
        except BaseException:
            connection.close()
            self._connection = None
            raise
        self._connection = connection
        return answer.status, content

    def _end(self) -> None:
        if self._connection:
            self._connection.close()
        try:
            self._job.end(self._process, self._cloud.delays.stop_seconds)
        finally:
            with suppress(OSError):
                shutil.rmtree(self._home)


def _predictions(answer: bytes, count: int) -> list[str]:
    try:
        predictions = json.loads(answer)["predictions"]
    except (ValueError, KeyError, TypeError):
        raise Unanswered(
            f"the model's answer is no JSON object with predictions: {answer[:300].decode(errors='replace')}"
        ) from None
    if not isinstance(predictions, list) or len(predictions) != count:
        told = len(predictions) if isinstance(predictions, list) else type(predictions).__name__
        raise Unanswered(f"the model answered {told} predictions for {count} instances")
    return [json.dumps(prediction) for prediction in predictions]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
