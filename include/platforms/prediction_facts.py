"""What prediction is about, on every platform whose warehouse counts for it: what is counted, and what the counts say."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import pairwise
from typing import Any

from include.config import ModelConfig

log = logging.getLogger(__name__)

LISTED_REASONS = 20


def counts(source: str, features: str, quarantine: str, partition: date) -> str:
    """A statement, of any dialect: rows that came in and what became of them, as columns fact, reason and n.

    Args:
        source, features, quarantine: the tables, as the dialect writes them.
    """
    return (
        f"SELECT 'rows_in' AS fact, '' AS reason, COUNT(*) AS n FROM {source} WHERE partition_date = DATE '{partition}' "
        f"UNION ALL SELECT 'rows', '', COUNT(*) FROM {features} "
        f"UNION ALL SELECT 'rows_quarantined', '', COUNT(*) FROM {quarantine} "
        f"UNION ALL SELECT 'reason', reason, n FROM "
        f"(SELECT reason, COUNT(*) AS n FROM {quarantine} GROUP BY reason ORDER BY 2 DESC, 1 LIMIT {LISTED_REASONS}) AS told"
    )


def counted(rows: Sequence[Mapping[str, Any]], source: str) -> dict[str, Any]:
    """The answer to `counts`, as `Platform.build_features` tells it; `source`: the fingerprint of the partition."""
    facts = {str(row["fact"]): int(row["n"] or 0) for row in rows if row["fact"] != "reason"}
    reasons = {str(row["reason"]): int(row["n"] or 0) for row in rows if row["fact"] == "reason"}
    log.info("%(rows_in)d rows in, %(rows)d with features, %(rows_quarantined)d quarantined", facts)
    return {**facts, "reasons": reasons, "source": source}


def summary(model: ModelConfig, row: Mapping[str, Any], edges: Sequence[float], seconds: float) -> dict[str, Any]:
    """What the audit wants to know of the scores; see `core.scoring.Summary`.

    Args:
        row: rows, mean, lowest, highest, `edge_<i>` (how many scores are at or below an edge of the reference) and
            `unseen_<feature>`, as numbers or as text.
    """
    rows = int(row["rows"] or 0)
    below = [0, *(int(row[f"edge_{number}"] or 0) for number in range(len(edges))), rows]
    told = {name: row[column] for name, column in (("mean", "mean"), ("min", "lowest"), ("max", "highest"))}
    return {
        "rows": rows,
        "unseen": {name: int(row[f"unseen_{name}"] or 0) for name in model.features.categorical},
        "histogram": [after - before for before, after in pairwise(below)],
        **{name: float(value) if value is not None else None for name, value in told.items()},
        "seconds": seconds,
    }
