"""docs/adr/index.md: the decisions, each with its title and date."""

from __future__ import annotations

import re
from pathlib import Path

from docs.writers.tables import table

HEAD = """\
# Decisions

<!-- Written by `make docs` from the pages of this folder. -->

What was decided, and why not otherwise; a page each. A decision that no longer holds is followed by another one, not edited.

"""


def page(folder: Path) -> str:
    """The page of a folder of decisions.

    Raises:
        ValueError: for one without a title with its number, or without a line that says whether it was accepted, and when.
    """
    rows = []
    for file in sorted(folder.glob("[0-9]*.md")):
        title, status = (
            re.match(r"# (\d+)\. (.+)\n", file.read_text()),
            re.search(r"^(\w+), (\d{4}-\d\d)", file.read_text(), re.MULTILINE),
        )
        if title is None or status is None or int(title[1]) != int(file.name[:4]):
            raise ValueError(
                f"{file.name}: begin with '# {int(file.name[:4])}. <what was decided>' and a line 'Accepted, <year>-<month>'"
            )
        rows.append((title[1], f"[{title[2]}]({file.name})", f"{status[1]}, {status[2]}"))
    return HEAD + "\n".join(table(("No.", "Decision", "State"), rows)).rstrip() + "\n"
