"""docs/platforms/gcp.md against the code: variables and their defaults, prices and what they come to, calls, messages, steps."""

from __future__ import annotations

import json
import re
import subprocess
from functools import partial

import pytest

from deploy.gcp import roles
from include.platforms import environment
from include.platforms.gcp import lake, prediction, prices, tables
from include.platforms.gcp.settings import PREFIX, GcpSettings
from tests.conftest import ROOT
from tests.dag_runs import load_dag
from tests.docs.platforms import Page

PAGE = Page("gcp")
# Said by Google, or by Python, not by us.
OF_GCP = {"PERMISSION_DENIED", "Access Denied", "Query exceeded limit for bytes billed", "RESOURCE_EXHAUSTED", "Quota exceeded"}
OF_GCP |= {"No module named 'airflow.providers.apache'"}

NOT_CALLS = {"BigQuery", "PubsubPullTrigger"}
PLACES = {
    "AILERON_PLATFORM": "gcp",
    "AILERON_REGISTRY": "vertex://aileron",
    "AILERON_GCP_PROJECT": "my-project",
    "AILERON_GCP_LAKE": "gs://lake/aileron",
    "AILERON_GCP_DATASET": "aileron",
    "AILERON_GCP_IMAGE": "image",
    "AILERON_GCP_TEMPLATES": "gs://lake/aileron/templates",
    "AILERON_GCP_SERVICE_ACCOUNT": "aileron-jobs@my-project.iam.gserviceaccount.com",
}


@pytest.fixture
def gcp(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The environment of the page."""
    for name, value in PLACES.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_every_variable_is_in_the_table_with_its_default() -> None:
    PAGE.check_variables(GcpSettings, partial(environment.variable, PREFIX))


def test_the_estimate_is_what_the_price_book_says() -> None:
    book = prices.book()
    assert f"as of {book['as_of']}" in PAGE.text
    PAGE.check_estimate(5)
    assert f"× {book['vertex'][GcpSettings.machine]} |" in PAGE.row(f"Batch prediction, 1 × {GcpSettings.machine}")
    machine, workers = GcpSettings.dataflow_machine, GcpSettings.dataflow_workers
    assert f"× {workers} × {book['dataflow'][machine]} |" in PAGE.row(f"Dataflow, {workers} × {machine}")
    of_queries = [line for line in PAGE.text.splitlines() if line.startswith("| BigQuery, ")]
    assert len(of_queries) == 3 and all(f" × {book['bigquery']['per_tebibyte']} |" in line for line in of_queries)


def test_the_tables_of_calls_name_tasks_operators_and_calls_that_are_there(gcp: pytest.MonkeyPatch) -> None:
    rows = list(PAGE.check_tasks(others=["PubsubPullTrigger"]))
    assert len(rows) > 20
    known = {call.partition(":")[2].partition(" ")[0] for call in roles.PERMISSIONS}
    recorded = {operation.partition(" ")[0] for made in json.loads(roles.CALLS.read_text()).values() for operation in made}
    named = {call for told in rows for call in named_calls(told)}
    assert named <= known and recorded <= {*known, "GetStorageLayout"}
    assert len(named) > 25


def test_whoever_is_killed_calls_a_stop_that_is_known() -> None:
    (told,) = re.findall(r"A task that is killed calls the stop of its service:(.*?)\n\n", PAGE.text, re.DOTALL)
    stops = named_calls(told)
    assert len(stops) == 4 and stops <= {call.partition(":")[2] for call in roles.PERMISSIONS}


def named_calls(text: str) -> set[str]:
    """Methods of gRPC by their names, operations of REST in code spans."""
    methods = set(re.findall(r"\b(?:Pull|Acknowledge|(?:[A-Z][a-z0-9]+){2,})\b", text)) - NOT_CALLS
    return methods | set(re.findall(r"`([a-z]+(?:\.[A-Za-z]+)+)`", text.replace("`custom.googleapis.com/aileron/...`", "")))


def test_scoring_inside_dataflow_is_what_the_page_says(gcp: pytest.MonkeyPatch) -> None:
    gcp.setenv("AILERON_GCP_SCORING", "dataflow")
    jobs = [
        task for task in load_dag("predict_flight_delays").tasks if task.task_id.startswith("score.") and hasattr(task, "request")
    ]
    assert [type(job).__name__ for job in jobs] == ["BigQueryJob", "DataflowJob", "BigQueryJob", "BigQueryJob"]
    told = " ".join(PAGE.section("What each DAG calls").split())
    assert "`score` is a `BigQueryInsertJobOperator` that extracts the features, a `DataflowStartFlexTemplateOperator`" in told


def test_every_message_is_something_the_code_says() -> None:
    PAGE.check_messages(OF_GCP)


def test_what_is_said_of_places_and_times_is_what_the_code_does(gcp: pytest.MonkeyPatch) -> None:
    assert (
        f"The\ntables of the last {('', 'one', 'two', 'three', 'four', 'five')[prediction.KEPT_VERSIONS]} versions stay"
        in PAGE.text
    )
    assert f"Tables of a run are kept for {tables.STAGED_DAYS} days" in PAGE.text
    rules = PAGE.row("Lifecycle rules")
    assert f"`{lake.place('staging').removeprefix('gs://lake/aileron/')}/`" in rules and "`dataflow/`" in rules
    kept = rules.partition("Never")[2]
    assert all(f"`{folder}/`" in kept for folder in ("training", "models", "ledger", "templates"))


def test_every_step_is_a_command_of_files_that_are_there() -> None:
    """The shell understands all of it, and the files of deploy/gcp are where it looks for them."""
    blocks = re.findall(r"(?:^    .*\n)+", PAGE.text, re.MULTILINE)
    assert len(blocks) > 5
    for block in blocks:
        told = subprocess.run(["sh", "-n"], input=block, text=True, capture_output=True)
        assert told.returncode == 0, (block, told.stderr)
    named = set(re.findall(r"deploy/gcp/[\w./-]*\w", PAGE.text))
    assert {"deploy/gcp/Dockerfile", "deploy/gcp/Dockerfile.dataflow", "deploy/gcp/grant.sh"} <= named
    assert [path for path in named if not (ROOT / path).exists()] == []
    assert all((ROOT / "deploy" / "gcp" / f"{name}.json").is_file() for name in ("postprocess", "score"))
