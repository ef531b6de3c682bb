"""Clients of Google Cloud, with what the hooks of the Google provider have of a connection. To make one takes longer than most
calls with it, so a process makes it once.

Those of Vertex AI take seconds to import: nothing here is imported while DAGs are parsed.
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
    from google.cloud.aiplatform_v1.services.job_service import JobServiceClient

    return JobServiceClient(
        **_as_hooks_do(connection), client_options={"api_endpoint": f"{gcp().region}-aiplatform.googleapis.com"}
    )


def _dataflow(connection: str) -> Any:
    from airflow.providers.google.cloud.hooks.dataflow import DataflowHook
    from googleapiclient.discovery import build
    from googleapiclient.http import HttpRequest

    hook = DataflowHook(gcp_conn_id=connection)

    def alone(http: Any, *asked: Any, **more: Any) -> Any:
        """A call on a connection of its own. httplib2's are not for many at once: a triggerer looks at many jobs, and a task
        that is killed stops its job while it asks for it."""
        return HttpRequest(hook._authorize(), *asked, **more)

    return build("dataflow", "v1b3", http=hook._authorize(), requestBuilder=alone, cache_discovery=False)


def _metrics(connection: str) -> Any:
    from google.cloud.monitoring_v3 import MetricServiceClient

    return MetricServiceClient(**_as_hooks_do(connection))


def _as_hooks_do(connection: str) -> dict[str, Any]:
    """What the provider's hooks make their clients with. Those of Vertex AI import its whole SDK, two to three times as much as
    its clients need."""
    from airflow.providers.google.common.consts import CLIENT_INFO
    from airflow.providers.google.common.hooks.base_google import GoogleBaseHook

    return {"credentials": GoogleBaseHook(gcp_conn_id=connection).get_credentials(), "client_info": CLIENT_INFO}


MAKERS = {"bigquery": _bigquery, "storage": _storage, "jobs": _jobs, "dataflow": _dataflow, "metrics": _metrics}
