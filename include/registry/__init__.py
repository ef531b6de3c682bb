"""The model registry of this environment."""

from __future__ import annotations

from include.config import settings
from include.registry.base import Registry


def registry() -> Registry:
    """The registry that AILERON_REGISTRY names.

    Raises:
        ValueError: if no registry of ours understands it.
    """
    uri = settings().registry
    if uri.startswith(("sqlite:///", "http://", "https://", "postgresql://", "mysql+pymysql://")):
        from include.registry.mlflow import MlflowRegistry

        return MlflowRegistry(uri)
    raise ValueError(f"AILERON_REGISTRY {uri!r}: must be the address of an MLflow server, or sqlite:///<file> for one within")
