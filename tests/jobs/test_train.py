"""The train job, end to end: one artifact for one training, whole or not there."""

from __future__ import annotations

import json
import random
import resource
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from include.core.artifacts import check_golden, load_artifact, read_manifest
from include.core.files import sha256_of
from include.core.training import Parameters
from tests.core.examples import CATEGORICAL, NUMERIC, delays, flights
from tests.jobs.running import refusal, run, start


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    snapshot = tmp_path / "partition_date=2013-01-12" / "data.parquet"
    snapshot.parent.mkdir()
    pq.write_table(flights(), snapshot)
    return {
        "snapshot": str(snapshot),
        "snapshot_id": "2013-01-12",
        "snapshot_sha256": sha256_of(snapshot),
        "artifact": str(tmp_path / "models" / "one"),
        "result": str(tmp_path / "result.json"),
        "model": "flight_delays",
        "numeric": list(NUMERIC),
        "categorical": list(CATEGORICAL),
        "task": "classification",
        "parameters": {"trees": 20, "max_depth": 4},
        "holdout_days": 3,
        "min_rows": 100,
    }


def result(spec: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Path(spec["result"]).read_bytes())


def test_a_training_leaves_an_artifact_and_a_result(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("train", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    found = result(spec)
    artifact = load_artifact(Path(found["artifact"]), found["manifest_sha256"])
    check_golden(artifact)
    assert found["training"] == {
        "first": "2013-01-01",
        "last": "2013-01-09",
        "rows": 2250,
        "positives": found["training"]["positives"],
    }
    assert found["holdout"]["first"] == "2013-01-10"
    assert found["metrics"]["auc"] > 0.6
    assert found["metrics"] == artifact.manifest["metrics"]
    assert artifact.manifest["snapshot_sha256"] == spec["snapshot_sha256"]
    assert artifact.manifest["task"] == "classification"
    assert artifact.manifest["parameters"] == Parameters(trees=20, max_depth=4).to_json()
    assert sum(artifact.manifest["reference"]["score"]["counts"]) == 750
    assert artifact.manifest["reference"]["features"].keys() == {*NUMERIC, *CATEGORICAL}
    assert sorted(path.name for path in Path(found["artifact"]).iterdir()) == ["golden.parquet", "manifest.json", "model.ubj"]
    assert not list(Path(found["artifact"]).parent.glob(".*.tmp"))


def test_a_regression_leaves_a_model_of_numbers(spec: dict[str, Any], tmp_path: Path) -> None:
    pq.write_table(delays(), spec["snapshot"])
    done = run("train", {**spec, "task": "regression", "snapshot_sha256": sha256_of(Path(spec["snapshot"]))}, tmp_path)
    assert done.returncode == 0, done.stderr
    found = result(spec)
    artifact = load_artifact(Path(found["artifact"]), found["manifest_sha256"])
    check_golden(artifact)
    assert artifact.manifest["task"] == "regression"
    assert found["training"]["positives"] is None
    assert found["metrics"]["r2"] > 0.5


def test_the_same_training_elsewhere_gives_the_same_files(spec: dict[str, Any], tmp_path: Path) -> None:
    digests = []
    for name in ("one", "two"):
        assert run("train", {**spec, "artifact": str(tmp_path / "models" / name)}, tmp_path).returncode == 0
        digests.append(result(spec)["manifest_sha256"])
    assert digests[0] == digests[1]


def test_a_retry_gives_the_same_result_without_training(spec: dict[str, Any], tmp_path: Path) -> None:
    assert run("train", spec, tmp_path).returncode == 0
    first = result(spec)
    Path(spec["result"]).unlink()
    again = run("train", spec, tmp_path)
    assert again.returncode == 0
    assert result(spec) == first
    assert "trees" not in again.stdout


@pytest.mark.parametrize("change", [{"parameters": {"seed": 8}}, {"numeric": ["hour", "distance"]}, {"min_rows": 101}], ids=str)
def test_the_folder_of_another_training_is_refused(spec: dict[str, Any], tmp_path: Path, change: dict[str, Any]) -> None:
    assert run("train", spec, tmp_path).returncode == 0
    before = result(spec)
    assert "holds a model of another training" in refusal(run("train", {**spec, **change}, tmp_path))
    read_manifest(Path(spec["artifact"]), before["manifest_sha256"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot_sha256": "0" * 64}, "the spec says 000000000000…: take it again"),
        ({"min_rows": 10_000}, "training.min_rows asks for 10000"),
        ({"holdout_days": 12}, "widen training.window_days"),
        ({"numeric": ["distance", "speed"]}, "column 'speed' is missing"),
        ({"label": "late"}, "no column 'late'"),
        ({"parameters": {"trees": 0, "depth": 3}}, "depth: unknown; choose of trees, max_depth,"),
        ({"parameters": {"trees": 0}}, "trees: 0 must be at least 1 and at most 5000"),
        ({"task": "ranking"}, "task: 'ranking' must be classification or regression"),
        ({"categorical": ["hour"], "numeric": ["distance"]}, "column 'hour' holds int64"),
    ],
    ids=str,
)
def test_a_training_set_that_does_not_fit_is_refused(spec: dict[str, Any], tmp_path: Path, change: dict, message: str) -> None:
    assert message in refusal(run("train", {**spec, **change}, tmp_path))
    assert not Path(spec["artifact"]).exists()
    assert not Path(spec["result"]).exists()


def test_a_killed_training_leaves_no_artifact_or_a_whole_one(spec: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(spec["artifact"])
    began = time.monotonic()
    assert run("train", spec, tmp_path).returncode == 0
    duration, digest = time.monotonic() - began, result(spec)["manifest_sha256"]
    for attempt in range(5):
        spec["artifact"] = str(folder.with_name(f"attempt_{attempt}"))
        process = start("train", spec, tmp_path)
        time.sleep(random.Random(attempt).uniform(0.5, 1.0) * duration)
        process.kill()
        process.communicate()
        if Path(spec["artifact"]).exists():
            read_manifest(Path(spec["artifact"]), digest)
    assert run("train", spec, tmp_path).returncode == 0
    assert result(spec)["manifest_sha256"] == digest


def test_a_full_disk_leaves_no_artifact(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("train", spec, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert "File too large" in refusal(done, code=2)
    assert list(Path(spec["artifact"]).parent.iterdir()) == []
