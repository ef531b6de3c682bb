"""docs/reference/settings.md: the variables of the environment, from the code that reads them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path

from docs.writers.tables import table

HEAD = """\
# Settings

<!-- Written by `make docs` from the code that reads them. Edit that, not this page. -->

Where the DAGs work is said by variables of the environment, alike in the scheduler, the DAG processor, the workers and the
triggerer. What a model is, and every limit that decides about it, is in its [model.yaml](model.md) instead, under review. None of
these variables holds a secret: credentials are those of the machine's role, or of an Airflow connection.

"""
# Those that no class of settings has: default, and what it is. Which there are is read off the code: none can be forgotten.
EVERYWHERE: Mapping[str, tuple[str, str]] = {
    "AILERON_PLATFORM": ("`local`", "`local`, `aws` or `gcp`; `platform` of a model.yaml overrides it"),
    "AILERON_ENVIRONMENT": ("`dev`", "What subjects of mails and tags of jobs call this environment"),
    "AILERON_LAKE": ("`.local/lake`", "Folder of the lake of platform local, and of the local registry and ledger"),
    "AILERON_LEDGER": ("`ledger` of the lake", "Where [decisions](../ledger.md) are kept: `file://`, `s3://` or `gs://`"),
    "AILERON_REGISTRY": (
        "`registry.db` of the lake",
        "Where versions are registered: `sqlite:///<file>`, the address of an MLflow server, `sagemaker://<prefix>` or "
        "`vertex://<prefix>`",
    ),
    "AILERON_REVISION": (
        "the commit that is checked out",
        "What is recorded as the revision of the code, where there is no `.git`",
    ),
    "AILERON_OUTBOX": ("`outbox` of the lake", "Where mails wait until they are sent"),
    "AILERON_MAIL": ("`smtp`", "Who carries mails: `smtp` (the connection smtp_default) or `ses`"),
    "AILERON_SES_SENDER": ("", "With `ses`: the address they come from, which SES has verified"),
    "AILERON_SNS_TOPIC": ("", "ARN of an SNS topic that is told of failures too"),
    "AILERON_PAGES": ("the lake", "Where the report pages are that the UI shows; also of the API server"),
    "AILERON_DOCS": (
        "",
        "Address of the repository, of a branch where it has some (`https://.../blob/main`): mails then link their runbook",
    ),
    "AILERON_MODELS": ("`include/models`", "Folder of the models"),
    "AILERON_EXPECTATIONS": ("`expectations`", "Folder of their suites"),
}
ON_A_LAPTOP: Mapping[str, tuple[str, str]] = {
    "AILERON_PORT": ("a free one", "Port on 127.0.0.1 of the Airflow of `make up`, `make demo` and `make look`"),
    "AILERON_CLOUD_PORT": ("a free one", "Port on 127.0.0.1 of the local cloud of `make up PLATFORM=aws`"),
}


def page(repository: Path, clouds: Mapping[str, tuple[type, str, Mapping[str, tuple[str, str]]]]) -> str:
    """The page.

    Args:
        clouds: heading → class of settings, prefix of its variables, and what each must be (pattern, words).

    Raises:
        ValueError: if the code reads a variable that the page does not know, or no longer reads one that it knows.
    """
    of_clouds = tuple(prefix for _, prefix, _ in clouds.values())
    for known, folders in ((EVERYWHERE, ("include", "plugins")), (ON_A_LAPTOP, ("demo",))):
        read = {name for name in variables(repository, folders) if not name.startswith(of_clouds)} - (
            set(EVERYWHERE) - set(known)
        )
        if read != set(known):
            raise ValueError(f"docs/writers/settings.py and the code differ in {', '.join(sorted(read ^ set(known)))}")
    lines = [HEAD.rstrip() + "\n", "## Everywhere\n", *_table(EVERYWHERE), "## On a laptop\n", *_table(ON_A_LAPTOP)]
    for heading, (settings, prefix, patterns) in clouds.items():
        lines += [
            f"## {heading}\n",
            *table(("Variable", "Unless set", "Must be", "What it is"), _rows(settings, prefix, patterns)),
        ]
    return "\n".join(lines).rstrip() + "\n"


def variables(repository: Path, folders: tuple[str, ...]) -> set[str]:
    """The variables that are read of the environment: `os.environ.get("AILERON_...")` and the like. What a job is given by the
    platform that starts it (include/jobs) is nobody's to set."""
    found = set()
    for file in sorted(file for folder in folders for file in (repository / folder).rglob("*.py")):
        if file.is_relative_to(repository / "include" / "jobs"):
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Attribute(attr="get" | "getenv"), args=[ast.Constant(value=str(name)), *_]):
                    found.add(name)
                case ast.Subscript(value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name)), ctx=ast.Load()):
                    found.add(name)
    return {name for name in found if name.startswith("AILERON_")}


def _table(known: Mapping[str, tuple[str, str]]) -> list[str]:
    return table(("Variable", "Unless set", "What it is"), [(f"`{name}`", *told) for name, told in known.items()])


def _rows(settings: type, prefix: str, patterns: Mapping[str, tuple[str, str]]) -> list[tuple[str, str, str, str]]:
    said = comments(settings)
    rows = []
    for field in fields(settings):
        default = "**needed**" if field.default is MISSING else f"`{field.default}`" if field.default else ""
        rows.append((f"`{prefix}{field.name.upper()}`", default, patterns[field.name][1], said.get(field.name, "")))
    return rows


def comments(settings: type) -> dict[str, str]:
    """What the lines of a data class say of its fields."""
    source = textwrap.dedent(inspect.getsource(settings))
    found = re.findall(r"^    (\w+): [^#\n]*#\s*(.*)$", source, re.MULTILINE)
    return {name: text[:1].upper() + text[1:] if re.match(r"[a-z-]+\b(?![:/])", text) else text for name, text in found}
