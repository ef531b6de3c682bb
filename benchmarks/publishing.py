"""Do readers ever see half a partition? `python -m benchmarks.publishing [--publishes 200]`

A writer publishes one partition again and again, each time with other rows, through the product's own publish. It is
killed (SIGKILL) at random moments and started again with the same staged files, as a retried task would be. All the
while a reader reads what is live. A read is bad if the file is missing or unreadable, if rows are missing, if rows of
two publications are mixed, or if it shows an older publication than the read before.

Prints a table and, last, one line of JSON: publishes, kills, reads, bad_reads, records.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from include import publications
from include.config import ModelConfig, load_model
from include.platforms import lake

PARTITION = date(2013, 4, 1)
ROWS = 5000
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Outcome:
    """`records`: publications that the ledger knows; it must be one per publish."""

    publishes: int
    kills: int
    reads: int
    bad_reads: int
    records: int


def run(publishes: int, folder: Path, seed: int = 1) -> Outcome:
    """Publish so many times into a lake under `folder`, killing and reading all the while."""
    os.environ["AILERON_LAKE"] = str(folder / "lake")
    model = load_model("flight_delays")
    moments = random.Random(seed)
    _stage(folder, 0)
    _publish(model, folder, 0)
    started = time.monotonic()
    _publish_in_child(model, folder, 0)
    usual = time.monotonic() - started

    stop, counts = FORK.Event(), FORK.Queue()
    reader = FORK.Process(target=_read_until, args=(stop, counts), daemon=True)
    reader.start()
    kills = 0
    for number in range(1, publishes + 1):
        _stage(folder, number)
        # About every second attempt is killed, at any moment of its life.
        while not _publish_in_child(model, folder, number, kill_after=moments.uniform(0, 2 * usual)):
            kills += 1
    stop.set()
    reads, bad = counts.get(timeout=60)
    reader.join()
    return Outcome(publishes, kills, reads, bad, len(publications.history(model.name, PARTITION)) - 1)


def _publish_in_child(model: ModelConfig, folder: Path, number: int, kill_after: float = 60.0) -> bool:
    """False if it was killed first."""
    child = FORK.Process(target=_publish, args=(model, folder, number))
    child.start()
    child.join(kill_after)
    if child.is_alive():
        os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
    if child.exitcode == -signal.SIGKILL:
        return False
    if child.exitcode != 0:
        raise RuntimeError(f"the writer ended with exit code {child.exitcode}")
    return True


def _publish(model: ModelConfig, folder: Path, number: int) -> None:
    facts: dict[str, Any] = {"rows_in": ROWS, "rows_scored": ROWS, "rows_quarantined": 0, "source": f"{number}"}
    lake.publish(model, PARTITION, folder / f"{number}.parquet", folder / "quarantine.parquet", facts)


def _stage(folder: Path, number: int) -> None:
    pq.write_table(pa.table({"row": range(ROWS), "number": [number] * ROWS}), folder / f"{number}.parquet")
    pq.write_table(pa.table({"row": pa.array([], pa.int64())}), folder / "quarantine.parquet")


def _read_until(stop: Event, counts: Any) -> None:
    file = lake.partition_folder("predictions", "flight_delays", PARTITION) / lake.DATA
    reads = bad = newest = 0
    while not stop.is_set():
        reads += 1
        try:
            rows = pq.ParquetFile(file).read()
            numbers = rows["number"].unique().to_pylist()
            whole = rows["row"].to_pylist() == list(range(ROWS))
        except (OSError, pa.ArrowException):
            bad += 1
            continue
        if not whole or len(numbers) != 1 or numbers[0] < newest:
            bad += 1
        newest = max(newest, *numbers)
    counts.put((reads, bad))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--publishes", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="aileron-publishing-") as folder:
        outcome = run(chosen.publishes, Path(folder), chosen.seed)
    for name, value in asdict(outcome).items():
        print(f"{name:<12}{value:>10,}")
    print(json.dumps(asdict(outcome)))
    return 1 if outcome.bad_reads or outcome.records != outcome.publishes else 0


if __name__ == "__main__":
    sys.exit(main())
