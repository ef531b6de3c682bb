"""SQL of BigQuery on DuckDB: every function does what Google's reference implementation does, or is refused."""

from __future__ import annotations

import json
import math
import subprocess
from typing import Any

import pytest

from tests.localcloud.cloud import PYTHON, ROOT

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
NUMBERS = ("0", "1", "-7", "3", "CAST(NULL AS INT64)")
FLOATS = ("0.0", "1.5", "-2.5", "2.5", "1e300", "CAST('nan' AS FLOAT64)", "CAST('inf' AS FLOAT64)", "CAST(NULL AS FLOAT64)")
TEXTS = ("''", "'abc'", "' Ab c\\t'", "'é☃'", "CAST(NULL AS STRING)")
DATES = ("DATE '2013-01-06'", "DATE '2012-02-29'", "DATE '2013-12-30'", "CAST(NULL AS DATE)")
TIMES = (
    "TIMESTAMP '2013-01-06 10:20:30.123456 UTC'",
    "TIMESTAMP '1969-12-31 23:59:59.500 UTC'",
    "TIMESTAMP '2013-03-31 00:00:00 UTC'",
)


def pairs(template: str, values: tuple[str, ...]) -> list[str]:
    return [template.format(one, other) for one in values for other in values]


def each(templates: list[str], values: tuple[str, ...]) -> list[str]:
    return [template.format(value) for template in templates for value in values]


COMPARED = [f"{{}} {sign} {{}}" for sign in ("=", "<>", "<", "<=", ">", ">=", "IS DISTINCT FROM", "IS NOT DISTINCT FROM")]
EXPRESSIONS: dict[str, list[str]] = {
    "comparisons": [each_pair for sign in COMPARED for each_pair in pairs(sign, FLOATS)]
    + [f"{value} BETWEEN {low} AND 2.0" for value in FLOATS for low in FLOATS]
    + pairs("{} IN ({}, 1)", NUMBERS)
    + [f"{value} IN UNNEST({array})" for value in NUMBERS for array in ("[1, 2]", "[1, NULL]", "CAST([] AS ARRAY<INT64>)")],
    "arithmetic": pairs("{} + {}", NUMBERS)
    + pairs("{} * {}", NUMBERS)
    + pairs("{} / {}", NUMBERS)
    + pairs("{} / {}", FLOATS[:4])
    + pairs("DIV({}, {})", NUMBERS)
    + pairs("MOD({}, {})", NUMBERS)
    + pairs("SAFE_DIVIDE({}, {})", FLOATS[:4])
    + pairs("IEEE_DIVIDE({}, {})", FLOATS)
    + pairs("GREATEST({}, {})", FLOATS)
    + pairs("LEAST({}, {})", FLOATS)
    + pairs("GREATEST({}, {})", NUMBERS)
    + ["9223372036854775807 + 1", "SAFE.LN(0)", "-(-5)", "-(2.5)", "-9223372036854775808"],
    "numbers": each(
        [
            f"{name}({{}})"
            for name in ("ABS", "SIGN", "FLOOR", "CEIL", "ROUND", "SQRT", "EXP", "LN", "LOG", "LOG10", "IS_NAN", "IS_INF")
        ],
        FLOATS,
    )
    + each(["ABS({})", "SIGN({})", "FLOOR({})", "ROUND({})"], NUMBERS)
    + ["ROUND(2.345, 2)", "ROUND(-1234.5, -2)", "POW(2, 10)", "POW(2.0, 0.5)", "LOG(8, 2)", "ROUND(0.5)", "ROUND(-0.5)"],
    "casts": each(
        ["CAST({} AS INT64)", "CAST({} AS STRING)", "SAFE_CAST({} AS INT64)"],
        (
            "1.5",
            "2.5",
            "-2.5",
            "0.1",
            "1e20",
            "1e-7",
            "123456789.125",
            "1/3",
            "0.1 + 0.2",
            "CAST('nan' AS FLOAT64)",
            "-0.0",
            "1e15",
        ),
    )
    + [
        f"{call}({value} AS {kind})"
        for call in ("CAST", "SAFE_CAST")
        for kind in ("INT64", "FLOAT64", "BOOL", "DATE")
        for value in (
            "'1'",
            "' 12 '",
            "'1.5'",
            "'t'",
            "'TRUE'",
            "'x'",
            "''",
            "'2013-4-1'",
            "'2013-02-30'",
            "'inf'",
            "'1e3'",
            "'1_0'",
            "'2013/04/01'",
        )
    ]
    + each(["CAST({} AS STRING)", "CAST({} AS DATE)", "CAST({} AS DATETIME)", "CAST(CAST({} AS DATETIME) AS STRING)"], TIMES)
    + each(["CAST({} AS STRING)", "CAST({} AS TIMESTAMP)", "CAST({} AS DATETIME)"], DATES)
    + ["CAST('2013-04-01 10:20:30.5 UTC' AS TIMESTAMP)", "CAST('2013-04-01T10:20:30+02:00' AS TIMESTAMP)", "CAST(TRUE AS INT64)"]
    + [
        "CAST(TRUE AS STRING)",
        "CAST(7 AS STRING)",
        "CAST(7 AS FLOAT64)",
        "CAST(0 AS BOOL)",
        "CAST('2013-04-01T10:20:30' AS DATETIME)",
    ],
    "text": [
        *each(
            [
                *(
                    "LOWER({})",
                    "UPPER({})",
                    "LENGTH({})",
                    "BYTE_LENGTH({})",
                    "CHAR_LENGTH({})",
                    "REVERSE({})",
                    "TRIM({})",
                    "LTRIM({})",
                ),
                *(
                    "RTRIM({})",
                    "TRIM({}, 'a ')",
                    "SUBSTR({}, 2)",
                    "SUBSTR({}, 0)",
                    "SUBSTR({}, -2)",
                    "SUBSTR({}, -9, 2)",
                    "SUBSTR({}, 1, 2)",
                ),
                *(
                    "SUBSTR({}, 2, 0)",
                    "LEFT({}, 2)",
                    "RIGHT({}, 2)",
                    "STARTS_WITH({}, 'a')",
                    "ENDS_WITH({}, 'c')",
                    "STRPOS({}, 'c')",
                ),
                *(
                    "REPLACE({}, 'b', 'xx')",
                    "REPLACE({}, '', 'x')",
                    "{} || 'x'",
                    "CONCAT({}, 'x', 'y')",
                    "SPLIT({}, 'b')",
                    "TO_HEX(MD5({}))",
                ),
                *("TO_HEX(SHA256({}))", "{} LIKE 'a%'", "{} LIKE '_b_'", "{} LIKE ''", "REGEXP_CONTAINS({}, r'^a.c$')"),
                *("REGEXP_EXTRACT({}, r'b')", "REGEXP_EXTRACT({}, r'a(.)c')", "REGEXP_EXTRACT({}, r'(x?)b')"),
                *(
                    "REGEXP_REPLACE({}, r'[a-c]', 'z')",
                    "REGEXP_REPLACE({}, r'(a)(b)', r'\\2\\1')",
                    "IFNULL({}, 'n')",
                    "NULLIF({}, 'abc')",
                ),
                *("COALESCE({}, 'x')", "MD5({})"),
            ],
            TEXTS,
        ),
        "'a\\nb' LIKE 'a%b'",
        "REGEXP_CONTAINS('a\\nb', r'a.b')",
        "'50%' LIKE '50\\\\%'",
        "'500' LIKE '50\\\\%'",
        "SPLIT('a,b')",
        "SPLIT('')",
    ],
    "dates": [
        *each(
            [
                *(
                    f"EXTRACT({part} FROM {{}})"
                    for part in ("YEAR", "QUARTER", "MONTH", "DAY", "DAYOFWEEK", "DAYOFYEAR", "ISOWEEK", "ISOYEAR")
                ),
                *(f"DATE_TRUNC({{}}, {part})" for part in ("DAY", "WEEK", "WEEK(MONDAY)", "ISOWEEK", "MONTH", "QUARTER", "YEAR")),
                *(f"DATE_ADD({{}}, INTERVAL 5 {part})" for part in ("DAY", "WEEK", "MONTH", "QUARTER", "YEAR")),
                *(f"DATE_SUB({{}}, INTERVAL 1 {part})" for part in ("DAY", "MONTH", "YEAR")),
                *(
                    f"DATE_DIFF({{}}, DATE '2012-12-31', {part})"
                    for part in ("DAY", "WEEK", "WEEK(MONDAY)", "ISOWEEK", "MONTH", "QUARTER", "YEAR")
                ),
                *(
                    "{} + 3",
                    "{} - 3",
                    "{} - INTERVAL '1' DAY",
                    "{} + INTERVAL 2 MONTH",
                    "FORMAT_DATE('%Y-%m/%d %j', {})",
                    "UNIX_DATE({})",
                ),
            ],
            DATES,
        ),
        "DATE(2013, 4, 1)",
        "PARSE_DATE('%Y%m%d', '20130401')",
        "PARSE_DATE('%Y-%m-%d', 'x')",
        "DATE '2013-04-01' - INTERVAL '28' DAY",
    ],
    "times": [
        *each(
            [
                *(
                    f"EXTRACT({part} FROM {{}})"
                    for part in ("YEAR", "HOUR", "MINUTE", "SECOND", "MILLISECOND", "MICROSECOND", "DAYOFWEEK", "DATE")
                ),
                *(f"TIMESTAMP_TRUNC({{}}, {part})" for part in ("SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH")),
                *(f"TIMESTAMP_ADD({{}}, INTERVAL 90 {part})" for part in ("MICROSECOND", "SECOND", "MINUTE", "HOUR", "DAY")),
                *(
                    f"TIMESTAMP_DIFF({{}}, TIMESTAMP '2013-01-06 00:00:00 UTC', {part})"
                    for part in ("SECOND", "MINUTE", "HOUR", "DAY")
                ),
                *("UNIX_SECONDS({})", "UNIX_MILLIS({})", "UNIX_MICROS({})", "DATE({})", "DATETIME({})", "{} - INTERVAL '1' HOUR"),
                *(
                    "FORMAT_TIMESTAMP('%Y-%m-%dT%H:%M:%S', {})",
                    "DATETIME_TRUNC(DATETIME({}), HOUR)",
                    "TIMESTAMP_TRUNC(DATETIME({}), HOUR)",
                ),
                *(
                    "DATETIME_DIFF(DATETIME({}), DATETIME '2013-01-05 23:00:00', DAY)",
                    "DATETIME_ADD(DATETIME({}), INTERVAL 1 MONTH)",
                ),
            ],
            TIMES,
        ),
        "TIMESTAMP_SECONDS(-1)",
        "TIMESTAMP_MILLIS(1500)",
        "TIMESTAMP_MICROS(1500)",
        "TIMESTAMP(DATE '2013-04-01')",
    ],
    "arrays and JSON": [
        *("[1, 2, 3][OFFSET(1)]", "[1, 2, 3][ORDINAL(1)]", "[1][OFFSET(3)]", "[1][SAFE_OFFSET(3)]", "[1][SAFE_ORDINAL(1)]"),
        *(
            "ARRAY_LENGTH([1, NULL])",
            "ARRAY_REVERSE([1, 2])",
            "ARRAY_CONCAT([1], [2, 3])",
            "GENERATE_ARRAY(1, 4)",
            "GENERATE_ARRAY(4, 1)",
        ),
        *(
            "GENERATE_DATE_ARRAY('2013-04-01', '2013-04-03')",
            "ARRAY_TO_STRING(['a', NULL, 'b'], ',')",
            "ARRAY_TO_STRING([NULL], ',')",
        ),
        *("ARRAY_TO_STRING(CAST([] AS ARRAY<STRING>), ',')", "ARRAY(SELECT x FROM UNNEST([3, 1, 2]) AS x ORDER BY x DESC)"),
        *(
            "(SELECT SUM(x) FROM UNNEST([1, 2]) AS x)",
            "STRUCT(1 AS a, 'x' AS b).b",
            "EXISTS (SELECT 1 FROM UNNEST([1]) AS x WHERE x > 1)",
        ),
        *(
            f"JSON_VALUE({text!r}, '$.a')"
            for text in ('{"a": "x"}', '{"a": 1.50}', '{"a": {"b": 1}}', '{"a": null}', "{}", "no json", '{"a": true}')
        ),
        *("JSON_VALUE('{\"a\": [1, 2]}', '$.a[1]')", "IF(NULL, 1, 2)", "CASE 3 WHEN 1 THEN 'a' WHEN 3 THEN 'b' END"),
        *("CASE WHEN NULL THEN 1 ELSE 2 END", "NOT NULL", "NULL AND FALSE", "NULL OR TRUE", "TRUE IS NOT FALSE"),
    ],
    "aggregates": [
        f"(SELECT {call} FROM UNNEST({array}) AS x)"
        for array in ("[1, 2, 2, NULL]", "CAST([] AS ARRAY<INT64>)", "[1.5, CAST('nan' AS FLOAT64)]", "[2.5, 0.5]")
        for call in (
            *("COUNT(*)", "COUNT(x)", "COUNT(DISTINCT x)", "COUNTIF(x > 1)", "SUM(x)", "AVG(x)", "MIN(x)", "MAX(x)", "STDDEV(x)"),
            *("VAR_POP(x)", "LOGICAL_OR(x > 1)", "LOGICAL_AND(x > 1)", "ARRAY_AGG(x IGNORE NULLS ORDER BY x DESC LIMIT 2)"),
            *(
                "STRING_AGG(CAST(x AS STRING), '-' ORDER BY x)",
                "SUM(DISTINCT x)",
                "ARRAY_AGG(DISTINCT x IGNORE NULLS ORDER BY x)",
            ),
        )
    ]
    + [
        f"ARRAY(SELECT IFNULL({call} OVER ({over}), 0) FROM UNNEST([3, 1, NULL, 2]) AS x ORDER BY x)"
        for over in ("ORDER BY x", "ORDER BY x DESC")
        for call in (
            *(
                "ROW_NUMBER()",
                "RANK()",
                "DENSE_RANK()",
                "NTILE(2)",
                "LAG(x)",
                "LEAD(x, 2)",
                "SUM(x)",
                "COUNT(*)",
                "PERCENT_RANK()",
            ),
            *("CUME_DIST()", "FIRST_VALUE(x IGNORE NULLS)", "MIN(x)"),
        )
    ],
}


@pytest.fixture(scope="module")
def answers() -> dict[str, list[list[Any]]]:
    asked = [expression for expressions in EXPRESSIONS.values() for expression in expressions]
    run = subprocess.run(
        [str(PYTHON), "-m", "tests.localcloud.gcp.bigquery_oracle"],
        cwd=ROOT,
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = iter(json.loads(run.stdout))
    return {kind: [next(found) for _ in expressions] for kind, expressions in EXPRESSIONS.items()}


@pytest.mark.parametrize("kind", EXPRESSIONS)
def test_functions_answer_as_the_reference_does(answers: dict[str, list[list[Any]]], kind: str) -> None:
    wrong = [
        f"{expression}: {reference!r}, here {local!r}"
        for expression, (reference, local) in zip(EXPRESSIONS[kind], answers[kind], strict=True)
        if not alike(reference, local)
    ]
    assert not wrong, "\n".join(wrong)


def alike(reference: Any, local: Any) -> bool:
    """The same, but for the last digit of a number."""
    if reference == local:
        return True
    try:
        return math.isclose(float(reference), float(local), rel_tol=1e-14)
    except (TypeError, ValueError):
        return False


def test_the_analyser_is_the_one_that_the_adapter_knows() -> None:
    """Another version may call its messages otherwise: then zetasql_check.py is to be looked at."""
    program = """
import importlib.metadata, json
from localcloud.gcp import zetasql_check
from localcloud.service import Refused
kind = zetasql_check.types().TypeProto(type_kind=zetasql_check.types().TYPE_INT64)
known = {("p", "d", "t"): ("p.d.t", [("n", kind)])}
sql = zetasql_check.split_names("SELECT COUNT(*) AS x FROM `p.d.t` WHERE n = @n QUALIFY ROW_NUMBER() OVER (ORDER BY x) = 1")
node = zetasql_check.analysed("SELECT n + @n AS x FROM p.d.t WHERE n > 1", known, {"n": kind})
try:
    zetasql_check.analysed("SELECT m FROM p.d.t", known, {})
except Refused as error:
    said = error.message
kinds = [each.kind for each in node.walk() if each.kind.endswith(("Scan", "Call", "Literal", "Parameter"))]
cell = zetasql_check.evaluated("SELECT 1 + 1")[0].int64_value
print(json.dumps([importlib.metadata.version("zetasql"), zetasql_check.table_paths(sql), kinds, said, cell]))
"""
    run = subprocess.run([str(PYTHON), "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    version, paths, kinds, said, cell = json.loads(run.stdout.splitlines()[-1])
    assert (version, paths, said, cell) == ("0.1.5", [["p", "d", "t"]], "Unrecognized name: m at [1:8]", 2)
    assert sorted(kinds) == ["FilterScan", "FunctionCall", "FunctionCall", "Literal", "Parameter", "ProjectScan", "TableScan"]
