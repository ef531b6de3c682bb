"""Artifacts in an object store: the archive that a training job has packed, and its manifest beside it.

models/<model>/<first digits of the manifest's SHA-256>/model.tar.gz, manifest.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from include.config import ModelConfig

ARCHIVE = "model.tar.gz"


class Store(Protocol):
    """The `lake` of a cloud, as far as artifacts need it."""

    def place(self, *names: str) -> str: ...
    def read(self, uri: str) -> bytes: ...
    def write(self, uri: str, content: bytes) -> None: ...
    def exists(self, uri: str) -> bool: ...
    def copy(self, source: str, target: str) -> None: ...


@contextmanager
def unpacked(store: Store, archive: str) -> Generator[Path, None, None]:
    """The files of an archive, in a folder of this machine, as long as they are looked at.

    Raises:
        ValueError: naming what is wrong with it, also from what is done with them.
    """
    from include.core.artifacts import CorruptArtifact, unpack  # imports XGBoost, which takes a second

    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        here = Path(folder) / ARCHIVE
        try:
            here.write_bytes(store.read(archive))
            (Path(folder) / "model").mkdir()
            yield unpack(here, Path(folder) / "model")
        except (CorruptArtifact, FileNotFoundError) as error:
            raise ValueError(f"{archive}: {error}") from None


def manifest_of(store: Store, model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    from include.core.artifacts import read_manifest

    try:
        with unpacked(store, version["artifact"]) as folder:
            return read_manifest(folder, version["manifest_sha256"])
    except ValueError as error:
        raise ValueError(f"{model.name}: version {version['version']} cannot be used: {error}") from None


def require_features(store: Store, model: ModelConfig, version: dict[str, Any]) -> None:
    """A model's container takes what is missing from a row for a missing value, so a missing column is looked for here.

    Raises:
        ValueError: naming the features that the version needs and the model no longer has; or its files are not what they were.
    """
    from include.core.features import FeatureSpec

    needed = FeatureSpec.from_json(manifest_of(store, model, version)["features"]).names
    if missing := sorted(set(needed) - set(model.features.names)):
        raise ValueError(
            f"{model.name}: version {version['version']} needs the features {', '.join(missing)}, which features.sql no longer "
            "gives: put them back, or train a version without them"
        )


def keep(store: Store, model: ModelConfig, trained: str) -> tuple[str, str]:
    """Keep what a training job has made, under its content; the archive and the SHA-256 of its manifest.

    Raises:
        ValueError: if the files are not those that their manifest names.
    """
    from include.core.artifacts import MANIFEST, CorruptArtifact, read_manifest
    from include.core.files import sha256_of

    with unpacked(store, trained) as folder:
        if not (folder / MANIFEST).is_file():
            raise CorruptArtifact(f"has no {MANIFEST}: train again")
        manifest_sha256 = sha256_of(folder / MANIFEST)
        read_manifest(folder, manifest_sha256)
        content = (folder / MANIFEST).read_bytes()
    kept = store.place("models", model.name, manifest_sha256[:16])
    if not store.exists(f"{kept}/manifest.json"):
        store.copy(trained, f"{kept}/{ARCHIVE}")
        store.write(f"{kept}/manifest.json", content)  # last: with it the folder is complete
    return f"{kept}/{ARCHIVE}", manifest_sha256
