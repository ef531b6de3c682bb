"""docs/ml-test-score.md: its tests are there and run, its sums are right, and no point is given for nothing."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

SECTIONS = ("Features and data", "Model development", "Infrastructure", "Monitoring")
TEXT = (ROOT / "docs" / "ml-test-score.md").read_text()


@dataclass(frozen=True)
class Row:
    section: str
    test: str
    points: float
    how: str
    shown_by: str

    @property
    def ids(self) -> list[str]:
        found = re.findall(r"\[([\w/]+)::(\w+)\]\(\.\./(tests/[\w/]+\.py)\)", self.shown_by)
        assert len(found) == self.shown_by.count("]("), f"{self.test}: a link that is none to a test: {self.shown_by}"
        assert all(file == f"tests/{named}.py" for named, _, file in found), f"{self.test}: text and link differ"
        return [f"{file}::{name}" for _, name, file in found]


def rows() -> list[Row]:
    found = []
    for section in SECTIONS:
        body = TEXT.partition(f"## {section}: ")[2].partition("\n## ")[0]
        for cells in re.findall(r"^\| (.+?) \| ([\d.]+) \| (.+?) \| (.*?) ?\|$", body, re.MULTILINE):
            found.append(Row(section, cells[0], float(cells[1]), cells[2], cells[3]))
    return found


def test_there_are_seven_tests_in_each_of_four_sections_and_the_sums_are_right() -> None:
    sums = {}
    for section in SECTIONS:
        of_section = [row for row in rows() if row.section == section]
        assert len(of_section) == 7 and len({row.test for row in of_section}) == 7, section
        sums[section] = sum(row.points for row in of_section)
        assert f"## {section}: {sums[section]:g} of 7\n" in TEXT
    summary = ", ".join(f"{section.lower()} {points:g}" for section, points in sums.items())
    assert f"**Score: {min(sums.values()):g}**, the lowest of {summary}." in " ".join(TEXT.split())


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.test)
def test_points_are_given_for_something(row: Row) -> None:
    assert row.points in (0, 0.5, 1) and row.how.endswith(".")
    if row.points == 1:
        assert row.ids, "a test that runs by itself is linked"
    elif row.points == 0.5:
        assert row.ids or "by hand" in row.how, "half a point is for a part that runs by itself, or for what is done by hand"
    else:
        assert not row.ids


def test_every_test_that_is_linked_is_there_and_runs() -> None:
    """Under a name that pytest looks for, and not among those that only other targets than `make test` and
    `make test-crashes` run, or that are skipped."""
    ids = sorted({test for row in rows() for test in row.ids})
    assert len(ids) > 30
    for test in ids:
        file, name = test.split("::")
        tree = ast.parse((ROOT / file).read_text())
        found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
        assert len(found) == 1 and name.startswith("test_") and Path(file).name.startswith("test_"), f"{test}: is not there"
        of_file = [node for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"]
        marks = " ".join(ast.unparse(node) for node in [*of_file, *found[0].decorator_list])
        assert not re.search(r"mark\.(slow|localcloud|account|skip|xfail)", marks), f"{test}: {marks}"
