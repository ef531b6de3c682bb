"""Bad data, a bad model file or a full disk: the run stops at the right task, readers see nothing of it, a mail says why."""

from __future__ import annotations

import json
import logging
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import airflow.sdk.definitions.dag as dag_module
import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session

from demo import simulator
from include import ledger, queries
from include.config import REPOSITORY, load_model
from include.queries import InvalidQuery
from include.registry import registry
from tests.dag_runs import ROOT, run_dag, states
from tests.dags.conftest import FIRST
from tests.dags.lakes import MODEL, PREDICT, assert_refused, live_file, mails, own_database, reland, rows, source_file, visible

DAY = "2013-02-03"
NEXT = "2013-02-04"  # landed, not published
Edit = Callable[..., Path]

# What lands over a good partition: the query, and words of the mail.
TWICE = "SELECT * REPLACE (flight_id || '-2' AS flight_id) FROM landed"
REFUSED_SOURCES: dict[str, tuple[str, tuple[str, ...]]] = {
    "empty": ("FROM landed LIMIT 0", ("table: 0 rows", "limit: at least 463")),
    "a third of the rows, and the marker says so": ("FROM landed WHERE hash(flight_id) % 3 = 0",
                                                    ("table: 2", "limit: at least 463")),
    "too many rows": (f"FROM landed UNION ALL {TWICE} UNION ALL FROM ({TWICE}) SELECT * REPLACE (flight_id || '-3' AS flight_id)",
                      ("table: 2,442 rows", "limit: at most")),
    "duplicate keys": ("FROM landed UNION ALL (FROM landed LIMIT 8)", ("flight_id", "duplicated")),
    "a key is null": ("SELECT * REPLACE (nullif(flight_id, max(flight_id) OVER ()) AS flight_id) FROM landed",
                      ("flight_id", "null")),
    "missing column": ("SELECT * EXCLUDE (dest) FROM landed", ("dest: column is missing",)),
    "renamed column": ("SELECT * RENAME (dest AS destination) FROM landed",
                       ("dest: column is missing", "destination: unknown column")),
    "retyped column": ("SELECT * REPLACE (distance::VARCHAR AS distance) FROM landed",
                       ("distance: VARCHAR", "a column of type number")),
    "decimal comma": ("SELECT * REPLACE (replace(distance::VARCHAR, '.', ',') AS distance) FROM landed", ("distance: VARCHAR",)),
    "all null column": ("SELECT * REPLACE (NULL::VARCHAR AS dest) FROM landed", ("dest", "100 % null")),
    "column of the null type": ("SELECT * REPLACE (NULL AS scheduled_departure) FROM landed", ("scheduled_departure",)),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED_SOURCES)
def test_a_source_that_is_not_what_it_should_be(published: Path, name: str) -> None:
    query, words = REFUSED_SOURCES[name]
    before = visible(published)
    reland(published, DAY, query)
    run = run_dag(PREDICT, DAY)
    assert_refused(run, "validate_source", published, before, "source check failed", DAY, *words)
    assert run.get_task_instance("validate_source").try_number == 1


def test_a_marker_that_declares_more_rows_than_there_are(published: Path) -> None:
    before = visible(published)
    there = reland(published, DAY, "FROM landed", declared=1000)
    assert_refused(run_dag(PREDICT, DAY), "validate_source", published, before, f"{there}", "limit: at least 1,000")


@pytest.mark.parametrize("content", ["rows: 900", "[900]", '{"rows": "many"}', '{"rows": -1}', '{"rows": NaN}'])
def test_a_marker_that_is_no_marker(published: Path, content: str) -> None:
    before = visible(published)
    source_file(published, DAY).with_name("_SUCCESS").write_text(content)
    assert_refused(run_dag(PREDICT, DAY), "validate_source", published, before, "_SUCCESS", "rows")


def test_a_source_file_that_is_damaged(published: Path) -> None:
    before = visible(published)
    damage(source_file(published, DAY), "cut")
    assert_refused(run_dag(PREDICT, DAY), "validate_source", published, before, "cannot read the dataset", "data.parquet")


def test_a_marker_that_never_comes(flights: Path, edit_model: Edit, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_model("wait_hours: 12", "wait_hours: 0.0003")
    source_file(flights, DAY).with_name("_SUCCESS").unlink()
    run_task = dag_module._run_task

    def as_scheduler_and_triggerer(*, ti: Any, task: Any, run_triggerer: bool) -> None:
        """A trigger that waits for what does not come, and the scheduler, which looks at the time."""
        run_task(ti=ti, task=task)
        while ti.state == "deferred":
            time.sleep(0.2)
            with create_session() as session:
                SchedulerJobRunner.check_trigger_timeouts(SimpleNamespace(log=logging.getLogger()), session=session)
                ti.state = session.get(TaskInstance, ti.id).state

    monkeypatch.setattr(dag_module, "_run_task", as_scheduler_and_triggerer)
    run = run_dag(PREDICT, DAY)
    assert_refused(run, "await_source", flights, {}, "Trigger timeout", DAY)
    assert run.get_task_instance("await_source").try_number == 1


# What makes too many of the 814 rows unusable: how a column is replaced in the n-th row, and words of the mail.
NUMBERED = "(SELECT *, row_number() OVER (ORDER BY flight_id) AS n FROM landed)"
REFUSED_ROWS: dict[str, tuple[str, str]] = {
    "numbers that are none": (
        "CASE WHEN n <= 10 THEN 'NaN' WHEN n <= 20 THEN 'inf' ELSE distance END::DOUBLE AS distance",
        "2.5% quarantined rows (20 of 814, limit 2.0%)",
    ),
    "rows that break a rule": (
        "CASE WHEN n <= 17 THEN 'XXX' ELSE origin END AS origin",
        "2.1% quarantined rows (17 of 814, limit 2.0%)",
    ),
    "a category the model has not seen": (
        "CASE WHEN n <= 60 THEN 'ZZ' ELSE carrier END AS carrier",
        "7.4% rows with an unseen carrier (60 of 814, limit 5.0%)",
    ),
}


@pytest.mark.parametrize("name", REFUSED_ROWS)
def test_too_many_rows_that_cannot_be_used(published: Path, name: str) -> None:
    replacement, words = REFUSED_ROWS[name]
    before = visible(published)
    reland(published, DAY, f"SELECT * EXCLUDE (n) REPLACE ({replacement}) FROM {NUMBERED}")
    assert_refused(run_dag(PREDICT, DAY), "audit_predictions", published, before, "not fit to publish", words)


def test_a_few_bad_rows_are_set_aside_with_their_reason(published: Path) -> None:
    """Rows in = rows scored + rows quarantined, and readers can see which and why."""
    landed = reland(
        published, NEXT,
        """SELECT * EXCLUDE (n) REPLACE (
             CASE WHEN n <= 3 THEN 'XXX' ELSE origin END AS origin,
             CASE n WHEN 4 THEN 'NaN' WHEN 5 THEN '-inf' WHEN 6 THEN '1e300' ELSE distance END::DOUBLE AS distance,
             CASE n WHEN 7 THEN 0 ELSE flight_number END AS flight_number)
           FROM """ + NUMBERED,
    )  # fmt: skip
    # The weather of an hour is infinite at one airport and no number at another: features of flights that are in order.
    reland(
        published, NEXT,
        """SELECT * REPLACE (CASE WHEN observed_hour <> '2013-02-04 09:00' OR origin = 'LGA' THEN temperature
             WHEN origin = 'EWR' THEN 'inf' ELSE 'NaN' END::DOUBLE AS temperature) FROM landed""",
        table="weather",
    )  # fmt: skip
    run = run_dag(PREDICT, NEXT)
    assert run.state == "success", states(run)
    (body,) = [record.body for record in ledger.read("publication", MODEL, prefix=f"{NEXT}.")]
    scored, aside = (
        rows(live_file(published, NEXT), "flight_id"),
        rows(live_file(published, NEXT, "quarantine"), "flight_id, reason"),
    )
    assert body["rows_in"] == landed == len(scored) + len(aside)
    assert (body["rows_scored"], body["rows_quarantined"]) == (len(scored), len(aside))
    assert not {row[0] for row in scored} & {row[0] for row in aside}
    reasons = [row[1] for row in aside]
    assert {reason: reasons.count(reason) for reason in reasons} == body["quarantine_reasons"]
    assert body["quarantine_reasons"] == {
        "origin_is_ours": 3, "distance_is_possible": 3, "flight_number_is_possible": 1, "not_finite: temperature": 5
    }  # fmt: skip


def test_a_few_unseen_categories_and_one_more_column_are_published_with_a_note(published: Path) -> None:
    landed = reland(
        published, NEXT,
        """SELECT * EXCLUDE (n) REPLACE (CASE WHEN n <= 9 THEN 'ZZ' ELSE carrier END AS carrier), 'news' AS gossip
           FROM """ + NUMBERED,
    )  # fmt: skip
    run = run_dag(PREDICT, NEXT)
    assert run.state == "success", states(run)
    (body,) = [record.body for record in ledger.read("publication", MODEL, prefix=f"{NEXT}.")]
    assert body["unseen"]["carrier"] == 9 and body["rows_scored"] == landed
    warnings = run.get_task_instance("validate_source").xcom_pull(task_ids="validate_source")["warnings"]
    assert any("gossip: unknown column" in warning for warning in warnings)
    assert any(warning.startswith("carrier:") for warning in warnings)
    assert mails(published) == []


@pytest.mark.parametrize(
    ("how", "file"),
    [("bit", "model.ubj"), ("bit", "golden.parquet"), ("bit", "manifest.json"), ("cut", "model.ubj"), ("gone", "model.ubj")],
)  # fmt: skip
def test_a_damaged_model_is_refused_before_it_is_loaded(published: Path, how: str, file: str) -> None:
    before = visible(published)
    champion = registry().alias(MODEL, "champion")
    assert champion is not None and champion.artifact.startswith(str(published))
    damage(Path(champion.artifact) / file, how)
    run = run_dag(PREDICT, DAY)
    assert_refused(run, "score", published, before, file, "roll back to the previous version")
    assert run.get_task_instance("score").try_number == 1
    assert not list((published / "staging").glob(f"{MODEL}/{DAY}/{workspace(run)}/scores.parquet"))


def test_no_champion_yet(lake: Path, airflow_database: None) -> None:
    simulator.land(lake, FIRST, FIRST)
    run = run_dag(PREDICT, FIRST.isoformat())
    assert_refused(run, "choose_model", lake, {}, "has no champion yet", "run train_flight_delays")


def test_a_full_disk(published: Path, tmp_path: Path) -> None:
    """Files may not grow beyond a limit, which the features of so many rows exceed."""
    limit = 5_500_000
    reland(
        published, NEXT,
        """SELECT landed.* REPLACE (concat_ws('-', flight_id, sha256(flight_id || copy), md5(copy || flight_id)) AS flight_id)
           FROM landed, range(120) AS copies(copy)""",
    )  # fmt: skip
    shutil.rmtree(published / "ledger" / "publication")  # so that the number of rows is not unusual
    before = visible(published)
    run = subprocess.run(
        [sys.executable, "-m", "tests.dag_runs", json.dumps({"dag_id": PREDICT, "partition": NEXT, "run_id": "manual__full"})],
        cwd=REPOSITORY, env=own_database(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert "run manual__full failed" in run.stdout, run.stdout[-3000:]
    (mail,) = mails(published)
    assert "build_features" in mail["text"] and "File too large" in " ".join(mail["text"].split()), mail["text"]
    assert visible(published) == before
    assert [file for file in published.rglob("*") if file.name.startswith(".") or file.name.endswith(".tmp")] == []
    assert not list((published / "staging" / MODEL / NEXT).rglob("features.parquet"))


def test_a_broken_model_file_is_told_by_the_ui_and_takes_no_other_model_down(edit_model: Edit) -> None:
    good = edit_model("name: flight_delays", "name: flight_delays")
    broken = good.with_name("churn")
    shutil.copytree(good, broken)
    text = (broken / "model.yaml").read_text()
    (broken / "model.yaml").write_text(
        text.replace("name: flight_delays", "name: churn").replace("max_trees: 60", "max_treees: 60")
    )
    bag = DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder")
    assert set(bag.dags) == {f"{kind}_flight_delays" for kind in ("predict", "train", "arrivals", "rollback", "monitor", "label")}
    ((file, error),) = bag.import_errors.items()
    assert Path(file).name == "model_errors.py"
    assert "churn/model.yaml: training.max_treees: Extra inputs are not permitted" in error
    assert "flight_delays/" not in error.replace(str(broken), "")


def test_sql_that_does_not_parse(published: Path, edit_model: Edit) -> None:
    before = visible(published)
    edit_model("WHERE flights.partition_date", "WHERE WHERE flights.partition_date", "features.sql")
    with pytest.raises(InvalidQuery, match=r"features\.sql:\d+ \(duckdb\): does not parse"):
        queries.check(load_model(MODEL))
    assert_refused(run_dag(PREDICT, DAY), "build_features", published, before, "features.sql", "(duckdb): does not parse")


def test_sql_that_only_one_platform_lacks_is_found_before_it_runs_there(edit_model: Edit) -> None:
    edit_model("flights.distance,", "LIST_SUM([flights.distance]) AS distance,", "features.sql")
    with pytest.raises(InvalidQuery, match=r"features\.sql(:\d+)? \((bigquery|athena)\)"):
        queries.check(load_model(MODEL))


def damage(file: Path, how: str) -> None:
    content = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 1
        file.write_bytes(content)


def workspace(run: Any) -> str:
    found = run.get_task_instance("resolve_partition").xcom_pull(task_ids="resolve_partition", key="run")["workspace"]
    assert re.fullmatch("[0-9a-f]{16}", found)
    return found
