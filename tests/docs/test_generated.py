"""The pages that are written from code are what the code says, wherever they are written."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from docs.generate import DOCS, generate
from docs.writers import commands, dags, decisions, model, rules, settings
from include.config import ModelConfig, load_models
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def written() -> dict[Path, str]:
    return generate()


def test_the_pages_are_fresh(written: dict[Path, str]) -> None:
    assert [str(page) for page, text in written.items() if page.read_text() != text] == [], "stale: run make docs"


def test_they_do_not_depend_on_the_machine_or_the_shell(
    written: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in written.values():
        assert str(ROOT) not in text and str(tmp_path) not in text and not re.search(r"0x[0-9a-f]{6}", text)
    monkeypatch.setenv("AILERON_LAKE", "/another/lake")
    monkeypatch.setenv("AILERON_ENVIRONMENT", "prod")
    assert generate() == written


def test_a_stale_page_fails_the_check_and_is_left_alone() -> None:
    """In a process of its own, set up otherwise than this one, as a commit hook would be."""
    environment = {
        **os.environ,
        "AILERON_MODELS": "/nowhere",
        "AIRFLOW_HOME": "/nowhere",
        "AIRFLOW__CORE__DAGS_FOLDER": "/nowhere",
    }
    page = DOCS / "dags.md"
    before = page.read_text()
    check = [sys.executable, "-m", "docs.generate", "--check"]
    try:
        page.write_text(before + "edited by hand\n")
        stale = subprocess.run(check, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert stale.returncode == 1 and re.search(r"docs/dags\.md.*: stale; run make docs", stale.stderr)
        assert page.read_text() == before + "edited by hand\n"
    finally:
        page.write_text(before)


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
        dags.page([dag], models)


def test_a_key_of_a_model_that_says_nothing_about_itself_is_refused() -> None:
    schema = ModelConfig.model_json_schema()
    assert model.page(schema).count("\n| `") == sum(1 for _ in keys(schema, schema))
    del schema["$defs"]["Gate"]["properties"]["alpha"]["description"]
    with pytest.raises(ValueError, match=r"gate\.alpha: says nothing about itself"):
        model.page(schema)


def keys(node: dict[str, Any], schema: dict[str, Any]) -> Any:
    for name, field in node["properties"].items():
        section = schema["$defs"].get(field.get("$ref", "").removeprefix("#/$defs/"))
        yield from keys(section, schema) if section else [name]


def test_an_argument_of_a_command_that_says_nothing_about_itself_is_refused() -> None:
    parser = argparse.ArgumentParser()
    command = parser.add_subparsers().add_parser("forget", help="forget a model")
    command.add_argument("--all", help="and all others")
    text = commands.page("forget: # so\nforget: x ## a model, for good: MODEL=<name> ARGS='-k all'\n", parser)
    assert "| `--all ALL`, may be left out | And all others |" in text
    assert "| `make forget` | A model, for good: `MODEL=<name>` `ARGS='-k all'` |" in text
    command.add_argument("model")
    with pytest.raises(ValueError, match="forget: model says nothing"):
        commands.page("", parser)


def test_a_variable_that_the_page_does_not_know_is_refused(tmp_path: Path) -> None:
    for folder in ("include/jobs", "plugins", "demo"):
        (tmp_path / folder).mkdir(parents=True)
    known = [f'os.environ.get("{name}")' for name in settings.EVERYWHERE]
    (tmp_path / "include" / "all.py").write_text("\n".join(known))
    (tmp_path / "include" / "jobs" / "told.py").write_text('os.environ["AILERON_TOLD_TO_JOBS"]')
    (tmp_path / "demo" / "all.py").write_text("\n".join(f'os.environ["{name}"]' for name in settings.ON_A_LAPTOP))
    assert "AILERON_LEDGER" in settings.page(tmp_path, {})
    (tmp_path / "plugins" / "one.py").write_text('os.environ.get("AILERON_NEW") or "x"')
    with pytest.raises(ValueError, match="AILERON_NEW"):
        settings.page(tmp_path, {})
    (tmp_path / "plugins" / "one.py").unlink()
    (tmp_path / "include" / "all.py").write_text("\n".join(known[1:]))
    with pytest.raises(ValueError, match="AILERON_PLATFORM"):
        settings.page(tmp_path, {})


def test_a_decision_without_its_number_or_state_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0003-why.md").write_text("# 3. Why\n\nAccepted, 2026-11\n\nSo.\n")
    assert "| 3 | [Why](0003-why.md) | Accepted, 2026-11 |" in decisions.page(tmp_path)
    for text in ("# 4. Why\n\nAccepted, 2026-11\n", "# 3. Why\n\nSo.\n", "Accepted, 2026-11\n"):
        (tmp_path / "0003-why.md").write_text(text)
        with pytest.raises(ValueError, match=r"0003-why\.md: begin with '# 3\."):
            decisions.page(tmp_path)


def test_what_is_between_the_tables_of_a_page_stays() -> None:
    page = "One.\n\n<!-- limits: gate.alpha -->\nold\n<!-- end -->\n\nTwo.\n\n<!-- table: alpha -->\n<!-- end -->\n\nThree.\n"
    text = rules.filled(page)
    assert [line for line in text.splitlines() if line in ("One.", "Two.", "Three.", "old")] == ["One.", "Two.", "Three."]
    assert "| `gate.alpha` | 0.05 |" in text and rules.filled(text) == text


@pytest.mark.parametrize("asked", ["<!-- limits: gate.alpa -->", "<!-- limits: gat.alpha -->", "<!-- table: beta -->"])
def test_a_table_that_there_is_not_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match=r"gate\.alpa|gat\.alpha|beta"):
        rules.filled(f"{asked}\n<!-- end -->\n")


def test_the_limits_of_drift_are_those_of_days_that_are_alike(written: dict[Path, str]) -> None:
    """More rows and longer windows make lower limits, more columns higher ones, and none is below the tolerance."""
    lines = re.findall(r"^\| [\d,]+ \|((?: 0\.\d+ \|){6})$", written[DOCS / "decision-rules.md"], re.MULTILINE)
    rows = [[float(cell) for cell in line.split("|")[:-1]] for line in lines]
    assert len(rows) == 6
    assert all(above >= below for above, below in pairwise(rows))
    assert all(row[:4] == sorted(row[:4]) and row[2] >= row[4] >= row[5] >= 0.01 for row in rows)
