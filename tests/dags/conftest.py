"""A lake with real flights and a champion, made once; every test works on a copy of its own."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

import pytest

from demo import simulator
from tests.dag_runs import run_dag, states

FIRST, LAST, AS_OF = date(2013, 1, 1), date(2013, 2, 10), date(2013, 2, 1)


@pytest.fixture(scope="session")
def trained_lake(tmp_path_factory: pytest.TempPathFactory, airflow_database: None) -> Path:
    """Flights landed from 1 January to 10 February 2013, labels to the 8th, a champion as of 1 February."""
    folder = tmp_path_factory.mktemp("trained") / "lake"
    simulator.land(folder, FIRST, LAST)
    simulator.land_outcomes(folder, FIRST, date(2013, 2, 8))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AILERON_")]:
            patch.delenv(name)
        patch.setenv("AILERON_LAKE", str(folder))
        run = run_dag("train_flight_delays", conf={"as_of": AS_OF.isoformat()})
    assert run.state == "success", states(run)
    return folder


@pytest.fixture
def flights(trained_lake: Path, lake: Path) -> Path:
    """A copy of the trained lake, as the lake of this test."""
    shutil.copytree(trained_lake, lake)
    return lake
