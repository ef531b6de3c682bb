"""A model behind HTTP, as far as the clouds agree: what it takes to serve one, rows of JSON to score, a server to ask."""

from __future__ import annotations

import json
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from include.core.artifacts import Artifact, check_golden, load_artifact
from include.core.errors import Refused
from include.core.features import FeatureSpec
from include.jobs.runs import cores

SECONDS_OF_SILENCE = 300
SHOWN = {pa.float64(): "a number", pa.string(): "a text", pa.date32(): "a day such as 2013-04-01", pa.int64(): "an integer"}


class UnusableRequest(Refused):
    """The body of a request cannot be scored; the message names the row."""


class NotVerified(Refused):
    """There is no model to score with; the message says why."""


def verified_artifact(folder: Path, settings: Mapping[str, str]) -> Artifact:
    """Load a model to serve, which is what was registered, and scores its golden rows as it did.

    Args:
        folder: where it lies.
        settings: what the environment of the model must say, by name; AILERON_MANIFEST_SHA256 is among it.

    Raises:
        Refused: if it is not the one that was registered, or nobody said which that is.
    """
    for name, value in settings.items():
        if not value:
            raise NotVerified(f"{name} is not set: give it in the environment of the model")
    artifact = load_artifact(folder, settings["AILERON_MANIFEST_SHA256"])
    # Requests are scored side by side: XGBoost's own threads would only stand in each other's way.
    artifact.booster.set_param({"nthread": 1})
    check_golden(artifact)
    return artifact


def json_of(content: bytes, what: str) -> Any:
    """A value of JSON, without the numbers that only Python has.

    Raises:
        UnusableRequest: naming what is none.
    """
    try:
        return json.loads(content, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UnusableRequest(f"{what}: is not JSON: {error}") from None


def features_of(rows: Sequence[Mapping[str, Any]], spec: FeatureSpec, what: str) -> dict[str, pa.Array]:
    """The columns that a model reads. What a row leaves out is NULL, what it has besides is ignored.

    Raises:
        UnusableRequest: naming the first wrong row (as a `what` of a number) and what is wrong with it.
    """
    columns = {name: column(name, [row.get(name) for row in rows], pa.float64(), what) for name in spec.numeric}
    return columns | {name: column(name, [row.get(name) for row in rows], pa.string(), what) for name in spec.categorical}


def column(name: str, values: list[Any], kind: pa.DataType, what: str) -> pa.Array:
    """The values of a column, each of the row of its number.

    Raises:
        UnusableRequest: naming the first wrong row.
    """
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for number, value in enumerate(values, start=1):
            if not _fits(value, kind):
                raise UnusableRequest(f"{what} {number}: {name} is {str(value)[:40]!r}, not {SHOWN[kind]}") from None
        raise


class ModelServer(ThreadingHTTPServer):
    """Answers side by side; what it serves is for the server of a cloud to know."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, handler: type[ModelHandler]) -> None:
        # A connection may wait for its turn; more batches at work than cores would only cost memory.
        self.turn = threading.BoundedSemaphore(cores())
        super().__init__((host, port), handler)


class ModelHandler(BaseHTTPRequestHandler):
    """What a handler of requests says, and how; a cloud adds which paths there are."""

    protocol_version = "HTTP/1.1"
    timeout = SECONDS_OF_SILENCE
    server: ModelServer

    def read_body(self, most: int, too_long: str, unsized: str) -> bytes | None:
        """The body of a request. None: there is nothing more to answer.

        Args:
            most: bytes that a body may have.
            too_long: what to do about a longer one.
            unsized: what to do about one of unknown length.
        """
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse_unread(HTTPStatus.LENGTH_REQUIRED, unsized)
        elif int(length) > most:
            self._refuse_unread(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes, at most {most}: {too_long}")
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.close_connection = True
        return None

    def answer_with(self, scores: Callable[[], bytes], kind: str) -> None:
        """Answer with what `scores` gives, in its turn; a fault of ours is not blamed on the request."""
        try:
            with self.server.turn:
                scored = scores()
        except Refused as error:
            self.say(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:
            traceback.print_exc()
            self.say(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self.send(HTTPStatus.OK, scored, kind)

    def say(self, status: HTTPStatus, error: str) -> None:
        line = f"ERROR: {' '.join(error.split())}"
        print(line, file=sys.stderr, flush=True)
        self.send(status, f"{line}\n".encode(), "text/plain; charset=utf-8")

    def send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: a cloud asks every few seconds whether all is well, and what goes wrong is said by `say`."""

    def _refuse_unread(self, status: HTTPStatus, error: str) -> None:
        """What was not read of a request would be taken for the next one, so this is the last of its connection."""
        self.close_connection = True
        self.say(status, error)


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")
