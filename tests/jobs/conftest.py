"""One trained model for all tests of the jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.core.examples import saved


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of an artifact and the SHA-256 of its manifest."""
    folder = tmp_path_factory.mktemp("artifact") / "model"
    return folder, saved(folder)
