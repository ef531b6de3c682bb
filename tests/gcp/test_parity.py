"""The same flights, learned from, predicted and watched on a laptop and on Google Cloud: the same models, rows and verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from include import champions, partitions
from include.config import load_model
from include.platforms import platform_for
from include.registry import registry
from tests.aws.conftest import DAYS
from tests.aws.test_parity import CLOSE, counts, found_of_training, model_of, profiles, records, rounded, same
from tests.dag_runs import run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import MODEL, MONITOR, PREDICT, live_file, rows
from tests.gcp.places import Place, packed_model

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(1800)]


def test_the_same_training_set_gives_the_same_model_and_verdict(trained: Place, laptop: Path, quick_models: Path) -> None:
    with trained.settings():
        there = found_of_training(MODEL)
        pointed = registry().alias(MODEL, "champion")
    with lake_only(laptop, quick_models):
        here = found_of_training(MODEL)
    assert packed_model(trained.read(there.pop("artifact"))) == model_of(here.pop("artifact"))
    assert there.pop("metrics") == pytest.approx(here.pop("metrics"), abs=CLOSE)
    assert there == here and there["outcome"] == "PROMOTE"
    assert pointed is not None and pointed.version == there["version"]


@pytest.mark.parametrize("day", DAYS)
def test_a_day_is_predicted_alike(predicted: Place, laptop: Path, day: str) -> None:
    found = predicted.rows(day)
    assert len(found) > 500 and same(found, rows(live_file(laptop, day)))
    assert predicted.rows(day, "flight_id, reason", kind="quarantine") == rows(
        live_file(laptop, day, "quarantine"), "flight_id, reason"
    )
    with predicted.settings():
        (there,) = [body for body in records("publication") if body["partition"] == day]
    assert there["rows_in"] == there["rows_scored"] + there["rows_quarantined"] and there["rows_scored"] == len(found)


def test_who_defers_waits_in_a_trigger_and_who_does_not_waits_in_a_worker(predicted: Place, waited: dict[str, set[str]]) -> None:
    for day in DAYS:
        assert waited[day] == ({"bigquery", "batch", "dataflow"} if day in DAYS[:2] else set()), day


def test_monitoring_says_the_same_and_counts_the_same(predicted: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    told, counted = {}, {}
    here = copied(laptop, tmp_path / "watched")
    with lake_only(here, quick_models):
        for day in DAYS[4:]:
            assert run_dag(MONITOR, day).state == "success"
        told["laptop"] = records("monitoring_verdict")
        counted["laptop"] = profiles(here / "monitoring" / MODEL / "profiles")
    with predicted.settings():
        for day in DAYS[4:]:
            run = run_dag(MONITOR, day)
            assert run.state == "success", states(run)
        told["gcp"] = [body for body in records("monitoring_verdict") if body["partition"] in DAYS[4:]]
    names = [key for key in predicted.keys(f"monitoring/{MODEL}/profiles/") if key.endswith(".json")]
    counted["gcp"] = {name.rpartition("/")[2]: counts(predicted.read(name)) for name in names}
    assert len(counted["gcp"]) > 20 and counted["gcp"].keys() == counted["laptop"].keys()
    for day, counts_there in counted["gcp"].items():
        assert counts_there == counted["laptop"][day], day
    assert len(told["gcp"]) == 3
    for there, on_laptop in zip(told["gcp"], told["laptop"], strict=True):
        for name in ("partition", "outcome", "columns", "actions", "sentences", "rows", "model_version"):
            assert there[name] == on_laptop[name], name
        assert rounded(there["quality"]) == rounded(on_laptop["quality"])


def test_scores_made_inside_dataflow_are_the_same(trained: Place, laptop: Path) -> None:
    day, kinds = DAYS[3], ("batch-prediction-job", "dataflow-job")
    before = len(trained.cloud.jobs())
    with trained.settings(scoring="dataflow"):
        run = run_dag(PREDICT, day)
    assert run.state == "success", states(run)
    assert same(trained.rows(day), rows(live_file(laptop, day)))
    assert [job["kind"] for job in trained.cloud.jobs()[before:] if job["kind"] in kinds] == ["dataflow-job"] * 2


def test_what_was_before_is_put_back(predicted: Place) -> None:
    day = DAYS[1]
    one = predicted.rows(day, "flight_id, run_id, score")
    with predicted.settings(deferrable="false"):
        run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
        two = predicted.rows(day, "flight_id, run_id, score")
        assert same([row[:1] + row[2:] for row in two], [row[:1] + row[2:] for row in one])
        assert {row[1] for row in two} == {run.run_id} != {row[1] for row in one}
        platform_for(load_model(MODEL)).restore(load_model(MODEL), partitions.parse(day), "ada")
        assert champions.champion(MODEL) is not None
    assert predicted.rows(day, "flight_id, run_id, score") == one


def test_every_job_ended_and_none_was_done_twice(predicted: Place) -> None:
    """Of the machines that were rented: each job at its first attempt, and one of each name."""
    with predicted.settings():
        asked = records("remote_job")
    names = [body["job"] for body in asked if body["service"] != "bigquery"]
    jobs = [job for job in predicted.cloud.jobs() if job["name"] in names]
    assert {job["state"] for job in jobs} == {"Completed"} and len(jobs) == len(names) > 10
    assert {name.rpartition("-")[2] for name in names} == {"1"}


def test_nothing_has_left_this_machine(predicted: Place) -> None:
    assert predicted.cloud.refused_hosts() == []
