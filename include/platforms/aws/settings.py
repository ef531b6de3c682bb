"""Where in an AWS account the DAGs work: AILERON_AWS_* variables, checked before anything is asked of AWS."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from include.config import ModelConfig, settings
from include.platforms import environment
from include.platforms.environment import InvalidSettings
from include.platforms.remote_jobs import Terms

PREFIX = "AILERON_AWS_"
Results = Literal["athena", "redshift"]


@dataclass(frozen=True)
class AwsSettings:
    """One variable each: `lake` is AILERON_AWS_LAKE. Empty: not used."""

    lake: str  # s3://bucket/prefix
    database: str  # of the Glue catalog, with the source tables
    role: str  # ARN, of the SageMaker and Glue jobs
    image: str  # of the container of deploy/aws
    workgroup: str = "primary"  # of Athena
    connection: str = "aws_default"  # of Airflow
    kms_key: str = ""  # ARN or id; encrypts what jobs write and the disks they use
    glue_security: str = ""  # name of a security configuration of Glue, which has its keys there
    subnets: str = ""  # comma-separated, with security_groups: jobs run inside this network
    security_groups: str = ""
    instance: str = "ml.m5.xlarge"  # of training, processing and transform jobs
    instances: str = "1"  # of a transform job
    glue_worker: str = "G.1X"
    glue_workers: str = "2"
    max_job_hours: str = "4"  # then a job is stopped
    max_job_cost: str = "25"  # US dollars, estimated; a dearer job is not submitted
    cost_center: str = ""  # a tag
    poll_seconds: str = "30"
    deferrable: str = "true"  # false: a worker waits for each job
    spot: str = "false"  # true: training on spare capacity, at most max_job_hours of waiting on top
    tuning_jobs: str = "0"  # more: parameters are searched by a SageMaker tuning job of so many trainings
    queue: str = ""  # URL of the SQS queue that tells of landed markers
    results: Results = "athena"  # redshift: published partitions are loaded there too
    redshift_workgroup: str = ""  # of Redshift Serverless
    redshift_database: str = "dev"
    redshift_role: str = ""  # ARN, with which Redshift reads the lake

    @property
    def bucket(self) -> str:
        return self.lake.removeprefix("s3://").partition("/")[0]

    @property
    def is_deferrable(self) -> bool:
        return self.deferrable == "true"

    @property
    def is_spot(self) -> bool:
        return self.spot == "true"

    @property
    def seconds(self) -> int:
        """Between two looks at a job."""
        return int(self.poll_seconds)

    @property
    def most_seconds(self) -> int:
        """That a job may take."""
        return int(float(self.max_job_hours) * 3600)


PATTERNS = {
    "lake": (r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9_=.-]+)*", "like s3://bucket/aileron"),
    "database": (r"[a-z][a-z0-9_]{0,62}", "the name of a database of the Glue catalog"),
    "role": (
        r"arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9_+=,.@/-]+",
        "the ARN of a role, like arn:aws:iam::123456789012:role/jobs",
    ),
    "image": (r"[A-Za-z0-9][A-Za-z0-9./_:@-]{1,254}", "the URI of the container image that deploy/aws/Dockerfile makes"),
    "workgroup": (r"[A-Za-z0-9._-]{1,128}", "the name of an Athena workgroup"),
    "connection": (r"[A-Za-z0-9_.-]{1,200}", "the id of an Airflow connection"),
    "kms_key": (r"([A-Za-z0-9:/_-]{1,2048})?", "the ARN or id of a KMS key"),
    "glue_security": (r"[A-Za-z0-9_.-]{0,255}", "the name of a security configuration of Glue"),
    "subnets": (r"(subnet-[0-9a-z]+(,subnet-[0-9a-z]+)*)?", "like subnet-1,subnet-2"),
    "security_groups": (r"(sg-[0-9a-z]+(,sg-[0-9a-z]+)*)?", "like sg-1,sg-2"),
    "instance": (r"ml\.[a-z0-9]+\.[a-z0-9]+", "an instance type of SageMaker, like ml.m5.xlarge"),
    "instances": (r"[1-9][0-9]?", "a number from 1 to 99"),
    "glue_worker": (r"G\.[0-9.]+X", "a worker type of Glue, like G.1X"),
    "glue_workers": (r"[2-9]|[1-9][0-9]", "a number from 2 to 99"),
    "max_job_hours": (r"[0-9]+(\.[0-9]+)?", "a number of hours"),
    "max_job_cost": (r"[0-9]+(\.[0-9]+)?", "a number of US dollars"),
    "cost_center": (r"[A-Za-z0-9 _.:/=+@-]{0,200}", "letters, digits and _ . : / = + @ -"),
    "poll_seconds": (r"[1-9][0-9]{0,2}", "a number of seconds from 1 to 999"),
    "deferrable": (r"true|false", "true or false"),
    "spot": (r"true|false", "true or false"),
    "tuning_jobs": (r"[0-9]{1,2}", "a number from 0 to 99"),
    "queue": (r"(https?://\S{1,500})?", "the URL of an SQS queue"),
    "results": (r"athena|redshift", "athena or redshift"),
    "redshift_workgroup": (r"([a-z0-9-]{3,64})?", "the name of a workgroup of Redshift Serverless"),
    "redshift_database": (r"[a-z][a-z0-9_]{0,62}", "the name of a database of Redshift"),
    "redshift_role": (r"(arn:aws[a-z-]*:iam::\d{12}:role/[A-Za-z0-9_+=,.@/-]+)?", "the ARN of a role"),
}


def aws() -> AwsSettings:
    """Read anew at each call, as `config.settings`.

    Raises:
        InvalidSettings: naming every variable that is missing or wrong.
    """
    chosen = environment.given(AwsSettings, PREFIX)
    wrong = environment.faults(chosen, PREFIX, PATTERNS)
    if chosen.results == "redshift" and not (chosen.redshift_workgroup and chosen.redshift_role):
        wrong.append("AILERON_AWS_RESULTS=redshift needs AILERON_AWS_REDSHIFT_WORKGROUP and AILERON_AWS_REDSHIFT_ROLE")
    if chosen.kms_key and not chosen.glue_security:
        wrong.append("AILERON_AWS_KMS_KEY needs AILERON_AWS_GLUE_SECURITY, for Glue takes its keys from there only")
    if bool(chosen.subnets) != bool(chosen.security_groups):
        wrong.append("AILERON_AWS_SUBNETS and AILERON_AWS_SECURITY_GROUPS must be given both or neither")
    if wrong:
        raise InvalidSettings("the environment of platform aws: " + "; ".join(wrong) + " (docs/platforms/aws.md)")
    return chosen


def terms() -> Terms:
    """On what terms jobs are run."""
    from include.platforms.aws.prices import book

    chosen = aws()
    return Terms(
        connection=chosen.connection,
        defers=chosen.is_deferrable,
        poll_seconds=chosen.seconds,
        most_seconds=chosen.most_seconds,
        most_cost=float(chosen.max_job_cost),
        hours_variable=environment.variable(PREFIX, "max_job_hours"),
        cost_variable=environment.variable(PREFIX, "max_job_cost"),
        prices=str(book()["as_of"]),
    )


def tags(model: ModelConfig, run_id: str) -> dict[str, str]:
    """What every resource carries. A run id is free text: what AWS takes for no tag becomes _."""
    chosen = {
        "owner": model.owner.team,
        "model": model.name,
        "run": run_id,
        "environment": settings().environment,
        "cost-center": aws().cost_center,
    }
    return {name: re.sub(r"[^A-Za-z0-9 _.:/=+@-]", "_", value)[:256] for name, value in chosen.items() if value}
