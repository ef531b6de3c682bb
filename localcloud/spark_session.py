"""One Spark that runs scripts, one after the other, each as if it were alone.

A program of its own, started by `localcloud.spark`: a line of JSON on standard input asks for a script, a line on standard
output answers how it ended. It ends when its input does. It knows nothing of the rest of the local cloud.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import shutil
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession
from pyspark.sql.context import SQLContext

VIEWS = "org.apache.hadoop.fs.viewfs.ViewFileSystemOverloadScheme"
PLAIN_FILES = "org.apache.hadoop.fs.RawLocalFileSystem"  # one that leaves no .crc files
CONF = {
    "spark.master": "local[2]",
    "spark.app.name": "glue",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.driver.memory": "1g",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.sql.shuffle.partitions": "2",
    "spark.sql.session.timeZone": "UTC",
    "spark.files.overwrite": "true",
    # s3://bucket/key is a file below a folder that stands for the bucket, another one for each script: nothing is kept of it.
    "spark.hadoop.fs.s3.impl": VIEWS,
    "spark.hadoop.fs.s3.impl.disable.cache": "true",
    "spark.hadoop.fs.viewfs.overload.scheme.target.file.impl": PLAIN_FILES,
    "spark.hadoop.fs.file.impl": PLAIN_FILES,
}


def main(scratch: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what Java prints is no answer
    asked: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(asked, scratch), daemon=True).start()
    first = _start(scratch)
    print(json.dumps({"ready": True}), file=answers)
    while True:
        script = json.loads(asked.get())
        answer = {"error": _run(first, script)}
        try:
            print(json.dumps(answer), file=answers)
        except BrokenPipeError:
            return


def _listen(asked: queue.SimpleQueue[str], scratch: Path) -> None:
    for line in sys.stdin:
        asked.put(line)
    # Whoever asks is gone. Java goes with this process.
    shutil.rmtree(scratch, ignore_errors=True)
    os._exit(0)


def _start(scratch: Path) -> SparkSession:
    builder = SparkSession.builder
    own = {
        "spark.local.dir": str(scratch / "local"),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.driver.extraJavaOptions": f"-Djava.io.tmpdir={scratch} -Dderby.system.home={scratch}",
    }
    for name, value in {**CONF, **own}.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("ERROR")
    return session


def _run(first: SparkSession, script: Mapping[str, Any]) -> str | None:
    """Run a script to its end; what it has died of, if it has."""
    path = Path(script["script"])
    with _output(script["output"], script["error"]), _place(script), _spark(first, script):
        main_module = ModuleType("__main__")
        main_module.__file__ = str(path)
        sys.modules["__main__"] = main_module
        try:
            exec(compile(path.read_text(), str(path), "exec"), main_module.__dict__)  # ruff: ignore[exec-builtin]
        except SystemExit as error:
            return None if error.code in (None, 0) else f"SystemExit: {error.code}"
        except BaseException as error:
            trace = error.__traceback__.tb_next if error.__traceback__ else None  # without this file
            traceback.print_exception(type(error), error, trace)
            return f"{type(error).__name__}: {error}"
    return None


@contextmanager
def _output(output: str, errors: str) -> Iterator[None]:
    """What the script prints goes to files; what Java prints does not."""
    with open(output, "w", buffering=1) as out, open(errors, "w", buffering=1) as err:  # ruff: ignore[builtin-open]
        kept = os.dup(1), os.dup(2)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            with redirect_stdout(out), redirect_stderr(err):
                yield
        finally:
            for number, own in enumerate(kept, 1):
                os.dup2(own, number)
                os.close(own)


@contextmanager
def _place(script: Mapping[str, Any]) -> Iterator[None]:
    """Arguments, folder, path and modules of the script; all as it was before when it has ended."""
    argv, path, environment, folder, modules = sys.argv, [*sys.path], dict(os.environ), Path.cwd(), dict(sys.modules)
    sys.argv = [script["script"], *script["arguments"]]
    sys.path[:0] = script["py_files"]
    os.chdir(script["folder"])
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.argv, sys.path[:] = argv, path
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        ours = (*script["py_files"], script["folder"])
        for name, module in [*sys.modules.items()]:
            # A module of an installed package stays: many cannot be imported twice.
            if name not in modules and str(getattr(module, "__file__", None) or "").startswith(ours):
                del sys.modules[name]
        sys.modules["__main__"] = modules["__main__"]


@contextmanager
def _spark(first: SparkSession, script: Mapping[str, Any]) -> Iterator[None]:
    """A session of the script's own, and workers that know its modules. The Spark below survives a `stop()`."""
    context = first.sparkContext
    hadoop = context._jsc.hadoopConfiguration()
    for bucket, folder in script["buckets"].items():
        hadoop.set(f"fs.viewfs.mounttable.{bucket}.linkFallback", Path(folder).as_uri())
    environment, includes = dict(context.environment), [*context._python_includes]
    context.environment["PYTHONPATH"] = os.pathsep.join(script["py_files"])
    stops = SparkSession.stop, SparkContext.stop
    SparkSession.stop, SparkContext.stop = _forget, _forget
    _forget(first)
    SparkSession(context, first._jsparkSession.newSession())  # and so it is the one that getOrCreate() finds
    try:
        yield
    finally:
        SparkSession.stop, SparkContext.stop = stops
        first.catalog.clearCache()
        context.environment.clear()
        context.environment.update(environment)
        context._python_includes[:] = includes
        for bucket in script["buckets"]:
            hadoop.unset(f"fs.viewfs.mounttable.{bucket}.linkFallback")


def _forget(_: Any) -> None:
    """What a stop leaves of a session, but for Spark itself."""
    SparkSession._instantiatedSession = None
    SparkSession._activeSession = None
    SQLContext._instantiatedContext = None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
