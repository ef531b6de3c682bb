"""What is loaded is what was registered, to the bit; anything else is refused before XGBoost sees it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import EXPECTED, CorruptArtifact, check_golden, load_artifact, predict, read_manifest, save_artifact
from include.core.files import json_bytes
from tests.core.examples import saved, trained

FILES = ("model.ubj", "golden.parquet", "manifest.json")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("artifact") / "model"
    return folder, saved(folder)


@pytest.fixture
def copy(original: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    folder, digest = original
    return Path(shutil.copytree(folder, tmp_path / "model")), digest


def edit_manifest(folder: Path, **changes: object) -> str:
    """Edit the manifest and register the edited one. Returns its digest."""
    content = json_bytes({**json.loads((folder / "manifest.json").read_bytes()), **changes})
    (folder / "manifest.json").write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def replace_file(folder: Path, name: str, content: bytes) -> str:
    """Replace a file and have manifest and registry say that it is right."""
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_bytes())["files"]
    return edit_manifest(folder, files={**files, name: hashlib.sha256(content).hexdigest()})


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    model = trained()
    digest = save_artifact(tmp_path / "m", model.booster, model.spec, model.golden, {"model": "flight_delays", "note": "é"})
    assert digest == hashlib.sha256((tmp_path / "m" / "manifest.json").read_bytes()).hexdigest()
    artifact = load_artifact(tmp_path / "m", digest)
    check_golden(artifact)
    assert artifact.spec == model.spec
    assert artifact.manifest["note"] == "é"
    assert len(artifact.golden.rows) == 100
    np.testing.assert_array_equal(predict(artifact.booster, model.golden), predict(model.booster, model.golden))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("seed", range(25))
def test_a_flipped_bit_is_refused(copy: tuple[Path, str], name: str, seed: int) -> None:
    folder, digest = copy
    content = bytearray((folder / name).read_bytes())
    position = np.random.default_rng(seed).integers(len(content) * 8)
    content[position // 8] ^= 1 << (position % 8)
    (folder / name).write_bytes(content)
    for read in (load_artifact, read_manifest):
        with pytest.raises(CorruptArtifact, match=f"{name}: SHA-256 is .* says .* roll back to the previous version"):
            read(folder, digest)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(copy: tuple[Path, str], name: str, share: float) -> None:
    folder, digest = copy
    os.truncate(folder / name, int((folder / name).stat().st_size * share))
    with pytest.raises(CorruptArtifact, match=f"{name}: SHA-256"):
        load_artifact(folder, digest)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_refused(copy: tuple[Path, str], name: str) -> None:
    folder, digest = copy
    (folder / name).unlink()
    with pytest.raises(CorruptArtifact, match=f"{name}: not found"):
        load_artifact(folder, digest)


def test_an_edited_manifest_is_refused(copy: tuple[Path, str]) -> None:
    folder, digest = copy
    edit_manifest(folder, metrics={"auc": 0.99})
    with pytest.raises(CorruptArtifact, match=r"manifest\.json: SHA-256 .* the registry says"):
        load_artifact(folder, digest)


def test_a_model_swapped_with_its_manifest_is_refused(original: tuple[Path, str], tmp_path: Path) -> None:
    """A folder that agrees with itself is still not the one that was registered."""
    model = trained()
    save_artifact(tmp_path / "other", model.booster, model.spec, model.golden, {"model": "other"})
    with pytest.raises(CorruptArtifact, match="the registry says"):
        load_artifact(tmp_path / "other", original[1])


def test_a_format_of_another_time_is_refused(copy: tuple[Path, str]) -> None:
    digest = edit_manifest(copy[0], format=1)
    with pytest.raises(CorruptArtifact, match=r"format 1, this code knows 2: deploy the code"):
        load_artifact(copy[0], digest)


def test_a_model_that_xgboost_cannot_read_is_refused(copy: tuple[Path, str]) -> None:
    digest = replace_file(copy[0], "model.ubj", b"{not a model")
    with pytest.raises(CorruptArtifact, match=r"model\.ubj: XGBoost .* cannot load it"):
        load_artifact(copy[0], digest)


def test_a_model_of_other_features_is_refused(copy: tuple[Path, str]) -> None:
    features = json.loads((copy[0] / "manifest.json").read_bytes())["features"]
    digest = edit_manifest(copy[0], features={**features, "numeric": ["distance"]})
    with pytest.raises(CorruptArtifact, match="reads 4 features, its manifest names 3"):
        load_artifact(copy[0], digest)


def with_golden_scores(folder: Path, change: float) -> str:
    table = pq.read_table(folder / "golden.parquet")
    scores = table[EXPECTED].to_numpy().copy()
    scores[17] += np.float32(change)
    sink = pa.BufferOutputStream()
    pq.write_table(table.set_column(table.column_names.index(EXPECTED), EXPECTED, pa.array(scores)), sink)
    return replace_file(folder, "golden.parquet", sink.getvalue().to_pybytes())


@pytest.mark.parametrize("change", [1e-6, 0.1, float("nan")])
def test_a_model_that_scores_its_golden_rows_otherwise_is_refused(copy: tuple[Path, str], change: float) -> None:
    artifact = load_artifact(copy[0], with_golden_scores(copy[0], change))
    with pytest.raises(CorruptArtifact, match="golden rows score up to"):
        check_golden(artifact)


@pytest.mark.parametrize(("change", "agrees"), [(1e-6, True), (1e-4, False)])
def test_another_version_of_xgboost_may_differ_by_a_rounding(copy: tuple[Path, str], change: float, agrees: bool) -> None:
    with_golden_scores(copy[0], change)
    artifact = load_artifact(copy[0], edit_manifest(copy[0], xgboost="3.1.0"))
    if agrees:
        check_golden(artifact)
    else:
        with pytest.raises(CorruptArtifact, match=r"trained on XGBoost 3\.1\.0"):
            check_golden(artifact)


def test_an_artifact_is_never_replaced(copy: tuple[Path, str]) -> None:
    folder, digest = copy
    model = trained()
    with pytest.raises(FileExistsError):
        save_artifact(folder, model.booster, model.spec, model.golden, {"model": "other"})
    check_golden(load_artifact(folder, digest))
    assert sorted(path.name for path in folder.parent.iterdir()) == ["model"]


def test_nothing_is_unpickled() -> None:
    """Loading a model must not be able to run code: no module of ours imports what could."""
    source = "\n".join(
        path.read_text() for path in Path(sys.modules["include.core.artifacts"].__file__ or "").parent.glob("*.py")
    )
    for word in ("pickle", "joblib", "cloudpickle", "eval(", "exec("):
        assert word not in source
