"""docs/reference/commands.md: the targets of the Makefile, and the commands behind some of them, by their own words."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from docs.writers.tables import table

# What a target is given, as its help writes it: PLATFORM=aws, KEY=<key of the row>, ARGS='-k restore'.
VARIABLE = re.compile(r"(?<![`\w])([A-Z_]+=(?:'[^']*'|<[^>]*>|[^\s,;]+))")
HEAD = """\
# Commands

<!-- Written by `make docs` from the Makefile and include/cli.py. Edit those, not this page. -->

All are run from the root of the repository. Each target prints what it runs; `make` alone lists them.
`PYTHON=python3.12` chooses the Python of a new environment; what else a target takes is said with it.

## make

"""
CLI = """\
## python -m include.cli

What some targets run, with what `make` cannot pass on. Where Airflow runs it needs nothing but its [settings](settings.md); on a
laptop it is `.venv/bin/python -m include.cli`. It ends with 0, with 1 if the answer is no or an error, which it names, and with 2
if it was called wrongly.
"""


def page(makefile: str, parser: argparse.ArgumentParser) -> str:
    """The page of a Makefile and of a parser with commands.

    Raises:
        ValueError: if an argument of a command says nothing about itself.
    """
    return (
        "\n".join([HEAD.rstrip() + "\n", *table(("Target", "What it does"), targets(makefile)), CLI, *_commands(parser)]).rstrip()
        + "\n"
    )


def targets(makefile: str) -> list[tuple[str, str]]:
    found = re.findall(r"^([a-z][a-z-]*):.*## (.*)$", makefile, re.MULTILINE)
    return [(f"`make {name}`", VARIABLE.sub(r"`\1`", _sentence(help_))) for name, help_ in found]


def _commands(parser: argparse.ArgumentParser) -> Iterator[str]:
    chosen = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    says = {action.dest: action.help for action in chosen._choices_actions}
    for name, command in chosen.choices.items():
        yield f"### {name}\n"
        yield f"{_sentence(says.get(name) or '')}\n"
        arguments = [action for action in command._actions if action.dest != "help"]
        if silent := [action.dest for action in arguments if not action.help]:
            raise ValueError(f"{parser.prog} {name}: {', '.join(silent)} says nothing about itself; give it a help")
        if arguments:
            yield from table(
                ("Argument", "What it is"), [(_written(action), _sentence(action.help or "")) for action in arguments]
            )


def _written(action: Any) -> str:
    name = f"{action.option_strings[-1]} {action.dest.upper()}" if action.option_strings else action.dest
    return f"`{name}`" + ("" if action.required else ", may be left out")


def _sentence(text: str) -> str:
    """With a capital, but where it begins with the name of something."""
    return text[:1].upper() + text[1:] if re.match(r"[a-z]+\b(?![/.:=_-])", text) else text
