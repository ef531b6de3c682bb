"""Training that is killed, cut off from its registry, or given damaged models: the champion is the old one or the new one,
and the next try ends as if nothing had been.

One run is made undisturbed, once; on its way the lake and the metadata database are kept as they were before some of its
tasks. A test goes back to such a point and runs what follows. The runs are made by children of one process that has
imported all there is to import: a child can be killed, and starting it costs next to nothing.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from demo import simulator
from include import champions, ledger
from include.config import MODELS, REPOSITORY
from include.core.files import sha256_of
from tests.dag_runs import load_dag, run_again, run_dag, states
from tests.dags.lakes import MODEL, PREDICT, ROLLBACK, TRAIN, live_file, mails, own_database, rows
from tests.dags.test_crashes import assert_no_orphans, assert_nothing_is_half

pytestmark = pytest.mark.crash

AS_OF, LATER, DAY = "2013-02-01", "2013-02-08", "2013-02-09"
RUN = "manual__disturbed"
NOBODY_LISTENS = {"AILERON_REGISTRY": "http://127.0.0.1:9", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}

# Functions at which something may happen to a run.
TASK, HANDOVER = "airflow.sdk.definitions.dag:_run_task", "airflow.sdk.execution_time.task_runner:_push_xcom_if_needed"
APPEND = "include.ledger:append"
MLFLOW = "mlflow.tracking.client:MlflowClient."
SET_ALIAS = MLFLOW + "set_registered_model_alias"


@dataclass(frozen=True)
class Fault:
    """At a function (`module:name`), if one of its arguments is `of` or is about the task `of`, before it or after it:
    the process is killed, the registry does not answer, or the lake is kept under a name ("keep ...")."""

    at: str
    of: str = ""
    when: str = "before"
    what: str = "kill"
    times: int = 1_000_000


@dataclass
class Stage:
    """One lake, the models and the metadata database, always at the same place; and the process whose children run DAGs."""

    folder: Path
    server: subprocess.Popen[str]
    end: dict[str, Any] = field(default_factory=dict)

    @property
    def lake(self) -> Path:
        return self.folder / "lake"

    def back_to(self, name: str) -> None:
        shutil.rmtree(self.lake)
        shutil.copytree(self.folder / "kept" / name / "lake", self.lake)
        for database in self.folder.glob("airflow.db*"):
            database.unlink()
        shutil.copyfile(self.folder / "kept" / name / "airflow.db", self.folder / "airflow.db")
        write_model(self.folder)

    def ask(self, *jobs: dict[str, Any]) -> list[Any]:
        """What functions of this file have returned, each in a child of its own and all at a time, or how the child ended."""
        assert self.server.stdin is not None and self.server.stdout is not None
        self.server.stdin.write(json.dumps(jobs) + "\n")
        self.server.stdin.flush()
        line = self.server.stdout.readline()
        assert line, "the process whose children run DAGs has gone:\n" + self.log()
        return json.loads(line)

    def run(self, *faults: Fault, again: bool = True, environment: dict[str, str] | None = None, **asked: Any) -> Any:
        """The states of the tasks of a run, "" being that of the run; or "killed"."""
        asked = {"dag_id": TRAIN, "run_id": RUN, **asked}
        job = {"do": "again" if again else "anew", "with": asked, "faults": [vars(fault) for fault in faults]}
        (found,) = self.ask({**job, "environment": environment or {}})
        assert isinstance(found, dict) or found == "killed", f"{found}\n{self.log()}"
        return found

    def predict(self, environment: dict[str, str] | None = None) -> set[str]:
        """Predict a day; the versions that its rows name."""
        found = self.run(
            again=False, environment=environment, dag_id=PREDICT, partition=DAY, run_id=f"manual__{time.monotonic_ns()}"
        )
        assert found[""] == "success", found
        return {version for (version,) in rows(live_file(self.lake, DAY), "model_version")}

    def log(self) -> str:
        return "\n".join((self.folder / "log").read_text().splitlines()[-80:])

    def query(self, database: str, statement: str) -> list[Any]:
        with closing(sqlite3.connect(self.folder / database)) as connection:
            found = connection.execute(statement).fetchall()
            connection.commit()
        return found


def write_model(folder: Path, **changes: str) -> None:
    """The demo's model, searched quickly, with the limits that a first weak champion would break out of the way."""
    shutil.rmtree(folder / "models", ignore_errors=True)
    shutil.copytree(MODELS / MODEL, folder / "models" / MODEL)
    yaml = folder / "models" / MODEL / "model.yaml"
    text = yaml.read_text()
    for old, new in {
        "trials: 8": "trials: 2",
        "max_trees: 300": "max_trees: 100",
        "slices: [origin, carrier]": "slices: [origin]",
        "max_score_shift: 0.75": "max_score_shift: 1.0",
        "  max_champion_age_days": "  max_decision_churn: 1.0\n  alpha: 0.2\n  max_champion_age_days",
    }.items():
        assert old in text
        text = text.replace(old, changes.get(old, new))
    for old, new in changes.items():
        text = text.replace(old, new)
    yaml.write_text(text)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, airflow_database: None) -> Iterator[Stage]:
    """A champion that was allowed two trees, and the undisturbed run that replaces it."""
    folder = tmp_path_factory.mktemp("stage")
    simulator.land(folder / "lake", date(2013, 1, 1), date(2013, 2, 10))
    simulator.land_outcomes(folder / "lake", date(2013, 1, 1), date(2013, 2, 8))
    environment = {name: value for name, value in own_database(folder).items() if not name.startswith("AILERON_")}
    environment |= {"AILERON_LAKE": str(folder / "lake"), "AILERON_MODELS": str(folder / "models")}
    write_model(folder, **{"max_trees: 300": "max_trees: 2", "auc: 0.6": "auc: 0.5"})
    command = [sys.executable, "-u", "-m", "tests.dags.test_training_crashes", str(folder)]
    with subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server, pytest.MonkeyPatch.context() as patch:  # fmt: skip
        patch.setenv("AILERON_LAKE", str(folder / "lake"))
        stage = Stage(folder, server)
        first = stage.run(again=False, run_id="manual__first", conf={"as_of": AS_OF})
        assert first[""] == "success" and first["promote"] == "success", first
        write_model(folder)
        kept = [
            Fault(TASK, task, what=f"keep before {task}", times=1)
            for task in ("admit", "evaluate", "gate", "register", "shadow_score", "promote")
        ]
        run = stage.run(*kept, again=False, conf={"as_of": LATER})
        assert run[""] == "success" and run["promote"] == "success", run
        keep("the end")
        stage.end = looked_at(stage)
        yield stage
        server.stdin.close()  # type: ignore[union-attr]


@pytest.fixture
def stage(prepared: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setenv("AILERON_LAKE", str(prepared.lake))
    monkeypatch.setenv("AILERON_MODELS", str(prepared.folder / "models"))
    yield prepared
    assert_no_orphans(prepared.lake)


def aliases(stage: Stage) -> dict[str, str]:
    return {alias: str(version) for alias, version in stage.query("lake/registry.db", ALIASES)}


ALIASES = "SELECT alias, version FROM registered_model_aliases"
VERSIONS = "SELECT version, value FROM model_version_tags WHERE key = 'manifest_sha256' ORDER BY version"
RUNS = (
    "SELECT value FROM runs JOIN tags USING (run_uuid) WHERE key = 'manifest_sha256' AND status = 'FINISHED' ORDER BY start_time"
)
UNFINISHED = "SELECT count(*) FROM runs WHERE status NOT IN ('FINISHED', 'KILLED')"
EVENTS = (
    f"SELECT source_task_id, count(*) FROM asset_event WHERE source_dag_id = '{TRAIN}' AND source_run_id = '{RUN}' GROUP BY 1"
)


def looked_at(stage: Stage) -> dict[str, Any]:
    """All that a training decides, from outside."""
    verdicts = [record.body for record in ledger.read("verdict", MODEL)]
    return {
        "champions": [
            (c.number, c.action, c.version.version, c.version.manifest_sha256, c.previous) for c in champions.history(MODEL)
        ],
        "verdicts": [(v["run_id"], v["outcome"], v["rule"], v["metrics"], v["champion"]) for v in verdicts],
        "pages": [v["outcome"] in Path(v["page"]).read_text() for v in verdicts],
        "records": {
            kind: len(ledger.read(kind, MODEL))
            for kind in ("training_claim", "training_admission", "training_cost", "training_request", "approval")
        },
        "aliases": aliases(stage),
        "versions": stage.query("lake/registry.db", VERSIONS),
        "runs": stage.query("lake/registry.db", RUNS),
        "unfinished": stage.query("lake/registry.db", UNFINISHED),
        "events": stage.query("airflow.db", EVENTS),
    }


def assert_ends_well(stage: Stage, found: Any) -> None:
    assert found != "killed" and found[""] == "success", found
    assert looked_at(stage) == stage.end
    assert_nothing_is_half(stage.lake)


def assert_is_champion(stage: Stage, version: str) -> None:
    """It is the champion, whole; the aliases may lag behind it and never run ahead."""
    champion = champions.champion(MODEL)
    assert champion is not None and champion.version == version
    assert sha256_of(Path(champion.artifact) / "manifest.json") == champion.manifest_sha256
    assert aliases(stage)["champion"] in {"1", version}
    assert len(champions.history(MODEL)) == int(version)
    assert_nothing_is_half(stage.lake)


def assert_stays(stage: Stage, found: Any, task: str, *words: str) -> None:
    """The run failed at this task, the champion is the first still, and a mail says why."""
    assert found != "killed" and found[""] == found[task] == "failed", found
    assert found["promote"] == ("failed" if task == "promote" else "upstream_failed"), found
    champion = champions.champion(MODEL)
    assert champion is not None and champion.version == aliases(stage)["champion"] == "1" and "previous" not in aliases(stage)
    assert len(champions.history(MODEL)) == 1
    text = " ".join(mails(stage.lake)[-1]["text"].split())
    assert all(word in text for word in words), text


# One after the other as a run comes by them: the task, where it dies, and who is champion then.
DEATHS = [
    ("evaluate", Fault(HANDOVER, "evaluate"), "1"),  # evaluation.json is there, and nobody has been told
    ("gate", Fault(TASK, "gate"), "1"),
    ("gate", Fault(APPEND, "verdict", "after"), "1"),
    ("gate", Fault("include.documents:write"), "1"),
    ("gate", Fault(HANDOVER, "gate"), "1"),
    ("register", Fault(TASK, "register"), "1"),
    ("register", Fault(MLFLOW + "create_run", when="after"), "1"),
    ("register", Fault(MLFLOW + "log_batch", when="after"), "1"),
    ("register", Fault(MLFLOW + "create_model_version"), "1"),  # the MLflow run is finished
    ("register", Fault(MLFLOW + "create_model_version", when="after"), "1"),
    ("register", Fault(SET_ALIAS, "challenger", "after"), "1"),
    ("register", Fault(HANDOVER, "register"), "1"),
    ("shadow_score", Fault(TASK, "shadow_score"), "1"),
    ("shadow_score", Fault(HANDOVER, "shadow_score"), "1"),
    ("approve", Fault(TASK, "approve"), "1"),
    ("approve", Fault(HANDOVER, "approve"), "1"),
    ("promote", Fault(TASK, "promote"), "1"),
    ("promote", Fault(APPEND, "promotion"), "1"),
    ("promote", Fault(APPEND, "promotion", "after"), "2"),  # decided, and no alias has moved
    ("promote", Fault(SET_ALIAS, "previous", "after"), "2"),
    ("promote", Fault(SET_ALIAS, "champion", "after"), "2"),
    ("promote", Fault(HANDOVER, "promote"), "2"),
    ("promote", Fault(TASK, "promote", "after"), "2"),
]


def test_killed_again_and_again_a_run_ends_as_if_nothing_had_been(stage: Stage) -> None:
    """As Airflow does it: what has succeeded is not run again, what was killed is tried again, and dies a little later."""
    stage.back_to("before evaluate")
    for _, fault, version in DEATHS:
        assert stage.run(fault) == "killed", fault
        assert_is_champion(stage, version)
        if fault == Fault(APPEND, "promotion"):
            assert stage.predict() == {"1"}  # what scores right after it, a later test asks
    assert_ends_well(stage, stage.run())


@pytest.mark.slow
@pytest.mark.parametrize(("task", "fault", "version"), DEATHS)
def test_killed_once_a_run_ends_as_if_nothing_had_been(stage: Stage, task: str, fault: Fault, version: str) -> None:
    stage.back_to("before promote" if task == "approve" else f"before {task}")
    tasks = ["approve", "promote"] if task == "approve" else []
    assert stage.run(fault, tasks=tasks) == "killed"
    assert_is_champion(stage, version)
    assert_ends_well(stage, stage.run())


def test_an_answer_that_was_given_is_not_asked_for_again(stage: Stage) -> None:
    stage.back_to("before promote")
    write_model(stage.folder, **{"when: first": "when: always"})
    assert stage.run(Fault(APPEND, "approval", "after"), tasks=["approve", "promote"]) == "killed"
    assert_is_champion(stage, "1")
    found = stage.run(answer="")
    assert found[""] == found["promote"] == "success", found
    assert looked_at(stage) == {**stage.end, "records": {**stage.end["records"], "approval": 2}}
    assert champions.history(MODEL)[-1].body["approval"]["by"] == "ada"
    assert len([mail for mail in mails(stage.lake) if mail["name"].startswith("approval-")]) == 2, (
        "of each version's question one"
    )


def test_without_a_registry_a_training_fails_and_goes_on_when_it_is_back(stage: Stage) -> None:
    stage.back_to("before register")
    for task, call, of, version in (
        ("register", MLFLOW + "search_model_versions", "", "1"),
        ("register", MLFLOW + "create_run", "", "1"),
        ("register", MLFLOW + "create_model_version", "", "1"),
        ("register", SET_ALIAS, "challenger", "1"),
        ("promote", SET_ALIAS, "previous", "2"),
        ("promote", SET_ALIAS, "champion", "2"),
    ):
        found = stage.run(Fault(call, of, what="cut off"))
        assert found[""] == found[task] == "failed" and (task == "promote" or found["promote"] == "upstream_failed"), found
        assert_is_champion(stage, version)
        mail = " ".join(mails(stage.lake)[-1]["text"].split())
        assert "does not work" in mail and "Connection refused" in mail and "check AILERON_REGISTRY, then try again" in mail
    assert aliases(stage) == {"champion": "1", "challenger": "2", "previous": "1"}
    assert_ends_well(stage, stage.run())


def test_predictions_need_no_registry(stage: Stage) -> None:
    """Nobody listens where it was: what the ledger has decided is what scores, and the aliases follow later."""
    stage.back_to("before promote")
    found = stage.run(environment=NOBODY_LISTENS)
    assert found[""] == found["promote"] == "failed", found
    assert "http://127.0.0.1:9 does not work" in " ".join(mails(stage.lake)[-1]["text"].split())
    assert_is_champion(stage, "2")
    assert aliases(stage)["champion"] == "1"
    assert stage.predict(NOBODY_LISTENS) == {"2"}
    assert_ends_well(stage, stage.run())


def test_a_training_that_begins_without_a_registry_takes_no_request_and_no_number(stage: Stage) -> None:
    stage.back_to("before admit")
    found = stage.run(environment=NOBODY_LISTENS)
    assert found[""] == found["admit"] == "failed" and found["promote"] == "upstream_failed", found
    assert len(ledger.read("training_claim", MODEL)) == len(ledger.read("training_admission", MODEL)) == 1
    assert_is_champion(stage, "1")


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault(MLFLOW + "create_run", when="after", what="cut off", times=1), marks=pytest.mark.slow),
        Fault(MLFLOW + "create_model_version", when="after", what="cut off", times=1),
    ],
)
def test_an_answer_of_the_registry_that_is_lost_costs_a_try(stage: Stage, fault: Fault) -> None:
    stage.back_to("before register")
    assert_ends_well(stage, stage.run(fault))


# What stands in a model's folder. ------------------------------------------------------------------------------------

FILES = ("model.ubj", "manifest.json", "golden.parquet")


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def folder_of(stage: Stage, version: str) -> Path:
    """Of the champion's files, or of those of the challenger that is to become version 2."""
    (mine,) = [manifest for number, _, found, manifest, _ in stage.end["champions"] if found == version]
    (folder,) = [f.parent for f in (stage.lake / "models" / MODEL).glob("*/manifest.json") if sha256_of(f) == mine]
    return folder


# Before which task its files change, which task finds it, and which file.
CHANGES = [
    pytest.param(before, task, file, marks=() if before in ("evaluate", "promote") or file == FILES[number] else pytest.mark.slow)
    for number, (before, task) in enumerate([
        ("gate", "shadow_score"),
        ("shadow_score", "shadow_score"),
        ("evaluate", "evaluate"),
        ("promote", "promote"),
    ])
    for file in FILES
]


@pytest.mark.parametrize(("before", "task", "file"), CHANGES)
def test_a_challenger_that_was_changed_does_not_become_champion(stage: Stage, before: str, task: str, file: str) -> None:
    stage.back_to(f"before {before}")
    flip(folder_of(stage, "2") / file)
    assert_stays(stage, stage.run(), task, file, "SHA-256 is", "train again")


def test_a_challenger_that_is_gone_does_not_become_champion(stage: Stage) -> None:
    stage.back_to("before promote")
    shutil.rmtree(folder_of(stage, "2"))
    assert_stays(stage, stage.run(), "promote", "manifest.json: not found", "train again")


def test_a_champion_that_was_changed_is_refused_and_named(stage: Stage) -> None:
    stage.back_to("before evaluate")
    folder = folder_of(stage, "1")
    flip(folder / "model.ubj")
    found = stage.run()
    assert found[""] == found["evaluate"] == "failed" and found["promote"] == "upstream_failed", found
    text = " ".join(mails(stage.lake)[-1]["text"].split())
    assert f"the champion: {folder}/model.ubj: SHA-256 is" in text
    assert aliases(stage)["champion"] == "1" and len(champions.history(MODEL)) == len(ledger.read("verdict", MODEL)) == 1


def test_a_champion_that_is_gone_is_made_again_by_its_own_run(stage: Stage) -> None:
    stage.back_to("before evaluate")
    folder = folder_of(stage, "1")
    shutil.rmtree(folder)
    found = stage.run()
    assert found[""] == found["evaluate"] == "failed", found
    assert f"the champion: {folder}/manifest.json: not found" in " ".join(mails(stage.lake)[-1]["text"].split())
    assert stage.run(run_id="manual__first", tasks=["train"])["train"] == "success"
    assert_ends_well(stage, stage.run())


def test_a_model_that_takes_its_process_down_fails_the_task_and_nothing_else(stage: Stage) -> None:
    """The digests fit, so nothing can tell before it is loaded."""
    stage.back_to("before evaluate")
    folder = folder_of(stage, "2")
    model, manifest = folder / "model.ubj", folder / "manifest.json"
    was = sha256_of(manifest)
    manifest.write_text(manifest.read_text().replace(sha256_of(model), crashing(model)))
    stage.query("airflow.db", f"UPDATE xcom SET value = replace(value, '{was}', '{sha256_of(manifest)}') WHERE run_id = '{RUN}'")
    found = stage.run()
    assert_stays(stage, found, "evaluate", "evaluate job was killed by signal 11")
    assert found["current_champion"] == "success" and found["gate"] == "upstream_failed"


def crashing(model: Path) -> str:
    """The first tree's root gets a child far outside of the tree; the new SHA-256 of the file."""
    content = bytearray(model.read_bytes())
    place = content.index(b"left_children") + len(b"left_children")
    place = content.index(b"#L", place) + 2 + 8  # the number of nodes, then the nodes
    content[place : place + 4] = (0x3FFFFFFF).to_bytes(4, "big")
    model.write_bytes(content)
    return sha256_of(model)


# Who comes second. ---------------------------------------------------------------------------------------------------


def test_of_two_that_promote_at_the_same_time_one_wins_each_time(stage: Stage) -> None:
    stage.back_to("the end")
    rounds = 25
    outcomes = stage.ask(*({"do": "race", "with": {"name": name, "rounds": rounds}} for name in ("one", "two")))
    assert all(isinstance(found, list) for found in outcomes), stage.log()
    one, two = outcomes
    assert [sorted(pair) for pair in zip(one, two, strict=True)] == [["lost", "won"]] * rounds
    history = champions.history(MODEL)[2:]
    assert [change.number for change in history] == list(range(3, 3 + rounds)), "a gap"
    winners = ["one" if won == "won" else "two" for won in one]
    assert [change.body["workspace"] for change in history] == [f"{name}{turn:04}" for turn, name in enumerate(winners)]
    assert all(after.previous == before.version.version for before, after in pairwise(history))
    assert aliases(stage)["champion"] == history[-1].version.version


def test_a_rollback_is_done_once_wherever_it_was_killed(stage: Stage) -> None:
    stage.back_to("the end")
    asked = {"dag_id": ROLLBACK, "run_id": "manual__back"}
    why = {"why": "half of the flights get the same score", "predict_again": False}
    begun = False
    for fault in (
        Fault(APPEND, "promotion"),
        Fault(APPEND, "promotion", "after"),
        Fault(SET_ALIAS, "previous", "after"),
        Fault(SET_ALIAS, "champion", "after"),
        Fault("include.notices:send", when="after"),
        Fault(HANDOVER, "roll_back"),
    ):
        assert stage.run(fault, again=begun, **asked, **({} if begun else {"conf": why})) == "killed", fault
        begun = True
        decided = fault != Fault(APPEND, "promotion")
        assert len(champions.history(MODEL)) == 2 + decided
        champion = champions.champion(MODEL)
        assert champion is not None and champion.version == ("1" if decided else "2")
        assert aliases(stage)["champion"] in {"2", champion.version}
    for tasks in ([], ["roll_back", "list_predictions"]):
        found = stage.run(**asked, tasks=tasks)
        assert found[""] == "success", found
        assert [(c.number, c.action, c.version.version, c.previous) for c in champions.history(MODEL)[2:]] == [
            (3, "roll_back", "1", "2")
        ]
        assert aliases(stage) == {"champion": "1", "previous": "2", "challenger": "2"}
        assert len([mail for mail in mails(stage.lake) if mail["name"].startswith("rollback-")]) == 1
    second = stage.run(again=False, dag_id=ROLLBACK, run_id="manual__back_again", conf=why)
    assert second[""] == second["roll_back"] == "failed", second
    assert len(champions.history(MODEL)) == 3, "somebody has pressed the button twice"


def test_a_run_that_was_killed_while_it_was_admitted_keeps_its_number(stage: Stage) -> None:
    stage.back_to("before admit")

    def admitted() -> dict[int, str]:
        found = [record.body for record in ledger.read("training_admission", MODEL)]
        assert all(body["admitted"] for body in found) and len({body["number"] for body in found}) == len(found)
        return {body["number"]: body["run_id"] for body in found}

    assert stage.run(Fault(APPEND, "training_claim", "after")) == "killed"
    assert admitted() == {1: "manual__first"}
    stop = Fault(TASK, "snapshot_training_set")
    assert stage.run(stop, again=False, run_id="manual__other", conf={"as_of": LATER}) == "killed"
    assert stage.run(Fault(APPEND, "training_admission", "after")) == "killed"
    for _ in range(2):
        assert stage.run(stop, tasks=["admit", "snapshot_training_set"]) == "killed"
        assert admitted() == {1: "manual__first", 2: RUN, 3: "manual__other"}
    assert len(ledger.read("training_claim", MODEL)) == 3


# What happens in a process of its own. -------------------------------------------------------------------------------


def again(**asked: Any) -> dict[str, str]:
    run = run_again(**asked)
    return {**states(run), "": str(run.state.value)}


def anew(**asked: Any) -> dict[str, str]:
    run = run_dag(**asked)
    return {**states(run), "": str(run.state.value)}


def race(name: str, rounds: int) -> list[str]:
    """Promote, time after time, at the moment at which the other promotes; who won."""
    from include.registry import registry

    lake = Path(os.environ["AILERON_LAKE"])
    version = registry().version(MODEL, "1" if name == "one" else "2")
    outcomes = []
    for turn in range(rounds):
        (lake / f"ready-{turn}-{name}").touch()
        while len(list(lake.glob(f"ready-{turn}-*"))) < 2:
            time.sleep(0)
        try:
            champions.promote(MODEL, version, date(2013, 2, 8), 2 + turn, f"{name}{turn:04}", {"reasons": ["a race"]})
            outcomes.append("won")
        except champions.ChampionChanged:
            outcomes.append("lost")
    return outcomes


def keep(name: str) -> None:
    """Remember the lake and the metadata database as they are."""
    lake = Path(os.environ["AILERON_LAKE"])
    place = lake.parent / "kept" / name
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(lake, place / "lake")
    with closing(sqlite3.connect(lake.parent / "airflow.db")) as ours, closing(sqlite3.connect(place / "airflow.db")) as kept:
        ours.backup(kept)


def install(fault: Fault) -> None:
    module, _, name = fault.at.partition(":")
    *path, last = name.split(".")
    holder: Any = import_module(module)
    for part in path:
        holder = getattr(holder, part)
    real, left = getattr(holder, last), fault.times

    def faulty(*args: Any, **kwargs: Any) -> Any:
        nonlocal left
        meant = not fault.of or any(getattr(value, "task_id", value) == fault.of for value in (*args, *kwargs.values()))
        hit = meant and left > 0
        left -= hit
        result = None if hit and fault.when == "before" and _happens(fault.what) else real(*args, **kwargs)
        if hit and fault.when == "after":
            _happens(fault.what)
        return result

    setattr(holder, last, faulty)


def _happens(what: str) -> bool:
    if what == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif what.startswith("keep "):
        keep(what.removeprefix("keep "))
    else:
        raise ConnectionError("[Errno 111] Connection refused")
    return False


STORES = ("tracking", "model_registry")


def serve(folder: Path) -> None:
    """For each line of jobs a child per job; the answers, when all have ended, as one line."""
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    for name in ("great_expectations", "mlflow.tracking.client", *(f"mlflow.store.{of}.sqlalchemy_store" for of in STORES)):
        import_module(name)
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    async def once(app: Any) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            await client.get("http://nobody/nothing")

    asyncio.run(once(in_process_api_server().app))  # it makes its routes at the first request: that takes longer than all else
    for dag in (TRAIN, PREDICT, ROLLBACK):
        load_dag(dag)
    for line in sys.stdin:
        children = [_child(job) for job in json.loads(line)]
        answers.write(json.dumps([_outcome(*child) for child in children]) + "\n")
        answers.flush()


def _child(job: dict[str, Any]) -> tuple[int, int]:
    answer, say = os.pipe()
    child = os.fork()
    if child:
        os.close(say)
        return child, answer
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(job.get("environment", {}))
        for fault in job.get("faults", ()):
            install(Fault(**fault))
        found = globals()[job["do"]](**job["with"])
        os.write(say, json.dumps(found).encode())
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _outcome(child: int, answer: int) -> Any:
    with os.fdopen(answer) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "killed" if os.WTERMSIG(status) == signal.SIGKILL else f"died of signal {os.WTERMSIG(status)}"
    return json.loads(said) if status == 0 else f"ended with {status}"


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
