"""The roles of deploy/gcp: what is recorded and no more, each where it is needed, and what was decided stays."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.gcp import roles
from include.platforms.gcp.jobs import KINDS

CALLS = json.loads(roles.CALLS.read_text())
FILES = {file.stem: yaml.safe_load(file.read_text()) for file in roles.ROLES.glob("*.yaml")}
LAKE, TEMPLATES = "gs://lake/aileron", "gs://lake/aileron/templates"
# A command that only says how it was called, its arguments with tabs between them.
SAYS = '#!/bin/sh\nfor one in {} "$@"; do printf "%s\\t" "$one"; done >> "$CALLED"\necho >> "$CALLED"\n'
BELOW = re.compile(r'resource\.name\.startsWith\("projects/_/buckets/lake/objects/aileron/\w+/"\)')


def permissions(calls: Any = CALLS) -> set[str]:
    return {permission for role in roles.roles(calls).values() for permission in role["includedPermissions"]}


def test_the_files_are_what_the_recorded_calls_make() -> None:
    wanted = roles.files(CALLS)
    assert {file: file.read_text() for file in wanted} == wanted, "run make policy"
    assert {f"{name}.yaml" for name in FILES} == {file.name for file in wanted if file.suffix == ".yaml"}


def test_every_recorded_call_is_allowed_and_nothing_that_no_call_needs() -> None:
    needed = {
        permission
        for service, made in CALLS.items()
        for operation in made
        for permission in roles.PERMISSIONS[f"{service}:{operation}"]
    }
    assert needed <= permissions()
    jobs = {*roles.PROJECT_OF_JOBS, "storage.buckets.get", "storage.objects.list", *roles.FOLDERS.values()}
    assert set(roles.allowed(CALLS)) - needed <= {roles.ACT_AS, "storage.objects.delete"}
    assert permissions() == needed | jobs | {roles.ACT_AS}


def test_what_is_called_only_when_something_goes_wrong_is_among_the_calls() -> None:
    """Runs that go well kill nothing, and nobody asks why: who forgets it finds out when a job goes on billing."""
    stops = {
        "bigquery": ("bigquery", "jobs.cancel"),
        "custom": ("aiplatform", "CancelCustomJob"),
        "batch": ("aiplatform", "CancelBatchPredictionJob"),
        "dataflow": ("dataflow", "projects.locations.jobs.update"),
    }
    assert stops.keys() == KINDS.keys()
    assert [stop for stop in stops.values() if stop[1] not in CALLS.get(stop[0], {})] == []
    assert "projects.locations.jobs.messages.list" in CALLS["dataflow"], "why a job of Dataflow has failed"


def test_a_call_less_is_a_permission_less() -> None:
    fewer = {**CALLS, "bigquery": {name: told for name, told in CALLS["bigquery"].items() if name != "tables.delete"}}
    assert permissions() - permissions(fewer) == {"bigquery.tables.delete"}


def test_a_call_that_nobody_knows_the_permissions_of_is_refused() -> None:
    with pytest.raises(ValueError, match=r"bigquery:tables\.setIamPolicy: its permissions are not known"):
        roles.roles({"bigquery": {"tables.setIamPolicy": []}})


def test_every_permission_is_one_and_is_granted_somewhere() -> None:
    for name, role in FILES.items():
        assert set(role) == {"title", "description", "stage", "includedPermissions"} and role["includedPermissions"]
        for permission in role["includedPermissions"]:
            assert re.fullmatch(r"[a-z]+\.[A-Za-z]+\.[A-Za-z]+", permission), permission
        assert re.search(rf"\b{name}\b", roles.GRANT.read_text().partition("role() {")[2]), name
    assert not [one for one in permissions() if "setIamPolicy" in one or one.startswith(("iam.roles", "resourcemanager"))]


def test_rights_on_tables_are_of_the_dataset_and_rights_on_objects_of_folders() -> None:
    in_project = set(FILES["airflow_project"]["includedPermissions"]) | set(FILES["jobs_project"]["includedPermissions"])
    assert not [one for one in in_project if one.startswith(("bigquery.tables", "bigquery.datasets", "storage.", "iam."))]
    assert set(FILES["bucket"]["includedPermissions"]) == {"storage.buckets.get", "storage.objects.list"}
    assert [FILES[name]["includedPermissions"] for name in roles.FOLDERS] == [[one] for one in roles.FOLDERS.values()]


def test_what_was_decided_is_not_written_again_and_jobs_change_no_model() -> None:
    allowed = roles.allowed(CALLS)
    assert allowed["storage.objects.delete"] <= set(roles.REPLACED)
    assert {"ledger", "outbox"} <= allowed["storage.objects.create"] - allowed["storage.objects.delete"]
    assert not {"ledger", "models", "training", "templates"} & set(roles.WRITTEN_BY_JOBS)
    assert "templates" not in allowed["storage.objects.create"]


def test_the_script_grants_each_folder_by_a_condition_that_google_takes(tmp_path: Path) -> None:
    """Run with commands that only say how they were called."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name in ("gcloud", "bq"):
        (commands / name).write_text(SAYS.format(name))
        (commands / name).chmod(0o755)
    called = tmp_path / "called"
    environment = {
        "PATH": f"{commands}:/usr/bin:/bin",
        "CALLED": str(called),
        "PROJECT": "p",
        "BUCKET": "lake",
        "PREFIX": "aileron",
        "DATASET": "d",
        "REPOSITORY": "r",
        "REGION": "us-central1",
        "AIRFLOW": "composer@p.iam",
        "JOBS": "jobs@p.iam",
        "SUBSCRIPTION": "landed",
    }
    subprocess.run(["sh", str(roles.GRANT)], env=environment, check=True)
    lines = [line.rstrip("\t").split("\t") for line in called.read_text().splitlines()]
    conditions = [part.removeprefix("--condition=") for line in lines for part in line if "expression=" in part]
    assert len(conditions) == 2 * len(roles.FOLDERS)
    for condition in conditions:
        title, _, expression = condition.partition(",expression=")
        assert re.fullmatch(r"title=aileron_\w+", title) and "," not in expression
        starts = expression.split(" || ")
        assert 0 < len(starts) <= 12, "IAM takes so many"
        assert all(BELOW.fullmatch(one) for one in starts), expression
    made = {part.removeprefix("--file=") for line in lines for part in line if part.startswith("--file=")}
    assert made == {f"{name}.yaml" for name in FILES}
    (asked,) = [line for line in lines if line[0] == "bq"]
    assert asked[1:4] == ["query", "--project_id=p", "--use_legacy_sql=false"]
    assert asked[4] == 'GRANT `projects/p/roles/aileron_airflow_dataset` ON SCHEMA `p`.d TO "serviceAccount:composer@p.iam"'
    fails = subprocess.run(["sh", str(roles.GRANT)], env={**environment, "JOBS": ""}, capture_output=True, text=True)
    assert fails.returncode != 0 and "JOBS" in fails.stderr


def call(service: str, operation: str, subject: str = "", **params: Any) -> dict[str, Any]:
    return {"service": service, "operation": operation, "subject": subject, "params": params, "status": 200}


def test_calls_are_recorded_by_what_they_do_and_where() -> None:
    told = roles.recorded(
        [
            call("bigquery", "jobs.insert", body={"configuration": {"extract": {}, "labels": {}}}),
            call("storage", "objects.insert", "lake/aileron/ledger/promotion/1.json"),
            call("storage", "objects.insert:begin", "lake/aileron/ledger/promotion/1.json"),
            call("storage", "objects.get", "lake/aileron/templates/score.json"),
            call("storage", "objects.list", "lake/aileron/ledger"),
            call("storage", "objects.delete", "lake/aileron/staging/m/temp"),
            call(
                *("storage", "objects.rewrite", "..."),
                sourceBucket="lake",
                sourceObject="aileron/staging/a",
                destinationBucket="lake",
                destinationObject="aileron/models/a",
            ),
            {**call("bigquery", "models.list"), "status": 501},
            call("?", "GET /"),
        ],
        LAKE,
        TEMPLATES,
    )
    assert told == {
        "bigquery": {"jobs.insert extract": []},
        "storage": {
            "objects.get": ["staging", "templates"],
            "objects.insert": ["ledger"],
            "objects.list": [],
            "objects.rewrite": ["models"],
        },
    }
    with pytest.raises(ValueError, match="gs://lake/landing/1: is not in the lake"):
        roles.recorded([call("storage", "objects.insert", "lake/landing/1")], LAKE, TEMPLATES)
