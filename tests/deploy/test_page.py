"""docs/deploying.md against the code."""

from __future__ import annotations

import ast
import re

from deploy.cli import SERVICES
from tests.conftest import ROOT
from tests.docs.test_written import texts

PAGE = (ROOT / "docs" / "deploying.md").read_text()


def test_every_message_of_the_page_is_something_the_code_says() -> None:
    said = [text for file in (ROOT / "deploy").glob("*.py") for text in texts(ast.parse(file.read_text()))]
    told = re.findall(r"^\| `([^`]+)` \|", PAGE.partition("## When it does not work")[2], re.MULTILINE)
    assert len(told) > 8
    assert [message for message in told if not any(message in text for text in said)] == []


def test_every_archive_of_jobs_is_on_the_page() -> None:
    for service in SERVICES.values():
        assert all(f"`{name}.tar`" in PAGE for name in service.images)
