"""What came of the demo, read from the lake with DuckDB as anybody could: predictions, ledger and what really happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

# Area under the ROC curve from ranks (Mann-Whitney); rows of equal score share the mean of their ranks.
PARTITIONS = """
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
PARTITIONS_HEADER = ("partition", "rows in", "scored", "quarantined", "model version", "were late", "AUC")

# Every verdict of a gate, and the change of champion that came of it, if any. Both models were judged on the same rows.
TRAININGS = """
    WITH verdict AS (
        SELECT json ->> 'at' AS written, json ->> 'key' AS key, json -> 'body' AS body FROM read_json_objects($verdicts)
    ),
    promotion AS (SELECT json -> 'body' AS body FROM read_json_objects($promotions))
    SELECT verdict.body ->> 'as_of', verdict.body ->> 'outcome', verdict.body ->> 'rule',
           format('{:.3f}', (verdict.body ->> '$.metrics.auc')::DOUBLE),
           format('{:.3f}', (verdict.body ->> '$.champion_metrics.auc')::DOUBLE),
           format('{:.3f}', (verdict.body ->> '$.metrics.log_loss')::DOUBLE),
           format('{:.3f}', (verdict.body ->> '$.champion_metrics.log_loss')::DOUBLE),
           coalesce(promotion.body ->> 'version', verdict.body ->> 'champion'),
           promotion.body ->> '$.approval.by', verdict.body ->> 'findings', verdict.body ->> 'page'
    FROM verdict LEFT JOIN promotion ON promotion.body ->> 'verdict' = verdict.key ORDER BY verdict.written
"""
TRAININGS_HEADER = ("as of", "verdict", "rule", "AUC", "champion's", "log loss", "champion's", "champion then", "why")

# What monitoring said of each partition, and what it started.
MONITORED = """
    WITH verdict AS (SELECT json -> 'body' AS body FROM read_json_objects($verdicts))
    SELECT body ->> 'partition', body ->> 'outcome', list_aggregate((body -> 'columns')::VARCHAR[], 'string_agg', ', '),
           list_aggregate((body -> 'actions')::VARCHAR[], 'string_agg', ', '), body ->> '$.sentences[0]', body ->> 'page'
    FROM verdict ORDER BY 1, (body ->> 'publication')::INT
"""
MONITORED_HEADER = ("partition", "verdict", "columns", "started")


def partitions(lake: Path, model: str) -> list[tuple[object, ...]]:
    """One row per published partition, with the columns of its header; the last two are None where no outcomes have landed."""
    places = {
        "ledger": str(lake / "ledger" / "publication" / model / "*.json"),
        "predictions": str(lake / "predictions" / model / "*" / "*.parquet"),
        "outcomes": str(lake / "source" / "flight_outcomes" / "*" / "*.parquet"),
    }
    with duckdb.connect() as connection:
        return connection.execute(PARTITIONS, places).fetchall()


def trainings(lake: Path, model: str) -> list[tuple[object, ...]]:
    """One row per verdict, the oldest first, with the columns of its header and the path of its report page."""
    verdicts, promotions = (lake / "ledger" / kind / model for kind in ("verdict", "promotion"))
    if not verdicts.exists():
        return []
    # Before the first promotion there is no such folder: the verdicts then stand in, none of which names a verdict.
    places = {"verdicts": f"{verdicts}/*.json", "promotions": f"{promotions if promotions.exists() else verdicts}/*.json"}
    with duckdb.connect() as connection:
        rows = connection.execute(TRAININGS, places).fetchall()
    return [(*row[:8], _in_short(row[1], row[2], json.loads(row[9]), row[8]), row[10]) for row in rows]


def monitored(lake: Path, model: str) -> list[tuple[object, ...]]:
    """One row per verdict of monitoring, by partition: its header's columns, the first sentence, and the path of its page."""
    folder = lake / "ledger" / "monitoring_verdict" / model
    if not folder.exists():
        return []
    with duckdb.connect() as connection:
        return connection.execute(MONITORED, {"verdicts": f"{folder}/*.json"}).fetchall()


def top_key(lake: Path, model: str) -> str:
    """The flight that was most expected to be late."""
    query = "SELECT flight_id FROM read_parquet($predictions) ORDER BY score DESC, flight_id LIMIT 1"
    with duckdb.connect() as connection:
        return str(
            connection.execute(query, {"predictions": str(lake / "predictions" / model / "*" / "*.parquet")}).fetchall()[0][0]
        )


def _in_short(outcome: str, rule: str, findings: list[dict[str, Any]], asked: str | None) -> str:
    """The end of the sentence that decided most: "shown to be worse". The page has all of them."""
    decided = [finding for finding in findings if finding["outcome"] == outcome]
    decided.sort(key=lambda finding: finding["check"] != rule)
    said = decided[0]["sentence"].rstrip(".").split(": ")[-1].split(", and ")[-1]
    more = f", and {len(decided) - 1} more findings" if outcome != "PROMOTE" and len(decided) > 1 else ""
    return said + more + (f"; {asked} agreed" if asked else "")


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    cells = [header, *(tuple("" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
