"""docs/dags.md is what the DAGs say of themselves, wherever it is generated."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.generate import PAGE, generate, page
from include.config import load_models
from tests.conftest import ROOT


def test_the_page_is_fresh() -> None:
    assert PAGE.read_text() == generate(), "docs/dags.md is stale: run make docs"


def test_it_does_not_depend_on_the_machine_or_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = generate()
    assert str(ROOT) not in text and str(tmp_path) not in text and not re.search(r"0x[0-9a-f]{6}", text)
    monkeypatch.setenv("AILERON_LAKE", "/another/lake")
    monkeypatch.setenv("AILERON_ENVIRONMENT", "prod")
    assert generate() == text


def test_a_stale_page_fails_the_check_and_is_left_alone() -> None:
    """In a process of its own, set up otherwise than this one, as a commit hook would be."""
    environment = {
        **os.environ,
        "AILERON_MODELS": "/nowhere",
        "AIRFLOW_HOME": "/nowhere",
        "AIRFLOW__CORE__DAGS_FOLDER": "/nowhere",
    }
    before = PAGE.read_text()
    check = [sys.executable, "-m", "docs.generate", "--check"]
    try:
        assert subprocess.run(check, cwd=ROOT, env=environment).returncode == 0
        PAGE.write_text(before + "edited by hand\n")
        stale = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert stale.returncode == 1 and "run make docs" in stale.stderr
        assert PAGE.read_text() == before + "edited by hand\n"
    finally:
        PAGE.write_text(before)


def test_a_task_that_says_nothing_about_itself_is_refused() -> None:
    from airflow.sdk import DAG, task

    models = load_models()
    first = models[0].name  # the one whose DAGs the page shows
    with DAG(f"predict_{first}", schedule=None, tags=[f"model:{first}"]) as dag:

        @task
        def silent() -> None:
            pass

        silent()
    with pytest.raises(ValueError, match=rf"predict_{first}\.silent: says nothing about itself"):
        page([dag], models)
