"""The entry point of the image of Vertex AI, with buckets as Vertex mounts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import read_manifest, unpack
from include.core.files import sha256_of
from include.jobs.vertex import pack
from tests.core.examples import CATEGORICAL, NUMERIC, flights
from tests.jobs import running
from tests.jobs.running import refusal
from tests.jobs.vertex import at, objects, put, run, start

MODEL_DIR = "gs://bucket/models/one/model/"
ORDER = {"input": "gs://bucket/query/", "key": "flight_id"}


@pytest.fixture
def buckets(tmp_path: Path) -> Path:
    """All buckets, with a snapshot as a query of BigQuery leaves it."""
    folder = tmp_path / "gcs"
    snapshot = folder / "bucket" / "snapshot"
    snapshot.mkdir(parents=True)
    pq.write_table(flights(), snapshot / "data.parquet")
    return folder


@pytest.fixture
def training(buckets: Path) -> dict[str, Any]:
    return {
        "snapshot": "gs://bucket/snapshot/data.parquet",
        "snapshot_id": "2013-01-12",
        "snapshot_sha256": sha256_of(at(buckets, "gs://bucket/snapshot/data.parquet")),
        "model": "flight_delays",
        "numeric": list(NUMERIC),
        "categorical": list(CATEGORICAL),
        "task": "classification",
        "parameters": {"trees": 10, "max_depth": 4},
        "holdout_days": 3,
        "min_rows": 100,
    }


def train(buckets: Path, spec: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return run(["train", put(buckets, "gs://bucket/train/spec.json", spec)], buckets, AIP_MODEL_DIR=MODEL_DIR)


def test_a_training_is_that_of_a_laptop(buckets: Path, training: dict[str, Any], tmp_path: Path) -> None:
    done = train(buckets, training)
    assert done.returncode == 0, done.stderr
    assert objects(buckets, MODEL_DIR) == ["manifest.json", "model.tar.gz", "result.json"]
    result = json.loads(at(buckets, f"{MODEL_DIR}result.json").read_bytes())
    assert sha256_of(at(buckets, f"{MODEL_DIR}manifest.json")) == result["manifest_sha256"]
    (tmp_path / "unpacked").mkdir()
    archive = at(buckets, f"{MODEL_DIR}model.tar.gz")
    manifest = read_manifest(unpack(archive, tmp_path / "unpacked"), result["manifest_sha256"])
    assert f"holdout log_loss={manifest['metrics']['log_loss']}\n" in done.stdout

    here = {"snapshot": str(at(buckets, training["snapshot"])), "artifact": str(tmp_path / "here")}
    running.run("train", {**training, **here, "result": str(tmp_path / "here.json")}, tmp_path)
    expected = json.loads((tmp_path / "here.json").read_bytes())
    assert expected.pop("artifact") == str(tmp_path / "here")
    assert result == expected

    # Another attempt puts the same bytes there again; a folder stands for its one Parquet file.
    before = sha256_of(archive)
    assert train(buckets, {**training, "snapshot": "gs://bucket/snapshot"}).returncode == 0
    assert sha256_of(archive) == before
    assert objects(buckets, MODEL_DIR) == ["manifest.json", "model.tar.gz", "result.json"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot": None}, "snapshot: None must be the gs:// URI of a Parquet file"),
        ({"snapshot": "/etc/passwd"}, "'/etc/passwd' is no address such as gs://bucket/folder/file"),
        ({"snapshot": "gs://bucket/../../etc/passwd"}, "is no address such as gs://"),
        ({"snapshot": "gs://bucket/elsewhere"}, "gs://bucket/elsewhere: is not there"),
        ({"snapshot": "gs://bucket/train"}, "gs://bucket/train: holds no Parquet file"),
        ({"artifact": "gs://bucket/mine"}, "artifact: given by the container, leave it out"),
        ({"parameters": {"eta": 0.1}}, "parameters: eta: unknown; choose of trees"),
        ({"snapshot_sha256": "0" * 64}, "the spec says 000000000000"),
    ],
    ids=str,
)
def test_a_training_that_cannot_be_is_refused(buckets: Path, training: dict, change: dict, message: str) -> None:
    assert message in refusal(train(buckets, {**training, **change}))
    assert objects(buckets, MODEL_DIR) == []


def test_what_is_asked_for_must_be_known(buckets: Path, training: dict[str, Any]) -> None:
    assert "give process JOB SPEC OUTPUT, train SPEC, order SPEC OUTPUT or serve, not nothing" in refusal(run([], buckets))
    assert "or serve, not train now please" in refusal(run(["train", "now", "please"], buckets))
    spec = put(buckets, "gs://bucket/train/spec.json", training)
    assert "AIP_MODEL_DIR is not set: give the job a base_output_directory" in refusal(run(["train", spec], buckets))
    assert "job 'score' must be tune or inspect" in refusal(run(["process", "score", spec, "gs://bucket/out"], buckets))
    at(buckets, spec).write_text("[1]")
    assert "spec.json: must be a JSON object, not list" in refusal(run(["process", "tune", spec, "gs://bucket/out"], buckets))
    assert "cannot be read: No such file" in refusal(run(["order", "gs://bucket/none.json", "gs://bucket/out"], buckets))


def waiting(process: subprocess.Popen[str], line: str) -> int:
    """Wait for a word of the job; the id of the process that it runs in."""
    assert process.stdout is not None
    while line not in (said := process.stdout.readline()):
        assert said, process.communicate()
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("how", ["stopped", "job killed"])
def test_an_attempt_that_ends_early_leaves_nothing(buckets: Path, training: dict[str, Any], how: str, tmp_path: Path) -> None:
    training["parameters"] = {"trees": 5000, "max_depth": 12}
    spec = put(buckets, "gs://bucket/train/spec.json", training)
    (tmp_path / "room").mkdir()
    process = start(["train", spec], buckets, AIP_MODEL_DIR=MODEL_DIR, TMPDIR=str(tmp_path / "room"))
    child = waiting(process, "training flight_delays")
    if how == "stopped":
        process.terminate()
    else:
        os.kill(child, signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (143 if how == "stopped" else 2)
    assert how == "stopped" or "ERROR: the train job was killed by signal 9, for its memory perhaps" in errors
    assert not Path(f"/proc/{child}").exists()
    assert objects(buckets, MODEL_DIR) == [] and not list((tmp_path / "room").iterdir())


@pytest.fixture
def shadow(buckets: Path, model: tuple[Path, str]) -> dict[str, Any]:
    """The spec of a shadow: a packed model in its folder, and rows as BigQuery exports them."""
    at(buckets, "gs://other/model").mkdir(parents=True)
    pack(model[0], at(buckets, "gs://other/model/model.tar.gz"))
    at(buckets, "gs://bucket/features").mkdir()
    pq.write_table(flights(500, seed=9), at(buckets, "gs://bucket/features/000000000000.parquet"))
    return {
        "features": "gs://bucket/features",
        "key": "flight_id",
        "artifact": "gs://other/model/",
        "manifest_sha256": model[1],
        "champion_artifact": "gs://other/model",
        "champion_manifest_sha256": model[1],
        "threshold": 0.5,
    }


def process(buckets: Path, job: str, spec: dict[str, Any], output: str = "gs://bucket/out") -> subprocess.CompletedProcess[str]:
    return run(["process", job, put(buckets, f"gs://bucket/specs/{job}.json", spec), output], buckets)


def test_a_job_reads_packed_models_and_folders_of_one_file(buckets: Path, shadow: dict[str, Any], tmp_path: Path) -> None:
    before = objects(buckets, "gs://")
    done = process(buckets, "shadow", shadow)
    assert done.returncode == 0, done.stderr
    result = json.loads(at(buckets, "gs://bucket/out/shadow.json").read_bytes())
    assert (result["rows_scored"], result["churn"]) == (500, 0)
    assert objects(buckets, "gs://") == sorted([*before, "bucket/out/shadow.json", "bucket/specs/shadow.json"])


def test_every_kind_of_processing_runs(buckets: Path, training: dict[str, Any], shadow: dict[str, Any], model: tuple) -> None:
    common = {key: training[key] for key in ("snapshot", "snapshot_sha256", "task")}
    columns = {key: training[key] for key in ("numeric", "categorical")}
    days = {"holdout_days": 3, "validation_days": 2, "min_rows": 100, "trials": 1, "max_trees": 5, "windows": [None]}
    specs = {
        "tune": {**columns, "model": "m", **days},
        "inspect": {**columns, "key": "flight_id", "max_feature_auc": 0.99},
        "evaluate": {"artifact": "gs://other/model", "manifest_sha256": model[1]},
    }
    for job, spec in specs.items():
        done = process(buckets, job, {**common, **spec}, f"gs://bucket/out/{job}/")
        assert done.returncode == 0, done.stderr
    assert objects(buckets, "gs://bucket/out") == ["evaluate/evaluate.json", "inspect/inspect.json", "tune/tune.json"]


@pytest.mark.parametrize(
    ("change", "output", "message"),
    [
        ({"result": "gs://bucket/out/mine.json"}, "gs://bucket/out", "result: given by the container, leave it out"),
        ({"features": "gs://bucket/none"}, "gs://bucket/out", "gs://bucket/none: is not there"),
        ({"manifest_sha256": "0" * 64}, "gs://bucket/out", "manifest.json: SHA-256 is"),
        ({}, "s3://bucket/out", "'s3://bucket/out' is no address such as gs://bucket/folder/file"),
        ({}, "gs://", "'gs://' is no address"),
        ({}, "gs:///etc", "'gs:///etc' is no address"),
    ],
    ids=str,
)
def test_what_cannot_be_processed_is_refused(buckets: Path, shadow: dict, change: dict, output: str, message: str) -> None:
    old = at(buckets, put(buckets, "gs://bucket/out/shadow.json", "of a run before"))
    assert message in refusal(process(buckets, "shadow", {**shadow, **change}, output))
    assert json.loads(old.read_bytes()) == "of a run before"
    assert objects(buckets, "gs://bucket/out") == ["shadow.json"]


def scattered(buckets: Path) -> None:
    rows = flights(3000)
    for number, part in enumerate((rows.slice(1300), rows.slice(0, 700), rows.slice(700, 600))):
        path = at(buckets, f"gs://bucket/query/part-{number:012d}.parquet")
        path.parent.mkdir(exist_ok=True)
        pq.write_table(part, path)


def order(buckets: Path, output: str, change: dict[str, object]) -> subprocess.CompletedProcess[str]:
    return run(["order", put(buckets, "gs://bucket/order.json", {**ORDER, **change}), output], buckets)


def test_a_training_set_is_put_in_order(buckets: Path) -> None:
    scattered(buckets)
    done = order(buckets, "gs://bucket/sorted", {})
    assert done.returncode == 0, done.stderr
    assert objects(buckets, "gs://bucket/sorted") == ["data.parquet", "order.json"]
    path = at(buckets, "gs://bucket/sorted/data.parquet")
    assert json.loads(at(buckets, "gs://bucket/sorted/order.json").read_bytes()) == {"rows": 3000, "sha256": sha256_of(path)}
    rows: pa.Table = pq.ParquetFile(path).read()
    assert rows.equals(flights(3000).sort_by([("partition_date", "ascending"), ("flight_id", "ascending")]))


@pytest.mark.parametrize(
    ("output", "change", "message"),
    [
        ("gs://bucket/query/sorted/", {}, "gs://bucket/query/sorted/ lies in gs://bucket/query/"),
        ("gs://bucket/sorted", {"input": "gs://bucket/none"}, "gs://bucket/none: is not there"),
        ("gs://bucket/sorted", {"input": 5}, "'5' is no address such as gs://bucket/folder/file"),
        ("gs://bucket/sorted", {"key": "row_id"}, "has no column row_id: it is no training set"),
        ("gs://bucket/sorted", {"colour": "red"}, "colour: unknown key"),
        ("gs://bucket/sorted", {"result": "gs://bucket/mine.json"}, "result: given by the container, leave it out"),
    ],
    ids=str,
)
def test_what_cannot_be_put_in_order_is_refused(buckets: Path, output: str, change: dict, message: str) -> None:
    scattered(buckets)
    assert message in refusal(order(buckets, output, change))
    assert objects(buckets, "gs://bucket/sorted") == [] and len(objects(buckets, "gs://bucket/query")) == 3
