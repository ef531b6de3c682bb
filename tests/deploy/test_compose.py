"""docker-compose.yaml: parts, ports, mounts and secrets. That containers start is for a machine with an engine to show."""

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
    assert f"FROM apache/airflow:{version}-python3.11\n" in (ROOT / "Dockerfile").read_text()


def test_airflow_understands_its_configuration(services: dict[str, Any]) -> None:
    """Every AIRFLOW__SECTION__OPTION exists, and connections are connections."""
    from airflow.configuration import conf
    from airflow.models.connection import Connection

    environment = services["init"]["environment"]
    sections = conf.configuration_description
    known = {f"AIRFLOW__{name}__{option}".upper() for name, section in sections.items() for option in section["options"]}
    assert {name for name in environment if name.startswith("AIRFLOW__")} <= known
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


def test_docker_compose_accepts_it(tmp_path: Path) -> None:
    """Compose 2, a plugin of docker, or the older program of its own."""
    known = [["docker", "compose"], ["docker-compose"]]
    compose = next((command for command in known if _answers([*command, "version"])), None)
    if compose is None:
        pytest.skip("there is no docker compose here")
    environment = {**os.environ, **dict.fromkeys(SECRETS, "x")}
    (tmp_path / "empty.env").touch()
    command = [*compose, "--env-file", str(tmp_path / "empty.env"), "config"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert set(yaml.safe_load(run.stdout)["services"]) >= AIRFLOW
    refused = subprocess.run(command, cwd=ROOT, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True)
    assert refused.returncode != 0 and "make compose-env" in refused.stderr


def _connection(text: str) -> dict[str, Any]:
    given = json.loads(text)
    return {key: json.dumps(value) if key == "extra" else value for key, value in given.items()}


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
