"""A local cloud for tests: started, asked, disturbed and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-localcloud" / "bin" / "python"
REGION = "us-east-1"
DUMMY = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
# Whatever a machine has of real ones is out of sight, for the server and for its clients.
NO_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null", "AWS_CONFIG_FILE": "/dev/null"}


class LocalCloud:
    """A server of its own, which ends with this process.

    Args:
        images: what stands for each container image: {uri: {directory, path, entrypoint, environment}}.
        options: of `python -m localcloud serve`, such as job_seconds=0.2.
    """

    arguments: tuple[str, ...] = ("--region", REGION)  # of the server, besides

    def __init__(self, folder: Path, images: Mapping[str, Mapping[str, Any]] | None = None, **options: float) -> None:
        self.folder = folder
        self.url = ""
        self._images = dict(images or {})
        self._options = {"start_seconds": 0.1, "job_seconds": 0.2, **options}
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Raises RuntimeError with what the server said if it does not get ready."""
        self.folder.mkdir(parents=True, exist_ok=True)
        images = self.folder / "images.json"
        images.write_text(json.dumps(self._images))
        options = [part for name, value in self._options.items() for part in (f"--{name.replace('_', '-')}", str(value))]
        with (self.folder / "server.err").open("w") as errors:
            self.process = subprocess.Popen(
                [
                    *(str(PYTHON), "-m", "localcloud", "serve", "--port", "0", "--while-stdin", *self.arguments),
                    *("--state", str(self.folder / "state"), "--images", str(images), *options),
                ],
                cwd=ROOT,
                env=self.server_environment(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert self.process.stdout is not None
        late = threading.Timer(60, self.process.kill)
        late.start()
        first = self.process.stdout.readline()
        late.cancel()
        if not first.startswith("ready "):
            raise RuntimeError(f"the local cloud did not start: {first}{self.errors()[-2000:]}")
        self.url = first.split()[1]
        return self

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    def errors(self) -> str:
        """What the server wrote to its standard error."""
        return (self.folder / "server.err").read_text()

    def server_environment(self) -> dict[str, str]:
        """The environment of the server: this process's, without what could be real credentials."""
        return {**{name: value for name, value in os.environ.items() if not name.startswith("AWS_")}, **NO_FILES}

    def environment(self) -> dict[str, str]:
        """What a client needs to find this cloud, and nothing else."""
        return {
            **DUMMY,
            **NO_FILES,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_DEFAULT_REGION": REGION,
            # Of services that have hosts for some of their calls, such as api.airflow.us-east-1.amazonaws.com.
            "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
            "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        }

    def client(self, service: str) -> Any:
        """A boto3 client that tries each call once."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=DUMMY["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=DUMMY["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )
        # Parameters are left to the server: it is the one that is tried.
        config = Config(retries={"total_max_attempts": 1}, parameter_validation=False, inject_host_prefix=False)
        return session.client(service, endpoint_url=self.url, config=config)

    def calls(self, service: str | None = None, **wanted: Any) -> list[dict[str, Any]]:
        """Every call so far, in order; only those that are as wanted, such as mutating=True."""
        wanted |= {"service": service} if service else {}
        calls: list[dict[str, Any]] = self.control("GET", "calls")["calls"]
        return [call for call in calls if all(call[name] == value for name, value in wanted.items())]

    def forget_calls(self) -> None:
        self.control("DELETE", "calls")

    def jobs(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The ledger of jobs, in the order in which they were asked for."""
        return [job for job in self.control("GET", "jobs")["jobs"] if kind in (None, job["kind"])]

    def fault(self, kind: str, service: str = "", operation: str = "", **more: Any) -> None:
        """Ask for a fault: match, times, seconds, status, reason, pid, when, each_boundary are more of it."""
        self.control("POST", "faults", {"kind": kind, "service": service, "operation": operation, **more})

    def faults(self) -> list[dict[str, Any]]:
        faults: list[dict[str, Any]] = self.control("GET", "faults")["faults"]
        return faults

    def forget_faults(self) -> None:
        self.control("DELETE", "faults")

    def move_kills(self, pid: int) -> None:
        """Who is to be killed was started anew, as this process."""
        self.control("PUT", "faults/pid", {"pid": pid})

    def boundaries(self) -> list[dict[str, str]]:
        """The boundaries that were met since kills at each of them were asked for."""
        boundaries: list[dict[str, str]] = self.control("GET", "boundaries")["boundaries"]
        return boundaries

    def reset(self) -> None:
        """As if just started: no buckets, no jobs, no calls, no faults."""
        self.control("POST", "reset", {})

    def control(self, method: str, what: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/_localcloud/{what}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


def trial_image() -> dict[str, Any]:
    """What stands for a container image in the tests: a script below tests/localcloud/images."""
    script = ROOT / "tests" / "localcloud" / "images" / "container.py"
    return {"directory": str(script.parent), "path": str(Path(sys.executable).parent), "entrypoint": ["python", str(script)]}


class Asked(Protocol):
    """A cloud, or a place on one."""

    def calls(self) -> list[dict[str, Any]]: ...


@contextmanager
def recording(of: Asked, calls: list[dict[str, Any]]) -> Iterator[None]:
    """Adds what is asked in the block."""
    begin = len(of.calls())
    yield
    calls += of.calls()[begin:]
