"""Deployments into an environment of Cloud Composer, on the local cloud, whose Airflow really parses what lies in the bucket."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from packaging.requirements import Requirement

from deploy import bundle, cli
from deploy.bare_airflow import EXAMPLES
from tests.conftest import ROOT
from tests.deploy.small import files, image, written
from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

NAME, BUCKET = "prod", "us-central1-prod-bucket"
QUICK = ("--poll-seconds", "0.3", "--settle-seconds", "1", "--parse-seconds", "300")
# Composer itself puts a DAG into every environment; data and logs lie beside the DAGs.
STRANGERS = {
    "dags/airflow_monitoring.py": b"THEIRS = 1\n",
    "dags/include_more/x.py": b"",
    "plugins/theirs.py": b"THEIRS = 1\n",
    "data/x.csv": b"1",
    "aileron.txt": b"x",
}
PACKAGES = {"duckdb": "==2.0.0"}


class Environment:
    """One of Cloud Composer, as those who use it see it."""

    def __init__(
        self,
        cloud: GoogleCloud,
        folder: Path,
        packages: Mapping[str, str] = MappingProxyType(PACKAGES),
        variables: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        from google.cloud.orchestration.airflow.service_v1 import EnvironmentsClient

        self.cloud, self._folder = cloud, folder
        self.bucket = cloud.bucket(BUCKET)
        for key, content in STRANGERS.items():
            self.bucket.blob(key).upload_from_string(content)
        parent = f"projects/{PROJECT}/locations/{REGION}"
        software = {
            "image_version": "composer-3-airflow-3.3.1-build.0",
            "pypi_packages": dict(packages),
            "env_variables": dict(variables),
        }
        made = {
            "name": f"{parent}/environments/{NAME}",
            "storage_config": {"bucket": BUCKET},
            "config": {"software_config": software},
        }
        self._client = EnvironmentsClient(transport="rest")
        self._client.create_environment(parent=parent, environment=made)
        self._full = made["name"]

    def write(self, made: dict[str, bytes], **more: Any) -> None:
        written("composer", self._folder, made, **more)

    def command(self, *options: str) -> list[str]:
        where = ("--environment", NAME, "--project", PROJECT, "--location", REGION)
        return ["deploy", "composer", *where, "--folder", str(self._folder), *QUICK, *options]

    def deploy(self, *options: str) -> int:
        return cli.main(self.command(*options))

    def objects(self) -> dict[str, bytes]:
        return {blob.name: blob.download_as_bytes() for blob in self.bucket.list_blobs()}

    def ours(self) -> dict[str, bytes]:
        """What is synced and is not other people's."""
        return {
            key: content
            for key, content in self.objects().items()
            if key.startswith(("dags/", "plugins/")) and key not in STRANGERS
        }

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects()["aileron/deployed.json"])
        return found

    def shown(self) -> dict[str, list[str]]:
        """The DAGs that Airflow has, with their tags."""
        import google.auth
        from google.auth.transport.requests import AuthorizedSession

        session = AuthorizedSession(google.auth.default()[0])
        answer = session.get(f"{self._client.get_environment(name=self._full).config.airflow_uri}/api/v2/dags").json()
        return {dag["dag_id"]: [tag["name"] for tag in dag["tags"]] for dag in answer["dags"]}


@pytest.fixture(scope="module")
def composer_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("composer"), image(), start_seconds=0.1, job_seconds=0.1) as cloud:
        yield cloud


@pytest.fixture
def environment(composer_cloud: GoogleCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Environment]:
    composer_cloud.reset()
    composer_cloud.take_as_client(monkeypatch)
    yield Environment(composer_cloud, tmp_path / "bundle")
    assert composer_cloud.refused_hosts() == []


def of_bucket(made: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in made.items() if name.startswith(("dags/", "plugins/"))}


def test_what_is_new_is_put_and_what_is_gone_is_deleted(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    first = files("composer", "rev1", ("one", "two"))
    environment.write(first)
    before = environment.objects()
    environment.cloud.forget_calls()
    assert environment.deploy("--dry-run") == 0
    said = capsys.readouterr().out
    assert "rev1 to prod" in said and "put     dags/one.py" in said and "put     plugins/a_plugin.py" in said
    assert environment.cloud.calls(mutating=True) == [] and environment.objects() == before

    assert environment.deploy() == 0, capsys.readouterr().err
    assert environment.ours() == of_bucket(first)
    assert environment.shown() == {"one": ["revision:rev1"], "two": ["revision:rev1"]}

    second = {**files("composer", "rev2", ("one", "three")), "plugins/a_plugin.py": b"A = 2\n"}
    environment.write(second)
    environment.cloud.forget_calls()
    assert environment.deploy() == 0
    calls = environment.cloud.calls("storage", mutating=True)
    put = {call["subject"] for call in calls if call["operation"] == "objects.insert" and "/aileron/" not in call["subject"]}
    assert put == {f"{BUCKET}/{key}" for key in ("dags/three.py", "dags/include/REVISION", "plugins/a_plugin.py")}
    assert [call["subject"] for call in calls if call["operation"] == "objects.delete"] == [f"{BUCKET}/dags/two.py"]
    assert environment.ours() == of_bucket(second)
    assert environment.shown() == {"one": ["revision:rev2"], "three": ["revision:rev2"]}
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS


def test_a_bundle_whose_dags_cannot_be_imported_is_taken_back(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.write(files("composer", "rev0", imported="y"))
    assert environment.deploy() == 1
    assert "its DAGs were taken away" in capsys.readouterr().err
    assert environment.ours() == {}
    good = files("composer", "rev1", ("one", "two"))
    environment.write(good)
    assert environment.deploy() == 0
    environment.write({**files("composer", "rev2", ("one",), imported="y"), "plugins/b_plugin.py": b"B = 1\n"})
    assert environment.deploy() == 1
    told = capsys.readouterr().err
    assert "one.py cannot be imported" in told and "cannot import name 'y'" in told and "rev1 was put back, and works" in told
    assert environment.ours() == of_bucket(good)
    assert environment.shown() == {"one": ["revision:rev1"], "two": ["revision:rev1"]}
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS
    assert environment.record()["revision"] == "rev1" and environment.record()["done"]


def test_what_cannot_go_well_is_refused_before_anything_is_changed(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files("composer", "rev1")
    cases: list[tuple[dict[str, bytes], dict[str, Any], str]] = [
        (good, {"airflow": "3.2.1"}, "the bundle is for Airflow 3.2.1"),
        (
            {**good, "requirements.txt": b"duckdb==2.0.1\n"},
            {},
            "does not have duckdb==2.0.1: gcloud composer environments update prod",
        ),
        ({**good, "plugins/theirs.py": b"OURS = 1\n"}, {}, "plugins/theirs.py in the bucket"),
    ]
    for made, more, message in cases:
        environment.write(made, **more)
        environment.cloud.forget_calls()
        assert environment.deploy() == 1
        assert message in capsys.readouterr().err
        assert environment.cloud.calls(mutating=True) == []
    environment.write(good)
    assert (
        cli.main([
            "deploy",
            "composer",
            "--environment",
            "x",
            "--project",
            PROJECT,
            "--location",
            REGION,
            *environment.command()[8:10],
        ])
        == 1
    )
    assert "there is no environment projects/local-project/locations/us-central1/environments/x" in capsys.readouterr().err


def test_this_repository_is_built_and_deployed(
    composer_cloud: GoogleCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["bundle", "composer", "--folder", str(tmp_path / "bundle")]) == 0
    made = bundle.read(tmp_path / "bundle")
    lines = [Requirement(line) for line in made.files["requirements.txt"].decode().splitlines()]
    packages = {each.name: str(each.specifier) for each in lines if each.specifier}
    composer_cloud.reset()
    composer_cloud.take_as_client(monkeypatch)
    environment = Environment(composer_cloud, tmp_path / "bundle", packages, {"AILERON_PLATFORM": "gcp", **EXAMPLES["gcp"]})
    assert environment.deploy("--dirty") == 0, capsys.readouterr().err
    shown = environment.shown()
    assert set(shown) == {dag for ids in made.manifest["dags"].values() for dag in ids}
    assert all({f"revision:{made.manifest['revision']}", "platform:gcp"} <= set(tags) for tags in shown.values())
    assert environment.ours() == of_bucket(made.files)


def test_a_web_server_that_does_not_answer_for_a_while_is_waited_for(environment: Environment) -> None:
    environment.write(files("composer", "rev1"))
    environment.cloud.fault("error", "airflow", "GET /api/v2/dags", times=2, status=503)
    environment.cloud.fault("throttle", "airflow", "GET /api/v2/importErrors", times=3)
    assert environment.deploy() == 0
    assert environment.cloud.faults() == [], "all of them were met"


def test_killed_at_any_call_and_started_again_it_ends_well(environment: Environment) -> None:
    environment.write(files("composer", "rev1", ("one", "two")))
    assert environment.deploy() == 0
    wanted = files("composer", "rev2", ("one", "three"))
    environment.write(wanted)
    begin = "import sys; sys.stdin.read(); from deploy.cli import main; sys.exit(main(sys.argv[1:]))"
    environ = {**os.environ, **environment.cloud.environment()}
    tries = 0
    while True:
        tries += 1
        assert tries < 40
        command = [sys.executable, "-c", begin, *environment.command()]
        with subprocess.Popen(command, cwd=ROOT, env=environ, stdin=subprocess.PIPE) as process:
            if tries == 1:
                environment.cloud.fault("kill", each_boundary=True, pid=process.pid)
            environment.cloud.move_kills(process.pid)
            assert process.stdin is not None
            process.stdin.close()
        if process.returncode == 0:
            break
        assert process.returncode == -9
    met = {(one["service"], one["operation"]) for one in environment.cloud.boundaries()}
    assert {("storage", "objects.insert"), ("storage", "objects.delete")} <= met and tries > 6
    environment.cloud.forget_faults()
    assert environment.ours() == of_bucket(wanted)
    assert environment.shown() == {"one": ["revision:rev2"], "three": ["revision:rev2"]}
    assert environment.record()["revision"] == "rev2" and environment.record()["done"]
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS
