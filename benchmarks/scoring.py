"""How fast and how lean is the score job? `python -m benchmarks.scoring`

The product's own job (`python -m include.jobs.score`, a process of its own) reads Parquet, encodes, predicts with 500
trees of depth 6, and writes Parquet. Beside it, in turns, the ceiling: XGBoost's `inplace_predict` of the same rows,
which already lie in memory as one float32 matrix. The ratio compares rows per second: of the job from the start of
reading until the file is synced and in its place; of the ceiling for the call alone. What the job needs before
(starting Python, importing, verifying and loading the model) does not grow with the rows; it is in `rows_per_s_process`.

The peak of memory is that of the job's process, at one and at ten million rows, with a model of 50 trees for both: trees
take time, but no memory per row, and the figures with 500 trees are those of the first part.

The last line is JSON. A busy machine moves single runs of either side up and down, so `ratio_cpu` compares processor
seconds too: what the job adds to the prediction, whoever else computes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.config import REPOSITORY
from include.core.artifacts import load_artifact, predict
from include.core.features import encode

FEATURES = [f"feature_{number:02d}" for number in range(20)]
CHUNK = 100_000
TRAINING_ROWS = 30_000
RATIO_TARGET, GROWTH_TARGET, PEAK_TARGET_MB = 0.85, 1.2, 1024
# A small process between us and the job: the system counts what we hold ourselves among the memory of our child.
MEASURE = """
import resource, subprocess, sys, time
started = time.monotonic()
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(time.monotonic() - started, peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))
sys.exit(code)
"""


@dataclass(frozen=True)
class JobRun:
    """Rows per second and processor seconds of the job itself, seconds of its whole process, its peak of memory in MB."""

    rows_per_s: float
    cpu_seconds: float
    seconds: float
    peak_mb: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, default=1_000_000)
    arguments.add_argument("--trees", type=int, default=500)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True, help="also at ten times the rows")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="scoring-") as folder:
        figures = measure_speed(Path(folder), options.rows, options.trees, options.repeats, options.threads)
        if options.memory:
            figures |= measure_memory(Path(folder), options.rows, options.threads)
    print(json.dumps(figures))


def measure_speed(folder: Path, rows: int, trees: int, repeats: int, threads: int) -> dict[str, float]:
    """The job and the ceiling, in turns; medians."""
    features = write_features(folder / "features.parquet", rows)
    artifact = train_model(folder, trees, threads)
    loaded = load_artifact(Path(artifact["artifact"]), artifact["manifest_sha256"])
    loaded.booster.set_param({"nthread": threads})
    with pq.ParquetFile(features, pre_buffer=False) as file:
        matrix = np.concatenate([encode(batch, loaded.spec)[0] for batch in file.iter_batches(columns=FEATURES)])
    predict(loaded.booster, matrix[:CHUNK])

    runs, ceilings, cpu_seconds = [], [], []
    for _ in range(repeats):
        started, cpu_started = time.perf_counter(), time.process_time()
        predict(loaded.booster, matrix)
        ceilings.append(rows / (time.perf_counter() - started))
        cpu_seconds.append(time.process_time() - cpu_started)
        runs.append(score(folder, features, artifact, threads))
    job, ceiling = statistics.median(run.rows_per_s for run in runs), statistics.median(ceilings)
    process = rows / statistics.median(run.seconds for run in runs)
    cpu = statistics.median(cpu_seconds) / statistics.median(run.cpu_seconds for run in runs)
    peak = max(run.peak_mb for run in runs)
    print(f"{rows:,} rows, 20 features, {trees} trees of depth 6, {threads} threads, median of {repeats}")
    print(f"  {'in memory, inplace_predict alone':<44}{ceiling:>12,.0f} rows/s")
    print(f"  {'score job, Parquet to Parquet':<44}{job:>12,.0f} rows/s   ratio {job / ceiling:.3f} (target {RATIO_TARGET})")
    print(f"  {'score job, with the start of its process':<44}{process:>12,.0f} rows/s   ratio {process / ceiling:.3f}")
    print(f"  {'score job, by processor seconds':<44}{'':>12}          ratio {cpu:.3f}")
    print(f"  {'its peak memory':<44}{peak:>12,.0f} MB")
    singles = (f"{run.rows_per_s:,.0f} / {ceiling:,.0f}" for run, ceiling in zip(runs, ceilings, strict=True))
    print("  single runs, job / memory:", ", ".join(singles))
    return {
        "ratio": round(job / ceiling, 3),
        "ratio_cpu": round(cpu, 3),
        "rows_per_s": round(job),
        "rows_per_s_memory": round(ceiling),
        "rows_per_s_process": round(process),
        "peak_mb": round(peak),
    }


def measure_memory(folder: Path, rows: int, threads: int) -> dict[str, float]:
    """The peak of the job at `rows` and at ten times as many."""
    artifact = train_model(folder, 50, threads)
    peaks = []
    print("Peak memory of the score job, 50 trees")
    for count in (rows, 10 * rows):
        features = write_features(folder / f"features_{count}.parquet", count)
        run = score(folder, features, artifact, threads)
        features.unlink()
        peaks.append(run.peak_mb)
        print(f"  {f'{count:,} rows':<44}{run.peak_mb:>12,.0f} MB       {run.rows_per_s:,.0f} rows/s")
    growth = peaks[1] / peaks[0]
    print(f"  growth {growth:.2f} (target {GROWTH_TARGET}), peak {peaks[1]:,.0f} MB (target {PEAK_TARGET_MB})")
    return {"peak_mb_1m": round(peaks[0]), "peak_mb_10m": round(peaks[1]), "growth": round(growth, 3)}


def write_features(path: Path, rows: int, days: int = 1) -> Path:
    """A Parquet file of rows with 20 features in float32, a key, a day and a label, written piece by piece."""
    writer = None
    for chunk, start in enumerate(range(0, rows, CHUNK)):
        count = min(CHUNK, rows - start)
        random = np.random.default_rng(chunk)
        values = random.standard_normal((len(FEATURES), count), dtype=np.float32)
        logit = values[0] + values[1] * values[2] - np.abs(values[3])
        day = [date(2013, 1, 1) + timedelta(days=int(index)) for index in np.arange(start, start + count) * days // rows]
        table = pa.table({
            "row_id": [f"row-{number:010d}" for number in range(start, start + count)],
            "partition_date": pa.array(day, pa.date32()),
            **dict(zip(FEATURES, values, strict=True)),
            "label": (random.random(count) < 1 / (1 + np.exp(-logit))).astype(np.int8),
        })
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    assert writer is not None, "give at least one row"
    writer.close()
    return path


def train_model(folder: Path, trees: int, threads: int) -> dict[str, Any]:
    """A model by the product's own train job. Returns its result."""
    snapshot = write_features(folder / "snapshot.parquet", TRAINING_ROWS, days=10)
    result = folder / f"train_{trees}.json"
    run_job(
        folder,
        "train",
        {
            "snapshot": str(snapshot),
            "snapshot_id": "benchmark",
            "snapshot_sha256": hashlib.sha256(snapshot.read_bytes()).hexdigest(),
            "artifact": str(folder / f"model_{trees}"),
            "result": str(result),
            "model": "benchmark",
            "numeric": FEATURES,
            "categorical": [],
            "task": "classification",
            "parameters": {"trees": trees, "max_depth": 6},
            "holdout_days": 2,
            "threads": threads,
        },
    )
    trained: dict[str, Any] = json.loads(result.read_bytes())
    return trained


def score(folder: Path, features: Path, artifact: dict[str, Any], threads: int) -> JobRun:
    """One run of the product's score job."""
    result = folder / "score.json"
    seconds, peak = run_job(
        folder,
        "score",
        {
            "features": str(features),
            "output": str(folder / "scores.parquet"),
            "result": str(result),
            "artifact": artifact["artifact"],
            "manifest_sha256": artifact["manifest_sha256"],
            "key": "row_id",
            "threads": threads,
        },
    )
    found = json.loads(result.read_bytes())
    return JobRun(found["rows_per_second"], found["cpu_seconds"], seconds, peak)


def run_job(folder: Path, job: str, spec: dict[str, Any]) -> tuple[float, float]:
    """Run a job to its end. Returns the seconds of its process and its peak of memory in MB."""
    path = folder / "spec.json"
    path.write_text(json.dumps(spec))
    command = [sys.executable, "-c", MEASURE, sys.executable, "-m", f"include.jobs.{job}", str(path)]
    done = subprocess.run(command, cwd=REPOSITORY, check=True, stdout=subprocess.PIPE, text=True)
    seconds, peak = done.stdout.split()
    return float(seconds), float(peak)


if __name__ == "__main__":
    main()
