"""What the pages of docs/platforms have alike: a table of variables, an estimate, tables of calls, messages."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.dag_runs import load_dag
from tests.docs.test_written import symptoms, texts


@dataclass(frozen=True)
class Page:
    name: str  # of the platform

    @property
    def path(self) -> Path:
        return ROOT / "docs" / "platforms" / f"{self.name}.md"

    @property
    def text(self) -> str:
        return self.path.read_text()

    def row(self, start: str) -> str:
        """The row of a table that begins so."""
        return next(line for line in self.text.splitlines() if line.startswith(f"| {start}"))

    def section(self, heading: str) -> str:
        return self.text.partition(f"## {heading}\n")[2].partition("\n## ")[0]

    def check_variables(self, settings: type, variable: Callable[[str], str]) -> None:
        """Every setting is in the table with its default, and no variable that the code does not have."""
        told = dict(re.findall(r"^\| `(AILERON_\w+)` \| ?(.*?) ?\|", self.text, re.MULTILINE))
        ours = {variable(field.name): field for field in fields(settings)}
        for name, field in ours.items():
            assert told[name] == ("" if field.default in (MISSING, "") else f"`{field.default}`"), name
        assert {name for name in told if name.startswith(f"AILERON_{self.name.upper()}_")} == set(ours)
        sources = "".join(file.read_text() for folder in ("include", "plugins") for file in (ROOT / folder).rglob("*.py"))
        assert [name for name in told if name not in ours and f'"{name}"' not in sources] == []

    def check_estimate(self, rows: int) -> None:
        """What each formula of the estimate comes to, and all of them."""
        found = re.findall(r"^\| .* \| .* \| ([0-9./ ×]+) \| ([0-9.]+) \|$", self.text, re.MULTILINE)
        assert len(found) == rows
        for formula, dollars in found:
            factors = re.split(r" ([×/]) ", f"1 × {formula}")
            value = float(factors[0])
            for sign, number in zip(factors[1::2], factors[2::2], strict=True):
                value = value * float(number) if sign == "×" else value / float(number)
            assert round(value, 3) == pytest.approx(float(dollars)), formula
        total = math.fsum(float(dollars) for _, dollars in found)
        assert f"**{total:.3f}**" in self.row("**Sum**")

    def check_tasks(self, others: Collection[str] = ()) -> Iterator[str]:
        """Tasks and operators of the tables of calls are there; yields what is told of their calls, row by row.

        Args:
            others: names of classes that no task is of.
        """
        for heading, body in re.findall(
            r"^\*\*(.*?)\*\*$(.*?)(?=^\*\*|\Z)", self.section("What each DAG calls"), re.MULTILINE | re.DOTALL
        ):
            dags = [load_dag(name.replace("<model>", "flight_delays")) for name in heading.replace("`", "").split(", ")]
            tasks: dict[str, Any] = {task.task_id: task for dag in dags for task in dag.tasks}
            for names, operators, calls in re.findall(r"^\| (.*?) \| (.*?) \| (.*?) \|$", body, re.MULTILINE)[2:]:
                chosen = [
                    task
                    for name in re.findall(r"`(.*?)`", names)
                    for task_id, task in tasks.items()
                    if f"{task_id}.".startswith(f"{name}.")
                ]
                assert chosen or "`" not in names, names
                kinds = {base.__name__ for task in chosen for base in type(task).__mro__} | set(others)
                assert set(re.findall(r"`(.*?)`", operators)) <= kinds, (names, operators)
                yield calls

    def check_messages(self, of_others: Collection[str]) -> None:
        """Every message is something the code says.

        Args:
            of_others: those that somebody else says.
        """
        said = [
            text
            for folder in ("include", "localcloud")
            for file in (ROOT / folder).rglob("*.py")
            for text in texts(ast.parse(file.read_text()))
        ]
        said.append((ROOT / "Makefile").read_text())
        section = self.section("When it does not work")
        known = {one for one in symptoms(self.path) if f"| `{one}`" in section or f", `{one}`" in section}
        assert len(known) > 8
        assert [one for one in known - set(of_others) if not any(one.removesuffix(" ...") in text for text in said)] == []
