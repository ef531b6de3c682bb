"""A model is a folder: minutes instead of classes, with its own suites and gate, and not a line of Python."""

from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import duckdb
import pytest

from demo import simulator
from include import champions, ledger
from include.config import load_model
from tests.dag_runs import run_dag, states
from tests.dags.lakes import mails

MINUTES = "arrival_minutes"
DAY = "2013-02-03"


@pytest.fixture
def landed(lake: Path, airflow_database: None) -> Path:
    simulator.land(lake, date(2013, 1, 1), date(2013, 2, 3))
    simulator.land_outcomes(lake, date(2013, 1, 1), date(2013, 1, 31))
    return lake


def test_a_regression_is_trained_gated_promoted_predicts_and_is_watched(
    landed: Path, tmp_path: Path, quick_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = run_dag(f"train_{MINUTES}", conf={"as_of": "2013-02-01"})
    assert trained.state == "success" and states(trained)["promote"] == "success", states(trained)
    (verdict,) = (record.body for record in ledger.read("verdict", MINUTES))
    assert verdict["outcome"] == "PROMOTE" and set(verdict["metrics"]) == {"rmse", "mae", "r2"}
    assert 0 < verdict["metrics"]["r2"] < 1 and verdict["metrics"]["mae"] < verdict["metrics"]["rmse"]
    assert "RMSE" in Path(verdict["page"]).read_text()
    assert champions.champion(MINUTES) is not None and champions.champion("flight_delays") is None

    predicted = run_dag(f"predict_{MINUTES}", DAY)
    assert predicted.state == "success", [states(predicted), *(mail["text"] for mail in mails(landed))]
    file = landed / "predictions" / MINUTES / f"partition_date={DAY}" / "data.parquet"
    ((rows, least, most, wrong),) = duckdb.sql(
        f"SELECT count(*), min(score), max(score), count(*) FILTER (decision <> (score >= 30)) FROM read_parquet('{file}')"
    ).fetchall()
    assert rows > 500 and least < 0 < most and wrong == 0, "minutes early and late, and who is worth telling"
    assert load_model(MINUTES).prediction.decision_threshold == 30

    simulator.land_outcomes(landed, date(2013, 2, 1), date(2013, 2, 3))
    week = run_dag(f"monitor_{MINUTES}", conf={"as_of": "2013-02-04"})
    assert week.state == "success", states(week)
    (verdict,) = (record.body for record in ledger.read("monitoring_verdict", MINUTES))
    assert verdict["outcome"] == "cannot judge" and "1 matured days" in verdict["sentences"][0]

    shutil.copytree(quick_models, tmp_path / "watched")
    yaml = tmp_path / "watched" / MINUTES / "model.yaml"
    yaml.write_text(yaml.read_text().replace("monitoring: weekly_query", "drift: {sample: 1}"))
    monkeypatch.setenv("AILERON_MODELS", str(tmp_path / "watched"))
    watched = run_dag(f"monitor_{MINUTES}", DAY)
    assert watched.state == "success", states(watched)
    page = Path(ledger.read("monitoring_verdict", MINUTES, prefix=DAY)[0].body["page"]).read_text()
    assert "departure_hour" in page and "cannot be judged yet" in page
