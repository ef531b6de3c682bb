"""One local cloud for the whole session; every test finds it empty."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.localcloud.cloud import LocalCloud, trial_image
from tests.localcloud.sagemaker_requests import IMAGE


@pytest.fixture(scope="session")
def running_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with LocalCloud(tmp_path_factory.mktemp("cloud"), {IMAGE: trial_image()}, ping_seconds=4) as cloud:
        yield cloud


@pytest.fixture
def cloud(running_cloud: LocalCloud) -> LocalCloud:
    running_cloud.reset()
    return running_cloud
