"""Start a job as the platforms do: a process of its own, a spec in a file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from include.config import REPOSITORY


def start(job: str, spec: dict[str, Any], folder: Path, **options: Any) -> subprocess.Popen[str]:
    path = folder / f"{job}.spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-m", f"include.jobs.{job}", str(path)]
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.Popen(
        command, cwd=REPOSITORY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def run(job: str, spec: dict[str, Any], folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    process = start(job, spec, folder, **options)
    output, errors = process.communicate(timeout=120)
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def refusal(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The one line in which a job says what is wrong."""
    assert done.returncode == code, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
    assert len(lines) == 1
    return lines[0]
