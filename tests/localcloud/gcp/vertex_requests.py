"""What tests of Vertex AI and Dataflow ask for."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.localcloud.cloud import PYTHON
from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud

IMAGES = Path(__file__).parent / "images"
REGISTRY = f"{REGION}-docker.pkg.dev/{PROJECT}/images"
TRAINER, PREDICTOR, PIPELINE = (f"{REGISTRY}/{name}:1" for name in ("trainer", "predictor", "pipeline"))
PARENT = f"projects/{PROJECT}/locations/{REGION}"
NUMBERED = f"projects/1/locations/{REGION}"
MACHINE = "n1-standard-4"
ENDPOINT = {"api_endpoint": f"{REGION}-aiplatform.googleapis.com"}


def images() -> dict[str, dict[str, Any]]:
    """Three programs, as they are in images.json."""
    plain = {"directory": str(IMAGES), "path": str(Path(sys.executable).parent)}
    return {
        TRAINER: {**plain, "entrypoint": ["python", "trainer.py"], "environment": {"GCS": "{gcs}", "OF_IMAGE": "yes"}},
        PREDICTOR: {**plain, "entrypoint": ["python", "predictor.py"], "environment": {"GCS": "{gcs}", "OF_IMAGE": "yes"}},
        PIPELINE: {**plain, "path": str(PYTHON.parent), "entrypoint": ["python", "pipeline.py"]},
    }


def jobs_client() -> Any:
    from google.cloud.aiplatform_v1 import JobServiceClient

    return JobServiceClient(client_options=ENDPOINT)


def models_client() -> Any:
    from google.cloud.aiplatform_v1 import ModelServiceClient

    return ModelServiceClient(client_options=ENDPOINT)


def pipelines_client() -> Any:
    from google.cloud.aiplatform_v1 import PipelineServiceClient

    return PipelineServiceClient(client_options=ENDPOINT)


def put(bucket: Any, **objects: str) -> None:
    for name, text in objects.items():
        bucket.blob(name).upload_from_string(text)


def custom(name: str, *args: str, **more: Any) -> dict[str, Any]:
    """A custom job of the trainer."""
    pool = {
        "machine_spec": {"machine_type": MACHINE},
        "replica_count": 1,
        "container_spec": {"image_uri": TRAINER, "args": list(args), **more.pop("container", {})},
        **more.pop("pool", {}),
    }
    spec = {"worker_pool_specs": [pool], **more.pop("spec", {})}
    return {"display_name": name, "job_spec": spec, **more}


def model(name: str, **more: Any) -> dict[str, Any]:
    """A model whose file is in the bucket lake."""
    container = {
        "image_uri": PREDICTOR,
        "predict_route": "/predict",
        "health_route": "/health",
        **more.pop("container", {}),
    }
    return {"display_name": name, "artifact_uri": "gs://lake/models/1", "container_spec": container, **more}


def uploaded(client: Any, model: dict[str, Any], **more: Any) -> Any:
    """The answer to an upload, when it is done."""
    return client.upload_model({"parent": PARENT, "model": model, **more}).result(20)


def ended(get: Callable[..., Any], name: str, seconds: float = 30) -> Any:
    """A job when it is over, by how it is got."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job = get(name=name)
        if job.state.name.rpartition("_")[2] in ("SUCCEEDED", "FAILED", "CANCELLED"):
            return job
        time.sleep(0.1)
    raise AssertionError(f"{name} is still {job.state.name}")


def reached(get: Callable[..., Any], name: str, state: str, seconds: float = 20) -> Any:
    until = time.monotonic() + seconds
    while (job := get(name=name)).state.name != state:
        assert time.monotonic() < until, f"{name} is {job.state.name}"
        time.sleep(0.05)
    return job


def log(cloud: GoogleCloud, name: str) -> str:
    """What a job said, as a person would read it."""
    (path,) = (cloud.folder / "state" / "logs").glob(f"{name}-*.txt")
    return path.read_text()


def waited_for(cloud: GoogleCloud, name: str, text: str, seconds: float = 20) -> None:
    """Until a job says something."""
    until = time.monotonic() + seconds
    while not list((cloud.folder / "state" / "logs").glob(f"{name}-*.txt")) or text not in log(cloud, name):
        assert time.monotonic() < until, f"{name} does not say {text}"
        time.sleep(0.05)
