"""The functions of dates and times of BigQuery that are honoured, in DuckDB's words. The session's time zone is UTC."""

from __future__ import annotations

import re

from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_calls import Call, Write, failing, simple, with_kind
from localcloud.service import NotHonoured

MICROSECONDS = {
    "MICROSECOND": 1,
    "MILLISECOND": 10**3,
    "SECOND": 10**6,
    "MINUTE": 60 * 10**6,
    "HOUR": 3600 * 10**6,
    "DAY": 86400 * 10**6,
}
MONTHS = {"MONTH": 1, "QUARTER": 3, "YEAR": 12}
# The day on which the weeks begin, some one of them.
FIRST_DAYS = {"WEEK": "1969-12-28", "WEEK(MONDAY)": "1969-12-29", "ISOWEEK": "1969-12-29"}
# Of FORMAT_DATE and its like: what strftime of both says alike.
FORMATS = "YmdHMSjFT%"


def shifted(sign: str) -> Write:
    """DATE_ADD, TIMESTAMP_SUB and so on."""

    def write(call: Call) -> str:
        value, number, part = call.args[0], call.args[1], call.part(2)
        if call.kinds[0] == "DATE" and part in ("DAY", "WEEK"):
            return f"{value} {sign} CAST({number}{' * 7' if part == 'WEEK' else ''} AS INTEGER)"
        if part in MONTHS and call.kinds[0] in ("DATE", "DATETIME"):
            months = f"to_months(CAST({number} * {MONTHS[part]} AS INTEGER))"
            return f"CAST({value} {sign} {months} AS {types.duckdb_of(call.result)})"
        if part in MICROSECONDS and call.kinds[0] in ("DATETIME", "TIMESTAMP"):
            return f"CAST({value} {sign} to_microseconds({number} * {MICROSECONDS[part]}) AS {types.duckdb_of(call.result)})"
        raise NotHonoured(f"{part} in {call.name.upper()}")

    return write


def interval(call: Call) -> str:
    number, part = call.args[0], call.part(1)
    if part in MONTHS:
        return f"to_months(CAST({number} * {MONTHS[part]} AS INTEGER))"
    if part in ("DAY", "WEEK"):
        return f"to_days(CAST({number} * {7 if part == 'WEEK' else 1} AS INTEGER))"
    if part in MICROSECONDS:
        return f"to_microseconds({number} * {MICROSECONDS[part]})"
    raise NotHonoured(f"INTERVAL ... {part}")


def difference(call: Call) -> str:
    later, earlier, part = call.args[0], call.args[1], call.part(2)
    if call.kinds[0] == "TIMESTAMP":
        if part not in MICROSECONDS:
            raise NotHonoured(f"{part} in {call.name.upper()}")
        # Whole ones between, not boundaries that are crossed.
        return f"CAST(trunc((epoch_us({later}) - epoch_us({earlier})) / {MICROSECONDS[part]}) AS BIGINT)"
    if call.kinds[0] == "DATE" and part == "DAY":
        return f"CAST({later} - {earlier} AS BIGINT)"
    if part in FIRST_DAYS:  # how often a week has begun
        first = f"DATE '{FIRST_DAYS[part]}'"
        weeks = [f"floor((CAST({moment} AS DATE) - {first}) / 7)" for moment in (later, earlier)]
        return f"CAST({weeks[0]} - {weeks[1]} AS BIGINT)"
    if part in (*MONTHS, *MICROSECONDS):
        return f"date_diff('{part.lower()}', {earlier}, {later})"
    raise NotHonoured(f"{part} in {call.name.upper()}")


def truncated(call: Call) -> str:
    value, part = call.args[0], call.part(1)
    kind = types.duckdb_of(call.result)
    if len(call.args) > 2 and call.constants[2] != "UTC":
        raise NotHonoured(f"{call.name.upper()} with a time zone")
    if part == "WEEK":
        return f"CAST(date_trunc('week', {value} + INTERVAL 1 DAY) - INTERVAL 1 DAY AS {kind})"
    if part in ("ISOWEEK", "WEEK(MONDAY)"):
        return f"CAST(date_trunc('week', {value}) AS {kind})"
    if part in (*MONTHS, *MICROSECONDS):
        return f"CAST(date_trunc('{part.lower()}', {value}) AS {kind})"
    raise NotHonoured(f"{part} in {call.name.upper()}")


def extracted(call: Call) -> str:
    value, part = call.args[0], call.part(1)
    if len(call.args) > 2 and call.constants[2] != "UTC":
        raise NotHonoured("EXTRACT with a time zone")
    if call.kinds[0] not in ("DATE", "DATETIME", "TIMESTAMP"):
        raise NotHonoured(f"EXTRACT of {call.kinds[0]}")
    if part == "DAYOFWEEK":
        return f"dayofweek({value}) + 1"  # Sunday is 1, to DuckDB 0
    if part == "WEEK":
        raise NotHonoured("EXTRACT(WEEK ...)")
    if part == "WEEK(MONDAY)":
        raise NotHonoured("EXTRACT(WEEK(MONDAY) ...)")
    if part in ("MILLISECOND", "MICROSECOND"):  # DuckDB adds the seconds
        return f"date_part('{part.lower()}', {value}) % {1000 if part == 'MILLISECOND' else 1000000}"
    names = {"DAYOFYEAR": "doy", "ISOWEEK": "week"}
    if part in ("YEAR", "QUARTER", "MONTH", "DAY", "HOUR", "MINUTE", "SECOND", "ISOYEAR", "DAYOFYEAR", "ISOWEEK"):
        return f"date_part('{names.get(part, part.lower())}', {value})"
    raise NotHonoured(f"EXTRACT({part} ...)")


def cast_function(call: Call) -> str:
    """DATE(...), DATETIME(...), TIMESTAMP(...) of one value; $extract_date and its like."""
    arguments = call.args if len(call.args) < 2 or call.constants[1] != "UTC" else call.args[:1]
    if call.name == "date" and call.kinds == ("INTEGER",) * 3:
        return f"make_date({', '.join(call.args)})"
    if len(arguments) != 1 or call.kinds[0] not in ("DATE", "DATETIME", "TIMESTAMP"):
        raise NotHonoured(f"{call.name.lstrip('$').upper()} of {', '.join(call.kinds)}")
    return f"CAST({arguments[0]} AS {types.duckdb_of(call.result)})"


def formatted(call: Call) -> str:
    form = call.constant(0)
    if len(call.args) > 2 and call.constants[2] != "UTC":
        raise NotHonoured(f"{call.name.upper()} with a time zone")
    if not isinstance(form, str) or set(re.findall(r"%(.?)", form, re.DOTALL)) - set(FORMATS):
        raise NotHonoured(f"the format {form} in {call.name.upper()}")
    plain = form.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S")
    return f"strftime(CAST({call.args[1]} AS TIMESTAMP), {types.text(plain)})"


def parsed_date(call: Call) -> str:
    form = call.constant(0)
    if form not in ("%Y%m%d", "%Y-%m-%d", "%F"):
        raise NotHonoured(f"the format {form} in PARSE_DATE")
    plain, pattern = ("%Y%m%d", r"\d{8}") if form == "%Y%m%d" else ("%Y-%m-%d", r"\d{4}-\d{2}-\d{2}")
    value = f"CAST(strptime({call.args[1]}, '{plain}') AS DATE)"
    return failing(call, f"NOT regexp_full_match({call.args[1]}, '{pattern}')", "Failed to parse input string", value)


TIMES = with_kind("TIMESTAMP")
FUNCTIONS: dict[str, Write] = {
    "$interval": interval,
    "date_add": shifted("+"),
    "date_sub": shifted("-"),
    "datetime_add": shifted("+"),
    "datetime_sub": shifted("-"),
    "timestamp_add": shifted("+"),
    "timestamp_sub": shifted("-"),
    "date_diff": difference,
    "datetime_diff": difference,
    "timestamp_diff": difference,
    "date_trunc": truncated,
    "datetime_trunc": truncated,
    "timestamp_trunc": truncated,
    "$extract": extracted,
    "$extract_date": cast_function,
    "date": cast_function,
    "datetime": cast_function,
    "timestamp": cast_function,
    "format_date": formatted,
    "format_datetime": formatted,
    "format_timestamp": formatted,
    "parse_date": parsed_date,
    "current_date": simple("current_date"),
    "current_timestamp": simple("now()"),
    "unix_seconds": TIMES("CAST(floor(epoch_us({0}) / 1000000) AS BIGINT)"),
    "unix_millis": TIMES("CAST(floor(epoch_us({0}) / 1000) AS BIGINT)"),
    "unix_micros": TIMES("epoch_us({0})"),
    "unix_date": simple("CAST({0} - DATE '1970-01-01' AS BIGINT)"),
    "timestamp_seconds": simple("make_timestamptz({0} * 1000000)"),
    "timestamp_millis": simple("make_timestamptz({0} * 1000)"),
    "timestamp_micros": simple("make_timestamptz({0})"),
}
