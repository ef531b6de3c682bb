"""What the pipelines of Dataflow share: Parquet files that Beam finds, a run that is counted, and last words people can read.

Beam lives in the environment of these jobs only, so it is imported where it is used.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from include.core.errors import Refused

if TYPE_CHECKING:
    import apache_beam as beam

COUNTED = "aileron"  # the namespace of the counters


class UnusableInput(Refused):
    """There is nothing to read, or no place to write; the message says which."""


def main(arguments: Sequence[str], parser: argparse.ArgumentParser, job: Callable[[argparse.Namespace, list[str]], None]) -> int:
    """Run a pipeline with its arguments; those that its parser does not know are Beam's.

    Returns:
        0; or 1, with "ERROR: ..." on standard error, if what was given cannot be used; 2 if something else went wrong.
    """
    # Who waits for a job on Dataflow finds its id in the log.
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s")
    logging.getLogger().setLevel(logging.INFO)
    given, options = parser.parse_known_args(arguments)
    try:
        job(given, options)
    except Exception as error:
        if (reason := _refusal(error)) is not None:
            return _told(1, reason)
        traceback.print_exc()
        return _told(2, f"{type(error).__name__}: {error}")
    return 0


def run(options: Sequence[str], build: Callable[[beam.Pipeline], object]) -> dict[str, int]:
    """Build a pipeline and run it to its end.

    Returns:
        What it has counted. Nothing if it was not run: the launcher of a Flex Template only describes it to Dataflow.
    """
    import apache_beam as beam
    from apache_beam.metrics import MetricsFilter
    from apache_beam.options.pipeline_options import PipelineOptions

    pipeline = beam.Pipeline(options=PipelineOptions(list(options)))
    build(pipeline)
    result = pipeline.run()
    if not getattr(result, "has_job", True):
        return {}
    result.wait_until_finish()
    found = result.metrics().query(MetricsFilter().with_namespace(COUNTED))
    return {counter.key.metric.name: counter.result for counter in found["counters"]}


def first_rows(pattern: str) -> pa.RecordBatch:
    """One row of the files that match, for a look at their columns before a worker is paid for.

    Raises:
        UnusableInput: if there is no file, or no row in any.
    """
    from apache_beam.io.filesystems import FileSystems

    files = [file.path for match in FileSystems.match([pattern]) for file in match.metadata_list]
    if not files:
        raise UnusableInput(f"{pattern}: no file matches: let the step before write it")
    for path in sorted(files):
        with FileSystems.open(path) as stream, _parquet(path), pq.ParquetFile(stream) as file:
            for batch in file.iter_batches(batch_size=1):
                if batch.num_rows:
                    return batch
    raise UnusableInput(f"{pattern}: has no rows: check the source partition")


def make_room(prefix: str) -> None:
    """Remove what a run before has written: with another number of files it would lie beside what this one writes.

    Raises:
        UnusableInput: if files would have no names.
    """
    from apache_beam.io.filesystems import FileSystems

    if prefix.endswith("/"):
        raise UnusableInput(f"{prefix}: is a folder: give the beginning of the names of files in it, such as {prefix}part")
    old = [file.path for match in FileSystems.match([f"{prefix}-*-of-*.parquet"]) for file in match.metadata_list]
    if old:
        FileSystems.delete(old)


@contextmanager
def _parquet(path: str) -> Iterator[None]:
    try:
        yield
    except pa.ArrowInvalid as error:
        raise UnusableInput(f"{path}: is no Parquet file: {error}") from None


def _refusal(error: Exception) -> str | None:
    """The reason that our code gave, wherever in a pipeline: Beam adds to it, and from another process brings only a text."""
    text = str(error)
    if not isinstance(error, Refused):
        names = "|".join(kind.__name__ for kind in _kinds(Refused))
        told = re.findall(rf"^include\.[\w.]+\.(?:{names}): (.+?)(?=\n\n| \[while running|\Z)", text, re.MULTILINE | re.DOTALL)
        if not told:
            return None
        text = told[-1]
    return re.sub(r" \[while running '[^']*'\]", "", text)


def _kinds(kind: type[Refused]) -> list[type[Refused]]:
    return [kind, *(further for one in kind.__subclasses__() for further in _kinds(one))]


def _told(code: int, error: str) -> int:
    print(f"ERROR: {' '.join(error.split())}", file=sys.stderr)
    return code
