"""A training and two predictions in a project of Google Cloud. It bills: `make test-account PLATFORM=gcp`.

The environment is that of docs/platforms/gcp.md, with AILERON_ACCOUNT_TEST=yes. Flights are landed in AILERON_GCP_DATASET, which
must be there and empty, or this suite's from an earlier time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from demo import gcp_landing, simulator
from tests.dag_runs import run_dag, states
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import MODEL, PREDICT, TRAIN

# Before a test is given an environment without them.
GIVEN = {name: value for name, value in os.environ.items() if name.startswith("AILERON_")}
NEEDED = (
    *("GCP_PROJECT", "GCP_LAKE", "GCP_DATASET", "GCP_IMAGE", "GCP_TEMPLATES", "GCP_SERVICE_ACCOUNT"),
    *("REGISTRY", "LEDGER", "OUTBOX", "PAGES"),
)
MISSING = [f"AILERON_{name}" for name in NEEDED if not GIVEN.get(f"AILERON_{name}")]
SKIP = "it bills a project: set AILERON_ACCOUNT_TEST=yes" if GIVEN.get("AILERON_ACCOUNT_TEST") != "yes" else ", ".join(MISSING)
DAYS = ("2013-02-01", "2013-02-02")
MARK = ("aileron", "of-the-account-suite")  # a label of the dataset

pytestmark = [
    pytest.mark.account,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(bool(SKIP), reason=f"{SKIP} (docs/platforms/gcp.md)"),
]


@pytest.fixture
def dataset(
    lake: Path, quick_models: Path, airflow_database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """January and two days of February have landed in the project."""
    from google.cloud import bigquery, storage

    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AILERON_PLATFORM", "gcp")
    monkeypatch.setenv("AILERON_MODELS", str(quick_models))
    monkeypatch.setenv(
        "AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", os.environ.get("AIRFLOW_CONN_GOOGLE_CLOUD_DEFAULT", "google-cloud-platform://")
    )
    project = GIVEN["AILERON_GCP_PROJECT"]
    name, bucket = f"{project}.{GIVEN['AILERON_GCP_DATASET']}", GIVEN["AILERON_GCP_LAKE"].removeprefix("gs://").partition("/")[0]
    asked = bigquery.Client(project, location=GIVEN.get("AILERON_GCP_LOCATION", "US"))
    _take(asked, name)
    simulator.land(tmp_path / "flights", date(2013, 1, 1), date.fromisoformat(DAYS[-1]))
    simulator.land_outcomes(tmp_path / "flights", date(2013, 1, 1), date(2013, 1, 31))
    gcp_landing.land(tmp_path / "flights" / "source", bucket, name, asked, storage.Client(project))
    yield name


def test_a_model_is_trained_and_predicts(dataset: str) -> None:
    from google.cloud import bigquery

    run = run_dag(TRAIN, conf={"as_of": DAYS[0]})
    assert run.state == "success", states(run)
    for day in DAYS:
        run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
    asked = bigquery.Client(GIVEN["AILERON_GCP_PROJECT"])
    sql = f"SELECT COUNT(*), COUNT(DISTINCT flight_id), MIN(score), MAX(score) FROM `{dataset}.{MODEL}_predictions`"
    ((rows, keys, lowest, highest),) = [tuple(row.values()) for row in asked.query_and_wait(sql)]
    assert rows == keys > 1000 and 0 < lowest < highest < 1


def _take(asked, name: str) -> None:  # type: ignore[no-untyped-def]  the client is imported in the tests
    found = asked.get_dataset(name)
    if any(True for _ in asked.list_tables(name)):
        assert found.labels.get(MARK[0]) == MARK[1], f"{name} is in use: name a dataset of its own"
    found.labels = {**found.labels, MARK[0]: MARK[1]}
    asked.update_dataset(found, ["labels"])
