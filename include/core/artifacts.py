"""A trained model as a folder of three files, each checked before anything of it is loaded.

`manifest.json` describes the model and has the SHA-256 of `model.ubj` and `golden.parquet`; the registry stores the
SHA-256 of the manifest. So what the registry points at cannot change unnoticed: a damaged model file would otherwise
load, and score wrongly, without an error. The same training gives the same bytes: nothing here depends on the clock.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

from include.core.errors import Refused
from include.core.features import FeatureSpec, Matrix
from include.core.files import json_bytes, new_folder

FORMAT = 2
MODEL, GOLDEN, MANIFEST = "model.ubj", "golden.parquet", "manifest.json"
MOST_BYTES = 2 * 1024**3  # of an archive, unpacked
GOLDEN_ROWS = 100
GOLDEN_TOLERANCE = 1e-5
# No feature can have this name: names of features begin with a letter.
EXPECTED = "_score"
REMEDY = "roll back to the previous version, or train again; an artifact is never edited"


class CorruptArtifact(Refused):
    """A model's files are not what was registered. Nothing was loaded; the message names the file and the remedy."""


@dataclass(frozen=True)
class Golden:
    """Encoded rows float32 [rows, features] and the scores float32 [rows] that the model gave them after training."""

    rows: Matrix
    scores: Matrix


@dataclass(frozen=True)
class Artifact:
    booster: xgboost.Booster
    spec: FeatureSpec
    manifest: dict[str, Any]
    manifest_sha256: str
    golden: Golden


def predict(booster: xgboost.Booster, rows: Matrix) -> Matrix:
    """Scores float32 [rows] of encoded rows [rows, features]: the one call that training, scoring and checks share."""
    if len(rows) == 0:
        return np.empty(0, dtype=np.float32)
    return np.asarray(booster.inplace_predict(rows), dtype=np.float32)


def save_artifact(
    folder: Path, booster: xgboost.Booster, spec: FeatureSpec, golden: Matrix, description: Mapping[str, Any]
) -> str:
    """Write the folder, whole or not at all. `golden` are encoded rows; the model's scores of them are kept beside.

    Returns:
        The SHA-256 of the manifest, which is what a registry must store.

    Raises:
        FileExistsError: if the folder is there: an artifact is never replaced.
    """
    with new_folder(folder) as temporary:
        (temporary / MODEL).write_bytes(booster.save_raw("ubj"))
        columns = dict(zip((*spec.names, EXPECTED), (*golden.T, predict(booster, golden)), strict=True))
        pq.write_table(pa.table(columns), temporary / GOLDEN, compression="zstd")
        manifest = {
            **description,
            "format": FORMAT,
            "features": spec.to_json(),
            "files": {name: _digest((temporary / name).read_bytes()) for name in (MODEL, GOLDEN)},
            "xgboost": xgboost.__version__,
            "machine": platform.machine(),
        }
        content = json_bytes(manifest)
        (temporary / MANIFEST).write_bytes(content)
    return _digest(content)


def read_manifest(folder: Path, manifest_sha256: str) -> dict[str, Any]:
    """The description of an artifact: no model is loaded, but every file is checked.

    Raises:
        CorruptArtifact: if a file is missing or was changed.
    """
    return _verified(folder, manifest_sha256)[0]


def load_artifact(folder: Path, manifest_sha256: str) -> Artifact:
    """Load a model, once every byte of it is known to be what was registered.

    Load in a process of its own: a model file that is wrong in spite of its digest can end the process.

    Raises:
        CorruptArtifact: if a file is missing or was changed, or is of a format that this code does not know.
    """
    manifest, files = _verified(folder, manifest_sha256)
    spec = FeatureSpec.from_json(manifest["features"])
    booster = xgboost.Booster()
    try:
        booster.load_model(bytearray(files[MODEL]))
    except xgboost.core.XGBoostError as error:
        reason = str(error).strip().splitlines()[-1]
        raise CorruptArtifact(f"{folder / MODEL}: XGBoost {xgboost.__version__} cannot load it ({reason}): {REMEDY}") from None
    if booster.num_features() != len(spec.names):
        raise CorruptArtifact(
            f"{folder / MODEL}: reads {booster.num_features()} features, its manifest names {len(spec.names)}: {REMEDY}"
        )
    table = pq.read_table(pa.BufferReader(files[GOLDEN]))
    golden = Golden(
        rows=np.column_stack([table[name].to_numpy() for name in spec.names]).astype(np.float32),
        scores=table[EXPECTED].to_numpy().astype(np.float32),
    )
    return Artifact(booster, spec, manifest, manifest_sha256, golden)


def unpack(archive: Path, folder: Path) -> Path:
    """The files of a model.tar.gz. It came from a bucket: nothing but the three files of an artifact is taken out of it.

    Raises:
        CorruptArtifact: if it holds anything else, is too large, or is damaged.
    """
    size = 0
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                name = str(PurePosixPath(member.name))
                if member.isdir() and name == ".":
                    continue
                if not member.isreg() or name not in (MODEL, GOLDEN, MANIFEST) or (folder / name).exists():
                    raise CorruptArtifact(f"{archive}: holds {member.name!r}, which is no file of a model: train it again")
                size += member.size
                if size > MOST_BYTES:
                    raise CorruptArtifact(f"{archive}: is larger than {MOST_BYTES:,} bytes unpacked: train a smaller one")
                # Not extract(): its filters came with Python 3.11.4, and of a file of ours nothing but the bytes matters.
                with cast(IO[bytes], tar.extractfile(member)) as source, (folder / name).open("xb") as target:
                    shutil.copyfileobj(source, target)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise CorruptArtifact(f"{archive}: cannot be unpacked ({error}): train it again") from None
    return folder


def check_golden(artifact: Artifact) -> None:
    """Score the golden rows and compare: does the model still say here what it said where it was trained?

    On the XGBoost version and kind of machine that trained it every bit must agree, elsewhere 1e-5.

    Raises:
        CorruptArtifact: naming how far the scores are apart.
    """
    scores, expected = predict(artifact.booster, artifact.golden.rows), artifact.golden.scores
    trained_on = (artifact.manifest["xgboost"], artifact.manifest["machine"])
    here = (xgboost.__version__, platform.machine())
    tolerance = 0.0 if trained_on == here else GOLDEN_TOLERANCE
    if len(scores) == 0 or not bool((np.abs(scores - expected) <= tolerance).all()):
        apart = _largest(np.abs(scores - expected))
        raise CorruptArtifact(
            f"model {artifact.manifest.get('model', '')!r} ({artifact.manifest_sha256[:12]}): its golden rows score up to "
            f"{apart:.3g} off (trained on XGBoost {' '.join(trained_on)}, here {' '.join(here)}): {REMEDY}"
        )


def _verified(folder: Path, manifest_sha256: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the content of the files it vouches for. What is checked is what is loaded: no file is read twice."""
    content = _read(folder / MANIFEST)
    _compare(folder / MANIFEST, content, manifest_sha256, "the registry")
    manifest = json.loads(content)
    if manifest.get("format") != FORMAT:
        raise CorruptArtifact(
            f"{folder / MANIFEST}: format {manifest.get('format')!r}, this code knows {FORMAT}: deploy the code that trained the "
            "model, or train again"
        )
    files = {name: _read(folder / name) for name in (MODEL, GOLDEN)}
    for name, bytes_ in files.items():
        _compare(folder / name, bytes_, manifest["files"][name], "its manifest")
    return manifest, files


def _compare(file: Path, content: bytes, expected: str, source: str) -> None:
    found = _digest(content)
    if found != expected:
        raise CorruptArtifact(f"{file}: SHA-256 is {found[:12]}…, {source} says {expected[:12]}…: {REMEDY}")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise CorruptArtifact(f"{file}: not found: {REMEDY}") from None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _largest(distances: npt.NDArray) -> float:
    return float(distances.max()) if len(distances) else float("nan")
