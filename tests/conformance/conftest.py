"""One place for each platform, where the same flights have landed, a champion was trained and a week was predicted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from include.platforms.remote_jobs import JobTrigger
from tests.conformance.gaps import GAPS
from tests.conformance.places import LocalPlace, Place
from tests.dag_runs import run_dag, states
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import MONITOR, PREDICT, TRAIN
from tests.flights import AS_OF, DAYS
from tests.flights import landed as landed
from tests.flights import laptop as laptop
from tests.localcloud.cloud import recording

PLATFORMS = ("local", "aws", pytest.param("gcp", marks=pytest.mark.gcp))


@pytest.fixture(scope="session", params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def declared(request: pytest.FixtureRequest, platform: str) -> None:
    """A gap is run all the same, and must fail: when it closes, the declaration has to go."""
    why = GAPS.get((platform, request.function.__name__))
    if why:
        request.applymarker(pytest.mark.xfail(reason=why, raises=AssertionError, strict=True))


@contextmanager
def started(platform: str, folder: Path, landed: Path, models: Path) -> Iterator[Place]:
    """A place where the flights have landed, and nothing else was done."""
    if platform == "local":
        shutil.copytree(landed, folder / "lake" / "source")
        yield LocalPlace(folder / "lake", models)
    elif platform == "aws":
        from tests.aws import places as aws

        with aws.started(folder) as cloud:
            there = aws.Place(cloud, models, "trained", registry="aileron")
            there.land_all(landed)
            yield there
    else:
        from tests.gcp import places as gcp

        with gcp.started(folder) as google:
            made = gcp.Place(google, models, "trained", registry="aileron")
            made.land_all(landed)
            yield made
            assert google.refused_hosts() == [], "nothing leaves this machine"


@pytest.fixture(scope="session")
def asked(platform: str) -> list[dict[str, Any]]:
    """What a training, the first day that is predicted and its like of monitoring have asked of the cloud, when they have."""
    return []


@pytest.fixture(scope="session")
def trained(
    platform: str,
    landed: Path,
    airflow_database: None,
    quick_models: Path,
    asked: list[dict[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Place]:
    with started(platform, tmp_path_factory.mktemp(platform), landed, quick_models) as place:
        with place.settings(), recording(place, asked):
            run = run_dag(TRAIN, conf={"as_of": AS_OF})
        assert run.state == "success", states(run)
        yield place


@pytest.fixture(scope="session")
def waited(trained: Place) -> dict[str, set[str]]:
    """Of each day that was predicted or watched, the kinds of jobs that a trigger has waited for."""
    return {}


@pytest.fixture(scope="session")
def predicted(trained: Place, waited: dict[str, set[str]], asked: list[dict[str, Any]]) -> Place:
    """The same place after a week was predicted: two days deferred, the others with a worker that waits."""
    for day in DAYS:
        with (
            trained.settings(deferrable="true" if day in DAYS[:2] else "false") as patch,
            noted(patch, waited.setdefault(day, set())),
            recording(trained, asked if day == DAYS[0] else []),
        ):
            run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
    return trained


@pytest.fixture(scope="session")
def watched(predicted: Place, waited: dict[str, set[str]], asked: list[dict[str, Any]]) -> Place:
    """A copy where the last three days were watched: the first of them deferred, the others with a worker that waits."""
    place = predicted.copied("watched", "ledger")
    for day in DAYS[4:]:
        with (
            place.settings(deferrable="true" if day == DAYS[4] else "false") as patch,
            noted(patch, waited.setdefault(f"{MONITOR} {day}", set())),
            recording(place, asked if day == DAYS[4] else []),
        ):
            run = run_dag(MONITOR, day)
        assert run.state == "success", states(run)
    return place


@contextmanager
def noted(patch: pytest.MonkeyPatch, kinds: set[str]) -> Iterator[None]:
    """The kinds of jobs that triggers wait for."""
    run_trigger = JobTrigger.run

    def run(trigger: JobTrigger) -> Any:
        kinds.add(trigger.kind)
        return run_trigger(trigger)

    patch.setattr(JobTrigger, "run", run)
    yield


@pytest.fixture(scope="session")
def changed(predicted: Place) -> Place:
    """A copy, for those who change what has landed or was published."""
    return predicted.copied("changed", "ledger", "training", "models", "evaluations")


@pytest.fixture(autouse=True)
def forgotten_runs(airflow_database: None) -> Iterator[None]:
    """Runs that others ask for are named by what they are about: the next test's must not be there already."""
    yield
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.state == "queued")):
            session.delete(run)
