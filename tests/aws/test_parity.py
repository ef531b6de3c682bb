"""The same flights, learned from, predicted and watched on a laptop and on AWS: the same models, rows and verdicts."""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from include import champions, labelling, ledger, partitions
from include.config import load_model
from include.platforms import platform_for
from include.registry import registry
from tests.aws.conftest import AS_OF, DAYS
from tests.aws.places import BUCKET, Place
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import LABEL, MODEL, MONITOR, PREDICT, ROLLBACK, TRAIN, live_file, reland, rows, source_file
from tests.dags.test_bad_input import NUMBERED

pytestmark = [pytest.mark.localcloud, pytest.mark.timeout(1200)]

CLOSE = 1e-9
MINUTES = "arrival_minutes"


@pytest.fixture(scope="module")
def changed(predicted: Place) -> Place:
    """A copy of the place where the week was predicted, for those who change what has landed or was published."""
    return predicted.copied("changed", "ledger", "training", "models", "evaluations")


@pytest.fixture(autouse=True)
def forgotten_runs(airflow_database: None) -> Iterator[None]:
    """Runs that others ask for are named by what they are about: the next test's must not be there already."""
    yield
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.state == "queued")):
            session.delete(run)


def records(kind: str, model: str = MODEL) -> list[dict[str, Any]]:
    return [record.body for record in ledger.read(kind, model)]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    """Rows alike, numbers nearly so."""
    return len(ours) == len(theirs) and all(
        abs(a - b) <= CLOSE if isinstance(a, float) and isinstance(b, float) else a == b
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def model_of(artifact: str, place: Place | None = None) -> bytes:
    """The file of a trained model."""
    if place is None:
        return (Path(artifact) / "model.ubj").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(place.read(artifact))) as archive:
        (member,) = [member for member in archive.getmembers() if member.name.endswith("model.ubj")]
        content = archive.extractfile(member)
        assert content is not None
        return content.read()


def found_of_training(model: str) -> dict[str, Any]:
    """What a training has led to."""
    champion, (verdict,) = champions.champion(model), records("verdict", model)
    assert champion is not None
    told = ("outcome", "rule", "metrics")
    return {"artifact": champion.artifact, "version": champion.version, **{name: verdict.get(name) for name in told}}


def test_the_same_training_set_gives_the_same_model_and_verdict(trained: Place, laptop: Path, quick_models: Path) -> None:
    with trained.settings():
        there = found_of_training(MODEL)
        pointed = registry().alias(MODEL, "champion")
    with lake_only(laptop, quick_models):
        here = found_of_training(MODEL)
    assert model_of(there.pop("artifact"), trained) == model_of(here.pop("artifact"))
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
        put_source(changed, day, pq.read_table(source_file(here, day, table), partitioning=None), table)
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


def test_readers_find_the_rows_by_athena_with_what_explains_them(predicted: Place) -> None:
    asked = predicted.ask(
        "SELECT COUNT(*), COUNT(DISTINCT flight_id), COUNT(DISTINCT run_id), MIN(scored_at), MAX(git_revision) "
        f"FROM flight_delays_predictions WHERE partition_date = DATE '{DAYS[2]}'"
    )
    count = str(len(predicted.rows(DAYS[2])))
    assert asked[0][:3] == [count, count, "1"] and all(asked[0][3:])


def test_monitoring_says_the_same_and_counts_the_same(predicted: Place, laptop: Path, quick_models: Path, tmp_path: Path) -> None:
    told, counted = {}, {}
    here = copied(laptop, tmp_path / "watched")
    with lake_only(here, quick_models):
        for day in DAYS[4:]:
            assert run_dag(MONITOR, day).state == "success"
        told["laptop"] = records("monitoring_verdict")
        counted["laptop"] = profiles(here / "monitoring" / MODEL / "profiles")
    place = predicted.copied("watched_alike", "ledger")
    with place.settings():
        for day in DAYS[4:]:
            run = run_dag(MONITOR, day)
            assert run.state == "success", states(run)
        told["aws"] = [body for body in records("monitoring_verdict") if body["partition"] in DAYS[4:]]
    names = [key for key in place.keys(f"monitoring/{MODEL}/profiles/") if key.endswith(".json")]
    counted["aws"] = {name.rpartition("/")[2]: counts(place.read(name)) for name in names}
    assert len(counted["aws"]) > 20 and counted["aws"].keys() == counted["laptop"].keys()
    for day, counts_there in counted["aws"].items():
        assert counts_there == counted["laptop"][day], day
    assert len(told["aws"]) == 3
    for there, on_laptop in zip(told["aws"], told["laptop"], strict=True):
        for name in ("partition", "outcome", "columns", "actions", "sentences", "rows", "model_version"):
            assert there[name] == on_laptop[name], name
        assert rounded(there["quality"]) == rounded(on_laptop["quality"])


def profiles(folder: Path) -> dict[str, Any]:
    return {file.name: counts(file.read_bytes()) for file in folder.rglob("*.json")}


def counts(content: bytes) -> Any:
    """A profile without the state of what it was made of."""
    return rounded({name: value for name, value in json.loads(content).items() if name != "state"})


def rounded(value: Any) -> Any:
    """Sums depend on the order of rows, in their last digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def test_labels_are_asked_for_answered_and_judged(changed: Place) -> None:
    """The request of a monitoring run; the answers that a team puts beside it say that every flight is late."""
    with changed.settings():
        s3 = changed.client("s3")
        hidden = [key for key in changed.keys("source/flight_outcomes/") if key.split("partition_date=")[1][:10] >= DAYS[0]]
        kept = {key: changed.read(key) for key in hidden}
        for key in hidden:
            s3.delete_object(Bucket=BUCKET, Key=f"{changed.name}/{key}")
        version = champions.champion(MODEL)
        assert version is not None
        verdict = {"key": f"{DAYS[-1]}.v00001", "since": DAYS[0], "sentences": ["temperature: it changed"], "page": "page"}
        (asked,), _ = labelling.request(load_model(MODEL), {"partition": DAYS[-1], "version": asdict(version)}, verdict)
        request = asked["conf"]["request"]
        with labelling_team(changed, request):
            run = run_dag(LABEL, conf={"request": request})
        for key, content in kept.items():
            s3.put_object(Bucket=BUCKET, Key=f"{changed.name}/{key}", Body=content)
        assert run.state == "success", states(run)
        (answer,) = records("label_answer")
        assert answer["quality"]["state"] == "decay" and 100 < answer["answered"] == answer["asked"] <= 300
        assert [body["reason"] for body in records("training_request")] == ["quality_decay"]


@contextmanager
def labelling_team(place: Place, request: str) -> Iterator[None]:
    """Answers the request when its rows are there, the marker last."""
    over, folder = threading.Event(), f"label_queue/{MODEL}/{request}"

    def answer() -> None:
        while not over.wait(0.5):
            # One object, whole when it is there; the attempt has a folder of its own.
            names = [key for key in place.keys(f"{folder}/rows/") if not key.rpartition("/")[2].startswith(("_", "."))]
            if names:
                keys = pq.read_table(io.BytesIO(place.read(names[0])), partitioning=None)["flight_id"].to_pylist()
                lines = "\n".join(["flight_id,label", *(f"{key},1" for key in keys)])
                for name, content in (("answers.csv", lines), ("_SUCCESS", "")):
                    place.client("s3").put_object(Bucket=BUCKET, Key=f"{place.name}/{folder}/{name}", Body=content.encode())
                return

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def test_a_late_partition_is_published_again_and_readers_see_the_old_rows_or_the_new(changed: Place) -> None:
    day, key = DAYS[0], f"{changed.name}/source/flights/partition_date={DAYS[0]}/data.parquet"
    before = changed.rows(day, "flight_id, run_id")
    late = pq.read_table(io.BytesIO(changed.read(f"s3://{BUCKET}/{key}")), partitioning=None)
    late = late.filter(pc.not_equal(late["origin"], "LGA")) if late.num_rows > 400 else late.slice(0, 300)
    put_source(changed, day, late)
    with readers(changed, day) as seen, changed.settings(deferrable="false"):
        run = run_dag(PREDICT, day)
    assert run.state == "success", states(run)
    after = changed.rows(day, "flight_id, run_id")
    assert len(after) == late.num_rows < len(before)
    old, new = [[str(len(found)), "1", found[0][1], found[0][1]] for found in (before, after)]
    assert seen[0] == [old] and seen[-1] == [new] and len(seen) > 10
    assert [step for step in seen if step not in ([old], [new])] == [], "a reader saw something else"


def put_source(place: Place, day: str, table: pa.Table, name: str = "flights") -> None:
    """A partition lands again: without its marker until it is whole."""
    s3, folder = place.client("s3"), f"{place.name}/source/{name}/partition_date={day}"
    content = io.BytesIO()
    pq.write_table(table, content)
    s3.delete_object(Bucket=BUCKET, Key=f"{folder}/_SUCCESS")
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/data.parquet", Body=content.getvalue())
    s3.put_object(Bucket=BUCKET, Key=f"{folder}/_SUCCESS", Body=json.dumps({"rows": table.num_rows}).encode())


@contextmanager
def readers(place: Place, day: str) -> Iterator[list[Any]]:
    """What somebody sees who asks Athena again and again, until a last time after the end."""
    over, seen = threading.Event(), []
    sql = (
        "SELECT COUNT(*), COUNT(DISTINCT run_id), MIN(run_id), MAX(run_id) "
        f"FROM flight_delays_predictions WHERE partition_date = DATE '{day}'"
    )

    def look() -> None:
        while not over.wait(0.2):
            seen.append(place.ask(sql))

    seen.append(place.ask(sql))
    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join(20)
        seen.append(place.ask(sql))


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
    place, day = trained.copied("rolled_back", "ledger/promotion", "ledger/verdict", registry="back", models=models), "2013-02-09"
    with trained.settings():
        first = champions.history(MODEL)[0]
    with place.settings():
        given = registry().register(MODEL, first.version.artifact, first.version.manifest_sha256, {}, {"as_of": AS_OF})
        assert given.version == first.version.version
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


def test_what_was_before_is_put_back(changed: Place) -> None:
    day = DAYS[1]
    one = changed.rows(day, "flight_id, run_id, score")
    with changed.settings(deferrable="false"):
        run = run_dag(PREDICT, day)
        assert run.state == "success", states(run)
        assert same([row[:1] + row[2:] for row in changed.rows(day, "flight_id, run_id, score")], [r[:1] + r[2:] for r in one])
        platform_for(load_model(MODEL)).restore(load_model(MODEL), partitions.parse(day), "ada")
    assert changed.rows(day, "flight_id, run_id, score") == one


def test_the_second_model_trains_predicts_and_is_watched_alike(
    trained: Place, laptop: Path, quick_models: Path, tmp_path: Path
) -> None:
    """Minutes instead of classes."""
    here, day, found = copied(laptop, tmp_path / "minutes"), DAYS[2], {}
    place = trained.copied("minutes", registry="minutes")
    for name in ("laptop", "aws"):
        with lake_only(here, quick_models) if name == "laptop" else place.settings(deferrable="false"):
            for run in (
                run_dag(f"train_{MINUTES}", conf={"as_of": AS_OF}),
                run_dag(f"predict_{MINUTES}", day),
                run_dag(f"monitor_{MINUTES}", conf={"as_of": DAYS[3]}),
            ):
                assert run.state == "success", states(run)
            found[name] = found_of_training(MINUTES)
            found[name]["weekly"] = records("monitoring_verdict", MINUTES)[-1]["outcome"]
    assert model_of(found["aws"].pop("artifact"), place) == model_of(found["laptop"].pop("artifact"))
    assert found["aws"].pop("metrics") == pytest.approx(found["laptop"].pop("metrics"), abs=CLOSE)
    assert found["aws"] == found["laptop"]
    theirs = here / "predictions" / MINUTES / f"partition_date={day}" / "data.parquet"
    assert same(place.rows(day, model=MINUTES), rows(theirs))
    assert_each_done_once(place, MINUTES)


def test_every_job_ended_and_none_was_done_twice(predicted: Place) -> None:
    assert_each_done_once(predicted, MODEL)


def assert_each_done_once(place: Place, model: str) -> None:
    """Of the machines that were rented: each job at its first attempt, and one of each name."""
    with place.settings():
        asked = records("remote_job", model)
    names = [body["job"] for body in asked if body["service"] in ("processing", "training", "transform")]
    jobs = [job for job in place.cloud.jobs() if job["service"] == "sagemaker" and job["name"] in names]
    assert {job["state"] for job in jobs} == {"Completed"} and len(jobs) == len(names) > 5
    assert {name.rpartition("-")[2] for name in names} == {"1"}
