"""A worker dies at every call that changes something on Google Cloud, before it and after it: the run ends as if nothing had
been."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from include import champions, ledger
from include.registry import registry
from tests.alike import CLOSE, found_of_training, records, same, unpacked_model
from tests.dag_runs import run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import MODEL, MONITOR, PREDICT, TRAIN, live_file, rows
from tests.flights import AS_OF, DAYS
from tests.gcp.places import Place
from tests.killed import Killed, killed_everywhere, run_of
from tests.localcloud.gcp.cloud import GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp, pytest.mark.timeout(1800)]

DAY = DAYS[2]


@pytest.fixture(scope="module")
def place(cloud: GoogleCloud, landed: Path, airflow_database: None, quick_models: Path) -> Place:
    """Where the flights have landed and nothing else was done."""
    made = Place(cloud, quick_models, "killed", registry="killed")
    made.land_all(landed)
    return made


@pytest.fixture(scope="module")
def training(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    asked = {"dag_id": TRAIN, "conf": {"as_of": AS_OF}, "run_id": "manual__killed_training"}
    return killed_everywhere(place, tmp_path_factory.mktemp("killed") / "worker.log", asked, deferrable="false")


@pytest.fixture
def settled(place: Place) -> Iterator[None]:
    with place.settings():
        yield


def assert_done_once(found: Killed) -> None:
    """Each step was one job, at its first attempt, and was paid once."""
    asked = [body for body in records("remote_job") if body["run_id"] == found.run_id]
    names = [body["job"] for body in asked]
    paid = [body["job"] for body in records("remote_cost") if body["job"] in names]
    assert sorted(paid) == sorted(names) and len({body["step"] for body in asked}) == len(asked) > 0
    assert {name.rpartition("-")[2] for name in names} == {"1"}
    done = Counter(job["name"] for job in found.jobs if job["name"] in names)
    assert done == Counter(names), "a job of each name, and no second one"
    assert {job["state"] for job in found.jobs if job["name"] in names} == {"Completed"}
    machines = [job for job in found.jobs if job["kind"] in ("custom-job", "batch-prediction-job", "dataflow-job")]
    assert sorted(job["name"] for job in machines) == sorted(body["job"] for body in asked if body["service"] != "bigquery")


def test_a_training_killed_everywhere(place: Place, training: Killed, laptop: Path, quick_models: Path, settled: None) -> None:
    assert {"jobs.insert", "objects.insert", "CreateCustomJob", "UploadModel", "MergeVersionAliases"} <= training.operations
    assert training.kills >= 50 and {boundary["when"] for boundary in training.boundaries} == {"before", "after"}
    there, pointed = found_of_training(), registry().alias(MODEL, "champion")
    assert_done_once(training)
    assert len(records("promotion")) == len(records("approval")) == 1
    with lake_only(laptop, quick_models):
        here = found_of_training()
    assert place.model(there.pop("artifact")) == unpacked_model(here.pop("artifact"))
    assert there.pop("metrics") == pytest.approx(here.pop("metrics"), abs=CLOSE) and there == here
    assert pointed is not None and pointed.version == "1"
    assert len([key for key in place.keys("outbox/") if key.endswith(".json")]) == 1, "the approver was asked once"


def test_a_prediction_killed_everywhere(place: Place, training: Killed, laptop: Path, settled: None, tmp_path: Path) -> None:
    """A day that readers have already: at no time do they see anything but all of its rows, the old ones or the new."""
    assert champions.champion(MODEL) is not None
    run = run_dag(PREDICT, DAY)
    assert run.state == "success", states(run)
    keys, ((first,),) = [row[0] for row in place.rows(DAY)], set(place.rows(DAY, "run_id"))
    seen: list[str] = []
    asked = {"dag_id": PREDICT, "partition": DAY, "run_id": "manual__killed_prediction"}

    def look() -> None:
        shown = place.rows(DAY, "flight_id, run_id")
        assert [row[0] for row in shown] == keys
        (by,) = {row[1] for row in shown}
        seen.append(by)
        assert states(run_of(asked["run_id"])).get("publish") != "success" or by == asked["run_id"], "it says it has published"

    found = killed_everywhere(place, tmp_path / "worker.log", asked, look)
    assert {"jobs.insert", "CreateBatchPredictionJob", "projects.locations.flexTemplates.launch"} <= found.operations
    assert found.kills >= 40
    assert set(seen) == {first, asked["run_id"]} and seen == sorted(seen, key=lambda by: by == asked["run_id"])
    assert same(place.rows(DAY), rows(live_file(laptop, DAY)))
    assert set(states(run_of(found.run_id)).values()) == {"success", "skipped"}
    assert_done_once(found)
    bodies = [record.body for record in ledger.read("publication", MODEL, prefix=f"{DAY}.")]
    assert [(body["version"], body["run_id"]) for body in bodies] == [(1, first), (2, asked["run_id"])]


def test_a_monitoring_killed_everywhere(
    place: Place, training: Killed, laptop: Path, quick_models: Path, settled: None, tmp_path: Path
) -> None:
    for day in DAYS:
        if day != DAY:
            assert run_dag(PREDICT, day).state == "success"
    asked = {"dag_id": MONITOR, "partition": DAYS[-1], "run_id": "manual__killed_monitoring"}
    found = killed_everywhere(place, tmp_path / "worker.log", asked)
    assert {"jobs.insert", "objects.insert"} <= found.operations and found.kills >= 10
    (ours,) = records("monitoring_verdict")
    assert_done_once(found)
    here = copied(laptop, tmp_path / "lake")
    with lake_only(here, quick_models):
        assert run_dag(MONITOR, DAYS[-1]).state == "success"
        (theirs,) = records("monitoring_verdict")
    for name in ("outcome", "columns", "actions", "sentences", "rows"):
        assert ours[name] == theirs[name]
