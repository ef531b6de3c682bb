"""Run the pipelines as Dataflow's launcher does, but on Beam's own FnApiRunner: Prism would have to be downloaded first."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from include.config import REPOSITORY

PYTHON = REPOSITORY / ".venv-localcloud" / "bin" / "python"
# Several runs of one Python, which takes seconds to import Beam.
RUNS = """
import importlib, json, sys
script = importlib.import_module(sys.argv[1])
for arguments in json.load(sys.stdin):
    print(script.main(arguments), flush=True)
    print("---", file=sys.stderr, flush=True)
"""


def words(arguments: dict[str, object]) -> list[str]:
    return [*(f"--{name}={value}" for name, value in arguments.items()), "--runner=FnApiRunner"]


def launch(arguments: dict[str, object], *options: str) -> subprocess.CompletedProcess[str]:
    """One run by the launcher of the templates, a process of its own."""
    return _python([str(REPOSITORY / "deploy" / "gcp" / "launch.py"), *words(arguments), *options])


def outcomes(script: str, cases: list[dict[str, object]]) -> list[tuple[int, str]]:
    """The exit code and the last words of each run."""
    done = _python(["-c", RUNS, f"include.jobs.{script}"], json.dumps([words(arguments) for arguments in cases]))
    assert done.returncode == 0, done.stderr
    codes = [int(line) for line in done.stdout.splitlines() if not line.startswith("{")]
    said = [[line for line in part.splitlines() if line.startswith("ERROR: ")] for part in done.stderr.split("---\n")]
    return list(zip(codes, ["".join(lines) for lines in said[:-1]], strict=True))


def local_job(job: str, spec: dict[str, Any], folder: Path) -> None:
    """The job of a laptop, on the versions of the same environment."""
    path = folder / f"{job}.spec.json"
    path.write_text(json.dumps(spec))
    done = _python(["-m", f"include.jobs.{job}", str(path)])
    assert done.returncode == 0, done.stderr


def read(prefix: Path, key: str = "flight_id") -> pa.Table:
    """All rows that a pipeline has written, in the order of the key."""
    files = sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet"))
    assert sorted(prefix.parent.iterdir()) == files, "something else was left behind"
    return pa.concat_tables([pq.ParquetFile(path).read() for path in files]).sort_by(key)


def _python(arguments: list[str], given: str = "") -> subprocess.CompletedProcess[str]:
    assert PYTHON.exists(), "there is no .venv-localcloud: install localcloud/requirements.txt into it"
    # A clock far from UTC.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TZ": "America/New_York"}
    return subprocess.run([str(PYTHON), *arguments], env=environment, input=given, capture_output=True, text=True, timeout=300)
