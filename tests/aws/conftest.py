"""One local cloud, made once: flights have landed on a laptop and on S3 alike, and both have trained a champion."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.aws.places import Place, started
from tests.dag_runs import run_dag, states
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import PREDICT, TRAIN
from tests.flights import AS_OF, DAYS
from tests.flights import landed as landed
from tests.flights import laptop as laptop
from tests.localcloud.cloud import LocalCloud, recording


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with started(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@pytest.fixture(scope="session")
def recorded() -> list[dict[str, Any]]:
    """What the runs of `trained` and `predicted`, which nobody disturbs, have asked of the cloud."""
    return []


@pytest.fixture(scope="session")
def trained(cloud: LocalCloud, landed: Path, airflow_database: None, quick_models: Path, recorded: list[dict[str, Any]]) -> Place:
    """A place on AWS where the same has landed, with a champion as of the same day, trained there."""
    place = Place(cloud, quick_models, "trained", registry="aileron")
    place.land_all(landed)
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
