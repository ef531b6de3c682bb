"""A file or folder is there whole, or as it was before."""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

import pytest

from include.core.files import json_bytes, new_folder, replacing, sha256_of, write_json


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("make", "made"), [(replacing, "touch"), (new_folder, "mkdir")])
def test_who_is_stopped_as_soon_as_the_draft_is_there_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Any, made: str
) -> None:
    """A signal may end a process between two instructions."""
    original = getattr(Path, made)

    def stopped(path: Path, *arguments: Any, **more: Any) -> None:
        original(path, *arguments, **more)
        if path.name.endswith(".tmp"):
            raise SystemExit(143)

    monkeypatch.setattr(Path, made, stopped)
    with pytest.raises(SystemExit), make(tmp_path / "file"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_others_may_read_the_file_as_any_other(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    with replacing(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_the_last_of_two_writers_wins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as one, replacing(path) as two:
        one.write_text("one")
        two.write_text("two")
    assert path.read_text() == "one"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_folder(tmp_path / "folder") as temporary:
        (temporary / "half").write_text("")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("whole")
        assert not (tmp_path / "folder").exists()
    assert (tmp_path / "folder" / "file").read_text() == "whole"


def test_a_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    with new_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("first")
    with pytest.raises(FileExistsError), new_folder(tmp_path / "folder") as temporary:
        (temporary / "file").write_text("second")
    assert (tmp_path / "folder" / "file").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder"]


def test_equal_documents_have_equal_bytes() -> None:
    assert json_bytes({"b": 1, "a": [2]}) == json_bytes({"a": [2], "b": 1})


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path, value: float) -> None:
    write_json(tmp_path / "file", {"auc": 0.5})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "file", {"auc": value})
    assert json.loads((tmp_path / "file").read_text()) == {"auc": 0.5}


def test_the_digest_is_that_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
