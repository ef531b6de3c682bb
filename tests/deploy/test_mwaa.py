"""Deployments into an environment of Amazon MWAA, on the local cloud, whose Airflow really parses what lies in the bucket."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import bundle, cli
from deploy.bare_airflow import EXAMPLES
from tests.conftest import ROOT
from tests.deploy.small import files, image, written
from tests.localcloud.cloud import LocalCloud

pytestmark = pytest.mark.localcloud

NAME, BUCKET = "prod", "airflow"
QUICK = ("--poll-seconds", "0.3", "--settle-seconds", "1", "--parse-seconds", "300", "--update-seconds", "60")
STRANGERS = {"dags/theirs.py": b"THEIRS = 1\n", "dags/include_more/x.py": b"", "aileron.txt": b"x", "plugins.zip": b"theirs"}


class Environment:
    """One of Amazon MWAA, as those who use it see it."""

    def __init__(self, cloud: LocalCloud, folder: Path) -> None:
        self.cloud, self._folder = cloud, folder
        self.s3, self.mwaa = cloud.client("s3"), cloud.client("mwaa")

    def create(self, **more: Any) -> None:
        self.s3.create_bucket(Bucket=BUCKET)
        self.s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for key, content in STRANGERS.items():
            self.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
        self.mwaa.create_environment(**{
            "Name": NAME,
            "AirflowVersion": "3.3.1",
            "SourceBucketArn": f"arn:aws:s3:::{BUCKET}",
            "DagS3Path": "dags",
            "ExecutionRoleArn": "arn:aws:iam::123456789012:role/airflow",
            "NetworkConfiguration": {"SubnetIds": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]},
            **more,
        })
        waited(lambda: self.mwaa.get_environment(Name=NAME)["Environment"]["Status"] == "AVAILABLE")

    def write(self, made: dict[str, bytes], **more: Any) -> None:
        written("mwaa", self._folder, made, **more)

    def command(self, *options: str) -> list[str]:
        return ["deploy", "mwaa", "--environment", NAME, "--folder", str(self._folder), *QUICK, *options]

    def deploy(self, *options: str) -> int:
        return cli.main(self.command(*options))

    def objects(self) -> dict[str, bytes]:
        keys = [each["Key"] for each in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", ())]
        return {key: self.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys}

    def dags(self) -> dict[str, bytes]:
        """Of DAG files and what they import: what is ours."""
        return {key: content for key, content in self.objects().items() if key.startswith("dags/") and key not in STRANGERS}

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.objects()["aileron/deployed.json"])
        return found

    def updates(self) -> int:
        return len(self.cloud.calls("mwaa", operation="UpdateEnvironment"))

    def says(self) -> dict[str, Any]:
        """All that its Airflow says, comparable to what another one does."""
        paths = ("/dags", "/importErrors")
        said = {path: self.mwaa.invoke_rest_api(Name=NAME, Path=path, Method="GET")["RestApiResponse"] for path in paths}
        return comparable(said)

    def shown(self) -> dict[str, list[str]]:
        """The DAGs that Airflow has, with their tags."""
        answer = self.mwaa.invoke_rest_api(Name=NAME, Path="/dags", Method="GET")["RestApiResponse"]
        return {dag["dag_id"]: [tag["name"] for tag in dag["tags"]] for dag in answer["dags"]}


@pytest.fixture(scope="module")
def mwaa_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("mwaa"), image(), start_seconds=0.1, job_seconds=0.1) as cloud:
        yield cloud


@pytest.fixture
def environment(mwaa_cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    mwaa_cloud.reset()
    for name, value in mwaa_cloud.environment().items():
        monkeypatch.setenv(name, value)
    made = Environment(mwaa_cloud, tmp_path / "bundle")
    made.create()
    return made


def of_dags(made: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in made.items() if name.startswith("dags/")}


def test_what_is_new_is_put_what_is_gone_is_deleted_and_the_environment_starts_anew_only_if_it_must(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    first = files("mwaa", "rev1", ("one", "two"))
    environment.write(first)
    assert environment.deploy() == 0, capsys.readouterr().err
    assert environment.dags() == of_dags(first)
    assert environment.shown() == {"one": ["revision:rev1"], "two": ["revision:rev1"]}
    assert environment.updates() == 1
    there = environment.mwaa.get_environment(Name=NAME)["Environment"]
    assert there["PluginsS3Path"] == "aileron/plugins.zip" and there["PluginsS3ObjectVersion"]

    # Only DAGs have changed: no update, and of the files only those.
    second = files("mwaa", "rev2", ("one", "three"))
    environment.write(second)
    environment.cloud.forget_calls()
    assert environment.deploy() == 0
    put = {call["subject"] for call in environment.cloud.calls("s3", operation="PutObject")}
    assert {key for key in put if "/dags/" in key} == {f"{BUCKET}/dags/three.py", f"{BUCKET}/dags/include/REVISION"}
    deleted = [call["subject"] for call in environment.cloud.calls("s3", mutating=True) if "Delete" in call["operation"]]
    assert deleted == [f"{BUCKET}/dags/two.py"]
    assert environment.updates() == 0
    assert environment.dags() == of_dags(second)
    assert environment.shown() == {"one": ["revision:rev2"], "three": ["revision:rev2"]}

    # Other requirements: an update, of these alone.
    environment.write({**second, "requirements.txt": b"duckdb==2.0.1\n"})
    environment.cloud.forget_calls()
    assert environment.deploy() == 0
    (update,) = environment.cloud.calls("mwaa", operation="UpdateEnvironment")
    assert set(update["params"]) == {"Name", "RequirementsS3Path", "RequirementsS3ObjectVersion"}

    # And the same once more: nothing at all.
    environment.cloud.forget_calls()
    assert environment.deploy() == 0
    assert {call["subject"] for call in environment.cloud.calls("s3", mutating=True)} == {f"{BUCKET}/aileron/deployed.json"}
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS


def test_a_dry_run_says_what_would_be_done_and_does_nothing(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment.write(files("mwaa", "rev1"))
    before = environment.objects()
    environment.cloud.forget_calls()
    assert environment.deploy("--dry-run") == 0
    said = capsys.readouterr().out
    assert "rev1 to prod" in said and "put     dags/one.py" in said and "a new version of aileron/plugins.zip" in said
    assert environment.cloud.calls(mutating=True) == []
    assert environment.objects() == before


def test_a_bundle_whose_dags_cannot_be_imported_is_taken_back(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    good = files("mwaa", "rev1", ("one", "two"))
    environment.write(good)
    assert environment.deploy() == 0
    broken = files("mwaa", "rev2", ("one",), imported="y")
    environment.write({**broken, "startup.sh": b"export AILERON_PLATFORM=local\n"})
    assert environment.deploy() == 1
    told = capsys.readouterr().err
    assert "one.py cannot be imported" in told and "cannot import name 'y'" in told and "rev1 was put back, and works" in told
    assert environment.dags() == of_dags(good)
    assert environment.shown() == {"one": ["revision:rev1"], "two": ["revision:rev1"]}
    there = environment.mwaa.get_environment(Name=NAME)["Environment"]
    script = environment.s3.get_object(Bucket=BUCKET, Key="aileron/startup.sh", VersionId=there["StartupScriptS3ObjectVersion"])
    assert script["Body"].read() == good["startup.sh"]
    assert environment.record()["revision"] == "rev1" and environment.record()["done"]
    # A mended one then goes through, though Airflow has seen its files fail before.
    environment.write(files("mwaa", "rev3", ("one",), imported="y", defined="y"))
    assert environment.deploy() == 0
    assert environment.shown() == {"one": ["revision:rev3"]}


def test_the_first_bundle_that_does_not_work_is_taken_away(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment.write(files("mwaa", "rev1", imported="y"))
    assert environment.deploy() == 1
    assert "its DAGs were taken away" in capsys.readouterr().err
    assert environment.dags() == {}
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS


def test_an_update_that_fails_leaves_the_dags_as_they_were(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    good = files("mwaa", "rev1")
    environment.write(good)
    assert environment.deploy() == 0
    environment.write({**files("mwaa", "rev2", ("one", "two")), "startup.sh": b"exit 3\n"})
    environment.cloud.forget_calls()
    assert environment.deploy() == 1
    told = capsys.readouterr().err
    assert "could not be updated: The startup script ended with exit code 3" in told and "rev1 was put back" in told
    assert not any("/dags/" in call["subject"] for call in environment.cloud.calls("s3", mutating=True))
    there = environment.mwaa.get_environment(Name=NAME)["Environment"]
    assert there["Status"] == "UPDATE_FAILED", "which means that it is as before, and ready"
    assert environment.dags() == of_dags(good)


def test_files_and_errors_of_others_are_theirs(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment.s3.put_object(Bucket=BUCKET, Key="dags/one.py", Body=b"import nothing_of_the_kind\n")
    made = files("mwaa", "rev1", ("two",))
    environment.write(made)
    assert environment.deploy() == 0, "their file cannot be imported, and that is not our failure"
    environment.write(files("mwaa", "rev2", ("one", "two")))
    environment.cloud.forget_calls()
    assert environment.deploy() == 1
    assert "dags/one.py in the bucket" in capsys.readouterr().err
    assert environment.cloud.calls(mutating=True) == []
    assert environment.deploy("--overwrite") == 0
    assert set(environment.shown()) == {"one", "two"}


def test_what_cannot_go_well_is_refused_before_anything_is_changed(
    environment: Environment, capsys: pytest.CaptureFixture[str]
) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"airflow": "3.2.1"}, "rev1", "has Airflow 3.3.1, the bundle is for 3.2.1"),
        ({"settings": ()}, "rev1", "build it with SETTINGS"),
        ({}, "rev1-dirty", "commit and build again"),
    ]
    for more, revision, message in cases:
        environment.write(files("mwaa", revision), **more)
        environment.cloud.forget_calls()
        assert environment.deploy() == 1
        assert message in capsys.readouterr().err
        assert environment.cloud.calls(mutating=True) == []
    environment.write(files("mwaa", "rev1"))
    assert cli.main([*environment.command()[:3], "nowhere", *environment.command()[4:]]) == 1
    assert "there is no environment nowhere" in capsys.readouterr().err


def test_two_at_once_do_not_mix(environment: Environment, capsys: pytest.CaptureFixture[str]) -> None:
    environment.write(files("mwaa", "rev1"))
    assert environment.deploy() == 0
    environment.write(files("mwaa", "rev2"))
    environment.cloud.fault("delay", "s3", "PutObject", match="include/REVISION", seconds=1.5)
    with subprocess.Popen(
        [sys.executable, "-m", "deploy.cli", *environment.command()], cwd=ROOT, stderr=subprocess.PIPE, text=True
    ) as one:
        while environment.record()["done"]:
            assert one.poll() is None
        environment.s3.put_object(Bucket=BUCKET, Key="aileron/deployed.json", Body=json.dumps(environment.record()).encode())
        assert one.stderr is not None
        told = one.stderr.read()
    assert one.returncode == 1 and "somebody else is deploying" in told


def test_killed_at_any_call_and_started_again_it_ends_well(environment: Environment) -> None:
    environment.write(files("mwaa", "rev1", ("one", "two")))
    assert environment.deploy() == 0
    wanted = {**files("mwaa", "rev2", ("one", "three")), "requirements.txt": b"duckdb==2.0.1\n"}
    environment.write(wanted)
    tries = 0
    while True:
        tries += 1
        assert tries < 40
        with subprocess.Popen([sys.executable, "-c", WAIT, *environment.command()], cwd=ROOT, stdin=subprocess.PIPE) as process:
            if tries == 1:
                environment.cloud.fault("kill", each_boundary=True, pid=process.pid)
            environment.cloud.move_kills(process.pid)
            assert process.stdin is not None
            process.stdin.close()
        if process.returncode == 0:
            break
        assert process.returncode == -9
    met = {(one["service"], one["operation"]) for one in environment.cloud.boundaries()}
    assert {("s3", "PutObject"), ("s3", "DeleteObject"), ("mwaa", "UpdateEnvironment")} <= met and tries > 8
    environment.cloud.forget_faults()
    assert environment.dags() == of_dags(wanted)
    assert environment.shown() == {"one": ["revision:rev2"], "three": ["revision:rev2"]}
    assert environment.record()["revision"] == "rev2" and environment.record()["done"]
    objects = environment.objects()
    assert {key: objects[key] for key in STRANGERS} == STRANGERS


# Begins when its input ends: by then the cloud knows whom to kill.
WAIT = "import sys; sys.stdin.read(); from deploy.cli import main; sys.exit(main(sys.argv[1:]))"


def test_this_repository_is_built_and_deployed(
    environment: Environment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"AILERON_PLATFORM": "aws", **{k: v for k, v in EXAMPLES["aws"].items() if k.startswith("AILERON_")}}
    file = tmp_path / "prod.env"
    file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    assert cli.main(["bundle", "mwaa", "--settings", str(file), "--folder", str(tmp_path / "bundle")]) == 0
    assert environment.deploy("--dirty") == 0, capsys.readouterr().err
    made = bundle.read(tmp_path / "bundle")
    shown = environment.shown()
    assert set(shown) == {dag for ids in made.manifest["dags"].values() for dag in ids}
    assert all({f"revision:{made.manifest['revision']}", "platform:aws"} <= set(tags) for tags in shown.values())
    assert environment.dags() == of_dags(made.files)


def test_the_airflow_of_the_local_cloud_says_what_a_real_one_says(environment: Environment, tmp_path: Path) -> None:
    """What a deployment goes by: DAGs, tags, times, which are stale, and the errors of files."""
    root = tmp_path / "real"
    made = of_dags(files("mwaa", "rev1", ("one", "two", "three", "four")))
    states = [
        {**made, "dags/three.py": b"from airflow.sdk import DAG, nothing\n"},
        # One breaks, one is gone, one is mended, and one has another DAG.
        {
            **{key: content for key, content in made.items() if key != "dags/two.py"},
            "dags/one.py": b"from airflow.sdk import DAG\n1 / 0\n",
            "dags/four.py": made["dags/four.py"].replace(b'"four"', b'"five"'),
        },
    ]
    home = {"AIRFLOW_HOME": str(root), "HOME": str(root), "PATH": os.environ["PATH"]}
    options = {
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
        # A DAG that its file no longer has is listed as long; the local cloud never forgets it.
        "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "86400",
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
    }
    program = [sys.executable, str(ROOT / "tests" / "deploy" / "real_airflow.py"), "/dags", "/importErrors"]
    root.mkdir()
    with subprocess.Popen(
        program, env={**home, **options}, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as real:
        assert real.stdin is not None and real.stdout is not None
        for state in states:
            shutil.rmtree(root / "dags", ignore_errors=True)
            for key in environment.dags():
                environment.s3.delete_object(Bucket=BUCKET, Key=key)
            for key in ("dags/theirs.py", "dags/include_more/x.py"):
                environment.s3.delete_object(Bucket=BUCKET, Key=key)
            for key, content in state.items():
                (root / key).parent.mkdir(parents=True, exist_ok=True)
                (root / key).write_bytes(content)
                environment.s3.put_object(Bucket=BUCKET, Key=key, Body=content)
            real.stdin.write("look\n")
            real.stdin.flush()
            said = next(json.loads(line) for line in real.stdout if line.startswith('{"/dags"'))
            assert said["/dags"]["total_entries"] >= 3 and said["/importErrors"]["total_entries"] == 1
            wanted = comparable(said)
            waited(lambda wanted=wanted: environment.says() == wanted)  # type: ignore[misc]
            assert environment.says() == wanted
        real.stdin.close()


def comparable(said: dict[str, Any]) -> dict[str, Any]:
    """Without what differs between two machines: places, times and ids. That they are there is compared."""
    other = {"fileloc", "last_parsed_time", "last_parse_duration", "file_token", "timestamp", "import_error_id"}
    told = {"timetable_description"}  # not told by files
    dags = [{key: key if key in other | told else value for key, value in dag.items()} for dag in said["/dags"]["dags"]]
    errors = [
        {key: key if key in other else value for key, value in error.items()} for error in said["/importErrors"]["import_errors"]
    ]
    for error in errors:
        error["stack_trace"] = error["stack_trace"].strip().splitlines()[-1].split(" (/")[0]
    return {"dags": dags, "errors": errors}


def waited(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds() and time.monotonic() < end:
        time.sleep(0.5)
