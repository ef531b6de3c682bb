"""The flights that all platforms learn from and predict in these tests, and what a laptop makes of them."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from demo import simulator
from tests.dag_runs import run_dag, states
from tests.dags.conftest import lake_only
from tests.dags.lakes import PREDICT, TRAIN

AS_OF = "2013-02-01"
DAYS = tuple(f"2013-02-0{day}" for day in range(1, 8))


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
