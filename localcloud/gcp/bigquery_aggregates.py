"""The aggregates and window functions of BigQuery that are honoured, in DuckDB's words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_calls import Call
from localcloud.service import NotHonoured


@dataclass(frozen=True)
class Aggregate:
    call: Call
    distinct: bool = False
    ignore_nulls: bool = False
    order: str = ""  # ORDER BY ... within the call
    limit: int | None = None
    over: str = ""  # OVER (...)


def written(asked: Aggregate) -> str:
    """Raises NotHonoured as `bigquery_functions.written`."""
    write = AGGREGATES.get(asked.call.name)
    if write is None:
        raise NotHonoured(f"the function {asked.call.name.lstrip('$').upper()}")
    if (asked.ignore_nulls or asked.order or asked.limit is not None) and asked.call.name not in ("array_agg", "string_agg"):
        raise NotHonoured(f"{asked.call.name.upper()} with IGNORE NULLS, ORDER BY or LIMIT")
    return write(asked)


def plain_aggregate(template: str) -> Callable[[Aggregate], str]:
    """`{0}` is the argument with DISTINCT before it, if asked for; `{over}` stands where OVER (...) does."""

    def write(asked: Aggregate) -> str:
        args = [f"DISTINCT {arg}" if asked.distinct and not number else arg for number, arg in enumerate(asked.call.args)]
        return template.format(*args, over=asked.over)

    return write


def summed(asked: Aggregate) -> str:
    if asked.call.kinds[0] not in ("INTEGER", "FLOAT", "NUMERIC"):
        raise NotHonoured(f"SUM of {asked.call.kinds[0]}")
    kind = types.duckdb_of(asked.call.result)  # DuckDB sums whole numbers beyond 64 bits
    return f"CAST({plain_aggregate('sum({0}) {over}')(asked)} AS {kind})"


def least(asked: Aggregate) -> str:
    """NaN is the least and the greatest of all; DuckDB agrees on the latter."""
    plain = plain_aggregate("min({0}) {over}")(asked)
    if asked.call.kinds[0] != "FLOAT":
        return plain
    return f"CASE WHEN bool_or(isnan({asked.call.args[0]})) {asked.over} THEN CAST('nan' AS DOUBLE) ELSE {plain} END"


def listed_values(asked: Aggregate) -> str:
    if asked.over:
        raise NotHonoured("ARRAY_AGG over a window")
    value = asked.call.args[0]
    kept = f" FILTER (WHERE {value} IS NOT NULL)" if asked.ignore_nulls else ""
    whole_list = f"list({'DISTINCT ' if asked.distinct else ''}{value} {asked.order}){kept}"
    return whole_list if asked.limit is None else f"{whole_list}[1:{asked.limit}]"


def joined_text(asked: Aggregate) -> str:
    if asked.over or asked.limit is not None or asked.call.kinds[0] != "STRING":
        raise NotHonoured("STRING_AGG over a window, with LIMIT, or of BYTES")
    between_them = asked.call.args[1] if len(asked.call.args) == 2 else "','"
    return f"string_agg({'DISTINCT ' if asked.distinct else ''}{asked.call.args[0]}, {between_them} {asked.order})"


def quantiles(asked: Aggregate) -> str:
    number = asked.call.constant(1)
    if asked.over or asked.distinct:
        raise NotHonoured("APPROX_QUANTILES over a window, or of DISTINCT values")
    places = ", ".join(repr(place / number) for place in range(number + 1))
    return f"quantile_disc({asked.call.args[0]}, [{places}])"


AGGREGATES: dict[str, Callable[[Aggregate], str]] = {
    "$count_star": plain_aggregate("count(*) {over}"),
    "count": plain_aggregate("count({0}) {over}"),
    "countif": plain_aggregate("count(*) FILTER (WHERE {0}) {over}"),
    "sum": summed,
    "avg": plain_aggregate("avg({0}) {over}"),
    "min": least,
    "max": plain_aggregate("max({0}) {over}"),
    "any_value": plain_aggregate("any_value({0}) {over}"),
    "logical_or": plain_aggregate("bool_or({0}) {over}"),
    "logical_and": plain_aggregate("bool_and({0}) {over}"),
    "stddev": plain_aggregate("stddev_samp({0}) {over}"),
    "stddev_samp": plain_aggregate("stddev_samp({0}) {over}"),
    "stddev_pop": plain_aggregate("stddev_pop({0}) {over}"),
    "variance": plain_aggregate("var_samp({0}) {over}"),
    "var_samp": plain_aggregate("var_samp({0}) {over}"),
    "var_pop": plain_aggregate("var_pop({0}) {over}"),
    "corr": plain_aggregate("corr({0}, {1}) {over}"),
    "covar_pop": plain_aggregate("covar_pop({0}, {1}) {over}"),
    "covar_samp": plain_aggregate("covar_samp({0}, {1}) {over}"),
    "approx_count_distinct": plain_aggregate("count(DISTINCT {0}) {over}"),
    "approx_quantiles": quantiles,
    "array_agg": listed_values,
    "string_agg": joined_text,
}


def windowed(name: str, args: Sequence[str], ignore_nulls: bool) -> str | None:
    """A function that there is only over a window, without OVER; None if it is none of these."""
    if name in ("row_number", "rank", "dense_rank", "percent_rank", "cume_dist"):
        return f"{name}()"
    if name == "ntile":
        return f"ntile({args[0]})"
    if name in ("lag", "lead", "first_value", "last_value", "nth_value"):
        return f"{name}({', '.join(args)}{' IGNORE NULLS' if ignore_nulls else ''})"
    if name == "percentile_cont":
        return f"quantile_cont({args[0]}, {args[1]})"
    if name == "percentile_disc":
        return f"quantile_disc({args[0]}, {args[1]})"
    return None
