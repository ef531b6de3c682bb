"""A suite file that cannot be used is refused, with its name and the reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pytest

from include.config import ModelConfig, load_models
from include.core.postprocessing import predictions_schema
from include.validation import InvalidSuite, Stage, contract_checks, read_suite, stage_columns, suite_file
from tests.validation.conftest import ROWS


def mean(**changes: Any) -> dict[str, Any]:
    return {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "score", "min_value": 0}} | changes


BROKEN = {
    "not JSON": ("{", "not valid JSON"),
    "no list": ({"name": "s", "expectations": {}}, "a name and a list of expectations"),
    "another key": ({"name": "s", "expectations": [ROWS], "rules": []}, "rules: no such key"),
    "no rows would pass": (
        {"name": "s", "expectations": [mean()]},
        "needs expect_table_row_count_to_be_between with a min_value",
    ),
    "zero rows would pass": (
        {"name": "s", "expectations": [ROWS | {"kwargs": {"min_value": 0}}]},
        "with a min_value of 1 or more",
    ),
    "a row count that only warns": (
        {"name": "s", "expectations": [ROWS | {"severity": "warning"}]},
        "min_value of 1 or more that blocks",
    ),
    "no type": ([ROWS, {"kwargs": {}}], "expectation 2: None is not one of the types"),
    "unknown type": (
        [ROWS, mean(type="expect_luck")],
        "expectation 2: expect_luck is not one of the types that hold on every platform",
    ),
    "type of one engine": ([ROWS, mean(type="expect_column_values_to_match_regex")], "is not one of the types"),
    "unknown argument": (
        [ROWS, mean(kwargs={"column": "score", "minimum": 0})],
        "expectation 2: expect_column_mean_to_be_between: minimum",
    ),
    "misspelt column": (
        [ROWS, mean(kwargs={"column": "scores", "min_value": 0})],
        "no column scores; there are score",
    ),
    "no column": ([ROWS, mean(kwargs={"min_value": 0})], "column: field required"),
    "limit that is no number": (
        [ROWS, mean(kwargs={"column": "score", "min_value": "low"})],
        "min_value: value is not a valid float",
    ),
    "limit that is a date": ([ROWS, mean(kwargs={"column": "score", "min_value": [1]})], "min_value"),
    "unknown severity": ([ROWS, mean(severity="fatal")], "severity must be critical or warning, not fatal"),
    "unknown key": ([ROWS, mean(enabled=False)], "enabled: no such key"),
    "rows left out of the check": (
        [ROWS, mean(kwargs={"column": "score", "min_value": 0, "row_condition": "1 = 0"})],
        "row_condition",
    ),
}


@pytest.mark.parametrize("content, reason", BROKEN.values(), ids=BROKEN)
def test_a_broken_suite_is_refused(tmp_path: Path, content: Any, reason: str) -> None:
    file = tmp_path / "scores.json"
    wrapped = {"name": "scores", "expectations": content} if isinstance(content, list) else content
    file.write_text(content if isinstance(content, str) else json.dumps(wrapped))
    with pytest.raises(InvalidSuite) as refused:
        read_suite(file, ["score", "key"])
    assert str(file) in str(refused.value)
    assert reason in str(refused.value)


def test_a_missing_suite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSuite, match=r"source\.json: not found"):
        read_suite(tmp_path / "source.json")


@pytest.mark.parametrize("stage", get_args(Stage))
@pytest.mark.parametrize("model", load_models(), ids=lambda model: model.name)
def test_every_suite_fits_its_model(model: ModelConfig, stage: Stage) -> None:
    suite = read_suite(suite_file(model.name, stage), stage_columns(model, stage))
    assert suite.parameters == ({"rows_low", "rows_high"} if stage == "source" else set())


def test_the_contract_of_predictions_is_what_the_job_writes() -> None:
    for model in load_models():
        written = predictions_schema(model.source.key, pa.string())
        names = {
            "string": "VARCHAR",
            "double": "DOUBLE",
            "bool": "BOOLEAN",
            "date32[day]": "DATE",
            "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
        }
        actual = {field.name: names[str(field.type)] for field in written}
        assert [
            check.sentence for check in contract_checks(stage_columns(model, "predictions"), actual) if not check.success
        ] == []
