"""The score job, end to end: right scores, in order, at once or not at all."""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.config import REPOSITORY
from include.core.artifacts import load_artifact, predict
from include.core.features import encode
from include.core.files import sha256_of
from tests.core.examples import flights
from tests.core.test_artifacts import replace_file, with_golden_scores
from tests.jobs.running import refusal, run, start

ROWS = 5000


@pytest.fixture
def spec(model: tuple[Path, str], tmp_path: Path) -> dict[str, Any]:
    """A spec whose features are there, and whose output is there too: from a run before."""
    pq.write_table(flights(ROWS, seed=9), tmp_path / "features.parquet", row_group_size=1700)
    (tmp_path / "scores.parquet").write_bytes(b"old")
    return {
        "features": str(tmp_path / "features.parquet"),
        "output": str(tmp_path / "scores.parquet"),
        "result": str(tmp_path / "result.json"),
        "artifact": str(model[0]),
        "manifest_sha256": model[1],
        "key": "flight_id",
    }


def use(spec: dict[str, Any], table: pa.Table) -> None:
    pq.write_table(table, spec["features"])


def nothing_was_written(spec: dict[str, Any]) -> bool:
    """The old output is there, no result, and nothing temporary."""
    output = Path(spec["output"])
    return output.read_bytes() == b"old" and not Path(spec["result"]).exists() and not list(output.parent.glob(".*.tmp"))


def test_every_row_is_scored_in_order(spec: dict[str, Any], tmp_path: Path) -> None:
    done = run("score", {**spec, "batch_rows": 2048}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scored 5,000 rows" in done.stdout
    rows, scores = flights(ROWS, seed=9), pq.read_table(spec["output"])
    assert scores.column_names == ["flight_id", "partition_date", "score"]
    assert scores["flight_id"].equals(rows["flight_id"])
    assert scores["partition_date"].equals(rows["partition_date"])
    artifact = load_artifact(Path(spec["artifact"]), spec["manifest_sha256"])
    expected = predict(artifact.booster, encode(rows.combine_chunks().to_batches()[0], artifact.spec)[0])
    np.testing.assert_array_equal(scores["score"].to_numpy(), expected.astype(np.float64))

    result = json.loads(Path(spec["result"]).read_bytes())
    assert result["rows"] == sum(result["histogram"]) == ROWS
    assert result["edges"] == artifact.manifest["reference"]["score"]["edges"]
    assert result["mean"] == pytest.approx(expected.mean(dtype=np.float64))
    assert (result["min"], result["max"]) == (expected.min(), expected.max())
    assert result["golden"] == "ok"
    assert result["unseen"] == {"carrier": 0, "origin": 0}
    assert result["missing"]["carrier"] == rows["carrier"].null_count


def test_the_same_rows_and_model_give_the_same_file(spec: dict[str, Any], tmp_path: Path) -> None:
    digests = set()
    for threads in (1, 2, 2):
        assert run("score", {**spec, "batch_rows": 2048, "threads": threads}, tmp_path).returncode == 0
        digests.add(sha256_of(Path(spec["output"])))
    assert len(digests) == 1


def test_unseen_categories_are_counted(spec: dict[str, Any], tmp_path: Path) -> None:
    rows = flights(ROWS, seed=9)
    carrier = pc.if_else(pc.equal(rows["carrier"], "UA"), "ZZ", rows["carrier"])
    use(spec, rows.set_column(rows.column_names.index("carrier"), "carrier", carrier))
    assert run("score", spec, tmp_path).returncode == 0
    expected = pc.sum(pc.equal(rows["carrier"], "UA")).as_py()
    assert json.loads(Path(spec["result"]).read_bytes())["unseen"] == {"carrier": expected, "origin": 0}


def test_a_path_and_a_key_may_have_any_characters(spec: dict[str, Any], tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "odd" partition_date=2013-01-01'
    folder.mkdir()
    rows = flights(ROWS).rename_columns({"flight_id": 'the "key"'})
    pq.write_table(rows, folder / "features.parquet")
    done = run("score", {**spec, "features": str(folder / "features.parquet"), "key": 'the "key"'}, tmp_path)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(spec["output"])['the "key"'].equals(rows['the "key"'])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.slice(0, 0), "has no rows"),
        (lambda rows: rows.drop_columns(["distance"]), "column 'distance' is missing"),
        (lambda rows: rows.rename_columns({"carrier": "Carrier"}), "column 'carrier' is missing"),
        (lambda rows: rows.drop_columns(["flight_id"]), "column 'flight_id' is missing"),
        (lambda rows: rows.drop_columns(["partition_date"]), "column 'partition_date' is missing"),
        (lambda rows: rows.set_column(3, "hour", pc.cast(rows["hour"], pa.string())), "column 'hour' holds string (such as"),
        (lambda rows: rows.set_column(4, "carrier", rows["hour"]), "column 'carrier' holds int64"),
        (lambda rows: rows.set_column(1, "partition_date", rows["hour"]), "column 'partition_date' holds int64"),
        (
            lambda rows: rows.set_column(2, "distance", pa.array([*[1.0] * (ROWS - 2), float("inf"), float("-inf")])),
            "column 'distance': 2 of",
        ),
    ],
    ids=["empty", "missing", "renamed", "no key", "no date", "number retyped", "category retyped", "date retyped", "infinite"],
)
def test_features_that_do_not_fit_are_refused_by_name(spec: dict[str, Any], tmp_path: Path, change: Any, message: str) -> None:
    use(spec, change(flights(ROWS, seed=9)))
    assert message in refusal(run("score", spec, tmp_path))
    assert nothing_was_written(spec)


def test_the_last_batch_is_checked_as_the_first(spec: dict[str, Any], tmp_path: Path) -> None:
    rows = flights(ROWS)
    use(spec, rows.set_column(2, "distance", pa.array([*[1.0] * (ROWS - 1), float("inf")])))
    assert "column 'distance': 1 of" in refusal(run("score", {**spec, "batch_rows": 2048}, tmp_path))
    assert nothing_was_written(spec)


def test_scores_that_are_no_numbers_are_refused_with_their_count(spec: dict[str, Any], tmp_path: Path) -> None:
    """A model that gives NaN: its leaves are, and manifest and golden rows agree with it."""
    folder = Path(shutil.copytree(spec["artifact"], tmp_path / "nan"))
    booster = load_artifact(folder, spec["manifest_sha256"]).booster
    document = json.loads(booster.save_raw("json"))
    tree = document["learner"]["gradient_booster"]["model"]["trees"][0]
    # NaN where hours are late, and golden rows only of early ones: the golden check cannot see it.
    replace_leaves(tree)
    digest = replace_file(folder, "model.ubj", to_ubj(document))
    golden = pq.read_table(folder / "golden.parquet")
    kept = golden.filter(pa.array(np.isfinite(scores_of(folder, digest))))
    assert 0 < kept.num_rows < golden.num_rows
    sink = pa.BufferOutputStream()
    pq.write_table(kept, sink)
    digest = replace_file(folder, "golden.parquet", sink.getvalue().to_pybytes())
    artifact = load_artifact(folder, digest)
    rows = flights(ROWS, seed=9).combine_chunks().to_batches()[0]
    wrong = int((~np.isfinite(predict(artifact.booster, encode(rows, artifact.spec)[0]))).sum())
    assert f"{wrong} of {ROWS} scores are NaN or infinite" in refusal(
        run("score", {**spec, "artifact": str(folder), "manifest_sha256": digest}, tmp_path)
    )
    assert nothing_was_written(spec)


def replace_leaves(tree: dict[str, Any]) -> None:
    """NaN on the leaves to the right of the root; the value of a leaf stands among the conditions of splits."""
    waiting = [tree["right_children"][0]]
    while waiting:
        node = waiting.pop()
        left, right = tree["left_children"][node], tree["right_children"][node]
        if left == -1:
            tree["split_conditions"][node] = float("nan")
        else:
            waiting += [left, right]


def to_ubj(document: dict[str, Any]) -> bytes:
    import xgboost

    booster = xgboost.Booster()
    booster.load_model(bytearray(json.dumps(document).encode()))
    return bytes(booster.save_raw("ubj"))


def scores_of(folder: Path, digest: str) -> np.ndarray:
    artifact = load_artifact(folder, digest)
    return predict(artifact.booster, artifact.golden.rows)


def test_a_changed_model_is_refused(spec: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(spec["artifact"], tmp_path / "changed"))
    content = bytearray((folder / "model.ubj").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.ubj").write_bytes(content)
    assert "model.ubj: SHA-256 is" in refusal(run("score", {**spec, "artifact": str(folder)}, tmp_path))
    assert nothing_was_written(spec)


def test_a_model_that_scores_its_golden_rows_otherwise_is_refused(spec: dict[str, Any], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(spec["artifact"], tmp_path / "changed"))
    digest = with_golden_scores(folder, 0.01)
    done = run("score", {**spec, "artifact": str(folder), "manifest_sha256": digest}, tmp_path)
    assert "golden rows score up to 0.01 off" in refusal(done)
    assert nothing_was_written(spec)


CRASHES = """
import os, signal, sys
import numpy as np, xgboost
content, rows = open(sys.argv[1], "rb").read(), np.zeros((1, 4), dtype=np.float32)
for seed in range(400):
    changed = bytearray(content)
    position = int(np.random.default_rng(seed).integers(len(content) * 8))
    changed[position // 8] ^= 1 << (position % 8)
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            booster = xgboost.Booster({"nthread": 1})
            booster.load_model(changed)
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGSEGV:
        print(position)
        break
"""


def test_a_model_that_crashes_takes_only_the_job_with_it(spec: dict[str, Any], tmp_path: Path) -> None:
    """One flipped bit can make XGBoost end the process; here manifest and registry vouch for such a file."""
    folder = Path(shutil.copytree(spec["artifact"], tmp_path / "crashing"))
    found = subprocess.run([sys.executable, "-c", CRASHES, folder / "model.ubj"], capture_output=True, text=True, check=True)
    if not found.stdout:
        pytest.skip("none of 400 flipped bits crashes this XGBoost")
    position, content = int(found.stdout), bytearray((folder / "model.ubj").read_bytes())
    content[position // 8] ^= 1 << (position % 8)
    digest = replace_file(folder, "model.ubj", bytes(content))
    done = run("score", {**spec, "artifact": str(folder), "manifest_sha256": digest}, tmp_path)
    assert done.returncode == -signal.SIGSEGV
    assert nothing_was_written(spec)


def slow(spec: dict[str, Any]) -> dict[str, Any]:
    """Enough rows, in batches small enough, for a second of writing."""
    use(spec, pa.concat_tables([flights(50_000, seed=seed) for seed in range(6)]))
    return {**spec, "batch_rows": 2048, "threads": 1}


def wait_for_writing(output: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(output.parent.glob(f".{output.name}.*.tmp")):
        assert time.monotonic() < deadline, "the job did not begin to write"
        time.sleep(0.002)


def test_a_killed_job_leaves_the_old_output_or_the_new(spec: dict[str, Any], tmp_path: Path) -> None:
    spec, output = slow(spec), Path(spec["output"])
    process = start("score", spec, tmp_path)
    wait_for_writing(output)
    began = time.monotonic()
    process.communicate()
    duration, new = time.monotonic() - began, output.read_bytes()
    assert process.returncode == 0

    seen = set()
    for attempt in range(8):
        output.write_bytes(b"old")
        process = start("score", spec, tmp_path)
        wait_for_writing(output)
        time.sleep(random.Random(attempt).uniform(0, duration * 1.1))
        process.kill()
        process.communicate()
        found = output.read_bytes()
        assert found in (b"old", new)
        seen.add(found == new)
        for leftover in tmp_path.glob(".*.tmp"):
            leftover.unlink()
    assert False in seen, "no kill came before the end: nothing was shown"


def test_a_job_that_is_asked_to_stop_cleans_up(spec: dict[str, Any], tmp_path: Path) -> None:
    spec = slow(spec)
    process = start("score", spec, tmp_path)
    wait_for_writing(Path(spec["output"]))
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert nothing_was_written(spec)


def test_a_job_ends_with_its_parent(spec: dict[str, Any], tmp_path: Path) -> None:
    spec = slow(spec)
    process = start("score", spec, tmp_path, stdin=subprocess.PIPE, environment={"AILERON_PARENT_PIPE": "1"})
    wait_for_writing(Path(spec["output"]))
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert nothing_was_written(spec)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    process.stderr.close()


def test_a_full_disk_leaves_the_old_output(spec: dict[str, Any], tmp_path: Path) -> None:
    spec = slow(spec)
    done = run("score", spec, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)))
    assert "File too large" in refusal(done, code=2)
    assert nothing_was_written(spec)


def test_the_result_does_not_name_an_output_that_is_not_there(spec: dict[str, Any], tmp_path: Path) -> None:
    """The output is put in place before the result is written: who sees a result can read the output."""
    folder = tmp_path / "nowhere"
    folder.write_text("a file where a folder must be")
    done = run("score", {**spec, "output": str(folder / "scores.parquet")}, tmp_path)
    refusal(done, code=2)
    assert not Path(spec["result"]).exists()


# The system counts what a parent holds among the memory of its child, so a small process stands between.
PEAK = """
import resource, subprocess, sys
subprocess.check_call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def test_memory_does_not_grow_with_rows(spec: dict[str, Any], tmp_path: Path) -> None:
    peaks = []
    for copies in (2, 20):
        use(spec, pa.concat_tables([flights(50_000, seed=1)] * copies))
        path = tmp_path / "spec.json"
        path.write_text(json.dumps({**spec, "batch_rows": 20_480}))
        command = [sys.executable, "-c", PEAK, sys.executable, "-m", "include.jobs.score", str(path)]
        peaks.append(int(subprocess.check_output(command, text=True, cwd=REPOSITORY).split()[-1]))
    assert peaks[1] < 1.25 * peaks[0]


def test_the_digest_of_the_manifest_is_what_counts(spec: dict[str, Any], tmp_path: Path) -> None:
    wrong = hashlib.sha256(b"another").hexdigest()
    assert "the registry says" in refusal(run("score", {**spec, "manifest_sha256": wrong}, tmp_path))
    assert nothing_was_written(spec)
