"""arrivals_<model>: what landed and is not published gets one run, however often and in whatever order it is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import date
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.triggers.base import TriggerEvent
from airflow.utils.session import create_session
from sqlalchemy import select

from demo import simulator
from include import ledger, outbox, retraining
from include.cli import main as command
from include.config import load_model, settings
from include.platforms import lake as local_lake
from include.platforms import platform_for
from include.platforms.landing import LandingTrigger
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import PUBLISHED
from tests.dags.lakes import ARRIVALS, MODEL, PREDICT, TRAIN, live_file, reland, rows, source_file

LATE = "2013-02-03"  # published; what lands again after that is late
MISSING = [f"2013-01-{day}" for day in (28, 29, 30)] + [f"2013-02-{day:02}" for day in range(4, 11)]


@pytest.fixture(autouse=True)
def no_runs(airflow_database: None) -> Iterator[None]:
    """The run ids are made of the state of a lake, and all tests begin with the same."""
    _forget_runs()
    yield
    _forget_runs()


def _forget_runs() -> None:
    with create_session() as session:
        for run in session.scalars(select(DagRun).where(DagRun.dag_id.in_([PREDICT, TRAIN]))):
            session.delete(run)


def started() -> dict[str, DagRun]:
    """Run id → run, of those that arrivals has started."""
    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == PREDICT, DagRun.run_id.startswith("arrival__")))
        return {run.run_id: run for run in found}


def training_runs() -> list[str]:
    with create_session() as session:
        return sorted(session.scalars(select(DagRun.run_id).where(DagRun.dag_id == TRAIN)))


def look() -> set[str]:
    """Run arrivals once; the ids of the runs that it has newly started."""
    before = set(started())
    run = run_dag(ARRIVALS)
    assert run.state == "success", states(run)
    return set(started()) - before


def versions(day: str) -> list[Any]:
    return [(record.body["version"], record.body["origin"]) for record in ledger.read("publication", MODEL, prefix=f"{day}.")]


def run_id(day: str, version: int) -> str:
    return f"arrival__{day}__v{version}__{local_lake.fingerprint(load_model(MODEL), date.fromisoformat(day))}"


def test_each_missing_partition_gets_one_run_however_often_it_is_asked_for(published: Path) -> None:
    assert look() == {run_id(day, 1) for day in MISSING}
    assert sorted(run.conf["partition"] for run in started().values()) == MISSING
    assert all(run.conf == {"partition": run.conf["partition"], "origin": "arrival"} for run in started().values())
    assert all(run.state == "queued" for run in started().values())
    assert look() == look() == set(), "a doubled event started a run twice"


def test_late_data_is_a_new_version_and_the_one_before_is_kept(published: Path) -> None:
    look()
    first, kept = rows(live_file(published, LATE)), live_file(published, LATE).read_bytes()
    landed = reland(published, LATE, "FROM landed ORDER BY flight_id LIMIT 800")
    assert look() == {run_id(LATE, 2)}
    late = run_again(PREDICT, run_id(LATE, 2))
    assert late.state == "success", states(late)

    assert versions(LATE) == [(1, "manual"), (2, "arrival")]
    assert len(rows(live_file(published, LATE))) == landed == 800 < len(first)
    # The rows that had landed before, and the weather, are the same; only the number of departures of an hour is not.
    assert {row[0] for row in rows(live_file(published, LATE))} < {row[0] for row in first}
    assert kept in [file.read_bytes() for file in (published / "versions" / MODEL / f"partition_date={LATE}").glob("*.parquet")]
    assert look() == set()

    # What a person puts back stays, until something else lands.
    assert command(["restore", MODEL, LATE]) == 0
    assert live_file(published, LATE).read_bytes() == kept and look() == set()
    reland(published, LATE, "FROM landed LIMIT 790")
    assert look() == {run_id(LATE, 4)}


def test_a_change_of_a_lookup_is_late_data_too(published: Path) -> None:
    look()
    reland(published, LATE, "SELECT * REPLACE (temperature + 1 AS temperature) FROM landed", table="weather")
    assert look() == {run_id(LATE, 2)}


def test_a_partition_that_a_run_is_at_is_left_to_it(published: Path) -> None:
    day = MISSING[-1]
    at_it = run_dag(PREDICT, conf={"partition": day, "dry_run": True})
    assert at_it.state == "success"

    def still(state: str) -> None:
        with create_session() as session:
            session.scalars(select(DagRun).where(DagRun.run_id == at_it.run_id)).one().state = state

    still("queued")
    assert run_id(day, 1) not in look()
    still("running")
    assert run_id(day, 1) not in look()
    still("failed")
    assert look() == {run_id(day, 1)}


def test_a_source_that_a_run_has_failed_on_is_not_tried_by_another(published: Path) -> None:
    day = MISSING[-1]
    reland(published, day, "FROM landed UNION ALL FROM landed")
    failed = run_dag(PREDICT, conf={"partition": day})
    assert failed.state == "failed" and states(failed)["validate_source"] == "failed"
    assert run_id(day, 1) not in look()
    reland(published, day, "SELECT DISTINCT * FROM landed")
    assert look() == {run_id(day, 1)}


def test_without_a_champion_nothing_is_started(lake: Path) -> None:
    simulator.land(lake, date(2013, 1, 1), date(2013, 1, 2))
    assert look() == set()


def test_only_partitions_of_the_model_and_whole_ones_count(published: Path) -> None:
    source_file(published, "2013-02-10").with_name("_SUCCESS").unlink()
    for name in ("2012-12-31", "2014-01-01", "2013-02-30", "__HIVE_DEFAULT_PARTITION__", "2013-02-04.tmp"):
        folder = source_file(published, name).parent
        folder.mkdir()
        (folder / "_SUCCESS").touch()
    assert look() == {run_id(day, 1) for day in ["2013-01-27", *MISSING[:-1]]}


def test_a_partition_that_is_landing_at_this_moment_stops_nothing(published: Path) -> None:
    marker, stop = source_file(published, "2013-02-05").with_name("_SUCCESS"), threading.Event()

    def keep_landing() -> None:
        while not stop.is_set():
            marker.unlink()
            marker.touch()

    thread = threading.Thread(target=keep_landing)
    thread.start()
    try:
        platform, model = platform_for(load_model(MODEL)), load_model(MODEL)
        found = [len(platform.landed(model)) for _ in range(100)]
    finally:
        stop.set()
        thread.join()
    assert set(found) <= {40, 41}


def test_alerts_that_wait_are_sent(published: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.notifications.conftest import Controller, Inbox, connection, free_port

    outbox.put(outbox.Mail("one", ["a@example.com"], "It broke", "text", "<p>html</p>"))
    look()
    assert not (published / "outbox" / "one.sent").exists()
    inbox, port = Inbox(), free_port()
    server = Controller(inbox, hostname="127.0.0.1", port=port)
    server.start()
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", connection(port))
    try:
        look()
    finally:
        server.stop()
    assert (published / "outbox" / "one.sent").is_file()
    assert set(PUBLISHED) == {record.body["partition"] for record in ledger.read("publication", MODEL)}


def test_the_watcher_wakes_for_what_is_there_and_for_what_changes_and_for_nothing_else(published: Path) -> None:
    (watcher,) = platform_for(load_model(MODEL)).landing_watchers(load_model(MODEL))
    path, arguments = watcher.trigger.serialize()
    assert arguments["folder"] == str(settings().lake / "source" / "flights")
    module, _, name = path.rpartition(".")
    trigger = getattr(import_module(module), name)(**{**arguments, "seconds": 0.02})
    assert trigger.serialize() == (path, {**arguments, "seconds": 0.02})

    async def watch() -> None:
        async with events(trigger) as heard:
            assert await heard(), "there was something when it began"
            assert not await heard()
            reland(published, LATE, "FROM landed LIMIT 100", table="weather")
            assert not await heard(), "only the entity table wakes"
            reland(published, LATE, "FROM landed LIMIT 100")
            assert await heard()
            source_file(published, "2013-02-11").parent.mkdir()
            assert not await heard(), "not landed before its marker"
            source_file(published, "2013-02-11").with_name("_SUCCESS").touch()
            assert await heard() and not await heard()

    asyncio.run(watch())


def test_the_watcher_waits_for_a_folder_that_is_not_there(lake: Path) -> None:
    async def watch() -> None:
        async with events(LandingTrigger(str(lake / "source" / "flights"), seconds=0.02)) as heard:
            assert not await heard()
            simulator.land(lake, date(2013, 1, 1), date(2013, 1, 1))
            assert await heard() and not await heard()

    asyncio.run(watch())


class events:
    """Listens to a trigger: `await heard()` is true if it fires within a short time."""

    def __init__(self, trigger: LandingTrigger) -> None:
        self.fired: AsyncIterator[TriggerEvent] = trigger.run()
        self.next: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> Any:
        return self._heard

    async def __aexit__(self, *_: object) -> None:
        if self.next:
            self.next.cancel()

    async def _heard(self) -> bool:
        self.next = self.next or asyncio.ensure_future(anext(self.fired))
        done, _ = await asyncio.wait([self.next], timeout=0.5)
        if done:
            self.next = None
        return bool(done)


def trainings_asked_for() -> list[dict[str, Any]]:
    return [dict(request) for request in retraining.open_requests(MODEL)]


def test_labels_of_enough_new_days_ask_for_one_training(published: Path, edit_model: Callable[..., Path]) -> None:
    look()
    assert trainings_asked_for() == [], "the model does not ask for it"
    edit_model("  min_rows: 5000", "  min_rows: 5000\n  after_new_label_days: 9")
    look()
    assert trainings_asked_for() == [], "labels go to the 8th, eight days beyond those of the last training"
    edit_model("after_new_label_days: 9", "after_new_label_days: 8")
    look()
    look()
    (request,) = trainings_asked_for()
    assert request["reason"] == "new_labels" and request["as_of"] == "2013-02-09"
    assert request["evidence"] == {"labelled_until": "2013-02-08", "last_training_as_of": "2013-02-01"}
    assert [run for run in training_runs() if run.startswith("retraining__")] == ["retraining__000002"]


def test_partitions_in_a_row_that_fail_their_checks_ask_for_a_training(published: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("  min_rows: 5000", "  min_rows: 5000\n  after_failed_partitions: 2")
    edit_model("max_score_shift: 0.75", "max_score_shift: 0.000001")
    assert run_dag(PREDICT, "2013-02-04").state == "failed"
    look()
    assert trainings_asked_for() == [], "one is not enough"
    assert run_dag(PREDICT, "2013-02-05").state == "failed"
    look()
    (request,) = trainings_asked_for()
    assert request["reason"] == "data_quality" and request["evidence"]["partitions"] == ["2013-02-04", "2013-02-05"]
    assert "scores moved" in request["evidence"]["failed"][0]


def test_a_partition_that_fails_in_the_source_is_no_reason_to_learn_from_it(
    published: Path, edit_model: Callable[..., Path]
) -> None:
    edit_model("  min_rows: 5000", "  min_rows: 5000\n  after_failed_partitions: 2")
    for day in ("2013-02-04", "2013-02-05"):
        reland(published, day, "SELECT * FROM landed LIMIT 5")
        assert run_dag(PREDICT, day).state == "failed"
    look()
    assert trainings_asked_for() == []
