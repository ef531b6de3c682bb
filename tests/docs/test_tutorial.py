"""docs/tutorial.md, done to the letter: what it says to write is written, and what it says to trigger is triggered."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from include import champions, ledger
from include.cli import main
from tests.conftest import ROOT
from tests.dag_runs import run_dag, states

PAGE = (ROOT / "docs" / "tutorial.md").read_text()
MODEL = "biopsy"


def written(file: str) -> str:
    """The block of the page that is to be in a file."""
    (found,) = re.findall(rf"^`{re.escape(file)}`[^\n]*\n\n```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def said(pattern: str) -> str:
    (found,) = re.findall(pattern, PAGE)
    return str(found)


@pytest.fixture
def landed(tmp_path: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("models", "expectations"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"AILERON_{name.upper()}", str(tmp_path / name))
    assert main(["new-model", MODEL]) == 0
    for name in ("model.yaml", "features.sql", "labels.sql"):
        (tmp_path / "models" / MODEL / name).write_text(written(f"include/models/{MODEL}/{name}"))
    renamed = re.findall(r"^\| `(\w+)` \| `(\w+)` \|$", PAGE, re.MULTILINE)
    suites = sorted((tmp_path / "expectations" / MODEL).iterdir())
    assert len(renamed) == 3 and len(suites) == 4
    for suite in suites:
        text = suite.read_text()
        for old, new in renamed:
            text = text.replace(f'"{old}"', f'"{new}"')
        suite.write_text(text)
    assert main(["check-models"]) == 0
    script = tmp_path / "land_biopsies.py"
    script.write_text(written("land_biopsies.py"))
    subprocess.run([sys.executable, str(script), str(lake)], check=True)
    return lake


def test_the_page_leads_from_nothing_to_a_champion_that_predicts(landed: Path, airflow_database: None) -> None:
    days = sorted(path.name for path in (landed / "source" / "biopsies").iterdir())
    number, last = re.findall(r"lands (\d+) days, the last of which is ([0-9-]+)", PAGE)[0]
    assert (len(days), days[-1]) == (int(number), f"partition_date={last}")

    as_of = said(r"`train_biopsy` and \*Trigger\* it with \*As of\* ([0-9-]+)")
    trained = run_dag(f"train_{MODEL}", conf={"as_of": as_of})
    assert trained.state == "success" and states(trained)["promote"] == "success", states(trained)
    (verdict,) = (record.body for record in ledger.read("verdict", MODEL))
    assert verdict["metrics"]["auc"] == pytest.approx(float(said(r"by an AUC of ([0-9.]+[0-9])")), abs=0.01)
    assert champions.champion(MODEL) is not None

    day = said(r"the \*Partition\* ([0-9-]+) and \*Dry run\*")
    tried = run_dag(f"predict_{MODEL}", conf={"partition": day, "dry_run": True})
    assert tried.state == "success" and not (landed / "predictions").exists(), states(tried)
    predicted = run_dag(f"predict_{MODEL}", conf={"partition": day})
    assert predicted.state == "success", states(predicted)
    rows = int(said(r"Readers find (\d+) rows"))
    file = landed / said(r"`\.local/lake/(predictions/\S+)`")
    assert duckdb.sql(f"SELECT count(*), count(DISTINCT sample_id) FROM '{file}'").fetchall() == [(rows, rows)]
    assert main(["champion", MODEL]) == 0
    assert main(["explain", MODEL, said(r"KEY=(\S+)")]) == 0

    watched = run_dag(f"monitor_{MODEL}", day)
    assert watched.state == "success", states(watched)
    (seen,) = ledger.read("monitoring_verdict", MODEL, prefix=day)
    assert seen.body["outcome"] == "ok" and "a week is\njudged" in PAGE, seen.body
    assert any("14 rows are too few" in note for note in seen.body["notes"]), seen.body["notes"]
