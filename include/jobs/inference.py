"""The model as an HTTP server, as SageMaker asks for it: GET /ping, POST /invocations. JSON Lines in, JSON Lines out.

In:   {"<key>": "UA1545", "partition_date": "2013-04-01", "distance": 1400.0, "carrier": "UA"}    what is left out is NULL
Out:  {"<key>": "UA1545", "partition_date": "2013-04-01", "score": 0.25, "unseen": ["carrier"]}   line for line

AILERON_KEY names the key, AILERON_MANIFEST_SHA256 is the digest that the registry has.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import traceback
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pyarrow as pa

from include.core.artifacts import Artifact, check_golden, load_artifact
from include.core.errors import Refused
from include.core.features import FeatureSpec, unseen_categories
from include.core.scoring import score

JSON_LINES = "application/jsonlines"
MOST_BYTES = 100 * 1024**2  # SageMaker's own limit
SECONDS_OF_SILENCE = 300
SHOWN = {pa.float64(): "a number", pa.string(): "a text", pa.date32(): "a day such as 2013-04-01", pa.int64(): "an integer"}


class UnusableLines(Refused):
    """The body of a request cannot be scored; the message names the line."""


class NotVerified(Refused):
    """There is no model to score with; the message says why."""


@dataclass(frozen=True)
class Model:
    """A model that is what was registered, and scores its golden rows as it did."""

    artifact: Artifact
    key: str


def verified(folder: Path, key: str, manifest_sha256: str) -> Model:
    """Load the model that SageMaker has unpacked.

    Raises:
        Refused: if it is not the one that was registered, or nobody said which that is.
    """
    for name, value in (("AILERON_KEY", key), ("AILERON_MANIFEST_SHA256", manifest_sha256)):
        if not value:
            raise NotVerified(f"{name} is not set: give it in the environment of the model")
    artifact = load_artifact(folder, manifest_sha256)
    # Requests are scored side by side: XGBoost's own threads would only stand in each other's way.
    artifact.booster.set_param({"nthread": 1})
    check_golden(artifact)
    return Model(artifact, key)


def answer(body: bytes, model: Model) -> bytes:
    """The scores of the lines of a request, line for line.

    Raises:
        Refused: if a line cannot be scored; nothing is then scored.
    """
    batch = read_lines(body, model.artifact.spec, model.key)
    if batch.num_rows == 0:
        return b""
    scored, _ = score(batch, model.artifact, model.key)
    columns = zip(*(scored.column(name).to_pylist() for name in (model.key, "partition_date", "score")), strict=True)
    lines = [
        # Python writes a float with as many digits as it takes to read the same float again.
        json.dumps({model.key: key, "partition_date": day.isoformat(), "score": value, "unseen": unseen}, ensure_ascii=False)
        for (key, day, value), unseen in zip(columns, unseen_categories(batch, model.artifact.spec), strict=True)
    ]
    return ("\n".join(lines) + "\n").encode()


def read_lines(body: bytes, spec: FeatureSpec, key: str) -> pa.RecordBatch:
    """Key, partition date and features of each line; what a line leaves out is NULL, what it has besides is ignored.

    Raises:
        UnusableLines: naming the first wrong line and what is wrong with it.
    """
    lines = body.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    rows = [_row(number, line) for number, line in enumerate(lines, start=1)]
    keys, days = [row.get(key) for row in rows], [row.get("partition_date") for row in rows]
    for name, values in ((key, keys), ("partition_date", days)):
        if None in values:
            raise UnusableLines(f"line {values.index(None) + 1}: {name} is NULL or left out: every row needs one")
    columns = {
        key: _column(key, keys, pa.int64() if keys and type(keys[0]) is int else pa.string()),
        "partition_date": _column("partition_date", [_day(n, value) for n, value in enumerate(days, start=1)], pa.date32()),
    }
    columns |= {name: _column(name, [row.get(name) for row in rows], pa.float64()) for name in spec.numeric}
    columns |= {name: _column(name, [row.get(name) for row in rows], pa.string()) for name in spec.categorical}
    return pa.record_batch(columns)


def serve(folder: Path) -> int:
    """Serve until SIGTERM. A model that is not what was registered is served no row, and /ping says why."""
    model: Model | Refused
    try:
        model = verified(folder, os.environ.get("AILERON_KEY", ""), os.environ.get("AILERON_MANIFEST_SHA256", ""))
        print(f"serving {model.artifact.manifest.get('model', 'a model')}, manifest {model.artifact.manifest_sha256}", flush=True)
    except Refused as error:
        model = error
        print(f"ERROR: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    # SageMaker asks from outside the container; who runs this on a machine of their own says 127.0.0.1.
    host = os.environ.get("AILERON_BIND", "0.0.0.0")  # noqa: S104
    with Server(host, int(os.environ.get("SAGEMAKER_BIND_TO_PORT", "8080")), model) as server:
        server.serve_forever()
    return 0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, host: str, port: int, model: Model | Refused) -> None:
        self.model = model
        # A connection may wait for its turn; more batches at work than cores would only cost memory.
        self.turn = threading.BoundedSemaphore(os.cpu_count() or 1)
        super().__init__((host, port), Handler)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = SECONDS_OF_SILENCE
    server: Server

    def do_GET(self) -> None:
        if self.path != "/ping":
            self._say(HTTPStatus.NOT_FOUND, f"{self.path}: there is /ping and /invocations")
        elif isinstance(self.server.model, Refused):
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, str(self.server.model))
        else:
            self._send(HTTPStatus.OK, b"", "text/plain")

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            self._refuse_unread(HTTPStatus.LENGTH_REQUIRED, "send Content-Length: MaxPayloadInMB must not be 0")
        elif int(length) > MOST_BYTES:
            self._refuse_unread(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{length} bytes, at most {MOST_BYTES}: send fewer lines")
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                self._answer(body)
            else:
                self.close_connection = True

    def _answer(self, body: bytes) -> None:
        model, kind = self.server.model, self.headers.get_content_type()
        if self.path != "/invocations":
            self._say(HTTPStatus.NOT_FOUND, f"{self.path}: there is /ping and /invocations")
        elif isinstance(model, Refused):
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, str(model))
        elif kind != JSON_LINES:
            self._say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{kind}: send {JSON_LINES}")
        else:
            self._score(body, model)

    def _score(self, body: bytes, model: Model) -> None:
        try:
            with self.server.turn:
                scored = answer(body, model)
        except Refused as error:
            self._say(HTTPStatus.BAD_REQUEST, str(error))
        except Exception as error:
            traceback.print_exc()
            self._say(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, scored, JSON_LINES)

    def _refuse_unread(self, status: HTTPStatus, error: str) -> None:
        """What was not read of a request would be taken for the next one, so this is the last of its connection."""
        self.close_connection = True
        self._say(status, error)

    def _say(self, status: HTTPStatus, error: str) -> None:
        line = f"ERROR: {' '.join(error.split())}"
        print(line, file=sys.stderr, flush=True)
        self._send(status, f"{line}\n".encode(), "text/plain; charset=utf-8")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(content)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: SageMaker pings every few seconds, and what goes wrong is said by `_say`."""


def _row(number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise UnusableLines(f"line {number}: is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise UnusableLines(f"line {number}: must be a JSON object, not {type(row).__name__}")
    return row


def _column(name: str, values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for number, value in enumerate(values, start=1):
            if not _fits(value, kind):
                raise UnusableLines(f"line {number}: {name} is {str(value)[:40]!r}, not {SHOWN[kind]}") from None
        raise


def _fits(value: Any, kind: pa.DataType) -> bool:
    try:
        pa.array([value], kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return False
    return True


def _day(number: int, value: Any) -> date:
    try:
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        day = None
    # 20130401 is ISO too, but not what anything here writes.
    if day is None or day.isoformat() != value:
        raise UnusableLines(f"line {number}: partition_date is {str(value)[:40]!r}, not {SHOWN[pa.date32()]}")
    return day


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")
