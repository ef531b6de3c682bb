"""A spec is taken as a whole or refused with every fault named."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from include.jobs.process import InvalidSpec, read_spec
from tests.jobs.running import refusal, run


@dataclass(frozen=True)
class Spec:
    path: str
    names: tuple[str, ...]
    share: float
    rows: int = 10
    windows: tuple[int | None, ...] = ()
    champion: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)


def read(folder: Path, content: object) -> Spec:
    path = folder / "spec.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_spec(path, Spec)


def test_a_spec_is_read_with_its_defaults(tmp_path: Path) -> None:
    assert read(tmp_path, {"path": "a", "names": ["b", "c"], "share": 1}) == Spec("a", ("b", "c"), 1, 10)


def test_none_lists_and_objects_are_read(tmp_path: Path) -> None:
    raw = {"path": "a", "names": [], "share": 1, "windows": [28, None], "champion": None, "parameters": {"trees": 3}}
    assert read(tmp_path, raw) == Spec("a", (), 1, 10, (28, None), None, {"trees": 3})
    assert read(tmp_path, {**raw, "champion": "b"}).champion == "b"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ([1], "must be a JSON object, not list"),
        ({}, "path: missing; names: missing; share: missing"),
        ({"path": "a", "names": [], "share": 1, "sahre": 1}, "sahre: unknown key"),
        ({"path": 1, "names": [], "share": 1}, "path: 1 must be str"),
        ({"path": "a", "names": "b", "share": 1}, "names: 'b' must be"),
        ({"path": "a", "names": [1], "share": 1}, r"names: \[1\] must be"),
        ({"path": "a", "names": [], "share": True}, "share: True must be float"),
        ({"path": "a", "names": [], "share": 1, "rows": 1.5}, "rows: 1.5 must be int"),
        ({"path": "a", "names": [], "share": 1, "rows": True}, "rows: True must be int"),
        ({"path": "a", "names": [], "share": 1, "windows": [28, "all"]}, r"windows: \[28, 'all'\] must be .*int \| None"),
        ({"path": "a", "names": [], "share": 1, "windows": [True]}, r"windows: \[True\] must be"),
        ({"path": "a", "names": [], "share": 1, "windows": None}, "windows: None must be"),
        ({"path": "a", "names": [], "share": 1, "champion": 7}, r"champion: 7 must be str \| None"),
        ({"path": "a", "names": [], "share": 1, "parameters": [1]}, r"parameters: \[1\] must be dict"),
        ('{"path": "a", "names": [], "share": NaN}', "is not JSON: NaN is no number"),
    ],
)
def test_a_spec_with_faults_is_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InvalidSpec, match=message):
        read(tmp_path, content)


def test_a_spec_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"none\.json: cannot be read: No such file"):
        read_spec(tmp_path / "none.json", Spec)


def test_a_job_says_what_is_wrong_with_its_spec(tmp_path: Path) -> None:
    message = refusal(run("score", {"features": "x", "colour": "red"}, tmp_path))
    assert "colour: unknown key" in message
    assert "manifest_sha256: missing" in message
