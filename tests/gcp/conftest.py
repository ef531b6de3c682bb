"""One local Google Cloud, made once; a lake on it and on this machine where the same flights have landed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.config import REPOSITORY
from include.platforms.remote_jobs import JobTrigger
from tests.aws.conftest import AS_OF, DAYS
from tests.aws.conftest import landed as landed
from tests.aws.conftest import laptop as laptop
from tests.dag_runs import run_dag, states
from tests.dags.conftest import quick_models as quick_models
from tests.dags.lakes import PREDICT, TRAIN
from tests.gcp.places import BUCKET, IMAGES, PIPELINES, Place
from tests.localcloud.gcp.cloud import GoogleCloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    """With a bucket, and the templates of deploy/gcp in it."""
    with GoogleCloud(tmp_path_factory.mktemp("cloud"), IMAGES, start_seconds=0.1, job_seconds=0.2) as cloud:
        storage = Place(cloud, Path(), "setup", "aileron").client("storage")
        with Place(cloud, Path(), "setup", "aileron").settings():
            bucket = storage.create_bucket(BUCKET)
            for name in ("postprocess", "score"):
                metadata = json.loads((REPOSITORY / "deploy" / "gcp" / f"{name}.json").read_text())
                spec = {"image": PIPELINES, "sdkInfo": {"language": "PYTHON"}, "metadata": metadata}
                bucket.blob(f"templates/{name}.json").upload_from_string(json.dumps(spec))
        yield cloud


@pytest.fixture(scope="session")
def trained(cloud: GoogleCloud, landed: Path, airflow_database: None, quick_models: Path) -> Place:
    """A place on Google Cloud where the flights have landed, with a champion as of the day, trained there."""
    place = Place(cloud, quick_models, "trained", registry="aileron")
    place.land(landed)
    with place.settings():
        run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert run.state == "success", states(run)
    return place


@pytest.fixture(scope="session")
def waited() -> dict[str, set[str]]:
    """Of each day that was predicted, the kinds of jobs that a trigger has waited for."""
    return {}


@pytest.fixture(scope="session")
def predicted(trained: Place, waited: dict[str, set[str]]) -> Place:
    """The same place after a week was predicted: two days deferred, the others with a worker that waits."""
    run_trigger = JobTrigger.run
    for day in DAYS:
        kinds = waited.setdefault(day, set())

        def noted(trigger: JobTrigger, kinds: set[str] = kinds) -> Any:
            kinds.add(trigger.kind)
            return run_trigger(trigger)

        with trained.settings(deferrable="true" if day in DAYS[:2] else "false") as patch:
            patch.setattr(JobTrigger, "run", noted)
            run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
    return trained
