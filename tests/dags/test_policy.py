"""What every DAG of this repository must have, asked of the DAGs themselves."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization

from include.config import REPOSITORY, load_models
from include.model_task import Read
from tests.conftest import ROOT

KINDS = {"predict", "train", "arrivals", "rollback", "monitor"}
# What a person writes for other people to read; it goes into the ledger and a mail, and nowhere else.
REASONS = {"why"}
PIPELINES = "|".join((*sorted(KINDS), "label"))
TAGS = re.compile(rf"model:[a-z0-9_]+|pipeline:({PIPELINES})|platform:(local|aws|gcp)|tier:[123]")
# What a person or another system may have typed, and where such text would do harm.
FREE_TEXT = re.compile(r"\{[{%][^}]*\b(params|conf|run_id|dag_run|triggering_asset_events|note)\b")


@pytest.fixture(scope="module")
def dags() -> dict[str, Any]:
    bag = DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder")
    assert bag.import_errors == {}
    return dict(bag.dags)


def test_every_model_has_its_pipelines(dags: dict[str, Any]) -> None:
    assert {dag_id for dag_id in dags if not dag_id.startswith("label_")} == {
        f"{kind}_{model.name}" for kind in KINDS for model in load_models()
    }
    assert {dag_id for dag_id in dags if dag_id.startswith("label_")} == {
        f"label_{model.name}" for model in load_models() if model.labelling.rows_per_request
    }


def test_every_dag_says_what_it_is_and_whose(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.doc_md and "Runbook" in dag.doc_md, dag.dag_id
        runbook = re.search(r"docs/runbooks/\w+\.md", dag.doc_md)
        assert runbook and (REPOSITORY / runbook[0]).is_file(), f"{dag.dag_id}: no runbook {runbook and runbook[0]}"
        assert all(TAGS.fullmatch(tag) for tag in dag.tags) and len(dag.tags) == 4, dag.tags
        assert dag.owner and dag.owner != "airflow"
        assert dag.owner_links and dag.dag_display_name != dag.dag_id


def test_every_task_retries_ends_and_is_heard_of_when_it_fails(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.catchup is False and dag.start_date and dag.max_active_runs <= 16
        assert dag.end_date is None, f"{dag.dag_id}: Airflow calls a run after the end_date a success, without any task"
        assert dag.on_failure_callback, f"{dag.dag_id}: a killed task mails nobody"
        for task in dag.tasks:
            name = f"{dag.dag_id}.{task.task_id}"
            assert task.retries >= 1 and task.execution_timeout, name
            assert task.on_failure_callback, name
            assert task.retry_policy, name


def test_what_a_task_reads_was_made_before_it(dags: dict[str, Any]) -> None:
    read = 0
    for dag in dags.values():
        for task in dag.tasks:
            for fact in getattr(task, "op_args", ()):
                if isinstance(fact, Read):
                    read += 1
                    assert fact.task_id in task.get_flat_relative_ids(upstream=True), f"{dag.dag_id}.{task.task_id} reads {fact}"
    assert read > 10


def test_no_text_of_a_caller_reaches_a_template(dags: dict[str, Any]) -> None:
    """Values of a run come from the first task, which has checked them: no template reads them at their source."""
    seen = 0
    for dag in dags.values():
        for task in dag.tasks:
            mapped = getattr(task, "partial_kwargs", {})
            for field in task.template_fields:
                value = mapped.get(field, getattr(task, field, None))
                for text in _texts(value):
                    seen += 1
                    assert not FREE_TEXT.search(text), f"{dag.dag_id}.{task.task_id}.{field}: {text}"
    assert seen > len(dags)


def test_names_tables_and_thresholds_are_no_choice_of_a_caller(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for name in dag.params:
            schema = dag.params.get_param(name).schema
            bounded = {"minimum", "maximum"} <= schema.keys() and "string" not in schema["type"]
            spelled = re.fullmatch(r"\^[^*+]*\$", schema.get("pattern", ""))  # of a given length
            closed = "enum" in schema or schema.get("type") == "boolean" or schema.get("format") == "date" or bounded or spelled
            allowed = closed or (name in REASONS and schema["maxLength"] <= 500)
            assert allowed, f"{dag.dag_id}: param {name} takes free text: {schema}"


def test_parsing_imports_nothing_heavy_and_opens_no_connection() -> None:
    """In a process of its own: other tests have imported everything by now."""
    script = """
import socket, sys
def refuse(*a, **k): raise AssertionError("a DAG file opened a connection")
socket.socket.connect = refuse
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
assert bag.dags and not bag.import_errors, bag.import_errors
heavy = ["pandas", "numpy", "pyarrow", "duckdb", "xgboost", "sklearn", "mlflow", "great_expectations", "sqlglot", "botocore"]
print([name for name in heavy if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", script, str(ROOT / "dags")], capture_output=True, text=True, env=os.environ)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip().splitlines()[-1] == "[]"


def test_two_parses_give_the_same_dags() -> None:
    first, second = (
        {
            dag_id: json.dumps(DagSerialization.to_dict(dag), sort_keys=True, default=str)
            for dag_id, dag in DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder").dags.items()
        }
        for _ in range(2)
    )
    assert first == second


def test_a_dag_file_fits_a_screen() -> None:
    for file in Path(ROOT / "dags").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 80, file.name


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in _texts(part)]
    if isinstance(value, list | tuple | set):
        return [text for item in value for text in _texts(item)]
    return []
