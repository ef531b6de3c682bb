"""Artifacts on S3: the archive that SageMaker made of a trained model, and its manifest beside it.

models/<model>/<first digits of the manifest's SHA-256>/model.tar.gz, manifest.json
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from include.config import ModelConfig, settings
from include.platforms.aws import lake
from include.registry import registry
from include.registry.sagemaker import SageMakerRegistry

ARCHIVE = "model.tar.gz"
MOST_BYTES = 2_000_000_000


def unpack(archive: str, folder: Path) -> None:
    """The files of an archive, which are an artifact's and nothing else.

    Raises:
        ValueError: naming what is wrong with it.
    """
    from include.core.artifacts import GOLDEN, MANIFEST, MODEL  # imports XGBoost, which takes a second

    try:
        with tarfile.open(fileobj=io.BytesIO(lake.read(archive)), mode="r:gz") as packed:
            for member in packed.getmembers():
                name = member.name.removeprefix("./")
                if name in ("", "."):
                    continue
                if name not in (GOLDEN, MANIFEST, MODEL) or not member.isfile() or member.size > MOST_BYTES:
                    raise ValueError(f"{archive}: holds {member.name!r}, which is no file of an artifact: train again")
                content = packed.extractfile(member)
                assert content is not None
                (folder / name).write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive}: cannot be unpacked ({error}): train again, or restore it from a backup") from None


def read_manifest_of(archive: str, manifest_sha256: str) -> dict[str, Any]:
    """The manifest in an archive whose files are those that it names.

    Raises:
        ValueError: naming the file that is not.
    """
    from include.core.artifacts import CorruptArtifact, read_manifest

    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        unpack(archive, Path(folder))
        try:
            return read_manifest(Path(folder), manifest_sha256)
        except CorruptArtifact as error:
            raise ValueError(f"{archive}: {error}") from None


def manifest_of(model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    try:
        return read_manifest_of(version["artifact"], version["manifest_sha256"])
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
    from include.core.artifacts import MANIFEST
    from include.core.files import sha256_of

    with tempfile.TemporaryDirectory(prefix="artifact-") as folder:
        unpack(trained, Path(folder))
        if not (Path(folder) / MANIFEST).is_file():
            raise ValueError(f"{trained}: has no {MANIFEST}: train again")
        manifest_sha256 = sha256_of(Path(folder) / MANIFEST)
        content = (Path(folder) / MANIFEST).read_bytes()
    read_manifest_of(trained, manifest_sha256)
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
