"""One local Google Cloud, made once; a lake of this machine where the same flights have landed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.dags.conftest import quick_models as quick_models
from tests.flights import landed as landed
from tests.flights import laptop as laptop
from tests.gcp.places import started
from tests.localcloud.gcp.cloud import GoogleCloud


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with started(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud
