"""The local cloud of `make up PLATFORM=aws`: refuses beside real credentials, is landed in, and ends with who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import psutil
import pytest

from demo.aws_cloud import BUCKET, DATABASE, LAKE, AwsCloud
from demo.cloud import running_cloud
from demo.repository import StackFailed
from include.config import REPOSITORY

pytestmark = pytest.mark.localcloud

STARTS_ONE = """
import os, sys, time
from pathlib import Path
from demo.aws_cloud import AwsCloud
from demo.cloud import running_cloud
with running_cloud(AwsCloud, Path(sys.argv[1])):
    print("RUNNING", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)


@pytest.mark.parametrize(("name", "value"), [("AWS_PROFILE", "production"), ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE")])
def test_it_does_not_start_while_credentials_are_in_sight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(StackFailed, match=f"real AWS credentials may be in sight: {name}.*unset") as refused:
        with running_cloud(AwsCloud, tmp_path):
            pass
    assert value not in str(refused.value)


def test_flights_land_on_it_markers_last_and_the_queue_is_told(tmp_path: Path) -> None:
    day = date(2013, 1, 2)
    with running_cloud(AwsCloud, tmp_path, say=lambda text: None) as cloud:
        rows = cloud.land(day, day) | cloud.land_outcomes(day, day)
        put = [call["subject"] for call in cloud.asked("calls") if call["operation"] == "PutObject"]
        told = cloud.client("sqs").receive_message(QueueUrl=cloud.queue, MaxNumberOfMessages=10)["Messages"]
        table = cloud.client("glue").get_table(DatabaseName=DATABASE, Name="flights")["Table"]
    assert rows["flights"] == rows["flight_outcomes"] > 800
    prefix = LAKE.removeprefix("s3://")
    flights = [name for name in put if name.startswith(f"{prefix}/source/flights/")]
    assert [name.rpartition("/")[2] for name in flights] == ["data.parquet", "_SUCCESS"]
    assert len(told) == 2 and BUCKET in told[0]["Body"]
    assert table["Parameters"]["projection.enabled"] == "true"


def test_it_ends_when_the_process_that_started_it_is_killed(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", STARTS_ONE, str(tmp_path)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    while owner.stdout.readline().strip() != "RUNNING":
        assert owner.poll() is None
    (server,) = [child for child in psutil.Process(owner.pid).children() if "localcloud" in child.cmdline()]
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until = time.monotonic() + 30
    while server.is_running() and server.status() != psutil.STATUS_ZOMBIE and time.monotonic() < until:
        time.sleep(0.1)
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
