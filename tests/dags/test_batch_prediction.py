"""predict_<model>, run for real on real flights."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.models.asset import AssetEvent
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import select

from include import champions, ledger
from include.cli import main as command
from tests.dag_runs import run_dag, states

DAG = "predict_flight_delays"
DAY = "2013-02-03"
PATH = [
    "resolve_partition",
    "await_source",
    "choose_model",
    "validate_source",
    "build_features",
    "validate_features",
    "score",
    "postprocess",
    "audit_predictions",
    "publish",
]


def rows(lake: Path, day: str = DAY, columns: str = "flight_id, score, decision, model_version") -> list[Any]:
    file = lake / "predictions" / "flight_delays" / f"partition_date={day}" / "data.parquet"
    return duckdb.sql(f"SELECT {columns} FROM '{file}' ORDER BY flight_id").fetchall()


def publications(day: str = DAY) -> list[dict[str, Any]]:
    return [record.body for record in ledger.read("publication", "flight_delays", prefix=f"{day}.")]


def events(run: DagRun) -> list[AssetEvent]:
    with create_session() as session:
        return list(session.scalars(select(AssetEvent).where(AssetEvent.source_run_id == run.run_id)))


def test_a_scheduled_partition_is_scored_audited_and_published(flights: Path) -> None:
    run = run_dag(DAG, DAY, run_type=DagRunType.SCHEDULED)
    assert run.state == "success"
    assert {task for task, state in states(run).items() if state == "success"} == set(PATH)

    source = flights / "source" / "flights" / f"partition_date={DAY}" / "data.parquet"
    expected = duckdb.sql(f"SELECT flight_id FROM '{source}' ORDER BY 1").fetchall()
    found = rows(flights, columns="flight_id, score, decision, model_version, run_id, git_revision, scored_at, partition_date")
    assert [row[:1] for row in found] == expected and len(found) > 700
    assert all(0 <= score <= 1 and decision == (score >= 0.35) for _, score, decision, *_ in found)
    assert {row[3] for row in found} == {"1"} and {row[4] for row in found} == {run.run_id}
    assert {row[7] for row in found} == {date(2013, 2, 3)}

    (body,) = publications()
    assert body["rows_in"] == body["rows_scored"] + body["rows_quarantined"] == len(found)
    assert body["origin"] == "scheduled" and body["run_id"] == run.run_id
    (event,) = events(run)
    assert event.extra["partition"] == DAY and event.extra["rows"] == len(found) and event.extra["origin"] == "scheduled"
    assert Path(body["page"]).is_file()


def test_xcoms_are_small(flights: Path) -> None:
    run = run_dag(DAG, DAY)
    for ti in run.get_task_instances():
        for key in ("return_value", "run"):
            value = ti.xcom_pull(task_ids=ti.task_id, key=key)
            assert len(json.dumps(value, default=str)) < 4000, f"{ti.task_id}.{key}"


def test_by_hand_the_form_names_the_partition_and_the_event_carries_it(flights: Path) -> None:
    run = run_dag(DAG, conf={"partition": DAY})
    assert run.state == "success" and publications()[0]["origin"] == "manual"
    (event,) = events(run)
    assert event.partition_key == DAY


def test_a_run_about_no_partition_is_refused_by_its_first_task(flights: Path) -> None:
    run = run_dag(DAG)
    assert run.state == "failed"
    assert states(run)["resolve_partition"] == "failed" and states(run)["await_source"] == "upstream_failed"
    assert not (flights / "predictions").exists()


def test_a_dry_run_does_everything_but_publish(flights: Path) -> None:
    run = run_dag(DAG, conf={"partition": DAY, "dry_run": True})
    assert run.state == "success" and states(run)["audit_predictions"] == "success" and states(run)["publish"] == "skipped"
    assert not (flights / "predictions").exists() and publications() == [] and events(run) == []


def test_a_range_becomes_one_run_per_partition(flights: Path) -> None:
    run = run_dag(DAG, conf={"partition": "2013-02-03", "last_partition": "2013-02-05", "dry_run": True})
    assert run.state == "success" and states(run)["await_source"] == "skipped"
    with create_session() as session:
        started = list(session.scalars(select(DagRun).where(DagRun.dag_id == DAG, DagRun.run_id.startswith("range__2013-02-0"))))
    assert sorted(each.conf["partition"] for each in started) == ["2013-02-03", "2013-02-04", "2013-02-05"]
    assert all(each.conf["dry_run"] is True and each.conf["origin"] == "range" for each in started)
    assert not (flights / "predictions").exists()


def test_the_same_partition_twice_gives_the_same_rows_and_keeps_the_first_version(flights: Path) -> None:
    run_dag(DAG, DAY)
    first = rows(flights)
    run_dag(DAG, DAY)
    assert rows(flights) == first
    assert [body["version"] for body in publications()] == [1, 2]
    assert len(list((flights / "versions" / "flight_delays" / f"partition_date={DAY}").glob("*[0-9a-f].parquet"))) == 4


def test_one_command_puts_the_version_before_back(flights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, two = run_dag(DAG, DAY), run_dag(DAG, DAY)
    assert {row[0] for row in rows(flights, columns="run_id")} == {two.run_id}
    assert command(["restore", "flight_delays", DAY]) == 0
    assert "version 3 shows" in capsys.readouterr().out
    assert {row[0] for row in rows(flights, columns="run_id")} == {one.run_id}
    assert publications()[-1]["origin"] == "restore" and publications()[-1]["source"] == publications()[1]["source"]
    assert command(["restore", "flight_delays", "2013-02-04"]) == 1
    assert "was never published" in capsys.readouterr().err


def test_the_champion_as_of_the_partition_is_the_one_of_its_day(flights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = run_dag(DAG, conf={"partition": "2013-01-20", "model_version": "champion as of the partition"})
    assert refused.state == "failed" and states(refused)["choose_model"] == "failed"
    first = champions.champion("flight_delays")
    assert first is not None
    monkeypatch.setattr(champions, "mirror", lambda model: None)  # the registry has no second version
    newer = replace(first, version="2")
    champions.promote("flight_delays", newer, date(2013, 2, 8), 1, "f" * 16, {"reasons": ["better"]})
    run_dag(DAG, conf={"partition": DAY, "model_version": "champion as of the partition"})
    assert {row[3] for row in rows(flights)} == {"1"}
    run_dag(DAG, conf={"partition": DAY})
    assert {row[3] for row in rows(flights)} == {"2"}
