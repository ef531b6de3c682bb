"""A process dies, anywhere: readers see the old rows or the new ones, and the next try completes what was begun."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from include import ledger
from include.config import REPOSITORY, load_model
from include.core.files import sha256_of
from include.platforms import platform_for
from tests.dag_runs import run_again, run_dag, states
from tests.dags.conftest import PUBLISHED
from tests.dags.lakes import MODEL, PREDICT, TRAIN, live_file, own_database, rows

pytestmark = pytest.mark.crash

DAY = "2013-02-03"  # published once
RUN = "manual__killed"


def start(*runs: dict[str, Any], environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Runs, one after the other, in a process of their own. Its standard output says which task it is at."""
    return subprocess.Popen(
        [sys.executable, "-u", "-m", "tests.dag_runs", *map(json.dumps, runs)],
        cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def kill_in(process: subprocess.Popen[str], task: str, seconds: float) -> bool:
    """SIGKILL, so many seconds after the task has begun; False if the run had ended before."""
    assert process.stdout is not None
    output = []
    with process:
        for line in process.stdout:
            output.append(line)
            if f"starting task_id={task} " in line:
                time.sleep(seconds)
                ended = process.poll() is not None
                process.kill()
                return not ended
    assert f"run {RUN} success" in output[-1], "".join(output[-50:])
    return False


def jobs(lake: Path) -> list[str]:
    """Job processes that work in this lake."""
    listed = subprocess.run(["ps", "-A", "-ww", "-o", "pid=,args="], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if "include.jobs." in line and str(lake) in line]


def assert_no_orphans(lake: Path, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while jobs(lake):
        assert time.monotonic() < deadline, jobs(lake)
        time.sleep(0.1)


def assert_nothing_is_half(lake: Path) -> None:
    """Every file that has its final name is whole. What a killed process leaves behind begins with a dot."""
    for file in lake.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(lake).parts)
        if file.suffix == ".parquet" and not hidden:
            pq.read_metadata(file)
        elif file.suffix == ".json" and not hidden:
            json.loads(file.read_text())
    assert_conserved(lake)


def assert_conserved(lake: Path) -> None:
    """Of every publication: rows in = scored + quarantined, versions without a gap. Live is what the last one says."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in ledger.read("publication", MODEL):
        body = record.body
        assert body["rows_in"] == body["rows_scored"] + body["rows_quarantined"], body
        found.setdefault(body["partition"], []).append(body)
    for day, bodies in found.items():
        assert [body["version"] for body in sorted(bodies, key=lambda body: body["version"])] == list(range(1, len(bodies) + 1))
        kept = lake / "versions" / MODEL / f"partition_date={day}"
        assert all(sha256_of(kept / f"{body['digest']}.parquet").startswith(body["digest"]) for body in bodies[-2:])


def published_runs(day: str = DAY) -> list[str]:
    return [record.body["run_id"] for record in ledger.read("publication", MODEL, prefix=f"{day}.")]


def test_killed_in_one_task_after_the_other_a_run_ends_as_if_nothing_had_been(published: Path) -> None:
    """As Airflow does it: what has succeeded is not run again, what was killed is tried again, in the same run."""
    chance = random.Random(20130203)
    old, (first,) = rows(live_file(published, DAY)), published_runs()
    asked: dict[str, Any] = {"dag_id": PREDICT, "partition": DAY, "run_id": RUN}
    killed = 0
    for task, longest in {
        "build_features": 0.3, "score": 0.5, "score ": 2.5, "postprocess": 1.0, "audit_predictions": 0.4,
        "publish": 0.05,
    }.items():  # fmt: skip
        killed += kill_in(start(asked), task.strip(), chance.uniform(0, longest))
        asked = {"dag_id": PREDICT, "run_id": RUN, "again": True}
        assert_no_orphans(published)
        assert_nothing_is_half(published)
        assert rows(live_file(published, DAY)) == old
        assert {row[0] for row in rows(live_file(published, DAY), "run_id")} in ({first}, {RUN})
    assert killed >= 4, "hardly a process was there to be killed"
    run = run_again(PREDICT, RUN)
    assert run.state == "success", states(run)
    assert rows(live_file(published, DAY)) == old and {row[0] for row in rows(live_file(published, DAY), "run_id")} == {RUN}
    assert published_runs() == [first, RUN]
    assert_nothing_is_half(published)


def test_a_job_does_not_outlive_the_task_that_started_it(flights: Path, edit_model: Callable[..., Path]) -> None:
    edit_model("trials: 1", "trials: 200")

    def made() -> list[Path]:
        return sorted([*(flights / "models" / MODEL).iterdir(), *(flights / "staging").rglob("t*.result.json")])

    before = made()
    process = start({"dag_id": TRAIN, "conf": {"as_of": "2013-02-01"}})
    assert process.stdout is not None
    with process:
        searches = any("trial 1 of 200" in line for line in process.stdout)
        found = jobs(flights)
        process.kill()
    assert searches and len(found) == 1
    # Soon: after five seconds it would notice anyway, as it cannot tell its progress to anybody.
    assert_no_orphans(flights, seconds=4)
    assert made() == before


@pytest.fixture
def staged(published: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Another run about the day that is published, ready to publish other rows: its first fact, and what the ledger will say."""
    (record,) = ledger.read("publication", MODEL, prefix=f"{DAY}.")
    place = published / "staging" / MODEL / DAY
    shutil.copytree(place / record.body["workspace"], place / ("0" * 16))
    draft, file = place / "draft", place / ("0" * 16) / "predictions.parquet"
    duckdb.execute(f"COPY (SELECT * REPLACE ('{RUN}' AS run_id) FROM '{file}') TO '{draft}' (FORMAT parquet)")
    draft.replace(file)
    return {"partition": DAY, "workspace": "0" * 16}, {**record.body, "run_id": RUN}


def test_killed_at_any_step_of_publishing_the_next_try_completes_it(
    published: Path, tmp_path: Path, staged: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    """One death for each time that publishing opens, links, renames or locks something."""
    run, facts = staged
    model, (first,) = load_model(MODEL), published_runs()
    old = sha256_of(live_file(published, DAY))
    new = sha256_of(published / "staging" / MODEL / DAY / run["workspace"] / "predictions.parquet")
    shown = [published / kind for kind in ("predictions", "quarantine", "versions", "ledger/publication")]
    for folder in shown:
        shutil.copytree(folder, tmp_path / "as it was" / folder.name)

    def publish() -> None:
        platform_for(model).publish(model, run, facts)

    step, ends = 0, set()
    while dies_at(step, publish):
        assert_nothing_is_half(published)
        ends.add((sha256_of(live_file(published, DAY)), tuple(published_runs())))
        assert ends <= {(old, (first,)), (new, (first,)), (new, (first, RUN))}, f"killed at step {step}"
        publish()
        assert sha256_of(live_file(published, DAY)) == new and published_runs() == [first, RUN], f"killed at step {step}"
        assert_nothing_is_half(published)
        for folder in shown:
            shutil.rmtree(folder)
            shutil.copytree(tmp_path / "as it was" / folder.name, folder)
        step += 1
    assert step > 20 and len(ends) == 3


def test_two_writers_of_one_partition_take_turns(published: Path, staged: tuple[dict[str, Any], dict[str, Any]]) -> None:
    (record,) = ledger.read("publication", MODEL, prefix=f"{DAY}.")
    writers = [staged, ({"partition": DAY, "workspace": record.body["workspace"]}, record.body)]
    children, (wait, go) = [], os.pipe()
    for run, facts in writers:
        children.append(os.fork())
        if children[-1] == 0:
            try:
                os.close(go)
                os.read(wait, 1)  # both begin when this process closes its end
                for _ in range(100):
                    platform_for(load_model(MODEL)).publish(load_model(MODEL), run, facts)
            except BaseException:
                os._exit(1)
            os._exit(0)
    os.close(go)
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    records = sorted(
        (record.body["version"], record.body["digest"]) for record in ledger.read("publication", MODEL, prefix=f"{DAY}.")
    )
    assert len(records) > 2 and sha256_of(live_file(published, DAY)).startswith(records[-1][1])
    assert_nothing_is_half(published)


def test_partitions_in_any_order_and_two_at_a_time_give_the_same_rows(published: Path, tmp_path: Path) -> None:
    before = {day: rows(live_file(published, day)) for day in PUBLISHED}
    one, two, three, four = PUBLISHED
    processes = []
    # Both end with the third day: two writers of one partition.
    for name, days in {"left": (four, three), "right": (two, three)}.items():
        (tmp_path / name).mkdir()
        runs = [{"dag_id": PREDICT, "partition": day, "run_id": f"manual__{name}_{day}"} for day in days]
        processes.append((runs, start(*runs, environment=own_database(tmp_path / name))))
    for runs, process in processes:
        output, _ = process.communicate(timeout=300)
        assert [f"run {run['run_id']} success" in output for run in runs] == [True] * len(runs), output[-5000:]
    assert {day: rows(live_file(published, day)) for day in PUBLISHED} == before
    assert {day: len(published_runs(day)) for day in PUBLISHED} == {one: 1, two: 2, three: 3, four: 2}
    assert {row[0] for row in rows(live_file(published, three), "run_id")} == {published_runs(three)[-1]}
    assert_nothing_is_half(published)


@pytest.mark.slow
def test_killed_twenty_times_at_random(published: Path) -> None:
    """A partition that is new, a run that begins anew each time: no kill may leave something that stops the next."""
    day, chance = "2013-02-04", random.Random(7)
    reference = run_dag(PREDICT, conf={"partition": day, "dry_run": True})
    workspace = reference.get_task_instance("resolve_partition").xcom_pull(task_ids="resolve_partition", key="run")["workspace"]
    expected = rows(published / "staging" / MODEL / day / workspace / "predictions.parquet")
    for number in range(20):
        kill_in(
            start({"dag_id": PREDICT, "partition": day, "run_id": f"{RUN}_{number}"}), "resolve_partition", chance.uniform(0, 9)
        )
        assert_no_orphans(published)
        assert_nothing_is_half(published)
        if live_file(published, day).exists():
            assert rows(live_file(published, day)) == expected
    for number in range(20):
        run = run_again(PREDICT, f"{RUN}_{number}")
        assert run.state == "success", states(run)
        assert rows(live_file(published, day)) == expected
    assert sorted(published_runs(day)) == sorted(f"{RUN}_{number}" for number in range(20))
    assert_nothing_is_half(published)


def dies_at(step: int, work: Callable[[], None]) -> bool:
    """Work in a child that kills itself when it is about to touch files for the step-th time; False if it got to the end."""
    child = os.fork()
    if child == 0:
        left = step

        def count(event: str, _: tuple[Any, ...]) -> None:
            nonlocal left
            if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.chmod", "fcntl.flock", "os.listdir"):
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1

        try:
            sys.addaudithook(count)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, f"step {step}: an error"
    return os.WIFSIGNALED(status)
