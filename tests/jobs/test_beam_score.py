"""The scores of Beam are those of the score job, to the last bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.jobs.vertex import pack
from tests.core.examples import flights
from tests.core.test_artifacts import with_golden_scores
from tests.jobs import beam

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

ROWS = 5000


@pytest.fixture
def packed(model: tuple[Path, str], tmp_path: Path) -> Path:
    pack(model[0], tmp_path / "model.tar.gz")
    return tmp_path / "model.tar.gz"


@pytest.fixture
def features(tmp_path: Path) -> pa.Table:
    """Features in several files of several row groups, with a carrier and an origin that training did not see."""
    rows = flights(ROWS, seed=9)
    carrier = pc.if_else(pc.equal(rows["origin"], "JFK"), "ZZ", rows["carrier"])
    rows = rows.set_column(rows.column_names.index("carrier"), "carrier", carrier)
    new = pc.and_(pc.equal(rows["origin"], "JFK"), pc.less(rows["hour"], 10))
    rows = rows.set_column(rows.column_names.index("origin"), "origin", pc.if_else(new, "LGA", rows["origin"]))
    folder = tmp_path / "features" / "partition_date=2013-04-01"
    folder.mkdir(parents=True)
    for number in range(3):
        pq.write_table(rows.slice(number * 2000, 2000), folder / f"{number:012d}.parquet", row_group_size=700)
    return rows


def arguments(tmp_path: Path, digest: str, **change: object) -> dict[str, object]:
    places = {"features": tmp_path / "features" / "*" / "*.parquet", "output": tmp_path / "scores" / "part"}
    return {**places, "artifact": tmp_path / "model.tar.gz", "manifest_sha256": digest, "key": "flight_id", **change}


def expected(features: pa.Table, model: tuple[Path, str], tmp_path: Path) -> pa.Table:
    """What the score job writes, and what it has not seen."""
    pq.write_table(features, tmp_path / "features.parquet")
    spec: dict[str, Any] = {"features": str(tmp_path / "features.parquet"), "output": str(tmp_path / "scores.parquet")}
    spec |= {"artifact": str(model[0]), "manifest_sha256": model[1], "key": "flight_id", "result": str(tmp_path / "result.json")}
    beam.local_job("score", spec, tmp_path)
    unseen = pa.array([{"JFK": "carrier", "LGA": "carrier,origin"}.get(origin, "") for origin in features["origin"].to_pylist()])
    return pq.read_table(tmp_path / "scores.parquet").append_column("unseen", unseen)


def test_every_score_is_that_of_the_score_job(packed: Path, features: pa.Table, model: tuple[Path, str], tmp_path: Path) -> None:
    done = beam.launch(arguments(tmp_path, model[1]))
    assert done.returncode == 0, done.stderr
    found = beam.read(tmp_path / "scores" / "part")
    assert found.column_names == ["flight_id", "partition_date", "score", "unseen"]
    assert found.equals(expected(features, model, tmp_path))
    assert json.loads(done.stdout.splitlines()[-1]) == {"rows": ROWS}


def test_a_worker_in_a_process_of_its_own_scores_alike(
    packed: Path, features: pa.Table, model: tuple[Path, str], tmp_path: Path
) -> None:
    """As on Dataflow, where what a pipeline is made of comes to its workers as bytes."""
    processes = ("--direct_running_mode=multi_processing", "--direct_num_workers=1")
    done = beam.launch(arguments(tmp_path, model[1]), *processes)
    assert done.returncode == 0, done.stderr
    found = beam.read(tmp_path / "scores" / "part")
    assert found.equals(expected(features, model, tmp_path))

    infinite = features.set_column(2, "distance", pa.array([*[1.0] * (ROWS - 1), float("inf")]))
    pq.write_table(infinite, tmp_path / "features" / "partition_date=2013-04-01" / "9.parquet", row_group_size=700)
    done = beam.launch(arguments(tmp_path, model[1], output=tmp_path / "infinite" / "part"), *processes)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert "column 'distance': 1 of" in said and said.endswith("let a row rule quarantine them")


def test_what_cannot_be_scored_is_refused(packed: Path, features: pa.Table, model: tuple[Path, str], tmp_path: Path) -> None:
    def case(name: str, rows: pa.Table, **change: object) -> dict[str, object]:
        (tmp_path / name).mkdir()
        pq.write_table(rows, tmp_path / name / "rows.parquet", row_group_size=ROWS - 1)
        places = {"features": tmp_path / name / "*.parquet", "output": tmp_path / f"{name}-scores" / "part"}
        return arguments(tmp_path, model[1], **{**places, **change})

    # Another model, whose manifest and golden rows do not agree.
    folder = Path(shutil.copytree(model[0], tmp_path / "changed"))
    digest = with_golden_scores(folder, 0.01)
    pack(folder, tmp_path / "changed.tar.gz")
    (tmp_path / "damaged.tar.gz").write_bytes(packed.read_bytes()[:1000])
    infinite = pa.array([*[1.0] * (ROWS - 1), float("inf")])
    found = beam.outcomes(
        "beam_score",
        [
            case("empty", features.slice(0, 0)),
            case("missing", features.drop_columns(["distance"])),
            case("no-key", features.drop_columns(["flight_id"])),
            case("no-date", features.drop_columns(["partition_date"])),
            case("retyped", features.set_column(3, "hour", pc.cast(features["hour"], pa.string()))),
            case("infinite", features.set_column(2, "distance", infinite)),
            arguments(tmp_path, model[1], features=tmp_path / "none" / "*.parquet"),
            arguments(tmp_path, "0" * 64),
            arguments(tmp_path, digest, artifact=tmp_path / "changed.tar.gz"),
            arguments(tmp_path, model[1], artifact=tmp_path / "damaged.tar.gz"),
            arguments(tmp_path, model[1], artifact=tmp_path / "none.tar.gz"),
        ],
    )
    for (code, said), message in zip(
        found,
        [
            "has no rows: check the source partition",
            "column 'distance' is missing",
            "column 'flight_id' is missing",
            "column 'partition_date' is missing",
            "column 'hour' holds string (such as",
            "column 'distance': 1 of 1 values are infinite",
            "none/*.parquet: no file matches",
            "the registry says 000000000000",
            "golden rows score up to 0.01 off",
            "cannot be unpacked",
            "none.tar.gz: is not there: give the model.tar.gz of a version",
        ],
        strict=True,
    ):
        assert (code, said[:7]) == (1, "ERROR: ")
        assert message in said and "while running" not in said
    assert not list(tmp_path.glob("*scores/*.parquet"))
