"""A real scheduler, triggerer and DAG processor on the local cloud: what only they can show. And all calls that they make,
which are what deploy/aws/policy.json allows: AILERON_RECORD_CALLS=yes writes them anew."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo.aws_cloud import ACCOUNT, DATABASE, LAKE, REDSHIFT_ROLE, REGION, SENDER, TOPIC, AwsCloud
from demo.cloud import running_cloud
from demo.stack import Airflow
from deploy.aws import policy
from include.config import REPOSITORY
from tests.scheduled import DAYS, MONITOR, airflow_at_work, arrivals_are_woken, eventually

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(3600)]

TUNING_JOBS = 2
RECORD = os.environ.get("AILERON_RECORD_CALLS") == "yes"  # now: a test is given an environment without it


@pytest.fixture(scope="module")
def cloud() -> Iterator[AwsCloud]:
    """A local cloud with January and two days of February; their calls are forgotten."""
    folder = Path(tempfile.mkdtemp(prefix="aileron-aws-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        with running_cloud(AwsCloud, folder / "cloud", start_seconds=0.1, job_seconds=0.2) as running:
            running.land(date(2013, 1, 1), date.fromisoformat(DAYS[-1]))
            running.land_outcomes(date(2013, 1, 1), date(2013, 1, 31))
            running.forget_calls()
            yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def airflow(cloud: AwsCloud) -> Iterator[Airflow]:
    with airflow_at_work(lambda root: {**cloud.environment, **options(root)}) as running:
        yield running


def options(root: Path) -> dict[str, str]:
    """What may be switched on is on, so that its calls are made."""
    return {
        "AILERON_LAKE": str(root / "lake"),
        "AILERON_MODELS": str(root / "models"),
        "AILERON_AWS_TUNING_JOBS": str(TUNING_JOBS),
        "AILERON_AWS_RESULTS": "redshift",
        "AILERON_AWS_REDSHIFT_WORKGROUP": "aileron",
        "AILERON_AWS_REDSHIFT_ROLE": REDSHIFT_ROLE,
        "AILERON_MAIL": "ses",
        "AILERON_SES_SENDER": SENDER,
        "AILERON_SNS_TOPIC": f"arn:aws:sns:{REGION}:{ACCOUNT}:{TOPIC}",
    }


def documents(cloud: AwsCloud, folder: str) -> list[dict[str, Any]]:
    """The JSON documents below a folder of the lake."""
    bucket, _, prefix = LAKE.removeprefix("s3://").partition("/")
    s3 = cloud.client("s3")
    found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/{folder}/").get("Contents", [])
    return [json.loads(s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()) for one in found]


def test_each_published_partition_is_monitored_by_itself(airflow: Airflow, cloud: AwsCloud) -> None:
    runs = airflow.api.runs(MONITOR)
    assert sorted(run["partition_key"] for run in runs) == list(DAYS)
    assert {run["state"] for run in runs} == {"success"}
    verdicts = [document["body"] for document in documents(cloud, "ledger/monitoring_verdict/flight_delays")]
    assert sorted(body["partition"] for body in verdicts) == list(DAYS)


def test_another_shell_is_told_of_the_cloud_too(airflow: Airflow, cloud: AwsCloud) -> None:
    """Its `airflow` command would else call AWS."""
    exported = (airflow.root / "airflow.env").read_text()
    assert f"export AWS_ENDPOINT_URL={cloud.url}\n" in exported and "export AWS_CONFIG_FILE=" in exported


def test_readers_find_every_row_once(airflow: Airflow, cloud: AwsCloud) -> None:
    athena = cloud.client("athena")
    asked = athena.start_query_execution(
        QueryString="SELECT CAST(partition_date AS VARCHAR) AS day, COUNT(*) AS n, COUNT(DISTINCT flight_id) AS keys "
        "FROM flight_delays_predictions GROUP BY partition_date ORDER BY 1",
        QueryExecutionContext={"Database": DATABASE},
        ResultConfiguration={"OutputLocation": f"{LAKE}/athena/flight_delays/"},
    )["QueryExecutionId"]
    state = lambda: athena.get_query_execution(QueryExecutionId=asked)["QueryExecution"]["Status"]["State"]  # noqa: E731
    eventually(lambda: state() not in ("QUEUED", "RUNNING"), seconds=30)
    rows = athena.get_query_results(QueryExecutionId=asked)["ResultSet"]["Rows"][1:]
    found = {row["Data"][0]["VarCharValue"]: [int(cell["VarCharValue"]) for cell in row["Data"][1:]] for row in rows}
    published = {
        document["body"]["partition"]: document["body"]["rows_scored"]
        for document in documents(cloud, "ledger/publication/flight_delays")
    }
    assert list(found) == list(DAYS) and found == {day: [rows, rows] for day, rows in published.items()}
    assert all(rows > 600 for rows in published.values())


def test_each_piece_of_work_is_billed_once(airflow: Airflow, cloud: AwsCloud) -> None:
    jobs = [job for job in cloud.asked("jobs") if job["service"] in ("sagemaker", "glue")]
    assert {(job["state"], job["stops"]) for job in jobs} == {("Completed", 0)}
    kinds = Counter(job["kind"] for job in jobs)
    assert len({(job["kind"], job["name"]) for job in jobs}) == len(jobs)
    # A training, and those of the search; what is measured of the training set, of the challenger, and beside the champion.
    # One transform and one Glue run for each day, and one Glue run for the snapshot.
    assert kinds == {
        "training-job": 1 + TUNING_JOBS,
        "hyper-parameter-tuning-job": 1,
        "processing-job": 3,
        "transform-job": len(DAYS),
        "glue-run": 1 + len(DAYS),
    }
    settled = [document["body"]["job"] for document in documents(cloud, "ledger/remote_cost/flight_delays")]
    assert len(settled) == len(set(settled))


def test_the_policy_allows_the_calls_and_no_others(airflow: Airflow, cloud: AwsCloud) -> None:
    arrivals_are_woken(airflow)  # by the queue
    # In a process of its own: this one may have asked another cloud before, and its file systems remember that.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AILERON_", "AWS_"))}
    asking = [sys.executable, "-m", "tests.aws.seldom", DAYS[0]]
    subprocess.run(asking, cwd=REPOSITORY, env={**environment, **cloud.environment, **options(airflow.root)}, check=True)
    made = policy.recorded(cloud.asked("calls"), LAKE)  # those of these tests among them: they are no others than Airflow's
    if RECORD:
        policy.CALLS.write_text(policy.text(made))
    assert json.loads(policy.CALLS.read_text()) == made, (
        "the calls have changed: AILERON_RECORD_CALLS=yes make test-localcloud PLATFORM=aws ARGS=tests/aws/test_scheduler.py, "
        "then make policy"
    )
