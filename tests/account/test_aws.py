"""A training and two predictions in an AWS account, or in what AWS_ENDPOINT_URL says. It bills: `make test-account PLATFORM=aws`.

The environment is that of docs/platforms/aws.md, with AILERON_ACCOUNT_TEST=yes. Flights are landed in AILERON_AWS_LAKE, which
must be empty, or this suite's from an earlier time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo import aws_landing, simulator
from tests.dag_runs import run_dag, states
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import MODEL, PREDICT, TRAIN

# Before a test is given an environment without them.
GIVEN = {name: value for name, value in os.environ.items() if name.startswith("AILERON_")}
NEEDED = ("AWS_LAKE", "AWS_DATABASE", "AWS_ROLE", "AWS_IMAGE", "REGISTRY", "LEDGER", "OUTBOX", "PAGES")
MISSING = [f"AILERON_{name}" for name in NEEDED if not GIVEN.get(f"AILERON_{name}")]
SKIP = "it bills an account: set AILERON_ACCOUNT_TEST=yes" if GIVEN.get("AILERON_ACCOUNT_TEST") != "yes" else ", ".join(MISSING)
DAYS = ("2013-02-01", "2013-02-02")
MARK = "of_the_account_suite"

pytestmark = [
    pytest.mark.account,
    pytest.mark.timeout(4 * 3600),
    pytest.mark.skipif(bool(SKIP), reason=f"{SKIP} (docs/platforms/aws.md)"),
]


@pytest.fixture
def account(
    lake: Path, quick_models: Path, airflow_database: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """January and two days of February have landed in the account."""
    for name, value in GIVEN.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AILERON_PLATFORM", "aws")
    monkeypatch.setenv("AILERON_MODELS", str(quick_models))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", os.environ.get("AIRFLOW_CONN_AWS_DEFAULT", "aws://"))
    place, database = GIVEN["AILERON_AWS_LAKE"], GIVEN["AILERON_AWS_DATABASE"]
    _take(place)
    simulator.land(tmp_path / "flights", date(2013, 1, 1), date.fromisoformat(DAYS[-1]))
    simulator.land_outcomes(tmp_path / "flights", date(2013, 1, 1), date(2013, 1, 31))
    aws_landing.land(tmp_path / "flights" / "source", place, database, client)
    table = client("glue").get_table(DatabaseName=database, Name="flights")["Table"]["StorageDescriptor"]["Location"]
    assert table.startswith(f"{place}/"), f"{database}.flights is {table}: name a database that is this suite's own"
    yield


def client(service: str) -> Any:
    import boto3

    return boto3.client(service)


def _take(place: str) -> None:
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    s3 = client("s3")
    marked = f"{prefix}/{MARK}"
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/", MaxKeys=1)
    if listed.get("KeyCount"):
        assert s3.list_objects_v2(Bucket=bucket, Prefix=marked).get("KeyCount"), f"{place} is in use: name a lake of its own"
    s3.put_object(Bucket=bucket, Key=marked, Body=b"")


def test_a_training_and_two_predictions(account: None) -> None:
    from include import ledger, publications
    from include.champions import champion
    from include.config import load_model
    from include.platforms import platform_for

    model = load_model(MODEL)
    run = run_dag(TRAIN, conf={"as_of": "2013-02-01"})
    assert run.state == "success", states(run)
    assert champion(MODEL) is not None, "the first model was not promoted"
    for day in DAYS:
        run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
        told = publications.history(MODEL, date.fromisoformat(day))[-1].body
        assert told["rows_scored"] + told["rows_quarantined"] == told["rows_in"] > 600
        assert platform_for(model).find_predictions(model, "nobody's flight", date.fromisoformat(day)) == []
    bills = [record.body["cost"] for record in ledger.read("remote_cost", MODEL)]
    print(f"\n{len(bills)} jobs and queries, about {sum(bills):.2f} USD in this lake so far")
    assert len(bills) > 15
