"""A backup is the lake as it was at one moment, whatever goes on; put back, everything goes on from there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select

from include import backup, champions, ledger
from include.backup import Refused
from include.cli import main
from include.registry import registry
from include.registry.base import ALIASES
from tests.dag_runs import run_dag, states
from tests.dags.conftest import PUBLISHED
from tests.dags.lakes import ARRIVALS, MODEL, PREDICT, TRAIN, live_file, rows, visible

pytestmark = pytest.mark.crash

DAY, NEXT = PUBLISHED[-1], "2013-02-04"


def known(lake: Path) -> dict[str, Any]:
    """What there is to lose: each record, each version and alias, the champion, and each row of each published day."""
    records = {str(path.relative_to(lake)): path.read_bytes() for path in (lake / "ledger").rglob("*.json")}
    versions = {each.version: each for each in (change.version for change in champions.history(MODEL))}
    return {
        "records": records,
        "history": champions.history(MODEL),
        "versions": {number: registry().version(MODEL, number) for number in versions},
        "aliases": {alias: registry().alias(MODEL, alias) for alias in ALIASES},
        "shown": visible(lake),
        "rows": {day: rows(live_file(lake, day), "*") for day in PUBLISHED},
    }


def asked_for() -> set[str]:
    """The days for which arrivals has started runs."""
    with create_session() as session:
        found = session.scalars(select(DagRun).where(DagRun.dag_id == PREDICT, DagRun.run_id.startswith("arrival__")))
        return {run.conf["partition"] for run in found}


@pytest.fixture
def saved(published: Path, tmp_path: Path) -> Path:
    assert main(["backup", str(tmp_path / "saved")]) == 0
    return tmp_path / "saved"


def test_what_was_lost_is_back_and_the_loop_goes_on(published: Path, tmp_path: Path) -> None:
    for day in (DAY, PUBLISHED[0]):  # a second version, so that there is one to go back to, and one promotion more
        assert run_dag(PREDICT, conf={"partition": day}).state == "success"
    again = run_dag(TRAIN, conf={"as_of": "2013-02-03"})
    assert again.state == "success", states(again)
    before = known(published)
    assert main(["backup", str(tmp_path / "saved")]) == 0
    shutil.rmtree(published)
    assert main(["restore-backup", str(tmp_path / "saved")]) == 0
    assert known(published) == before and len(before["rows"][DAY]) > 500

    arrivals = run_dag(ARRIVALS)
    assert arrivals.state == "success" and not asked_for() & set(PUBLISHED), "what was published counts as published"
    run = run_dag(PREDICT, NEXT)
    assert run.state == "success", states(run)
    assert rows(live_file(published, NEXT))
    assert main(["explain", MODEL, before["rows"][DAY][0][0]]) == 0


def test_runs_that_decide_meanwhile_are_in_it_or_it_is_refused(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day is published while the lake is copied: its record and its rows are both in the backup, or there is none."""
    copy_registry, decided = backup._copy_registry, []

    def deciding(file: Path, copy: Path) -> None:
        copy_registry(file, copy)
        if not decided:
            decided.append(run_dag(PREDICT, NEXT).state)

    monkeypatch.setattr(backup, "_copy_registry", deciding)
    made = backup.make(tmp_path / "saved")
    assert decided == ["success"] and NEXT in made.published[MODEL]
    before = visible(published)
    shutil.rmtree(published)
    backup.restore(tmp_path / "saved")
    assert visible(published) == before

    def never_ending(file: Path, copy: Path) -> None:
        copy_registry(file, copy)
        decided.append("")
        ledger.append("attempt", MODEL, f"{NEXT}.{len(decided)}", {})

    monkeypatch.setattr(backup, "_copy_registry", never_ending)
    with pytest.raises(Refused, match="pause the DAGs"):
        backup.make(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lake", "saved"]


def test_a_source_that_lands_meanwhile_is_whole(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, mirror, seen = published / "source" / "flights" / f"partition_date={NEXT}", backup._mirror, []

    def landing(there: Path, copy: Path) -> bool:
        changed = mirror(there, copy)
        if there.name == "source" and not seen:
            seen.append(there)
            (folder / "_SUCCESS").unlink()
        return changed

    monkeypatch.setattr(backup, "_mirror", landing)
    backup.make(tmp_path / "saved")
    assert seen and not (tmp_path / "saved" / "source" / "flights" / folder.name / "_SUCCESS").exists()


@pytest.mark.parametrize("harm", ["half", "damaged", "missing", "strange", "format", "escaping"])
def test_what_is_not_whole_is_never_restored(saved: Path, published: Path, harm: str) -> None:
    shutil.rmtree(published)
    manifest = saved / "manifest.json"
    file = next((saved / "versions").rglob("*.parquet"))
    body = json.loads(manifest.read_text())
    if harm == "half":
        manifest.unlink()
    elif harm == "damaged":
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    elif harm == "missing":
        file.unlink()
    elif harm == "strange":
        (saved / "ledger" / "promotion" / MODEL / "00009.json").write_text("{}")
    elif harm == "format":
        manifest.write_text(json.dumps(body | {"format": 2}))
    else:
        manifest.write_text(json.dumps(body | {"published": {"../../x": {DAY: "0"}}}))
    with pytest.raises(Refused, match=r"choose another|the code that made it"):
        backup.restore(saved)
    assert not published.exists()


@pytest.mark.parametrize("name", ["ledger/promotion/x/1.json", "registry.db", "versions/x", "predictions/x/y", "source/x"])
def test_nothing_is_restored_over_something(saved: Path, published: Path, name: str) -> None:
    shutil.rmtree(published)
    (published / name).parent.mkdir(parents=True)
    (published / name).write_text("mine")
    with pytest.raises(Refused, match="is not empty"):
        backup.restore(saved)
    assert [path.read_text() for path in published.rglob("*") if path.is_file()] == ["mine"]


def test_places_that_will_not_do_are_named(saved: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for to in (saved, published / "saved"):
        with pytest.raises(Refused, match=str(to)):
            backup.make(to)
    for name, value, why in (
        ("AILERON_PLATFORM", "aws", "keep what they had"),
        ("AILERON_LEDGER", "s3://lake/ledger", "keeps what it had"),
        ("AILERON_REGISTRY", "http://user:secret@host", "is a server"),
        ("AILERON_LAKE", str(tmp_path / "other"), "nothing to back up"),
    ):
        with monkeypatch.context() as patch, pytest.raises(Refused, match=why) as error:
            patch.setenv(name, value)
            backup.make(tmp_path / "none")
        assert "secret" not in str(error.value)
    monkeypatch.setenv("AILERON_LAKE", str(tmp_path / "other"))
    with pytest.raises(Refused, match="of another place"):
        backup.restore(saved)


def test_a_published_version_that_is_gone_makes_no_backup(published: Path, tmp_path: Path, capsys: Any) -> None:
    for file in (published / "versions" / MODEL / f"partition_date={DAY}").glob("*.parquet"):
        file.unlink()
    assert main(["backup", str(tmp_path / "saved")]) == 1
    assert f"partition {DAY} is published, and is gone" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "saved").exists()


def test_a_backup_without_the_source_is_restored_beside_it(published: Path, tmp_path: Path) -> None:
    before = visible(published)
    assert main(["backup", str(tmp_path / "saved"), "--without-source"]) == 0
    assert not (tmp_path / "saved" / "source").exists()
    for path in published.iterdir():
        if path.is_dir() and path.name != "source":
            shutil.rmtree(path)
    (published / "registry.db").unlink()
    backup.restore(tmp_path / "saved")
    assert visible(published) == before


def test_without_the_ledger_nothing_is_predicted(published: Path) -> None:
    """It is restored last: until then no run gets far."""
    shutil.rmtree(published / "ledger")
    before = visible(published)
    run = run_dag(PREDICT, NEXT)
    assert states(run)["choose_model"] == "failed" and visible(published) == before
