"""The statements of BigQuery ML: Google's analyser takes them, and they learn from what the DAGs learn from."""

from __future__ import annotations

import json
import subprocess
from datetime import date
from typing import Any

import pyarrow.parquet as pq
import pytest

from demo.gcp_landing import kind_of
from include import bigquery_ml
from include.cli import main
from include.config import REPOSITORY, load_model
from include.platforms.gcp.tables import TYPES
from tests.localcloud.cloud import PYTHON

DATASET, DAY = "my-project.flights", date(2013, 4, 1)
MODELS = ("flight_delays", "arrival_minutes")


@pytest.mark.localcloud
@pytest.mark.gcp
@pytest.mark.parametrize("name", MODELS)
def test_google_analyses_them(name: str, landed: Any) -> None:
    model, tables = load_model(name), {}
    for folder in landed.iterdir():
        schema = pq.read_schema(next(folder.rglob("*.parquet")))
        tables[f"{DATASET}.{folder.name}"] = {field.name: kind_of(field.type) for field in schema} | {"partition_date": "DATE"}
    features = {**dict.fromkeys(model.features.numeric, "FLOAT64"), **dict.fromkeys(model.features.categorical, "STRING")}
    made = bigquery_ml.statements(model, DATASET, DAY, DAY)
    asked = {
        "statements": [made.create, made.evaluate, made.predict],
        "tables": tables,
        "model": f"{DATASET}.{name}_bigquery_ml",
        "label": "INT64" if model.task == "classification" else "FLOAT64",
        "features": features,
        "rows": {model.source.key: TYPES[model.source.columns[model.source.key]], "partition_date": "DATE", **features},
    }
    done = subprocess.run(
        [PYTHON, "-m", "tests.gcp.analyse_ml"], input=json.dumps(asked), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.split() == ["CreateModelStmt", "QueryStmt", "QueryStmt"], done.stderr[-2000:]


@pytest.mark.localcloud
@pytest.mark.gcp
def test_the_analyser_refuses_what_is_wrong() -> None:
    asked = {"statements": ["SELECT no_column FROM ML.PREDICT(MODEL `p.d.m`, (SELECT 1 AS a))"], "tables": {}, "model": "p.d.m"}
    asked |= {"label": "INT64", "features": {"a": "INT64"}, "rows": {"a": "INT64"}}
    done = subprocess.run(
        [PYTHON, "-m", "tests.gcp.analyse_ml"], input=json.dumps(asked), cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.returncode == 1 and "no_column" in done.stderr


def test_the_holdout_is_not_learned_from() -> None:
    """As of 1 April, with labels of the day before, fourteen days held out of ninety."""
    made = bigquery_ml.statements(load_model("flight_delays"), DATASET, DAY, DAY)
    assert "BETWEEN DATE '2013-01-01' AND DATE '2013-03-17'" in made.create and "2013-03-18" not in made.create
    assert "BETWEEN DATE '2013-03-18' AND DATE '2013-03-31'" in made.evaluate
    assert "BETWEEN DATE '2013-04-01' AND DATE '2013-04-01'" in made.predict and "flight_outcomes" not in made.predict
    assert not [text for text in (made.create, made.evaluate, made.predict) if "@" in text]


def test_a_feed_that_has_ended_is_learned_from_to_its_end() -> None:
    made = bigquery_ml.statements(load_model("flight_delays"), DATASET, date(2014, 6, 1), date(2013, 12, 31))
    assert "BETWEEN DATE '2013-12-18' AND DATE '2013-12-31'" in made.evaluate and "2014" not in made.create


def test_what_is_no_dataset_reaches_no_statement() -> None:
    for dataset in ("flights", "a.b.c", "my-project.x` ; DROP", ""):
        with pytest.raises(ValueError, match=r"give project\.dataset"):
            bigquery_ml.statements(load_model("flight_delays"), dataset, DAY, DAY)
    with pytest.raises(ValueError, match="no day to learn from"):
        bigquery_ml.statements(load_model("flight_delays"), DATASET, date(2013, 1, 5), DAY)


def test_the_command_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bigquery-ml", "arrival_minutes", DATASET, "2013-04-01"]) == 0
    told = capsys.readouterr().out
    assert told.count(";\n") == 3 and "BOOSTED_TREE_REGRESSOR" in told and "ML.PREDICT" in told
    assert main(["bigquery-ml", "arrival_minutes", "nothing", "2013-04-01"]) == 1
    assert "give project.dataset" in capsys.readouterr().err
