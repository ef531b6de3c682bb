"""Spark processes: started when a script needs one, kept warm for the next, killed when a script is stopped."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from localcloud.jobs import JobFailed, JobStopped

PROGRAM = Path(__file__).with_name("spark_session.py")
# What a script may see of this process's environment.
PASSED_ON = ("PATH", "HOME", "JAVA_HOME", "LANG", "LC_ALL", "TMPDIR")
COLD = "LOCALCLOUD_COLD_SPARK"  # set to 1: a fresh Spark for each script


@dataclass(frozen=True)
class Script:
    """script: a file; py_files: zips of modules; buckets: what folder stands for each; output, error: files to print to."""

    script: str
    arguments: Sequence[str]
    py_files: Sequence[str]
    buckets: Mapping[str, str]
    output: str
    error: str
    folder: str


class Spark:
    """A process that runs one script at a time."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        # Not below the state of the cloud, which a reset empties.
        self._scratch = Path(tempfile.mkdtemp(prefix="localcloud-spark-"))
        self._log = (self._scratch / "spark.log").open("w")
        own = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
        # A group of its own, with Java in it. It also ends by itself as soon as its input does, however this process ends.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(PROGRAM), str(self._scratch)],
            env={**own, **environment, "PYSPARK_PYTHON": sys.executable, "PYTHONUNBUFFERED": "1"},
            cwd=self._scratch,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._ready = False

    def run(self, script: Script, stopping: threading.Event) -> None:
        """Run a script to its end.

        Raises:
            JobFailed: with what it has died of.
            JobStopped: if it was to be stopped; the process is gone then.
        """
        try:
            if not self._ready:
                self._answer(stopping)
                self._ready = True
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(asdict(script)) + "\n")
            error = self._answer(stopping).get("error")
        except (OSError, JobFailed, JobStopped):
            self.close()
            raise
        if error:
            raise JobFailed(error)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _answer(self, stopping: threading.Event) -> dict[str, str]:
        assert self._process.stdout is not None
        while not select.select([self._process.stdout], [], [], 0.1)[0]:
            if stopping.is_set():
                raise JobStopped
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise JobFailed(f"Command failed with {how}: {self._last_words()}")
        answer: dict[str, str] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        lines = (self._scratch / "spark.log").read_text(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else "Spark said nothing"


class Sparks:
    """Whoever needs a Spark takes the warm one, or starts another if it is taken. It outlives a reset of the cloud."""

    def __init__(self) -> None:
        self._idle: list[Spark] = []
        self._lock = threading.Lock()

    def run(self, script: Script, environment: Mapping[str, str], stopping: threading.Event) -> None:
        """As `Spark.run`."""
        with self._lock:
            warm = [spark for spark in self._idle if spark.alive]
            spark = warm.pop() if warm else None
            self._idle = warm
        spark = spark or Spark(environment)
        try:
            spark.run(script, stopping)
        finally:
            self._give_back(spark)

    def _give_back(self, spark: Spark) -> None:
        with self._lock:
            if spark.alive and not self._idle and os.environ.get(COLD) != "1":
                self._idle.append(spark)
                return
        spark.close()


SPARKS = Sparks()
