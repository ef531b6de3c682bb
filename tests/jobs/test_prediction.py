"""The server of a model on Vertex AI: a process of its own, Google and its callers over HTTP."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import load_artifact, predict
from include.core.features import encode
from include.jobs.vertex import pack
from tests.core.examples import CATEGORICAL, flights
from tests.jobs import running, vertex
from tests.jobs.google import Google, google
from tests.jobs.running import refusal

FOLDER = "models/flight delays/1"  # a space, for an address must be quoted
ROW = {"distance": 1400.5, "hour": 17, "carrier": "UA", "origin": "JFK"}


@pytest.fixture(scope="module")
def cloud(model: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Google]:
    """Google with the packed model in a bucket."""
    folder = tmp_path_factory.mktemp("google")
    pack(model[0], folder / "model.tar.gz")
    with google({f"bucket/{FOLDER}/model.tar.gz": (folder / "model.tar.gz").read_bytes()}, folder) as cloud:
        yield cloud


def settings(cloud: Google, digest: str) -> dict[str, str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"AILERON_MANIFEST_SHA256": digest, "AILERON_BIND": "127.0.0.1", "AIP_STORAGE_URI": f"gs://bucket/{FOLDER}"}
    routes = {"AIP_HEALTH_ROUTE": "/v1/endpoints/1", "AIP_PREDICT_ROUTE": "/v1/endpoints/1:predict"}
    return {**cloud.environment, **own, **routes, "AIP_HTTP_PORT": str(port)}


@contextmanager
def serving(environment: dict[str, str], folder: Path) -> Iterator[tuple[subprocess.Popen[str], http.client.HTTPConnection]]:
    process = vertex.start(["serve"], folder, **environment)
    connection = http.client.HTTPConnection("127.0.0.1", int(environment["AIP_HTTP_PORT"]), timeout=30)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                connection.connect()
                break
            except ConnectionRefusedError:
                assert process.poll() is None and time.monotonic() < deadline, process.communicate()
                threading.Event().wait(0.02)
        yield process, connection
    finally:
        connection.close()
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture(scope="module")
def server(
    cloud: Google, model: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[http.client.HTTPConnection]:
    with serving(settings(cloud, model[1]), tmp_path_factory.mktemp("work")) as (_, connection):
        yield connection


def ask(connection: http.client.HTTPConnection, body: object, path: str = "/v1/endpoints/1:predict") -> tuple[int, str]:
    content = body if isinstance(body, bytes) else json.dumps(body, default=str).encode()
    connection.request("POST", path, content, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read().decode()


def predictions(connection: http.client.HTTPConnection, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    status, text = ask(connection, {"instances": rows})
    assert status == 200, text
    (name, found), *others = json.loads(text).items()
    assert (name, others) == ("predictions", [])
    return list(found)


def test_the_scores_are_those_of_the_score_job_to_the_last_digit(
    server: http.client.HTTPConnection, model: tuple[Path, str], tmp_path: Path
) -> None:
    pq.write_table(flights(1000, seed=9), tmp_path / "features.parquet")
    spec = {"features": str(tmp_path / "features.parquet"), "output": str(tmp_path / "scores.parquet"), "key": "flight_id"}
    spec |= {"result": str(tmp_path / "result.json"), "artifact": str(model[0]), "manifest_sha256": model[1]}
    assert running.run("score", spec, tmp_path).returncode == 0
    # DATE as text, NULL as null, INT64 as a number in one request and as a text in the other; and a label that is ignored.
    rows = flights(1000, seed=9).to_pylist()
    texts = [{**row, "hour": str(row["hour"])} for row in rows[300:]]
    found = predictions(server, rows[:300]) + predictions(server, texts)
    assert [row["score"] for row in found] == pq.read_table(tmp_path / "scores.parquet")["score"].to_pylist()
    assert all(row == {"score": row["score"], "unseen": []} for row in found)


def test_what_training_did_not_see_is_told_row_by_row(server: http.client.HTTPConnection) -> None:
    rows = [ROW, {**ROW, "carrier": "ZZ"}, {**ROW, "carrier": None, "origin": "LGA"}, {**ROW, "carrier": "ZZ", "origin": ""}]
    assert [row["unseen"] for row in predictions(server, rows)] == [[], ["carrier"], ["origin"], ["carrier", "origin"]]
    assert predictions(server, []) == []


def test_values_are_those_that_bigquery_exports(server: http.client.HTTPConnection, model: tuple[Path, str]) -> None:
    """One meaning, whichever way it is written: that of the same value in a Parquet file."""
    artifact = load_artifact(*model)

    def scored(distance: float | None, hour: float | None) -> float:
        columns = {"distance": pa.array([distance], pa.float64()), "hour": pa.array([hour], pa.float64())}
        texts = {name: pa.array([ROW[name]]) for name in CATEGORICAL}
        batch = pa.record_batch({**columns, **texts})
        return float(predict(artifact.booster, encode(batch, artifact.spec)[0]).astype(np.float64)[0])

    missing, large = scored(None, 17), scored(2.0**60, 17)
    cases: list[tuple[dict[str, Any], float]] = [
        ({"distance": None}, missing),
        ({"distance": "NaN"}, missing),
        ({"distance": float("nan")}, missing),
        ({"distance": 2**60 + 1}, large),
        ({"distance": str(2**60 + 1)}, large),
        ({"distance": "1400.5", "hour": 17.0}, scored(1400.5, 17)),
        ({"distance": "-1.25e3"}, scored(-1250, 17)),
        ({"hour": True}, scored(1400.5, 1)),
    ]
    found = predictions(server, [{**ROW, **change} for change, _ in cases])
    assert [row["score"] for row in found] == [score for _, score in cases]
    sparse = {name: value for name, value in ROW.items() if name != "distance"}
    assert predictions(server, [sparse])[0]["score"] == missing


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"{", "the request is not JSON"),
        (b"[" * 100_000, "the request is not JSON"),
        ([ROW], 'the request must be an object {"instances": [...]}'),
        ({"instances": ROW}, 'the request must be an object {"instances": [...]}'),
        ({"instances": [ROW], "parameters": {"threshold": 0.5}}, "the request has parameters"),
        (
            {"instances": [ROW, [1400.5, 17, "UA", "JFK"]]},
            "instance 2: must be a JSON object, not list: give the job the instance",
        ),
        ({"instances": [ROW, {}]}, "instance 2: has none of the features distance, hour, carrier, origin"),
        ({"instances": [ROW, {**ROW, "hour": "late"}]}, "instance 2: hour is 'late', not a number"),
        ({"instances": [ROW, {**ROW, "hour": "17 "}]}, "instance 2: hour is '17 ', not a number"),
        ({"instances": [ROW, {**ROW, "hour": ""}]}, "instance 2: hour is '', not a number"),
        ({"instances": [ROW, {**ROW, "hour": [17]}]}, "instance 2: hour is '[17]', not a number"),
        ({"instances": [ROW, {**ROW, "hour": 10**400}]}, "instance 2: hour is 1000"),
        ({"instances": [ROW, {**ROW, "carrier": 5}]}, "instance 2: carrier is '5', not a text"),
        ({"instances": [ROW, {**ROW, "carrier": float("nan")}]}, "instance 2: carrier is 'nan', not a text"),
        ({"instances": [ROW, {**ROW, "hour": "Infinity"}]}, "column 'hour': 1 of 2 values are infinite"),
        ({"instances": [ROW, {**ROW, "hour": float("inf")}]}, "column 'hour': 1 of 2 values are infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_scored_is_named(server: http.client.HTTPConnection, body: object, message: str) -> None:
    status, text = ask(server, body)
    assert status == 400
    assert text.startswith("ERROR: ") and message in text
    # The connection goes on.
    assert len(predictions(server, [ROW])) == 1


def test_there_are_two_paths(server: http.client.HTTPConnection) -> None:
    for path, expected in (("/v1/endpoints/1", (200, "{}")), ("/ping", (404, "ERROR: /ping: there is /v1/endpoints/1 and "))):
        server.request("GET", path)
        response = server.getresponse()
        assert response.status == expected[0]
        assert response.read().decode().startswith(expected[1])
    assert ask(server, {"instances": [ROW]}, "/v1/endpoints/1")[0] == 404


def test_the_model_comes_through_the_proxy_in_spite_of_passing_faults(
    cloud: Google, model: tuple[Path, str], tmp_path: Path
) -> None:
    cloud.asked.clear()
    cloud.faults[:] = [503, "cut"]
    with serving(settings(cloud, model[1]), tmp_path) as (process, connection):
        assert len(predictions(connection, [ROW])) == 1
        process.terminate()
        output, errors = process.communicate(timeout=30)
    assert process.returncode == 143, errors
    assert f"serving flight_delays, manifest {model[1]}\n" in output
    address = "/storage/v1/b/bucket/o/models%2Fflight%20delays%2F1%2Fmodel.tar.gz?alt=media"
    assert cloud.asked == ["storage.googleapis.com:443", address] * 3


@pytest.mark.parametrize(
    ("change", "faults", "message"),
    [
        ({"AILERON_MANIFEST_SHA256": ""}, [], "AILERON_MANIFEST_SHA256 is not set"),
        ({"AILERON_MANIFEST_SHA256": "0" * 64}, [], "the registry says 000000000000"),
        ({"AIP_STORAGE_URI": "gs://bucket/elsewhere"}, [], "gs://bucket/elsewhere/model.tar.gz: HTTP 404"),
        ({}, [403], "give the service account of the job roles/storage.objectViewer"),
        ({"AIP_STORAGE_URI": "/mnt/models"}, [], "'/mnt/models/model.tar.gz' is no address such as gs://"),
        ({"AIP_PREDICT_ROUTE": ""}, [], "AIP_PREDICT_ROUTE is not set"),
    ],
    ids=str,
)
def test_nothing_is_served_but_the_model_that_was_registered(
    cloud: Google, model: tuple[Path, str], tmp_path: Path, change: dict[str, str], faults: list, message: str
) -> None:
    cloud.faults[:] = faults
    assert message in refusal(vertex.run(["serve"], tmp_path, **{**settings(cloud, model[1]), **change}))


def test_a_changed_archive_is_not_loaded(cloud: Google, model: tuple[Path, str], tmp_path: Path) -> None:
    name = f"bucket/{FOLDER}/model.tar.gz"
    whole = cloud.objects[name]
    try:
        cloud.objects[name] = whole[: len(whole) // 2]
        assert "cannot be unpacked" in refusal(vertex.run(["serve"], tmp_path, **settings(cloud, model[1])))
    finally:
        cloud.objects[name] = whole
