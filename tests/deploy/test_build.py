"""What is built for Amazon MWAA and Cloud Composer: laid out as the service does it, it is read without this repository."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy import bare_airflow, bundle
from deploy.archives import tarred, untarred, zipped
from deploy.bundle import SERVICES, TARGETS, Target, Unbuildable
from tests.conftest import ROOT

REVISION = "c0ffee5eed42"
# Of the other cloud: a service does not install them.
ABSENT = {
    "mwaa": ("airflow.providers.google", "airflow.providers.apache", "google.cloud"),
    "composer": ("airflow.providers.amazon", "boto3", "aiobotocore", "s3fs"),
}
HEAVY = {"duckdb", "great_expectations", "mlflow", "optuna", "pandas", "pyarrow", "sklearn", "xgboost"}
# To import the operators of BigQuery is to import pandas and PyArrow, which takes longer than all of ours.
OF_GOOGLE = ("airflow.providers.google.cloud.operators.bigquery", "airflow.providers.google.cloud.operators.dataflow")


@cache
def built(target: Target) -> dict[str, bytes]:
    return bundle.contents(target, {"AILERON_PLATFORM": SERVICES[target].platform}, revision=REVISION)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """This repository twice, as two machines would have it: other times, modes and order; caches and secrets in one of them."""
    first, second = (tmp_path_factory.mktemp(name) / "repository" for name in ("first", "second"))
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for folder in (first, second):
        folder.mkdir()
        git(folder, "init", "--quiet")
        for name in ("deploy", "requirements.txt", "requirements.lock", "dags", "include", "expectations", "plugins"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
            copy(ROOT / name, folder / name, **({"ignore": ignored} if (ROOT / name).is_dir() else {}))  # type: ignore[operator]
        shutil.copy2(ROOT / ".gitignore", folder)
    for path in second.rglob("*"):
        if path.is_file() and ".git" not in path.parts:
            path.chmod(0o600)
            os.utime(path, (1, 1))
    (second / "dags" / "__pycache__").mkdir()
    (second / "dags" / "__pycache__" / "x.pyc").write_bytes(b"cache")
    (second / "include" / ".env").write_text("PASSWORD=1")
    (second / "include" / "x.log").write_text("log")
    return first, second


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=n", "-c", "user.email=n@example.com")
    return subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize(("target", "platform"), [("mwaa", "aws"), ("mwaa", "local"), ("composer", "gcp"), ("composer", "local")])
def test_the_service_reads_every_dag_and_plugin(target: Target, platform: str) -> None:
    """Without PYTHONPATH, network, or the packages of the other cloud; each file in a process of its own, as it is there."""
    google = OF_GOOGLE if platform == "gcp" else ()

    def parsing() -> bare_airflow.Parsed:
        return bare_airflow.parse(target, built(target), platform, {}, ABSENT[target], preloaded=google)

    parsed = parsing()
    assert parsed.errors == {}
    assert set(parsed.seconds) == {path.name for path in (ROOT / "dags").glob("*.py")}, "nothing below include is a DAG file"
    models = [path.parent.name for path in (ROOT / "include" / "models").glob("*/model.yaml")]
    ids = {one for each in parsed.dags.values() for one in each}
    assert {f"{kind}_{model}" for kind in ("predict", "train", "monitor", "arrivals", "rollback") for model in models} <= ids
    assert set(parsed.revisions) == {REVISION}
    assert set(parsed.tags) == ids and all(f"revision:{REVISION}" in tags for tags in parsed.tags.values())
    imported = {module for modules in parsed.modules.values() for module in modules}
    assert imported & HEAVY == set()
    # The first time in a new environment, Python compiles; and neighbours on the machine cost processor time too.
    slowest = [max(each.seconds.values()) for each in (parsed, parsing(), parsing())]
    assert min(slowest) < 1.0, slowest


@pytest.mark.parametrize("target", TARGETS)
def test_the_triggerer_imports_the_triggers_of_the_bundle(target: Target, tmp_path: Path) -> None:
    """Airflow puts the folder of the DAGs on no path there; what it does at its start, a plugin of ours makes up for it."""
    starting = "from airflow.listeners.listener import get_listener_manager as start; start()"
    loading = "from airflow._shared.module_loading import import_string as load; load('include.platforms.remote_jobs.JobTrigger')"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), **bare_airflow.lay_out(target, built(target), tmp_path)}

    def run(program: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", program], env=environment, cwd="/", capture_output=True, text=True)

    assert "No module named 'include'" in run(f"import airflow.settings; {loading}").stderr
    assert run(f"{starting}\n{loading}").returncode == 0


@pytest.mark.parametrize("target", TARGETS)
def test_two_machines_build_the_same_bytes(target: Target, copies: tuple[Path, Path]) -> None:
    first, second = (bundle.contents(target, {}, repository, REVISION) for repository in copies)
    assert first == second
    assert tarred(first) == tarred(dict(reversed(second.items())))
    assert untarred(tarred(first)) == first
    assert zipped({"b": b"2", "a": b"1"}) == zipped({"a": b"1", "b": b"2"})


@pytest.mark.parametrize("target", TARGETS)
def test_a_bundle_has_what_the_service_reads_and_nothing_else(target: Target) -> None:
    files = built(target)
    top = {
        "mwaa": {"dags", "plugins.zip", "requirements.txt", "startup.sh", "jobs"},
        "composer": {"dags", "plugins", "requirements.txt", "jobs"},
    }
    assert {name.split("/")[0] for name in files} == top[target]
    for folder in ("include", "expectations"):
        there = {
            str(path.relative_to(ROOT))
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in str(path)
        }
        assert {name.removeprefix("dags/") for name in files if name.startswith(f"dags/{folder}/")} - {
            "include/REVISION"
        } == there
    plugins = {path.name for path in (ROOT / "plugins").glob("*.py")}
    if target == "mwaa":
        with zipfile.ZipFile(io.BytesIO(files["plugins.zip"])) as archive:
            assert set(archive.namelist()) == plugins | {"constraints.txt"}
    else:
        assert {name for name in files if name.startswith("plugins/")} == {f"plugins/{name}" for name in plugins}
    named = [name for name, content in files.items() if REVISION.encode() in content]
    assert named == [bundle.REVISION], "with the commit in them, these would be other files at each deployment"


@pytest.mark.parametrize("target", TARGETS)
def test_requirements_are_those_of_the_lock(target: Target) -> None:
    files, service = built(target), SERVICES[target]
    lines = files["requirements.txt"].decode().splitlines()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    asked = {Requirement(line).name: Requirement(line) for line in lines if not line.startswith("-")}
    ours = set(re.findall(r"^[a-z0-9-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert set(asked) == ours - service.spared - {"xgboost"} - (
        set() if target == "composer" else {"apache-airflow-providers-apache-beam"}
    )
    assert all(asked[name].marker is None for name in asked)
    if target == "mwaa":
        assert lines[0] == '--constraint "/usr/local/airflow/plugins/constraints.txt"'
        with zipfile.ZipFile(io.BytesIO(files["plugins.zip"])) as archive:
            constraints = dict(line.split("==") for line in archive.read("constraints.txt").decode().split())
        assert set(asked) <= set(constraints)
        assert constraints["duckdb"] == locked["duckdb"] and constraints["apache-airflow"] == "3.3.1"
        # What differs between the Pythons of the lock is here as it is for 3.12.
        numpy = re.findall(r"^numpy==(\S+) ; (.*) \\", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
        assert constraints["numpy"] in {version for version, marker in numpy if "3.12" in marker} - {
            v for v, m in numpy if "< '3.12'" in m
        }
    else:
        assert str(asked["duckdb"]) == f"duckdb=={locked['duckdb']}"
        assert not any(line.startswith("-") for line in lines), "Cloud Composer takes packages and nothing else"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_can_be_built_of_its_context_alone(target: Target) -> None:
    for name, dockerfile in SERVICES[target].images.items():
        with tarfile.open(fileobj=io.BytesIO(built(target)[f"jobs/{name}.tar"])) as archive:
            names = archive.getnames()
        assert not any("__pycache__" in each or each.endswith(".json") for each in names)
        for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / dockerfile).read_text(), re.MULTILINE):
            for source in line.split()[:-1]:
                assert any(each == source or each.startswith(f"{source.rstrip('/')}/") for each in names), f"{name}: {source}"


def test_the_startup_script_says_the_variables_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "prod.env"
    nasty = 'it\'s $(touch bad) `id` "x" \\ é'
    file.write_text(f"# of prod\n\nAILERON_PLATFORM=aws\nAILERON_SES_SENDER={nasty}\n")
    files = bundle.contents("mwaa", bundle.read_settings(file), revision=REVISION)
    (tmp_path / "startup.sh").write_bytes(files["startup.sh"])
    command = ["bash", "-c", '. ./startup.sh && printf "%s|%s|%s" "$AILERON_PLATFORM" "$AILERON_SES_SENDER" "$DO_NOT_TRACK"']
    run = subprocess.run(command, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=True)
    assert run.stdout == f"aws|{nasty}|1"
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    "line",
    ["PATH=/tmp", "AILERON_X", "export AILERON_X=1", "AILERON_X=a\x07", "AILERON_X= 1", "AILERON_REVISION=1", "AILERON_x=1"],
)
def test_settings_that_are_none_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "e.env").write_text(f"AILERON_PLATFORM=aws\n{line}\n")
    with pytest.raises(Unbuildable, match="line 2"):
        bundle.read_settings(tmp_path / "e.env")


def test_the_revision_is_the_commit_and_says_what_is_not_committed(copies: tuple[Path, Path]) -> None:
    repository = copies[0]
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "all")
    commit = git(repository, "rev-parse", "HEAD").strip()[:12]
    assert bundle.revision_of(repository) == commit
    (repository / "README.md").write_text("not in a bundle")
    assert bundle.revision_of(repository) == commit
    (repository / "include" / "models" / "new.sql").write_text("SELECT 1")
    assert bundle.revision_of(repository) == f"{commit}-dirty"
    assert "dags/include/models/new.sql" in bundle.contents("composer", {}, repository)
    (repository / "include" / "models" / "new.sql").unlink()


def test_dags_that_do_not_parse_are_no_bundle_and_what_was_built_stays(copies: tuple[Path, Path], tmp_path: Path) -> None:
    repository, folder = copies[0], tmp_path / "bundle"
    files = bundle.contents("mwaa", {}, repository, REVISION)
    before = bundle.write("mwaa", folder, files, {}, {}, "3.3.1").manifest
    broken = repository / "dags" / "broken.py"
    broken.write_text("import urllib.request\nurllib.request.urlopen('http://127.0.0.1:1')\nfrom airflow.sdk import DAG\n")
    try:
        with pytest.raises(Unbuildable, match=r"(?s)cannot be parsed.*broken\.py.*the network is asked for"):
            bundle.build("mwaa", folder, {}, repository, REVISION)
    finally:
        broken.unlink()
    assert bundle.read(folder).manifest == before
    changed = folder / "dags" / "include" / "config.py"
    changed.write_text(changed.read_text() + "\n")
    with pytest.raises(Unbuildable, match="changed since it was built"):
        bundle.read(folder)
    with pytest.raises(Unbuildable, match="make bundle"):
        bundle.read(tmp_path / "none")


def test_the_digest_of_a_context_is_the_tag_of_its_image(tmp_path: Path) -> None:
    made = bundle.write("mwaa", tmp_path / "b", built("mwaa"), {}, {}, "3.3.1")
    assert made.manifest["images"] == {"sagemaker": hashlib.sha256(built("mwaa")["jobs/sagemaker.tar"]).hexdigest()[:16]}
