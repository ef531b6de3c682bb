"""What only a real scheduler, triggerer and DAG processor can show. Slow: `make test-slow`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from email import policy
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from demo import simulator
from demo.progress import Screen, follow_tasks, wait_for_dags
from demo.stack import Airflow, running_airflow

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PREDICT, TRAIN, ARRIVALS, MONITOR, LABEL, ROLLBACK = (
    f"{kind}_flight_delays" for kind in ("predict", "train", "arrivals", "monitor", "label", "rollback")
)
MONTH = [date(2013, 2, day) for day in range(1, 29)]
SIXTY = [MONTH[0] + timedelta(days=day) for day in range(60)]


@pytest.fixture(scope="module")
def airflow() -> Iterator[Airflow]:
    """An Airflow with a champion as of 1 February, two months of flights to predict, and what became of them.

    Not below pytest's own folder: the next pytest that starts closes it to all but its user, and PostgreSQL does not
    run as root.
    """
    root = Path(tempfile.mkdtemp(prefix="aileron-e2e-"))
    simulator.land(root / "lake", date(2013, 1, 1), SIXTY[-1])
    simulator.land_outcomes(root / "lake", date(2013, 1, 1), SIXTY[-1])
    with running_airflow(root, extra={"AILERON_LAKE": str(root / "lake")}) as running:
        wait_for_dags(running, Screen(), [PREDICT, TRAIN, ARRIVALS, MONITOR, LABEL, ROLLBACK], seconds=120)
        running.api.unpause(TRAIN)
        running.api.trigger(TRAIN, "first", {"as_of": "2013-02-01"})
        follow_tasks(running, Screen(), TRAIN, "first", seconds=600, answer=lambda: approve(running))
        for dag_id in (PREDICT, MONITOR, LABEL, ROLLBACK):
            running.api.unpause(dag_id)
        yield running
    shutil.rmtree(root)


def approve(airflow: Airflow) -> None:
    """The first model of all needs a yes, which comes by the API as from the form of the UI."""
    for question in airflow.api.questions(TRAIN, "first"):
        airflow.api.answer(question, "Approve", {"why": "seen the report"})


def eventually(done: Callable[[], Any], seconds: float = 300) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := done():
            return found
        time.sleep(1)
    raise AssertionError(f"not within {seconds} s")


def backfill(airflow: Airflow, *arguments: str) -> None:
    eventually(
        lambda: not any(each["completed_at"] is None for each in airflow.api.get("/backfills?dag_id=" + PREDICT)["backfills"])
    )
    airflow.run("backfill", "create", "--dag-id", PREDICT, *arguments)


def ended(airflow: Airflow, count: int) -> Callable[[], bool]:
    def check() -> bool:
        airflow.check()
        runs = [run for run in airflow.api.runs(PREDICT) if run["run_type"] == "backfill"]
        return len(runs) >= count and all(run["state"] in ("success", "failed") for run in runs)

    return check


def published(lake: Path) -> list[Any]:
    """What readers see, all partitions, without what tells one run from another."""
    files = lake / "predictions" / "flight_delays" / "*" / "data.parquet"
    return duckdb.sql(f"SELECT partition_date, flight_id, score, decision, model_version FROM '{files}' ORDER BY ALL").fetchall()


def publications(lake: Path, day: str = "") -> list[dict[str, Any]]:
    files = (lake / "ledger" / "publication" / "flight_delays").glob(f"{day}*.json")
    return sorted((json.loads(file.read_text())["body"] for file in files), key=lambda body: (body["partition"], body["version"]))


def verdicts(lake: Path) -> list[dict[str, Any]]:
    files = (lake / "ledger" / "monitoring_verdict" / "flight_delays").glob("*.json")
    return sorted((json.loads(file.read_text())["body"] for file in files), key=lambda body: body["partition"])


def mails(airflow: Airflow) -> list[Any]:
    return [BytesParser(policy=policy.default).parsebytes(file.read_bytes()) for file in sorted(airflow.mail.glob("*.eml"))]


def test_sixty_days_backfilled_are_all_monitored_and_start_nothing(airflow: Airflow) -> None:
    """One monitoring run per published partition, carried by the partitioned asset. Whatever they find, it is the past."""
    backfill(airflow, "--from-date", str(SIXTY[0]), "--to-date", str(SIXTY[-1]), "--max-active-runs", "3")
    eventually(ended(airflow, len(SIXTY)), seconds=2400)
    eventually(lambda: len(verdicts(airflow.lake)) >= len(SIXTY), seconds=900)
    found = verdicts(airflow.lake)
    assert [body["partition"] for body in found] == [str(day) for day in SIXTY]
    assert all(body["origin"] == "backfill" and not body["actions"] for body in found)
    assert {body["outcome"] for body in found} - {"ok", "cannot judge"}, "with nothing found, nothing was held back"
    runs = eventually(lambda: [run for run in airflow.api.runs(MONITOR) if run["state"] == "success"])
    assert len({run["partition_key"] for run in runs}) == len(SIXTY)
    assert [run["dag_run_id"] for run in airflow.api.runs(TRAIN)] == ["first"]
    assert airflow.api.runs(LABEL) == airflow.api.runs(ROLLBACK) == []
    assert not [mail for mail in mails(airflow) if "monitor" in str(mail["subject"])]


def test_a_month_backfilled_twice_in_another_order_gives_the_same_rows(airflow: Airflow) -> None:
    span = ("--from-date", str(MONTH[0]), "--to-date", str(MONTH[-1]), "--max-active-runs", "3")
    first = published(airflow.lake)
    source = duckdb.sql(
        f"SELECT count(*) FROM '{airflow.lake}/source/flights/*/data.parquet' WHERE partition_date >= '{SIXTY[0]}'"
    ).fetchall()
    assert len(first) == source[0][0] > 20_000

    backfill(airflow, *span, "--run-backwards", "--reprocess-behavior", "completed")
    eventually(lambda: len(publications(airflow.lake)) == len(SIXTY) + len(MONTH), seconds=1500)
    eventually(ended(airflow, len(SIXTY) + len(MONTH)), seconds=300)
    assert published(airflow.lake) == first
    found = publications(airflow.lake)
    assert {body["version"] for body in found} == {1, 2}
    assert all(body["rows_in"] == body["rows_scored"] + body["rows_quarantined"] for body in found)
    assert all(body["origin"] == "backfill" for body in found)


def test_late_data_wakes_the_arrivals_and_replaces_the_partition(airflow: Airflow) -> None:
    day = "2013-02-28"
    eventually(lambda: len(publications(airflow.lake)) >= len(MONTH), seconds=1500)
    before = publications(airflow.lake, day)
    airflow.api.unpause(ARRIVALS)
    folder = airflow.lake / "source" / "flights" / f"partition_date={day}"
    late = folder / "late.parquet"
    duckdb.sql(f"COPY (SELECT * REPLACE ('{day}-XX-1-JFK-0001' AS flight_id) FROM '{folder}/data.parquet' LIMIT 1) TO '{late}'")
    rows = json.loads((folder / "_SUCCESS").read_text())["rows"]
    (folder / "_SUCCESS").write_text(json.dumps({"rows": rows + 1}))

    eventually(lambda: len(publications(airflow.lake, day)) > len(before), seconds=300)
    newest = publications(airflow.lake, day)[-1]
    assert newest["origin"] == "arrival" and newest["rows_in"] == rows + 1 and newest["version"] == len(before) + 1
    # Woken again without cause, it starts nothing: only the state decides.
    airflow.api.trigger(ARRIVALS, "by-hand", {})
    eventually(lambda: airflow.api.run(ARRIVALS, "by-hand")["state"] == "success")
    arrivals = [run for run in airflow.api.runs(PREDICT) if run["dag_run_id"].startswith("arrival__")]
    assert len(arrivals) == len({run["dag_run_id"] for run in arrivals}) == 1


def test_a_killed_task_is_mailed_once_and_nothing_is_published(airflow: Airflow) -> None:
    """SIGKILL of the last try calls no task back; the DAG does. The partition has landed nowhere, so the run waits."""
    airflow.api.trigger(PREDICT, "killed", {"partition": "2013-02-10"})

    def victim() -> psutil.Process | None:
        for process in psutil.process_iter():
            try:
                if "include.jobs.score" in process.cmdline() and process.environ().get("AILERON_LAKE") == str(airflow.lake):
                    return process
            except psutil.Error:
                continue
        return None

    kills = 0
    until = time.monotonic() + 600
    while airflow.api.run(PREDICT, "killed")["state"] not in ("success", "failed") and time.monotonic() < until:
        job = victim()
        if job is not None:
            os.kill(job.ppid(), signal.SIGKILL)
            kills += 1
            eventually(lambda job=job: not job.is_running() or job.status() == psutil.STATUS_ZOMBIE, seconds=30)
        time.sleep(0.05)
    assert airflow.api.run(PREDICT, "killed")["state"] == "failed" and kills >= 3
    assert not any(body["run_id"] == "killed" for body in publications(airflow.lake))
    eventually(lambda: any("killed" in mail.get_body(("plain",)).get_content() for mail in mails(airflow)), seconds=60)
    time.sleep(5)
    about = [mail for mail in mails(airflow) if "killed" in mail.get_body(("plain",)).get_content()]
    assert len(about) == 1 and "2013-02-10" in about[0]["Subject"]
