"""A real scheduler, triggerer and DAG processor on the local Google Cloud: what only they can show."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo.cloud import running_cloud
from demo.google_cloud import BUCKET, DATASET, LAKE, PROJECT, GoogleCloud
from demo.stack import Airflow
from tests.localcloud.gcp.cloud import OF_CLIENTS, PROXIES
from tests.scheduled import DAYS, MONITOR, PREDICT, TRAIN, airflow_at_work, arrivals_are_woken

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp, pytest.mark.timeout(3600)]

REMOTE = {"BigQueryJob", "CustomJob", "BatchPrediction", "DataflowJob"}
OURS = "flight-delays-"  # how the names of our jobs begin; the queries of checks have names that BigQuery gives


@pytest.fixture(scope="module")
def cloud() -> Iterator[GoogleCloud]:
    """A local cloud with January and two days of February."""
    folder = Path(tempfile.mkdtemp(prefix="aileron-gcp-"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(OF_CLIENTS) or name.lower() in PROXIES]:
            patch.delenv(name)
        patch.setenv("CLOUDSDK_CONFIG", "")
        with running_cloud(GoogleCloud, folder / "cloud", start_seconds=0.1, job_seconds=0.2) as running:
            running.land(date(2013, 1, 1), date.fromisoformat(DAYS[-1]))
            running.land_outcomes(date(2013, 1, 1), date(2013, 1, 31))
            yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def airflow(cloud: GoogleCloud) -> Iterator[Airflow]:
    def environment(root: Path) -> dict[str, str]:
        return {**cloud.environment, "AILERON_LAKE": str(root / "lake"), "AILERON_MODELS": str(root / "models")}

    with airflow_at_work(environment) as running:
        yield running


def documents(cloud: GoogleCloud, kind: str) -> list[dict[str, Any]]:
    """What the ledger has of a kind."""
    prefix = f"{LAKE.removeprefix(f'gs://{BUCKET}/')}/ledger/{kind}/flight_delays/"
    blobs = cloud.client("storage").list_blobs(BUCKET, prefix=prefix)
    return [json.loads(blob.download_as_bytes())["body"] for blob in blobs]


def jobs(cloud: GoogleCloud) -> list[dict[str, Any]]:
    """Those that the DAGs have asked for."""
    return [job for job in cloud.asked("jobs") if job["name"].startswith(OURS)]


def test_each_published_partition_is_monitored_by_itself(airflow: Airflow, cloud: GoogleCloud) -> None:
    runs = airflow.api.runs(MONITOR)
    assert sorted(run["partition_key"] for run in runs) == list(DAYS)
    assert {run["state"] for run in runs} == {"success"}
    assert sorted(body["partition"] for body in documents(cloud, "monitoring_verdict")) == list(DAYS)


def test_another_shell_is_told_of_the_cloud_too(airflow: Airflow, cloud: GoogleCloud) -> None:
    """Its `airflow` command would else call Google."""
    exported = (airflow.root / "airflow.env").read_text()
    assert f"export HTTPS_PROXY={cloud.url}\n" in exported and "export GCE_METADATA_HOST=" in exported


def test_readers_find_every_row_once(airflow: Airflow, cloud: GoogleCloud) -> None:
    rows = cloud.client("bigquery").query_and_wait(
        "SELECT CAST(partition_date AS STRING), COUNT(*), COUNT(DISTINCT flight_id) "
        f"FROM `{PROJECT}.{DATASET}.flight_delays_predictions` GROUP BY partition_date"
    )
    found = {day: counts for day, *counts in (row.values() for row in rows)}
    published = {body["partition"]: body["rows_scored"] for body in documents(cloud, "publication")}
    assert published.keys() == set(DAYS) and found == {day: [rows, rows] for day, rows in published.items()}
    assert all(rows > 600 for rows in published.values())


def test_each_piece_of_work_is_billed_once(airflow: Airflow, cloud: GoogleCloud) -> None:
    made = jobs(cloud)
    assert {(job["state"], job["stops"]) for job in made} == {("Completed", 0)}
    names = [job["name"] for job in made]
    assert len(set(names)) == len(names)
    kinds = Counter(job["kind"] for job in made if job["service"] != "bigquery")
    # The order of the training set, what is measured of it, the search, the training, what is measured of the challenger, and
    # the same order and measure beside the champion. One batch prediction and one Dataflow job for each day.
    assert kinds == {"custom-job": 7, "batch-prediction-job": len(DAYS), "dataflow-job": len(DAYS)}
    # What the ledger has settled is what the cloud would bill.
    settled = [body["job"] for body in documents(cloud, "remote_cost")]
    assert len(settled) == len(set(settled)) == len(names)


def test_nobody_waits_for_a_job_with_a_worker(airflow: Airflow) -> None:
    waited = 0
    for dag_id in (TRAIN, PREDICT, MONITOR):
        for run in airflow.api.runs(dag_id):
            for task in airflow.api.tasks(dag_id, run["dag_run_id"]):
                if task["operator_name"] in REMOTE and task["state"] == "success":
                    log = airflow.api.log(dag_id, run["dag_run_id"], task["task_id"], 1, task["map_index"])
                    assert "Pausing task as DEFERRED" in log, task["task_id"]
                    waited += 1
    assert waited > 20


def test_pubsub_wakes_arrivals(airflow: Airflow) -> None:
    arrivals_are_woken(airflow)


def test_nothing_has_left_the_machine(airflow: Airflow, cloud: GoogleCloud) -> None:
    """Nor has what Airflow's own parts say to each other gone through the proxy."""
    hosts = cloud.asked("proxied")
    assert {host["host"].partition(".")[2] for host in hosts} == {"googleapis.com:443"}
    assert all(host["let_through"] for host in hosts) and len(hosts) > 5
