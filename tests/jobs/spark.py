"""Run the scripts of Spark as Glue does: alone in a folder, include/core in a zip, arguments of Glue's own beside ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

from include.config import REPOSITORY

PYTHON = REPOSITORY / ".venv-localcloud" / "bin" / "python"
GLUE_GIVES = [
    "--JOB_NAME",
    "job",
    "--JOB_ID",
    "j_1",
    "--TempDir",
    "s3://bucket/temp",
    "--job-bookmark-option",
    "job-bookmark-disable",
]
# A clock far from UTC, and nothing that listens beyond this machine.
ENVIRONMENT = {"TZ": "America/New_York", "SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": str(PYTHON)}
DEFAULTS = "spark.master local[2]\nspark.ui.enabled false\nspark.driver.memory 512m\nspark.sql.shuffle.partitions 2\n"
# Several runs on one Java machine, which takes seconds to start.
RUNS = """
import importlib, json, sys
script = importlib.import_module(sys.argv[1])
for arguments in json.load(sys.stdin):
    try:
        script.main(arguments)
    except SystemExit as end:
        print(end.code, flush=True)
"""


def script(name: str, arguments: dict[str, object], folder: Path) -> subprocess.CompletedProcess[str]:
    """One run of a script, a process of its own."""
    place = _prepared(name, folder)
    return _python([str(place / f"{name}.py"), *_words(arguments)], place)


def outcomes(name: str, cases: list[dict[str, object]], folder: Path) -> list[str]:
    """What a script says at the end of each run: its facts, or its error."""
    place = _prepared(name, folder)
    done = _python(["-c", RUNS, name], place, json.dumps([_words(arguments) for arguments in cases]))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def _prepared(name: str, folder: Path) -> Path:
    assert PYTHON.exists(), "there is no .venv-localcloud: install localcloud/requirements.txt into it"
    place = folder / "glue"
    place.mkdir(exist_ok=True)
    (place / "spark-defaults.conf").write_text(DEFAULTS)
    shutil.copy(REPOSITORY / "include" / "jobs" / f"{name}.py", place)
    with zipfile.ZipFile(place / "core.zip", "w") as archive:
        for file in [REPOSITORY / "include" / "__init__.py", *(REPOSITORY / "include" / "core").glob("*.py")]:
            archive.write(file, file.relative_to(REPOSITORY))
    return place


def _python(arguments: list[str], place: Path, given: str = "") -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **ENVIRONMENT, "SPARK_CONF_DIR": str(place), "PYTHONPATH": str(place / "core.zip")}
    return subprocess.run(
        [str(PYTHON), *arguments], cwd=place, env=environment, input=given, capture_output=True, text=True, timeout=300
    )


def _words(arguments: dict[str, object]) -> list[str]:
    return [word for name, value in arguments.items() for word in (f"--{name}", str(value))] + GLUE_GIVES
