"""Versions of models on Google Cloud: artifacts on Cloud Storage, and their versions in Vertex AI's registry."""

from __future__ import annotations

from typing import Any

from include.config import ModelConfig, settings
from include.platforms import archives
from include.platforms.gcp import lake
from include.registry import registry
from include.registry.vertex import VertexRegistry


def manifest_of(model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
    """See `platforms.base.Platform`."""
    return archives.manifest_of(lake, model, version)


def vertex_registry() -> VertexRegistry:
    """
    Raises:
        ValueError: if the environment has another registry: batch predictions take their models from Vertex AI's.
    """
    found = registry()
    if not isinstance(found, VertexRegistry):
        raise ValueError(f"AILERON_REGISTRY {settings().registry!r}: platform gcp needs vertex://<prefix>, like vertex://aileron")
    return found


def resource_of(model: ModelConfig, version: dict[str, Any]) -> str:
    """The resource name of a version, with its number."""
    return vertex_registry().resource(model.name, version["version"])
