"""Vertex AI v1 over gRPC: the registry of models, and the jobs that train them and predict with them."""

from __future__ import annotations

from localcloud.gcp.service import Cloud, Methods
from localcloud.gcp.vertex_jobs import Trainings
from localcloud.gcp.vertex_models import Registry
from localcloud.gcp.vertex_prediction import Predictions
from localcloud.gcp.vertex_resources import Location


def methods(cloud: Cloud) -> Methods:
    location = Location(cloud.project, cloud.region)
    registry = Registry(cloud, location)
    trainings, predictions = Trainings(cloud, location, registry), Predictions(cloud, location, registry)
    return {**registry.methods(), **trainings.methods(), **predictions.methods()}
