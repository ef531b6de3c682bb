"""train_<model>, run for real: what is frozen, what is registered, and who may become champion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from include import ledger
from include.core.files import sha256_of
from include.registry import registry
from include.tasks.promotion import champion_as_of
from tests.dag_runs import run_again, run_dag, states
from tests.dags.lakes import MODEL, TRAIN, mails, reland, source_file

AS_OF = "2013-02-01"  # of the champion that the lake has


def told(run: Any, task: str) -> Any:
    """What a task handed on."""
    return run.get_task_instance(task).xcom_pull(task_ids=task)


def files(folder: Path) -> dict[str, tuple[str, int]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (sha256_of(file), file.stat().st_mtime_ns) for file in found}


def champion() -> str | None:
    found = registry().alias(MODEL, "champion")
    return found.version if found else None


def promotions() -> list[dict[str, Any]]:
    return [record.body for record in ledger.read("promotion", MODEL)]


def assert_refused(run: Any, task: str, lake: Path, *words: str) -> None:
    """The run failed at this task, the champion is who it was, and one mail says why."""
    assert run.state == "failed" and states(run)[task] == "failed" and states(run)["promote"] == "upstream_failed", states(run)
    assert champion() == "1" and len(promotions()) == 1 and len(ledger.read("verdict", MODEL)) == 1
    (mail,) = mails(lake)
    text = " ".join(mail["text"].split())
    assert all(word in text for word in words), mail["text"]


def test_the_same_training_is_the_same_snapshot_the_same_artifact_and_the_same_version(flights: Path) -> None:
    first = registry().version(MODEL, "1")
    kept = {name: files(flights / name / MODEL) for name in ("training", "models")}
    again = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert again.state == "success", states(again)
    assert {name: files(flights / name / MODEL) for name in kept} == kept, "what was frozen was written again"
    assert told(again, "register")["version"] == "1"

    snapshot, trained = told(again, "snapshot_training_set"), told(again, "train")
    for name in kept:
        shutil.rmtree(flights / name / MODEL)
    rebuilt = run_again(TRAIN, again.run_id, list(states(again)))
    assert rebuilt.state == "success", states(rebuilt)
    assert told(rebuilt, "snapshot_training_set") == snapshot and told(rebuilt, "train") == trained
    assert sha256_of(Path(snapshot["file"])) == snapshot["sha256"]
    assert trained["manifest_sha256"] == first.manifest_sha256
    assert told(rebuilt, "register")["version"] == champion() == "1"
    assert [body["run_id"] for body in promotions()].count(again.run_id) == 1
    assert len(ledger.read("verdict", MODEL)) == 2


def test_a_corrected_label_is_another_snapshot(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("min_rows: 5000", "min_rows: 500000")
    before = files(flights / "training" / MODEL)
    reland(flights, "2013-01-20", "SELECT * REPLACE (400.0 AS arrival_delay) FROM landed", table="flight_outcomes")
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "train", flights, "500000", "rows")
    after = files(flights / "training" / MODEL)
    assert len(after) == 2 * len(before) and before.items() <= after.items()
    manifest = json.loads((Path(told(run, "snapshot_training_set")["file"]).with_name("manifest.json")).read_text())
    assert len(manifest["sources"]) == 31


def test_the_holdout_is_later_than_all_that_was_learned_from(flights: Path) -> None:
    version = registry().version(MODEL, "1")
    manifest = json.loads((Path(version.artifact) / "manifest.json").read_text())
    training, holdout = manifest["training"], manifest["holdout"]
    assert training["first"] == "2013-01-01" and training["last"] < holdout["first"] == "2013-01-18"
    assert holdout["last"] == "2013-01-31" < AS_OF


@pytest.mark.parametrize(("table", "day"), [("flights", "2013-01-20"), ("flight_outcomes", "2013-01-31")])
def test_a_missing_partition_of_the_window_is_named(flights: Path, table: str, day: str) -> None:
    source_file(flights, day, table).with_name("_SUCCESS").unlink()
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "snapshot_training_set", flights, f"{table} {day}", "have not landed", "give another as_of")


def test_labels_that_are_not_due_yet_are_named(flights: Path) -> None:
    run = run_dag(TRAIN, conf={"as_of": "2013-02-11"})
    assert_refused(run, "snapshot_training_set", flights, "flight_outcomes 2013-02-09, flight_outcomes 2013-02-10")


def test_a_run_of_no_day_is_refused(flights: Path) -> None:
    assert_refused(run_dag(TRAIN), "resolve_window", flights, "fill in the field as_of")


def test_a_day_with_too_little_before_it_is_refused(flights: Path) -> None:
    assert_refused(run_dag(TRAIN, conf={"as_of": "2013-01-10"}), "resolve_window", flights, "give a later as_of")


def test_a_model_below_its_floor_changes_nothing(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("{auc: 0.6}", "{auc: 0.99}")
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert run.state == "success" and mails(flights) == []
    assert {task: state for task, state in states(run).items() if state != "success"} == dict.fromkeys(
        ("gate", "register", "promote"), "skipped"
    )
    verdict = ledger.read("verdict", MODEL)[-1].body
    assert verdict["outcome"] == "REJECT" and verdict["run_id"] == run.run_id and "below its floor 0.99" in verdict["reasons"][0]
    assert champion() == "1" and len(promotions()) == 1 and registry().alias(MODEL, "previous") is None


def test_a_promotion_is_remembered_once_and_by_the_day_it_was_about(flights: Path) -> None:
    run = run_dag(TRAIN, conf={"as_of": "2013-02-08"})
    assert run.state == "success", states(run)

    def seen() -> list[Any]:
        previous = registry().alias(MODEL, "previous")
        return [champion(), previous and previous.version, promotions()]

    found = seen()
    assert found[:2] == ["2", "1"] and [body["version"] for body in promotions()] == ["1", "2"]
    assert promotions()[1]["previous"] == "1"
    retried = run_again(TRAIN, run.run_id, ["promote"])
    assert retried.state == "success" and retried.get_task_instance("promote").try_number == 2
    assert seen() == found

    days = {"2013-01-31": None, "2013-02-01": "1", "2013-02-07": "1", "2013-02-08": "2", "2013-12-31": "2"}
    versions = {day: champion_as_of(MODEL, date.fromisoformat(day)) for day in days}
    assert {day: version and version.version for day, version in versions.items()} == days
