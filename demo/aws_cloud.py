"""The local cloud that stands for AWS on this machine.

python -m demo.aws_cloud land 2013-02-08 2013-02-14 --url http://127.0.0.1:4599   more flights, and weather, land on its S3
python -m demo.aws_cloud outcomes 2013-02-08 --url http://127.0.0.1:4599          how the flights went
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from demo import aws_landing
from demo.cloud import LocalCloud, landing_command
from demo.repository import REPOSITORY

REGION, ACCOUNT = "us-east-1", "123456789012"
BUCKET, DATABASE, QUEUE, TOPIC, SENDER = "aileron-lake", "aileron", "aileron-landed", "aileron-alerts", "aileron@example.com"
LAKE = f"s3://{BUCKET}/lake"
IMAGE = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/aileron-jobs:1"
REDSHIFT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/aileron-redshift"
# What its clients sign with, and no file that could say otherwise.
DUMMY = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_CONFIG_FILE": os.devnull,
}


@dataclass(frozen=True)
class AwsCloud(LocalCloud):
    """With a bucket, a queue, a topic and a sender of mails."""

    stands_for: ClassVar[str] = "AWS"
    lands_on: ClassVar[str] = "on its S3"
    arguments: ClassVar[tuple[str, ...]] = ("--region", REGION)
    images: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        IMAGE: {
            "directory": str(REPOSITORY),
            "path": str(REPOSITORY / ".venv" / "bin"),
            "entrypoint": ["python", "-m", "include.jobs.container"],
            "environment": {},
        }
    }

    def client(self, service: str) -> Any:
        """A boto3 client of the local cloud, whatever this shell is set up for."""
        import boto3

        session = boto3.session.Session(
            aws_access_key_id=DUMMY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=DUMMY["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )
        return session.client(service, endpoint_url=self.url)

    @property
    def queue(self) -> str:
        return f"{self.url}/{ACCOUNT}/{QUEUE}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            **DUMMY,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
            "AILERON_PLATFORM": "aws",
            "AILERON_AWS_LAKE": LAKE,
            "AILERON_AWS_DATABASE": DATABASE,
            "AILERON_AWS_ROLE": f"arn:aws:iam::{ACCOUNT}:role/aileron-jobs",
            "AILERON_AWS_IMAGE": IMAGE,
            "AILERON_AWS_QUEUE": self.queue,
            "AILERON_AWS_POLL_SECONDS": "1",
            "AILERON_REGISTRY": "sagemaker://aileron",
            "AILERON_LEDGER": f"{LAKE}/ledger",
            "AILERON_OUTBOX": f"{LAKE}/outbox",
            "AILERON_PAGES": LAKE,
        }

    def furnish(self) -> None:
        self.client("s3").create_bucket(Bucket=BUCKET)
        self.client("sqs").create_queue(QueueName=QUEUE)
        self.client("sns").create_topic(Name=TOPIC)
        self.client("ses").verify_email_identity(EmailAddress=SENDER)

    def take(self, source: Path) -> None:
        """S3 tells the queue, as it would."""
        aws_landing.land(source, LAKE, DATABASE, self.client)
        told = {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}}}]}
        self.client("sqs").send_message(QueueUrl=self.queue, MessageBody=json.dumps(told))


if __name__ == "__main__":
    landing_command(AwsCloud, "python -m demo.aws_cloud", __doc__)
