"""A worker dies at every call that changes something on AWS, before it and after it: the run ends as if nothing had been."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from include import ledger
from include.registry import registry
from tests.alike import CLOSE, found_of_training, records, same, unpacked_model
from tests.aws.places import Place
from tests.dag_runs import run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import MODEL, MONITOR, PREDICT, TRAIN, live_file, rows
from tests.flights import AS_OF, DAYS
from tests.killed import Killed, killed_everywhere, run_of

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(1800)]


def assert_done_once(found: Killed) -> None:
    """Each step was one job, at its first attempt, and was paid once."""
    asked = [body for body in records("remote_job") if body["run_id"] == found.run_id]
    names = {body["job"] for body in asked}
    paid = [body["job"] for body in records("remote_cost") if body["job"] in names]
    assert sorted(paid) == sorted(names) and len({body["step"] for body in asked}) == len(asked) > 0
    assert {name.rpartition("-")[2] for name in names} == {"1"}
    machines = [job for job in found.jobs if job["service"] in ("sagemaker", "glue")]
    assert {job["state"] for job in machines} <= {"Completed"}
    ours = [body for body in asked if body["service"] not in ("athena", "redshift")]
    assert len(machines) == len(ours), ([job["name"] for job in machines], [body["job"] for body in ours])
    # Tokens of ours are digests; those of suites, whose questions are free to be asked again, are made by the client.
    tokens = [call["params"].get("ClientRequestToken", "") for call in found.calls if call["operation"] == "StartQueryExecution"]
    assert len({token for token in tokens if re.fullmatch("[0-9a-f]{64}", token)}) == len(asked) - len(ours)


def test_a_training_killed_everywhere(trained: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    place = trained.copied("killed", registry="killed")
    asked = {"dag_id": TRAIN, "conf": {"as_of": AS_OF}, "run_id": "manual__killed_training"}
    found = killed_everywhere(place, tmp_path / "worker.log", asked, deferrable="false")
    assert found.operations >= {
        "PutObject", "CopyObject", "StartQueryExecution", "DeleteTable", "StartJobRun", "CreateProcessingJob",
        "CreateTrainingJob", "CreateModelPackageGroup", "CreateModelPackage", "UpdateModelPackage", "AddTags",
    }  # fmt: skip
    assert found.kills >= 80 and {boundary["when"] for boundary in found.boundaries} == {"before", "after"}
    with place.settings():
        there = found_of_training()
        pointed = registry().alias(MODEL, "champion")
        assert_done_once(found)
        assert len(records("promotion")) == len(records("approval")) == 1
    with lake_only(laptop, quick_models):
        here = found_of_training()
    assert place.model(there.pop("artifact")) == unpacked_model(here.pop("artifact"))
    assert there.pop("metrics") == pytest.approx(here.pop("metrics"), abs=CLOSE) and there == here
    assert pointed is not None and pointed.version == "1"
    listed = place.client("sagemaker").list_model_packages(ModelPackageGroupName="killed-flight-delays")
    assert len(listed["ModelPackageSummaryList"]) == 1
    assert len([key for key in place.keys("outbox/") if key.endswith(".json")]) == 1, "the approver was asked once"


@pytest.fixture(scope="module")
def watched(predicted: Place) -> Place:
    """A copy of the place where the week was predicted. No model of SageMaker is there yet."""
    known = predicted.client("sagemaker")
    names = [model["ModelName"] for page in known.get_paginator("list_models").paginate() for model in page["Models"]]
    for name in names:
        known.delete_model(ModelName=name)
    return predicted.copied("watched", "ledger")


def test_a_monitoring_killed_everywhere(watched: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    asked = {"dag_id": MONITOR, "partition": DAYS[-1], "run_id": "manual__killed_monitoring"}
    found = killed_everywhere(watched, tmp_path / "worker.log", asked)
    assert found.operations >= {"PutObject", "StartQueryExecution"} and found.kills >= 20
    here = copied(laptop, tmp_path / "lake")
    with lake_only(here, quick_models):
        assert run_dag(MONITOR, DAYS[-1]).state == "success"
        (theirs,) = records("monitoring_verdict")
    with watched.settings():
        assert_done_once(found)
        (ours,) = records("monitoring_verdict")
    for name in ("outcome", "columns", "actions", "sentences", "rows"):
        assert ours[name] == theirs[name]


def test_a_prediction_killed_everywhere(watched: Place, laptop: Path, tmp_path: Path) -> None:
    """A partition that readers have already: at no time do they see anything but all of its rows, the old ones or the new."""
    day, asked = DAYS[2], {"dag_id": PREDICT, "partition": DAYS[2], "run_id": "manual__killed_prediction"}
    keys, ((first,),) = [row[0] for row in watched.rows(day)], set(watched.rows(day, "run_id"))
    seen = []

    def look() -> None:
        shown = watched.live(day)
        assert shown is not None and sorted(shown["flight_id"].to_pylist()) == keys
        (by,) = set(shown["run_id"].to_pylist())
        seen.append(by)
        green = states(run_of(asked["run_id"]))
        assert green.get("publish") != "success" or by == asked["run_id"], "it says that it has published"

    found = killed_everywhere(watched, tmp_path / "worker.log", asked, look)
    assert found.operations >= {
        "PutObject", "StartQueryExecution", "CreateTable", "DeleteTable", "CreateModel", "CreateTransformJob", "StartJobRun",
        "UpdatePartition",
    }  # fmt: skip
    assert found.kills >= 60
    assert set(seen) == {first, asked["run_id"]} and seen == sorted(seen, key=lambda by: by == asked["run_id"])
    assert same(watched.rows(day), rows(live_file(laptop, day)))
    assert set(states(run_of(found.run_id)).values()) == {"success", "skipped"}
    with watched.settings():
        assert_done_once(found)
        bodies = [record.body for record in ledger.read("publication", MODEL, prefix=f"{day}.")]
    assert [(body["version"], body["run_id"]) for body in bodies] == [(1, first), (2, asked["run_id"])]
