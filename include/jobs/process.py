"""What the jobs share: a spec comes in as JSON, one error line goes out, and no job outlives who started it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import pyarrow as pa
import pyarrow.parquet as pq

from include.core.errors import Refused
from include.core.evaluation import Task
from include.core.files import sha256_of

Spec = TypeVar("Spec")
# Set by whoever starts a job with a pipe as its standard input: the end of the pipe is then the end of the job.
PARENT_PIPE = "AILERON_PARENT_PIPE"
SECONDS_TO_CLEAN_UP = 10


class InvalidSpec(Refused):
    """The spec of a job cannot be used; the message names the file and the key."""


class ChangedSnapshot(Refused):
    """The file of a snapshot is not the one that was recorded; the message says which."""


def main(kind: type[Spec], job: Callable[[Spec], None]) -> None:
    """Run a job with the spec that the command line names.

    Exits with 0; or with "ERROR: ..." on standard error and 1 if what was given cannot be used, 2 if something else went
    wrong (a full disk, a bug), which may go better the next time.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if os.environ.get(PARENT_PIPE) == "1":
        threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        if len(sys.argv) != 2:
            raise InvalidSpec("give one argument: the path of the spec, a JSON file")
        job(read_spec(Path(sys.argv[1]), kind))
    except Refused as error:
        _end(1, str(error))
    except Exception as error:
        traceback.print_exc()
        _end(2, f"{type(error).__name__}: {error}")
    _end(0)


def read_spec(path: Path, kind: type[Spec]) -> Spec:
    """The spec in a JSON file, as the data class `kind` says: no key missing, none unknown, each of its type.

    Raises:
        InvalidSpec: naming the file, every wrong key and why.
    """
    try:
        raw = json.loads(path.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidSpec(f"{path}: is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidSpec(f"{path}: must be a JSON object, not {type(raw).__name__}")
    try:
        return from_json(raw, kind)
    except (TypeError, ValueError) as error:
        raise InvalidSpec(f"{path}: {error}") from None


def from_json(raw: dict[str, Any], kind: type[Spec]) -> Spec:
    """A data class from a JSON object.

    Raises:
        ValueError: naming every wrong key and why.
    """
    types = get_type_hints(kind)
    known = {field.name: field for field in fields(kind)}  # type: ignore[arg-type]
    faults = [f"{key}: unknown key" for key in sorted(raw.keys() - known.keys())]
    for name, field in known.items():
        if name not in raw:
            if field.default is MISSING and field.default_factory is MISSING:
                faults.append(f"{name}: missing")
        elif not _fits(raw[name], types[name]):
            faults.append(f"{name}: {raw[name]!r} must be {_shown(types[name])}")
    if faults:
        raise ValueError("; ".join(faults))
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()})


def task_named(name: str) -> Task:
    """What kind of model a spec is about.

    Raises:
        InvalidSpec: if there is no such task.
    """
    if name not in get_args(Task):
        raise InvalidSpec(f"task: {name!r} must be {' or '.join(get_args(Task))}")
    return name  # type: ignore[return-value]


def check_snapshot(path: Path, expected: str) -> None:
    """Refuse another file than the one whose SHA-256 was recorded.

    Raises:
        ChangedSnapshot: if it is another.
    """
    found = sha256_of(path)
    if found != expected:
        raise ChangedSnapshot(f"{path}: SHA-256 is {found[:12]}…, the spec says {expected[:12]}…: take it again")


def read_columns(path: Path, *names: str) -> pa.Table:
    """Columns of a Parquet file, of those named the ones it has: who uses them says best which are missing."""
    # ParquetFile, not read_table: that would take "partition_date=..." in the path for a column.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        return file.read(columns=[name for name in names if name in file.schema_arrow.names])


def every_few_seconds(say: Callable[[], str], seconds: float = 5) -> Callable[[], None]:
    """A function to call often; it prints a line of progress only now and then."""
    last = time.monotonic()

    def progress() -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            print(say(), flush=True)

    return progress


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _shown(kind: Any) -> str:
    return str(kind) if get_args(kind) else kind.__name__


def _fits(value: object, kind: Any) -> bool:
    """Is a value of JSON of this type? Knows str, int, float, bool, dict, unions of them, and tuples of any length."""
    if kind is None or kind is NoneType:
        return value is None
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if get_origin(kind) in (Union, UnionType):
        return any(_fits(value, one) for one in get_args(kind))
    if get_origin(kind) is tuple:
        return isinstance(value, list) and all(_fits(item, get_args(kind)[0]) for item in value)
    return isinstance(value, get_origin(kind) or kind)


def _end_with_parent() -> None:
    """Wait for the end of the pipe. SIGTERM first, so that temporary files are removed; then without asking."""
    try:
        while os.read(0, 1024):
            pass
    except OSError:
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SECONDS_TO_CLEAN_UP)
    os._exit(128 + signal.SIGTERM)


def _end(code: int, error: str = "") -> NoReturn:
    """End now. All files are closed, and threads of native libraries sometimes abort an interpreter that shuts down."""
    if error:
        print(f"ERROR: {' '.join(error.split())}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
