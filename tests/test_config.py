"""model.yaml: what is wrong is named, and one broken folder takes no other model down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from include import config
from include.config import InvalidModel, broken_models, load_model, load_models, read_model


@pytest.fixture
def raw() -> dict[str, Any]:
    return yaml.safe_load((config.MODELS / "flight_delays" / "model.yaml").read_text())


def write(folder: Path, raw: Any, name: str = "flight_delays") -> Path:
    path = folder / name
    path.mkdir(parents=True)
    (path / "model.yaml").write_text(raw if isinstance(raw, str) else yaml.safe_dump(raw))
    for file in ("features.sql", "labels.sql"):
        (path / file).write_text("SELECT 1")
    return path


def changed(raw: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *parents, last = path.split(".")
    place = raw
    for parent in parents:
        place = place[parent]
    if value is None:
        del place[last]
    else:
        place[last] = value
    return raw


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("prediction.treshold", 0.5, r"prediction\.treshold: Extra inputs are not permitted"),
        ("source.key", "nope", r"source: source\.key 'nope' is not among source\.columns"),
        ("source.table", "flights; DROP TABLE x", r"source\.table: String should match pattern"),
        ("source.table", "flights\n", r"source\.table: String should match pattern"),
        ("source.columns.distance", "float", r"source\.columns\.distance: Input should be 'string'"),
        ("features.numeric", ["flight_id"], "features must not contain the key 'flight_id'"),
        ("features.categorical", ["carrier", "carrier"], "listed twice: carrier"),
        ("prediction.decision_threshold", float("nan"), r"prediction\.decision_threshold: Input should be"),
        ("gate.floors", {"auc": 1.5}, r"gate\.floors\.auc: Input should be less than or equal to 1"),
        ("gate.floors", {"auc": float("nan")}, r"gate\.floors\.auc: "),
        ("training.holdout_days", 90, "holdout_days must be smaller than"),
        ("owner.emails", [], r"owner\.emails: List should have at least 1 item"),
        ("owner.emails", ["a@b.c\nBcc: x@y.z"], r"owner\.emails\.0: String should match pattern"),
        ("owner", None, "owner: Field required"),
        ("name", "other", "name: 'other' must be the name of its folder"),
        ("end", "2012-01-01", "end is before start"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, raw: dict[str, Any], path: str, value: Any, message: str) -> None:
    with pytest.raises(InvalidModel, match=message) as raised:
        read_model(write(tmp_path, changed(raw, path, value)))
    assert "model.yaml" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "not valid YAML"), ("- a", "must be a mapping"), ("", "must be a mapping")]
)
def test_a_file_that_is_no_mapping_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        read_model(write(tmp_path, text))


def test_missing_sql_is_named(tmp_path: Path, raw: dict[str, Any]) -> None:
    folder = write(tmp_path, raw)
    (folder / "labels.sql").unlink()
    with pytest.raises(InvalidModel, match=r"labels\.sql: not found"):
        read_model(folder)


def test_a_broken_folder_takes_no_other_down(tmp_path: Path, raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, raw)
    write(tmp_path, "a: [", name="broken")
    monkeypatch.setenv("AILERON_MODELS", str(tmp_path))
    assert [model.name for model in load_models()] == ["flight_delays"]
    (message,) = broken_models()
    assert "broken/model.yaml" in message


@pytest.mark.parametrize("name", ["../flight_delays", "flight_delays/../flight_delays", "x\n", "X", ""])
def test_a_model_is_looked_up_by_a_plain_name_only(name: str) -> None:
    with pytest.raises(InvalidModel, match="cannot be the name of a model"):
        load_model(name)
