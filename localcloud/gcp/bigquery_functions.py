"""The functions of BigQuery that are honoured, in DuckDB's words: each was tried against Google's reference implementation.

What is not here is refused by name. Where DuckDB's function of the same name does something else (NULLs that are skipped,
zeros that divide, NaN that is the greatest number), it is written out.
"""

from __future__ import annotations

import re

from localcloud.gcp import bigquery_times
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_calls import Call, Write, failing, simple, with_kind
from localcloud.service import NotHonoured

INTEGER = re.compile(r"\((-?\d+)::BIGINT\)")


def written(call: Call) -> str:
    """Raises NotHonoured if the function is none of these, or is called in a way that was not tried."""
    write = FUNCTIONS.get(call.name)
    if write is None:
        raise NotHonoured(f"the function {call.name.lstrip('$').upper()}")
    return f"({write(call)})"


def joined(sign: str) -> Write:
    return lambda call: f" {sign} ".join(call.args)


# Comparisons: DuckDB takes NaN for the greatest number and equal to itself; to BigQuery all comparisons with it are false.


def compared(sign: str) -> Write:
    def write(call: Call) -> str:
        left, right = call.args
        if "ARRAY" in call.kinds:
            raise NotHonoured(f"{call.name} of arrays")
        if "FLOAT" not in call.kinds:
            return f"{left} {sign} {right}"
        plain = f"{left} {sign} {right}"
        known = [call.sure(0), call.sure(1)]
        if all(known):
            return plain
        # With a number beside it only one side can be NaN, and only some signs believe it.
        if known[1]:
            return f"{plain} AND NOT isnan({left})" if sign in (">", ">=") else plain
        if known[0]:
            return f"{plain} AND NOT isnan({right})" if sign in ("<", "<=") else plain
        other = "true" if sign == "<>" else "false"
        return (
            f"CASE WHEN {left} IS NULL OR {right} IS NULL THEN NULL"
            f" WHEN isnan({left}) OR isnan({right}) THEN {other} ELSE {plain} END"
        )

    return write


def between(call: Call) -> str:
    value, low, high = call.args
    kinds, constants = call.kinds, call.constants
    above = Call("$greater_or_equal", (value, low), kinds[:2], constants[:2], call.result)
    below = Call("$less_or_equal", (value, high), (kinds[0], kinds[2]), (constants[0], constants[2]), call.result)
    return f"({compared('>=')(above)}) AND ({compared('<=')(below)})"


def in_array(call: Call) -> str:
    value, array = call.args
    return (
        f"CASE WHEN {array} IS NULL OR len({array}) = 0 THEN false WHEN {value} IS NULL THEN NULL"
        f" WHEN list_contains({array}, {value}) THEN true"
        f" WHEN len(list_filter({array}, lambda each: each IS NULL)) > 0 THEN NULL ELSE false END"
    )


# Numbers.


def divided(call: Call) -> str:
    left, right = call.args
    plain = f"{left} / {right}"
    if call.kinds[0] == "NUMERIC":
        raise NotHonoured("the division of NUMERIC")
    if call.constants[1]:
        return plain
    return failing(call, f"{right} = 0 AND {left} IS NOT NULL", "division by zero", plain)


def ieee_divided(call: Call) -> str:
    left, right = call.args
    infinite = f"CASE WHEN {left} = 0 OR isnan({left}) THEN 'nan' WHEN {left} > 0 THEN 'inf' ELSE '-inf' END"
    return f"CASE WHEN {right} = 0 AND {left} IS NOT NULL THEN CAST({infinite} AS DOUBLE) ELSE {left} / {right} END"


def whole(sign: str) -> Write:
    """DIV and MOD of whole numbers."""

    def write(call: Call) -> str:
        left, right = call.args
        if set(call.kinds) != {"INTEGER"}:
            raise NotHonoured(f"{call.name.upper()} of NUMERIC")
        plain = f"{left} {sign} {right}"
        if call.constants[1]:
            return plain
        return failing(call, f"{right} = 0 AND {left} IS NOT NULL", "division by zero", plain)

    return write


def extreme(name: str) -> Write:
    """GREATEST and LEAST: NULL if any is, else NaN if any is."""

    def write(call: Call) -> str:
        unsure = [arg for position, arg in enumerate(call.args) if not call.sure(position)]
        plain = f"{name}({', '.join(call.args)})"
        if not unsure:
            return plain
        nothing = f"WHEN {' OR '.join(f'{arg} IS NULL' for arg in unsure)} THEN NULL"
        if name == "least" and "FLOAT" in call.kinds:
            nothing += f" WHEN {' OR '.join(f'isnan({arg})' for arg in unsure)} THEN CAST('nan' AS DOUBLE)"
        return f"CASE {nothing} ELSE {plain} END"

    return write


def rounded(call: Call) -> str:
    if "NUMERIC" in call.kinds or len(call.args) > 2:
        raise NotHonoured("ROUND of NUMERIC, or with a mode")
    return f"round({call.args[0]})" if len(call.args) == 1 else f"round({call.args[0]}, CAST({call.args[1]} AS INTEGER))"


def of_float(template: str) -> Write:
    def write(call: Call) -> str:
        if "NUMERIC" in call.kinds:
            raise NotHonoured(f"{call.name.upper()} of NUMERIC")
        return template.format(*call.args)

    return write


def root(call: Call) -> str:
    return failing(call, f"{call.args[0]} < 0", "Argument to SQRT cannot be negative", of_float("sqrt({0})")(call))


def finite(template: str) -> Write:
    """What fails if the number is too great."""

    def write(call: Call) -> str:
        value = of_float(template)(call)
        given = " OR ".join(f"isinf(CAST({arg} AS DOUBLE))" for arg in call.args)
        return failing(call, f"isinf({value}) AND NOT ({given})", f"Floating point error in function: {call.name.upper()}", value)

    return write


def logarithm(call: Call) -> str:
    value = f"ln({call.args[0]})" if call.name != "log10" else f"log10({call.args[0]})"
    if len(call.args) == 2:
        value = f"{value} / ln({call.args[1]})"
    return failing(call, f"{call.args[0]} <= 0", f"Floating point error in function: {call.name.upper()}", value)


def arithmetic(sign: str) -> Write:
    def write(call: Call) -> str:
        left, right = call.args
        kinds = call.kinds
        if kinds == ("DATE", "INTEGER"):
            return f"{left} {sign} CAST({right} AS INTEGER)"
        if kinds == ("INTEGER", "DATE") and sign == "+":
            return f"{right} + CAST({left} AS INTEGER)"
        if "INTERVAL" in kinds and set(kinds) <= {"DATE", "DATETIME", "TIMESTAMP", "INTERVAL"} and kinds != ("INTERVAL",) * 2:
            return f"CAST({left} {sign} {right} AS {types.duckdb_of(call.result)})"
        if not set(kinds) <= {"INTEGER", "FLOAT"}:
            raise NotHonoured(f"{sign} of {' and '.join(kinds)}")
        return f"{left} {sign} {right}"

    return write


def negated(call: Call) -> str:
    if call.kinds[0] not in ("INTEGER", "FLOAT", "INTERVAL"):
        raise NotHonoured(f"- of {call.kinds[0]}")
    return f"-{call.args[0]}"


# Text.


def substring(call: Call) -> str:
    if call.kinds[0] != "STRING":
        raise NotHonoured("SUBSTR of BYTES")
    value, start = call.args[:2]
    from_end = f"CASE WHEN -{start} > length({value}) THEN 1 ELSE length({value}) + {start} + 1 END"
    known = INTEGER.fullmatch(start)
    if known and int(known[1]) > 0:
        begin = start
    else:
        begin = f"CASE WHEN {start} = 0 THEN 1 WHEN {start} > 0 THEN {start} ELSE {from_end} END"
    if len(call.args) == 2:
        return f"substring({value}, {begin})"
    length = call.args[2]
    known = INTEGER.fullmatch(length)
    plain = f"substring({value}, {begin}, {length})"
    return (
        plain
        if known and int(known[1]) >= 0
        else failing(call, f"{length} < 0", "Third argument in SUBSTR() cannot be negative", plain)
    )


def length(call: Call) -> str:
    return f"length({call.args[0]})" if call.kinds[0] == "STRING" else f"octet_length({call.args[0]})"


def of_text(template: str) -> Write:
    """A function that BigQuery has of BYTES, too."""

    def write(call: Call) -> str:
        if "BYTES" in call.kinds:
            raise NotHonoured(f"{call.name.upper()} of BYTES")
        return template.format(*call.args)

    return write


def trimmed(name: str) -> Write:
    def write(call: Call) -> str:
        if "BYTES" in call.kinds:
            raise NotHonoured(f"{call.name.upper()} of BYTES")
        # Without a second argument all white space goes, of which DuckDB knows only the blank.
        signs = call.args[1] if len(call.args) == 2 else "chr(9) || chr(10) || chr(11) || chr(12) || chr(13) || ' '"
        return f"{name}({call.args[0]}, {signs})"

    return write


def like(call: Call) -> str:
    if "BYTES" in call.kinds:
        raise NotHonoured("LIKE of BYTES")
    return f"{call.args[0]} LIKE {call.args[1]} ESCAPE '\\'"


def array_to_string(call: Call) -> str:
    if len(call.args) != 2 or call.result.type_kind != types.zetasql_check.types().TYPE_STRING:
        raise NotHonoured("ARRAY_TO_STRING with a text for NULL, or of BYTES")
    array, between_them = call.args
    return (
        f"CASE WHEN {array} IS NULL OR {between_them} IS NULL THEN NULL"
        f" ELSE coalesce(array_to_string(list_filter({array}, lambda each: each IS NOT NULL), {between_them}), '') END"
    )


def groups(expression: str) -> int:
    try:
        return re.compile(expression).groups
    except re.error:
        raise NotHonoured(f"the regular expression {expression}") from None


def extracted_text(call: Call) -> str:
    if len(call.args) != 2 or "BYTES" in call.kinds:
        raise NotHonoured("REGEXP_EXTRACT with a position, or of BYTES")
    group = min(groups(call.constant(1)), 1)
    value, expression = call.args
    return f"CASE WHEN regexp_matches({value}, {expression}) THEN regexp_extract({value}, {expression}, {group}) END"


def replaced_text(call: Call) -> str:
    if "BYTES" in call.kinds:
        raise NotHonoured("REGEXP_REPLACE of BYTES")
    return f"regexp_replace({call.args[0]}, {call.args[1]}, {call.args[2]}, 'g')"


def split(call: Call) -> str:
    sign = call.constant(1) if len(call.args) == 2 else ","
    if not sign or "BYTES" in call.kinds:
        raise NotHonoured("SPLIT by nothing, or of BYTES")
    return f"string_split({call.args[0]}, {types.text(sign)})"


def json_value(call: Call) -> str:
    value, path = _json(call)
    found = types.text(path)
    # Text that is no JSON has no values; an object or a list is none.
    return (
        f"CASE WHEN json_valid({value}) AND json_type({value}, {found}) NOT IN ('OBJECT', 'ARRAY', 'NULL')"
        f" THEN json_extract_string({value}, {found}) END"
    )


def json_value_array(call: Call) -> str:
    """The values of a list; of a list with an object or a list in it BigQuery has none."""
    value, path = _json(call)
    inner = types.text(f"{path}[*]")
    nested = f"len(list_filter(json_extract({value}, {inner}), lambda one: json_type(one) IN ('OBJECT', 'ARRAY')))"
    return (
        f"CASE WHEN json_valid({value}) AND json_type({value}, {types.text(path)}) = 'ARRAY' AND {nested} = 0"
        f" THEN json_extract_string({value}, {inner}) END"
    )


def _json(call: Call) -> tuple[str, str]:
    """The text in which a value is looked for, and the path."""
    if call.kinds[0] not in ("STRING", "JSON"):
        raise NotHonoured("JSON_VALUE of this")
    path = call.constant(1) if len(call.args) == 2 else "$"
    if not re.fullmatch(r"\$(\.\w+|\[\d+\])*", path):
        raise NotHonoured(f"the JSON path {path}")
    return f"CAST({call.args[0]} AS VARCHAR)", path


def array_at(base: int, safe: bool) -> Write:
    def write(call: Call) -> str:
        array, position = call.args
        plain = f"{array}[{position} + {1 - base}]"
        outside = f"{position} < {base} OR {position} >= len({array}) + {base}"
        if safe:
            return f"CASE WHEN {outside} THEN NULL ELSE {plain} END"
        return failing(call, outside, "Array index is out of bounds", plain)

    return write


def generated(call: Call) -> str:
    if len(call.args) == 3 and call.constants[2] != 1:
        raise NotHonoured(f"{call.name.upper()} with a step")
    if call.name == "generate_date_array":
        if len(call.args) > 2 and (call.constants[2], call.part(3)) != (1, "DAY"):
            raise NotHonoured("GENERATE_DATE_ARRAY with a step")
        first, last = call.args[:2]
        return f"list_transform(generate_series({first}, {last}, INTERVAL 1 DAY), lambda each: CAST(each AS DATE))"
    return f"generate_series({call.args[0]}, {call.args[1]})"


def make_array(call: Call) -> str:
    return f"CAST([{', '.join(call.args)}] AS {types.duckdb_of(call.result)})"


def case_value(call: Call) -> str:
    """CASE x WHEN a THEN b ... ELSE c END"""
    value, *rest = call.args
    whens = [f"WHEN {rest[at]} THEN {rest[at + 1]}" for at in range(0, len(rest) - 1, 2)]
    return f"CASE {value} {' '.join(whens)} ELSE {rest[-1]} END"


def case_no_value(call: Call) -> str:
    *rest, otherwise = call.args
    whens = [f"WHEN {rest[at]} THEN {rest[at + 1]}" for at in range(0, len(rest), 2)]
    return f"CASE {' '.join(whens)} ELSE {otherwise} END"


def concatenated(call: Call) -> str:
    return " || ".join(call.args)


def listed(name: str) -> Write:
    return lambda call: f"{name}({', '.join(call.args)})"


def in_list(call: Call) -> str:
    return f"{call.args[0]} IN ({', '.join(call.args[1:])})"


FUNCTIONS: dict[str, Write] = {
    "$and": joined("AND"),
    "$or": joined("OR"),
    "$not": simple("NOT {0}"),
    "$equal": compared("="),
    "$not_equal": compared("<>"),
    "$less": compared("<"),
    "$less_or_equal": compared("<="),
    "$greater": compared(">"),
    "$greater_or_equal": compared(">="),
    "$between": between,
    "$in": in_list,
    "$in_array": in_array,
    "$like": like,
    "$is_null": simple("{0} IS NULL"),
    "$is_true": simple("{0} IS TRUE"),
    "$is_false": simple("{0} IS FALSE"),
    "$is_distinct_from": simple("{0} IS DISTINCT FROM {1}"),
    "$is_not_distinct_from": simple("{0} IS NOT DISTINCT FROM {1}"),
    "$case_with_value": case_value,
    "$case_no_value": case_no_value,
    "if": simple("CASE WHEN {0} THEN {1} ELSE {2} END"),
    "ifnull": simple("coalesce({0}, {1})"),
    "coalesce": listed("coalesce"),
    "nullif": simple("nullif({0}, {1})"),
    "$add": arithmetic("+"),
    "$subtract": arithmetic("-"),
    "$multiply": of_float("{0} * {1}"),
    "$divide": divided,
    "$unary_minus": negated,
    "safe_divide": of_float("CASE WHEN {1} = 0 THEN NULL ELSE {0} / {1} END"),
    "ieee_divide": ieee_divided,
    "div": whole("//"),
    "mod": whole("%"),
    "abs": simple("abs({0})"),
    "sign": of_float("CASE WHEN isnan(CAST({0} AS DOUBLE)) THEN {0} ELSE sign({0}) END"),
    "floor": of_float("floor({0})"),
    "ceil": of_float("ceil({0})"),
    "round": rounded,
    "sqrt": root,
    "exp": finite("exp({0})"),
    "ln": logarithm,
    "log": logarithm,
    "log10": logarithm,
    "pow": finite("pow({0}, {1})"),
    "greatest": extreme("greatest"),
    "least": extreme("least"),
    "is_nan": of_float("isnan({0})"),
    "is_inf": of_float("isinf({0})"),
    "concat": concatenated,
    "$concat_op": concatenated,
    "lower": of_text("lower({0})"),
    "upper": of_text("upper({0})"),
    "length": length,
    "char_length": of_text("length({0})"),
    "byte_length": simple("octet_length(encode({0}))"),
    "substr": substring,
    "left": of_text("left({0}, {1})"),
    "right": of_text("right({0}, {1})"),
    "starts_with": of_text("starts_with({0}, {1})"),
    "ends_with": of_text("suffix({0}, {1})"),
    "strpos": of_text("strpos({0}, {1})"),
    "replace": of_text("CASE WHEN {1} = '' THEN {0} ELSE replace({0}, {1}, {2}) END"),
    "reverse": of_text("reverse({0})"),
    "trim": trimmed("trim"),
    "ltrim": trimmed("ltrim"),
    "rtrim": trimmed("rtrim"),
    "split": split,
    "array_to_string": array_to_string,
    "regexp_contains": of_text("regexp_matches({0}, {1})"),
    "regexp_extract": extracted_text,
    "regexp_replace": replaced_text,
    "md5": with_kind("STRING")("unhex(md5({0}))"),
    "sha256": with_kind("STRING")("unhex(sha256({0}))"),
    "to_hex": simple("lower(hex({0}))"),
    "from_hex": simple("unhex({0})"),
    "json_value": json_value,
    "json_value_array": json_value_array,
    "json_extract_scalar": json_value,
    **bigquery_times.FUNCTIONS,
    "$make_array": make_array,
    "$array_at_offset": array_at(0, safe=False),
    "$array_at_ordinal": array_at(1, safe=False),
    "$safe_array_at_offset": array_at(0, safe=True),
    "$safe_array_at_ordinal": array_at(1, safe=True),
    "array_length": simple("len({0})"),
    "array_reverse": simple("list_reverse({0})"),
    "array_concat": joined("||"),
    "generate_array": generated,
    "generate_date_array": generated,
}
