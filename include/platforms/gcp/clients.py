"""Clients of Google Cloud, made by the hooks of the Google provider. To make one takes longer than most calls with it, so a
process makes it once.

The hooks of Vertex AI import its whole SDK, seven seconds of a core: nothing here is imported while DAGs are parsed.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from include.platforms.gcp.settings import gcp


def client(service: str, connection: str = "") -> Any:
    """A client of a service, by a connection of Airflow (default: that of the settings). A child of this process makes one of
    its own, and so does whoever is told of another place."""
    place = (os.environ.get("HTTPS_PROXY", ""), gcp().project, gcp().region, gcp().location)
    return _made(service, connection or gcp().connection, place, os.getpid())


@cache
def _made(service: str, connection: str, place: tuple[str, ...], process: int) -> Any:
    return MAKERS[service](connection)


def _bigquery(connection: str) -> Any:
    from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook

    return BigQueryHook(gcp_conn_id=connection).get_client(project_id=gcp().project, location=gcp().location)


def _storage(connection: str) -> Any:
    from airflow.providers.google.cloud.hooks.gcs import GCSHook

    return GCSHook(gcp_conn_id=connection).get_conn()


def _jobs(connection: str) -> Any:
    from airflow.providers.google.cloud.hooks.vertex_ai.batch_prediction_job import BatchPredictionJobHook

    return BatchPredictionJobHook(gcp_conn_id=connection).get_job_service_client(gcp().region)


def _dataflow(connection: str) -> Any:
    from airflow.providers.google.cloud.hooks.dataflow import DataflowHook

    return DataflowHook(gcp_conn_id=connection).get_conn()


def _metrics(connection: str) -> Any:
    from airflow.providers.google.common.consts import CLIENT_INFO
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook
    from google.cloud.monitoring_v3 import MetricServiceClient

    return MetricServiceClient(credentials=GoogleBaseHook(gcp_conn_id=connection).get_credentials(), client_info=CLIENT_INFO)


MAKERS = {"bigquery": _bigquery, "storage": _storage, "jobs": _jobs, "dataflow": _dataflow, "metrics": _metrics}
