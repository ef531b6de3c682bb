"""One local cloud, made once: flights have landed on a laptop and on S3 alike, and both have trained a champion."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from demo import simulator
from tests.aws.places import BUCKET, IMAGES, Place
from tests.dag_runs import run_dag, states
from tests.dags.conftest import lake_only
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import PREDICT, TRAIN
from tests.localcloud.cloud import LocalCloud

AS_OF = "2013-02-01"
DAYS = tuple(f"2013-02-0{day}" for day in range(1, 8))


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), IMAGES, start_seconds=0.1, job_seconds=0.2) as cloud:
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        yield cloud


@pytest.fixture(scope="session")
def landed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of a lake: flights of 1 January to 10 February 2013, labels to the 8th."""
    folder = tmp_path_factory.mktemp("landed") / "lake"
    simulator.land(folder, date(2013, 1, 1), date(2013, 2, 10))
    simulator.land_outcomes(folder, date(2013, 1, 1), date(2013, 2, 8))
    return folder / "source"


@pytest.fixture(scope="session")
def laptop(tmp_path_factory: pytest.TempPathFactory, landed: Path, airflow_database: None, quick_models: Path) -> Path:
    """A lake with a champion as of 1 February and a week of predictions, all made on this machine."""
    folder = tmp_path_factory.mktemp("laptop") / "lake"
    shutil.copytree(landed, folder / "source")
    with lake_only(folder, quick_models):
        run = run_dag(TRAIN, conf={"as_of": AS_OF})
        assert run.state == "success", states(run)
        for day in DAYS:
            assert run_dag(PREDICT, day).state == "success"
    return folder


@pytest.fixture(scope="session")
def recorded() -> list[dict[str, Any]]:
    """What the runs of `trained` and `predicted`, which nobody disturbs, have asked of the cloud."""
    return []


@contextmanager
def recording(cloud: LocalCloud, recorded: list[dict[str, Any]]) -> Iterator[None]:
    begin = len(cloud.calls())
    yield
    recorded += cloud.calls()[begin:]


@pytest.fixture(scope="session")
def trained(cloud: LocalCloud, landed: Path, airflow_database: None, quick_models: Path, recorded: list[dict[str, Any]]) -> Place:
    """A place on AWS where the same has landed, with a champion as of the same day, trained there."""
    place = Place(cloud, quick_models, "trained", registry="aileron")
    place.land(landed)
    with place.settings(), recording(cloud, recorded):
        run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert run.state == "success", states(run)
    return place


@pytest.fixture(scope="session")
def predicted(trained: Place, recorded: list[dict[str, Any]]) -> Place:
    """The same place after a week was predicted: two days deferred, the others with a worker that waits."""
    for day in DAYS:
        with trained.settings(deferrable="true" if day in DAYS[:2] else "false"), recording(trained.cloud, recorded):
            run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
    return trained
