"""Everything that whole runs have asked of AWS, against botocore's models: also what the client itself leaves unchecked."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore.model import Shape
from botocore.validate import ParamValidator

from tests.aws.places import ROLE, Place
from tests.dag_runs import run_dag, states
from tests.dags.lakes import MONITOR
from tests.flights import DAYS

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(1200)]

# What comes as JSON is recorded whole; of S3 there are only path, query and headers.
WHOLE = {"sagemaker", "glue", "athena", "redshift-data"}
EXPECTED = ("not found", "NotFound", "Could not find", "does not exist", "AlreadyExists", "already exists", "NoSuchKey")


@pytest.fixture(scope="module")
def asked(predicted: Place, recorded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """By a training, predictions and a monitoring. The latter in a copy: others look at the place as it was predicted."""
    place = predicted.copied("asked", "ledger")
    begin = len(predicted.cloud.calls())
    with place.settings():
        run = run_dag(MONITOR, DAYS[3])
    assert run.state == "success", states(run)
    return recorded + predicted.cloud.calls()[begin:]


@pytest.fixture(scope="module")
def calls(asked: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [call for call in asked if call["service"] in WHOLE]


def faults(shape: Shape, value: Any, path: str) -> Iterator[str]:
    """Where a value breaks an enum, a pattern or a limit. Patterns that only Java reads are passed over."""
    if shape.type_name == "structure":
        for name, each in value.items():
            yield from faults(shape.members[name], each, f"{path}.{name}")
    elif shape.type_name == "list":
        for number, each in enumerate(value):
            yield from faults(shape.member, each, f"{path}[{number}]")
    elif shape.type_name == "map":
        for name, each in value.items():
            yield from faults(shape.key, name, f"{path}.{name}")
            yield from faults(shape.value, each, f"{path}.{name}")
    most, least = shape.metadata.get("max"), shape.metadata.get("min")
    size = value if isinstance(value, int | float) else len(value)
    if (most is not None and size > most) or (least is not None and size < least):
        yield f"{path}: {value!r} is not within {least} and {most}"
    if not isinstance(value, str):
        return
    if (known := shape.metadata.get("enum")) and value not in known:
        yield f"{path}: {value!r} is none of {known}"
    pattern = compiled(shape.metadata.get("pattern"))
    if pattern and not pattern.fullmatch(value):
        yield f"{path}: {value!r} does not match {pattern.pattern}"


def compiled(pattern: str | None) -> re.Pattern[str] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(pattern) if pattern else None
    except (re.error, Warning):
        return None


def test_the_check_finds_what_the_client_lets_pass() -> None:
    shape = botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTransformJob").input_shape
    wrong = {"TransformJobName": "a_b", "BatchStrategy": "Nope", "MaxConcurrentTransforms": -1, "ModelName": "x" * 64}
    assert len(list(faults(shape, wrong, ""))) >= 4


def test_every_request_is_one_that_aws_takes(calls: list[dict[str, Any]]) -> None:
    session, wrong = botocore.session.get_session(), []
    asked = Counter((call["service"], call["operation"]) for call in calls)
    assert {operation for _, operation in asked} >= {
        "CreateTrainingJob", "CreateProcessingJob", "CreateTransformJob", "CreateModel", "CreateModelPackage",
        "CreateModelPackageGroup", "AddTags", "UpdateModelPackage", "CreateJob", "StartJobRun", "StartQueryExecution",
        "CreateTable", "CreatePartition",
    }  # fmt: skip
    for call in calls:
        shape = session.get_service_model(call["service"]).operation_model(call["operation"]).input_shape
        report = ParamValidator().validate(call["params"], shape)
        if report.has_errors():
            wrong.append(f"{call['operation']}: {report.generate_report()}")
        else:
            wrong += faults(shape, call["params"], call["operation"])
    assert wrong == []


def test_no_call_was_refused_that_should_not_have_been(asked: list[dict[str, Any]]) -> None:
    """What is not there yet is looked for; anything else that is refused was asked wrongly."""
    refused = [call for call in asked if (call["status"] or 0) >= 400 and call["operation"] != "HeadObject"]
    assert [call for call in refused if call["status"] in (500, 501)] == []
    assert [f"{call['operation']}: {call['error']}" for call in refused if not any(e in call["error"] for e in EXPECTED)] == []


def test_what_is_billed_says_whose_it_is_and_ends_by_itself(calls: list[dict[str, Any]]) -> None:
    made = [call for call in calls if call["operation"] in (
        "CreateTrainingJob", "CreateProcessingJob", "CreateTransformJob", "CreateModel", "CreateJob"
    )]  # fmt: skip
    for call in made:
        params, given = call["params"], call["params"].get("Tags", [])
        tags = given if isinstance(given, dict) else {tag["Key"]: tag["Value"] for tag in given}
        assert tags.keys() >= {"owner", "model", "environment"}, call["operation"]
        # Shared by runs, so not of one of them.
        assert ("run" in tags) == (call["operation"] not in ("CreateModel", "CreateJob"))
        limit = params.get("Timeout") or params.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        assert limit or call["operation"] in ("CreateModel", "CreateTransformJob")
        if call["operation"] != "CreateTransformJob":
            assert ROLE in (params.get("RoleArn"), params.get("ExecutionRoleArn"), params.get("Role"))


def test_a_job_that_no_service_would_stop_is_stopped_by_who_waits(calls: list[dict[str, Any]]) -> None:
    """Transforms have no limit of time: see test_jobs. They have one for each request to the model."""
    asked = [call["params"]["ModelClientConfig"] for call in calls if call["operation"] == "CreateTransformJob"]
    assert asked and all(0 < each["InvocationsTimeoutInSeconds"] <= 3600 for each in asked)


def test_nothing_that_is_asked_holds_a_secret(calls: list[dict[str, Any]]) -> None:
    named = [name.lower() for call in calls for name in names(call["params"])]
    assert not [name for name in named if re.search("secret|password|access_?key|credential", name)]


def names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield name
            yield from names(each)
    elif isinstance(value, list):
        for each in value:
            yield from names(each)
