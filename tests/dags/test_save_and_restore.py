"""docs/operations.md, done: what is saved in the order of the page and put back is the lake as it was."""

from __future__ import annotations

import re
import shutil
import sqlite3
from pathlib import Path

from include import champions, ledger
from include.cli import main
from include.registry import registry
from tests.conftest import ROOT
from tests.dag_runs import run_dag, states
from tests.dags.lakes import MODEL, PREDICT, live_file, rows, visible

DAY, NEXT = "2013-02-03", "2013-02-04"


def steps() -> list[list[str]]:
    """What each step of *Save* names, in their order."""
    section = (ROOT / "docs" / "operations.md").read_text().partition("**Save**")[2].partition("**Restore**")[0]
    return [re.findall(r"`(\w+)(?:/|\.db)`", step) for step in re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]]


def test_what_was_saved_and_put_back_is_as_it_was(published: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    scored = rows(live_file(published, DAY))
    before = visible(published), champions.champion(MODEL), ledger.read("publication", MODEL)
    assert [step[0] for step in steps()] == ["ledger", "registry", "models"]
    for name in [name for step in steps() for name in step]:
        if name == "registry":
            save_registry(published / "registry.db", saved / "registry.db")
        elif (published / name).exists():
            shutil.copytree(published / name, saved / name)
    shutil.rmtree(published)

    shutil.copytree(saved, published)
    assert (visible(published), champions.champion(MODEL), ledger.read("publication", MODEL)) == before
    champion = before[1]
    assert champion and registry().alias(MODEL, "champion") == registry().version(MODEL, champion.version)
    key = rows(live_file(published, DAY), "flight_id")[0][0]
    assert main(["explain", MODEL, key]) == 0

    run = run_dag(PREDICT, NEXT)
    assert run.state == "success", states(run)
    again = run_dag(PREDICT, conf={"partition": DAY})
    assert again.state == "success", states(again)
    assert rows(live_file(published, DAY)) == scored


def save_registry(file: Path, copy: Path) -> None:
    copy.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(file) as one, sqlite3.connect(copy) as other:
        one.backup(other)


def test_without_the_ledger_nothing_is_predicted(published: Path) -> None:
    shutil.rmtree(published / "ledger")
    before = visible(published)
    run = run_dag(PREDICT, NEXT)
    assert states(run)["choose_model"] == "failed" and visible(published) == before
