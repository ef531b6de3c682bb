"""The command line: a scaffold that works as it is, mistakes that are named with file, key and reason, a day put back."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import duckdb
import jsonschema
import pytest
import yaml

from include import cli, config
from include.cli import main
from include.config import load_model
from include.platforms import lake as files


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository without models: `models` and `expectations` below the path."""
    for name in ("models", "expectations"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"AILERON_{name.upper()}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def churn(folders: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The same, with a model as it comes from the scaffold."""
    assert main(["new-model", "churn"]) == 0
    capsys.readouterr()
    return folders


def test_a_new_model_is_usable_as_it_is(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-model", "churn"]) == 0
    told = capsys.readouterr().out
    written = sorted(path for path in folders.rglob("*") if path.is_file())
    assert [str(path.relative_to(folders)) for path in written] == [
        *(f"expectations/churn/{stage}.json" for stage in ("features", "predictions", "source", "training")),
        *(f"models/churn/{name}" for name in ("features.sql", "labels.sql", "model.yaml")),
    ]
    assert all(str(path) in told for path in written)
    assert main(["check-models"]) == 0
    assert capsys.readouterr().out == "ok     churn\n"


HOSTILE = [
    "",
    "Churn",
    "../churn",
    "churn/..",
    "churn\n",
    "a b",
    "1st",
    "churn;",
    "{{ name }}",
    "chúrn",
    "c" * 49,
    "/tmp/churn",
    ".",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_cannot_be_one_is_refused_and_nothing_written(
    folders: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["new-model", name]) == 1
    assert f"{name!r} cannot be the name of a model" in capsys.readouterr().err
    assert [path for path in folders.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("there", ["models/churn", "expectations/churn"])
def test_what_is_there_is_not_written_over(folders: Path, capsys: pytest.CaptureFixture[str], there: str) -> None:
    (folders / there).mkdir()
    (folders / there / "mine").write_text("mine")
    assert main(["new-model", "churn"]) == 1
    assert "is there already" in capsys.readouterr().err
    assert [path.name for path in folders.rglob("*") if path.is_file()] == ["mine"]


def replaced(old: str, new: str) -> Callable[[str], str]:
    def edit(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    return edit


@pytest.mark.parametrize(
    ("file", "edit", "message"),
    [
        ("models/churn/model.yaml", replaced("tier:", "teir:"), r"churn/model\.yaml: teir: Extra inputs are not permitted"),
        ("models/churn/model.yaml", replaced("amount: number", "amount: float"), r"churn/model\.yaml: source\.columns\.amount: "),
        (
            "models/churn/model.yaml",
            replaced("amount >= 0", "amount >= "),
            r"model\.yaml: source\.row_rules\.amount_is_not_negative",
        ),
        ("models/churn/model.yaml", replaced("numeric: [amount]", "numeric: [amount, age]"), r"churn/features\.sql.*age"),
        ("models/churn/features.sql", replaced("churn_entities", "churn_outcomes"), r"churn/features\.sql.*label table"),
        ("models/churn/features.sql", replaced("entity.amount", "random() AS amount"), r"churn/features\.sql.*(?i:random|rand)"),
        ("models/churn/labels.sql", replaced("AS label", "AS labels"), r"churn/labels\.sql.*label"),
        ("models/churn/labels.sql", lambda text: "", r"churn/labels\.sql"),
        ("expectations/churn/source.json", replaced('"segment"', '"sgment"'), r"churn/source\.json: expectation 6: .*sgment"),
        ("expectations/churn/features.json", lambda text: text[:-3], r"churn/features\.json: not valid JSON"),
        (
            "expectations/churn/predictions.json",
            replaced('"severity"', '"serverity"'),
            r"churn/predictions\.json: expectation 14: ",
        ),
    ],
)
def test_a_mistake_is_named_with_file_key_and_reason(
    churn: Path, capsys: pytest.CaptureFixture[str], file: str, edit: Callable[[str], str], message: str
) -> None:
    path = churn / file
    path.write_text(edit(path.read_text()))
    assert main(["check-models"]) == 1
    (line,) = capsys.readouterr().out.splitlines()
    assert re.match(rf"wrong  .*{message}", line), line


def test_a_suite_that_is_missing_is_named(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (churn / "expectations" / "churn" / "features.json").unlink()
    assert main(["check-models"]) == 1
    assert "churn/features.json: not found" in capsys.readouterr().out


def test_a_wrong_model_does_not_hide_the_others(churn: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new-model", "basket"]) == 0
    (churn / "models" / "basket" / "model.yaml").write_text("name: [")
    capsys.readouterr()
    assert main(["check-models"]) == 1
    told = capsys.readouterr().out
    assert re.match(r"wrong  .*basket/model\.yaml: not valid YAML", told) and told.endswith("\nok     churn\n")


def test_the_models_of_this_repository_are_usable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-models"]) == 0
    assert "ok     flight_delays\n" in capsys.readouterr().out


def test_the_schema_that_editors_read_is_the_one_of_the_code() -> None:
    assert cli.SCHEMA.read_text() == cli.model_schema(), "stale: run make model-schema"


def test_editors_find_a_typing_error_and_no_other(churn: Path) -> None:
    schema = json.loads(cli.SCHEMA.read_text())
    for file in (churn / "models" / "churn" / "model.yaml", config.MODELS / "flight_delays" / "model.yaml"):
        raw = json.loads(json.dumps(yaml.safe_load(file.read_text()), default=str))
        jsonschema.validate(raw, schema)
        with pytest.raises(jsonschema.ValidationError, match="teir"):
            jsonschema.validate({**raw, "teir": 1}, schema)


def publish(model: str, day: date, place: Path, score: float) -> None:
    """Publish one prediction of that score, as the last task of a run does."""
    place.mkdir()
    duckdb.sql(f"COPY (SELECT 'a' AS flight_id, {score}::DOUBLE AS score) TO '{place / 'predictions.parquet'}'")
    duckdb.sql(f"COPY (SELECT 'b' AS flight_id, 'rule' AS reason) TO '{place / 'quarantine.parquet'}'")
    facts = {"rows_scored": 1, "source": "0123456789abcdef", "origin": "scheduled"}
    files.publish(load_model(model), day, place / "predictions.parquet", place / "quarantine.parquet", facts)


def test_a_day_is_put_back(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    day = date(2013, 4, 1)
    for number, score in enumerate((0.25, 0.75)):
        publish("flight_delays", day, tmp_path / str(number), score)
    live = lake / "predictions" / "flight_delays" / "partition_date=2013-04-01" / "data.parquet"
    assert duckdb.sql(f"SELECT score FROM '{live}'").fetchall() == [(0.75,)]
    assert main(["restore", "flight_delays", "2013-04-01"]) == 0
    assert duckdb.sql(f"SELECT score FROM '{live}'").fetchall() == [(0.25,)]
    told = capsys.readouterr().out
    assert "flight_delays 2013-04-01: version 3 shows 1 rows again" in told and str(live) in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["flight_delays", "2013-04-01"], "partition 2013-04-01 was never published"),
        (["flight_delays", "yesterday"], "'yesterday' is no partition"),
        (["flight_delays", "2013-04-01/../.."], "is no partition"),
        (["../flight_delays", "2013-04-01"], "'../flight_delays' cannot be the name of a model"),
        (["nothing", "2013-04-01"], "nothing/model.yaml: not found"),
    ],
)
def test_what_cannot_be_put_back_is_said(capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["restore", *arguments]) == 1
    assert message in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    """As with `| head`."""
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "include.cli", "bigquery-ml", "flight_delays", "project.dataset", "2013-04-01"]
    run = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, text=True)
    os.close(writes)
    assert run.returncode == 1 and run.stderr == ""
