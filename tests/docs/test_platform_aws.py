"""docs/platforms/aws.md against the code: variables and their defaults, prices and what they come to, messages."""

from __future__ import annotations

import ast
import json
import math
import re
from dataclasses import MISSING, fields

import pytest

from deploy.aws import policy
from include.platforms.aws import prices
from include.platforms.aws.settings import AwsSettings, variable
from tests.conftest import ROOT
from tests.dag_runs import load_dag
from tests.docs.test_written import symptoms, texts

PAGE = ROOT / "docs" / "platforms" / "aws.md"
TEXT = PAGE.read_text()
# Said by AWS, not by us.
OF_AWS = {"AccessDeniedException", "AccessDenied", "HIVE_BAD_DATA", "HIVE_CURSOR_ERROR", "Query exhausted resources"}
OF_AWS |= {"ResourceLimitExceeded", "ConcurrentRunsExceededException"}

NOT_CALLS = {"SageMaker", "CloudWatch"}


def test_every_variable_is_in_the_table_with_its_default() -> None:
    told = dict(re.findall(r"^\| `(AILERON_\w+)` \| ?(.*?) ?\|", TEXT, re.MULTILINE))
    for field in fields(AwsSettings):
        default = "" if field.default in (MISSING, "") else f"`{field.default}`"
        assert told[variable(field.name)] == default, field.name
    ours = {variable(field.name) for field in fields(AwsSettings)}
    assert {name for name in told if name.startswith("AILERON_AWS_")} == ours
    sources = "".join(file.read_text() for folder in ("include", "plugins") for file in (ROOT / folder).rglob("*.py"))
    assert [name for name in told if name not in ours and f'"{name}"' not in sources] == []


def test_the_estimate_is_what_the_price_book_says() -> None:
    book = prices.book()
    assert f"as of {book['as_of']}" in TEXT
    rows = re.findall(r"^\| .* \| .* \| ([0-9./ ×]+) \| ([0-9.]+) \|$", TEXT, re.MULTILINE)
    assert len(rows) == 4
    for formula, dollars in rows:
        factors = re.split(r" ([×/]) ", f"1 × {formula}")
        value = float(factors[0])
        for sign, number in zip(factors[1::2], factors[2::2], strict=True):
            value = value * float(number) if sign == "×" else value / float(number)
        assert round(value, 3) == pytest.approx(float(dollars)), formula
    assert f"× {book['hours']['ml.m5.xlarge']} |" in rows_of("Batch Transform") and f"× {book['hours']['G.1X']} |" in rows_of(
        "Glue,"
    )
    assert f"× {book['athena']['per_terabyte']:g} |" in rows_of("Athena, features")
    assert f"{book['athena']['least_bytes'] / 1e12 * book['athena']['per_terabyte']:.5f}" in rows_of("Athena, small")
    total = math.fsum(float(dollars) for _, dollars in rows)
    assert f"**{total:.3f}**" in rows_of("**Sum**")


def rows_of(start: str) -> str:
    return next(line for line in TEXT.splitlines() if line.startswith(f"| {start}"))


def test_the_tables_of_calls_name_tasks_operators_and_calls_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {
        "AILERON_PLATFORM": "aws",
        "AILERON_AWS_LAKE": "s3://lake/aileron",
        "AILERON_AWS_DATABASE": "aileron",
        "AILERON_AWS_ROLE": "arn:aws:iam::123456789012:role/jobs",
        "AILERON_AWS_IMAGE": "image",
        "AILERON_AWS_RESULTS": "redshift",
        "AILERON_AWS_REDSHIFT_WORKGROUP": "aileron",
        "AILERON_AWS_REDSHIFT_ROLE": "arn:aws:iam::123456789012:role/redshift",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    section = TEXT.partition("## What each DAG calls")[2].partition("## What it costs")[0]
    operations = {operation for made in json.loads(policy.CALLS.read_text()).values() for operation in made}
    seen = 0
    for heading, body in re.findall(r"^\*\*(.*?)\*\*$(.*?)(?=^\*\*|\Z)", section, re.MULTILINE | re.DOTALL):
        dags = [load_dag(name.replace("<model>", "flight_delays")) for name in heading.split(", ")]
        tasks = {task.task_id: task for dag in dags for task in dag.tasks}
        for names, operators, calls in re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", body, re.MULTILINE)[2:]:
            chosen = [
                task
                for name in re.findall(r"`(.*?)`", names)
                for task_id, task in tasks.items()
                if f"{task_id}.".startswith(f"{name}.")
            ]
            assert chosen or "`" not in names, names
            kinds = {base.__name__ for task in chosen for base in type(task).__mro__} | {
                "SqsSensorTrigger",
                "SageMakerTuningOperator",
            }
            assert set(re.findall(r"`(.*?)`", operators)) <= kinds, (names, operators)
            assert set(re.findall(r"\b(?:[A-Z][a-z0-9]+){2,}\b", calls)) - NOT_CALLS <= operations, calls
            seen += 1
    assert seen > 20


def test_every_message_is_something_the_code_says() -> None:
    folders = ("include", "localcloud")
    said = [text for folder in folders for file in (ROOT / folder).rglob("*.py") for text in texts(ast.parse(file.read_text()))]
    said.append((ROOT / "Makefile").read_text())
    section = TEXT.partition("## When it does not work")[2]
    known = {one for one in symptoms(PAGE) if f"| `{one}`" in section or f", `{one}`" in section}
    assert len(known) > 8
    assert [one for one in known - OF_AWS if not any(one.removesuffix(" ...") in text for text in said)] == []
