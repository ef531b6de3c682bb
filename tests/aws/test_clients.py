"""Clients are made once in a process, and by each process anew."""

from __future__ import annotations

import os

import pytest

from include.platforms.aws.clients import client

pytestmark = pytest.mark.localcloud


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough to make clients; none of them calls anybody."""
    monkeypatch.setenv("AILERON_AWS_LAKE", "s3://flights/clients")
    monkeypatch.setenv("AILERON_AWS_DATABASE", "clients")
    monkeypatch.setenv("AILERON_AWS_ROLE", "arn:aws:iam::123456789012:role/jobs")
    monkeypatch.setenv("AILERON_AWS_IMAGE", "image:1")
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")


def test_a_client_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first = client("s3")
    assert client("s3") is first and client("glue") is not first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    assert client("s3") is not first


def test_a_child_of_the_process_makes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that write on one connection would get each other's answers."""
    first, parent = client("s3"), os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    assert client("s3") is not first
