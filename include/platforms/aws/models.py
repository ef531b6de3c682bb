"""Versions of models on AWS: artifacts on S3, and their packages in SageMaker's registry."""

from __future__ import annotations

from typing import Any

from include.config import ModelConfig, settings
from include.platforms import archives
from include.platforms.aws import lake
from include.registry import registry
from include.registry.sagemaker import SageMakerRegistry


def manifest_of(model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    return archives.manifest_of(lake, model, version)


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
