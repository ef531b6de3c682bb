"""train_<model>, run for real: what is admitted, frozen, judged and registered, and who may become champion."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.sdk.exceptions import ParamValidationError
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType
from sqlalchemy import select

from demo import simulator
from include import champions, cli, ledger, lineage, retraining
from include.config import load_model
from include.core.files import sha256_of
from include.registry import registry
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import ARRIVALS, MODEL, PREDICT, TRAIN, live_file, mails, reland, rows, source_file

AS_OF = "2013-02-01"  # of the champion that the lakes have
LATER = "2013-02-08"
AFTER_GATE = ("register", "shadow_score", "approve", "promote")


@pytest.fixture(autouse=True)
def no_runs(airflow_database: None) -> Iterator[None]:
    """The ids of runs that requests start count admissions, and all tests begin with the same."""
    yield
    with create_session() as session:
        asked_for = DagRun.run_id.startswith("retraining__") | DagRun.run_id.startswith("arrival__")
        for run in session.scalars(select(DagRun).where(asked_for)):
            session.delete(run)


@pytest.fixture(scope="module")
def weak_lake(tmp_path_factory: pytest.TempPathFactory, airflow_database: None, quick_models: Path) -> Path:
    """A lake whose champion, as of 1 February, was allowed one tree: what is trained as it should be is better."""
    folder = tmp_path_factory.mktemp("weak") / "lake"
    simulator.land(folder, date(2013, 1, 1), date(2013, 2, 10))
    simulator.land_outcomes(folder, date(2013, 1, 1), date(2013, 2, 8))
    models = folder.parent / "models"
    shutil.copytree(quick_models / MODEL, models / MODEL)
    yaml = models / MODEL / "model.yaml"
    yaml.write_text(yaml.read_text().replace("max_trees: 60", "max_trees: 1").replace("auc: 0.6", "auc: 0.5"))
    with lake_only(folder, models):
        run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert run.state == "success" and states(run)["promote"] == "success", states(run)
    return folder


@pytest.fixture
def weak(weak_lake: Path, lake: Path, edit_model: Callable[..., Path]) -> Path:
    """A copy of that lake, and the model as it should be."""
    edit_model("slices: [origin, carrier]", "slices: [origin]")  # by chance one carrier would come off worse
    # The weak one's scores are all alike, so hardly any decision stays: the tests of this limit set it back.
    edit_model("max_score_shift: 0.75", "max_score_shift: 1.0")
    edit_model("  max_champion_age_days", "  max_decision_churn: 1.0\n  max_champion_age_days")
    return copied(weak_lake, lake)


def told(run: Any, task: str) -> Any:
    """What a task handed on."""
    return run.get_task_instance(task).xcom_pull(task_ids=task)


def files(folder: Path) -> dict[str, tuple[str, int]]:
    found = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): (sha256_of(file), file.stat().st_mtime_ns) for file in found}


def champion() -> str | None:
    found = champions.champion(MODEL)
    return found.version if found else None


def alias(name: Any) -> str | None:
    found = registry().alias(MODEL, name)
    return found.version if found else None


def verdicts() -> list[dict[str, Any]]:
    return [record.body for record in ledger.read("verdict", MODEL)]


def assert_refused(run: Any, task: str, lake: Path, *words: str) -> None:
    """The run failed at this task, the champion is who it was, and one mail says why."""
    assert run.state == "failed" and states(run)[task] == "failed" and states(run)["promote"] == "upstream_failed", states(run)
    assert champion() == alias("champion") == "1" and len(champions.history(MODEL)) == 1 and len(verdicts()) == 1
    mail = mails(lake)[-1]
    text = " ".join(mail["text"].split())
    assert all(word in text for word in words), mail["text"]


def assert_stays(run: Any, task: str) -> None:
    """The run ended at this task, without a failure, and the champion is who it was."""
    found = states(run)
    assert run.state == "success" and found[task] == found["promote"] == "skipped", found
    assert champion() == alias("champion") == "1" and len(champions.history(MODEL)) == 1


def test_the_same_training_is_the_same_snapshot_the_same_artifact_and_no_other_model(flights: Path) -> None:
    first = registry().version(MODEL, "1")
    kept = {name: files(flights / name / MODEL) for name in ("training", "models")}
    again = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_stays(again, "gate")
    assert verdicts()[-1]["outcome"] == "HOLD" and "The challenger is the champion" in verdicts()[-1]["reasons"][0]
    assert {name: files(flights / name / MODEL) for name in kept} == kept, "what was frozen was written again"

    snapshot, trained = told(again, "snapshot_training_set"), told(again, "train")
    for name in kept:
        shutil.rmtree(flights / name / MODEL)
    rebuilt = run_again(TRAIN, again.run_id, ["snapshot_training_set", "tune", "train"])
    assert rebuilt.state == "success", states(rebuilt)
    assert told(rebuilt, "snapshot_training_set") == snapshot, "an old snapshot is made again, byte for byte"
    assert sha256_of(Path(snapshot["file"])) == snapshot["sha256"]
    assert told(rebuilt, "train")["manifest_sha256"] == trained["manifest_sha256"] == first.manifest_sha256


def test_a_snapshot_says_what_it_was_made_of(flights: Path) -> None:
    (file,) = (flights / "training" / MODEL).rglob("manifest.json")
    manifest = json.loads(file.read_text())
    assert sha256_of(file.with_name("data.parquet")) == manifest["sha256"]
    assert len(manifest["sources"]) == 31 and manifest["sql"].startswith("SELECT") and len(manifest["sql_sha256"]) == 64
    assert manifest["labels"] == {"table": "flight_outcomes", "delay_days": 1, "matured_until": "2013-01-31"}
    assert manifest["holdout"]["first"] == "2013-01-18" and manifest["holdout"]["labelled"] == manifest["holdout"]["rows"]
    ((counted,),) = rows(file.with_name("data.parquet"), "count(*)") or [(0,)]
    assert counted == manifest["rows"]


def test_a_corrected_label_is_another_snapshot(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("min_rows: 5000", "min_rows: 500000")
    before = files(flights / "training" / MODEL)
    reland(flights, "2013-01-20", "SELECT * REPLACE (400.0 AS arrival_delay) FROM landed", table="flight_outcomes")
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "tune", flights, "500000", "rows")
    after = files(flights / "training" / MODEL)
    assert len(after) == 2 * len(before) and before.items() <= after.items()


def test_the_holdout_is_later_than_all_that_was_learned_from(flights: Path) -> None:
    version = registry().version(MODEL, "1")
    manifest = json.loads((Path(version.artifact) / "manifest.json").read_text())
    training, holdout = manifest["training"], manifest["holdout"]
    assert training["last"] < holdout["first"] == "2013-01-18" and holdout["last"] == "2013-01-31" < AS_OF
    assert verdicts()[0]["holdout"]["first"] == "2013-01-18"


@pytest.mark.parametrize(("table", "day"), [("flights", "2013-01-20"), ("flight_outcomes", "2013-01-31")])
def test_a_missing_partition_of_the_window_is_named(flights: Path, table: str, day: str) -> None:
    source_file(flights, day, table).with_name("_SUCCESS").unlink()
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "snapshot_training_set", flights, f"{table} {day}", "have not landed", "give another as_of")


def test_labels_that_are_not_due_yet_are_named(flights: Path) -> None:
    run = run_dag(TRAIN, conf={"as_of": "2013-02-11"})
    assert_refused(run, "snapshot_training_set", flights, "flight_outcomes 2013-02-09, flight_outcomes 2013-02-10")


def test_a_run_of_no_day_is_refused(flights: Path) -> None:
    assert_refused(run_dag(TRAIN), "admit", flights, "fill in the field as_of")


def test_a_day_with_too_little_before_it_is_refused(flights: Path) -> None:
    assert_refused(run_dag(TRAIN, conf={"as_of": "2013-01-20"}), "admit", flights, "give a later as_of")


# Within the range of a training window tomorrow is there to be read; on the day itself it is not.
LABEL_OF_TOMORROW = """-- shifted by a day
SELECT
  flights.flight_id,
  flights.partition_date,
  MAX(CASE WHEN later.arrival_delay > 15 THEN 1 ELSE 0 END) AS label
FROM {{ table("flights") }}
INNER JOIN {{ table("flight_outcomes") }} AS later
  ON SUBSTRING(later.flight_id, 11) = SUBSTRING(flights.flight_id, 11)
  AND later.partition_date = CAST(flights.partition_date + INTERVAL 1 DAY AS DATE)
WHERE flights.partition_date BETWEEN :first_partition AND :last_partition
  AND later.partition_date BETWEEN :first_partition AND :last_partition
GROUP BY flights.flight_id, flights.partition_date
"""


def test_a_feature_from_the_future_is_caught(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model(
        "flights.scheduled_departure) - INTERVAL 1 HOUR", "flights.scheduled_departure) + INTERVAL 24 HOUR", "features.sql"
    )
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "inspect_training_set", flights, "before any later partition landed", "temperature (")


def test_a_label_shifted_by_a_day_is_caught(flights: Path, edit_model: Callable[..., Path]) -> None:
    folder = edit_model("MAX(", "MAX(", "labels.sql")
    (folder / "labels.sql").write_text(LABEL_OF_TOMORROW)
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "inspect_training_set", flights, "before any later partition landed", "rows (")


def test_a_feature_that_is_the_label_is_caught(flights: Path) -> None:
    for day in range(1, 32):
        outcomes = source_file(flights, f"2013-01-{day:02}", "flight_outcomes")
        late = f"(SELECT max(arrival_delay) FROM read_parquet('{outcomes}') o WHERE o.flight_id = landed.flight_id)"
        reland(flights, f"2013-01-{day:02}", f"SELECT * REPLACE (500 + coalesce({late}, 900) AS distance) FROM landed")
    run = run_dag(TRAIN, conf={"as_of": AS_OF})
    assert_refused(run, "inspect_training_set", flights, "distance", "training.max_feature_auc")


def test_a_model_below_its_floor_changes_nothing(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("{auc: 0.6}", "{auc: 0.99}")
    run = run_dag(TRAIN, conf={"as_of": LATER})
    assert_stays(run, "gate")
    assert mails(flights) == [] and {states(run)[task] for task in AFTER_GATE} == {"skipped"}
    verdict = verdicts()[-1]
    assert verdict["outcome"] == "REJECT" and verdict["run_id"] == run.run_id and verdict["champion"] == "1"
    assert any("below its floor 0.99" in reason for reason in verdict["reasons"])
    page = Path(verdict["page"]).read_text()
    assert "REJECT" in page and "below its floor 0.99" in page
    assert alias("previous") is None


def test_a_better_model_is_promoted_once_and_its_day_remembered(weak: Path) -> None:
    run = run_dag(TRAIN, conf={"as_of": LATER})
    assert run.state == "success" and states(run)["promote"] == "success", [states(run), verdicts()[-1]["reasons"]]
    assert told(run, "approve") == {"needed": False, "approved": True}, "the model asks for its first version only"
    verdict = verdicts()[-1]
    assert verdict["rule"] == "superiority" and verdict["champion"] == "1" and verdict["champion_number"] == 1

    def seen() -> list[Any]:
        return [champion(), alias("champion"), alias("previous"), alias("challenger"), len(champions.history(MODEL))]

    assert seen() == ["2", "2", "1", "2", 2]
    retried = run_again(TRAIN, run.run_id, ["gate", "register", "shadow_score", "approve", "promote"])
    assert retried.state == "success" and retried.get_task_instance("promote").try_number == 2
    assert seen() == ["2", "2", "1", "2", 2] and len(verdicts()) == 2

    days = {"2013-01-31": None, "2013-02-01": "1", "2013-02-07": "1", "2013-02-08": "2", "2013-12-31": "2"}
    versions = {day: champions.champion_as_of(MODEL, date.fromisoformat(day)) for day in days}
    assert {day: version and version.version for day, version in versions.items()} == days


def test_the_first_model_needs_a_yes_and_the_answer_is_kept(weak: Path) -> None:
    (record,) = ledger.read("approval", MODEL)
    assert record.body["approved"] is True and record.body["by"] == "ada" and record.body["why"] == "seen the report"
    assert champions.history(MODEL)[0].body["approval"]["by"] == "ada"
    (question,) = [mail for mail in mails(weak) if mail["name"].startswith("approval-")]
    assert question["to"] == ["oncall@example.com"] and "is version 1 to become champion?" in question["subject"]
    assert "required_actions" in question["text"] and "without one the champion stays" in " ".join(question["text"].split())


def test_a_version_that_decides_most_rows_differently_is_not_promoted_without_a_look(
    weak: Path, edit_model: Callable[..., Path]
) -> None:
    edit_model("max_decision_churn: 1.0", "max_decision_churn: 0.01")
    run = run_dag(TRAIN, conf={"as_of": LATER})
    assert run.state == "failed" and states(run)["approve"] == "failed" and champion() == alias("champion") == "1"
    text = " ".join(mails(weak)[-1]["text"].split())
    assert "of the decisions would change (limit 1.0%)" in text and "on partition 2013-02-08" in text


@pytest.mark.parametrize("answer", ["Reject", ""])
def test_a_no_and_no_answer_leave_the_champion(weak: Path, answer: str) -> None:
    yaml = Path(load_model(MODEL).folder) / "model.yaml"
    yaml.write_text(yaml.read_text().replace("when: first", "when: always"))
    run = run_dag(TRAIN, conf={"as_of": LATER}, answer=answer)
    assert_stays(run, "approve")
    body = ledger.read("approval", MODEL)[-1].body
    assert body["approved"] is False and body["timed_out"] is (answer == "") and body["version"] == "2"
    if answer:
        again = run_again(TRAIN, run.run_id, ["approve", "promote"])  # somebody was talked round
        assert states(again)["promote"] == "success" and champion() == "2"


def test_of_two_that_want_to_be_champion_the_second_is_compared_again(weak: Path) -> None:
    yaml = Path(load_model(MODEL).folder) / "model.yaml"
    yaml.write_text(yaml.read_text().replace("when: first", "when: always"))

    def promoted_meanwhile() -> str:
        other = registry().register(MODEL, str(weak / "models" / "other"), "e" * 64, {"auc": 0.7}, {})
        champions.promote(MODEL, other, date(2013, 2, 5), 1, "f" * 16, {"reasons": ["another run"]})
        return "Approve"

    run = run_dag(TRAIN, conf={"as_of": LATER}, answer=promoted_meanwhile)
    assert run.state == "success" and states(run)["promote"] == "skipped"
    assert [change.version.version for change in champions.history(MODEL)] == ["1", "3"] and alias("champion") == "3"
    (request,) = retraining.open_requests(MODEL)
    assert request["reason"] == "champion_changed" and request["as_of"] == LATER

    woken = run_dag(ARRIVALS)
    assert states(woken)["start_training"] == "success", states(woken)
    # The other's files are not there, so what was found about it is restored before the comparison is made again.
    champions.roll_back(MODEL, "1", "a" * 16, {"reasons": ["test"]})
    again = run_again(TRAIN, "retraining__000003", [])
    assert states(again)["promote"] == "success" and champion() == alias("champion") == "2"
    assert told(again, "tune")["parameters"] == told(run, "tune")["parameters"]
    assert retraining.open_requests(MODEL) == [] and told(again, "admit")["reason"] == "request, champion_changed"


def test_requests_are_answered_by_one_run_and_a_backfill_by_none(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("  min_rows: 5000", "  min_rows: 5000\n  governor: {cooldown_hours: 0}")
    model = load_model(MODEL)
    for n in range(50):
        retraining.request_training(model, "drift", date(2013, 2, 1), "scheduled", {"partition": n})
    woken = run_dag(ARRIVALS)
    assert states(woken)["start_training"] == "success"
    refused = run_dag(TRAIN, run_type=DagRunType.BACKFILL_JOB)
    assert_stays(refused, "admit")
    run = run_again(TRAIN, "retraining__000002", [])  # the second: the champion's own run was the first
    assert run.state == "success" and told(run, "admit")["as_of"] == "2013-02-01", states(run)
    why = [record.body["why"] for record in ledger.read("training_admission", MODEL)]
    assert len(why) == 3 and "a backfill never trains" in why[1] and "answers 50 open requests: drift" in why[2]


def test_a_rollback_restores_the_version_and_predicts_again_what_the_other_had_published(
    weak: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_dag(TRAIN, conf={"as_of": LATER})
    day, other = "2013-02-09", "2013-02-10"
    for partition in (day, other):
        predicted = run_dag(PREDICT, partition)
        assert predicted.state == "success", states(predicted)
    key = rows(live_file(weak, day), "flight_id")[0][0]
    steps = {step.what: step.facts for step in lineage.explain_prediction(load_model(MODEL), key, None)}
    assert steps["prediction"]["model_version"] == "2" and steps["training run"]["run_id"] == run.run_id
    snapshot = told(run, "snapshot_training_set")["snapshot"]
    assert steps["snapshot"]["snapshot"] == snapshot and steps["verdict"]["outcome"] == "PROMOTE"
    touched = [step.facts for step in lineage.explain_snapshot(load_model(MODEL), snapshot) if step.what == "publication"]
    assert [facts["partition"] for facts in touched] == [day, other]

    with pytest.raises(ParamValidationError):
        run_dag("rollback_flight_delays", conf={"why": ""})
    first = champions.history(MODEL)[0].version
    file = Path(first.artifact) / "model.ubj"
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    damaged = run_dag("rollback_flight_delays", conf={"why": "its files are damaged"})
    assert damaged.state == "failed" and champion() == "2" and "model.ubj" in mails(weak)[-1]["text"]
    file.write_bytes(content)
    refused = run_dag("rollback_flight_delays", conf={"why": "no such version", "version": 7})
    assert refused.state == "failed" and champion() == "2"
    back = run_dag("rollback_flight_delays", conf={"why": "half of the flights get the same score", "last_partition": day})
    assert back.state == "success", states(back)
    assert champion() == alias("champion") == "1" and alias("previous") == "2"
    body = told(back, "roll_back")
    assert body["partitions"] == [day]
    again = run_again(PREDICT, f"rollback__{day}__{body['workspace']}", [])
    assert again.state == "success", states(again)
    assert {version for (version,) in rows(live_file(weak, day), "model_version")} == {"1"}
    assert {version for (version,) in rows(live_file(weak, other), "model_version")} == {"2"}
    (mail,) = [mail for mail in mails(weak) if mail["name"].startswith("rollback-")]
    assert "rolled back from version 2 to 1" in mail["subject"] and day in mail["text"] and "same score" in mail["text"]
    run_again("rollback_flight_delays", back.run_id, ["roll_back", "list_predictions"])
    assert len(champions.history(MODEL)) == 3, "done twice it is done once"

    assert cli.main(["champion", MODEL]) == 0
    assert "half of the flights" in capsys.readouterr().out
    assert cli.main(["explain", MODEL, key]) == 0
    assert "version          1" in capsys.readouterr().out
    assert cli.main(["explain", MODEL, "no-such-flight"]) == 1
    assert "not among the published predictions" in capsys.readouterr().err
