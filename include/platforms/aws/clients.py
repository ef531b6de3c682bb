"""Clients of AWS for what tasks ask in passing. To make one takes longer than most calls with it, so a process makes it once."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

from include.platforms.aws.settings import aws


def client(service: str) -> Any:
    """A client of boto3, by the connection of the settings. A child of this process makes one of its own."""
    return _made(service, aws().connection, os.environ.get("AWS_ENDPOINT_URL", ""), os.getpid())


@cache
def _made(service: str, connection: str, endpoint: str, process: int) -> Any:
    return AwsBaseHook(aws_conn_id=connection, client_type=service).conn
