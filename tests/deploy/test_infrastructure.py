"""What is created in an account or a project: roles of the recorded calls, data that stays private, settings that work."""

from __future__ import annotations

import ast
import json
import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.aws import policy, template
from deploy.gcp import roles
from include.config import load_models
from tests.conftest import ROOT

AWS, TERRAFORM = ROOT / "deploy" / "aws", ROOT / "deploy" / "gcp" / "terraform"
PYTHON = ROOT / ".venv-deploy" / "bin" / "python"  # make test makes it
MOTO = ROOT / ".venv-localcloud" / "bin" / "moto_server"
# What can be made again, and after how many days it may go; the same on both clouds where both have it.
EXPIRES = {"aws": {"staging": 7, "athena": 30, "code": 30}, "gcp": {"staging": 7, "dataflow": 7}}


class Cloudformation(yaml.SafeLoader):
    """!Sub x as {"Sub": x}."""


def _tag(loader: Cloudformation, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {name: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {name: loader.construct_mapping(node, deep=True)}


Cloudformation.add_multi_constructor("!", _tag)


def resources(name: str, kind: str) -> dict[str, dict[str, Any]]:
    document = yaml.load((AWS / name).read_text(), Cloudformation)
    return {key: one for key, one in document["Resources"].items() if one["Type"] == kind}


# CloudFormation


def test_roles_have_the_policies_that_the_recorded_calls_make() -> None:
    text = template.TEMPLATE.read_text()
    assert template.filled(text) == text, "run make policy"
    assert [found["file"] for found in template.BLOCK.finditer(text)] == ["job-policy.json", "policy.json"]


def test_a_right_less_in_a_policy_is_one_less_in_the_template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (policy.POLICY, policy.JOB_POLICY):
        (tmp_path / file.name).write_text(file.read_text().replace('"sqs:ReceiveMessage"', '"sqs:SendMessage"'))
    monkeypatch.setattr(template, "HERE", tmp_path)
    text = template.TEMPLATE.read_text()
    there, less = (re.findall(r"^ +- (sqs:\w+)$", each, re.MULTILINE) for each in (text, template.filled(text)))
    assert (there.count("sqs:SendMessage"), less.count("sqs:SendMessage")) == (1, 2)


def test_a_placeholder_that_the_template_has_nothing_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in (policy.POLICY, policy.JOB_POLICY):
        (tmp_path / file.name).write_text('{"Statement": [{"Resource": "arn:aws:s3:::${Buckett}"}]}')
    monkeypatch.setattr(template, "HERE", tmp_path)
    with pytest.raises(KeyError, match="Buckett"):
        template.filled(template.TEMPLATE.read_text())


@pytest.mark.parametrize("name", ["infrastructure.yaml", "pipeline.yaml"])
def test_buckets_are_private_encrypted_and_versioned_and_stay(name: str) -> None:
    buckets = resources(name, "AWS::S3::Bucket")
    assert buckets
    for bucket in buckets.values():
        properties = bucket["Properties"]
        assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
        assert properties["VersioningConfiguration"] == {"Status": "Enabled"}
        assert list(properties["PublicAccessBlockConfiguration"].values()) == [True] * 4
        (rule,) = properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    denied = {one["Properties"]["Bucket"]["Ref"] for one in resources(name, "AWS::S3::BucketPolicy").values() if _tls_only(one)}
    assert denied == set(buckets)


def _tls_only(one: dict[str, Any]) -> bool:
    return any(
        statement["Effect"] == "Deny" and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for statement in one["Properties"]["PolicyDocument"]["Statement"]
    )


def test_only_what_can_be_made_again_expires() -> None:
    rules = resources("infrastructure.yaml", "AWS::S3::Bucket")["Lake"]["Properties"]["LifecycleConfiguration"]["Rules"]
    expiring = {rule["Prefix"]["Sub"]: rule["ExpirationInDays"] for rule in rules if "ExpirationInDays" in rule}
    assert expiring == {f"${{Prefix}}/{folder}/": days for folder, days in EXPIRES["aws"].items()}


def test_what_holds_data_stays_when_the_stack_goes() -> None:
    kinds = ("KMS::Key", "Glue::Database", "ECR::Repository", "SageMaker::ModelPackageGroup")
    for kind in kinds:
        found = resources("infrastructure.yaml", f"AWS::{kind}")
        assert found and {one["DeletionPolicy"] for one in found.values()} == {"Retain"}, kind


def test_every_model_has_its_group_of_versions() -> None:
    groups = resources("infrastructure.yaml", "AWS::SageMaker::ModelPackageGroup").values()
    named = {one["Properties"]["ModelPackageGroupName"] for one in groups}
    assert named == {f"aileron-{model.name.replace('_', '-')}" for model in load_models()}


def test_four_fifths_of_the_budget_are_told() -> None:
    (budget,) = resources("infrastructure.yaml", "AWS::Budgets::Budget").values()
    told = [one["Notification"] for one in budget["Properties"]["NotificationsWithSubscribers"]]
    assert {
        "NotificationType": "ACTUAL",
        "ComparisonOperator": "GREATER_THAN",
        "Threshold": 80,
        "ThresholdType": "PERCENTAGE",
    } in told


def test_templates_are_not_too_long_for_a_call() -> None:
    assert all(len(file.read_bytes()) < 51_200 for file in AWS.glob("*.yaml"))


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path_factory.mktemp("moto") / "log").open("w") as log:
        server = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
        yield url
    finally:
        server.terminate()
        server.wait()


# What moto's CloudFormation does not make; an entry that it learns to make is to be taken out.
NOT_MADE = {
    *("AWS::Athena::WorkGroup", "AWS::Budgets::Budget", "AWS::CloudWatch::Alarm", "AWS::Glue::Database"),
    *("AWS::Glue::SecurityConfiguration", "AWS::MWAA::Environment", "AWS::S3::BucketPolicy"),
    *("AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy", "AWS::SageMaker::ModelPackageGroup"),
}


@pytest.mark.localcloud
def test_the_stack_is_created_with_roles_and_settings_that_the_dags_take(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3

    from include.platforms.aws.settings import aws

    def client(service: str) -> Any:
        keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none"}
        return boto3.client(service, region_name="us-east-1", endpoint_url=moto, **keys)

    cloudformation, iam = client("cloudformation"), client("iam")
    given = [{"ParameterKey": "AlertEmail", "ParameterValue": "on-call@example.com"}]
    text = template.TEMPLATE.read_text()
    cloudformation.create_stack(StackName="aileron", TemplateBody=text, Parameters=given, Capabilities=["CAPABILITY_IAM"])
    (stack,) = cloudformation.describe_stacks(StackName="aileron")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    made = cloudformation.list_stack_resources(StackName="aileron")["StackResourceSummaries"]
    kinds = set(re.findall(r"^    Type: (AWS::\S+)$", text, re.MULTILINE))
    assert kinds - {one["ResourceType"] for one in made if one["LogicalResourceId"].strip()} == NOT_MADE

    outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
    settings = dict(line.split("=", 1) for line in outputs["Settings"].splitlines())
    for name, value in {**settings, "AILERON_AWS_IMAGE": f"{outputs['JobImages']}:1"}.items():
        monkeypatch.setenv(name, value)
    chosen = aws()
    assert chosen.lake == "s3://aileron-lake-123456789012-us-east-1/aileron" and chosen.kms_key == outputs["KeyArn"]

    role = chosen.role.rpartition("/")[2]
    names = {"Bucket": chosen.bucket, "Prefix": "aileron", "AccountId": "123456789012", "Region": "us-east-1", "Role": role}
    names |= {"Database": chosen.database, "Workgroup": chosen.workgroup}
    (airflow,) = [one["RoleName"] for one in iam.list_roles()["Roles"] if "AirflowRole" in one["RoleName"]]
    for of_role, name, file in ((role, "jobs", policy.JOB_POLICY), (airflow, "airflow", policy.POLICY)):
        wanted = re.sub(r"\$\{([^:}]+)\}", lambda found: names[found[1]], file.read_text())
        found = iam.get_role_policy(RoleName=of_role, PolicyName=name)["PolicyDocument"]
        assert ast.literal_eval(found) == json.loads(wanted)  # moto has it as Python writes it
        assert len(json.dumps(json.loads(wanted), separators=(",", ":"))) < 10_240, "IAM takes no longer one"


@pytest.mark.localcloud
def test_only_one_environment_of_one_repository_on_github_may_deploy(moto: str) -> None:
    import boto3

    keys = {"aws_access_key_id": "none", "aws_secret_access_key": "none", "region_name": "eu-west-1", "endpoint_url": moto}
    cloudformation, iam = (boto3.client(service, **keys) for service in ("cloudformation", "iam"))
    given = {"AlertEmail": "on-call@example.com"}
    for name, file in (("aileron", "infrastructure.yaml"), ("deployments", "pipeline.yaml")):
        parameters = [{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()]
        text = (AWS / file).read_text()
        cloudformation.create_stack(StackName=name, TemplateBody=text, Parameters=parameters, Capabilities=["CAPABILITY_IAM"])
        given = {"Repository": "example/aileron", "GitHubEnvironment": "production-mwaa", "GitHubProvider": "arn:aws:iam::1:oidc"}
    (role,) = [one for one in iam.list_roles()["Roles"] if "GitHubRole" in one["RoleName"]]
    (statement,) = role["AssumeRolePolicyDocument"]["Statement"]
    assert statement["Condition"]["StringEquals"] == {
        "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
        "token.actions.githubusercontent.com:sub": "repo:example/aileron:environment:production-mwaa",
    }


# Terraform


def offline(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [PYTHON, "-m", "deploy.gcp.offline", "--source", folder, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, Any]]]:
    """What Terraform would create: type → values."""
    file = tmp_path_factory.mktemp("plan") / "plan.json"
    done = offline(TERRAFORM, "--plan", str(file))
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for change in json.loads(file.read_text())["resource_changes"]:
        found.setdefault(change["type"], []).append({**change["change"]["after"], "unknown": change["change"]["after_unknown"]})
    return found


def test_custom_roles_are_those_of_the_recorded_calls(plan: dict[str, list[dict[str, Any]]]) -> None:
    found = {one["role_id"]: one["permissions"] for one in plan["google_project_iam_custom_role"]}
    wanted = {
        f"aileron_{name}": one["includedPermissions"] for name, one in roles.roles(json.loads(roles.CALLS.read_text())).items()
    }
    assert found.pop("aileron_deploy") == ["composer.environments.get", "composer.environments.update", "composer.operations.get"]
    assert found == wanted


def test_rights_on_objects_are_those_of_the_script_folder_by_folder(plan: dict[str, list[dict[str, Any]]]) -> None:
    """grant.sh and Terraform are two ways to the same rights."""
    found = set()
    for one in plan["google_storage_bucket_iam_member"]:
        for condition in one["condition"]:
            folders = re.findall(r'objects/aileron/(\w+)/"\)', condition["expression"])
            assert condition["expression"].count("startsWith") == len(folders)
            found.add((condition["title"], tuple(folders)))
    script = set(re.findall(r"\$\(folders (\w+) ([\w ]+)\)", roles.GRANT.read_text()))
    assert found - {("aileron_templates", ("templates",))} == {(title, tuple(folders.split())) for title, folders in script}


def test_buckets_of_google_are_private_encrypted_and_versioned(plan: dict[str, list[dict[str, Any]]]) -> None:
    lake, bundle = sorted(plan["google_storage_bucket"], key=lambda one: one["name"], reverse=True)
    assert (lake["name"], bundle["name"]) == ("example-project-aileron-lake", "example-project-aileron-composer")
    for bucket in (lake, bundle):
        assert bucket["uniform_bucket_level_access"] and bucket["public_access_prevention"] == "enforced"
        assert bucket["versioning"] == [{"enabled": True}]
        assert bucket["unknown"]["encryption"][0]["default_kms_key_name"] is True  # there is no key yet
    expiring = {
        prefix: condition["age"]
        for rule in lake["lifecycle_rule"]
        for condition in rule["condition"]
        if rule["action"][0]["type"] == "Delete" and condition["age"]
        for prefix in condition["matches_prefix"]
    }
    assert expiring == {f"aileron/{folder}/": days for folder, days in EXPIRES["gcp"].items()}


def test_composer_is_told_settings_that_the_dags_know(plan: dict[str, list[dict[str, Any]]]) -> None:
    from include.platforms.gcp.settings import PATTERNS, PREFIX

    (environment,) = plan["google_composer_environment"]
    (software,) = environment["config"][0]["software_config"]
    (airflow,) = re.findall(r"^apache-airflow==(\S+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert software["image_version"].startswith(f"composer-3-airflow-{airflow}-build.")
    told, later = software["env_variables"], environment["unknown"]["config"][0]["software_config"][0]["env_variables"]
    own = {name.removeprefix(PREFIX).lower() for name in {*told, *later} if name.startswith(PREFIX)}
    assert own <= set(PATTERNS) and {"project", "lake", "dataset", "image", "templates", "service_account"} <= own
    for name, value in told.items():
        if name.startswith(PREFIX):
            assert re.fullmatch(PATTERNS[name.removeprefix(PREFIX).lower()][0], value), name


def test_four_fifths_of_the_budget_of_google_are_told(plan: dict[str, list[dict[str, Any]]]) -> None:
    (budget,) = plan["google_billing_budget"]
    assert [rule["threshold_percent"] for rule in budget["threshold_rules"]] == [0.8, 1]


@pytest.mark.parametrize(
    ("file", "right", "wrong", "told"),
    [
        ("main.tf", "disable_on_destroy = false", "disable_on_destroi = false", '"disable_on_destroi" is not expected'),
        ("main.tf", '  name     = "aileron"\n  location = var.region\n', '  name = "aileron"\n', '"location" is required'),
        ("composer.tf", "count     = 2", 'count     = "many"', "a number is required"),
        ("composer.tf", "var.image_version", "var.image_versio", "undeclared input variable"),
        ("alerts.tf", "google_billing_budget", "google_billing_budgets", "the provider has no such type"),
        ("main.tf", '  name     = "aileron"', '  name = "aileron"', "terraform fmt would change"),
    ],
)
def test_terraform_finds_what_is_wrong(tmp_path: Path, file: str, right: str, wrong: str, told: str) -> None:
    shutil.copytree(TERRAFORM.parent, tmp_path / "gcp")
    changed = tmp_path / "gcp" / "terraform" / file
    assert right in changed.read_text()
    changed.write_text(changed.read_text().replace(right, wrong, 1))
    done = offline(changed.parent)
    assert done.returncode == 1 and told in " ".join(done.stderr.split()), done.stderr
