"""Athena of the local cloud: what it reads and writes, how it fails, and that the SQL of this repository runs."""

from __future__ import annotations

import gzip
import json
import math
import re
import time
from collections.abc import Iterator
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from demo.simulator import land, land_outcomes
from include import monitoring_sql, queries, validation
from include.config import ModelConfig, load_model
from localcloud import athena_results, athena_sql
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.queries import BUCKET, ask, ended, keys, put, rows, start, storage, table

pytestmark = pytest.mark.localcloud

JSON = "org.openx.data.jsonserde.JsonSerDe"
TEXT = "org.apache.hadoop.hive.serde2.lazy.LazySimpleSerDe"


@pytest.fixture
def lake(cloud: LocalCloud) -> LocalCloud:
    """A bucket, and a database named shop."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    cloud.client("glue").create_database(DatabaseInput={"Name": "shop"})
    return cloud


def orders(lake: LocalCloud) -> None:
    """A table by day; each day lies in a folder of its own choice."""
    columns = {"id": "string", "price": "double"}
    table(lake, "orders", columns, f"s3://{BUCKET}/orders", {"partition_date": "date"})
    for day, ids in {"2013-04-01": ["a", "b"], "2013-04-02": ["c"]}.items():
        put(lake, f"orders/{day}/v1/part", pa.table({"price": [1.5] * len(ids), "id": ids}))
        given = {"Values": [day], "StorageDescriptor": storage(columns, f"s3://{BUCKET}/orders/{day}/v1")}
        lake.client("glue").create_partition(DatabaseName="shop", TableName="orders", PartitionInput=given)


# Reading.


def test_partitions_are_read_where_they_lie_and_a_swap_is_seen_at_once(lake):
    orders(lake)
    assert rows(lake, "SELECT partition_date, id FROM orders ORDER BY id") == [
        ["2013-04-01", "a"],
        ["2013-04-01", "b"],
        ["2013-04-02", "c"],
    ]
    put(lake, "orders/2013-04-01/v2/part", pa.table({"id": ["x"]}))
    assert len(rows(lake, "SELECT * FROM orders")) == 3, "what no partition points at is not read"

    new = {"Values": ["2013-04-01"], "StorageDescriptor": storage({"id": "string"}, f"s3://{BUCKET}/orders/2013-04-01/v2/")}
    lake.client("glue").update_partition(
        DatabaseName="shop", TableName="orders", PartitionValueList=["2013-04-01"], PartitionInput=new
    )
    assert rows(lake, "SELECT id, price FROM orders ORDER BY id") == [["c", "1.5"], ["x", None]]


def test_only_the_partitions_that_are_asked_for_are_read(shop):
    both = ask(shop, "SELECT id FROM orders").scanned
    one = ask(shop, "SELECT id FROM (SELECT * FROM orders WHERE price > 1) AS dear WHERE partition_date = DATE '2013-04-02'")
    assert one.rows == [["c"]]
    assert 0 < one.scanned < both


def test_files_that_are_no_data_are_not_read_and_changes_are(lake):
    table(lake, "names", {"name": "string"}, f"s3://{BUCKET}/names/", serde=JSON)
    put(lake, "names/a.json", b'{"name": "Ada"}\n')
    put(lake, "names/_SUCCESS", b"no JSON")
    put(lake, "names/.hidden", b"no JSON")
    put(lake, "names/_temporary/0/part.json", b'{"name": "Eve"}\n')
    put(lake, "names/empty.json", b"")
    put(lake, "names2/other.json", b'{"name": "of another table"}\n')
    assert rows(lake, "SELECT name FROM names") == [["Ada"]]
    put(lake, "names/deeper/b.json.gz", gzip.compress(b'{"name": "Bob"}\n'))
    put(lake, "names/a.json", b'{"name": "Ann"}\n')
    assert sorted(rows(lake, "SELECT name FROM names")) == [["Ann"], ["Bob"]]
    lake.client("s3").delete_object(Bucket=BUCKET, Key="names/a.json")
    assert rows(lake, "SELECT name FROM names") == [["Bob"]]


def test_columns_are_told_by_name_and_one_that_is_missing_is_null(lake):
    table(lake, "wide", {"a": "bigint", "b": "string", "c": "timestamp", "d": "double"}, f"s3://{BUCKET}/wide")
    moment = datetime(2013, 4, 1, 12, 0, 0, 123456)
    put(lake, "wide/1", pa.table({"b": ["x"], "a": pa.array([1], pa.int32()), "c": [moment], "unknown": [1]}))
    put(lake, "wide/2", pa.table({"A": [2], "d": pa.array([0.5], pa.float32())}))
    found = rows(lake, "SELECT * FROM wide ORDER BY a")
    assert found == [["1", "x", "2013-04-01 12:00:00.123", None], ["2", None, None, "0.5"]]


@pytest.mark.parametrize(
    ("declared", "stored"),
    [("double", pa.int64()), ("string", pa.int64()), ("int", pa.int64()), ("date", pa.string()), ("bigint", pa.float64())],
)
def test_a_parquet_column_of_another_type_is_bad_data(lake, declared, stored):
    table(lake, "typed", {"a": declared}, f"s3://{BUCKET}/typed")
    put(lake, "typed/part", pa.table({"a": pa.array(["1" if stored == pa.string() else 1], stored)}))
    answer = ask(lake, "SELECT * FROM typed")
    assert answer.state == "FAILED"
    assert re.match(r"HIVE_BAD_DATA: Field a's type .* in parquet file s3://lake/typed/part is incompatible", answer.reason)


def test_json_lines(lake):
    columns = {"id": "string", "score": "double", "day": "date", "at": "timestamp", "ok": "boolean", "n": "bigint"}
    table(lake, "lines", columns, f"s3://{BUCKET}/lines", serde=JSON)
    line = (
        b'{"id": 7, "score": 0.30000000000000004, "day": "2013-04-01", "at": "2013-04-01 12:00:00.5", "ok": true, "more": [1]}\n'
    )
    put(lake, "lines/part.jsonl.out", line + b'{"id": null, "n": 9007199254740993}\n')
    assert sorted(rows(lake, "SELECT * FROM lines"), key=str) == [
        ["7", "0.30000000000000004", "2013-04-01", "2013-04-01 12:00:00.500", "true", None],
        [None, None, None, None, None, "9007199254740993"],
    ]
    put(lake, "lines/broken", b"not json\n")
    assert ask(lake, "SELECT * FROM lines").reason.startswith("HIVE_BAD_DATA: Malformed JSON")


def test_delimited_text_with_a_header(lake):
    header = {"skip.header.line.count": "1"}
    given = {"serde": TEXT, "properties": header, "field.delim": ","}
    table(lake, "text", {"name": "string", "n": "int", "day": "date"}, f"s3://{BUCKET}/text", **given)
    put(lake, "text/a.csv", b"name,n,day\nAda,1,2013-04-01\n,,\n\\N,2\n")
    assert sorted(rows(lake, "SELECT * FROM text"), key=str) == [
        ["", None, None],
        ["Ada", "1", "2013-04-01"],
        [None, "2", None],
    ]


@pytest.mark.parametrize("template", ["", f"s3://{BUCKET}/days/${{partition_date}}"])
def test_partition_projection_needs_no_partitions(lake, template):
    properties = {
        "projection.enabled": "true",
        "projection.partition_date.type": "date",
        "projection.partition_date.range": "2013-01-01,NOW",
        "projection.partition_date.format": "yyyy-MM-dd",
        **({"storage.location.template": template} if template else {}),
    }
    table(lake, "days", {"id": "string"}, f"s3://{BUCKET}/days", {"partition_date": "date"}, properties=properties)
    for day in ("2013-04-01", "2013-04-02", "2012-12-31"):
        put(lake, f"days/{day if template else f'partition_date={day}'}/part", pa.table({"id": [day]}))
    assert rows(lake, "SELECT id, partition_date FROM days ORDER BY id") == [["2013-04-01"] * 2, ["2013-04-02"] * 2]
    assert rows(lake, "SELECT id FROM days WHERE partition_date = DATE '2013-04-02'") == [["2013-04-02"]]


# Answers.


def test_answers_are_text_as_athena_writes_it(shop):
    answer = ask(shop, "SELECT 1, 5/2, 5/2e0 AS half, true, DATE '2013-04-01', CAST(NULL AS varchar) AS n, 'a\"b', 1e7, 1e-4")
    assert answer.header == ["_col0", "_col1", "half", "_col3", "_col4", "n", "_col6", "_col7", "_col8"]
    assert answer.rows == [["1", "2", "2.5", "true", "2013-04-01", None, 'a"b', "1.0E7", "1.0E-4"]]
    written = shop.client("s3").get_object(Bucket=BUCKET, Key=f"results/{answer.id}.csv")["Body"].read().decode()
    assert written.splitlines()[1] == '"1","2","2.5","true","2013-04-01",,"a""b","1.0E7","1.0E-4"'
    described = shop.client("athena").get_query_results(QueryExecutionId=answer.id)["ResultSet"]["ResultSetMetadata"]
    kinds = [column["Type"] for column in described["ColumnInfo"]]
    assert kinds == ["integer", "integer", "double", "boolean", "date", "varchar", "varchar", "double", "double"]


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.0, "0.0"), (0.1, "0.1"), (1e7, "1.0E7"), (123456789.5, "1.234567895E8"), (5e-324, "4.9E-324"), (-0.001, "-0.001")],
)
def test_numbers_are_written_as_java_does(number, text):
    # Java writes the least number of all with one digit more than are needed; either is read back as the same.
    assert float(athena_results.java_float(number)) == float(text) == number
    assert number == 5e-324 or athena_results.java_float(number) == text


def test_pages_begin_with_the_names(shop):
    query = start(shop, "SELECT n FROM (VALUES 1, 2, 3) AS t(n) ORDER BY n")
    ended(shop, query)
    client = shop.client("athena")
    first = client.get_query_results(QueryExecutionId=query, MaxResults=2)
    assert [row["Data"][0]["VarCharValue"] for row in first["ResultSet"]["Rows"]] == ["n", "1"]
    rest = client.get_query_results(QueryExecutionId=query, MaxResults=2, NextToken=first["NextToken"])
    assert [row["Data"][0]["VarCharValue"] for row in rest["ResultSet"]["Rows"]] == ["2", "3"]
    assert "NextToken" not in rest


@pytest.mark.parametrize(("given", "found"), [("'2013-04-01'", "2013-04-01"), ("DATE '2013-04-01'", "2013-04-01")])
def test_parameters_are_constants_of_sql(shop, given, found):
    assert rows(shop, "SELECT CAST(? AS DATE), '?' -- ?", [given]) == [[found, "?"]]


@pytest.mark.parametrize(
    ("sql", "parameters", "reason"),
    [
        ("SELECT * FROM none", [], "TABLE_NOT_FOUND: line 1:1: Table 'awsdatacatalog.shop.none' does not exist"),
        ("SELECT * FROM none.orders", [], "SCHEMA_NOT_FOUND"),
        ("SELECT colour FROM orders", [], "COLUMN_NOT_FOUND: line 1:1: Column 'colour' cannot be resolved"),
        ("SELECT paint(id) FROM orders", [], "FUNCTION_NOT_FOUND"),
        ("SELECT id, count(*) FROM orders", [], "EXPRESSION_NOT_AGGREGATE"),
        ("SELECT 1/0", [], "DIVISION_BY_ZERO"),
        ("SELECT CAST('x' AS integer)", [], "INVALID_CAST_ARGUMENT"),
        ("SELECT * FROM orders WHERE partition_date = '2013-04-01'", [], "TYPE_MISMATCH"),
        ("SELECT * FROM orders WHERE partition_date BETWEEN ? AND ?", ["'2013-04-01'"] * 2, "TYPE_MISMATCH"),
        ("SELECT ?", [], "INVALID_PARAMETER_USAGE"),
        ("SELECT ?", ["2013-04-01, 2"], "INVALID_PARAMETER_USAGE"),
        ("SELECT * FROM read_text('/etc/hostname')", [], "FUNCTION_NOT_FOUND"),
        ('SELECT * FROM "/etc/hostname"', [], "TABLE_NOT_FOUND"),
    ],
)
def test_a_query_that_cannot_be_answered_fails_with_its_reason(shop, sql, parameters, reason):
    answer = ask(shop, sql, parameters)
    assert (answer.state, answer.reason[: len(reason)]) == ("FAILED", reason)


def test_a_query_that_has_not_succeeded_has_no_answer(shop):
    answer = ask(shop, "SELECT * FROM none")
    with pytest.raises(ClientError, match=r"Query did not finish successfully\. Final query state: FAILED"):
        shop.client("athena").get_query_results(QueryExecutionId=answer.id)
    with pytest.raises(ClientError, match="was not found"):
        shop.client("athena").get_query_execution(QueryExecutionId="none")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELEC 1", "mismatched input"),
        ("SELECT 1; SELECT 2", "Only one sql statement is allowed"),
        ("MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE", "does not run statements like MERGE INTO"),
        (f"SELECT '{'x' * 262144}'", "26214"),
    ],
)
def test_what_is_no_statement_is_refused_at_once(shop, sql, words):
    with pytest.raises(ClientError, match=words):
        start(shop, sql)


# Asking twice, and stopping.


def test_a_token_makes_asking_twice_the_same(lake):
    token = {"ClientRequestToken": "t" * 32}
    first = start(lake, "SELECT 1", **token)
    assert start(lake, "SELECT 1", **token) == first
    assert len(lake.jobs("query")) == 1
    with pytest.raises(ClientError, match="Idempotent parameters do not match"):
        start(lake, "SELECT 2", **token)


ENDLESS = "SELECT count(*) AS n FROM " + ", ".join(f"(VALUES 1, 2, 3, 4, 5, 6, 7, 8, 9, 10) AS t{n}(x{n})" for n in range(11))


def test_a_query_that_is_stopped_leaves_no_table(lake):
    query = start(lake, f"CREATE TABLE endless AS {ENDLESS}")
    time.sleep(0.7)
    client = lake.client("athena")
    assert client.get_query_execution(QueryExecutionId=query)["QueryExecution"]["Status"]["State"] == "RUNNING"
    client.stop_query_execution(QueryExecutionId=query)
    assert ended(lake, query)["Status"]["State"] == "CANCELLED"
    assert ask(lake, "SELECT * FROM endless").reason.startswith("TABLE_NOT_FOUND")


@pytest.mark.parametrize("fault", ["fail", "stop"])
def test_a_query_that_was_made_to_end_badly_leaves_no_table(lake, fault):
    lake.fault(fault, "athena", "StartQueryExecution", reason="GENERIC_INTERNAL_ERROR: asked for")
    assert ask(lake, "CREATE TABLE t AS SELECT 1 AS a").state == {"fail": "FAILED", "stop": "CANCELLED"}[fault]
    assert ask(lake, "SELECT * FROM t").reason.startswith("TABLE_NOT_FOUND")
    assert ask(lake, "CREATE TABLE t AS SELECT 1 AS a").state == "SUCCEEDED"


# Writing.


def test_a_table_is_made_of_a_query(lake):
    orders(lake)
    properties = f"format = 'JSON', external_location = 's3://{BUCKET}/made/'"
    inner = "SELECT id, partition_date AS day, length(id) * 0.2e0 AS width FROM orders"
    query = f"SELECT *, 0.1e0 + width AS x, CAST(NULL AS date) AS none FROM ({inner}) AS o"
    assert ask(lake, f"CREATE TABLE made WITH ({properties}) AS {query}").state == "SUCCEEDED"
    files = keys(lake, "made/")
    assert len(files) == 2
    assert all(re.fullmatch(r"made/\d{8}_\d{6}_\d{5}_\w{5}_[0-9a-f-]{36}\.gz", key) for key in files), "no name can be foretold"
    objects = [lake.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in files]
    lines = [json.loads(line) for body in objects for line in gzip.decompress(body).splitlines()]
    assert sorted(lines, key=lambda line: line["id"])[0] == {
        "id": "a", "day": "2013-04-01", "width": 0.2, "x": 0.1 + 0.2, "none": None
    }  # fmt: skip
    assert rows(lake, "SELECT count(*), max(x) FROM made") == [["3", "0.30000000000000004"]]
    found = lake.client("glue").get_table(DatabaseName="shop", Name="made")["Table"]
    kinds = {each["Name"]: each["Type"] for each in found["StorageDescriptor"]["Columns"]}
    assert kinds == {"id": "string", "day": "date", "width": "double", "x": "double", "none": "date"}


def test_a_table_is_made_with_partitions(lake):
    orders(lake)
    place = f"format = 'PARQUET', external_location = 's3://{BUCKET}/made', partitioned_by = ARRAY['day']"
    made = f"CREATE TABLE made WITH ({place}) AS SELECT id, partition_date AS day FROM orders"
    assert ask(lake, made).state == "SUCCEEDED"
    found = lake.client("glue").get_partitions(DatabaseName="shop", TableName="made")["Partitions"]
    assert [(each["Values"], each["StorageDescriptor"]["Location"]) for each in found] == [
        (["2013-04-01"], f"s3://{BUCKET}/made/day=2013-04-01"),
        (["2013-04-02"], f"s3://{BUCKET}/made/day=2013-04-02"),
    ]
    assert rows(lake, "SELECT day, count(*) FROM made GROUP BY day ORDER BY day") == [["2013-04-01", "2"], ["2013-04-02", "1"]]
    assert ask(lake, "INSERT INTO made VALUES ('z', DATE '2013-04-02'), ('y', DATE '2013-04-03')").state == "SUCCEEDED"
    assert rows(lake, "SELECT day, count(*) FROM made GROUP BY 1 ORDER BY 1")[1:] == [["2013-04-02", "2"], ["2013-04-03", "1"]]


def test_buckets_are_as_many_files(lake):
    place = f"external_location = 's3://{BUCKET}/made', bucketed_by = ARRAY['n'], bucket_count = 1, write_compression = 'SNAPPY'"
    assert ask(lake, f"CREATE TABLE made WITH ({place}) AS SELECT * FROM (VALUES 1, 2, 3) AS t(n)").state == "SUCCEEDED"
    assert len(keys(lake, "made/")) == 1


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE TABLE orders AS SELECT 1 AS a", "TABLE_ALREADY_EXISTS"),
        (f"CREATE TABLE new WITH (external_location = 's3://{BUCKET}/orders') AS SELECT 1 AS a", "HIVE_PATH_ALREADY_EXISTS"),
        (f"UNLOAD (SELECT 1 AS a) TO 's3://{BUCKET}/orders/' WITH (format = 'JSON')", "HIVE_PATH_ALREADY_EXISTS"),
        ("CREATE TABLE new AS SELECT 1", "MISSING_COLUMN_NAME"),
        ("CREATE TABLE new AS SELECT NULL AS a", "NOT_SUPPORTED: Unsupported Hive type: unknown"),
        ("CREATE TABLE new AS SELECT current_timestamp AS a", "NOT_SUPPORTED: Unsupported Hive type: timestamp with time zone"),
        ("CREATE TABLE new WITH (partitioned_by = ARRAY['id']) AS SELECT id, price FROM orders", "HIVE_COLUMN_ORDER_MISMATCH"),
        ("CREATE TABLE new WITH (format = 'ORC') AS SELECT 1 AS a", "NOT_SUPPORTED: the local cloud writes PARQUET and JSON"),
        (
            "CREATE TABLE new WITH (partitioned_by = ARRAY['n']) AS SELECT 1 AS a, n FROM UNNEST(sequence(1, 101)) AS t(n)",
            "HIVE_TOO_MANY_OPEN_PARTITIONS",
        ),
    ],
)
def test_what_cannot_be_written_is_not(shop, statement, reason):
    answer = ask(shop, statement)
    assert (answer.state, answer.reason[: len(reason)]) == ("FAILED", reason)
    assert [each["Name"] for each in shop.client("glue").get_tables(DatabaseName="shop")["TableList"]] == ["orders"]


def test_an_answer_is_unloaded(lake):
    orders(lake)
    answer = ask(lake, f"UNLOAD (SELECT id FROM orders WHERE price > ?) TO 's3://{BUCKET}/out/' WITH (format = 'JSON')", ["1"])
    assert answer.state == "SUCCEEDED"
    bodies = [lake.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read() for key in keys(lake, "out/")]
    assert sorted(b"".join(map(gzip.decompress, bodies)).split()) == [b'{"id":"a"}', b'{"id":"b"}', b'{"id":"c"}']
    manifest = lake.client("s3").get_object(Bucket=BUCKET, Key=f"results/{answer.id}-manifest.csv")["Body"].read().decode()
    assert manifest.split() == [f"s3://{BUCKET}/{key}" for key in keys(lake, "out/")]


def test_tables_and_partitions_are_declared(lake):
    put(lake, "logs/1/a.json", b'{"id": "a"}\n')
    made = f"""CREATE EXTERNAL TABLE IF NOT EXISTS `shop`.`logs` (id string) PARTITIONED BY (day date)
        ROW FORMAT SERDE '{JSON}' LOCATION 's3://{BUCKET}/logs/' TBLPROPERTIES ('classification' = 'json')"""
    assert [ask(lake, made).state for _ in range(2)] == ["SUCCEEDED"] * 2
    add = f"ALTER TABLE logs ADD IF NOT EXISTS PARTITION (day = '2013-04-01') LOCATION 's3://{BUCKET}/logs/1/'"
    assert [ask(lake, f"{add} PARTITION (day = '2013-04-02')").state for _ in range(2)] == ["SUCCEEDED"] * 2
    assert rows(lake, "SELECT day, id FROM logs") == [["2013-04-01", "a"]]
    assert ask(lake, "DROP TABLE logs").state == "SUCCEEDED"
    assert ask(lake, "DROP TABLE logs").state == "FAILED"
    assert ask(lake, "DROP TABLE IF EXISTS logs").state == "SUCCEEDED"
    assert keys(lake, "logs/") == ["logs/1/a.json"], "the data stay"


# Which partitions a query needs, told from its text.

P = "(SELECT * FROM (VALUES (1, '1', 10), (2, '2', 20), (3, '3', NULL)) AS v(n, p, x))"


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("SELECT * FROM t WHERE p = '1' AND x > 1", ["p = '1'"]),
        ("SELECT * FROM t WHERE p = '1' OR x > 1", []),
        ("SELECT * FROM (SELECT n, p AS q FROM t) AS s WHERE q > '1'", ["p > '1'"]),
        ("SELECT * FROM (SELECT n, p FROM t LIMIT 1) AS s WHERE p > '1'", []),
        ("SELECT * FROM (SELECT n, p, row_number() OVER (ORDER BY n) AS r FROM t) AS s WHERE p > '1'", []),
        ("SELECT * FROM (SELECT p, sum(n) AS s FROM t GROUP BY p) AS g WHERE p IN ('1', '3')", ["p IN ('1', '3')"]),
        ("SELECT * FROM (SELECT max(p) AS p FROM t) AS g WHERE p = '1'", []),
        ("SELECT a.n FROM t AS a LEFT JOIN t AS b ON a.n = b.n + 1 WHERE b.p IS NULL", []),
        ("SELECT a.n FROM t AS a LEFT JOIN t AS b ON a.n = b.n + 1 WHERE a.p >= '2' AND coalesce(b.p, '') = ''", ["p >= '2'"]),
        ("SELECT a.n FROM t AS a JOIN t AS b ON a.p = b.p WHERE b.p < '3'", ["p < '3'"]),
        ("SELECT a.n FROM t AS a RIGHT JOIN t AS b ON a.n = b.n WHERE a.p = '1'", []),
        ("WITH t2 AS (SELECT * FROM t WHERE p <> '2') SELECT * FROM t2 WHERE p = '1'", ["p <> '2'"]),
        ("SELECT * FROM t AS s(a, p, c) WHERE p = '1'", []),
        ("SELECT n FROM t WHERE p = (SELECT max(p) FROM t)", []),
        ("SELECT n FROM t WHERE NOT p = '1' AND p BETWEEN '1' AND '2'", ["NOT p = '1'", "p BETWEEN '1' AND '2'"]),
    ],
)
def test_rows_of_partitions_that_are_left_out_would_not_have_been_in_the_answer(query, told):
    tree = athena_sql.read(query, [], "shop").query
    found = athena_sql.tables(tree)
    terms = [athena_sql.partition_terms(each, ["p"]) for each in found]
    assert [term.sql("duckdb") for each in terms for term in each] == told
    with duckdb.connect() as connection:
        answers = []
        for chosen in ([[] for _ in terms], terms):
            views = []
            for number, each in enumerate(chosen):
                views.append(f"v{number}")
                where = " AND ".join(f"({term.sql('duckdb')})" for term in each) or "TRUE"
                connection.execute(f"CREATE OR REPLACE TEMP VIEW v{number} AS SELECT * FROM {P} WHERE {where}")
            answers.append(sorted(connection.execute(athena_sql.duckdb(tree, views, {})).fetchall(), key=str))
    assert answers[0] == answers[1]


# The SQL of this repository.

DAYS = [date(2013, 3, 29), date(2013, 3, 30), date(2013, 3, 31), date(2013, 4, 1)]
HIVE = {"BIGINT": "bigint", "VARCHAR": "string", "DOUBLE": "double", "TIMESTAMP": "timestamp", "BOOLEAN": "boolean"}
MODELS = ("flight_delays", "arrival_minutes")
CELLS: dict[str, dict[str, Any]] = {
    "distance": {"kind": "numeric", "edges": [-0.1, 500.0, 2475.0]},
    "carrier": {"kind": "categorical", "values": ["B6", "O'Hare \\ Sons"]},
}
SCORES = """
    SELECT flight_id, (hash(flight_id) % 1000)::DOUBLE / 1000 AS score, hash(flight_id) % 3 = 0 AS decision,
           '3' AS model_version, 'r' AS run_id, TIMESTAMP '2013-04-02' AS scored_at, 'abc' AS git_revision
    FROM read_parquet('{}')"""


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[LocalCloud, Path]]:
    """A few days of the demo and predictions of them, in a local cloud of its own and in a folder."""
    folder = tmp_path_factory.mktemp("lake")
    land(folder, DAYS[0], DAYS[-1])
    land_outcomes(folder, DAYS[0], DAYS[-1])
    with duckdb.connect() as connection:
        for day in DAYS:
            place = folder / "predictions" / "flights" / f"partition_date={day}"
            place.mkdir(parents=True)
            scores = SCORES.format(folder / "source" / "flights" / f"partition_date={day}" / "data.parquet")
            connection.execute(f"COPY ({scores}) TO '{place / 'data.parquet'}' (FORMAT parquet)")
    with LocalCloud(tmp_path_factory.mktemp("flights"), start_seconds=0, job_seconds=0) as cloud:
        cloud.client("s3").create_bucket(Bucket=BUCKET)
        for database in ("source", "predictions", "shop"):
            cloud.client("glue").create_database(DatabaseInput={"Name": database})
        for database, name in [("source", name) for name in ("flights", "weather", "planes", "flight_outcomes")] + [
            ("predictions", "flights")
        ]:
            _landed(cloud, database, name, folder / database / name)
        orders(cloud)
        yield cloud, folder


@pytest.fixture
def shop(flights: tuple[LocalCloud, Path]) -> LocalCloud:
    """For tests that change nothing: the same cloud for all of them."""
    return flights[0]


def _landed(cloud: LocalCloud, database: str, name: str, folder: Path) -> None:
    glue = cloud.client("glue")
    files = sorted(folder.rglob("*.parquet"))
    with duckdb.connect() as connection:
        described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet('{files[0]}', hive_partitioning=false)").fetchall()
    columns = {column: HIVE[kind] for column, kind, *_ in described}
    by_day = files[0].parent != folder
    where = f"s3://{BUCKET}/{database}/{name}"
    table(cloud, name, columns, where, {"partition_date": "date"} if by_day else None, database=database)
    for file in files:
        cloud.client("s3").upload_file(str(file), BUCKET, f"{database}/{name}/{file.relative_to(folder)}")
        if by_day:
            day = file.parent.name.removeprefix("partition_date=")
            given = {"Values": [day], "StorageDescriptor": storage(columns, f"{where}/{file.parent.name}/")}
            glue.create_partition(DatabaseName=database, TableName=name, PartitionInput=given)


def _by_folder(folder: Path) -> str:
    if not any(folder.glob("partition_date=*")):
        return f"read_parquet('{folder}/*.parquet')"
    return f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true, hive_types = {{'partition_date': DATE}})"


def _statement(model: ModelConfig, name: str, dialect: queries.Dialect, folder: Path) -> queries.Query:
    athena = dialect == "athena"
    tables = {
        each: f'"awsdatacatalog"."source"."{each}"' if athena else _by_folder(folder / "source" / each)
        for each in queries.table_names(model)
    }
    published = '"awsdatacatalog"."predictions"."flights"' if athena else _by_folder(folder / "predictions" / "flights")
    if name.startswith("profile"):
        scored = monitoring_sql.Predictions(published, "3", {"kind": "numeric", "edges": [0.5]})
        sample = float(name.partition(" ")[2])
        return monitoring_sql.profile(model, dialect, tables, CELLS, scored, [("distance", "score")], sample).query
    if name == "quality":
        return monitoring_sql.quality(model, dialect, tables, published, ["carrier", "origin"])
    if name == "label_sample":
        return monitoring_sql.label_sample(model, dialect, tables, published, "3", [0.2, 0.5], 5, "request")
    rendered: queries.Query = getattr(queries, name)(model, dialect, tables)
    return rendered


STATEMENTS = [*(query.__name__ for query in queries.QUERIES), "profile 1", "profile 0.1", "quality", "label_sample"]


@pytest.mark.parametrize("name", STATEMENTS)
@pytest.mark.parametrize("model", MODELS)
def test_the_sql_of_the_models_answers_as_on_duckdb(flights, model, name):
    cloud, folder = flights
    loaded = load_model(model)
    asked = _statement(loaded, name, "athena", folder)
    answer = ask(cloud, asked.sql, [f"DATE '{DAYS[-1]}'"] * len(asked.parameters))
    assert answer.state == "SUCCEEDED", answer.reason
    with duckdb.connect() as connection:
        query = _statement(loaded, name, "duckdb", folder)
        result = connection.execute(query.sql, dict.fromkeys(query.parameters, DAYS[-1]))
        names = [column[0] for column in result.description or ()]
        wanted = [[athena_results.text(value, "") for value in row] for row in result.fetchall()]
    assert answer.header == names
    assert len(answer.rows) == len(wanted)
    for found, due in zip(sorted(answer.rows, key=_shown), sorted(wanted, key=_shown), strict=True):
        assert all(map(_same, found, due)), (found, due)


def _shown(row: list[str | None]) -> list[str]:
    return [str(_number(value)) for value in row]


def _number(value: str | None) -> float | str | None:
    try:
        return None if value is None else float(value)
    except ValueError:
        return value


def _same(found: str | None, due: str | None) -> bool:
    a, b = _number(found), _number(due)
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-12))


@pytest.mark.parametrize("stage", ["source", "features", "predictions"])
def test_great_expectations_asks_athena(flights, stage, monkeypatch, tmp_path):
    cloud, folder = flights
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    model = load_model("flight_delays")
    if stage == "features" and not keys(cloud, "features/"):
        features = _statement(model, "accepted_features", "athena", folder)
        made = f"CREATE TABLE predictions.features WITH (external_location = 's3://{BUCKET}/features/') AS {features.sql}"
        assert ask(cloud, made, [f"DATE '{DAYS[-1]}'"] * len(features.parameters)).state == "SUCCEEDED"
    source = {"source": "source.flights", "features": "predictions.features", "predictions": "predictions.flights"}[stage]
    dataset = validation.Dataset(
        f"SELECT * FROM {source} WHERE partition_date = DATE '{DAYS[-1]}'",
        "awsathena+rest://@athena.us-east-1.amazonaws.com:443/source"
        f"?s3_staging_dir=s3%3A%2F%2F{BUCKET}%2Fgx%2F&poll_interval=0.05",
    )
    suite = validation.suite_file("flight_delays", stage)
    limits = {"rows_low": 1.0, "rows_high": 2000.0}
    report = validation.run_suite(suite, dataset, limits, str(tmp_path / "page.html"), validation.stage_columns(model, stage))
    assert report.success, report.summary()
    if stage == "source":
        few = {"rows_low": 5000.0, "rows_high": 9000.0}
        report = validation.run_suite(suite, dataset, few, str(tmp_path / "page.html"), validation.stage_columns(model, stage))
        assert [check.expectation for check in report.failed] == ["expect_table_row_count_to_be_between"]
