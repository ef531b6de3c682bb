"""The least that the two roles need: `python -m deploy.aws.policy` writes policy.json and job-policy.json beside this file.

calls.json has the calls that Airflow made in full runs of all DAGs on the local cloud, and for S3 the folders of the lake
that it made them in; tests/aws/test_scheduler.py finds out when it is stale, and writes it anew. policy.json allows those
calls, what AWS asks for beside them, and nothing else. The jobs are run by services, which read and write for them: what
their role needs is written down here.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CALLS, POLICY, JOB_POLICY = HERE / "calls.json", HERE / "policy.json", HERE / "job-policy.json"

Calls = Mapping[str, Mapping[str, list[str]]]  # service → operation → folders of the lake, for S3

# Calls that are no actions of IAM by their names.
ACTIONS: dict[str, tuple[str, ...]] = {
    "s3:HeadObject": ("s3:GetObject",),
    "s3:HeadBucket": ("s3:ListBucket",),
    "s3:ListObjects": ("s3:ListBucket",),
    "s3:ListObjectsV2": ("s3:ListBucket",),
    "s3:CopyObject": ("s3:GetObject", "s3:PutObject"),
    "s3:DeleteObjects": ("s3:DeleteObject",),
    "s3:CreateMultipartUpload": ("s3:PutObject",),
    "s3:UploadPart": ("s3:PutObject",),
    "s3:UploadPartCopy": ("s3:GetObject", "s3:PutObject"),
    "s3:CompleteMultipartUpload": ("s3:PutObject",),
    "s3:ListParts": ("s3:ListMultipartUploadParts",),
    "s3:ListMultipartUploads": ("s3:ListBucketMultipartUploads",),
    "sts:GetCallerIdentity": (),  # everybody may
    "sqs:SendMessageBatch": ("sqs:SendMessage",),
    "sqs:DeleteMessageBatch": ("sqs:DeleteMessage",),
}

BUCKET = "arn:aws:s3:::${Bucket}"
SAGEMAKER = "arn:aws:sagemaker:${Region}:${AccountId}:"
REDSHIFT = "arn:aws:redshift-serverless:${Region}:${AccountId}:workgroup/*"
GROUPS = [f"{SAGEMAKER}model-package-group/*"]
PACKAGES = [f"{SAGEMAKER}model-package/*"]
CATALOG = [
    f"arn:aws:glue:${{Region}}:${{AccountId}}:{what}" for what in ("catalog", "database/${Database}", "table/${Database}/*")
]
KEYS = "arn:aws:kms:${Region}:${AccountId}:key/*"
# The resources of an action: of the longest beginning of its name that stands here.
RESOURCES: dict[str, list[str]] = {
    "s3:ListBucket": [BUCKET],
    "s3:ListBucketMultipartUploads": [BUCKET],
    "s3:GetBucketLocation": [BUCKET],
    "glue:": CATALOG,
    "glue:GetDatabase": CATALOG[:2],
    **{
        f"glue:{name}": ["arn:aws:glue:${Region}:${AccountId}:job/aileron-*"]
        for name in (
            *("CreateJob", "GetJob", "UpdateJob", "StartJobRun", "GetJobRun", "GetJobRuns", "BatchStopJobRun"),
            *("TagResource", "UntagResource", "GetTags"),
        )
    },
    "athena:": ["arn:aws:athena:${Region}:${AccountId}:workgroup/${Workgroup}"],
    "redshift-data:": [REDSHIFT],
    # AWS knows a resource of these three only by who has asked the statement: see CONDITIONS.
    **{f"redshift-data:{name}": ["*"] for name in ("DescribeStatement", "CancelStatement", "GetStatementResult")},
    "redshift-serverless:GetCredentials": [REDSHIFT],
    **{
        f"sagemaker:{verb}{kind}": [f"{SAGEMAKER}{resource}/*"]
        for verb in ("Create", "Describe", "Stop")
        for kind, resource in (
            ("TrainingJob", "training-job"),
            ("ProcessingJob", "processing-job"),
            ("TransformJob", "transform-job"),
            ("HyperParameterTuningJob", "hyper-parameter-tuning-job"),
            ("Model", "model"),
        )
    },
    "sagemaker:ListTrainingJobsForHyperParameterTuningJob": [f"{SAGEMAKER}hyper-parameter-tuning-job/*"],
    # A list of all has no resource.
    **{f"sagemaker:List{kind}Jobs": ["*"] for kind in ("Training", "Processing", "Transform")},
    "sagemaker:CreateModelPackage": GROUPS + PACKAGES,
    "sagemaker:CreateModelPackageGroup": GROUPS,
    "sagemaker:DescribeModelPackageGroup": GROUPS,
    "sagemaker:DescribeModelPackage": PACKAGES,
    "sagemaker:UpdateModelPackage": PACKAGES,
    "sagemaker:ListModelPackages": GROUPS + PACKAGES,
    "sagemaker:ListTags": GROUPS,
    "sagemaker:AddTags": [
        *GROUPS,
        *PACKAGES,
        *(f"{SAGEMAKER}{kind}/*" for kind in ("training-job", "processing-job", "transform-job")),
        *(f"{SAGEMAKER}{kind}/*" for kind in ("hyper-parameter-tuning-job", "model")),
    ],
    "sqs:": ["arn:aws:sqs:${Region}:${AccountId}:aileron-*"],
    "sns:": ["arn:aws:sns:${Region}:${AccountId}:aileron-*"],
    "ses:": ["arn:aws:ses:${Region}:${AccountId}:identity/*"],
    "iam:PassRole": ["arn:aws:iam::${AccountId}:role/${Role}"],
    "kms:": [KEYS],
    "cloudwatch:": ["*"],
}
# Actions that AWS offers no resource for, as of its Service Authorization Reference.
WITHOUT_RESOURCE = {
    "redshift-data:DescribeStatement",
    "redshift-data:CancelStatement",
    "redshift-data:GetStatementResult",
    "sagemaker:ListTrainingJobs",
    "sagemaker:ListProcessingJobs",
    "sagemaker:ListTransformJobs",
    "cloudwatch:PutMetricData",
    "ecr:GetAuthorizationToken",
    *(f"ec2:{name}" for name in ("DescribeNetworkInterfaces", "DescribeSubnets", "DescribeSecurityGroups")),
    *("ec2:DescribeVpcs", "ec2:DescribeDhcpOptions", "ec2:DescribeVpcEndpoints", "ec2:DescribeRouteTables"),
}
OWN_STATEMENT = {"StringEquals": {"redshift-data:statement-owner-iam-userid": "${aws:userid}"}}
PASSED = {"StringEquals": {"iam:PassedToService": ["sagemaker.amazonaws.com", "glue.amazonaws.com"]}}
BY_SERVICES = {
    "StringLike": {"kms:ViaService": ["s3.${Region}.amazonaws.com", "sagemaker.${Region}.amazonaws.com"]},
}
CONDITIONS: dict[str, dict[str, Any]] = {
    "redshift-data:DescribeStatement": OWN_STATEMENT,
    "redshift-data:CancelStatement": OWN_STATEMENT,
    "redshift-data:GetStatementResult": OWN_STATEMENT,
    "iam:PassRole": PASSED,
    # HeadBucket asks for the same action, without a prefix: so names of other keys may be listed, but not read.
    "s3:ListBucket": {"StringLikeIfExists": {"s3:prefix": ["${Prefix}/*", "${Prefix}"]}},
    "cloudwatch:PutMetricData": {"StringEquals": {"cloudwatch:namespace": "Aileron"}},
    "kms:Decrypt": BY_SERVICES,
    "kms:GenerateDataKey": BY_SERVICES,
    "kms:DescribeKey": BY_SERVICES,
    # A volume of a job that is encrypted with a key of one's own; Airflow grants no more than a service asks for.
    "kms:CreateGrant": {**BY_SERVICES, "Bool": {"kms:GrantIsForAWSResource": "true"}},
}


@dataclass(frozen=True)
class Beside:
    """What AWS asks for beside an action. folders: of the lake, for actions on objects."""

    actions: tuple[str, ...]
    why: str
    folders: tuple[str, ...] = ()


CREATED = Beside(("iam:PassRole", "sagemaker:AddTags"), "it is given the jobs' role and tags")
BESIDE: dict[str, tuple[Beside, ...]] = {
    "athena:StartQueryExecution": (
        Beside(("glue:GetDatabase", "glue:GetTable", "glue:GetPartitions", "glue:CreateTable"), "Athena asks the catalog as we"),
        Beside(("s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"), "Athena reads and writes as we"),
        Beside(("s3:GetObject",), "what it reads", ("source", "staging", "versions", "athena", "label_queue")),
        Beside(
            ("s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"),
            "tables that it makes, and results",
            ("staging", "versions", "athena", "label_queue"),
        ),
        Beside(("kms:Decrypt", "kms:GenerateDataKey"), "objects that are encrypted with a key of one's own"),
    ),
    "redshift-data:BatchExecuteStatement": (Beside(("redshift-serverless:GetCredentials",), "to log in"),),
    "sagemaker:CreateTrainingJob": (CREATED, Beside(("kms:CreateGrant", "kms:DescribeKey"), "its volume may be encrypted")),
    "sagemaker:CreateProcessingJob": (CREATED,),
    "sagemaker:CreateTransformJob": (Beside(("sagemaker:AddTags",), "it is given tags"),),
    "sagemaker:CreateHyperParameterTuningJob": (CREATED,),
    "sagemaker:CreateModel": (CREATED, Beside(("sagemaker:DescribeModelPackage",), "it is made of a version")),
    "glue:CreateJob": (Beside(("iam:PassRole", "glue:TagResource"), "it is given the jobs' role and tags"),),
    "glue:UpdateJob": (Beside(("iam:PassRole", "glue:UntagResource"), "it is given the jobs' role; a tag may be gone"),),
}

# What services do in the name of the jobs' role: SageMaker brings inputs, images and logs and takes outputs away; a script of
# Glue reads and writes itself.
READ_BY_JOBS = ("code", "staging", "training", "models", "versions")
WRITTEN_BY_JOBS = ("staging", "versions")


@dataclass
class Allowed:
    """Actions, each with its resources; of S3 objects, with folders of the lake."""

    resources: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def add(self, action: str, folders: Iterable[str] = ()) -> None:
        known = max((name for name in RESOURCES if action.startswith(name)), key=len, default="")
        if known:
            self.resources[action].update(RESOURCES[known])
        elif folders:
            self.resources[action].update(f"{BUCKET}/${{Prefix}}/{folder}/*" for folder in folders)
        else:
            raise ValueError(f"{action}: no resource is known for it: add one to RESOURCES in {Path(__file__).name}")


def actions_of(service: str, operation: str) -> tuple[str, ...]:
    """The actions that IAM asks for when an operation is called."""
    return ACTIONS.get(f"{service}:{operation}", (f"{service}:{operation}",))


def policy(calls: Calls) -> dict[str, Any]:
    """Of the role that Airflow has."""
    allowed = Allowed()
    for service, operations in calls.items():
        for operation, folders in operations.items():
            for action in actions_of(service, operation):
                allowed.add(action, folders)
    for action in sorted(allowed.resources):
        for beside in BESIDE.get(action, ()):
            for other in beside.actions:
                allowed.add(other, beside.folders)
    return _document(allowed.resources)


def job_policy() -> dict[str, Any]:
    """Of the role that the jobs have."""
    logs = "arn:aws:logs:${Region}:${AccountId}:log-group:"
    ecr = ("ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", "ecr:BatchCheckLayerAvailability")
    resources: dict[str, set[str]] = {
        "s3:GetObject": {f"{BUCKET}/${{Prefix}}/{folder}/*" for folder in READ_BY_JOBS},
        "s3:PutObject": {f"{BUCKET}/${{Prefix}}/{folder}/*" for folder in WRITTEN_BY_JOBS},
        # The committer of Spark writes beside, and takes away.
        "s3:DeleteObject": {f"{BUCKET}/${{Prefix}}/{folder}/*" for folder in WRITTEN_BY_JOBS},
        "s3:AbortMultipartUpload": {f"{BUCKET}/${{Prefix}}/{folder}/*" for folder in WRITTEN_BY_JOBS},
        "s3:ListBucket": {BUCKET},
        "s3:GetBucketLocation": {BUCKET},
        **{
            f"logs:{name}": {f"{logs}{group}:*" for group in ("/aws/sagemaker/*", "/aws-glue/*")}
            for name in ("CreateLogGroup", "CreateLogStream", "PutLogEvents", "DescribeLogStreams")
        },
        # Of a security configuration that encrypts logs.
        "logs:AssociateKmsKey": {f"{logs}/aws-glue/*:*"},
        "cloudwatch:PutMetricData": {"*"},
        **{name: {"arn:aws:ecr:${Region}:${AccountId}:repository/aileron-jobs"} for name in ecr},
        "ecr:GetAuthorizationToken": {"*"},
        **{f"kms:{name}": {KEYS} for name in ("Decrypt", "GenerateDataKey")},
    }
    return _document(
        resources,
        {"cloudwatch:PutMetricData": {"StringLike": {"cloudwatch:namespace": ["/aws/sagemaker/*", "Glue"]}}},
    )


def _document(resources: Mapping[str, set[str]], more: Mapping[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """A statement for all actions that have the same resources on the same condition."""
    alike: dict[str, list[str]] = defaultdict(list)
    for action, on in sorted(resources.items()):
        condition = {**CONDITIONS, **(more or {})}.get(action)
        service = action.partition(":")[0]
        alike[json.dumps([service, sorted(on), condition])].append(action)
    statements: list[dict[str, Any]] = []
    seen: dict[str, int] = defaultdict(int)
    for key, actions in alike.items():
        service, on, condition = json.loads(key)
        name = "".join(part.capitalize() for part in service.split("-"))
        seen[name] += 1
        statements.append({
            "Sid": f"{name}{seen[name]}",
            "Effect": "Allow",
            "Action": actions,
            "Resource": on,
            **({"Condition": condition} if condition else {}),
        })
    return {"Version": "2012-10-17", "Statement": statements}


def recorded(calls: Iterable[Mapping[str, Any]], lake: str) -> dict[str, dict[str, list[str]]]:
    """What calls.json has of a list of calls of the local cloud; calls that it did not offer are not among them.

    Args:
        lake: s3://bucket/prefix.
    """
    prefix = lake.removeprefix("s3://") + "/"
    found: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for call in calls:
        if call["service"] == "?" or call["status"] == 501:
            continue
        folders = found[call["service"]][call["operation"]]
        if call["service"] == "s3" and "Key" in call["params"]:
            if not call["subject"].startswith(prefix):
                raise ValueError(f"{call['operation']} of {call['subject']}: is not in the lake {lake}")
            folders.add(call["subject"].removeprefix(prefix).partition("/")[0])
    return {
        service: {operation: sorted(folders) for operation, folders in sorted(operations.items())}
        for service, operations in sorted(found.items())
    }


def text(document: Any) -> str:
    return json.dumps(document, indent=2) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m deploy.aws.policy", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the files are not what would be written")
    check = parser.parse_args().check
    wanted = {POLICY: text(policy(json.loads(CALLS.read_text()))), JOB_POLICY: text(job_policy())}
    stale = [file for file, content in wanted.items() if not file.is_file() or file.read_text() != content]
    if check and stale:
        print(f"{', '.join(file.name for file in stale)} is stale: run python -m deploy.aws.policy", file=sys.stderr)
        return 1
    for file in stale:
        file.write_text(wanted[file])
    return 0


if __name__ == "__main__":
    sys.exit(main())
