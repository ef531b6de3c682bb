"""docker-compose.yaml: parts, ports, mounts, secrets and profiles. What comes of it on an engine: `make test-compose`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet

from tests.conftest import ROOT

AIRFLOW = {"api-server", "scheduler", "dag-processor", "triggerer", "init"}
PROFILES = {"local": set(), "aws": {"aws"}, "gcp": {"gcp"}, "celery": {"broker", "worker"}}
SECRETS = {"AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY", "AIRFLOW_ADMIN_PASSWORD", "POSTGRES_PASSWORD"}


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docker-compose.yaml").read_text()


@pytest.fixture(scope="module")
def services(text: str) -> dict[str, Any]:
    return yaml.safe_load(text)["services"]


def test_every_part_of_airflow_is_there_and_watched(services: dict[str, Any]) -> None:
    assert AIRFLOW | {"postgres", "mail"} <= set(services)
    for name, service in services.items():
        assert "healthcheck" in service or name in ("init", "simulator"), name
    for name in AIRFLOW - {"init"}:
        assert services[name]["command"] == name
        assert services[name]["depends_on"] == {"init": {"condition": "service_completed_successfully"}}
        assert services[name]["environment"] == services["scheduler"]["environment"], "one configuration for all of them"


def test_only_this_machine_can_connect(services: dict[str, Any]) -> None:
    ports = {name: service.get("ports", []) for name, service in services.items()}
    assert {name for name, opened in ports.items() if opened} == {"api-server", "mail"}
    assert all(port.startswith("127.0.0.1:") for opened in ports.values() for port in opened)
    assert not any("network_mode" in service for service in services.values())


def test_what_is_mounted_is_there_and_code_is_read_only(services: dict[str, Any], text: str) -> None:
    volumes = yaml.safe_load(text)["volumes"]
    for name, service in services.items():
        for mount in service.get("volumes", []):
            source, target, *mode = mount.split(":")
            if source.startswith("."):
                assert (ROOT / source).is_dir() and mode == ["ro"], f"{name}: {mount}"
            else:
                assert source in volumes and target.startswith("/"), f"{name}: {mount}"
    mounted = {mount.split(":")[1] for mount in services["scheduler"]["volumes"]}
    assert {f"/opt/airflow/{folder}" for folder in ("dags", "include", "expectations", "plugins", "lake", "logs")} <= mounted


def test_no_secret_is_written_and_none_has_a_default(text: str) -> None:
    assert set(re.findall(r"\$\{(\w+):\?", text)) == SECRETS
    assert set(re.findall(r"(?<!\$)\$\{(\w+)", text)) - SECRETS == {
        "AIRFLOW_PORT",
        "COMPOSE_PROFILES",
        "MAIL_PORT",
        "AILERON_ENVIRONMENT",
        "AILERON_REVISION",
    }
    for line in text.splitlines():
        name, _, value = line.strip().partition(": ")
        if re.search(r"PASSWORD|SECRET|KEY|SQL_ALCHEMY_CONN", name) and not name.startswith("#"):
            assert "${" in value, line
    example = dict(re.findall(r"^([A-Z_]+)=(.*)$", (ROOT / ".env.example").read_text(), re.MULTILINE))
    assert example == dict.fromkeys(SECRETS, "")


def test_images_are_pinned_and_airflow_is_the_one_of_the_requirements(services: dict[str, Any]) -> None:
    (version,) = re.findall(r"^apache-airflow==(\S+)$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    for name, service in services.items():
        assert re.fullmatch(r"[\w./-]+:v?[0-9]+\.[0-9][\w.-]*", service["image"]), name
    assert services["scheduler"]["image"].endswith(f":{version}")
    assert f"FROM apache/airflow:{version}-python3.11 AS airflow\n" in (ROOT / "Dockerfile").read_text()


def test_airflow_understands_its_configuration(services: dict[str, Any]) -> None:
    """Every AIRFLOW__SECTION__OPTION exists, and connections are connections."""
    from airflow.configuration import conf
    from airflow.models.connection import Connection

    environment = services["init"]["environment"]
    sections = conf.configuration_description
    known = {f"AIRFLOW__{name}__{option}".upper() for name, section in sections.items() for option in section["options"]}
    # Of providers that only the image has.
    known |= {"AIRFLOW__CELERY__BROKER_URL", "AIRFLOW__CELERY__WORKER_CONCURRENCY"}
    named = {*environment, *(name for profile in PROFILES for name in _settings(profile))}
    assert {name for name in named if name.startswith("AIRFLOW__")} <= known
    smtp = Connection(conn_id="smtp_default", **_connection(environment["AIRFLOW_CONN_SMTP_DEFAULT"]))
    assert smtp.host == "mail" and smtp.port == 1025 and smtp.extra_dejson["from_email"]
    assert Connection(conn_id="fs_default", **_connection(environment["AIRFLOW_CONN_FS_DEFAULT"])).extra_dejson == {"path": "/"}


def test_make_writes_secrets_once_and_for_the_owner_only(tmp_path: Path) -> None:
    for name in ("Makefile", ".env.example", "requirements.txt", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    subprocess.run(["make", "-s", "compose-env"], cwd=tmp_path, check=True)
    file = tmp_path / ".env"
    first = file.read_text()
    values = dict(re.findall(r"^([A-Z_]+)=(.*)$", first, re.MULTILINE))
    assert set(values) == SECRETS and len(set(values.values())) == len(SECRETS)
    Fernet(values["AIRFLOW_FERNET_KEY"])
    assert all(re.fullmatch(r"[\w=-]{40,}", value) for value in values.values()), "they stand in a URL"
    assert file.stat().st_mode & 0o077 == 0
    subprocess.run(["make", "-s", "compose-env"], cwd=tmp_path, check=True)
    assert file.read_text() == first
    assert [path.name for path in tmp_path.glob(".env*") if path.name != ".env.example"] == [".env"]
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert ".env" in ignored and ".env.new" in ignored


def test_a_profile_has_its_settings_and_no_others(services: dict[str, Any]) -> None:
    """One for each file of deploy/compose; a name that has none is refused, as the file is not there."""
    assert {file.stem for file in (ROOT / "deploy" / "compose").glob("*.env")} == set(PROFILES)
    for profile, extra in PROFILES.items():
        assert {name for name, service in services.items() if profile in service.get("profiles", [])} == extra
    for name in AIRFLOW:
        assert services[name]["env_file"] == "deploy/compose/${COMPOSE_PROFILES:-local}.env"
        # What is in both, the file would lose.
        assert not set(services[name]["environment"]) & {setting for profile in PROFILES for setting in _settings(profile)}
    executors = {profile: _settings(profile)["AIRFLOW__CORE__EXECUTOR"] for profile in PROFILES}
    assert executors == dict.fromkeys(PROFILES, "LocalExecutor") | {"celery": "CeleryExecutor"}


def test_the_clouds_of_the_profiles_are_those_of_make_up() -> None:
    from demo.aws_cloud import AwsCloud
    from demo.google_cloud import GoogleCloud

    ours = {"AIRFLOW__CORE__EXECUTOR", "PYTHONPATH"}
    aws, gcp = _settings("aws"), _settings("gcp")
    assert {name: value for name, value in aws.items() if name not in ours} == AwsCloud("http://aws:4599").environment
    google = GoogleCloud("http://gcp:4599")
    # It says itself where its proxy is and whom to trust; without that it need not run.
    google.__dict__["access"] = {}
    assert google.environment.items() <= gcp.items()
    assert gcp["HTTPS_PROXY"] == google.url
    assert gcp["SSL_CERT_FILE"].startswith("/opt/airflow/cloud/")


@pytest.mark.parametrize("profile", PROFILES)
def test_docker_compose_accepts_it(tmp_path: Path, profile: str) -> None:
    """Compose 2, a plugin of docker, or the older program of its own."""
    known = [["docker", "compose"], ["docker-compose"]]
    compose = next((command for command in known if _answers([*command, "version"])), None)
    if compose is None:
        pytest.skip("there is no docker compose here")
    environment = {**os.environ, **dict.fromkeys(SECRETS, "x"), "COMPOSE_PROFILES": "" if profile == "local" else profile}
    (tmp_path / "empty.env").touch()
    command = [*compose, "--env-file", str(tmp_path / "empty.env"), "config"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    accepted = yaml.safe_load(run.stdout)["services"]
    if command[0] == "docker":  # the older one shows all
        assert set(accepted) == AIRFLOW | {"postgres", "mail"} | PROFILES[profile]
    else:
        assert set(accepted) >= AIRFLOW | PROFILES[profile]
    environment["COMPOSE_PROFILES"] = f"{profile},unknown"
    assert subprocess.run(command, cwd=ROOT, env=environment, capture_output=True).returncode != 0
    without = {name: value for name, value in os.environ.items() if name not in SECRETS}
    refused = subprocess.run(command, cwd=ROOT, env=without, capture_output=True, text=True)
    assert refused.returncode != 0 and "make compose-env" in refused.stderr


def _settings(profile: str) -> dict[str, str]:
    lines = (ROOT / "deploy" / "compose" / f"{profile}.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def _connection(text: str) -> dict[str, Any]:
    given = json.loads(text)
    return {key: json.dumps(value) if key == "extra" else value for key, value in given.items()}


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
