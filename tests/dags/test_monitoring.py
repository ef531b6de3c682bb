"""monitor_<model>, in real runs over real flights: what it says, whom it tells, what it starts, and what it does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import select

from demo import simulator
from include import champions, labelling, ledger, partitions
from include.config import load_model
from include.platforms import platform_for
from tests.background import again_and_again
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import LABEL, MODEL, MONITOR, PREDICT, ROLLBACK, TRAIN, mails, own_database, reland
from tests.dags.test_crashes import kill_in, start

FIRST, LAST = date(2013, 2, 1), date(2013, 2, 7)
DAY = LAST.isoformat()
TASKS = ("find_publication", "profile", "compare", "evaluate_matured", "decide", "report")


@pytest.fixture(scope="session")
def watched_lake(published_lake: Path, tmp_path_factory: pytest.TempPathFactory, quick_models: Path) -> Path:
    """The published lake with all days up to 7 February predicted: five of them had no part in the model and have labels."""
    folder = copied(published_lake, tmp_path_factory.mktemp("watched") / "lake")
    with lake_only(folder, quick_models):
        for day in partitions.days(date(2013, 2, 4), LAST):
            assert run_dag(PREDICT, day.isoformat()).state == "success"
    return folder


@pytest.fixture
def watched(watched_lake: Path, lake: Path) -> Path:
    return copied(watched_lake, lake)


@pytest.fixture(autouse=True)
def forgotten_runs() -> Iterator[None]:
    """Runs that a monitor has asked for are named by what they are about: the next test's must not be there already."""
    yield
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.dag_id.in_([TRAIN, LABEL, ROLLBACK]))):
            session.delete(run)


def monitor(day: str = DAY, **asked: Any) -> dict[str, Any]:
    """Monitor a partition; its verdict."""
    run = run_dag(MONITOR, day, **asked)
    assert run.state == "success", states(run)
    return said(day)


def said(day: str = DAY) -> dict[str, Any]:
    return ledger.read("monitoring_verdict", MODEL, prefix=f"{day}.")[-1].body


def asked_for(dag_id: str) -> list[tuple[str, dict[str, Any]]]:
    """Runs of another DAG that wait to be started."""
    with create_session() as session:
        runs = session.scalars(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.state == "queued"))
        return [(run.run_id, run.conf) for run in runs]


def everyone_is_late(lake: Path) -> None:
    """What nobody could expect: labels that the model finds impossible."""
    for day in partitions.days(FIRST, date(2013, 2, 8)):
        reland(lake, day.isoformat(), "SELECT * REPLACE (200 AS arrival_delay) FROM landed", table="flight_outcomes")


def test_a_fine_day_gets_a_verdict_and_a_page_and_wakes_nobody(watched: Path) -> None:
    run = run_dag(MONITOR, DAY)
    found = states(run)
    assert run.state == "success" and all(found[task] == "success" for task in TASKS), found
    assert {found[task] for task in ("request_labels", "request_training", "request_rollback")} == {"skipped"}
    verdict = said()
    assert verdict["outcome"] == "ok" and not verdict["actions"], verdict
    assert "matured days" in verdict["notes"][0] and verdict["quality"]["state"] == "ok"
    assert "Flight delays" in Path(verdict["page"]).read_text()
    assert f"{DAY}/v00001/report.html" in (watched / "monitoring" / MODEL / "index.html").read_text()
    assert mails(watched) == []


def test_the_same_publication_gets_the_same_verdict_whatever_has_happened_since(watched: Path) -> None:
    first = monitor()
    everyone_is_late(watched)
    assert monitor() == first
    assert len(ledger.read("monitoring_verdict", MODEL)) == 1
    known = ledger.find("matured_quality", MODEL, f"{FIRST}.v1")
    assert known is not None and known.body["label_sum"] < known.body["labelled"], "what was known then was changed"


def test_broken_units_page_the_owner_and_are_never_learned_from(watched: Path) -> None:
    reland(watched, DAY, "SELECT * REPLACE (distance * 1.609344 AS distance) FROM landed")
    assert run_dag(PREDICT, DAY).state == "success"
    everyone_is_late(watched)  # however bad the labels look
    verdict = monitor()
    assert verdict["outcome"] == "broken data" and "distance" in verdict["columns"], verdict
    assert verdict["actions"] == ["mail"]
    (mail,) = mails(watched)
    assert "broken data" in mail["subject"] and "distance" in mail["text"] and "drift_monitoring.md" in mail["text"]
    assert asked_for(TRAIN) == [] and ledger.read("training_request", MODEL) == []


def test_a_source_that_is_missing_is_broken_data_and_not_used_as_a_baseline(watched: Path) -> None:
    reland(watched, "2013-02-06", "SELECT * FROM landed WHERE origin <> 'JFK'")
    assert run_dag(PREDICT, "2013-02-06").state == "success"
    assert monitor("2013-02-06")["outcome"] == "broken data"
    verdict = monitor()
    assert verdict["outcome"] == "ok", verdict
    document = json.loads(Path(verdict["page"]).with_name("comparisons.json").read_text())
    origin = next(one for one in document["comparisons"] if (one["column"], one["horizon"]) == ("origin", 1))
    assert origin["state"] == "ok" and origin["before"] > 0.2


def test_decay_asks_for_a_training_once(watched: Path) -> None:
    everyone_is_late(watched)
    verdict = monitor()
    assert verdict["outcome"] == "quality decay" and verdict["actions"] == ["mail", "request training"], verdict
    ((run_id, conf),) = asked_for(TRAIN)
    assert run_id.startswith("retraining__") and conf == {"origin": "retraining"}
    (request,) = ledger.read("training_request", MODEL)
    assert request.body["reason"] == "quality_decay" and request.body["as_of"] == DAY
    assert "beyond what is tolerated" in request.body["evidence"]["sentences"][0]
    (mail,) = mails(watched)
    assert "quality decay" in mail["subject"] and "A training has been requested" in " ".join(mail["text"].split())
    monitor()
    assert len(asked_for(TRAIN)) == len(mails(watched)) == len(ledger.read("training_request", MODEL)) == 1


def test_days_of_decay_are_one_request_and_one_mail(watched: Path) -> None:
    everyone_is_late(watched)
    for day in ("2013-02-06", "2013-02-07"):
        # With one day less it is the same alarm: five matured days are needed.
        monitor(day)
    outcomes = [record.body["outcome"] for record in ledger.read("monitoring_verdict", MODEL)]
    assert outcomes.count("quality decay") >= 1
    assert len(asked_for(TRAIN)) == 1 and len([m for m in mails(watched) if "decay" in m["subject"]]) == 1


def test_a_backfill_is_judged_and_starts_nothing(watched: Path) -> None:
    everyone_is_late(watched)
    assert run_dag(PREDICT, DAY, run_type=DagRunType.BACKFILL_JOB).state == "success"
    verdict = monitor()
    assert verdict["outcome"] == "quality decay" and verdict["origin"] == "backfill"
    assert verdict["actions"] == [] and "looks at the past" in verdict["notes"][-1]
    assert asked_for(TRAIN) == [] and mails(watched) == [] and ledger.read("training_request", MODEL) == []


@pytest.mark.crash
@pytest.mark.parametrize(("task", "seconds"), [("profile", 0.3), ("decide", 0.05), ("report", 0.05), ("request_training", 0.05)])
def test_killed_anywhere_it_says_the_same_and_says_it_once(watched: Path, tmp_path: Path, task: str, seconds: float) -> None:
    everyone_is_late(watched)
    own_airflow = own_database(tmp_path)
    run = {"dag_id": MONITOR, "run_id": "manual__killed"}
    kill_in(start({**run, "partition": DAY}, environment=own_airflow), task, seconds)
    process = start({**run, "again": True}, environment=own_airflow)
    output, _ = process.communicate(timeout=300)
    assert "run manual__killed success" in output, output[-3000:]
    assert said()["actions"] == ["mail", "request training"]
    assert (
        len(mails(watched)) == len(ledger.read("training_request", MODEL)) == len(ledger.read("monitoring_verdict", MODEL)) == 1
    )


def test_what_was_never_published_cannot_be_monitored(watched: Path) -> None:
    run = run_dag(MONITOR, "2013-02-09")
    assert states(run)["find_publication"] == "failed"
    (mail,) = mails(watched)
    assert "was never published" in mail["text"]
    assert run_dag(MONITOR).state == "failed"


def test_a_day_with_too_few_rows_cannot_be_judged_and_that_is_not_ok(watched: Path) -> None:
    monitor("2013-02-06")
    reland(watched, DAY, "SELECT * FROM landed LIMIT 60")
    run_dag(PREDICT, DAY)
    verdict = monitor()
    assert verdict["outcome"] in ("cannot judge", "broken data") and verdict["actions"] == ["mail"], verdict


@contextmanager
def labelling_team(lake: Path, label: Callable[[str], str]) -> Iterator[None]:
    """Answers whatever comes into the label queue, as CSV, the marker last."""

    def answer() -> None:
        for rows in (lake / "label_queue" / MODEL).glob("*/rows.parquet"):
            if not (rows.parent / "_SUCCESS").exists():
                keys = [key for (key,) in duckdb.connect().execute(f"SELECT flight_id FROM '{rows}'").fetchall()]
                lines = ["flight_id,label", *(f"{key},{label(key)}" for key in keys)]
                (rows.parent / "answers.csv").write_text("\n".join(lines))
                (rows.parent / "_SUCCESS").touch()

    with again_and_again(answer, 0.2):
        yield


@pytest.fixture
def asked_labels(watched: Path) -> str:
    """A request for labels of the week, whose own labels have not come."""
    for day in partitions.days(FIRST, date(2013, 2, 8)):
        shutil.rmtree(watched / "source" / "flight_outcomes" / f"partition_date={day}")
    version = champions.champion(MODEL)
    assert version is not None
    verdict = {"key": f"{DAY}.v00001", "since": FIRST.isoformat(), "sentences": ["temperature: it changed"], "page": "page"}
    runs, _ = labelling.request(load_model(MODEL), {"partition": DAY, "version": asdict(version)}, verdict)
    ((asked),) = runs
    assert asked["trigger_run_id"] == f"labels__{DAY}.v00001"
    return str(asked["conf"]["request"])


def test_labels_that_say_decay_ask_for_a_training(watched: Path, asked_labels: str) -> None:
    with labelling_team(watched, lambda key: "1"):
        run = run_dag(LABEL, conf={"request": asked_labels})
    assert run.state == "success", states(run)
    (answer,) = ledger.read("label_answer", MODEL)
    assert answer.body["quality"]["state"] == "decay" and 100 < answer.body["answered"] == answer.body["asked"] <= 300
    (request,) = ledger.read("training_request", MODEL)
    assert request.body["reason"] == "quality_decay" and request.body["evidence"]["request"] == asked_labels
    assert len(asked_for(TRAIN)) == 1
    (mail,) = mails(watched)
    assert "labels say decay" in mail["subject"]

    # Judged again when more labels have come by themselves, it asks for nothing new.
    simulator.land_outcomes(watched, FIRST, date(2013, 2, 8))
    assert run_again(LABEL, run.run_id, tasks=["judge_labels"]).state == "success"
    assert len(ledger.read("training_request", MODEL)) == len(mails(watched)) == 1


def test_labels_that_say_all_is_well_start_nothing(watched: Path, asked_labels: str, tmp_path: Path) -> None:
    truth = true_labels(tmp_path / "truth")
    with labelling_team(watched, lambda key: truth[key]):
        run = run_dag(LABEL, conf={"request": asked_labels})
    assert run.state == "success" and states(run)["judge_labels"] == "skipped", states(run)
    assert ledger.read("training_request", MODEL) == [] and asked_for(TRAIN) == []


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ("flight_id,label\n{key},2", "a label that is not 0 or 1"),
        ("flight_id,label\n{key},1\n{key},0", "is answered twice"),
        ("flight_id,label\nsomething,1", "was not asked for"),
        ("flight_id,outcome\n{key},1", "has no column label"),
    ],
)
def test_answers_that_cannot_be_believed_are_refused(watched: Path, asked_labels: str, answers: str, told: str) -> None:
    platform = platform_for(load_model(MODEL))
    place = watched / "label_queue" / MODEL / asked_labels
    place.mkdir(parents=True)
    duckdb.sql(
        "SELECT 'a' AS flight_id, DATE '2013-02-07' AS partition_date, .5 AS score, 0 AS band, 9 AS population"
    ).write_parquet(str(place / "rows.parquet"))
    (place / "answers.csv").write_text(answers.format(key="a"))
    with pytest.raises(ValueError, match=told):
        platform.label_answers(load_model(MODEL), asked_labels)


def test_the_budget_of_a_month_is_all_that_is_bought(watched: Path) -> None:
    model, version = load_model(MODEL), champions.champion(MODEL)
    assert version is not None
    granted = []
    for day in range(1, 8):
        verdict = {"key": f"2013-02-0{day}.v00001", "since": f"2013-02-0{day}", "sentences": [], "page": ""}
        run = {"partition": f"2013-02-0{day}", "version": asdict(version)}
        for _ in range(2):  # asked twice it is asked once
            runs, why = labelling.request(model, run, verdict)
        granted.append(len(runs))
    assert granted == [1, 1, 1, 0, 0, 0, 0] and "900 of the 900 labels of 2013-02 are spent" in why


def test_a_champion_that_learned_from_broken_labels_is_rolled_back(watched: Path, edit_model: Callable[..., Path]) -> None:
    """A challenger learned from labels of a broken feed, and beat the champion on them. The next labels bring out the truth."""
    # Tried on the newest day, it would be stopped for how differently it decides.
    edit_model("max_score_shift: 0.75", "max_score_shift: 1.0")
    edit_model("floors: {auc: 0.6}", "floors: {auc: 0.6}\n  max_decision_churn: 1.0")
    kept = watched.parent / "outcomes"
    shutil.copytree(watched / "source" / "flight_outcomes", kept)
    for day in partitions.days(date(2013, 1, 1), date(2013, 2, 1)):
        blamed = "hash(flight_id) % 10 < CASE WHEN flight_id SIMILAR TO '.*-(UA|DL)-.*' THEN 7 ELSE 1 END"
        made_up = f"SELECT * REPLACE (CASE WHEN {blamed} THEN 60 ELSE 0 END AS arrival_delay) FROM landed"
        reland(watched, day.isoformat(), made_up, table="flight_outcomes")
    assert run_dag(TRAIN, conf={"as_of": "2013-02-02"}).state == "success"
    assert [change.version.version for change in champions.history(MODEL)] == ["1", "2"]
    shutil.rmtree(watched / "source" / "flight_outcomes")
    shutil.copytree(kept, watched / "source" / "flight_outcomes")
    for day in partitions.days(date(2013, 2, 2), LAST):
        assert run_dag(PREDICT, day.isoformat()).state == "success"
    for file in (watched / "outbox").glob("*"):
        file.unlink()

    verdict = monitor()
    assert verdict["outcome"] == "worse champion" and verdict["former"]["version"] == "1", verdict
    assert verdict["actions"] == ["mail", "roll back"]
    ((run_id, conf),) = asked_for(ROLLBACK)
    assert run_id == f"worse_champion__2__{DAY}" and (conf["version"], conf["withdraw"]) == (1, 2)
    assert len(mails(watched)) == 1 and asked_for(TRAIN) == []

    back = run_dag(ROLLBACK, conf=conf, run_id="asked")
    assert back.state == "success", states(back)
    assert champions.champion(MODEL).version == "1"  # type: ignore[union-attr]
    assert any("2013-02-02, 2013-02-03" in " ".join(mail["text"].split()) for mail in mails(watched))
    # Asked again, or after somebody has promoted another version, it is none of its business.
    assert states(run_dag(ROLLBACK, conf=conf))["roll_back"] == "skipped"


def test_a_weekly_query_is_one_query_and_says_decay(watched: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("drift:", "monitoring: weekly_query\n\ndrift:")
    edit_model("{auc: 0.6}", "{auc: 0.5}")
    fine = run_dag(MONITOR, conf={"as_of": "2013-02-08"})
    assert set(states(fine)) == {"find_week", "evaluate_matured", "judge_week", "request_training", "start_train"}
    assert ledger.read("monitoring_verdict", MODEL)[-1].body["outcome"] == "ok" and mails(watched) == []
    everyone_is_late(watched)
    assert run_dag(MONITOR, conf={"as_of": "2013-02-07"}).state == "success"
    assert len(mails(watched)) == len(asked_for(TRAIN)) == 1
    assert states(run_dag(MONITOR))["find_week"] == "failed"


def true_labels(folder: Path) -> dict[str, str]:
    """What really became of the flights."""
    simulator.land_outcomes(folder, FIRST, LAST)
    outcomes = f"read_parquet('{folder}/source/flight_outcomes/*/data.parquet', hive_partitioning = false)"
    late = "CASE WHEN arrival_delay IS NULL OR arrival_delay > 15 THEN '1' ELSE '0' END"
    return dict(duckdb.connect().execute(f"SELECT flight_id, {late} FROM {outcomes}").fetchall())
