"""What came of the demo, read from the lake with DuckDB as anybody could: predictions, ledger and what really happened."""

from __future__ import annotations

from pathlib import Path

import duckdb

# Area under the ROC curve from ranks (Mann-Whitney); rows of equal score share the mean of their ranks.
QUERY = """
    WITH publication AS (
        SELECT CAST(body.partition AS DATE) AS partition_date, body.rows_in, body.rows_scored, body.rows_quarantined,
               body.model_version
        FROM read_json($ledger) QUALIFY row_number() OVER (PARTITION BY body.partition ORDER BY body.version DESC) = 1
    ),
    prediction AS (FROM read_parquet($predictions, hive_partitioning = true, hive_types = {'partition_date': DATE})),
    outcome AS (FROM read_parquet($outcomes, hive_partitioning = true, hive_types = {'partition_date': DATE})),
    judged AS (
        SELECT partition_date, score, coalesce(arrival_delay > 15, true) AS late
        FROM prediction JOIN outcome USING (flight_id, partition_date)
    ),
    ranked AS (
        SELECT partition_date, late, rank() OVER (PARTITION BY partition_date ORDER BY score)
               + (count(*) OVER (PARTITION BY partition_date, score) - 1) / 2.0 AS place
        FROM judged
    ),
    quality AS (
        SELECT partition_date, avg(late::INT) AS late_share,
               (sum(place) FILTER (late) - count(*) FILTER (late) * (count(*) FILTER (late) + 1) / 2.0)
               / (count(*) FILTER (late) * count(*) FILTER (NOT late)) AS auc
        FROM ranked GROUP BY partition_date
    )
    SELECT strftime(partition_date, '%Y-%m-%d'), rows_in, rows_scored, rows_quarantined, model_version,
           format('{:.1f} %', 100 * late_share), format('{:.3f}', auc)
    FROM publication LEFT JOIN quality USING (partition_date) ORDER BY partition_date
"""
HEADER = ("partition", "rows in", "scored", "quarantined", "model version", "were late", "AUC")


def results(lake: Path, model: str) -> list[tuple[object, ...]]:
    """One row per published partition, with the columns of HEADER; the last two are None where no outcomes have landed."""
    places = {
        "ledger": str(lake / "ledger" / "publication" / model / "*.json"),
        "predictions": str(lake / "predictions" / model / "*" / "*.parquet"),
        "outcomes": str(lake / "source" / "flight_outcomes" / "*" / "*.parquet"),
    }
    with duckdb.connect() as connection:
        return connection.execute(QUERY, places).fetchall()


def table(rows: list[tuple[object, ...]]) -> str:
    cells = [HEADER, *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADER))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in cells)
