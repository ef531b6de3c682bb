"""The model registry of this environment."""

from __future__ import annotations

import os

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
    if uri.startswith("sagemaker://"):
        from include.registry.sagemaker import SageMakerRegistry

        return SageMakerRegistry(
            uri.removeprefix("sagemaker://"),
            image=os.environ.get("AILERON_AWS_IMAGE", ""),
            connection=os.environ.get("AILERON_AWS_CONNECTION") or "aws_default",
        )
    if uri.startswith("vertex://"):
        from include.registry.vertex import VertexRegistry

        return VertexRegistry(
            uri.removeprefix("vertex://"),
            project=os.environ.get("AILERON_GCP_PROJECT", ""),
            region=os.environ.get("AILERON_GCP_REGION") or "us-central1",
            image=os.environ.get("AILERON_GCP_IMAGE", ""),
            connection=os.environ.get("AILERON_GCP_CONNECTION") or "google_cloud_default",
            kms_key=os.environ.get("AILERON_GCP_KMS_KEY", ""),
        )
    raise ValueError(
        f"AILERON_REGISTRY {uri!r}: must be the address of an MLflow server, sqlite:///<file> for one within, "
        "sagemaker://<prefix> for the registry of SageMaker, or vertex://<prefix> for that of Vertex AI"
    )
