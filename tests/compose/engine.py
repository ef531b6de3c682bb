"""A Docker engine: the one that answers, or one of this test's own, which is started by hand and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

STARTS_WITHIN = 60.0  # seconds
NETWORK = "172.28.0.0/14"  # of its containers


@dataclass(frozen=True)
class Engine:
    """How to talk to it, and whether this test has started it: then it has no images but stand-ins."""

    environment: Mapping[str, str]
    ours: bool

    def docker(self, *arguments: str, **options: object) -> str:
        """Runs docker. Its standard output."""
        run = subprocess.run(
            ["docker", *arguments], env=self.environment, stdout=subprocess.PIPE, text=True, check=True, **options  # type: ignore[call-overload]
        )  # fmt: skip
        return str(run.stdout).strip()


@contextmanager
def engine() -> Iterator[Engine]:
    """Skips, with what is missing, where there is none and none can be started."""
    if _answers(os.environ):
        yield Engine(dict(os.environ), ours=False)
        return
    missing = [name for name in ("docker", "dockerd", "debootstrap", "iptables", "ip") if not shutil.which(name)]
    if os.geteuid() != 0 or missing:
        why = f"{', '.join(missing)} not found" if missing else "only root could start one"
        pytest.skip(f"no Docker engine answers, and {why} (Debian: apt-get install docker.io debootstrap iptables iproute2)")
    # Not below /tmp, which may be memory: images are gigabytes.
    folder = Path(tempfile.mkdtemp(prefix="aileron-engine-", dir="/var/tmp"))
    bridge_was_there = _exists("docker0")
    # Its own rules for iptables would outlive it; one that lets its containers out is enough, and is taken back.
    rule = ["POSTROUTING", "--table", "nat", "--source", NETWORK, "!", "--destination", NETWORK, "--jump", "MASQUERADE"]
    log = (folder / "dockerd.log").open("w")
    daemon = subprocess.Popen(
        [
            *("dockerd", "--host", f"unix://{folder}/docker.sock", "--iptables=false", "--ip6tables=false"),
            *("--data-root", str(folder / "data"), "--exec-root", str(folder / "exec"), "--pidfile", str(folder / "dockerd.pid")),
            *("--bip", "172.28.0.1/24", "--default-address-pool", "base=172.29.0.0/16,size=24"),
        ],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )  # fmt: skip
    try:
        subprocess.run(["iptables", "--append", *rule], check=True)
        environment = {**os.environ, "DOCKER_HOST": f"unix://{folder}/docker.sock"}
        until = time.monotonic() + STARTS_WITHIN
        while not _answers(environment):
            if daemon.poll() is not None or time.monotonic() > until:
                pytest.skip(f"a Docker engine does not start here: {(folder / 'dockerd.log').read_text()[-1500:]}")
            time.sleep(0.5)
        yield Engine(environment, ours=True)
    finally:
        subprocess.run(["iptables", "--delete", *rule], check=False)
        daemon.terminate()
        try:
            daemon.wait(60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()
        log.close()
        if not bridge_was_there:
            subprocess.run(["ip", "link", "delete", "docker0"], check=False, stderr=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def _answers(environment: Mapping[str, str]) -> bool:
    try:
        run = subprocess.run(
            ["docker", "version", "--format", "{{.Server.Version}}"], env=environment, capture_output=True, timeout=30
        )
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False
    return run.returncode == 0


def _exists(link: str) -> bool:
    return Path("/sys/class/net", link).exists()
