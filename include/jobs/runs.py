"""What the containers of all clouds share: a job is run in a process of its own, on files where the container has them.

Also of a job that is killed for its memory, somebody is left to say so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from include.core.errors import Refused
from include.jobs.process import PARENT_PIPE, InvalidSpec

ARCHIVE = "model.tar.gz"
MANIFEST = "manifest.json"  # that of core.artifacts, which would import XGBoost
PROCESSED = ("tune", "inspect", "evaluate", "shadow")


class JobEnded(Exception):
    """A job ended without a reason that its input gave; the message says how."""


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object, as a worker has written it.

    Raises:
        InvalidSpec: if there is none.
    """
    try:
        document = json.loads(path.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidSpec(f"{path}: is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise InvalidSpec(f"{path}: must be a JSON object, not {type(document).__name__}")
    return document


def processed(job: str, spec: dict[str, Any], place: Path) -> None:
    """Run one of the jobs that look at rows and models, with all of this machine, and room for what only it needs."""
    if job == "tune":
        spec = {"threads": cores(), **spec}
    if job == "shadow":
        spec = {"work": str(place / "shadow"), **spec}
    run(job, spec, place)


def trained(spec: dict[str, Any], snapshot: Path, place: Path, measured_on: str = "holdout") -> tuple[Path, dict[str, Any]]:
    """Train, and say in the log how good the model is.

    Returns:
        The folder of the artifact below `place`, and the result of the train job.
    """
    given = {"snapshot": str(snapshot), "artifact": str(place / "model"), "result": str(place / "result.json")}
    run("train", {"threads": cores(), **spec, **given}, place)
    result: dict[str, Any] = json.loads((place / "result.json").read_bytes())
    # Where the artifact lies is for the cloud to say, not for a folder that is gone with the container.
    del result["artifact"]
    for name, value in result["metrics"].items():
        if value is not None:
            print(f"{measured_on} {name}={value}", flush=True)
    return place / "model", result


def with_paths(value: Any, path_of: Callable[[str], Path | None], place: Path) -> Any:
    """A value of a spec with the paths in it as they are here; a packed model unpacked, one file in place of its folder."""
    if isinstance(value, list):
        return [with_paths(item, path_of, place) for item in value]
    path = path_of(value) if isinstance(value, str) else None
    if path is None:
        return value
    if (path / ARCHIVE).is_file():
        from include.core.artifacts import unpack

        return str(unpack(path / ARCHIVE, Path(tempfile.mkdtemp(prefix="model-", dir=place))))
    if path.is_dir() and not (path / MANIFEST).exists():
        return str(one_parquet(path) or path)
    return str(path)


def one_parquet(folder: Path) -> Path | None:
    """The Parquet file of a folder; who wrote it may have left marks beside it.

    Raises:
        InvalidSpec: if there are several.
    """
    found = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file() and not path.name.startswith((".", "_"))]
    if len(found) > 1:
        raise InvalidSpec(f"{folder}: holds {len(found)} Parquet files, not one: {', '.join(path.name for path in found[:5])}")
    return found[0] if found else None


def run(job: str, spec: dict[str, Any], place: Path) -> None:
    """Run a job. What it says goes where this process's words go.

    Raises:
        Refused: with the job's own words, if its input is wrong.
        JobEnded: if it ended in any other way.
    """
    file = place / f"{job}.json"
    file.write_text(json.dumps(spec, indent=1))
    # XGBoost's threads would wait for each other in loops.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, PARENT_PIPE: "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", f"include.jobs.{job}", str(file)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    ) as child:
        assert child.stderr is not None
        error = ""
        for line in child.stderr:
            if line.startswith("ERROR: "):
                error = line.removeprefix("ERROR: ").strip()
            else:
                sys.stderr.write(line)
        code = child.wait()
    if code == 1 and error:
        raise Refused(error)
    if code != 0:
        how = f"was killed by signal {-code}{', for its memory perhaps' * (code == -9)}" if code < 0 else f"ended with {code}"
        raise JobEnded(error or f"the {job} job {how}; what it said is in the log")


def cores() -> int:
    return os.cpu_count() or 1


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")
