"""The server of a model: whose scores are those of the score job, and who refuses what cannot be scored."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import load_artifact, predict
from include.core.errors import Refused
from include.core.features import encode
from include.jobs import inference
from include.jobs.inference import Model, Server, answer, verified
from tests.core.examples import CATEGORICAL, NUMERIC, flights
from tests.core.test_artifacts import with_golden_scores
from tests.jobs.running import run

ROW = {"flight_id": "f1", "partition_date": "2013-04-01", "distance": 1400.5, "hour": 17, "carrier": "UA", "origin": "JFK"}


@pytest.fixture(scope="module")
def served(model: tuple[Path, str]) -> Model:
    return verified(model[0], "flight_id", model[1])


@contextmanager
def serving(model: Model | Refused) -> Iterator[http.client.HTTPConnection]:
    with Server("127.0.0.1", 0, model) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()
            server.shutdown()
            thread.join()


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "\n".join(json.dumps(row, default=str) for row in rows).encode() + b"\n"


def ask(connection: http.client.HTTPConnection, body: bytes, kind: str = inference.JSON_LINES) -> tuple[int, str]:
    connection.request("POST", "/invocations", body, {"Content-Type": kind})
    response = connection.getresponse()
    return response.status, response.read().decode()


def test_the_scores_are_those_of_the_score_job_to_the_last_digit(served: Model, model: tuple[Path, str], tmp_path: Path) -> None:
    pq.write_table(flights(1000, seed=9), tmp_path / "features.parquet")
    spec = {"features": str(tmp_path / "features.parquet"), "output": str(tmp_path / "scores.parquet"), "key": "flight_id"}
    spec |= {"result": str(tmp_path / "result.json"), "artifact": str(model[0]), "manifest_sha256": model[1]}
    assert run("score", spec, tmp_path).returncode == 0
    expected = pq.read_table(tmp_path / "scores.parquet").to_pylist()
    rows = [{name: value for name, value in row.items() if value is not None} for row in flights(1000, seed=9).to_pylist()]
    with serving(served) as connection:
        # One connection for all requests, as Batch Transform keeps it.
        for part in (slice(0, 300), slice(300, 1000)):
            status, text = ask(connection, lines(rows[part]))
            assert status == 200
            found = [json.loads(line) for line in text.splitlines()]
            assert found == [{**row, "partition_date": row["partition_date"].isoformat(), "unseen": []} for row in expected[part]]


def test_what_training_did_not_see_is_told_row_by_row(served: Model) -> None:
    rows = [ROW, {**ROW, "carrier": "ZZ"}, {**ROW, "carrier": None, "origin": "LGA"}, {**ROW, "carrier": "ZZ", "origin": ""}]
    found = [json.loads(line) for line in answer(lines(rows), served).splitlines()]
    assert [row["unseen"] for row in found] == [[], ["carrier"], ["origin"], ["carrier", "origin"]]


def test_what_is_left_out_is_missing_to_the_model_and_what_is_more_is_ignored(served: Model) -> None:
    sparse = {"flight_id": 'ünï"', "partition_date": "2013-04-01"}
    null = {**dict.fromkeys((*NUMERIC, *CATEGORICAL)), **sparse, "more": [1]}
    one, other = (json.loads(line) for line in answer(lines([sparse, null]), served).splitlines())
    assert one == other
    empty = pa.record_batch({**{name: pa.array([None], pa.float64()) for name in NUMERIC},
                             **{name: pa.array([None], pa.string()) for name in CATEGORICAL}})  # fmt: skip
    assert one["score"] == predict(served.artifact.booster, encode(empty, served.artifact.spec)[0]).astype(np.float64)[0]
    assert one["flight_id"] == 'ünï"'


def test_a_key_may_be_a_number_and_a_text_may_hold_any_character(served: Model) -> None:
    (line,) = answer(lines([{**ROW, "flight_id": 2**53 + 1}]), served).splitlines()
    assert json.loads(line)["flight_id"] == 2**53 + 1
    # A line separator of Unicode is no line feed.
    raw = json.dumps({**ROW, "flight_id": "a\u2028b"}, ensure_ascii=False).encode()
    assert json.loads(answer(raw, served))["flight_id"] == "a\u2028b"
    assert answer(b"", served) == b""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "line 2: is not JSON"),
        (b"", "line 2: is not JSON"),
        (b"\xff", "line 2: is not JSON"),
        (b"[" * 100_000, "line 2: is not JSON"),
        (b"[1]", "line 2: must be a JSON object, not list"),
        (lines([{**ROW, "flight_id": None}]), "line 2: flight_id is NULL or left out"),
        (lines([{**ROW, "flight_id": 7}]), "line 2: flight_id is '7', not a text"),
        (lines([{**ROW, "partition_date": None}]), "line 2: partition_date is NULL or left out"),
        (lines([{**ROW, "partition_date": "20130401"}]), "line 2: partition_date is '20130401', not a day such as 2013-04-01"),
        (lines([{**ROW, "partition_date": 15800}]), "line 2: partition_date is '15800', not a day"),
        (lines([{**ROW, "hour": "17"}]), "line 2: hour is '17', not a number"),
        (lines([{**ROW, "hour": [17]}]), "line 2: hour is '[17]', not a number"),
        (lines([{**ROW, "carrier": 5}]), "line 2: carrier is '5', not a text"),
        (lines([{**ROW, "carrier": "\ud800"}]), "line 2: carrier is '\\ud800', not a text"),
        (lines([{**ROW, "hour": float("nan")}]), "line 2: is not JSON: NaN is no number"),
        (lines([{**ROW, "hour": 0.25}]).replace(b"0.25", b"1e999"), "column 'hour': 1 of 3 values are infinite"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_that_cannot_be_scored_is_named(served: Model, line: bytes, message: str) -> None:
    with serving(served) as connection:
        status, text = ask(connection, lines([ROW]) + line.rstrip(b"\n") + b"\n" + lines([ROW]))
        assert status == 400
        assert text.startswith("ERROR: ") and message in text
        # The connection goes on.
        assert ask(connection, lines([ROW]))[0] == 200


def test_other_requests_are_refused(served: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inference, "MOST_BYTES", 500)
    with serving(served) as connection:
        assert ask(connection, lines([ROW]), "text/csv") == (415, "ERROR: text/csv: send application/jsonlines\n")
        assert ask(connection, lines([ROW]), "application/jsonlines; charset=utf-8")[0] == 200
        connection.request("POST", "/elsewhere", b"x")
        response = connection.getresponse()
        assert (response.status, response.read()[:6]) == (404, b"ERROR:")
        connection.request("GET", "/execution-parameters")
        response = connection.getresponse()
        assert (response.status, response.read()[:6]) == (404, b"ERROR:")
        for header, status in (("Content-Length: 501", 413), ("Transfer-Encoding: chunked", 411), ("Content-Length: -1", 411)):
            with socket.create_connection((connection.host, connection.port)) as sock:
                sock.sendall(f"POST /invocations HTTP/1.1\r\nContent-Type: application/jsonlines\r\n{header}\r\n\r\n".encode())
                said = b"".join(iter(lambda: sock.recv(1000), b"")).decode()
                assert said.startswith(f"HTTP/1.1 {status} ") and "\r\nConnection: close\r\n" in said


def test_a_body_that_ends_too_early_is_not_scored(served: Model) -> None:
    with serving(served) as connection:
        with socket.create_connection((connection.host, connection.port)) as sock:
            body = lines([ROW])
            head = f"POST /invocations HTTP/1.1\r\nContent-Type: application/jsonlines\r\nContent-Length: {len(body) + 1}\r\n\r\n"
            sock.sendall(head.encode() + body)
            sock.shutdown(socket.SHUT_WR)
            assert sock.recv(100) == b""


def test_a_fault_of_ours_is_not_blamed_on_the_lines(served: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bytes:
        raise MemoryError("none left")

    monkeypatch.setattr(inference, "answer", broken)
    with serving(served) as connection:
        assert ask(connection, lines([ROW])) == (500, "ERROR: MemoryError: none left\n")


def test_requests_are_scored_side_by_side(served: Model) -> None:
    expected, found = answer(lines([ROW]), served).decode(), []

    def client(port: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        found.extend(ask(connection, lines([ROW])) for _ in range(20))
        connection.close()

    with serving(served) as connection:
        threads = [threading.Thread(target=client, args=(connection.port,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found == [(200, expected)] * 160


def test_the_server_is_well_only_with_the_model_that_was_registered(model: tuple[Path, str], tmp_path: Path) -> None:
    def ping(folder: Path, digest: str, key: str = "flight_id") -> tuple[int, str]:
        try:
            found: Model | Refused = verified(folder, key, digest)
        except Refused as error:
            found = error
        with serving(found) as connection:
            connection.request("GET", "/ping")
            response = connection.getresponse()
            said = response.status, response.read().decode()
            assert (said[0] == 200) == (ask(connection, lines([ROW]))[0] == 200)
            return said

    assert ping(*model) == (200, "")
    assert ping(model[0], "") == (500, "ERROR: AILERON_MANIFEST_SHA256 is not set: give it in the environment of the model\n")
    assert "AILERON_KEY is not set" in ping(*model, key="")[1]
    assert "the registry says 000000000000" in ping(model[0], "0" * 64)[1]
    assert "not found" in ping(tmp_path, model[1])[1]
    folder = Path(shutil.copytree(model[0], tmp_path / "changed"))
    assert "golden rows score up to 0.01 off" in ping(folder, with_golden_scores(folder, 0.01))[1]


def test_the_container_serves_until_it_is_stopped(model: tuple[Path, str], tmp_path: Path) -> None:
    from tests.jobs.test_container import start

    shutil.copytree(model[0], tmp_path / "model")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = {"AILERON_KEY": "flight_id", "AILERON_MANIFEST_SHA256": model[1], "AILERON_BIND": "127.0.0.1"}
    process = start("serve", tmp_path, SAGEMAKER_BIND_TO_PORT=str(port), **environment)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("serving flight_delays, manifest ")
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except ConnectionRefusedError:
            threading.Event().wait(0.05)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    loaded = load_artifact(*model)
    status, text = ask(connection, lines([ROW]))
    assert status == 200
    batch = pa.RecordBatch.from_pylist([ROW])
    assert json.loads(text)["score"] == float(predict(loaded.booster, encode(batch, loaded.spec)[0])[0])
    connection.close()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
