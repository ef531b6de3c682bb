"""The policies of deploy/aws: what is recorded and no more, actions that AWS has, resources wherever AWS has them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import botocore.session
import pytest

from deploy.aws import policy

CALLS = json.loads(policy.CALLS.read_text())
POLICY, JOB_POLICY = json.loads(policy.POLICY.read_text()), json.loads(policy.JOB_POLICY.read_text())
each_policy = pytest.mark.parametrize("document", [POLICY, JOB_POLICY], ids=["airflow", "jobs"])

# Actions of IAM that no call of their service is named like.
NO_CALLS = {"s3:ListBucket", "s3:ListMultipartUploadParts", "s3:ListBucketMultipartUploads", "iam:PassRole"}


def actions(document: dict[str, Any]) -> dict[str, list[str]]:
    """Each action with its resources."""
    return {action: statement["Resource"] for statement in document["Statement"] for action in statement["Action"]}


@cache
def calls_of(service: str) -> set[str]:
    return set(botocore.session.get_session().get_service_model(service).operation_names)


def test_the_files_are_what_the_recorded_calls_make() -> None:
    assert policy.policy(CALLS) == POLICY and policy.job_policy() == JOB_POLICY, "run make policy"


def test_every_recorded_call_is_allowed() -> None:
    allowed = set(actions(POLICY))
    for service, operations in CALLS.items():
        for operation in operations:
            assert set(policy.actions_of(service, operation)) <= allowed, f"{service} {operation}"


def test_nothing_is_allowed_that_no_call_needs() -> None:
    needed = {action for service, made in CALLS.items() for call in made for action in policy.actions_of(service, call)}
    needed |= {other for action in needed for beside in policy.BESIDE.get(action, ()) for other in beside.actions}
    assert set(actions(POLICY)) == needed


def test_a_call_less_is_an_action_less() -> None:
    """The policy is made of the calls: without the one that changes tables nobody may."""
    fewer = {**CALLS, "glue": {name: folders for name, folders in CALLS["glue"].items() if name != "UpdateTable"}}
    assert set(actions(POLICY)) - set(actions(policy.policy(fewer))) == {"glue:UpdateTable"}


def test_a_call_that_nobody_knows_a_resource_for_is_refused() -> None:
    with pytest.raises(ValueError, match="kinesis:PutRecord: no resource is known"):
        policy.policy({"kinesis": {"PutRecord": []}})


@each_policy
def test_every_action_is_one_of_aws(document: dict[str, Any]) -> None:
    for action in actions(document):
        service, _, name = action.partition(":")
        assert action in NO_CALLS or name in calls_of(service), action


@each_policy
def test_no_action_is_a_pattern_and_resources_are_all_only_where_aws_has_none(document: dict[str, Any]) -> None:
    for statement in document["Statement"]:
        assert statement["Effect"] == "Allow" and not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == ["*"]:
            assert set(statement["Action"]) <= policy.WITHOUT_RESOURCE
        else:
            assert all(resource.startswith("arn:aws:") for resource in statement["Resource"])


@each_policy
def test_what_has_landed_and_what_was_decided_is_never_removed(document: dict[str, Any]) -> None:
    folders = {resource.removeprefix(f"{policy.BUCKET}/${{Prefix}}/") for resource in actions(document)["s3:DeleteObject"]}
    assert folders <= {f"{name}/*" for name in ("staging", "versions", "label_queue", "monitoring", "shadow")}
    written = actions(document)["s3:PutObject"]
    assert not [resource for resource in written if "/source/" in resource or resource.endswith("${Prefix}/*")]


def test_a_role_is_passed_to_two_services_only() -> None:
    (statement,) = [statement for statement in POLICY["Statement"] if "iam:PassRole" in statement["Action"]]
    assert statement["Resource"] == ["arn:aws:iam::${AccountId}:role/${Role}"]
    assert statement["Condition"]["StringEquals"]["iam:PassedToService"] == ["sagemaker.amazonaws.com", "glue.amazonaws.com"]


@each_policy
def test_it_is_not_too_long_for_an_inline_policy_of_a_role(document: dict[str, Any]) -> None:
    assert len(json.dumps(document, separators=(",", ":"))) < 10_240 - 1_000  # names are longer than their placeholders
