"""Lets what the simulated source system has landed in a folder land on S3 too, where Athena finds it as tables.

A stranger to the product, as the simulator is: it knows the layout of the lake and the catalog, and nothing else.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MARKER = "_SUCCESS"
FIRST_DAY = "2013-01-01"


def land(source: Path, lake: str, database: str, clients: Any) -> int:
    """Copy `<source>/<table>/...` to `<lake>/source/<table>/...`, markers last, and describe the tables; the number of objects.

    Args:
        source: the folder `source` of a local lake.
        lake: s3://bucket/prefix.
        clients: gives a boto3 client by the name of its service.
    """
    s3 = clients("s3")
    bucket, _, prefix = lake.removeprefix("s3://").partition("/")
    tables = sorted(folder for folder in source.iterdir() if folder.is_dir())
    copied = 0
    for table in tables:
        _describe(table, f"{lake}/source/{table.name}", database, clients("glue"))
        files = sorted((file for file in table.rglob("*") if file.is_file()), key=lambda file: (file.parent, file.name == MARKER))
        for file in files:
            s3.upload_file(str(file), bucket, f"{prefix}/source/{table.name}/{file.relative_to(table)}")
        copied += len(files)
    return copied


def _describe(table: Path, location: str, database: str, glue: Any) -> None:
    """A table of the catalog. Its partitions are projected: a day that lands is there without being registered."""
    with suppress(glue.exceptions.AlreadyExistsException):
        glue.create_database(DatabaseInput={"Name": database})
    file = next(table.rglob("*.parquet"))
    partitioned = file.parent.name.startswith("partition_date=")
    columns = [
        {"Name": field.name, "Type": _hive(field.type)} for field in pq.read_schema(file) if field.name != "partition_date"
    ]
    projected = {
        "projection.enabled": "true",
        "projection.partition_date.type": "date",
        "projection.partition_date.format": "yyyy-MM-dd",
        "projection.partition_date.range": f"{FIRST_DAY},NOW",
    }
    described = {
        "Name": table.name,
        "TableType": "EXTERNAL_TABLE",
        "Parameters": {"EXTERNAL": "TRUE", **(projected if partitioned else {})},
        "PartitionKeys": [{"Name": "partition_date", "Type": "date"}] if partitioned else [],
        "StorageDescriptor": {
            "Columns": columns,
            "Location": f"{location}/",
            "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
            "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
            "SerdeInfo": {"SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe"},
        },
    }
    with suppress(glue.exceptions.AlreadyExistsException):
        glue.create_table(DatabaseName=database, TableInput=described)


def _hive(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "bigint" if kind.bit_width > 32 else "int"
    for is_one, name in ((pa.types.is_floating, "double"), (pa.types.is_boolean, "boolean"), (pa.types.is_date, "date")):
        if is_one(kind):
            return name
    if pa.types.is_timestamp(kind):
        return "timestamp"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "string"
    raise ValueError(f"{kind}: no type of Hive is known for it")
