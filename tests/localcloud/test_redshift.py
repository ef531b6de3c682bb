"""Redshift's Data API in the local cloud: statements, transactions, and loading what lies in S3."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.queries import BUCKET, put

pytestmark = pytest.mark.localcloud

WHERE = {"Database": "dev", "WorkgroupName": "results"}
CREATE = """CREATE TABLE IF NOT EXISTS predictions (
    id VARCHAR(256) NOT NULL ENCODE lzo, day DATE, score DOUBLE PRECISION, PRIMARY KEY (id)) DISTKEY(id) SORTKEY(day)"""
ROLE = "IAM_ROLE 'arn:aws:iam::123456789012:role/redshift'"
DAY = [{"name": "day", "value": "2013-04-01"}]


def copy(prefix: str) -> str:
    return f"COPY predictions FROM 's3://{BUCKET}/{prefix}' {ROLE} FORMAT AS PARQUET"


@pytest.fixture
def redshift(cloud: LocalCloud) -> LocalCloud:
    """With a table, and Parquet that fits it."""
    cloud.client("s3").create_bucket(Bucket=BUCKET)
    day = [date(2013, 4, 1)] * 2
    put(cloud, "good/a.parquet", pa.table({"key": ["a", "b"], "of": day, "score": [0.1, 0.1 + 0.2]}))
    put(cloud, "good/_SUCCESS", b"")
    put(cloud, "good/_hidden", b"no Parquet")
    put(cloud, "swapped/a.parquet", pa.table({"id": ["a", "b"], "score": [0.1, 0.2], "day": day}))
    put(cloud, "short/a.parquet", pa.table({"id": ["a"]}))
    assert run(cloud, CREATE)["Status"] == "FINISHED"
    return cloud


def run(cloud: LocalCloud, sql: str | Sequence[str], **more: Any) -> dict[str, Any]:
    """One statement, or several in one transaction, to the end, however that is."""
    client = cloud.client("redshift-data")
    if isinstance(sql, str):
        statement = client.execute_statement(Sql=sql, **WHERE, **more)["Id"]
    else:
        statement = client.batch_execute_statement(Sqls=list(sql), **WHERE, **more)["Id"]
    return ended(cloud, statement)


def ended(cloud: LocalCloud, statement: str) -> dict[str, Any]:
    late = time.monotonic() + 60
    while time.monotonic() < late:
        found: dict[str, Any] = cloud.client("redshift-data").describe_statement(Id=statement)
        if found["Status"] in ("FINISHED", "FAILED", "ABORTED"):
            return found
        time.sleep(0.05)
    raise AssertionError(f"the statement has not ended: {found}")


def rows(cloud: LocalCloud, sql: str, **more: Any) -> list[list[Any]]:
    found = run(cloud, sql, **more)
    assert found["Status"] == "FINISHED", found["Error"]
    answer = cloud.client("redshift-data").get_statement_result(Id=found["Id"])
    return [[None if "isNull" in cell else next(iter(cell.values())) for cell in row] for row in answer["Records"]]


def test_parquet_is_loaded_and_asked_for(redshift):
    assert run(redshift, copy("good/"))["ResultRows"] == 2
    found = rows(redshift, "SELECT id, day, score FROM public.predictions WHERE day = :day ORDER BY id", Parameters=DAY)
    assert found == [["a", "2013-04-01", 0.1], ["b", "2013-04-01", 0.1 + 0.2]]
    assert run(redshift, copy("good/a"))["Status"] == "FINISHED", "keys are not enforced, as in Redshift"
    assert rows(redshift, "SELECT COUNT(*), 5 / 2, TRUE, NULL::INT, 1.50::NUMERIC(4, 2) FROM predictions") == [
        [4, 2, True, None, "1.50"]
    ]


def test_a_batch_is_one_transaction(redshift):
    for _ in range(2):  # so a day may be loaded again
        found = run(
            redshift,
            ["DELETE FROM predictions WHERE day = :day", copy("good/"), "SELECT COUNT(*) AS n FROM predictions"],
            Parameters=DAY,
        )
        assert found["Status"] == "FINISHED"
        answer = redshift.client("redshift-data").get_statement_result(Id=f"{found['Id']}:3")
        assert answer["Records"] == [[{"longValue": 2}]]

    failed = run(redshift, ["DELETE FROM predictions", copy("nothing/"), "SELECT 1"])

    assert failed["Status"] == "FAILED"
    assert failed["Error"] == f"Query #2 failed with ERROR: The specified S3 prefix 's3://{BUCKET}/nothing/' does not exist"
    assert [each["Status"] for each in failed["SubStatements"]] == ["FINISHED", "FAILED", "ABORTED"]
    assert rows(redshift, "SELECT COUNT(*) FROM predictions") == [[2]], "nothing was deleted"


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        (copy("swapped/"), "Column type: DATE, Parquet schema: DOUBLE"),
        (copy("short/"), "incompatible Parquet schema: 1 columns for 3"),
        (f"COPY predictions FROM 's3://{BUCKET}/good/' {ROLE} FORMAT AS CSV", "the local cloud runs COPY"),
        ("SELECT * FROM nothing", 'ERROR: relation "nothing" does not exist'),
        ("SELECT colour FROM predictions", 'ERROR: column "colour" does not exist'),
        ("SELEC 1", "ERROR: syntax error"),
        ("INSERT INTO predictions VALUES (NULL, NULL, NULL)", "NOT NULL constraint failed"),
        ("BEGIN", "does not run this kind of statement"),
        ("SELECT * FROM '/etc/hostname'", "ERROR"),
        ("SELECT * FROM read_text('/etc/hostname')", "does not exist"),
    ],
)
def test_a_statement_that_cannot_be_run_fails_with_its_reason(redshift, sql, error):
    found = run(redshift, sql)
    assert found["Status"] == "FAILED"
    assert error in found["Error"]


def test_truncate_has_no_place_in_a_transaction(redshift):
    assert "TRUNCATE commits" in run(redshift, ["TRUNCATE predictions", "SELECT 1"])["Error"]
    assert run(redshift, "TRUNCATE predictions")["Status"] == "FINISHED"


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"Sql": "SELECT :day"}, "Parameters list is missing day"),
        ({"Sql": "SELECT 1", "Parameters": DAY}, "unused parameters"),
        ({"Sql": "SELECT 1; SELECT 2"}, "Each statement must be sent as one"),
        ({"Sql": "SELECT 1", "ClusterIdentifier": "cluster"}, "Exactly one of ClusterIdentifier and WorkgroupName"),
        ({"Sql": "SELECT 1", "WithEvent": True}, "does not honour"),
    ],
)
def test_what_cannot_be_a_statement_is_refused_at_once(redshift, request_, words):
    with pytest.raises(ClientError, match=words):
        redshift.client("redshift-data").execute_statement(**{**WHERE, **request_})


def test_a_token_makes_asking_twice_the_same(redshift):
    client, token = redshift.client("redshift-data"), {"ClientToken": "t" * 32, **WHERE}
    first = client.execute_statement(Sql="SELECT 1", **token)["Id"]
    assert client.execute_statement(Sql="SELECT 1", **token)["Id"] == first
    with pytest.raises(ClientError, match="client token"):
        client.execute_statement(Sql="SELECT 2", **token)


def test_a_statement_is_cancelled_and_leaves_nothing(redshift):
    many = ", ".join(f"(SELECT 1 AS x UNION ALL SELECT 2) AS t{number}" for number in range(34))
    client = redshift.client("redshift-data")
    sqls = ["INSERT INTO predictions VALUES ('z', NULL, NULL)", f"SELECT COUNT(*) FROM {many}"]
    statement = client.batch_execute_statement(Sqls=sqls, **WHERE)["Id"]
    time.sleep(0.7)
    assert client.describe_statement(Id=statement)["Status"] == "STARTED"
    assert client.cancel_statement(Id=statement)["Status"] is True
    assert ended(redshift, statement)["Status"] == "ABORTED"
    assert rows(redshift, "SELECT COUNT(*) FROM predictions") == [[0]]
    with pytest.raises(ClientError, match="already in ABORTED state"):
        client.cancel_statement(Id=statement)


def test_only_a_statement_with_rows_has_a_result(redshift):
    client = redshift.client("redshift-data")
    with pytest.raises(ClientError, match="Query does not have result"):
        client.get_statement_result(Id=run(redshift, "DELETE FROM predictions")["Id"])
    with pytest.raises(ClientError, match="Query does not exist"):
        client.describe_statement(Id="00000000-0000-0000-0000-000000000000")
