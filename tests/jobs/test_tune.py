"""The tune job, end to end: its result is what the train job takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from include.core.files import sha256_of
from include.core.training import Parameters
from tests.core.examples import CATEGORICAL, NUMERIC, flights
from tests.jobs.running import refusal, run


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    snapshot = tmp_path / "partition_date=2013-01-12" / "data.parquet"
    snapshot.parent.mkdir()
    pq.write_table(flights(), snapshot)
    return {
        "snapshot": str(snapshot),
        "snapshot_sha256": sha256_of(snapshot),
        "result": str(tmp_path / "result.json"),
        "model": "flight_delays",
        "task": "classification",
        "numeric": list(NUMERIC),
        "categorical": list(CATEGORICAL),
        "holdout_days": 3,
        "min_rows": 100,
        "max_trees": 20,
        "trials": 3,
        "validation_days": 2,
        "windows": [4, None],
        "half_lives": [None, 3],
    }


def test_what_is_chosen_can_be_trained_with(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("tune", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    content = Path(spec["result"]).read_bytes()
    found = json.loads(content)
    assert found.keys() == {"parameters", "loss", "baseline_loss", "trials", "validation"}
    assert found["loss"] == min(trial["loss"] for trial in found["trials"] if trial["loss"] is not None)
    assert [one["rows"] for one in found["validation"]] == [500, 500]
    assert Parameters.from_json(found["parameters"]).to_json() == found["parameters"]
    lines = [line for line in done.stdout.splitlines() if line.startswith("trial ")]
    assert len(lines) == 3
    assert f"trial 3 of 3: loss {found['trials'][2]['loss']:.5f}, " in lines[2]
    assert f"best {found['loss']:.5f}" in lines[2]

    assert run("tune", spec, tmp_path).returncode == 0
    assert Path(spec["result"]).read_bytes() == content

    training = {key: spec[key] for key in ("snapshot", "snapshot_sha256", "model", "task", "numeric", "categorical")}
    training |= {"snapshot_id": "s", "artifact": str(tmp_path / "model"), "result": str(tmp_path / "trained.json")}
    limits = {"holdout_days": 3, "min_rows": 100}
    trained = run("train", {**training, **limits, "parameters": found["parameters"]}, tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert json.loads((tmp_path / "trained.json").read_bytes())["holdout"]["rows"] == 750


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot_sha256": "0" * 64}, "the spec says 000000000000…: take it again"),
        ({"holdout_days": 8}, "two validation sets of training.search.validation_days = 2 leave none to learn from"),
        ({"windows": []}, "windows: is empty"),
        ({"windows": [2.5]}, "windows: [2.5] must be"),
        ({"task": "ranking"}, "task: 'ranking' must be classification or regression"),
        ({"numeric": ["distance", "speed"]}, "column 'speed' is missing"),
    ],
    ids=str,
)
def test_a_search_that_does_not_fit_is_refused(spec: dict[str, Any], tmp_path: Path, change: dict, message: str) -> None:
    assert message in refusal(run("tune", {**spec, **change}, tmp_path))
    assert not Path(spec["result"]).exists()
