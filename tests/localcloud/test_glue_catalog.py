"""Databases, tables and partitions of the local cloud, and how it refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localcloud.glue_catalog import Catalog, partition_filter
from localcloud.service import Refused
from tests.localcloud import queries
from tests.localcloud.cloud import LocalCloud
from tests.localcloud.queries import storage

pytestmark = pytest.mark.localcloud

COLUMNS = {"id": "string", "score": "double"}
DAYS = ["2013-04-01", "2013-04-02", "2013-04-03"]


@pytest.fixture
def glue(cloud: LocalCloud) -> Any:
    """With a table by day that has three partitions."""
    client = cloud.client("glue")
    client.create_database(DatabaseInput={"Name": "shop"})
    queries.table(cloud, "orders", COLUMNS, "s3://lake/orders", {"partition_date": "date"})
    for day in DAYS:
        client.create_partition(DatabaseName="shop", TableName="orders", PartitionInput=partition(day, "v1"))
    return client


def partition(day: str, version: str) -> dict[str, Any]:
    return {"Values": [day], "StorageDescriptor": storage(COLUMNS, f"s3://lake/orders/{day}/{version}")}


def refusal(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_what_was_created_is_found(glue):
    found = glue.get_table(DatabaseName="shop", Name="orders")["Table"]
    assert found["PartitionKeys"] == [{"Name": "partition_date", "Type": "date"}]
    assert found["StorageDescriptor"]["Location"] == "s3://lake/orders"
    assert found["CreateTime"] <= found["UpdateTime"]
    assert glue.get_database(Name="shop")["Database"]["Name"] == "shop"
    assert [each["Name"] for each in glue.get_tables(DatabaseName="shop", Expression="ord.*")["TableList"]] == ["orders"]
    assert glue.get_tables(DatabaseName="shop", Expression="x")["TableList"] == []


def test_twice_is_refused_and_so_is_what_is_not_there(glue):
    named = {"DatabaseName": "shop", "TableName": "orders"}
    assert refusal(lambda: glue.create_database(DatabaseInput={"Name": "shop"})) == "AlreadyExistsException"
    again = {"Name": "orders", "StorageDescriptor": storage(COLUMNS, "s3://lake/x")}
    assert refusal(lambda: glue.create_table(DatabaseName="shop", TableInput=again)) == "AlreadyExistsException"
    first = partition(DAYS[0], "v2")
    assert refusal(lambda: glue.create_partition(**named, PartitionInput=first)) == "AlreadyExistsException"
    assert refusal(lambda: glue.get_table(DatabaseName="shop", Name="none")) == "EntityNotFoundException"
    assert refusal(lambda: glue.get_table(DatabaseName="none", Name="orders")) == "EntityNotFoundException"
    assert refusal(lambda: glue.get_partition(**named, PartitionValues=["2020-01-01"])) == "EntityNotFoundException"
    assert refusal(lambda: glue.create_partition(**named, PartitionInput={"Values": ["a", "b"]})) == "InvalidInputException"
    assert refusal(lambda: glue.get_database(Name="shop", CatalogId="000000000000")) == "EntityNotFoundException"


def test_a_partition_is_swapped_in_one_call(glue):
    named = {"DatabaseName": "shop", "TableName": "orders"}
    glue.update_partition(**named, PartitionValueList=[DAYS[0]], PartitionInput=partition(DAYS[0], "v2"))
    found = glue.get_partition(**named, PartitionValues=[DAYS[0]])["Partition"]
    assert found["StorageDescriptor"]["Location"] == f"s3://lake/orders/{DAYS[0]}/v2"

    other = {"PartitionValueList": [DAYS[0]], "PartitionInput": partition(DAYS[1], "v3")}
    assert refusal(lambda: glue.update_partition(**named, **other)) == "AlreadyExistsException"


def test_many_partitions_at_once_and_those_that_could_not_be(glue):
    named = {"DatabaseName": "shop", "TableName": "orders"}
    given = [partition(day, "v1") for day in (DAYS[0], "2013-04-04")]
    errors = glue.batch_create_partition(**named, PartitionInputList=given)["Errors"]
    assert [(each["PartitionValues"], each["ErrorDetail"]["ErrorCode"]) for each in errors] == [
        ([DAYS[0]], "AlreadyExistsException")
    ]
    gone = [{"Values": ["2013-04-04"]}, {"Values": ["2013-05-05"]}]
    errors = glue.batch_delete_partition(**named, PartitionsToDelete=gone)["Errors"]
    assert [each["PartitionValues"] for each in errors] == [["2013-05-05"]]
    glue.delete_partition(**named, PartitionValues=[DAYS[2]])
    assert [each["Values"] for each in glue.get_partitions(**named)["Partitions"]] == [[day] for day in DAYS[:2]]


def test_pages_of_partitions(glue):
    pages = list(
        glue.get_paginator("get_partitions").paginate(DatabaseName="shop", TableName="orders", PaginationConfig={"PageSize": 2})
    )
    assert [[each["Values"][0] for each in page["Partitions"]] for page in pages] == [DAYS[:2], DAYS[2:]]
    [page] = glue.get_paginator("get_partitions").paginate(
        DatabaseName="shop", TableName="orders", Expression="partition_date > '2013-04-01' AND partition_date <> '2013-04-03'"
    )
    assert [each["Values"] for each in page["Partitions"]] == [[DAYS[1]]]


KEYS = [{"Name": "partition_date", "Type": "date"}, {"Name": "hour", "Type": "int"}, {"Name": "shop", "Type": "string"}]


@pytest.mark.parametrize(
    ("expression", "chosen"),
    [
        ("", True),
        ("partition_date = '2013-04-01'", True),
        ("(partition_date >= '2013-04-01') AND hour < 10", True),
        ("hour > 10", False),
        ("hour = 9 and shop != 'a'", False),
        ("shop <= 'b'", True),
    ],
)
def test_the_expression_of_partitions(expression, chosen):
    assert partition_filter(expression, KEYS)(["2013-04-01", "9", "a"]) is chosen


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("hour = 1 OR hour = 2", "NotImplemented"),
        ("shop LIKE 'a%'", "NotImplemented"),
        ("hour IN (1, 2)", "NotImplemented"),
        ("price = 1", "InvalidInputException"),
        ("hour = 'noon'", "InvalidInputException"),
        ("hour = = 1", "InvalidInputException"),
    ],
)
def test_an_expression_that_is_not_understood_is_refused(expression, code):
    with pytest.raises(Refused) as caught:
        partition_filter(expression, KEYS)
    assert caught.value.code == code


def test_a_table_is_changed_and_dropped(glue):
    wider = {"Name": "orders", "PartitionKeys": [], "StorageDescriptor": storage({**COLUMNS, "n": "int"}, "s3://lake/orders")}
    glue.update_table(DatabaseName="shop", TableInput=wider)
    found = glue.get_table(DatabaseName="shop", Name="orders")["Table"]
    assert [each["Name"] for each in found["StorageDescriptor"]["Columns"]] == ["id", "score", "n"]
    glue.delete_table(DatabaseName="shop", Name="orders")
    assert refusal(lambda: glue.delete_table(DatabaseName="shop", Name="orders")) == "EntityNotFoundException"


def test_a_restart_finds_the_catalog_again(tmp_path):
    catalog = Catalog(tmp_path / "catalog.json", "1")
    catalog.create_database({"Name": "shop"})
    catalog.create_table(
        "shop", {"Name": "orders", "PartitionKeys": [{"Name": "d", "Type": "date"}]}, [{"Values": ["2013-04-01"]}]
    )

    again = Catalog(tmp_path / "catalog.json", "1")

    assert again.table_and_partitions("shop", "orders") == catalog.table_and_partitions("shop", "orders")
    assert again.table("shop", "orders")["CreateTime"].tzinfo is not None


def test_of_many_that_create_one_succeeds(tmp_path):
    catalog = Catalog(tmp_path / "catalog.json", "1")
    catalog.create_database({"Name": "shop"})
    catalog.create_table("shop", {"Name": "orders", "PartitionKeys": [{"Name": "d", "Type": "string"}]})
    refused: list[Refused] = []

    def create() -> None:
        for number in range(20):
            try:
                catalog.create_partition("shop", "orders", {"Values": [str(number)]})
            except Refused as error:
                refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(refused) == 60
    assert len(Catalog(tmp_path / "catalog.json", "1").partitions("shop", "orders")) == 20
