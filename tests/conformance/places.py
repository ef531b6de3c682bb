"""Where the loop runs in the conformance tests, and what they may ask and do there: the same doors on every platform."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.alike import unpacked_model
from tests.dags.conftest import copied, lake_only
from tests.dags.lakes import live_file, rows, source_file

READ = "flight_id, score, decision, model_version"


class Objects(Protocol):
    """What a place has that is no table, by names below its lake. Usable in threads, whatever the settings of the process."""

    def keys(self, prefix: str) -> list[str]: ...

    def read(self, name: str) -> bytes: ...

    def write(self, name: str, content: bytes) -> None: ...


class Place(Protocol):
    models: Path

    def settings(self, **chosen: str) -> AbstractContextManager[pytest.MonkeyPatch]:
        """The settings of this place and no other; `chosen`: such as deferrable="false"."""

    def copied(self, name: str, *folders: str, registry: str = "", models: Path | None = None) -> Place:
        """A place of its own with the source, and what is in these folders besides."""

    def rows(self, day: str, columns: str = READ, kind: str = "predictions", model: str = "flight_delays") -> list[Any]:
        """What readers see of a day, sorted."""

    def reader(self, day: str) -> Callable[[], tuple[int, int]]:
        """Asks how many rows readers see of a day, and how many runs they are of. Usable in threads, within `settings`."""

    def objects(self) -> Objects: ...

    def model(self, artifact: str) -> bytes:
        """The file of a trained model."""

    def landed(self, day: str, table: str) -> pa.Table: ...

    def land(self, day: str, table: str, rows: pa.Table) -> None:
        """A day lands again, whole."""

    def take_away(self, day: str, table: str) -> None:
        """As if the day had not landed."""

    def machines(self) -> list[dict[str, Any]]:
        """The jobs that were done on machines by the hour: {name, state, kind}."""

    def calls(self) -> list[dict[str, Any]]:
        """All that was asked of the cloud so far."""


@dataclass(frozen=True)
class Folder:
    """The files of a local lake."""

    path: Path

    def keys(self, prefix: str) -> list[str]:
        files = (self.path / prefix).rglob("*") if (self.path / prefix).is_dir() else self.path.glob(f"{prefix}*")
        return sorted(str(file.relative_to(self.path)) for file in files if file.is_file())

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(content)


@dataclass(frozen=True)
class LocalPlace:
    """A lake on this machine."""

    lake: Path
    models: Path

    @contextmanager
    def settings(self, **chosen: str) -> Iterator[pytest.MonkeyPatch]:
        """Nothing is deferred here, nor scored elsewhere: what else is chosen has no meaning."""
        with lake_only(self.lake, self.models) as patch:
            yield patch

    def copied(self, name: str, *folders: str, registry: str = "", models: Path | None = None) -> LocalPlace:
        there = copied(self.lake, self.lake.parent / name)
        if registry:
            (there / "registry.db").unlink()
        kept = [there / folder for folder in folders]
        for file in [file for file in (there / "ledger").rglob("*") if file.is_file()]:
            if not any(file.is_relative_to(folder) for folder in kept):
                file.unlink()
        if "ledger" not in folders:
            for kind in ("predictions", "quarantine", "versions"):
                shutil.rmtree(there / kind, ignore_errors=True)
        return LocalPlace(there, models or self.models)

    def rows(self, day: str, columns: str = READ, kind: str = "predictions", model: str = "flight_delays") -> list[Any]:
        return rows(live_file(self.lake, day, kind, model), columns)

    def reader(self, day: str) -> Callable[[], tuple[int, int]]:
        file = live_file(self.lake, day)

        def look() -> tuple[int, int]:
            runs = pq.read_table(file, columns=["run_id"], partitioning=None)["run_id"]
            return len(runs), len(runs.unique())

        return look

    def objects(self) -> Folder:
        return Folder(self.lake)

    def model(self, artifact: str) -> bytes:
        return unpacked_model(artifact)

    def landed(self, day: str, table: str) -> pa.Table:
        return pq.read_table(source_file(self.lake, day, table), partitioning=None)

    def land(self, day: str, table: str, rows: pa.Table) -> None:
        folder = source_file(self.lake, day, table).parent
        (folder / "_SUCCESS").unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(rows, folder / "draft")
        (folder / "draft").replace(folder / "data.parquet")
        (folder / "_SUCCESS").write_text(f'{{"rows": {rows.num_rows}}}')

    def take_away(self, day: str, table: str) -> None:
        shutil.rmtree(source_file(self.lake, day, table).parent)

    def machines(self) -> list[dict[str, Any]]:
        return []

    def calls(self) -> list[dict[str, Any]]:
        return []
