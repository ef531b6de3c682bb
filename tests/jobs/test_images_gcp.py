"""The images and templates of Google Cloud are what the code needs, and say what it takes."""

from __future__ import annotations

import argparse
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from include.config import REPOSITORY
from include.jobs import beam_postprocess, beam_score
from tests.jobs.test_beam_postprocess import STAMP

GCP = REPOSITORY / "deploy" / "gcp"
PARSERS = {"postprocess": beam_postprocess.parser, "score": beam_score.parser}
GIVEN = {
    "postprocess": {**STAMP, "input": "gs://bucket/scores/*.parquet", "output": "gs://bucket/out/part"},
    "score": {
        "features": "gs://bucket/features/partition_date=2013-04-01/*.parquet",
        "artifact": "gs://bucket/models/0123/model.tar.gz",
        "manifest_sha256": "0" * 64,
        "key": "flight_id",
        "output": "gs://bucket/out/part",
    },
}


def pins(name: str) -> dict[str, str]:
    lines = (GCP / name).read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def parameters(template: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in json.loads((GCP / f"{template}.json").read_bytes())["parameters"]}


def test_the_image_has_the_versions_of_the_lock() -> None:
    locked = (REPOSITORY / "requirements.lock").read_text()
    for name, version in pins("requirements.txt").items():
        markers = re.findall(rf"^{re.escape(name)}=={re.escape(version)} ; (.*?) \\$", locked, re.MULTILINE)
        assert any("< '3.12'" in marker or "< '3.13'" in marker for marker in markers), name
    assert "\nFROM python:3.11-slim\n" in (GCP / "Dockerfile").read_text()


def test_both_clouds_have_the_same_packages() -> None:
    found = re.findall(r"^([\w-]+)==", (REPOSITORY / "deploy/aws/requirements.txt").read_text(), re.MULTILINE)
    assert pins("requirements.txt").keys() == set(found)


def test_a_worker_of_dataflow_has_the_versions_that_trained() -> None:
    found, trained = pins("requirements-dataflow.txt"), pins("requirements.txt")
    beam = found.pop("apache-beam[gcp]")
    assert f"\nFROM apache/beam_python3.11_sdk:{beam}\n" in (GCP / "Dockerfile.dataflow").read_text()
    assert found.items() <= trained.items()


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.dataflow"])
def test_all_that_an_image_copies_is_let_through_and_there(name: str) -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (GCP / name).read_text(), re.MULTILINE)
    wanted = {source for line in copied for source in line.split()}
    let_through = {line[1:] for line in (GCP / f"{name}.dockerignore").read_text().splitlines() if line.startswith("!")}
    assert wanted == let_through
    assert all((REPOSITORY / source).exists() for source in wanted)


IMPORTS = """
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"duckdb", "optuna", "sklearn", "pandas", "airflow", "boto3"}:
            raise ImportError(f"{name} is not in the image")
sys.meta_path.insert(0, Refuse())
import include.jobs.beam_postprocess, include.jobs.beam_score
"""


def test_the_pipelines_import_only_what_their_image_has() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("template", PARSERS)
def test_a_template_takes_the_arguments_of_its_script(template: str) -> None:
    actions = {action.dest: action for action in PARSERS[template]()._actions if action.dest != "help"}
    assert parameters(template).keys() == actions.keys() == GIVEN[template].keys()
    for name, parameter in parameters(template).items():
        assert parameter["isOptional"] is not actions[name].required
        assert parameter["label"] and parameter["helpText"].endswith(".")
        (pattern,) = parameter["regexes"]
        assert re.fullmatch(pattern, str(GIVEN[template][name])), name
        assert not re.fullmatch(pattern, "")
        if actions[name].choices:
            assert pattern == "|".join(actions[name].choices)


@pytest.mark.parametrize(
    ("template", "name", "values", "fits"),
    [
        ("postprocess", "threshold", ["0.35", "1e-05", "15", "-20.5"], True),
        ("postprocess", "threshold", ["nan", "inf", "0,5", "0.5 ", "--1"], False),
        ("postprocess", "scored_at", ["2013-04-01T00:00:00+00:00", "2013-04-01T00:00:00.123456Z"], True),
        ("postprocess", "scored_at", ["2013-04-01T00:00:00", "2013-04-01", "yesterday"], False),
        ("postprocess", "run_id", ["manual__2013-04-01T00:00:00+00:00", "backfill-7"], True),
        ("postprocess", "output", ["gs://bucket/folder/", "s3://bucket/part", "/tmp/part", "gs://bucket"], False),
        ("score", "artifact", ["gs://bucket/model.tar.gz"], True),
        ("score", "artifact", ["gs://bucket/model.pkl", "gs://bucket/models/"], False),
        ("score", "manifest_sha256", ["0" * 63, "G" * 64, ""], False),
        ("score", "features", ["gs://bucket/*", "/tmp/*.parquet"], False),
    ],
)  # fmt: skip
def test_a_template_refuses_what_its_script_could_not_use(template: str, name: str, values: list[str], fits: bool) -> None:
    (pattern,) = parameters(template)[name]["regexes"]
    assert [bool(re.fullmatch(pattern, value)) for value in values] == [fits] * len(values)


def launched(monkeypatch: pytest.MonkeyPatch, arguments: list[str], **environment: str) -> tuple[str, list[str]]:
    """Which pipeline the launcher runs, and with what."""
    ran: list[tuple[str, list[str]]] = []
    for name, module in (("postprocess", beam_postprocess), ("score", beam_score)):
        monkeypatch.setattr(module, "main", lambda given, name=name: ran.append((name, list(given))) or 7)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(GCP / "launch.py"))["main"](arguments) == 7
    (found,) = ran
    return found


def test_the_launcher_runs_the_pipeline_whose_parameters_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for template, given in GIVEN.items():
        words = [f"--{name}={value}" for name, value in given.items()]
        assert launched(monkeypatch, words) == (template, words)
        parsed, others = PARSERS[template]().parse_known_args([*words, "--runner=DataflowRunner"])
        assert isinstance(parsed, argparse.Namespace) and others == ["--runner=DataflowRunner"]


def test_workers_run_in_the_image_of_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    image = {"AILERON_DATAFLOW_IMAGE": "europe-west1-docker.pkg.dev/p/aileron/dataflow:1"}
    _, words = launched(monkeypatch, ["--input=x"], **image)
    assert words == ["--input=x", f"--sdk_container_image={image['AILERON_DATAFLOW_IMAGE']}"]
    _, words = launched(monkeypatch, ["--input=x", "--sdk_container_image=other"], **image)
    assert words == ["--input=x", "--sdk_container_image=other"]


def test_the_launcher_needs_to_know_which(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    for words in ([], ["--input=x", "--features=y"]):
        command = [sys.executable, str(GCP / "launch.py"), *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (1, "ERROR: give one of --input, --features\n")
