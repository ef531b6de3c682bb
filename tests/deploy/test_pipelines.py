"""What CI and deployments are told: nothing that moves, no right too many, commands that there are; the scripts that deploy."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml

from benchmarks import retrain
from deploy import bundle
from deploy.archives import digest_of
from include.config import load_model
from tests.conftest import ROOT

WORKFLOWS = {file.name: file for file in sorted((ROOT / ".github" / "workflows").glob("*.yml"))}
SCRIPTS = [ROOT / "cloudbuild.yaml", ROOT / "buildspec.yml", *(ROOT / "deploy").glob("*/deploy.sh")]
each_workflow = pytest.mark.parametrize("name", WORKFLOWS)


def workflow(name: str) -> dict[Any, Any]:
    read: dict[Any, Any] = yaml.safe_load(WORKFLOWS[name].read_text())
    return read


def watched(name: str) -> list[str]:
    """The paths whose changes start it."""
    patterns: list[str] = workflow(name)[True]["push"]["paths"]  # YAML 1.1 takes the key `on` for a truth
    return patterns


@each_workflow
def test_actions_are_pinned_by_commit_and_say_their_version(name: str) -> None:
    used = re.findall(r"^\s*(?:- )?uses: (.+)$", WORKFLOWS[name].read_text(), re.MULTILINE)
    assert used
    for action in used:
        assert action.startswith("./.github/") or re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+", action), action


@each_workflow
def test_a_job_has_no_right_but_to_read_the_code_and_to_say_who_it_is(name: str) -> None:
    document = workflow(name)
    assert document["permissions"] == {} and "concurrency" in document
    for job in document["jobs"].values():
        deploys = "environment" in job or job.get("uses") == "./.github/workflows/deploy.yml"
        assert job["permissions"] == {"contents": "read", **({"id-token": "write"} if deploys else {})}
        assert "uses" in job or job["timeout-minutes"] <= 90
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
    assert "secrets." not in WORKFLOWS[name].read_text()


def test_what_others_write_gets_into_no_script() -> None:
    """Values that a pull request or whoever starts a workflow may choose are variables of a step, never text of its script."""
    for name in WORKFLOWS:
        for job in workflow(name)["jobs"].values():
            for step in job.get("steps", []):
                assert not re.search(r"\$\{\{(?!\s*matrix\.)", step.get("run", "")), f"{name}: {step['run']}"


def test_main_is_deployed_when_all_has_passed_to_staging_first() -> None:
    jobs = workflow("ci.yml")["jobs"]
    assert set(jobs["staging"]["needs"]) == {"lint", "test", "versions", "bundle"} and jobs["production"]["needs"] == ["staging"]
    assert jobs["staging"]["if"].startswith("github.event_name == 'push'")
    made = {each["make"] for each in jobs["test"]["strategy"]["matrix"]["include"]}
    assert made == {"test", "test-crashes", "test-localcloud PLATFORM=aws", "test-localcloud PLATFORM=gcp"}
    (airflow,) = re.findall(r"^apache-airflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert jobs["versions"]["strategy"]["matrix"] == {"airflow": [airflow, "newest"], "python": ["3.11", "3.12"]}
    assert workflow("deploy.yml")["jobs"]["deploy"]["environment"] == "${{ inputs.environment }}-${{ inputs.target }}"


def test_every_suite_of_the_makefile_is_run_by_some_workflow() -> None:
    """But for those that bill an account."""
    told = re.findall(r"^(test[a-z-]*|drill):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    runs = {each["make"].split()[0] for each in workflow("ci.yml")["jobs"]["test"]["strategy"]["matrix"]["include"]}
    runs |= {each.split()[0] for each in workflow("nightly.yml")["jobs"]["nightly"]["strategy"]["matrix"]["make"]}
    assert runs == set(told) - {"test-account"}


@pytest.mark.parametrize("name", ["nightly.yml", "retrain.yml"])
def test_whatever_starts_a_workflow_when_it_changes_is_there(name: str) -> None:
    for pattern in watched(name):
        assert list(ROOT.glob(pattern.removesuffix("/**"))), pattern


def test_every_make_command_is_one_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    called: set[str] = set()
    for file in [*WORKFLOWS.values(), *SCRIPTS]:
        text = re.sub(r"^\s*#.*$", "", file.read_text(), flags=re.MULTILINE)
        for line in re.findall(r"(?<![\w-])make:? ((?:[\w=./\"$@{} -])+)", text):
            called |= {word for word in line.split() if re.fullmatch(r"[a-z][a-z-]*", word)}
    assert {"lint", "lint-deploy", "test", "matrix", "bundle", "deploy", "bench-retrain"} <= called <= targets


def test_a_change_of_whatever_trains_is_a_reason_to_retrain() -> None:
    """Every module that the benchmark runs, and what it reads."""
    code = "import sys; from benchmarks import retrain; from demo import simulator; from include import queries\n"
    code += "from include.platforms import local_engine\n"
    code += "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ('include', 'demo') and m.__file__))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    files = {str(Path(file).relative_to(ROOT)) for file in done.stdout.split()} - {"demo/__init__.py"}
    files |= {str(file.relative_to(ROOT)) for folder in ("models", "sql") for file in (ROOT / "include" / folder).rglob("*.*")}
    patterns = watched("retrain.yml")
    assert "include/core/training.py" in files and "include/models/flight_delays/features.sql" in files
    missed = [file for file in files if not any(fnmatch.fnmatch(file, pattern) for pattern in patterns)]
    assert [file for file in missed if "__pycache__" not in file] == []


# Are models worse? benchmarks.retrain


def told(labels: np.ndarray, scores: np.ndarray) -> pa.Table:
    days = np.datetime64("2013-04-01") + np.arange(len(labels)) % 28
    return pa.table({"key": np.arange(len(labels)).astype(str), "day": days, "label": labels, "score": scores})


@pytest.mark.parametrize(("noise", "said"), [(0.0, "the same scores"), (0.3, "WORSE"), (-0.3, "better"), (0.001, "alike")])
def test_a_model_is_worse_only_if_that_is_shown(noise: float, said: str) -> None:
    model, random = load_model("flight_delays"), np.random.default_rng(3)
    chances = random.uniform(0.05, 0.95, 5_000)
    labels = (random.random(5_000) < chances).astype(np.int64)
    spoiled = np.clip(chances + random.normal(0, abs(noise), 5_000), 0.01, 0.99)
    base, ours = (chances, spoiled) if noise >= 0 else (spoiled, chances)
    found = retrain.compared(model, told(labels, base), told(labels, ours))
    assert found["rows"] == 5_000 and retrain.verdict(model, found) == said


def test_rows_are_compared_by_their_keys_whatever_their_order() -> None:
    model, random = load_model("arrival_minutes"), np.random.default_rng(3)
    labels, scores = random.normal(0, 30, 500), random.normal(0, 30, 500)
    one = told(labels, scores)
    other = one.take(pa.array(random.permutation(500)))
    assert retrain.verdict(model, retrain.compared(model, one, other)) == "the same scores"


@pytest.mark.parametrize("commit", ["no-such-commit", "--output=x"])
def test_a_commit_that_is_not_there_is_nothing_to_compare_with(commit: str, tmp_path: Path) -> None:
    with pytest.raises(retrain.NothingToCompare, match="is no commit of this clone"):
        retrain.checked_out(commit, tmp_path)


# The scripts that deploy: real, in a copy, with programs of the clouds that only note how they were called.

NOTE = '#!/bin/sh\nprintf "%s\\n" "${0##*/} $*" >> "$NOTES"\n'
OUTPUTS = {
    "MwaaEnvironment": "aileron-production",
    "JobImages": "1.dkr.ecr.eu-west-1.amazonaws.com/aileron-jobs",
    "Settings": "AILERON_PLATFORM=aws\nAILERON_AWS_LAKE=s3://lake/aileron",
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scripts, and of what they call: no image is there yet, no package either."""
    for folder in ("aws", "gcp"):
        (tmp_path / "deploy" / folder).mkdir(parents=True)
        shutil.copy(ROOT / "deploy" / folder / "deploy.sh", tmp_path / "deploy" / folder)
    (tmp_path / ".local").mkdir()
    cases = "".join(f"*\"'{name}'\"*) printf '%s\\n' '{value}' ;;\n" for name, value in OUTPUTS.items())
    programs = {
        "aws": f'case "$*" in\n{cases}*get-login-password*) echo password ;;\nesac\n',
        "docker": 'case "$1" in login) cat > /dev/null ;; esac\n',
        "gcloud": 'case "$*" in *describe*) echo "$IMAGE_THERE" ;; esac\n',
        "make": 'case "$*" in\n*SETTINGS=*) cat .local/settings.env >> "$NOTES" ;;\n'
        '*DRY_RUN=1*) echo "$REFUSED" >&2; test -z "$REFUSED" ;;\nesac\n',
    }
    for name, more in programs.items():
        _program(tmp_path / "bin" / name, more)
    of_google = "echo AILERON_GCP_IMAGE=$4/vertex:1; echo AILERON_DATAFLOW_IMAGE=$4/dataflow:2"
    images = f'case "$3" in composer) {of_google} ;; *) echo AILERON_AWS_IMAGE=$4:1 ;; esac\n'
    _program(tmp_path / ".venv" / "bin" / "python", images)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    return tmp_path


def _program(file: Path, more: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(NOTE + more)
    file.chmod(0o755)


def run(place: Path, script: str, *arguments: str, **environment: str) -> list[str]:
    command = ["sh", f"deploy/{script}/deploy.sh", *arguments]
    done = subprocess.run(command, cwd=place, env={**os.environ, **environment}, capture_output=True, text=True)
    notes = place / "notes"
    lines = notes.read_text().splitlines() if notes.exists() else []
    if done.returncode:
        raise RuntimeError(done.stderr, lines)
    return [line for line in lines if not line.startswith("aws ")]


def test_mwaa_gets_a_bundle_with_the_settings_of_its_stack_and_the_image_of_its_jobs(place: Path) -> None:
    assert run(place, "aws", STACK="aileron", MORE_SETTINGS="AILERON_MAIL=ses") == [
        "make bundle TARGET=mwaa SETTINGS=.local/settings.env",
        *("AILERON_PLATFORM=aws", "AILERON_AWS_LAKE=s3://lake/aileron", "AILERON_MAIL=ses"),
        "docker login --username AWS --password-stdin 1.dkr.ecr.eu-west-1.amazonaws.com",
        "python -m deploy.images mwaa 1.dkr.ecr.eu-west-1.amazonaws.com/aileron-jobs",
        "make bundle TARGET=mwaa SETTINGS=.local/settings.env",
        *("AILERON_PLATFORM=aws", "AILERON_AWS_LAKE=s3://lake/aileron", "AILERON_MAIL=ses"),
        "AILERON_AWS_IMAGE=1.dkr.ecr.eu-west-1.amazonaws.com/aileron-jobs:1",
        "make deploy TARGET=mwaa ENV=aileron-production",
    ]


def test_without_a_stack_nothing_is_done(place: Path) -> None:
    with pytest.raises(RuntimeError, match="the name of the stack"):
        run(place, "aws", STACK="")


GOOGLE = {
    "PROJECT": "p-1",
    "LOCATION": "us-central1",
    "ENV": "aileron-production",
    "REPOSITORY": "r/aileron",
    "TEMPLATES": "gs://l/t",
}


def test_composer_gets_images_templates_variables_and_packages_before_the_bundle(place: Path) -> None:
    refused = "does not have x==1: gcloud composer environments update e --update-pypi-packages-from-file=requirements.txt"
    (place / ".local" / "bundles" / "composer").mkdir(parents=True)
    (place / ".local" / "bundles" / "composer" / "requirements.txt").write_text("x==1\n")
    notes = run(place, "gcp", **GOOGLE, IMAGE_THERE="r/aileron/vertex:0", REFUSED=refused)
    update = "gcloud composer environments update aileron-production --project=p-1 --location=us-central1"
    templates = [
        f"gcloud dataflow flex-template build gs://l/t/{name}.json --project=p-1 --image=r/aileron/dataflow:2 "
        f"--sdk-language=PYTHON --metadata-file=.local/bundles/composer/jobs/{name}.json"
        for name in ("postprocess", "score")
    ]
    assert [note for note in notes if " describe " not in note] == [
        "make bundle TARGET=composer",
        "python -m deploy.images composer r/aileron",
        "make deploy TARGET=composer ENV=aileron-production PROJECT=p-1 LOCATION=us-central1 DRY_RUN=1",
        *templates,
        f"{update} --update-env-variables=AILERON_GCP_IMAGE=r/aileron/vertex:1",
        f"{update} --update-pypi-packages-from-file=.local/packages.txt",
        "make deploy TARGET=composer ENV=aileron-production PROJECT=p-1 LOCATION=us-central1",
    ]


def test_an_environment_that_is_as_it_should_be_is_not_updated(place: Path) -> None:
    notes = run(place, "gcp", **GOOGLE, IMAGE_THERE="r/aileron/vertex:1", REFUSED="")
    assert not [note for note in notes if note.startswith("gcloud composer environments update")]


def test_a_deployment_that_is_refused_for_another_reason_ends_before_anything_is_changed(place: Path) -> None:
    with pytest.raises(RuntimeError, match=r"Airflow 3\.2\.1") as stopped:
        run(place, "gcp", **GOOGLE, IMAGE_THERE="", REFUSED="the environment has Airflow 3.2.1")
    assert not [note for note in stopped.value.args[1] if note.startswith("gcloud")]


def test_cloud_build_does_the_same_in_three_steps() -> None:
    steps = yaml.safe_load((ROOT / "cloudbuild.yaml").read_text())["steps"]
    called = re.findall(r"deploy/gcp/deploy\.sh,? (\w+)", json.dumps(steps).replace('", "', ", "))
    assert called == ["images", "environment", "bundle"]


@pytest.mark.parametrize("there", [True, False])
def test_an_image_that_is_in_the_repository_is_not_built_again(
    there: bool, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from deploy import images

    built = place / ".local" / "bundles" / "composer"
    context = b"a tar"
    bundle._write(built, {"jobs/vertex.tar": context})
    digest = digest_of(context)
    manifest = {"target": "composer", "images": {"vertex": "abc"}, "files": {"jobs/vertex.tar": digest}}
    (built / bundle.MANIFEST).write_text(json.dumps(manifest))
    _program(
        place / "bin" / "docker",
        f'case "$1" in manifest) exit {0 if there else 1} ;; build) cat >> "$NOTES"; echo >> "$NOTES" ;; esac\n',
    )
    monkeypatch.setattr(bundle, "BUNDLES", built.parent)
    monkeypatch.setattr(sys, "argv", ["images", "composer", "r/aileron"])
    assert images.main() == 0
    assert capfd.readouterr().out == "AILERON_GCP_IMAGE=r/aileron/vertex:abc\n"
    image, asked = "r/aileron/vertex:abc", (place / "notes").read_text().splitlines()
    build = f"docker build --file deploy/gcp/Dockerfile --tag {image} --build-arg IMAGE={image} -"
    assert asked == [f"docker manifest inspect {image}", *([] if there else [build, "a tar", f"docker push {image}"])]
