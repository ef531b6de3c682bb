"""Artifacts on S3: the archive that SageMaker made of a trained model, and its manifest beside it.

models/<model>/<first digits of the manifest's SHA-256>/model.tar.gz, manifest.json
"""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from include.config import ModelConfig, settings
from include.platforms.aws import lake
from include.registry import registry
from include.registry.sagemaker import SageMakerRegistry

ARCHIVE = "model.tar.gz"


@contextmanager
def unpacked(archive: str) -> Generator[Path, None, None]:
    """The files of an archive on S3, in a folder of this machine, as long as they are looked at.

    Raises:
        ValueError: naming what is wrong with it, also from what is done with them.
    """
    from include.core.artifacts import CorruptArtifact, unpack  # imports XGBoost, which takes a second

    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        here = Path(folder) / ARCHIVE
        try:
            here.write_bytes(lake.read(archive))
            (Path(folder) / "model").mkdir()
            yield unpack(here, Path(folder) / "model")
        except (CorruptArtifact, FileNotFoundError) as error:
            raise ValueError(f"{archive}: {error}") from None


def manifest_of(model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    from include.core.artifacts import read_manifest

    try:
        with unpacked(version["artifact"]) as folder:
            return read_manifest(folder, version["manifest_sha256"])
    except ValueError as error:
        raise ValueError(f"{model.name}: version {version['version']} cannot be used: {error}") from None


def require_features(model: ModelConfig, version: dict[str, Any]) -> None:
    """A model's container takes what is missing from a line for a missing value, so a missing column is looked for here.

    Raises:
        ValueError: naming the features that the version needs and the model no longer has; or its files are not what they were.
    """
    from include.core.features import FeatureSpec

    needed = FeatureSpec.from_json(manifest_of(model, version)["features"]).names
    if missing := sorted(set(needed) - set(model.features.names)):
        raise ValueError(
            f"{model.name}: version {version['version']} needs the features {', '.join(missing)}, which features.sql no longer "
            "gives: put them back, or train a version without them"
        )


def keep(model: ModelConfig, trained: str) -> tuple[str, str]:
    """Keep what a training job has made, under its content; the archive and the SHA-256 of its manifest.

    Raises:
        ValueError: if the files are not those that their manifest names.
    """
    from include.core.artifacts import MANIFEST, CorruptArtifact, read_manifest
    from include.core.files import sha256_of

    with unpacked(trained) as folder:
        if not (folder / MANIFEST).is_file():
            raise CorruptArtifact(f"has no {MANIFEST}: train again")
        manifest_sha256 = sha256_of(folder / MANIFEST)
        read_manifest(folder, manifest_sha256)
        content = (folder / MANIFEST).read_bytes()
    kept = lake.place("models", model.name, manifest_sha256[:16])
    if not lake.exists(f"{kept}/manifest.json"):
        lake.copy(trained, f"{kept}/{ARCHIVE}")
        lake.write(f"{kept}/manifest.json", content)  # last: with it the folder is complete
    return f"{kept}/{ARCHIVE}", manifest_sha256


def sagemaker_registry() -> SageMakerRegistry:
    """
    Raises:
        ValueError: if the environment has another registry: batch transforms take their models from SageMaker's.
    """
    found = registry()
    if not isinstance(found, SageMakerRegistry):
        raise ValueError(
            f"AILERON_REGISTRY {settings().registry!r}: platform aws needs sagemaker://<prefix>, like sagemaker://aileron"
        )
    return found


def package_of(model: ModelConfig, version: dict[str, Any]) -> str:
    """The ARN of a version's model package."""
    return sagemaker_registry().arn(model.name, version["version"])
