"""CAST of BigQuery in DuckDB's words."""

from __future__ import annotations

from localcloud.service import NotHonoured


def cast(value: str, source: str, target: str, kind: str, safe: bool, known: bool = False) -> str:
    """CAST and SAFE_CAST.

    Args:
        source, target: types as schemas call them; kind: DuckDB's type for the target.
        known: the value is a literal, which the analyser has looked at.

    Raises:
        NotHonoured: if this was not tried.
    """
    call = "TRY_CAST" if safe else "CAST"
    plain = f"{call}({value} AS {kind})"
    if source == target or (known and source not in ("STRING", "FLOAT", "TIMESTAMP", "DATETIME")):
        return plain
    if source == "STRING" and target in PATTERNS:
        fits = f"regexp_full_match({value}, '{PATTERNS[target]}')"
        clean = f"trim({value})" if target in ("INTEGER", "FLOAT") else value
        wrong = "NULL" if safe else f"error('Bad {target.lower()} value: ' || {value})"
        return f"CASE WHEN {value} IS NULL THEN NULL WHEN {fits} THEN {call}({clean} AS {kind}) ELSE {wrong} END"
    if (source, target) == ("FLOAT", "STRING"):
        return f"_bigquery_float({value})"
    if (source, target) == ("FLOAT", "INTEGER"):
        return f"{call}(round({value}) AS BIGINT)"
    if source in ("TIMESTAMP", "DATETIME") and target == "STRING":
        fraction = f"epoch_us({value}) % 1000000"
        zone = "+00" if source == "TIMESTAMP" else ""
        shown = f"CAST({value} AS TIMESTAMP)"
        return (
            f"CASE WHEN {fraction} = 0 THEN strftime({shown}, '%Y-%m-%d %H:%M:%S')"
            f" WHEN {fraction} % 1000 = 0 THEN strftime({shown}, '%Y-%m-%d %H:%M:%S.%g')"
            f" ELSE strftime({shown}, '%Y-%m-%d %H:%M:%S.%f') END || '{zone}'"
        )
    if (source, target) in CASTS:
        return plain
    raise NotHonoured(f"CAST from {source} to {target}")


def bigquery_float(value: float) -> str:
    """How BigQuery writes a FLOAT64 as text: 15 digits if they tell it, else 17. A function of DuckDB's by this name."""
    if value != value:
        return "nan"
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    short = f"{value:.15g}"
    return short if float(short) == value else f"{value:.17g}"


# What may be read of text: DuckDB reads more, and would take 1.5 for a whole number and 't' for true.
PATTERNS = {
    "INTEGER": r"\s*[+-]?\d+\s*",
    "FLOAT": r"\s*[+-]?(\d+\.?\d*([eE][+-]?\d+)?|\.\d+([eE][+-]?\d+)?|[iI][nN][fF]([iI][nN][iI][tT][yY])?|[nN][aA][nN])\s*",
    "BOOLEAN": r"[tT][rR][uU][eE]|[fF][aA][lL][sS][eE]",
    "DATE": r"\d{4}-\d{1,2}-\d{1,2}",
    "DATETIME": r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{1,2}:\d{1,2}(\.\d{1,6})?)?",
    "TIMESTAMP": r"\d{4}-\d{1,2}-\d{1,2}([ T]\d{1,2}:\d{1,2}:\d{1,2}(\.\d{1,6})?)?(Z| ?UTC|[+-]\d{2}(:\d{2})?)?",
}
CASTS = {
    ("INTEGER", "FLOAT"),
    ("INTEGER", "STRING"),
    ("INTEGER", "BOOLEAN"),
    ("INTEGER", "NUMERIC"),
    ("BOOLEAN", "INTEGER"),
    ("BOOLEAN", "STRING"),
    ("NUMERIC", "FLOAT"),
    ("DATE", "STRING"),
    ("DATE", "TIMESTAMP"),
    ("DATE", "DATETIME"),
    ("DATETIME", "DATE"),
    ("DATETIME", "TIMESTAMP"),
    ("TIMESTAMP", "DATE"),
    ("TIMESTAMP", "DATETIME"),
}
