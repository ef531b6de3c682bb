"""Start the container of Vertex AI as Vertex does: its arguments, its variables, the objects of all buckets below a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from include.config import REPOSITORY


def start(arguments: list[str], buckets: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "include.jobs.vertex", *arguments]
    variables = {**os.environ, "AILERON_GCS": str(buckets), **environment}
    return subprocess.Popen(command, cwd=REPOSITORY, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(arguments: list[str], buckets: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    process = start(arguments, buckets, **environment)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def put(buckets: Path, uri: str, document: Any) -> str:
    """Write an object; its address is for the command line."""
    path = at(buckets, uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return uri


def at(buckets: Path, uri: str) -> Path:
    return buckets / uri.removeprefix("gs://")


def objects(buckets: Path, folder: str) -> list[str]:
    """The names of all that is below a folder, temporary files too."""
    place = at(buckets, folder)
    return sorted(str(path.relative_to(place)) for path in place.rglob("*") if path.is_file())
