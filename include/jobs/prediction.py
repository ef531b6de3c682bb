"""The model as an HTTP server, as Vertex AI asks for it: GET AIP_HEALTH_ROUTE, POST AIP_PREDICT_ROUTE at AIP_HTTP_PORT.

In:   {"instances": [{"distance": 1400.0, "hour": "17", "carrier": "UA"}]}    what is left out is NULL, what is more is ignored
Out:  {"predictions": [{"score": 0.25, "unseen": ["carrier"]}]}               one for one, or nothing with a reason

The model is AIP_STORAGE_URI/model.tar.gz; AILERON_MANIFEST_SHA256 is the digest that the registry has. Values are as Vertex
writes those of BigQuery: an INT64 or NUMERIC may be a text, NaN is one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pyarrow as pa

from include.core.artifacts import Artifact, unpack
from include.core.features import unseen_categories
from include.core.scoring import score
from include.jobs.google_storage import download
from include.jobs.runs import ARCHIVE
from include.jobs.serving import (
    ModelHandler,
    ModelServer,
    NotVerified,
    UnusableRequest,
    features_of,
    verified_artifact,
)

MOST_BYTES = 100 * 1024**2
ROW = "_row"  # no feature can have this name: names of features begin with a letter
NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|NaN|[+-]?(Infinity|inf)")


def serve(environment: Mapping[str, str], place: Path) -> None:
    """Load the model, then serve until SIGTERM. Without a model there is no server: Vertex says of one that ends why it did.

    Raises:
        Refused: if the model is not what was registered, or something was not said.
        OSError: if it cannot be had.
    """
    names = ("AIP_HTTP_PORT", "AIP_HEALTH_ROUTE", "AIP_PREDICT_ROUTE", "AIP_STORAGE_URI")
    port, health, predict, folder = (environment.get(name, "") for name in names)
    for name, value in zip(names, (port, health, predict, folder), strict=True):
        if not value:
            raise NotVerified(f"{name} is not set: this server is started by Vertex AI, with an artifact folder of its model")
    download(f"{folder.rstrip('/')}/{ARCHIVE}", place / ARCHIVE)
    (place / "model").mkdir()
    digest = environment.get("AILERON_MANIFEST_SHA256", "")
    artifact = verified_artifact(unpack(place / ARCHIVE, place / "model"), {"AILERON_MANIFEST_SHA256": digest})
    print(f"serving {artifact.manifest.get('model', 'a model')}, manifest {artifact.manifest_sha256}", flush=True)
    # Vertex asks from outside the container; who runs this on a machine of their own says 127.0.0.1.
    host = environment.get("AILERON_BIND", "0.0.0.0")  # noqa: S104
    with Server(host, int(port), artifact, health, predict) as server:
        server.serve_forever()


def answer(body: bytes, artifact: Artifact) -> bytes:
    """The predictions of the instances of a request, one for one.

    Raises:
        Refused: if an instance cannot be scored; nothing is then scored.
    """
    rows, names, numeric = read_instances(body), set(artifact.spec.names), artifact.spec.numeric
    for number, row in enumerate(rows, start=1):
        if names.isdisjoint(row):
            raise UnusableRequest(f"instance {number}: has none of the features {', '.join(artifact.spec.names)}")
    rows = [{**row, **{name: _number(number, name, row.get(name)) for name in numeric}} for number, row in enumerate(rows, 1)]
    # Vertex keeps the columns of a row beside its prediction; only our own scoring wants rows that have a name and a day.
    batch = pa.record_batch({
        ROW: pa.array(range(len(rows)), pa.int64()),
        "partition_date": pa.array([date.min] * len(rows), pa.date32()),
        **features_of(rows, artifact.spec, "instance"),
    })
    scores = score(batch, artifact, ROW)[0].column("score").to_pylist()
    unseen = unseen_categories(batch, artifact.spec)
    predictions = [{"score": value, "unseen": new} for value, new in zip(scores, unseen, strict=True)]
    # Python writes a float with as many digits as it takes to read the same float again.
    return json.dumps({"predictions": predictions}, ensure_ascii=False).encode()


def read_instances(body: bytes) -> list[dict[str, Any]]:
    """The rows of a request.

    Raises:
        UnusableRequest: if it is none, naming the instance if it is the fault of one.
    """
    try:
        # Unlike JSON, BigQuery has NaN, and it may come as a number.
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnusableRequest(f"the request is not JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("instances"), list):
        raise UnusableRequest('the request must be an object {"instances": [...]}')
    if further := [name for name, value in sorted(request.items()) if name != "instances" and value]:
        raise UnusableRequest(f"the request has {', '.join(further)}: this model has no parameters, leave it out")
    for number, row in enumerate(request["instances"], start=1):
        if not isinstance(row, dict):
            raise UnusableRequest(
                f"instance {number}: must be a JSON object, not {type(row).__name__}: give the job the instance type 'object'"
            )
    return list(request["instances"])


def _number(number: int, name: str, value: Any) -> Any:
    """A number as the score job reads it from a file of BigQuery; what is none is left for who says so best."""
    if isinstance(value, str) and NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int):
        try:
            return float(value)  # rounded, as a cast of 64 bits does it
        except OverflowError:
            raise UnusableRequest(f"instance {number}: {name} is {str(value)[:40]}…: too large") from None
    return value


class Server(ModelServer):
    def __init__(self, host: str, port: int, artifact: Artifact, health: str, predict: str) -> None:
        self.artifact, self.health, self.predict = artifact, health, predict
        super().__init__(host, port, Handler)


class Handler(ModelHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == self.server.health:
            self.send(HTTPStatus.OK, b"{}", "application/json")
        else:
            self._not_found()

    def do_POST(self) -> None:
        body = self.read_body(MOST_BYTES, "send fewer instances", "send Content-Length")
        if body is None:
            return
        if self.path == self.server.predict:
            self.answer_with(lambda: answer(body, self.server.artifact), "application/json")
        else:
            self._not_found()

    def _not_found(self) -> None:
        self.say(HTTPStatus.NOT_FOUND, f"{self.path}: there is {self.server.health} and {self.server.predict}")
