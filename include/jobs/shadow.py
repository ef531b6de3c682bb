"""Try a version beside the champion on rows that nobody has labelled: `python -m include.jobs.shadow <spec.json>`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from include.core.audit import distance
from include.core.files import write_json
from include.jobs import score
from include.jobs.process import InvalidSpec, main

CELLS = 50


@dataclass(frozen=True)
class ShadowSpec:
    """The spec of the job. Paths are local."""

    features: str  # Parquet file: key, partition_date and the features of both models
    key: str
    artifact: str  # folder of the challenger
    manifest_sha256: str
    champion_artifact: str  # "" without a champion
    champion_manifest_sha256: str
    threshold: float  # decision = score >= threshold
    result: str  # JSON file to write: rows, rows_scored, unseen of the challenger, churn, shift
    work: str  # folder for the scores of both
    memory_limit: str = "512MB"  # of DuckDB
    threads: int = 2  # that score


def run(spec: ShadowSpec) -> None:
    """Score with both as the score job does, then say how far they are apart. Without a champion that is None."""
    if bool(spec.champion_artifact) != bool(spec.champion_manifest_sha256):
        raise InvalidSpec("champion_artifact and champion_manifest_sha256: give both, or neither")
    scored = _scored(spec, "challenger", spec.artifact, spec.manifest_sha256)
    found: dict[str, Any] = {"churn": None, "shift": None}
    if spec.champion_artifact:
        _scored(spec, "champion", spec.champion_artifact, spec.champion_manifest_sha256)
        found = _compared(spec)
    with pq.ParquetFile(spec.features, pre_buffer=False) as file:
        rows = file.metadata.num_rows
    write_json(Path(spec.result), {"rows": rows, "rows_scored": scored["rows"], "unseen": scored["unseen"], **found})
    print(f"shadow: {rows:,} rows, churn {found['churn']}, shift {found['shift']}", flush=True)


def _scored(spec: ShadowSpec, role: str, artifact: str, manifest_sha256: str) -> dict[str, Any]:
    """What the score job reports of one of the two; its scores are in the folder of work."""
    result = Path(spec.work) / f"{role}.json"
    score.run(
        score.ScoreSpec(
            features=spec.features,
            output=str(_scores(spec, role)),
            result=str(result),
            artifact=artifact,
            manifest_sha256=manifest_sha256,
            key=spec.key,
            memory_limit=spec.memory_limit,
            threads=spec.threads,
        )
    )
    document: dict[str, Any] = json.loads(result.read_bytes())
    return document


def _compared(spec: ShadowSpec) -> dict[str, Any]:
    """How differently two models decide the same rows, and how far their scores are apart (Kolmogorov-Smirnov, 0..1)."""
    challenger, champion = (_parquet(_scores(spec, role)) for role in ("challenger", "champion"))
    key = '"' + spec.key.replace('"', '""') + '"'
    cell = "least(floor((score - low) / nullif(high - low, 0) * $cells), $cells - 1)"
    # Without threads for reading and writing ahead: with them, DuckDB 2.0 may hang for ever when a disk is full.
    chosen: dict[str, str | bool | int | float | list[str]] = {"memory_limit": spec.memory_limit, "async_threads": 0}
    with duckdb.connect(":memory:", config=chosen) as connection:
        ((churn, low, high),) = connection.execute(
            f"SELECT avg(((a.score >= $threshold) <> (b.score >= $threshold))::INT), min(least(a.score, b.score)), "
            f"max(greatest(a.score, b.score)) FROM {challenger} a JOIN {champion} b USING ({key}, partition_date)",
            {"threshold": spec.threshold},
        ).fetchall()
        counts = []
        for scores in (challenger, champion):
            cells = dict(
                connection.execute(
                    f"SELECT coalesce({cell}, 0)::INT, count(*) FROM {scores}, (SELECT $low AS low, $high AS high) GROUP BY 1",
                    {"low": low, "high": high, "cells": CELLS},
                ).fetchall()
            )
            counts.append([cells.get(position, 0) for position in range(CELLS)])
    return {"churn": churn, "shift": distance(*counts)}


def _scores(spec: ShadowSpec, role: str) -> Path:
    return Path(spec.work) / f"{role}.parquet"


def _parquet(path: Path) -> str:
    """DuckDB's way to read a file. A folder partition_date=... in its path is no column."""
    quoted = str(path).replace("'", "''")
    return f"read_parquet('{quoted}', hive_partitioning = false)"


if __name__ == "__main__":
    main(ShadowSpec, run)
