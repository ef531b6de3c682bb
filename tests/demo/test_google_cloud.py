"""The local cloud of `make up PLATFORM=gcp`: refuses beside real credentials, and is landed in whatever this shell is set for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo.cloud import running_cloud
from demo.google_cloud import BUCKET, DATASET, PIPELINES, PROJECT, GoogleCloud, subscription
from demo.repository import StackFailed
from include.config import REPOSITORY

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

OF_GOOGLE = ("GOOGLE_", "CLOUDSDK_")


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    """A shell with no credentials in sight, and with a proxy of its own that leads nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OF_GOOGLE)]:
            patch.delenv(name)
        patch.setenv("CLOUDSDK_CONFIG", "")
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            patch.setenv(name, "http://127.0.0.1:9")
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "example.com")
        yield patch


@pytest.fixture(scope="module")
def cloud(patch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with running_cloud(GoogleCloud, folder, say=lambda text: None, start_seconds=0.1, job_seconds=0.2) as cloud:
        yield cloud


def asked(cloud: GoogleCloud, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in cloud.client("bigquery").query_and_wait(sql)]


def test_it_does_not_start_while_credentials_are_in_sight(
    tmp_path: Path, patch: pytest.MonkeyPatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "/home/me/production.json")
    with pytest.raises(StackFailed, match=r"may be in sight: GOOGLE_APPLICATION_CREDENTIALS.*unset") as refused:
        with running_cloud(GoogleCloud, tmp_path):
            pass
    assert "production.json" not in str(refused.value)


def test_it_begins_with_the_templates_and_nothing_else(cloud: GoogleCloud) -> None:
    blobs = list(cloud.client("storage").list_blobs(BUCKET, prefix="templates/"))
    assert [blob.name for blob in blobs] == ["templates/postprocess.json", "templates/score.json"]
    assert all(PIPELINES in blob.download_as_text() for blob in blobs)


def test_flights_land_in_its_bigquery_and_the_subscription_is_told(cloud: GoogleCloud) -> None:
    day = date(2013, 1, 2)
    rows = cloud.land(day, day) | cloud.land_outcomes(day, day)
    pulled = cloud.client("subscriber").pull(subscription=subscription(), max_messages=10).received_messages
    assert rows["flights"] == rows["flight_outcomes"] > 800
    # From a process of its own, as a person would, a day more; and the same day again, which changes nothing.
    landing = [sys.executable, "-m", "demo.google_cloud", "land", "2013-01-02", "2013-01-03", "--url", cloud.url]
    done = subprocess.run(landing, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    table = f"{PROJECT}.{DATASET}.flights"
    found = dict(asked(cloud, f"SELECT CAST(partition_date AS STRING), COUNT(*) FROM `{table}` GROUP BY partition_date"))
    assert found.keys() == {"2013-01-02", "2013-01-03"} and found["2013-01-02"] == rows["flights"]
    assert f"flights {sum(found.values()):>17,} rows" in done.stdout and not done.stderr
    told = [json.loads(each.message.data)["tables"] for each in pulled]
    assert told == [["flights", "planes", "weather"], ["flight_outcomes"]]


def test_airflow_is_given_all_that_it_needs_and_no_way_out(cloud: GoogleCloud) -> None:
    given = cloud.environment
    assert given["HTTPS_PROXY"] == given["https_proxy"] == cloud.url
    assert given["NO_PROXY"] == given["no_proxy"] == "127.0.0.1,localhost"
    assert (REPOSITORY / "localcloud" / "gcp" / "client") in [Path(part) for part in given["PYTHONPATH"].split(os.pathsep)]
    assert [host for host in cloud.asked("proxied") if not host["let_through"]] == []
