"""BigQuery's datasets, tables and jobs, as Google's own clients and the provider's hooks use them."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import BadRequest, Conflict, GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud import bigquery

from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
DAY, NEXT = date(2013, 4, 1), date(2013, 4, 2)
PER_DAY = bigquery.TimePartitioning(field="day")
FIELDS = [bigquery.SchemaField("day", "DATE"), bigquery.SchemaField("name", "STRING"), bigquery.SchemaField("n", "INT64")]
Reason = Callable[..., str]


@pytest.fixture
def client(cloud: GoogleCloud) -> bigquery.Client:
    client = bigquery.Client(PROJECT)
    client.create_dataset("shop")
    return client


@pytest.fixture
def table(client: bigquery.Client) -> str:
    """Three rows of two days."""
    name = f"{PROJECT}.shop.sales"
    made = bigquery.Table(name, FIELDS)
    made.time_partitioning = PER_DAY
    client.create_table(made)
    ask(client, f"INSERT `{name}` (day, name, n) VALUES ('2013-04-01', 'a', 1), ('2013-04-01', NULL, 2), ('2013-04-02', 'c', 3)")
    return name


def ask(client: bigquery.Client, sql: str, *parameters: Any, **options: Any) -> list[tuple[Any, ...]]:
    config = bigquery.QueryJobConfig(query_parameters=list(parameters), **options)
    return [tuple(row.values()) for row in client.query(sql, config).result()]


def rows(client: bigquery.Client, table: str) -> list[tuple[Any, ...]]:
    return sorted((tuple(row.values()) for row in client.list_rows(table)), key=str)


def failed(job: Any) -> tuple[str, str]:
    """The reason and the message of a job that fails."""
    with pytest.raises(GoogleAPICallError):
        job.result()
    job.reload()
    return job.error_result["reason"], job.error_result["message"]


def parquet(cloud_rows: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(cloud_rows, buffer)
    return buffer.getvalue()


def test_values_of_all_types_come_back(client: bigquery.Client) -> None:
    sql = """SELECT 1 AS i, 2.5 AS f, CAST('nan' AS FLOAT64) AS nan, TRUE AS b, 'é' AS s, b'\\x00\\xff' AS bytes,
      DATE '2013-04-01' AS d,
      TIMESTAMP '2013-04-01 10:20:30.000001 UTC' AS ts, DATETIME '2013-04-01 10:20:30' AS dt, TIME '10:20:30' AS t,
      NUMERIC '1.25' AS num, [1, 2] AS list, STRUCT(1 AS x, [STRUCT('y' AS y)] AS ys) AS record,
      CAST(NULL AS STRING) AS nothing"""
    answer = client.query(sql).result()
    assert [field.field_type for field in answer.schema] == [
        *("INTEGER", "FLOAT", "FLOAT", "BOOLEAN", "STRING", "BYTES", "DATE", "TIMESTAMP", "DATETIME", "TIME", "NUMERIC"),
        *("INTEGER", "RECORD", "STRING"),
    ]
    row = next(iter(answer))
    assert str(row.nan) == "nan"
    assert (row.i, row.f, row.b, row.s, row.bytes, row.nothing) == (1, 2.5, True, "é", b"\x00\xff", None)
    assert (row.d, row.dt) == (DAY, datetime(2013, 4, 1, 10, 20, 30))
    assert row.ts == datetime(2013, 4, 1, 10, 20, 30, 1, UTC)
    assert (str(row.t), str(row.num), row.list, row.record) == ("10:20:30", "1.25", [1, 2], {"x": 1, "ys": [{"y": "y"}]})


def test_tables_know_their_rows_and_partitions(client: bigquery.Client, table: str) -> None:
    found = client.get_table(table)
    assert (found.num_rows, found.num_bytes, found.time_partitioning.field) == (3, 3 * 8 + 3 + 3 + 3 * 8, "day")
    assert client.list_partitions(table) == ["20130401", "20130402"]
    assert client.get_table(f"{table}$20130402").num_rows == 1
    first = dict(ask(client, "SELECT partition_id, last_modified_time FROM shop.INFORMATION_SCHEMA.PARTITIONS"))
    ask(client, f"UPDATE `{table}` SET n = 4 WHERE day = '2013-04-02'")
    again = dict(ask(client, "SELECT partition_id, last_modified_time FROM shop.INFORMATION_SCHEMA.PARTITIONS"))
    assert first["20130401"] == again["20130401"]
    assert first["20130402"] < again["20130402"]
    assert [each.table_id for each in client.list_tables("shop")] == ["sales"]
    assert client.get_table(table).modified > found.modified


def test_tables_are_made_changed_and_deleted(client: bigquery.Client, table: str) -> None:
    with pytest.raises(Conflict):
        client.create_table(bigquery.Table(table, FIELDS))
    found = client.get_table(table)
    found.labels, found.description = {"model": "x"}, "what was sold"
    found.expires = datetime.now(UTC) + timedelta(hours=1)
    found.schema = [*found.schema, bigquery.SchemaField("more", "FLOAT64")]
    changed = client.update_table(found, ["labels", "description", "expires", "schema"])
    assert (changed.labels, changed.description, changed.schema[-1].name) == ({"model": "x"}, "what was sold", "more")
    with pytest.raises(PreconditionFailed):
        client.update_table(found, ["description"])  # it was changed since it was looked at
    changed.labels, changed.expires = {"model": None, "kind": "y"}, datetime.now(UTC) + timedelta(milliseconds=50)
    assert client.update_table(changed, ["labels", "expires"]).labels == {"kind": "y"}
    time.sleep(0.1)
    with pytest.raises(NotFound):
        client.get_table(table)
    client.create_table(bigquery.Table(table, FIELDS))
    client.delete_table(table)
    with pytest.raises(NotFound):
        client.delete_table(table)


def test_a_job_with_an_id_is_done_once(client: bigquery.Client, table: str) -> None:
    sql = f"INSERT `{table}` (day) VALUES ('2013-04-03')"
    client.query(sql, job_id="once", job_retry=None).result()
    with pytest.raises(Conflict, match=r"Already Exists: Job local-project:US\.once"):
        client._connection.api_request(
            method="POST",
            path=f"/projects/{PROJECT}/jobs",
            data={
                "jobReference": {"jobId": "once", "projectId": PROJECT},
                "configuration": {"query": {"query": sql, "useLegacySql": False}},
            },
        )
    assert client.get_table(table).num_rows == 4
    failing = client.query("SELECT * FROM shop.nothing", job_id="failed", job_retry=None)
    assert failed(failing) == ("notFound", "Not found: Table local-project:shop.nothing was not found in location US")
    with pytest.raises(Conflict):
        client._connection.api_request(
            method="POST",
            path=f"/projects/{PROJECT}/jobs",
            data={
                "jobReference": {"jobId": "failed", "projectId": PROJECT},
                "configuration": {"query": {"query": sql, "useLegacySql": False}},
            },
        )


def test_jobs_take_their_time_and_can_be_cancelled(client: bigquery.Client, table: str, cloud: GoogleCloud) -> None:
    cloud.fault("hang", "bigquery", "jobs.insert")
    job = client.query(f"DELETE FROM `{table}` WHERE TRUE", job_id="hangs", job_retry=None)
    assert job.state in ("PENDING", "RUNNING")
    assert not job.done()
    job.cancel()
    assert failed(job) == ("stopped", "Job execution was cancelled: User requested cancellation")
    assert job.state == "DONE"
    assert client.get_table(table).num_rows == 3
    assert next(each.job_id for each in client.list_jobs(state_filter="done")) == "hangs"


def test_a_job_may_fail_by_a_fault_or_by_its_limit(client: bigquery.Client, cloud: GoogleCloud) -> None:
    cloud.fault("fail", "bigquery", "jobs.insert", reason="quotaExceeded: too much of it")
    assert failed(client.query("SELECT 1", job_retry=None)) == ("quotaExceeded", "too much of it")
    cloud.fault("hang", "bigquery", "jobs.insert")
    late = client.query("SELECT 1", bigquery.QueryJobConfig(job_timeout_ms=1000), job_retry=None)
    assert failed(late) == ("stopped", "Job execution was cancelled: Job timed out after 1 sec")


def test_what_a_query_would_cost(client: bigquery.Client, table: str) -> None:
    parameter = bigquery.ScalarQueryParameter("day", "DATE", DAY)
    sql = f"SELECT n FROM (SELECT * FROM `{table}`) WHERE day BETWEEN @day AND DATE_ADD(@day, INTERVAL 0 DAY)"
    dry = client.query(sql, bigquery.QueryJobConfig(dry_run=True, query_parameters=[parameter]))
    assert (dry.total_bytes_processed, dry.state, [field.name for field in dry.schema]) == (2 * 8 + 2 * 8, "DONE", ["n"])
    with pytest.raises(BadRequest, match=r"Unrecognized name: m at \[1:8\]"):
        client.query(f"SELECT m FROM `{table}`", bigquery.QueryJobConfig(dry_run=True))
    done = client.query(sql, bigquery.QueryJobConfig(query_parameters=[parameter], maximum_bytes_billed=10 * 1024 * 1024))
    done.result()
    assert (done.total_bytes_processed, done.total_bytes_billed, done.cache_hit) == (32, 10 * 1024 * 1024, False)
    assert [ref.table_id for ref in done.referenced_tables] == ["sales"]
    dear = client.query(sql, bigquery.QueryJobConfig(query_parameters=[parameter], maximum_bytes_billed=1024 * 1024))
    assert failed(dear)[0] == "bytesBilledLimitExceeded"
    assert "10485760 or higher required" in dear.error_result["message"]


def test_a_table_may_ask_for_a_filter(client: bigquery.Client, table: str) -> None:
    found = client.get_table(table)
    found.require_partition_filter = True
    client.update_table(found, ["require_partition_filter"])
    for unfiltered in (
        f"SELECT * FROM `{table}`",
        f"SELECT * FROM `{table}` WHERE n = 1 OR day = '2013-04-01'",
        f"SELECT * FROM `{table}` WHERE EXTRACT(YEAR FROM day) = n",
        f"SELECT * FROM (SELECT *, ROW_NUMBER() OVER (ORDER BY n) AS number FROM `{table}`) WHERE day = '2013-04-01'",
        f"SELECT b.n FROM UNNEST([1]) AS a LEFT JOIN `{table}` b ON a = b.n WHERE b.n > 0",
        f"DELETE FROM `{table}` WHERE TRUE",
    ):
        reason, message = failed(client.query(unfiltered, job_retry=None))
        assert (reason, message[:64]) == ("invalidQuery", f"Cannot query over table '{table}' without a filter"[:64]), unfiltered
    for filtered in (
        f"SELECT COUNT(*) FROM (SELECT *, ROW_NUMBER() OVER (PARTITION BY day) AS m FROM `{table}`) WHERE day = '2013-04-01'",
        f"WITH all_days AS (SELECT * FROM `{table}`) SELECT COUNT(*) FROM all_days WHERE day = '2013-04-01'",
        f"SELECT n FROM (SELECT day, COUNT(*) AS n FROM `{table}` GROUP BY day) WHERE day = '2013-04-01'",
    ):
        assert ask(client, filtered) == [(2,)]


def test_a_query_fills_a_partition(client: bigquery.Client, table: str) -> None:
    into = f"{table}$20130402"
    one = "SELECT DATE '2013-04-02' AS day, 'x' AS name, 9 AS n"
    for _ in range(2):
        ask(client, one, destination=into, write_disposition="WRITE_TRUNCATE")
    assert rows(client, into) == [(NEXT, "x", 9)]
    ask(client, one, destination=into, write_disposition="WRITE_APPEND")
    assert client.get_table(table).num_rows == 4
    config = bigquery.QueryJobConfig(destination=into, write_disposition="WRITE_TRUNCATE")
    reason, message = failed(client.query("SELECT DATE '2013-04-03' AS day, 'x' AS name, 9 AS n", config, job_retry=None))
    assert (reason, "Some rows belong to different partitions" in message) == ("invalid", True)
    assert len(rows(client, into)) == 2
    config.write_disposition = "WRITE_EMPTY"
    assert failed(client.query(one, config, job_retry=None)) == (
        "duplicate",
        f"Already Exists: Table {PROJECT}:shop.sales$20130402",
    )
    config = bigquery.QueryJobConfig(destination=f"{PROJECT}.shop.new", time_partitioning=PER_DAY, clustering_fields=["name"])
    client.query(one, config).result()
    made = client.get_table("shop.new")
    assert (made.time_partitioning.field, made.clustering_fields, made.num_rows) == ("day", ["name"], 1)
    config = bigquery.QueryJobConfig(destination=into, write_disposition="WRITE_APPEND")
    assert failed(client.query("SELECT DATE '2013-04-02' AS day, 1 AS name", config, job_retry=None))[0] == "invalid"


def test_readers_see_a_partition_before_or_after(client: bigquery.Client, table: str) -> None:
    """While one job after another replaces it, nobody sees it empty or mixed."""
    jobs = [
        client.query(
            f"SELECT DATE '2013-04-02' AS day, '{name}' AS name, n FROM UNNEST(GENERATE_ARRAY(1, 1000)) AS n",
            bigquery.QueryJobConfig(destination=f"{table}$20130402", write_disposition="WRITE_TRUNCATE"),
        )
        for name in "xyz"
    ]
    seen = set()
    while not all(job.done() for job in jobs):
        found = ask(client, f"SELECT name, COUNT(*) FROM `{table}` WHERE day = '2013-04-02' GROUP BY name")
        assert found in ([("c", 1)], [("x", 1000)], [("y", 1000)], [("z", 1000)])
        seen.add(found[0][0])
    assert [job.error_result for job in jobs] == [None] * 3
    assert seen


def test_statements_define_and_change_tables(client: bigquery.Client, table: str) -> None:
    ask(client, """CREATE TABLE shop.copy PARTITION BY day CLUSTER BY name
        OPTIONS (expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL 1 HOUR), labels = [('run', 'x')])
        AS SELECT * FROM shop.sales""")  # fmt: skip
    made = client.get_table("shop.copy")
    assert (made.num_rows, made.labels, made.clustering_fields) == (3, {"run": "x"}, ["name"])
    assert timedelta(minutes=50) < made.expires - datetime.now(UTC) < timedelta(minutes=70)
    again = client.query("CREATE TABLE IF NOT EXISTS shop.copy (day DATE)")
    again.result()
    assert again.ddl_operation_performed == "SKIP"
    ask(client, "ALTER TABLE shop.copy SET OPTIONS (labels = [('run', 'y')], expiration_timestamp = NULL)")
    assert (client.get_table("shop.copy").labels, client.get_table("shop.copy").expires) == ({"run": "y"}, None)
    merge = client.query("""MERGE shop.copy t USING (SELECT DATE '2013-04-01' AS day, 1 AS n, 'new' AS name UNION ALL
        SELECT DATE '2013-04-05', 7, 'seven') s ON t.n = s.n AND t.day = s.day
        WHEN MATCHED THEN UPDATE SET name = s.name WHEN NOT MATCHED THEN INSERT (day, name, n) VALUES (s.day, s.name, s.n)
        WHEN NOT MATCHED BY SOURCE AND t.n = 3 THEN DELETE""")
    merge.result()
    assert (merge.num_dml_affected_rows, merge.dml_stats.inserted_row_count) == (3, 1)
    assert rows(client, "shop.copy") == [(DAY, "new", 1), (DAY, None, 2), (date(2013, 4, 5), "seven", 7)]
    assert client.list_partitions("shop.copy") == ["20130401", "20130405"]
    twice = client.query("UPDATE shop.copy t SET name = 'z' FROM UNNEST([1, 1]) AS s WHERE t.n = s", job_retry=None)
    assert failed(twice)[1] == "UPDATE/MERGE must match at most one source row for each target row"
    ask(client, "DROP TABLE shop.copy")
    ask(client, "DROP TABLE IF EXISTS shop.copy")
    assert failed(client.query("DROP TABLE shop.copy", job_retry=None))[0] == "notFound"


def test_files_are_loaded(client: bigquery.Client, cloud: GoogleCloud) -> None:
    bucket = cloud.bucket("lake")
    for day, number in (("2013-04-01", 1), ("2013-04-02", 2)):
        content = pa.table({"name": ["a", None], "n": [number, number], "at": [datetime(2013, 4, 1, 12)] * 2})
        bucket.blob(f"sales/day={day}/x.parquet").upload_from_string(parquet(content))
    schema = [
        bigquery.SchemaField("name", "STRING"),
        bigquery.SchemaField("n", "FLOAT64"),
        bigquery.SchemaField("at", "DATETIME"),
    ]
    plain = {"source_format": "PARQUET", "write_disposition": "WRITE_TRUNCATE"}
    load = client.load_table_from_uri("gs://lake/sales/*.parquet", "shop.plain", job_config=bigquery.LoadJobConfig(**plain))
    load.result()
    assert (load.output_rows, load.input_files) == (4, 2)
    assert [field.field_type for field in client.get_table("shop.plain").schema] == ["STRING", "INTEGER", "TIMESTAMP"]
    days = bigquery.HivePartitioningOptions()
    days.mode, days.source_uri_prefix = "CUSTOM", "gs://lake/sales/{day:DATE}"
    config = bigquery.LoadJobConfig(**plain, schema=[*schema, bigquery.SchemaField("day", "DATE")], hive_partitioning=days)
    config.time_partitioning = PER_DAY
    for uri, into in (("gs://lake/sales/*.parquet", ""), ("gs://lake/sales/day=2013-04-02/*", "$20130402")):
        client.load_table_from_uri(uri, f"shop.days{into}", job_config=config).result()
    assert rows(client, "shop.days$20130402")[0] == ("a", 2.0, datetime(2013, 4, 1, 12), NEXT)
    assert client.list_partitions("shop.days") == ["20130401", "20130402"]
    wrong = client.load_table_from_uri("gs://lake/sales/day=2013-04-01/*", "shop.days$20130402", job_config=config)
    assert "Some rows belong to different partitions" in failed(wrong)[1]
    missing = client.load_table_from_uri("gs://lake/nothing/*", "shop.days", job_config=config)
    assert failed(missing) == ("notFound", "Not found: URI gs://lake/nothing/*")
    config = bigquery.LoadJobConfig(source_format="PARQUET", schema=[bigquery.SchemaField("name", "INT64"), *schema[1:]])
    assert "does not match" in failed(client.load_table_from_uri("gs://lake/sales/*", "shop.other", job_config=config))[1]
    with pytest.raises(NotFound):
        client.get_table("shop.other")


def test_tables_are_extracted_and_copied(client: bigquery.Client, table: str, cloud: GoogleCloud) -> None:
    bucket = cloud.bucket("lake")
    config = bigquery.ExtractJobConfig(destination_format="PARQUET", compression="ZSTD")
    extract = client.extract_table(f"{table}$20130401", "gs://lake/out/part-*.parquet", job_config=config)
    extract.result()
    assert extract.destination_uri_file_counts == [1]
    found = pq.read_table(io.BytesIO(bucket.blob("out/part-000000000000.parquet").download_as_bytes()))
    assert found.to_pylist() == [{"day": DAY, "name": "a", "n": 1}, {"day": DAY, "name": None, "n": 2}]
    assert (
        pq
        .ParquetFile(io.BytesIO(bucket.blob("out/part-000000000000.parquet").download_as_bytes()))
        .metadata.row_group(0)
        .column(0)
        .compression
        == "ZSTD"
    )
    client.copy_table(table, "shop.twin").result()
    assert (client.get_table("shop.twin").num_rows, client.get_table("shop.twin").time_partitioning.field) == (3, "day")
    assert failed(client.copy_table(table, "shop.twin"))[0] == "duplicate"
    truncate = bigquery.CopyJobConfig(write_disposition="WRITE_TRUNCATE")
    client.copy_table(f"{table}$20130402", "shop.twin$20130402", job_config=truncate).result()
    assert client.get_table("shop.twin").num_rows == 3
    assert "Some rows" in failed(client.copy_table(f"{table}$20130402", "shop.twin$20130401", job_config=truncate))[1]
    client.copy_table([table, "shop.twin"], "shop.both").result()
    assert client.get_table("shop.both").num_rows == 6
    frozen = bigquery.CopyJobConfig(operation_type="SNAPSHOT")
    frozen.destination_expiration_time = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    client.copy_table(table, "shop.frozen", job_config=frozen).result()
    assert client.get_table("shop.frozen").table_type == "SNAPSHOT"
    assert failed(client.query("DELETE FROM shop.frozen WHERE TRUE", job_retry=None))[0] == "invalidQuery"


def test_rows_come_in_pages_and_in_arrow(client: bigquery.Client) -> None:
    ask(client, "CREATE TABLE shop.many AS SELECT n, CAST(n AS STRING) AS text, TIMESTAMP_SECONDS(n) AS moment"
        " FROM UNNEST(GENERATE_ARRAY(1, 12345)) AS n")  # fmt: skip
    assert [row.n for row in client.query("SELECT n FROM shop.many ORDER BY n DESC").result(page_size=1000)] == [
        *range(12345, 0, -1)
    ]
    pages = client.list_rows("shop.many", page_size=5000).pages
    assert [page.num_items for page in pages] == [5000, 5000, 2345]
    found = client.list_rows("shop.many").to_arrow(create_bqstorage_client=True)
    assert (found.num_rows, sum(found["n"].to_pylist())) == (12345, 12345 * 12346 // 2)
    assert found.schema.field("moment").type == pa.timestamp("us", "UTC")
    frame = client.query("SELECT * FROM shop.many WHERE n <= 3 ORDER BY n").to_dataframe()
    assert frame["text"].tolist() == ["1", "2", "3"]


def test_read_sessions_choose_columns_and_rows(client: bigquery.Client, table: str) -> None:
    from google.cloud import bigquery_storage

    reader = bigquery_storage.BigQueryReadClient()
    asked = bigquery_storage.types.ReadSession(
        table=f"projects/{PROJECT}/datasets/shop/tables/sales",
        data_format="ARROW",
        read_options={"selected_fields": ["n", "name"], "row_restriction": "day = '2013-04-01' AND n > 1"},
    )
    session = reader.create_read_session(parent=f"projects/{PROJECT}", read_session=asked)
    assert [reader.read_rows(each.name).to_arrow(session).to_pylist() for each in session.streams] == [[{"name": None, "n": 2}]]


def test_what_is_not_known_is_refused(client: bigquery.Client, table: str) -> None:
    def post(path: str, body: dict[str, Any]) -> None:
        client._connection.api_request(method="POST", path=f"/projects/{PROJECT}/{path}", data=body)

    query = {"query": "SELECT 1", "useLegacySql": False}
    reference = {"projectId": PROJECT, "datasetId": "shop", "tableId": "new"}
    for body, named in (
        ({"configuration": {"query": {"query": "SELECT 1"}}}, "useLegacySql"),
        ({"configuration": {"query": {**query, "schemaUpdateOptions": ["ALLOW_FIELD_ADDITION"]}}}, "schemaUpdateOptions"),
        ({"configuration": {"query": {**query, "rangePartitioning": {"field": "n"}}}}, "rangePartitioning"),
        ({"configuration": {"load": {"destinationTable": reference, "sourceFormat": "CSV"}}}, "sourceFormat=CSV"),
    ):
        with pytest.raises(GoogleAPICallError, match=named) as refused:
            post("jobs", body)
        assert refused.value.code == 501
    for sql, named in (
        ("SELECT FORMAT('%05d', 42)", "FORMAT"),
        ("SELECT * FROM shop.sales FOR SYSTEM_TIME AS OF CURRENT_TIMESTAMP()", "FOR SYSTEM_TIME AS OF"),
        ("SELECT FARM_FINGERPRINT('x')", "FARM_FINGERPRINT"),
        ("CREATE TEMP TABLE t AS SELECT 1 AS x", "CREATE TEMP TABLE"),
        ("SELECT * FROM `shop.sales_*`", "sales_"),
        ("CREATE VIEW shop.v AS SELECT 1 AS x", "CreateView"),
    ):
        reason, message = failed(client.query(sql, job_retry=None))
        assert (reason, named in message) == ("notImplemented", True), (sql, reason, message)
    for sql, message in (
        ("SELECT 'a' = 1", "No matching signature for operator = for argument types: STRING, INT64"),
        ("SELECT name, n FROM shop.sales GROUP BY name", "SELECT list expression references column n"),
        ("SELECT n, n FROM shop.sales", "Duplicate column names"),
        ("SELECT NO_SUCH(n) FROM shop.sales", "Function not found: NO_SUCH"),
        ("SELECT 1 / (n - n) FROM shop.sales", "division by zero"),
        ("SELECT * FROM sales", "must be qualified with a dataset"),
        ("SELECT @x", "Query parameter 'x' not found"),
    ):
        reason, said = failed(client.query(sql, job_retry=None))
        assert (reason, message in said) == ("invalidQuery", True), (sql, reason, said)


def test_a_query_that_takes_long_is_asked_for_again(client: bigquery.Client, cloud: GoogleCloud) -> None:
    body = {"query": "SELECT 7 AS n", "useLegacySql": False, "timeoutMs": 1, "requestId": "one"}
    path = f"/projects/{PROJECT}/queries"
    first = client._connection.api_request(method="POST", path=path, data=body)
    again = client._connection.api_request(method="POST", path=path, data=body)
    assert (first["jobComplete"], "rows" in first) == (False, False)
    assert again["jobReference"] == first["jobReference"]
    id = first["jobReference"]["jobId"]
    found = client._connection.api_request(method="GET", path=f"{path}/{id}", query_params={"timeoutMs": 9000})
    assert (found["jobComplete"], found["rows"], found["totalRows"]) == (True, [{"f": [{"v": "7"}]}], "1")
    assert [job["name"] for job in cloud.jobs("query job")] == [id]


def test_all_is_there_after_a_restart(running_google: GoogleCloud, tmp_path: Path, as_client: Any) -> None:
    own = GoogleCloud(tmp_path / "own")
    own.start()
    as_client(own)
    client = bigquery.Client(PROJECT)
    client.create_dataset("shop")
    job = client.query("CREATE TABLE shop.t AS SELECT 1 AS n")
    job.result()
    answer = client.query("SELECT n FROM shop.t", job_id="asked")
    answer.result()
    own.fault("hang", "bigquery", "jobs.insert")
    client.query("DELETE FROM shop.t WHERE TRUE", job_id="hangs", job_retry=None)
    assert own.process is not None
    own.process.kill()
    own.process.wait(30)
    own.start()
    as_client(own)
    client = bigquery.Client(PROJECT)
    assert rows(client, "shop.t") == [(1,)]
    assert [tuple(row) for row in client.get_job("asked").result()] == [(1,)]
    lost = client.get_job("hangs")
    assert (lost.state, lost.error_result["reason"]) == ("DONE", "backendError")
    own.stop()


def test_the_hooks_of_the_provider(client: bigquery.Client, table: str, cloud: GoogleCloud) -> None:
    from airflow.providers.google.cloud.hooks.bigquery import BigQueryAsyncHook, BigQueryHook

    hook = BigQueryHook(use_legacy_sql=False, location="US")
    configuration = {"query": {"query": f"SELECT COUNT(*) AS n FROM `{table}`", "useLegacySql": False}, "labels": {"dag": "x"}}
    job = hook.insert_job(configuration=configuration, job_id="counted", project_id=PROJECT, location="US", nowait=True)
    assert [tuple(row) for row in job.result()] == [(3,)]
    assert hook.get_job(job_id="counted", project_id=PROJECT, location="US").labels["dag"] == "x"

    async def status() -> Any:
        other = BigQueryAsyncHook(gcp_conn_id="google_cloud_default")
        return await other.get_job_status(job_id="counted", project_id=PROJECT, location="US")

    assert asyncio.run(status())["status"] == "success"
    assert hook.get_df(f"SELECT n FROM `{table}` ORDER BY n", dialect="standard")["n"].tolist() == [1, 2, 3]
