"""What people wrote: every command, path, link and message in it is there."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import duckdb
import pytest
from airflow.cli.cli_parser import get_parser

from include.config import ModelConfig
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "plugins" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
RUNBOOKS = sorted((ROOT / "docs" / "runbooks").glob("*.md"))
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TOP = {path.name for path in ROOT.iterdir()}

SAY_WHY_NO_CHAMPION = [
    *(f"tasks/{name}" for name in ("training", "approval", "promotion", "validation")),
    *(f"core/{name}" for name in ("training", "leakage", "tuning", "artifacts", "features")),
    *(f"jobs/{name}" for name in ("train", "tune", "inspect", "evaluate")),
    *(
        "retraining",
        "champions",
        "documents",
        "lineage",
        "platforms/local_training",
        "platforms/training_facts",
        "registry/mlflow",
    ),
]
SAY_WHY_NOT_JUDGED = [
    *(f"tasks/{name}" for name in ("monitoring", "labels", "weekly", "findings")),
    *(
        "labelling",
        "monitoring_sql",
        "platforms/local_monitoring",
        "platforms/local_labelling",
        "platforms/label_files",
        "core/drift",
        "core/profile",
    ),
]
# Of a wrong call between two modules, which no model.yaml and no data can bring about; or put in front of a message.
SAID_TO_DEVELOPERS = [
    *("parameters: ", "task is {spec.task", "not a DATE", "is no alias", "is no SHA-256", "versions are numbers such as 3"),
    *(
        "training.search: {name}",
        "training.search.trials is",
        "cannot be the name of a model",
        "sample is {sample}",
        "{state}: {sentence}",
        "the {role}: {error}",
        "the {what}: {error}",
    ),
]

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
        if path.split("/")[0] in TOP and not path.startswith(".local") and not any(name in path for name in ("churn", "biopsy")):
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


@pytest.mark.parametrize(
    ("runbook", "modules"), [("continuous_training", SAY_WHY_NO_CHAMPION), ("drift_monitoring", SAY_WHY_NOT_JUDGED)]
)
def test_every_message_that_stops_a_run_is_in_its_runbook(runbook: str, modules: list[str]) -> None:
    """Message by message: whatever a task raises for people, also where it only ends the run."""
    from include.core.artifacts import REMEDY

    known = symptoms(ROOT / "docs" / "runbooks" / f"{runbook}.md")
    unknown = []
    for name in modules:
        for node in ast.walk(ast.parse((ROOT / "include" / f"{name}.py").read_text())):
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                messages = [text.replace("{REMEDY}", REMEDY) for text in texts(node.exc)]
                if messages and not any(said in message for said in [*known, *SAID_TO_DEVELOPERS] for message in messages):
                    unknown.append((name, max(messages, key=len)))
    assert unknown == []


def test_every_answer_of_the_governor_is_in_the_runbook() -> None:
    known = symptoms(ROOT / "docs" / "runbooks" / "continuous_training.md")
    refusals = [text for text in texts(ast.parse((ROOT / "include" / "retraining.py").read_text())) if "refused: " in text]
    assert len(refusals) >= 6
    assert [
        refusal for refusal in refusals if not any(symptom in refusal for symptom in [*known, "which looks at the past"])
    ] == []


def test_every_key_of_a_model_that_is_named_is_there() -> None:
    sections = ModelConfig.model_fields
    seen = 0
    for page in PAGES:
        for span in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)`", page.read_text()):
            section, *keys = span.split(".")
            if section not in sections or span.endswith((".sql", ".json", ".yaml", ".md")):
                continue
            seen += 1
            kind: Any = sections[section].annotation
            for key in keys:
                assert key in kind.model_fields, f"{page}: {span}"
                kind = kind.model_fields[key].annotation
    assert seen > 30


def test_keys_of_the_table_for_new_models_are_there() -> None:
    """Also those that stand without their section, beside one that has it."""
    known = {"decision"}
    for field in ModelConfig.model_fields.values():
        known |= set(getattr(field.annotation, "model_fields", {}))
    for name in ("search", "governor"):
        known |= set(ModelConfig.model_fields["training"].annotation.model_fields[name].annotation.model_fields)  # type: ignore[union-attr]
    metrics, answers = {"auc", "average_precision", "r2"}, {"classification", "regression", "always", "first", "never", "task"}
    text = (ROOT / "docs" / "add-a-model.md").read_text()
    rows = [row for row in text.splitlines() if re.match(r"\| `[a-z_.]+`", row) and ".sql" not in row and ".json" not in row]
    assert len(rows) > 10
    for row in rows:
        for span in re.findall(r"`([a-z_0-9]+)`", row):
            assert span in known | metrics | answers, row


def test_the_page_of_the_ledger_has_every_kind_of_record() -> None:
    kinds, trees = set(), {file: ast.parse(file.read_text()) for file in (ROOT / "include").rglob("*.py")}
    constants = {
        prefix + target.id: value.value
        for module, tree in trees.items()
        for prefix in (f"{module.stem}.", f"{module}:")  # as another module names it, and as it names it itself
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        for names, values in [(node.targets[0], node.value)]
        for target, value in zip(
            names.elts if isinstance(names, ast.Tuple) else [names],
            values.elts if isinstance(values, ast.Tuple) else [values],
            strict=False,
        )
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant)
    }
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("ledger.append", "ledger.once"):
                kind, name = node.args[0], ast.unparse(node.args[0])
                named = name if "." in name else f"{module}:{name}"
                kinds.add(kind.value if isinstance(kind, ast.Constant) else constants[named])
    rows = re.findall(r"^\| `([a-z_]+)`", (ROOT / "docs" / "ledger.md").read_text(), re.MULTILINE)
    assert len(kinds) > 8 and sorted(rows) == sorted(kinds)


def test_the_readme_shows_what_the_demo_prints() -> None:
    from demo.results import MONITORED_HEADER, PARTITIONS_HEADER, TRAININGS_HEADER

    lines = [" ".join(line.split()) for line in (ROOT / "README.md").read_text().splitlines()]
    for header in (PARTITIONS_HEADER, MONITORED_HEADER, TRAININGS_HEADER):
        assert " ".join(header) in lines


def test_queries_on_the_ledger_and_on_files_parse() -> None:
    """The one-liners are quoted for a shell, for Python and for DuckDB: all must take them."""
    seen = 0
    for page in PAGES:
        for command in commands(page):
            if command.startswith(".venv/bin/python -c"):
                seen += 1
                code = subprocess.run(
                    ["sh", "-c", command.replace(".venv/bin/python -c", "printf %s")],
                    capture_output=True,
                    text=True,
                    env={"LAKE": "/lake"},
                ).stdout
                assert code.startswith("import duckdb")
                for query in [text for text in texts(ast.parse(code)) if " " in text]:
                    assert len(duckdb.extract_statements(query)) == 1
    assert seen >= 5


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
    parts_of_others = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts_of_others:
            found.append(node.value)
        elif isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else f"{{{ast.unparse(part.value)}}}" for part in node.values]
            found.append("".join(str(part) for part in parts))
    return found
