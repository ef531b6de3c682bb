"""One local Google Cloud for the whole session, of which this process is a client; every test finds it empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.conftest import model as model
from tests.localcloud.gcp.cloud import GoogleCloud


@pytest.fixture(scope="session")
def running_google(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    """A cloud without images: tests of jobs that run programs start their own."""
    with GoogleCloud(tmp_path_factory.mktemp("google"), ping_seconds=4) as cloud:
        yield cloud


@pytest.fixture
def as_client(monkeypatch: pytest.MonkeyPatch) -> AsClient:
    return AsClient(monkeypatch)


class AsClient:
    """Makes this process a client of a cloud, for one test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def __call__(self, cloud: GoogleCloud) -> None:
        cloud.take_as_client(self._monkeypatch)


@pytest.fixture
def cloud(running_google: GoogleCloud, as_client: AsClient) -> Iterator[GoogleCloud]:
    running_google.reset()
    as_client(running_google)
    yield running_google
    assert running_google.refused_hosts() == []
