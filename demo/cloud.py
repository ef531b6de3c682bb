"""What the local clouds of `make up` have alike: started beside Airflow, asked what they were asked, and landed in."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import threading
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from demo import simulator
from demo.repository import REPOSITORY, StackFailed

VENV = REPOSITORY / ".venv-localcloud"
PYTHON = VENV / "bin" / "python"
STARTS_WITHIN = 60.0  # seconds


@dataclass(frozen=True)
class LocalCloud(ABC):
    """A running one."""

    url: str

    stands_for: ClassVar[str]
    lands_on: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]  # of its server
    # What stands for each container image: {uri: {directory, path, entrypoint, environment}}.
    images: ClassVar[Mapping[str, Mapping[str, Any]]]

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """What Airflow needs to work on it."""

    @abstractmethod
    def furnish(self) -> None:
        """Make what the DAGs expect to be there."""

    @abstractmethod
    def take(self, source: Path) -> None:
        """Let what has landed in the folder `source` of a lake land here too, and tell who waits for it."""

    def land(self, first: date, last: date) -> dict[str, int]:
        """Flights and weather of these days land. Rows by table."""
        return self._landed(lambda lake: simulator.land(lake, first, last))

    def land_outcomes(self, first: date, last: date) -> dict[str, int]:
        """As `land`, for how the flights went."""
        return self._landed(lambda lake: simulator.land_outcomes(lake, first, last))

    def _landed(self, simulate: Callable[[Path], dict[str, int]]) -> dict[str, int]:
        with tempfile.TemporaryDirectory(prefix="landing-") as folder:
            rows = simulate(Path(folder))
            self.take(Path(folder) / "source")
        return rows

    def asked(self, what: str) -> Any:
        """Its own list of `calls`, of `jobs`, or what else it has below /_localcloud/."""
        return json.loads(self._answer(f"/_localcloud/{what}"))[what]

    def forget_calls(self) -> None:
        self._answer("/_localcloud/calls", method="DELETE")

    def _answer(self, path: str, method: str = "GET", **headers: str) -> bytes:
        request = urllib.request.Request(self.url + path, headers=headers, method=method)
        # No proxy of this shell's: the address is this machine's own.
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            content: bytes = answer.read()
        return content


Cloud = TypeVar("Cloud", bound=LocalCloud)


@contextmanager
def running_cloud(
    kind: type[Cloud], folder: Path, say: Callable[[str], None] = print, **options: float | str
) -> Generator[Cloud]:
    """Starts a local cloud that ends with this block, or with this process, however it ends. It begins empty, but for what
    `furnish` makes.

    Args:
        kind: AwsCloud or GoogleCloud.
        folder: for what it keeps; what is in it is gone.
        options: of `python -m localcloud serve`, such as job_seconds=0.2.

    Raises:
        StackFailed: if it does not start: its own reason, which names real credentials that are in sight.
    """
    if not PYTHON.is_file():
        raise StackFailed(f"{os.path.relpath(PYTHON)} is not there: run make install-localcloud")
    folder.mkdir(parents=True, exist_ok=True)
    images, errors = folder / "images.json", folder / "localcloud.log"
    images.write_text(json.dumps(kind.images))
    chosen = [part for name, value in options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    with errors.open("w") as log:
        server = subprocess.Popen(
            [
                *(str(PYTHON), "-m", "localcloud", "serve", "--port", os.environ.get("AILERON_CLOUD_PORT") or "0"),
                *("--state", str(folder / "state"), "--images", str(images), "--while-stdin", *kind.arguments, *chosen),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # Ctrl-C is for us: Airflow ends first, and may still stop its jobs
        )
    try:
        late = threading.Timer(STARTS_WITHIN, server.kill)
        late.start()
        first = server.stdout.readline() if server.stdout else ""
        late.cancel()
        if not first.startswith("ready "):
            raise StackFailed(f"the local cloud did not start: {errors.read_text().strip()[-2000:] or 'it said nothing in time'}")
        cloud = kind(first.split()[1])
        cloud.furnish()
        say(f"The local cloud is up: {cloud.url}")
        yield cloud
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def landing_command(kind: type[LocalCloud], program: str, about: str | None) -> None:
    """`land|outcomes FIRST [LAST] --url URL`: more days for a cloud that runs."""
    parser = argparse.ArgumentParser(prog=program, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["land", "outcomes"])
    parser.add_argument("first", type=date.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument("last", type=date.fromisoformat, nargs="?", help="last day, itself included (default: the first)")
    parser.add_argument("--url", required=True, help="of the local cloud: make up says it")
    asked = parser.parse_args()
    cloud = kind(asked.url)
    landing = {"land": cloud.land, "outcomes": cloud.land_outcomes}[asked.what]
    for table, rows in landing(asked.first, asked.last or asked.first).items():
        print(f"{table:15} {rows:>9,} rows")
