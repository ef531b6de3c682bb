"""The same flights, learned from, predicted and watched on a laptop and on each platform: the same models, rows and verdicts."""

from __future__ import annotations

import difflib
import io
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include import champions, labelling, partitions
from include.config import load_model
from include.platforms import platform_for
from include.registry import registry
from tests.alike import CLOSE, counts, found_of_training, records, rounded, same, unpacked_model
from tests.background import again_and_again
from tests.conformance import golden
from tests.conformance.places import Objects, Place
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import LABEL, MODEL, MONITOR, PREDICT, ROLLBACK, TRAIN, live_file, reland, rows, source_file
from tests.dags.test_bad_input import NUMBERED
from tests.flights import AS_OF, DAYS

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(1800)]

MINUTES = "arrival_minutes"
WAITED_FOR = {"aws": {"athena", "transform", "glue"}, "gcp": {"bigquery", "batch", "dataflow"}}


def test_the_same_training_set_gives_the_same_model_and_verdict(trained: Place, laptop: Path, quick_models: Path) -> None:
    with trained.settings():
        there = found_of_training()
        pointed = registry().alias(MODEL, "champion")
    with lake_only(laptop, quick_models):
        here = found_of_training()
    assert trained.model(there.pop("artifact")) == unpacked_model(here.pop("artifact"))
    assert there.pop("metrics") == pytest.approx(here.pop("metrics"), abs=CLOSE)
    assert there == here and there["outcome"] == "PROMOTE"
    assert pointed is not None and pointed.version == there["version"]


@pytest.mark.parametrize("day", DAYS)
def test_a_day_is_predicted_alike(predicted: Place, laptop: Path, day: str) -> None:
    found = predicted.rows(day)
    assert len(found) > 500 and same(found, rows(live_file(laptop, day)))
    aside = rows(live_file(laptop, day, "quarantine"), "flight_id, reason")
    assert predicted.rows(day, "flight_id, reason", kind="quarantine") == aside
    with predicted.settings():
        (there,) = [body for body in records("publication") if body["partition"] == day]
    assert there["rows_in"] == there["rows_scored"] + there["rows_quarantined"] and there["rows_scored"] == len(found)


def test_readers_find_what_explains_a_row(predicted: Place) -> None:
    found = predicted.rows(DAYS[2], "run_id, scored_at, git_revision")
    assert found and len({run for run, _, _ in found}) == 1 and all(all(row) for row in found)


def test_who_defers_waits_in_a_trigger_and_who_does_not_waits_in_a_worker(
    watched: Place, platform: str, waited: dict[str, set[str]]
) -> None:
    assert platform in WAITED_FOR and [waited[day] for day in DAYS[:2]] == [WAITED_FOR[platform]] * 2
    assert [waited[day] for day in DAYS[2:]] == [set()] * 5
    of_monitoring = [waited[f"{MONITOR} {day}"] for day in DAYS[4:]]
    assert of_monitoring[0] <= WAITED_FOR[platform] and of_monitoring[0] and of_monitoring[1:] == [set()] * 2


def test_what_is_asked_of_the_services_is_what_was_agreed(watched: Place, platform: str, asked: list[dict[str, Any]]) -> None:
    """By a training, a day that is predicted, and one that is watched."""
    file, found = golden.path(platform), golden.agreed(platform, asked)
    if os.environ.get("GOLDEN") == "write":
        file.parent.mkdir(exist_ok=True)
        file.write_text(found)
    told = "".join(difflib.unified_diff(file.read_text().splitlines(True), found.splitlines(True), "agreed", "asked", n=12))
    assert json.loads(found) and not told, told[:20_000]


def test_each_job_was_done_once_at_its_first_attempt(predicted: Place) -> None:
    assert_each_done_once(predicted, MODEL)


def assert_each_done_once(place: Place, model: str) -> None:
    """Of the machines that were rented: one job of each name."""
    with place.settings():
        asked = {body["job"] for body in records("remote_job", model)}
    jobs = [job for job in place.machines() if job["name"] in asked]
    assert {job["state"] for job in jobs} == {"Completed"}
    names = [job["name"] for job in jobs]
    assert len(names) == len(set(names)) > 5 and {name.rpartition("-")[2] for name in names} == {"1"}


def test_monitoring_says_the_same_and_counts_the_same(watched: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    here = copied(laptop, tmp_path / "watched")
    with lake_only(here, quick_models):
        for day in DAYS[4:]:
            assert run_dag(MONITOR, day).state == "success"
        theirs = records("monitoring_verdict")
    profiles = here / "monitoring" / MODEL / "profiles"
    counted = {file.name: counts(file.read_bytes()) for file in profiles.rglob("*.json")}
    with watched.settings():
        ours = [body for body in records("monitoring_verdict") if body["partition"] in DAYS[4:]]
        objects = watched.objects()
        names = [name for name in objects.keys(f"monitoring/{MODEL}/profiles/") if name.endswith(".json")]
        found = {name.rpartition("/")[2]: counts(objects.read(name)) for name in names}
    assert len(found) > 20 and found == counted
    assert len(ours) == 3
    for there, on_laptop in zip(ours, theirs, strict=True):
        for name in ("partition", "outcome", "columns", "actions", "sentences", "rows", "model_version"):
            assert there[name] == on_laptop[name], name
        assert rounded(there["quality"]) == rounded(on_laptop["quality"])


def test_another_way_to_score_gives_the_same_scores(predicted: Place, laptop: Path) -> None:
    """Inside Dataflow."""
    place, day = predicted.copied("scored", "ledger/promotion", "ledger/verdict", "models"), DAYS[3]
    before = len(place.machines())
    with place.settings(scoring="dataflow"):
        run = run_dag(PREDICT, day)
    assert run.state == "success", states(run)
    assert same(place.rows(day), rows(live_file(laptop, day)))
    assert [job["kind"] for job in place.machines()[before:]] == ["dataflow-job"] * 2


def test_rows_that_cannot_be_scored_are_set_aside_alike(changed: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    """Rules that are broken, and numbers that are none: in the row itself, and in the weather that is joined to it."""
    here, day = copied(laptop, tmp_path / "bad"), DAYS[3]
    broken = f"""SELECT * EXCLUDE (n) REPLACE (
        CASE WHEN n <= 3 THEN 'XXX' ELSE origin END AS origin,
        CASE n WHEN 4 THEN 'NaN' WHEN 5 THEN '-inf' WHEN 6 THEN '1e300' ELSE distance END::DOUBLE AS distance,
        CASE n WHEN 7 THEN 0 ELSE flight_number END AS flight_number) FROM {NUMBERED}"""
    weather = f"""SELECT * REPLACE (CASE WHEN observed_hour <> '{day} 09:00' OR origin = 'LGA' THEN temperature
        WHEN origin = 'EWR' THEN 'inf' ELSE 'NaN' END::DOUBLE AS temperature) FROM landed"""
    for table, query in (("flights", broken), ("weather", weather)):
        reland(here, day, query, table=table)
        changed.land(day, table, pq.read_table(source_file(here, day, table), partitioning=None))
    with lake_only(here, quick_models):
        assert run_dag(PREDICT, day).state == "success"
        ours = [body for body in records("publication") if body["partition"] == day][-1]
    with changed.settings(deferrable="false"):
        run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
        theirs = [body for body in records("publication") if body["partition"] == day][-1]
    aside = rows(live_file(here, day, "quarantine"), "flight_id, reason")
    assert len(aside) >= 7 and changed.rows(day, "flight_id, reason", kind="quarantine") == aside
    assert same(changed.rows(day), rows(live_file(here, day)))
    for name in ("rows_in", "rows_scored", "rows_quarantined", "quarantine_reasons"):
        assert theirs[name] == ours[name], name


def test_labels_are_asked_for_answered_and_judged(changed: Place) -> None:
    """The request of a monitoring run; the answers that a team puts beside it say that every flight is late."""
    hidden = [str(date.fromisoformat(DAYS[0]) + timedelta(days=number)) for number in range(8)]
    kept = {day: changed.landed(day, "flight_outcomes") for day in hidden}
    for day in hidden:
        changed.take_away(day, "flight_outcomes")
    with changed.settings():
        version = champions.champion(MODEL)
        assert version is not None
        verdict = {"key": f"{DAYS[-1]}.v00001", "since": DAYS[0], "sentences": ["temperature: it changed"], "page": "page"}
        (asked,), _ = labelling.request(load_model(MODEL), {"partition": DAYS[-1], "version": asdict(version)}, verdict)
        request = asked["conf"]["request"]
        with labelling_team(changed.objects(), request):
            run = run_dag(LABEL, conf={"request": request})
        assert run.state == "success", states(run)
        (answer,) = records("label_answer")
        assert answer["quality"]["state"] == "decay" and 100 < answer["answered"] == answer["asked"] <= 300
        assert [body["reason"] for body in records("training_request")] == ["quality_decay"]
    for day, outcomes in kept.items():
        changed.land(day, "flight_outcomes", outcomes)


@contextmanager
def labelling_team(objects: Objects, request: str) -> Iterator[None]:
    """Answers the request when its rows are there, the marker last."""
    folder = f"label_queue/{MODEL}/{request}"

    def answer() -> bool:
        # One object, whole when it is there; an attempt may have a folder of its own.
        found = [name for name in objects.keys(f"{folder}/rows") if not name.rpartition("/")[2].startswith(("_", "."))]
        if found:
            asked = pq.read_table(io.BytesIO(objects.read(found[0])), partitioning=None)["flight_id"].to_pylist()
            objects.write(f"{folder}/answers.csv", "\n".join(["flight_id,label", *(f"{key},1" for key in asked)]).encode())
            objects.write(f"{folder}/_SUCCESS", b"")
        return bool(found)

    with again_and_again(answer, 0.5):
        yield


def test_a_late_partition_is_published_again_and_readers_see_the_old_rows_or_the_new(changed: Place) -> None:
    day = DAYS[0]
    before, late = changed.rows(day, "flight_id, run_id"), changed.landed(day, "flights")
    late = late.filter(pc.not_equal(late["origin"], "LGA"))
    changed.land(day, "flights", late)
    with changed.settings(deferrable="false"), readers(changed.reader(day)) as seen:
        run = run_dag(PREDICT, day)
    assert run.state == "success", states(run)
    after = changed.rows(day, "flight_id, run_id")
    assert {run_id for _, run_id in after} != {run_id for _, run_id in before}
    old, new = (len(before), 1), (len(after), 1)
    assert len(after) == late.num_rows < len(before)
    assert seen[0] == old and seen[-1] == new and len(seen) > 10
    assert [look for look in seen if look not in (old, new)] == [], "a reader saw something else"


@contextmanager
def readers(look: Callable[[], Any]) -> Iterator[list[Any]]:
    """What somebody sees who asks again and again, until a last time after the end."""
    seen = [look()]
    with again_and_again(lambda: seen.append(look()), 0.2):
        yield seen
    seen.append(look())


def test_what_was_before_is_put_back(changed: Place) -> None:
    """By hand, after the day was predicted twice."""
    day, seen = DAYS[1], []
    with changed.settings(deferrable="false"):
        for _ in range(2):
            run = run_dag(PREDICT, day)
            assert run.state == "success", states(run)
            seen.append(changed.rows(day, "flight_id, run_id, score"))
        platform_for(load_model(MODEL)).restore(load_model(MODEL), partitions.parse(day), "ada")
    one, two = seen
    assert same([row[:1] + row[2:] for row in two], [row[:1] + row[2:] for row in one])
    assert {row[1] for row in two} == {run.run_id} != {row[1] for row in one}
    assert changed.rows(day, "flight_id, run_id, score") == one


def test_a_rollback_restores_the_version_and_predicts_again(trained: Place, tmp_path: Path) -> None:
    models = tmp_path / "models"
    shutil.copytree(trained.models / MODEL, models / MODEL)
    yaml = models / MODEL / "model.yaml"
    # A champion of a week ago counts as old, and whoever is hardly worse replaces it.
    eager = {r"max_champion_age_days: 180": "max_champion_age_days: 1\n  margin: 0.2\n  max_decision_churn: 1.0"}
    eager |= {r"slices: \[origin, carrier\]": "slices: []", r"max_score_shift: 0.75": "max_score_shift: 1.0"}
    eager |= {r"max_trees: 60": "max_trees: 40"}
    for old, new in eager.items():
        yaml.write_text(re.sub(old, new, yaml.read_text()))
    kept, day = ("ledger/promotion", "ledger/verdict", "models"), "2013-02-09"
    place = trained.copied("rolled_back", *kept, registry="back", models=models)
    with place.settings():
        first = champions.history(MODEL)[0].version
        given = registry().register(MODEL, first.artifact, first.manifest_sha256, {}, {"as_of": AS_OF})
        assert given.version == first.version
        registry().record_approval(MODEL, given.version, True, "as in the registry it comes from")
        run = run_dag(TRAIN, conf={"as_of": "2013-02-08"})
        assert states(run)["promote"] == "success", (states(run), records("verdict")[-1]["reasons"])
        assert run_dag(PREDICT, day).state == "success"
        assert {version for (version,) in place.rows(day, "model_version")} == {"2"}
        back = run_dag(ROLLBACK, conf={"why": "half of the flights get the same score"})
        assert back.state == "success", states(back)
        champion, previous = registry().alias(MODEL, "champion"), registry().alias(MODEL, "previous")
        assert champion is not None and previous is not None and (champion.version, previous.version) == ("1", "2")
        task: Any = back.get_task_instance("roll_back")
        body = task.xcom_pull(task_ids="roll_back")
        assert body["partitions"] == [day]
        again = run_again(PREDICT, f"rollback__{day}__{body['workspace']}")
        assert again.state == "success", states(again)
        assert {version for (version,) in place.rows(day, "model_version")} == {"1"}


def test_the_second_model_trains_predicts_and_is_watched_alike(
    trained: Place, platform: str, laptop: Path, quick_models: Path, tmp_path: Path
) -> None:
    """Minutes instead of classes."""
    here, day, found = copied(laptop, tmp_path / "minutes"), DAYS[2], {}
    place = trained.copied("minutes", registry="minutes")
    for name in ("laptop", "there"):
        with lake_only(here, quick_models) if name == "laptop" else place.settings(deferrable="false"):
            for run in (
                run_dag(f"train_{MINUTES}", conf={"as_of": AS_OF}),
                run_dag(f"predict_{MINUTES}", day),
                run_dag(f"monitor_{MINUTES}", conf={"as_of": DAYS[3]}),
            ):
                assert run.state == "success", states(run)
            found[name] = found_of_training(MINUTES)
            found[name]["weekly"] = records("monitoring_verdict", MINUTES)[-1]["outcome"]
    assert place.model(found["there"].pop("artifact")) == unpacked_model(found["laptop"].pop("artifact"))
    assert found["there"].pop("metrics") == pytest.approx(found["laptop"].pop("metrics"), abs=CLOSE)
    assert found["there"] == found["laptop"]
    assert same(place.rows(day, model=MINUTES), rows(live_file(here, day, model=MINUTES)))
    if platform != "local":
        assert_each_done_once(place, MINUTES)
