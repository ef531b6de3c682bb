"""The local cloud that stands for AWS on this machine: started beside Airflow, and landed in.

python -m demo.cloud land 2013-02-08 2013-02-14 --url http://127.0.0.1:4599       more flights, and weather, land on its S3
python -m demo.cloud outcomes 2013-02-08 --url http://127.0.0.1:4599              how the flights went
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from demo import aws_landing, simulator
from demo.stack import REPOSITORY, StackFailed

PYTHON = REPOSITORY / ".venv-localcloud" / "bin" / "python"
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
STARTS_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class LocalCloud:
    """A running one."""

    url: str

    def client(self, service: str) -> Any:
        return client(self.url, service)

    def asked(self, what: str) -> list[dict[str, Any]]:
        """Its list of `calls`, or of `jobs`."""
        with urllib.request.urlopen(f"{self.url}/_localcloud/{what}", timeout=60) as answer:
            found: list[dict[str, Any]] = json.load(answer)[what]
        return found

    def forget_calls(self) -> None:
        request = urllib.request.Request(f"{self.url}/_localcloud/calls", method="DELETE")
        urllib.request.urlopen(request, timeout=60).close()

    @property
    def queue(self) -> str:
        return f"{self.url}/{ACCOUNT}/{QUEUE}"

    @property
    def environment(self) -> dict[str, str]:
        """What Airflow needs to work on it."""
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


@contextmanager
def running_cloud(folder: Path, say: Callable[[str], None] = print, **options: float) -> Generator[LocalCloud]:
    """Starts a local cloud that ends with this block, or with this process, however it ends. It begins empty, but for a
    bucket, a queue, a topic and a sender of mails.

    Args:
        folder: for what it keeps; what is in it is gone.
        options: of `python -m localcloud serve`, such as job_seconds=0.2.

    Raises:
        StackFailed: if it does not start: its own reason, which names real credentials that are in sight.
    """
    if not PYTHON.is_file():
        raise StackFailed(f"{os.path.relpath(PYTHON)} is not there: run make install-localcloud")
    folder.mkdir(parents=True, exist_ok=True)
    images, errors = folder / "images.json", folder / "localcloud.log"
    ours = {"directory": str(REPOSITORY), "path": str(REPOSITORY / ".venv" / "bin"), "environment": {}}
    images.write_text(json.dumps({IMAGE: {**ours, "entrypoint": ["python", "-m", "include.jobs.container"]}}))
    chosen = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with errors.open("w") as log:
        server = subprocess.Popen(
            [
                *(str(PYTHON), "-m", "localcloud", "serve", "--port", os.environ.get("AILERON_CLOUD_PORT") or "0"),
                *("--region", REGION, "--state", str(folder / "state"), "--images", str(images), "--while-stdin", *chosen),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: Airflow ends first, and may still stop its jobs
        )
    try:
        late = threading.Timer(STARTS_WITHIN, server.kill)
        late.start()
        first = server.stdout.readline() if server.stdout else ""
        late.cancel()
        if not first.startswith("ready "):
            raise StackFailed(f"the local cloud did not start: {errors.read_text().strip()[-2000:] or 'it said nothing in time'}")
        cloud = LocalCloud(first.split()[1])
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        cloud.client("sqs").create_queue(QueueName=QUEUE)
        cloud.client("sns").create_topic(Name=TOPIC)
        cloud.client("ses").verify_email_identity(EmailAddress=SENDER)
        say(f"The local cloud is up: {cloud.url}")
        yield cloud
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def land(url: str, first: date, last: date) -> dict[str, int]:
    """Flights and weather of these days land on S3, which tells the queue, as it would. Rows by table."""
    return _landed(url, lambda lake: simulator.land(lake, first, last))


def land_outcomes(url: str, first: date, last: date) -> dict[str, int]:
    """As `land`, for how the flights went."""
    return _landed(url, lambda lake: simulator.land_outcomes(lake, first, last))


def _landed(url: str, simulate: Callable[[Path], Mapping[str, int]]) -> dict[str, int]:
    with tempfile.TemporaryDirectory(prefix="landing-") as folder:
        rows = dict(simulate(Path(folder)))
        aws_landing.land(Path(folder) / "source", LAKE, DATABASE, lambda service: client(url, service))
    told = {"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": BUCKET}}}]}
    client(url, "sqs").send_message(QueueUrl=f"{url}/{ACCOUNT}/{QUEUE}", MessageBody=json.dumps(told))
    return rows


def client(url: str, service: str) -> Any:
    """A boto3 client of the local cloud, whatever this shell is set up for."""
    import boto3

    session = boto3.session.Session(
        aws_access_key_id=DUMMY["AWS_ACCESS_KEY_ID"], aws_secret_access_key=DUMMY["AWS_SECRET_ACCESS_KEY"], region_name=REGION
    )
    return session.client(service, endpoint_url=url)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.cloud", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["land", "outcomes"])
    parser.add_argument("first", type=date.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument("last", type=date.fromisoformat, nargs="?", help="last day, itself included (default: the first)")
    parser.add_argument("--url", required=True, help="of the local cloud: make up PLATFORM=aws says it")
    asked = parser.parse_args()
    landing = {"land": land, "outcomes": land_outcomes}[asked.what]
    for table, rows in landing(asked.url, asked.first, asked.last or asked.first).items():
        print(f"{table:15} {rows:>9,} rows")


if __name__ == "__main__":
    main()
