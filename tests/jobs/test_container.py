"""The entry point of the container image, in folders as SageMaker lays them out."""

from __future__ import annotations

import ast
import io
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.config import REPOSITORY
from include.core import artifacts
from include.core.artifacts import read_manifest
from include.core.errors import Refused
from include.core.files import sha256_of
from include.jobs import container
from tests.conftest import ROOT
from tests.core.examples import CATEGORICAL, NUMERIC, flights
from tests.jobs import running
from tests.jobs.running import refusal


def start(verb: str, base: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "include.jobs.container", *verb.split()]
    environment = {**os.environ, "SAGEMAKER_BASE_DIR": str(base), **environment}
    return subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(verb: str, base: Path) -> subprocess.CompletedProcess[str]:
    process = start(verb, base)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def put(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """/opt/ml as SageMaker has it when training begins: folders, and a snapshot as Spark leaves it."""
    folder = tmp_path / "opt-ml"
    snapshot = folder / "input" / "data" / "snapshot"
    snapshot.mkdir(parents=True)
    (folder / "model").mkdir()
    (snapshot / "_SUCCESS").touch()
    pq.write_table(flights(), snapshot / "part-00000.snappy.parquet")
    return folder


@pytest.fixture
def training(base: Path) -> dict[str, Any]:
    """A spec, which is in its channel too."""
    document = {
        "job": "train",
        "spec": {
            "snapshot_id": "2013-01-12",
            "snapshot_sha256": sha256_of(base / "input/data/snapshot/part-00000.snappy.parquet"),
            "model": "flight_delays",
            "numeric": list(NUMERIC),
            "categorical": list(CATEGORICAL),
            "task": "classification",
            "parameters": {"trees": 10, "max_depth": 4},
            "holdout_days": 3,
            "min_rows": 100,
        },
    }
    put(base / "input/data/spec/spec.json", document)
    return document


def test_a_training_is_that_of_a_laptop(base: Path, training: dict[str, Any], tmp_path: Path) -> None:
    done = run("train", base)
    assert done.returncode == 0, done.stderr
    result = json.loads((base / "output/data/result.json").read_bytes())
    assert sorted(path.name for path in (base / "model").iterdir()) == ["golden.parquet", "manifest.json", "model.ubj"]
    manifest = read_manifest(base / "model", result["manifest_sha256"])
    assert f"holdout log_loss={manifest['metrics']['log_loss']}\n" in done.stdout
    assert not list(base.glob(".work-*")) and not (base / "output/failure").exists()

    here = {"snapshot": str(base / "input/data/snapshot/part-00000.snappy.parquet"), "artifact": str(tmp_path / "here")}
    running.run("train", {**training["spec"], **here, "result": str(tmp_path / "here.json")}, tmp_path)
    assert json.loads((tmp_path / "here.json").read_bytes())["manifest_sha256"] == result["manifest_sha256"]


def test_a_tuner_may_choose_parameters_but_does_not_see_the_holdout(base: Path, training: dict[str, Any], tmp_path: Path) -> None:
    chosen = {"max_depth": "2", "learning_rate": "0.25", "half_life_days": "null"}
    put(base / "input/config/hyperparameters.json", {**chosen, "_tuning_objective_metric": "validation log_loss"})
    put(base / "input/data/spec/spec.json", {**training, "validation_days": 2})
    done = run("train", base)
    assert done.returncode == 0, done.stderr
    manifest = json.loads((base / "model/manifest.json").read_bytes())
    assert (manifest["parameters"]["max_depth"], manifest["parameters"]["learning_rate"]) == (2, 0.25)
    assert manifest["parameters"]["half_life_days"] is None
    assert manifest["parameters"]["trees"] == 10
    assert (manifest["holdout"]["first"], manifest["holdout"]["last"]) == ("2013-01-08", "2013-01-09")
    assert re.findall(r"validation log_loss=(.+)", done.stdout) == [str(manifest["metrics"]["log_loss"])]
    assert "holdout log_loss" not in done.stdout

    # Other labels in the holdout change nothing.
    path = base / "input/data/snapshot/part-00000.snappy.parquet"
    rows = flights()
    held_out = pc.greater_equal(rows["partition_date"], pc.strptime("2013-01-10", "%Y-%m-%d", "s").cast("date32"))
    label = pc.if_else(held_out, pc.subtract(1, rows["label"]), rows["label"]).cast(rows["label"].type)
    pq.write_table(rows.set_column(rows.column_names.index("label"), "label", label), path)
    training["spec"]["snapshot_sha256"] = sha256_of(path)
    put(base / "input/data/spec/spec.json", {**training, "validation_days": 2})
    before = sha256_of(base / "model/model.ubj")
    for file in (base / "model").iterdir():
        file.unlink()
    assert run("train", base).returncode == 0
    assert sha256_of(base / "model/model.ubj") == before


def test_what_fails_is_said_where_sagemaker_looks(base: Path, training: dict[str, Any]) -> None:
    put(base / "input/config/hyperparameters.json", {"eta": "0.1"})
    said = refusal(run("train", base))
    assert said == f"ERROR: {(base / 'output/failure').read_text()}"
    assert "parameters: eta: unknown; choose of trees, max_depth" in said
    assert not list((base / "model").iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"job": "score"}, "job 'score' must be train"),
        ({"speck": {}}, "speck: unknown key"),
        ({"spec": []}, "must be an object such as"),
        ({"spec": {"snapshot": "elsewhere"}}, "snapshot: given by the container, leave it out"),
        ({"spec": {"model": "flight_delays"}}, "snapshot_sha256: missing"),
        ({"validation_days": 0}, "validation_days: 0 must be an integer of at least 1"),
    ],
    ids=str,
)
def test_a_spec_that_does_not_fit_is_refused(base: Path, training: dict, change: dict, message: str, tmp_path: Path) -> None:
    put(base / "input/data/spec/spec.json", {**training, **change})
    with pytest.raises(Refused, match=re.escape(message)):
        container.train(base, tmp_path)


def test_what_is_missing_or_too_much_is_refused(base: Path, training: dict[str, Any], tmp_path: Path) -> None:
    put(base / "input/config/hyperparameters.json", {"max_depth": "deep"})
    with pytest.raises(Refused, match="max_depth: 'deep' is no number and not null"):
        container.train(base, tmp_path)
    pq.write_table(flights(10), base / "input/data/snapshot/part-00001.snappy.parquet")
    with pytest.raises(Refused, match="holds 2 Parquet files, not one"):
        container.train(base, tmp_path)
    (base / "model" / "old").touch()
    with pytest.raises(Refused, match=r"is not empty \(old\)"):
        container.train(base, tmp_path)
    assert "give one argument" in refusal(run("train now", base))


def test_a_stop_ends_the_job_too(base: Path, training: dict[str, Any]) -> None:
    training["spec"]["parameters"] = {"trees": 5000, "max_depth": 12}
    put(base / "input/data/spec/spec.json", training)
    process = start("train", base)
    assert process.stdout is not None
    while "training flight_delays" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert not Path(f"/proc/{child}").exists()
    assert not list((base / "model").iterdir()) and not list(base.glob(".work-*"))


def test_a_killed_job_is_reported(base: Path, training: dict[str, Any]) -> None:
    training["spec"]["parameters"] = {"trees": 5000, "max_depth": 12}
    put(base / "input/data/spec/spec.json", training)
    process = start("train", base)
    assert process.stdout is not None
    while "training flight_delays" not in process.stdout.readline():
        pass
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(child), signal.SIGKILL)
    process.communicate(timeout=30)
    assert process.returncode == 2
    assert "the train job was killed by signal 9, for its memory perhaps" in (base / "output/failure").read_text()


def packed(folder: Path, archive: Path, **more: bytes) -> Path:
    """As SageMaker packs /opt/ml/model."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz") as tar:
        for file in sorted(folder.iterdir()):
            tar.add(file, file.name)
        for name, content in more.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


@pytest.fixture
def shadow(base: Path, model: tuple[Path, str]) -> dict[str, Any]:
    inputs = base / "processing" / "input"
    packed(model[0], inputs / "artifact" / "model.tar.gz")
    (inputs / "features").mkdir()
    pq.write_table(flights(500, seed=9), inputs / "features" / "20131120_000000_x.parquet")
    document = {
        "job": "shadow",
        "spec": {
            "features": "/opt/ml/processing/input/features",
            "key": "flight_id",
            "artifact": "/opt/ml/processing/input/artifact",
            "manifest_sha256": model[1],
            "champion_artifact": "/opt/ml/processing/input/artifact",
            "champion_manifest_sha256": model[1],
            "threshold": 0.5,
            "result": "/opt/ml/processing/output/shadow.json",
        },
    }
    put(inputs / "spec" / "spec.json", document)
    return document


def test_a_processing_job_reads_packed_models_and_folders_of_one_file(base: Path, shadow: dict[str, Any]) -> None:
    done = run("process", base)
    assert done.returncode == 0, done.stderr
    result = json.loads((base / "processing/output/shadow.json").read_bytes())
    assert (result["rows_scored"], result["churn"]) == (500, 0)
    assert [path.name for path in (base / "processing/output").iterdir()] == ["shadow.json"]
    assert not list(base.glob(".work-*"))


def test_every_kind_of_processing_runs(base: Path, training: dict[str, Any], model: tuple[Path, str]) -> None:
    folder = base / "processing" / "input" / "snapshot"
    folder.mkdir(parents=True)
    (base / "input/data/snapshot/part-00000.snappy.parquet").rename(folder / "data.parquet")
    packed(model[0], base / "processing/input/artifact/model.tar.gz")
    common = {key: training["spec"][key] for key in ("snapshot_sha256", "task")}
    columns = {key: training["spec"][key] for key in ("numeric", "categorical")}
    snapshot, artifact = "/opt/ml/processing/input/snapshot", "/opt/ml/processing/input/artifact"
    days = {
        "model": "m",
        "holdout_days": 3,
        "validation_days": 2,
        "min_rows": 100,
        "trials": 1,
        "max_trees": 5,
        "windows": [None],
    }
    specs = {
        "tune": {**columns, **days},
        "inspect": {**columns, "key": "flight_id", "max_feature_auc": 0.99},
        "evaluate": {"artifact": artifact, "manifest_sha256": model[1], "champion_artifact": "", "champion_manifest_sha256": ""},
    }
    for job, spec in specs.items():
        spec |= {**common, "snapshot": snapshot, "result": f"/opt/ml/processing/output/{job}.json"}
        put(base / "processing/input/spec/spec.json", {"job": job, "spec": spec})
        done = run("process", base)
        assert done.returncode == 0, done.stderr
        assert json.loads((base / f"processing/output/{job}.json").read_bytes())


def test_nothing_but_a_model_is_taken_out_of_an_archive(
    base: Path, shadow: dict[str, Any], model: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = base / "processing/input/artifact/model.tar.gz"
    for name in ("../manifest.json", "/tmp/model.ubj", "code/inference.py", "manifest.json"):
        packed(model[0], archive, **{name: b"x"})
        with pytest.raises(Refused, match=re.escape(f"holds {name!r}, which is no file of a model")):
            container.process(base, tmp_path)
    with tarfile.open(archive, "w:gz") as tar:
        member = tarfile.TarInfo("model.ubj")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(Refused, match=r"holds 'model\.ubj', which is no file of a model"):
        container.process(base, tmp_path)
    content = packed(model[0], archive).read_bytes()
    for damaged in (b"", content[:5], content[: len(content) // 2], b"no archive"):
        archive.write_bytes(damaged)
        with pytest.raises(Refused, match="cannot be unpacked"):
            container.process(base, tmp_path)
    archive.write_bytes(content)
    monkeypatch.setattr(artifacts, "MOST_BYTES", 1000)
    with pytest.raises(Refused, match="larger than 1,000 bytes"):
        container.process(base, tmp_path)
    assert not (base / "processing/output").exists()


def test_a_changed_model_is_refused_with_the_words_of_the_job(base: Path, shadow: dict[str, Any]) -> None:
    shadow["spec"]["manifest_sha256"] = "0" * 64
    put(base / "processing/input/spec/spec.json", shadow)
    said = refusal(run("process", base))
    assert "manifest.json: SHA-256 is" in said
    assert said == f"ERROR: {(base / 'output/message').read_text()}"


def test_the_image_has_the_versions_of_the_lock() -> None:
    locked = (ROOT / "requirements.lock").read_text()
    pins = [line for line in (ROOT / "deploy/aws/requirements.txt").read_text().splitlines() if "==" in line]
    assert pins
    for pin in pins:
        versions = re.findall(rf"^{re.escape(pin)} ; (.*?) \\$", locked, re.MULTILINE)
        assert any("== '3.12.*'" in marker or "< '3.13'" in marker for marker in versions), pin
    assert "python:3.12-slim" in (ROOT / "deploy/aws/Dockerfile").read_text()


def test_the_image_has_every_package_that_the_code_imports() -> None:
    found = set()
    for path in (path for folder in ("core", "jobs") for path in (ROOT / "include" / folder).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    names = {"scikit-learn": "sklearn", "xgboost-cpu": "xgboost"}
    pins = re.findall(r"^([\w-]+)==", (ROOT / "deploy/aws/requirements.txt").read_text(), re.MULTILINE)
    # The scripts of Spark and Beam are no jobs of this image.
    assert found - sys.stdlib_module_names - {"include", "pyspark", "apache_beam"} == {names.get(pin, pin) for pin in pins}
