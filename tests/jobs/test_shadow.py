"""The shadow job: two models on the same rows, and how far they are apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import load_artifact, predict
from include.core.features import encode
from tests.core.examples import PARAMETERS, flights, saved
from tests.jobs.running import refusal, run

ROWS = 2000


@pytest.fixture
def spec(model: tuple[Path, str], tmp_path: Path) -> dict[str, Any]:
    # A folder that looks like a partition, as those of a lake do.
    folder = tmp_path / "partition_date=2013-01-12"
    folder.mkdir()
    pq.write_table(flights(ROWS, seed=9), folder / "features.parquet")
    other = saved(tmp_path / "champion", flights(seed=2), parameters=replace(PARAMETERS, trees=5, max_depth=2))
    return {
        "features": str(folder / "features.parquet"),
        "key": "flight_id",
        "artifact": str(model[0]),
        "manifest_sha256": model[1],
        "champion_artifact": str(tmp_path / "champion"),
        "champion_manifest_sha256": other,
        "threshold": 0.5,
        "result": str(tmp_path / "result.json"),
        "work": str(folder / "work"),
    }


def scores(folder: str, digest: str) -> np.ndarray:
    artifact = load_artifact(Path(folder), digest)
    batch = flights(ROWS, seed=9).combine_chunks().to_batches()[0]
    return predict(artifact.booster, encode(batch, artifact.spec)[0]).astype(np.float64)


def test_churn_and_shift_are_those_of_the_scores(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("shadow", spec, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(spec["result"]).read_bytes())
    ours = scores(spec["artifact"], spec["manifest_sha256"])
    theirs = scores(spec["champion_artifact"], spec["champion_manifest_sha256"])
    low, high = min(ours.min(), theirs.min()), max(ours.max(), theirs.max())
    cells = [np.bincount(np.minimum((one - low) / (high - low) * 50, 49).astype(int), minlength=50) for one in (ours, theirs)]
    gaps = np.abs(np.cumsum(cells[0]) - np.cumsum(cells[1])) / ROWS
    assert 0 < found["churn"] == pytest.approx(np.mean((ours >= 0.5) != (theirs >= 0.5)))
    assert 0 < found["shift"] == pytest.approx(gaps.max())
    assert found["rows"] == found["rows_scored"] == ROWS
    assert found["unseen"] == {"carrier": 0, "origin": 0}


def test_a_model_is_no_way_from_itself(spec: dict[str, Any], tmp_path: Path) -> None:
    same = {"champion_artifact": spec["artifact"], "champion_manifest_sha256": spec["manifest_sha256"]}
    assert run("shadow", {**spec, **same}, tmp_path).returncode == 0
    found = json.loads(Path(spec["result"]).read_bytes())
    assert (found["churn"], found["shift"]) == (0, 0)


def test_the_first_version_is_compared_with_none(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("shadow", {**spec, "champion_artifact": "", "champion_manifest_sha256": ""}, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(Path(spec["result"]).read_bytes())
    assert (found["rows_scored"], found["churn"], found["shift"]) == (ROWS, None, None)


@pytest.mark.parametrize("half", ["champion_artifact", "champion_manifest_sha256"])
def test_half_a_champion_is_none(spec: dict[str, Any], tmp_path: Path, half: str) -> None:
    assert "give both, or neither" in refusal(run("shadow", {**spec, half: ""}, tmp_path))
    assert not Path(spec["result"]).exists()


def test_a_changed_champion_is_refused(spec: dict[str, Any], tmp_path: Path) -> None:
    assert "the registry says 000000000000" in refusal(run("shadow", {**spec, "champion_manifest_sha256": "0" * 64}, tmp_path))
    assert not Path(spec["result"]).exists()
