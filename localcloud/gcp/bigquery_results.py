"""How BigQuery writes rows in JSON: every value is text, within `{"f": [{"v": ...}]}`."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from localcloud.gcp.bigquery_types import Field
from localcloud.service import NotHonoured

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def whole_timestamps(params: Mapping[str, Any]) -> bool:
    """Are timestamps asked for as microseconds? Else they are seconds with a fraction.

    Raises:
        NotHonoured: for any other way.
    """
    if params.get("timestampOutputFormat") not in (None, "TIMESTAMP_OUTPUT_FORMAT_UNSPECIFIED", "FLOAT64", "INT64"):
        raise NotHonoured(f"timestampOutputFormat={params['timestampOutputFormat']}")
    return bool(params.get("useInt64Timestamp")) or params.get("timestampOutputFormat") == "INT64"


def row(values: Sequence[Any], fields: Sequence[Field], whole: bool) -> dict[str, Any]:
    return {"f": [{"v": value(each, field, whole)} for each, field in zip(values, fields, strict=True)]}


def value(found: Any, field: Field, whole: bool) -> Any:
    """A value as DuckDB's client gives it."""
    if field["mode"] == "REPEATED":
        element = {**field, "mode": "NULLABLE"}
        return [{"v": value(each, element, whole)} for each in found or ()]
    if found is None:
        return None
    kind = field["type"]
    if kind == "RECORD":
        values = found.values() if isinstance(found, dict) else found
        return row(list(values), field["fields"], whole)
    if kind == "TIMESTAMP":
        micros = round((found - EPOCH).total_seconds() * 10**6) if isinstance(found, datetime) else int(found)
        return str(micros) if whole else _seconds(micros)
    if kind == "BOOLEAN":
        return "true" if found else "false"
    if kind == "FLOAT":
        return _number(float(found))
    if kind == "BYTES":
        return base64.b64encode(found).decode()
    if kind == "NUMERIC":
        shown = f"{Decimal(found):f}"
        return shown.rstrip("0").rstrip(".") if "." in shown else shown
    if isinstance(found, datetime):
        return found.isoformat()
    if isinstance(found, date):
        return found.isoformat()
    return str(found)


def _number(found: float) -> str:
    if math.isfinite(found):
        return repr(found)
    return "NaN" if math.isnan(found) else "Infinity" if found > 0 else "-Infinity"


def _seconds(micros: int) -> str:
    return repr(micros / 10**6)
