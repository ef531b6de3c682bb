"""How fast and how lean is the profile of a partition? `python -m benchmarks.profiling`

The product's own statement (`monitoring_sql.profile`, as the embedded platform runs it: `local_engine.connected`) counts a
day of 30 columns, 24 numbers with 9 edges and 6 texts with 20 values, at one and at ten million rows of Parquet. Beside it,
in turns, each in a process of its own, what could be written by hand for the same file: a pass of plain DuckDB in two forms
(`SUM(CASE WHEN x <= edge ...)` and `histogram(x, edges)`), and Polars' streaming engine, given an interpreter that has it
(`--polars PYTHON`). All of them count cells and missing values and find minimum and maximum. Ours alone also keeps days apart
and leaves out what is not accepted, and counts nothing wrong when a number is not finite. Evidently's drift report
(`--evidently PYTHON`) answers less for more, at one million rows only; it is shown, not compared with.

Seconds are those of the pass: from opening the file to the last count, without starting Python, imports, and, of ours, without
making the SQL (0.4 s whatever the rows, shown by itself). The peak of memory is that of the whole process. The last line is
JSON: `ratio_to_fastest` is the worst of the sizes, by wall time of the median runs, `ratio_cpu` the same by processor
seconds: on a busy machine that is the one to believe.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from include.config import REPOSITORY

NUMBERS = [f"number_{place:02d}" for place in range(24)]
TEXTS = [f"text_{place}" for place in range(6)]
EDGES = [statistics.NormalDist().inv_cdf(tenth / 10) for tenth in range(1, 10)]
VALUES = [f"value-{place:02d}" for place in range(20)]
DAY = date(2020, 1, 1)
CHUNK = 122_880  # rows of a row group, as DuckDB writes them
REPEATS = 3
RATIO_TARGET, PEAK_TARGET_MB = 1.5, 500
EVIDENTLY_ROWS, EVIDENTLY_SECONDS = 1_000_000, 300
SQL_FORMS = ("DuckDB, SUM(CASE)", "DuckDB, histogram")
OURS, POLARS, EVIDENTLY = "ours", "Polars, streaming", "Evidently"

# For interpreters that know nothing of this repository. `work` answers a question that is asked in JSON.
POLARS_CODE = """
import polars as pl

def work(asked):
    numbers, texts = asked["numbers"], asked["texts"]
    counted = [(pl.col(n) <= e).sum().alias(f"{n} {e}") for n in numbers for e in asked["edges"]]
    counted += [(pl.col(t) == v).sum().alias(f"{t} {v}") for t in texts for v in asked["values"]]
    counted += [pl.col(c).count().alias(f"{c} known") for c in numbers + texts]
    counted += [pl.col(n).min().alias(f"{n} low") for n in numbers] + [pl.col(n).max().alias(f"{n} high") for n in numbers]
    found = pl.scan_parquet(asked["file"]).select(pl.len().alias("rows"), *counted).collect(engine="streaming")
    return found["rows"][0]
"""
EVIDENTLY_CODE = """
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.presets import DataDriftPreset

def work(asked):
    columns = asked["numbers"] + asked["texts"]
    known = DataDefinition(numerical_columns=asked["numbers"], categorical_columns=asked["texts"])
    frame = pd.read_parquet(asked["file"], columns=columns)
    current, reference = (Dataset.from_pandas(half, known) for half in (frame, frame.copy()))
    Report([DataDriftPreset(method="psi")]).run(current, reference).dict()
    return len(frame)
"""
MEASURE = """
import json, resource, sys, time
asked = json.load(sys.stdin)
started, cpu = time.perf_counter(), time.process_time()
rows = work(asked)
seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)
print(json.dumps({"rows": rows, "seconds": seconds, "cpu_seconds": cpu, "peak_mb": peak}))
"""
DUCKDB_CODE = """
from include.platforms.local_engine import connected

def work(asked):
    with connected() as connection:
        found = connection.execute(asked["sql"], asked["bound"])
        names = [column[0] for column in found.description]
        [row] = found.fetchall()
    return row[names.index("profiled")]
"""


@dataclass(frozen=True)
class Run:
    """Wall and processor seconds of one pass, and the peak of memory of its process in MB."""

    seconds: float
    cpu_seconds: float
    peak_mb: float


@dataclass(frozen=True)
class Contender:
    name: str
    python: str
    code: str
    asked: dict[str, Any]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    arguments.add_argument("--polars", metavar="PYTHON", help="an interpreter that can import polars")
    arguments.add_argument("--evidently", metavar="PYTHON", help="an interpreter that can import evidently")
    options = arguments.parse_args()
    for name, given in ((POLARS, options.polars), (EVIDENTLY, options.evidently)):
        if not given:
            print(f"{name} is left out: --{name.split(',')[0].lower()} PYTHON names an interpreter that has it")
    figures: dict[str, Any] = {}
    ratios, cpu_ratios = [], []
    for rows in options.rows:
        with tempfile.TemporaryDirectory(prefix="profiling-") as folder:
            runs = measure(Path(folder), rows, options.polars, options.evidently)
        ratio, cpu_ratio = show(rows, runs)
        ratios.append(ratio)
        cpu_ratios.append(cpu_ratio)
        label = f"{rows // 1_000_000}m" if rows % 1_000_000 == 0 else str(rows)
        ours = runs[OURS]
        figures |= {
            f"seconds_{label}": round(statistics.median(run.seconds for run in ours), 3),
            f"cpu_seconds_{label}": round(statistics.median(run.cpu_seconds for run in ours), 3),
            f"peak_mb_{label}": round(max(run.peak_mb for run in ours)),
        }
    figures |= {"ratio_to_fastest": round(max(ratios), 3), "ratio_cpu": round(max(cpu_ratios), 3), "polars": bool(options.polars)}
    print(json.dumps(figures))
    return 0


def measure(folder: Path, rows: int, polars: str | None, evidently: str | None) -> dict[str, list[Run]]:
    """All contenders in turns on one file, which is read once before; Evidently once, if it is in time."""
    file = folder / "rows.parquet"
    write_rows(file, rows)
    query, rendering = our_query(folder, file)
    question = {"file": str(file), "numbers": NUMBERS, "texts": TEXTS, "edges": EDGES, "values": VALUES}
    contenders = [
        Contender(OURS, sys.executable, DUCKDB_CODE, query),
        *(Contender(form, sys.executable, DUCKDB_CODE, {"sql": plain(form, file), "bound": None}) for form in SQL_FORMS),
    ]
    if polars:
        contenders.append(Contender(POLARS, polars, POLARS_CODE, question))
    print(f"{rows:,} rows of {len(NUMBERS) + len(TEXTS)} columns; our SQL is made in {rendering:.2f} s", flush=True)
    run(contenders[0], rows)
    runs: dict[str, list[Run]] = {contender.name: [] for contender in contenders}
    for _ in range(REPEATS):
        for contender in contenders:
            runs[contender.name].append(run(contender, rows))
    if evidently and rows <= EVIDENTLY_ROWS:
        try:
            runs[EVIDENTLY] = [run(Contender(EVIDENTLY, evidently, EVIDENTLY_CODE, question), rows, EVIDENTLY_SECONDS)]
        except subprocess.TimeoutExpired:
            print(f"  {EVIDENTLY} had not ended after {EVIDENTLY_SECONDS} s")
    return runs


def show(rows: int, runs: dict[str, list[Run]]) -> tuple[float, float]:
    """A line for each; how many times the seconds, and the processor seconds, of the fastest of the others ours takes."""
    medians = {
        name: Run(
            statistics.median(one.seconds for one in found),
            statistics.median(one.cpu_seconds for one in found),
            max(one.peak_mb for one in found),
        )
        for name, found in runs.items()
    }
    print(f"  {'':<22}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}   single runs, seconds")
    for name, median in medians.items():
        singles = " ".join(f"{one.seconds:.2f}" for one in runs[name])
        print(f"  {name:<22}{median.seconds:>9.2f}{median.cpu_seconds:>9.2f}{median.peak_mb:>9.0f}   {singles}")
    ours, others = medians[OURS], [median for name, median in medians.items() if name not in (OURS, EVIDENTLY)]
    ratio = ours.seconds / min(other.seconds for other in others)
    cpu_ratio = ours.cpu_seconds / min(other.cpu_seconds for other in others)
    print(f"  ratio to the fastest {ratio:.2f} (target {RATIO_TARGET}), by processor seconds {cpu_ratio:.2f}")
    print(f"  peak {ours.peak_mb:.0f} MB (target {PEAK_TARGET_MB})", flush=True)
    return ratio, cpu_ratio


def run(contender: Contender, rows: int, seconds: float | None = None) -> Run:
    """One process.

    Raises:
        subprocess.TimeoutExpired: if it takes longer than `seconds`.
        RuntimeError: if it fails, or has counted other rows.
    """
    # Small between us and the measured process: the system counts what a parent holds among the memory of its child.
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [contender.python, "-c", contender.code + MEASURE],
        input=json.dumps(contender.asked),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
        env=environment,
        cwd=REPOSITORY,
    )
    if done.returncode:
        raise RuntimeError(f"{contender.name}: {done.stderr[-2000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    if found.pop("rows") != rows:
        raise RuntimeError(f"{contender.name} has counted other rows than {rows}")
    return Run(**found)


def our_query(folder: Path, file: Path) -> tuple[dict[str, Any], float]:
    """The statement for a model whose features are the columns of the file, and the seconds that it takes to make it."""
    from include.config import read_model
    from include.monitoring_sql import profile
    from include.platforms.local_engine import parquet

    model = folder / "models" / "profiled"
    model.mkdir(parents=True)
    columns = {"row_id": "string"} | dict.fromkeys(NUMBERS, "number") | dict.fromkeys(TEXTS, "string")
    document = {
        "name": model.name,
        "title": "Profiled",
        "description": "Columns to be counted",
        "owner": {"team": "benchmarks", "emails": ["benchmarks@example.com"]},
        "start": DAY.isoformat(),
        "source": {"table": "facts", "key": "row_id", "columns": columns},
        "labels": {"table": "outcomes", "delay_days": 1},
        "features": {"numeric": NUMBERS, "categorical": TEXTS},
    }
    (model / "model.yaml").write_text(yaml.safe_dump(document))
    bounds = "WHERE partition_date BETWEEN :first_partition AND :last_partition"
    listed = ", ".join(["row_id", "partition_date", *NUMBERS, *TEXTS])
    (model / "features.sql").write_text(f'SELECT {listed} FROM {{{{ table("facts") }}}} {bounds}')
    (model / "labels.sql").write_text(f'SELECT row_id, partition_date, label FROM {{{{ table("outcomes") }}}} {bounds}')
    os.environ["AILERON_MODELS"] = str(model.parent)
    cells: dict[str, Any] = {name: {"kind": "numeric", "edges": EDGES} for name in NUMBERS}
    cells |= {name: {"kind": "categorical", "values": VALUES} for name in TEXTS}
    started = time.perf_counter()
    query = profile(read_model(model), "duckdb", {"facts": parquet(str(file)), "outcomes": "outcomes"}, cells).query
    seconds = time.perf_counter() - started
    return {"sql": query.sql, "bound": dict.fromkeys(query.parameters, DAY.isoformat())}, seconds


def plain(form: str, file: Path) -> str:
    """What one would write for this file alone."""
    if form == SQL_FORMS[0]:
        counted = [f"SUM(CASE WHEN {name} <= {edge:.16e} THEN 1 ELSE 0 END)" for name in NUMBERS for edge in EDGES]
        counted += [f"SUM(CASE WHEN {name} = '{value}' THEN 1 ELSE 0 END)" for name in TEXTS for value in VALUES]
    else:
        edges = ", ".join(f"{edge:.16e}" for edge in EDGES)
        counted = [f"histogram({name}, [{edges}])" for name in NUMBERS] + [f"histogram({name})" for name in TEXTS]
    counted += [f"COUNT({name})" for name in (*NUMBERS, *TEXTS)] + [f"MIN({name}), MAX({name})" for name in NUMBERS]
    return f"SELECT COUNT(*) AS profiled, {', '.join(counted)} FROM read_parquet('{file}')"


def write_rows(file: Path, rows: int) -> None:
    """Normal numbers, a few of them missing, and texts of 25 values, in one partition; written piece by piece."""
    vocabulary = pa.array([f"value-{place:02d}" for place in range(25)])
    with pq.ParquetWriter(file, schema(), compression="zstd") as writer:
        for chunk, start in enumerate(range(0, rows, CHUNK)):
            count = min(CHUNK, rows - start)
            random = np.random.default_rng(chunk)
            numbers = {name: pa.array(random.standard_normal(count), mask=random.random(count) < 0.01) for name in NUMBERS}
            texts = {name: vocabulary.take(pa.array(random.integers(0, 25, count))) for name in TEXTS}
            keys = [f"row-{number:010d}" for number in range(start, start + count)]
            days = pa.array(np.full(count, np.datetime64(DAY)))
            writer.write_table(pa.table({"row_id": keys, "partition_date": days, **numbers, **texts}, schema()))


def schema() -> pa.Schema:
    kinds = dict.fromkeys(NUMBERS, pa.float64()) | dict.fromkeys(TEXTS, pa.string())
    return pa.schema({"row_id": pa.string(), "partition_date": pa.date32(), **kinds})


if __name__ == "__main__":
    sys.exit(main())
