"""docs/add-a-model.md, done: the scaffold as it is, with data landed as the page says, is trained and predicts."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from include.cli import main
from tests.dag_runs import run_dag, states

START = date(2024, 1, 1)
DAYS = 34
ROWS = 80


def land(lake: Path, table: str, day: date, select: str) -> None:
    folder = lake / "source" / table / f"partition_date={day}"
    folder.mkdir(parents=True)
    duckdb.sql(f"COPY ({select}) TO '{folder / 'data.parquet'}'")
    (folder / "_SUCCESS").write_text("" if table.endswith("outcomes") else f'{{"rows": {ROWS}}}')


@pytest.fixture
def churn(tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    for name in ("models", "expectations"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"AILERON_{name.upper()}", str(tmp_path / name))
    assert main(["new-model", "churn"]) == 0
    for number in range(DAYS):
        day = START + timedelta(days=number)
        amount, segment = f"hash(i + 1000 * {number}) % 100 / 1.0", "['a', 'b'][1 + i % 2]"
        rows = f"SELECT '{day}-' || i AS entity_id, {amount} AS amount, {segment} AS segment FROM range({ROWS}) AS numbers(i)"
        land(lake, "churn_entities", day, rows)
        # Not by the amount alone: a feature that tells the label by itself is taken for a leak.
        chance = "hash(entity_id || 'x') % 100 / 1.0"
        happened = f"amount + (segment = 'a')::INT * 10 + {chance} > 110 AS happened"
        land(lake, "churn_outcomes", day, f"SELECT entity_id, {happened} FROM ({rows})")
    return "churn"


def test_the_page_leads_from_nothing_to_published_predictions(churn: str, lake: Path, airflow_database: None) -> None:
    day = START + timedelta(days=DAYS - 1)
    trained = run_dag("train_churn", conf={"as_of": day.isoformat()})
    assert trained.state == "success" and states(trained)["promote"] == "success", states(trained)

    tried = run_dag("predict_churn", conf={"partition": day.isoformat(), "dry_run": True})
    assert tried.state == "success" and not (lake / "predictions").exists()

    predicted = run_dag("predict_churn", day.isoformat())
    assert predicted.state == "success", states(predicted)
    file = lake / "predictions" / "churn" / f"partition_date={day}" / "data.parquet"
    seen = duckdb.sql(f"SELECT count(*), count(DISTINCT entity_id), min(score) >= 0 AND max(score) <= 1 FROM '{file}'").fetchall()
    assert seen == [(ROWS, ROWS, True)]
