"""What people wrote: every command, path, link and message in it is there."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from airflow.cli.cli_parser import get_parser

from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "plugins" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TOP = {path.name for path in ROOT.iterdir()}

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def commands(page: Path) -> list[str]:
    """Command lines: indented blocks, and code spans with a blank in them."""
    text = page.read_text()
    blocks = [line.strip().split("  #")[0] for line in text.splitlines() if line.startswith("    ")]
    return blocks + [span for span in re.findall(r"`([^`\n]+)`", text) if " " in span]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@each_page
def test_make_has_every_target_that_is_named(page: Path) -> None:
    for command in commands(page):
        for words in re.findall(r"\bmake ([a-z][a-z -]*)", command if command.startswith(("make ", ".")) else ""):
            assert set(words.split()) <= TARGETS, command


@each_page
def test_airflow_understands_every_command(page: Path) -> None:
    for command in commands(page):
        if command.startswith("airflow ") and len(command.split()) > 2:
            get_parser().parse_args(shlex.split(command)[1:])  # exits if it does not


@each_page
def test_paths_of_the_repository_are_there(page: Path) -> None:
    for path in re.findall(r"`([\w.-]+/[\w./-]*)`", page.read_text()):
        if path.split("/")[0] in TOP and not path.startswith(".local") and "churn" not in path:
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda path: path.stem)
def test_every_symptom_of_a_runbook_is_something_the_code_says(page: Path) -> None:
    from airflow.sdk.bases import operator

    said = [
        text
        for file in [*(ROOT / "include").rglob("*.py"), Path(operator.__file__)]
        for text in texts(ast.parse(file.read_text()))
    ]
    said.append("No space left on device")
    found = symptoms(page)
    assert len(found) > 10
    assert [symptom for symptom in found if not any(symptom in text for text in said)] == []


def test_every_kind_of_error_that_stops_a_prediction_is_in_its_runbook() -> None:
    from include.core.artifacts import REMEDY

    known = symptoms(ROOT / "docs" / "runbooks" / "batch_prediction.md")
    raised: dict[str, list[str]] = {}
    for name in (
        "tasks/prediction",
        "tasks/validation",
        "partitions",
        "ledger",
        "platforms/lake",
        "platforms/local",
        "core/artifacts",
    ):
        for node in ast.walk(ast.parse((ROOT / "include" / f"{name}.py").read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                kind = ast.unparse(node.exc.func).split(".")[-1]
                raised.setdefault(kind, []).extend(text.replace("{REMEDY}", REMEDY) for text in texts(node.exc))
    raised.pop("LookupError")  # of restore, which a person calls
    raised.pop("AirflowSkipException")  # a dry run
    assert len(raised) >= 9
    for kind, messages in raised.items():
        assert any(symptom in message for message in messages for symptom in known), f"{kind}: {messages}"


def test_queries_on_the_ledger_and_on_files_parse() -> None:
    """The one-liners are quoted for a shell and for Python: both must take them."""
    seen = 0
    for page in RUNBOOKS:
        for command in commands(page):
            if command.startswith(".venv/bin/python -c"):
                seen += 1
                code = subprocess.run(
                    ["sh", "-c", command.replace(".venv/bin/python -c", "printf %s")],
                    capture_output=True,
                    text=True,
                    env={"LAKE": "/lake"},
                ).stdout
                compile(code, str(page), "exec")
                assert code.startswith(("import duckdb", "from include."))
    assert seen >= 4


def test_prose_has_no_paths_of_a_machine() -> None:
    for page in PAGES:
        assert not re.search(r"/(home|root|work|Users)/", page.read_text()), page


def symptoms(page: Path) -> list[str]:
    """The code spans in the first column of the tables of a runbook."""
    rows = [line.split("|")[1] for line in page.read_text().splitlines() if line.startswith("| ")]
    return [span for cell in rows for span in re.findall(r"`([^`]+)`", cell)]


def texts(tree: ast.AST) -> list[str]:
    """All strings of a piece of code; of an f-string, with its expressions in braces."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values]
            found.append("".join(str(part) for part in parts))
    return found
