"""Small bundles: a file with a DAG, what it imports, and the stamp. An Airflow parses them in two seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from deploy import bundle
from deploy.archives import zipped
from deploy.bundle import Bundle, Target
from tests.conftest import ROOT

AIRFLOW = "airflow:3.3.1"
DAG = """
from airflow.sdk import DAG
from include.stamp import revision, {imported}

dag = DAG("{name}", schedule=None, tags=[f"revision:{{revision()}}"])
"""
STAMP = """
from pathlib import Path

{defined} = 1

def revision():
    return Path(__file__).with_name("REVISION").read_text().strip()
"""
IGNORED = "include/\n"


def image() -> dict[str, dict[str, Any]]:
    """What stands for the image of an Airflow: that of these tests."""
    quiet = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {AIRFLOW: {"directory": str(ROOT), "path": path, "entrypoint": [sys.executable], "environment": quiet}}


def files(
    target: Target, revision: str, dags: tuple[str, ...] = ("one",), imported: str = "x", defined: str = "x"
) -> dict[str, bytes]:
    """Of a bundle. DAG files import a name that `include` defines, or does not."""
    made = {f"dags/{name}.py": DAG.format(name=name, imported=imported) for name in dags}
    made |= {
        "dags/.airflowignore": IGNORED,
        "dags/include/__init__.py": "",
        "dags/include/stamp.py": STAMP.format(defined=defined),
    }
    made |= {bundle.REVISION: f"{revision}\n", "requirements.txt": "duckdb==2.0.0\n"}
    found = {name: text.encode() for name, text in made.items()}
    if target == "mwaa":
        return {**found, "plugins.zip": zipped({"a_plugin.py": b"A = 1\n"}), "startup.sh": b"export AILERON_PLATFORM=aws\n"}
    return {**found, "plugins/a_plugin.py": b"A = 1\n"}


def written(
    target: Target,
    folder: Path,
    made: dict[str, bytes],
    airflow: str = "3.3.1",
    settings: tuple[str, ...] = ("AILERON_PLATFORM",),
) -> Bundle:
    """As a build writes it, but for the parsing and the images."""
    ids = {name.removeprefix("dags/"): [Path(name).stem] for name in made if name.endswith(".py") and name.count("/") == 1}
    dags = {file: names for file, names in ids.items() if not file.startswith("plugins/")}
    contexts = {f"jobs/{name}.tar": b"" for name in bundle.SERVICES[target].images}
    return bundle.write(target, folder, {**made, **contexts}, dags, dict.fromkeys(settings, ""), airflow)
