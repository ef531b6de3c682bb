"""What was agreed to be asked of Google, against what Google publishes: the protos of its clients, its discovery documents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import googleapiclient
import pytest
from google.cloud import aiplatform_v1, monitoring_v3
from google.protobuf import json_format

from include.config import REPOSITORY
from tests.conformance import golden

DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
VERSIONS = {"bigquery": "v2", "dataflow": "v1b3"}
CLIENTS: Mapping[str, Any] = {"aiplatform": aiplatform_v1, "monitoring": monitoring_v3}


@pytest.fixture(scope="module")
def agreed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(golden.path("gcp").read_text())
    return found


@cache
def document(service: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DOCUMENTS / f"{service}.{VERSIONS[service]}.json").read_text())
    return found


def method(service: str, operation: str) -> dict[str, Any]:
    found = document(service)
    *resources, name = operation.split(" ")[0].split(".")
    for resource in resources:
        found = found["resources"][resource]
    told: dict[str, Any] = found["methods"][name]
    return told


def faults(service: str, schema: Mapping[str, Any], value: Any, path: str) -> Iterator[str]:
    """Where a value is none of a schema: members that it does not have, values of another type, or none of an enum."""
    if value is None:
        return  # takes a member away
    if "$ref" in schema:
        schema = document(service)["schemas"][schema["$ref"]]
    kind = schema.get("type")
    if kind == "array":
        if not isinstance(value, list):
            yield f"{path}: {value!r} is no list"
        else:
            for number, each in enumerate(value):
                yield from faults(service, schema["items"], each, f"{path}[{number}]")
    elif kind == "object":
        known, others = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            if name not in known and others is None:
                yield f"{path}.{name}: there is no such member"
            else:
                yield from faults(service, known.get(name, others), each, f"{path}.{name}")
    elif not isinstance(value, {"boolean": bool, "integer": int, "number": int | float}.get(str(kind), str)) and kind != "any":
        yield f"{path}: {value!r} is no {kind}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"


def test_the_check_finds_what_is_wrong() -> None:
    schema = {"$ref": "Job"}
    wrong = {"configuration": {"query": {"query": 1, "useLegacySql": "no"}, "querry": {}}, "labels": {}}
    assert len(list(faults("bigquery", schema, wrong, "job"))) == 4


def test_every_request_is_one_that_google_takes(agreed: list[dict[str, Any]]) -> None:
    asked = Counter((each["service"], each["operation"]) for each in agreed)
    assert {operation for _, operation in asked} >= {
        "CreateCustomJob", "CreateBatchPredictionJob", "UploadModel", "MergeVersionAliases", "jobs.insert", "tables.insert",
        "projects.locations.flexTemplates.launch",
    }  # fmt: skip
    wrong = []
    for each in agreed:
        service, operation, params = each["service"], each["operation"], each["params"]
        if service in CLIENTS:
            request = getattr(CLIENTS[service], f"{operation}Request")
            json_format.ParseDict(params, request.pb(request()))
            continue
        told = method(service, operation)
        given = {name: value for name, value in params.items() if name != "body"}
        wrong += [
            f"{operation}: {name} is no parameter"
            for name in given
            if name not in told["parameters"] | document(service)["parameters"]
        ]
        wrong += faults(service, told["request"], params["body"], operation)
    assert wrong == []


def test_what_is_billed_says_whose_it_is_and_ends_by_itself(agreed: list[dict[str, Any]]) -> None:
    for each in agreed:
        params = each["params"]
        if each["operation"] == "jobs.insert":
            labels = params["body"]["configuration"]["labels"]
            assert int(params["body"]["configuration"]["jobTimeoutMs"]) > 0
            query = params["body"]["configuration"].get("query")
            assert query is None or int(query["maximumBytesBilled"]) > 0
        elif each["operation"] == "CreateCustomJob":
            labels = params["custom_job"]["labels"]
            assert params["custom_job"]["job_spec"]["scheduling"]["timeout"]
        elif each["operation"] == "CreateBatchPredictionJob":
            labels = params["batch_prediction_job"]["labels"]  # that no service would stop: see test_jobs
        elif each["operation"].endswith("launch"):
            labels = params["body"]["launchParameter"]["environment"]["additionalUserLabels"]
        else:
            continue
        assert labels.keys() >= {"owner", "model", "environment"}, each["operation"]


def test_nothing_that_is_asked_holds_a_secret(agreed: list[dict[str, Any]]) -> None:
    text = json.dumps(agreed).lower()
    assert not [word for word in ("secret", "password", "private_key", "access_token") if word in text]
    assert str(REPOSITORY) not in text
