"""A lake with real flights and a champion, made once; every test works on a copy of its own."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from demo import quick, simulator
from tests.dag_runs import run_dag, states
from tests.dags.lakes import MODEL, PREDICT, TRAIN

FIRST, LAST, AS_OF = date(2013, 1, 1), date(2013, 2, 10), date(2013, 2, 1)
PUBLISHED = ("2013-01-31", "2013-02-01", "2013-02-02", "2013-02-03")


@pytest.fixture(scope="session")
def quick_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models, searched in one trial of few trees: tests train often."""
    return quick.models(tmp_path_factory.mktemp("quick") / "models")


@pytest.fixture(autouse=True)
def of_quick_models(quick_models: Path, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILERON_MODELS", str(quick_models))


@pytest.fixture(scope="session")
def trained_lake(tmp_path_factory: pytest.TempPathFactory, airflow_database: None, quick_models: Path) -> Path:
    """Flights landed from 1 January to 10 February 2013, labels to the 8th, a champion as of 1 February."""
    folder = tmp_path_factory.mktemp("trained") / "lake"
    simulator.land(folder, FIRST, LAST)
    simulator.land_outcomes(folder, FIRST, date(2013, 2, 8))
    with lake_only(folder, quick_models):
        run = run_dag(TRAIN, conf={"as_of": AS_OF.isoformat()})
    assert run.state == "success", states(run)
    shutil.rmtree(folder / "outbox")  # the approver was mailed; a test counts its own mails
    return folder


@pytest.fixture(scope="session")
def published_lake(trained_lake: Path, tmp_path_factory: pytest.TempPathFactory, quick_models: Path) -> Path:
    """The trained lake after four days were predicted and published."""
    folder = copied(trained_lake, tmp_path_factory.mktemp("published") / "lake")
    with lake_only(folder, quick_models):
        for day in PUBLISHED:
            assert run_dag(PREDICT, day).state == "success"
    return folder


@pytest.fixture
def flights(trained_lake: Path, lake: Path) -> Path:
    """A copy of the trained lake, as the lake of this test."""
    return copied(trained_lake, lake)


@pytest.fixture
def published(published_lake: Path, lake: Path) -> Path:
    """A copy of the published lake, as the lake of this test."""
    return copied(published_lake, lake)


@pytest.fixture
def edit_model(tmp_path: Path, quick_models: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Changes a copy of the demo's model, which is then the only one: what stands in one of its files, and what shall."""
    folder = tmp_path / "models" / MODEL
    shutil.copytree(quick_models / MODEL, folder)
    monkeypatch.setenv("AILERON_MODELS", str(folder.parent))

    def edit(old: str, new: str, file: str = "model.yaml") -> Path:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        return folder

    return edit


def copied(lake: Path, folder: Path) -> Path:
    """A lake of its own: the registry names artifacts by their full path."""
    shutil.copytree(lake, folder)
    with sqlite3.connect(folder / "registry.db") as registry:
        registry.execute(
            "UPDATE model_version_tags SET value = ? || substr(value, instr(value, '/models/')) WHERE key = 'artifact'",
            (str(folder),),
        )
    registry.close()
    for record in (folder / "ledger").rglob("*.json"):
        record.write_text(record.read_text().replace(str(lake), str(folder)))
    return folder


@contextmanager
def lake_only(folder: Path, models: Path) -> Iterator[pytest.MonkeyPatch]:
    """The settings of a lake and no other, outside of a test."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AILERON_")]:
            patch.delenv(name)
        patch.setenv("AILERON_LAKE", str(folder))
        patch.setenv("AILERON_MODELS", str(models))
        yield patch
