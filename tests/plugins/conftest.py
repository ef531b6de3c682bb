"""The plugin as Airflow loads it: one file, on its own."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest

from tests.conftest import ROOT

FILE = ROOT / "plugins" / "report_pages.py"


@pytest.fixture(scope="session")
def plugin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report_pages", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["report_pages"] = module
    spec.loader.exec_module(module)
    return module
