"""The model as an HTTP server, as SageMaker asks for it: GET /ping, POST /invocations. JSON Lines in, JSON Lines out.

In:   {"<key>": "UA1545", "partition_date": "2013-04-01", "distance": 1400.0, "carrier": "UA"}    what is left out is NULL
Out:  {"<key>": "UA1545", "partition_date": "2013-04-01", "score": 0.25, "unseen": ["carrier"]}   line for line

AILERON_KEY names the key, AILERON_MANIFEST_SHA256 is the digest that the registry has.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from datetime import date
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.core.artifacts import Artifact
from include.core.errors import Refused
from include.core.features import FeatureSpec, unseen_categories
from include.core.scoring import score
from include.jobs.serving import (
    SHOWN,
    ModelHandler,
    ModelServer,
    UnusableRequest,
    column,
    features_of,
    json_of,
    verified_artifact,
)

JSON_LINES = "application/jsonlines"
MOST_BYTES = 100 * 1024**2  # SageMaker's own limit


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
    return Model(verified_artifact(folder, {"AILERON_KEY": key, "AILERON_MANIFEST_SHA256": manifest_sha256}), key)


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
        UnusableRequest: naming the first wrong line and what is wrong with it.
    """
    lines = body.split(b"\n")
    if not lines[-1].strip():
        lines.pop()
    rows = [_row(number, line) for number, line in enumerate(lines, start=1)]
    keys, days = [row.get(key) for row in rows], [row.get("partition_date") for row in rows]
    for name, values in ((key, keys), ("partition_date", days)):
        if None in values:
            raise UnusableRequest(f"line {values.index(None) + 1}: {name} is NULL or left out: every row needs one")
    return pa.record_batch({
        key: column(key, keys, pa.int64() if keys and type(keys[0]) is int else pa.string(), "line"),
        "partition_date": pa.array([_day(number, value) for number, value in enumerate(days, start=1)], pa.date32()),
        **features_of(rows, spec, "line"),
    })


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


class Server(ModelServer):
    def __init__(self, host: str, port: int, model: Model | Refused) -> None:
        self.model = model
        super().__init__(host, port, Handler)


class Handler(ModelHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path != "/ping":
            self.say(HTTPStatus.NOT_FOUND, f"{self.path}: there is /ping and /invocations")
        elif isinstance(self.server.model, Refused):
            self.say(HTTPStatus.INTERNAL_SERVER_ERROR, str(self.server.model))
        else:
            self.send(HTTPStatus.OK, b"", "text/plain")

    def do_POST(self) -> None:
        body = self.read_body(MOST_BYTES, "send fewer lines", "send Content-Length: MaxPayloadInMB must not be 0")
        if body is not None:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        model, kind = self.server.model, self.headers.get_content_type()
        if self.path != "/invocations":
            self.say(HTTPStatus.NOT_FOUND, f"{self.path}: there is /ping and /invocations")
        elif isinstance(model, Refused):
            self.say(HTTPStatus.INTERNAL_SERVER_ERROR, str(model))
        elif kind != JSON_LINES:
            self.say(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{kind}: send {JSON_LINES}")
        else:
            self.answer_with(lambda: answer(body, model), JSON_LINES)


def _row(number: int, line: bytes) -> dict[str, Any]:
    row = json_of(line, f"line {number}")
    if not isinstance(row, dict):
        raise UnusableRequest(f"line {number}: must be a JSON object, not {type(row).__name__}")
    return row


def _day(number: int, value: Any) -> date:
    try:
        day = date.fromisoformat(value)
    except (TypeError, ValueError):
        day = None
    # 20130401 is ISO too, but not what anything here writes.
    if day is None or day.isoformat() != value:
        raise UnusableRequest(f"line {number}: partition_date is {str(value)[:40]!r}, not {SHOWN[pa.date32()]}")
    return day
