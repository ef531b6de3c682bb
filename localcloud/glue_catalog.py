"""The data catalog of Glue: databases, tables and partitions, kept in a file so that a restart finds them again."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import sqlglot
from sqlglot import exp

from localcloud.service import Cloud, Handler, NotHonoured, Refused

INTEGERS = ("tinyint", "smallint", "int", "integer", "bigint")
COMPARISONS: Mapping[type[exp.Expr], Callable[[Any, Any], bool]] = {
    exp.EQ: lambda a, b: a == b,
    exp.NEQ: lambda a, b: a != b,
    exp.GT: lambda a, b: a > b,
    exp.GTE: lambda a, b: a >= b,
    exp.LT: lambda a, b: a < b,
    exp.LTE: lambda a, b: a <= b,
}
PAGE = 100


@dataclass
class _Table:
    members: dict[str, Any]
    partitions: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    @property
    def keys(self) -> list[dict[str, Any]]:
        return list(self.members.get("PartitionKeys", []))


class Catalog:
    """All that is known of tables. What it returns is the caller's own: a later change of the catalog does not reach it."""

    def __init__(self, file: Path, account: str) -> None:
        self._file, self._account = file, account
        self._lock = threading.RLock()
        self._databases: dict[str, dict[str, Any]] = {}
        self._tables: dict[tuple[str, str], _Table] = {}
        if file.is_file():
            self._load()

    def create_database(self, given: Mapping[str, Any]) -> None:
        name = given["Name"].lower()
        with self._lock:
            if name in self._databases:
                raise Refused("AlreadyExistsException", "Database already exists.")
            self._databases[name] = {**given, "Name": name, "CreateTime": _now(), "CatalogId": self._account}
            self._save()

    def database(self, name: str) -> dict[str, Any]:
        with self._lock:
            if name.lower() not in self._databases:
                raise Refused("EntityNotFoundException", f"Database {name} not found.")
            return deepcopy(self._databases[name.lower()])

    def create_table(self, database: str, given: Mapping[str, Any], partitions: Sequence[Mapping[str, Any]] = ()) -> None:
        """A table, with partitions at once if given."""
        with self._lock:
            self.database(database)
            key = (database.lower(), given["Name"].lower())
            if key in self._tables:
                raise Refused("AlreadyExistsException", "Table already exists.")
            self._tables[key] = _Table(self._table_members(key, given, _now(), "0"))
            for partition in partitions:
                self._add(key, partition)
            self._save()

    def table(self, database: str, name: str) -> dict[str, Any]:
        with self._lock:
            return deepcopy(self._find(database, name).members)

    def tables(self, database: str) -> list[dict[str, Any]]:
        with self._lock:
            self.database(database)
            return [deepcopy(table.members) for key, table in sorted(self._tables.items()) if key[0] == database.lower()]

    def update_table(self, database: str, given: Mapping[str, Any]) -> None:
        with self._lock:
            table = self._find(database, given["Name"])
            version = str(int(table.members["VersionId"]) + 1)
            key = (database.lower(), given["Name"].lower())
            table.members = self._table_members(key, given, table.members["CreateTime"], version)
            self._save()

    def delete_table(self, database: str, name: str) -> None:
        with self._lock:
            self._find(database, name)
            del self._tables[database.lower(), name.lower()]
            self._save()

    def create_partition(self, database: str, name: str, given: Mapping[str, Any]) -> None:
        with self._lock:
            self._find(database, name)
            self._add((database.lower(), name.lower()), given)
            self._save()

    def create_partitions(self, database: str, name: str, given: Sequence[Mapping[str, Any]]) -> list[tuple[list[str], Refused]]:
        """As many of them as can be; those that could not, and why."""
        refused = []
        with self._lock:
            self._find(database, name)
            for each in given:
                try:
                    self._add((database.lower(), name.lower()), each)
                except Refused as error:
                    refused.append((list(each.get("Values", [])), error))
            self._save()
        return refused

    def partition(self, database: str, name: str, values: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            return deepcopy(self._find_partition(self._find(database, name), values))

    def partitions(self, database: str, name: str) -> list[dict[str, Any]]:
        with self._lock:
            return deepcopy([each for _, each in sorted(self._find(database, name).partitions.items())])

    def table_and_partitions(self, database: str, name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Both as they are at one moment."""
        with self._lock:
            return self.table(database, name), self.partitions(database, name)

    def update_partition(self, database: str, name: str, values: Sequence[str], given: Mapping[str, Any]) -> None:
        with self._lock:
            table = self._find(database, name)
            old = self._find_partition(table, values)
            new = tuple(given.get("Values", values))
            if new != tuple(values):
                if new in table.partitions:
                    raise Refused("AlreadyExistsException", "Partition already exists.")
                self._check_values(table, new)
            members = self._partition_members((database.lower(), name.lower()), {**given, "Values": list(new)})
            del table.partitions[tuple(values)]
            table.partitions[new] = {**members, "CreationTime": old["CreationTime"]}
            self._save()

    def delete_partition(self, database: str, name: str, values: Sequence[str]) -> None:
        with self._lock:
            table = self._find(database, name)
            self._find_partition(table, values)
            del table.partitions[tuple(values)]
            self._save()

    def reset(self) -> None:
        with self._lock:
            self._databases.clear()
            self._tables.clear()
            self._file.unlink(missing_ok=True)

    def _find(self, database: str, name: str) -> _Table:
        self.database(database)
        table = self._tables.get((database.lower(), name.lower()))
        if table is None:
            raise Refused("EntityNotFoundException", f"Table {name} not found.")
        return table

    def _find_partition(self, table: _Table, values: Sequence[str]) -> dict[str, Any]:
        found = table.partitions.get(tuple(values))
        if found is None:
            raise Refused("EntityNotFoundException", "Cannot find partition.")
        return found

    def _add(self, key: tuple[str, str], given: Mapping[str, Any]) -> None:
        table = self._tables[key]
        values = tuple(given.get("Values", ()))
        self._check_values(table, values)
        if values in table.partitions:
            raise Refused("AlreadyExistsException", "Partition already exists.")
        table.partitions[values] = self._partition_members(key, given)

    def _check_values(self, table: _Table, values: Sequence[str]) -> None:
        if len(values) != len(table.keys):
            raise Refused("InvalidInputException", "The number of partition keys do not match the number of partition values")
        for column, value in zip(table.keys, values, strict=True):
            if column["Type"].lower() == "date" and _typed(value, "date") is None:
                raise Refused("InvalidInputException", f"Partition value {value!r} of {column['Name']} is no date")

    def _table_members(self, key: tuple[str, str], given: Mapping[str, Any], created: datetime, version: str) -> dict[str, Any]:
        known = {"PartitionKeys": [], "Parameters": {}, "Retention": 0}
        return deepcopy({
            **known,
            **given,
            "Name": key[1],
            "DatabaseName": key[0],
            "CreateTime": created,
            "UpdateTime": _now(),
            "IsRegisteredWithLakeFormation": False,
            "CatalogId": self._account,
            "VersionId": version,
        })

    def _partition_members(self, key: tuple[str, str], given: Mapping[str, Any]) -> dict[str, Any]:
        told = {"DatabaseName": key[0], "TableName": key[1], "CreationTime": _now(), "CatalogId": self._account}
        return deepcopy({"Parameters": {}, **given, **told})

    def _save(self) -> None:
        """Called with the lock held. The file is the old one or the new one, never half."""
        whole = {
            "databases": self._databases,
            "tables": [
                {"table": table.members, "partitions": list(table.partitions.values())} for table in self._tables.values()
            ],
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        draft = self._file.with_suffix(".draft")
        draft.write_text(json.dumps(whole, default=lambda moment: {"$time": moment.isoformat()}))
        draft.replace(self._file)

    def _load(self) -> None:
        def times(found: dict[str, Any]) -> Any:
            return datetime.fromisoformat(found["$time"]) if found.keys() == {"$time"} else found

        whole = json.loads(self._file.read_text(), object_hook=times)
        self._databases = whole["databases"]
        for each in whole["tables"]:
            table = _Table(each["table"], {tuple(partition["Values"]): partition for partition in each["partitions"]})
            self._tables[table.members["DatabaseName"], table.members["Name"]] = table


def operations(cloud: Cloud, catalog: Catalog) -> dict[str, Handler]:
    def ours(handler: Handler) -> Handler:
        def checked(request: dict[str, Any]) -> dict[str, Any]:
            if request.get("CatalogId", cloud.account) != cloud.account:
                raise Refused("EntityNotFoundException", f"Catalog {request['CatalogId']} not found.")
            return handler(request)

        return checked

    def create_database(request: dict[str, Any]) -> dict[str, Any]:
        catalog.create_database(request["DatabaseInput"])
        return {}

    def get_database(request: dict[str, Any]) -> dict[str, Any]:
        return {"Database": catalog.database(request["Name"])}

    def create_table(request: dict[str, Any]) -> dict[str, Any]:
        _only(request, "CatalogId", "DatabaseName", "TableInput")
        catalog.create_table(request["DatabaseName"], request["TableInput"])
        return {}

    def get_table(request: dict[str, Any]) -> dict[str, Any]:
        return {"Table": catalog.table(request["DatabaseName"], request["Name"])}

    def get_tables(request: dict[str, Any]) -> dict[str, Any]:
        wanted = re.compile(request.get("Expression", ""))
        found = [table for table in catalog.tables(request["DatabaseName"]) if wanted.search(table["Name"])]
        return _page(found, request, "TableList")

    def update_table(request: dict[str, Any]) -> dict[str, Any]:
        _only(request, "CatalogId", "DatabaseName", "TableInput", "SkipArchive")
        catalog.update_table(request["DatabaseName"], request["TableInput"])
        return {}

    def delete_table(request: dict[str, Any]) -> dict[str, Any]:
        catalog.delete_table(request["DatabaseName"], request["Name"])
        return {}

    def create_partition(request: dict[str, Any]) -> dict[str, Any]:
        catalog.create_partition(request["DatabaseName"], request["TableName"], request["PartitionInput"])
        return {}

    def batch_create_partition(request: dict[str, Any]) -> dict[str, Any]:
        refused = catalog.create_partitions(request["DatabaseName"], request["TableName"], request["PartitionInputList"])
        return {"Errors": [_partition_error(values, error) for values, error in refused]}

    def get_partition(request: dict[str, Any]) -> dict[str, Any]:
        return {"Partition": catalog.partition(request["DatabaseName"], request["TableName"], request["PartitionValues"])}

    def get_partitions(request: dict[str, Any]) -> dict[str, Any]:
        _only(request, "CatalogId", "DatabaseName", "TableName", "Expression", "NextToken", "MaxResults", "ExcludeColumnSchema")
        table, found = catalog.table_and_partitions(request["DatabaseName"], request["TableName"])
        wanted = partition_filter(request.get("Expression", ""), table["PartitionKeys"])
        found = [partition for partition in found if wanted(partition["Values"])]
        if request.get("ExcludeColumnSchema"):
            for partition in found:
                partition.get("StorageDescriptor", {}).pop("Columns", None)
        return _page(found, request, "Partitions")

    def update_partition(request: dict[str, Any]) -> dict[str, Any]:
        catalog.update_partition(
            request["DatabaseName"], request["TableName"], request["PartitionValueList"], request["PartitionInput"]
        )
        return {}

    def delete_partition(request: dict[str, Any]) -> dict[str, Any]:
        catalog.delete_partition(request["DatabaseName"], request["TableName"], request["PartitionValues"])
        return {}

    def batch_delete_partition(request: dict[str, Any]) -> dict[str, Any]:
        catalog.table(request["DatabaseName"], request["TableName"])
        errors = []
        for each in request["PartitionsToDelete"]:
            try:
                catalog.delete_partition(request["DatabaseName"], request["TableName"], each["Values"])
            except Refused as error:
                errors.append(_partition_error(each["Values"], error))
        return {"Errors": errors}

    handlers: dict[str, Handler] = {
        "CreateDatabase": create_database,
        "GetDatabase": get_database,
        "CreateTable": create_table,
        "GetTable": get_table,
        "GetTables": get_tables,
        "UpdateTable": update_table,
        "DeleteTable": delete_table,
        "CreatePartition": create_partition,
        "BatchCreatePartition": batch_create_partition,
        "GetPartition": get_partition,
        "GetPartitions": get_partitions,
        "UpdatePartition": update_partition,
        "DeletePartition": delete_partition,
        "BatchDeletePartition": batch_delete_partition,
    }
    return {name: ours(handler) for name, handler in handlers.items()}


def partition_filter(expression: str, keys: Sequence[Mapping[str, Any]]) -> Callable[[Sequence[str]], bool]:
    """What the Expression of GetPartitions asks for: comparisons of partition keys with constants, joined by AND.

    Raises:
        Refused: if it says anything else, or if a constant is not of the type of its key.
    """
    if not expression.strip():
        return lambda values: True
    types = {key["Name"].lower(): key["Type"].lower() for key in keys}
    places = {name: place for place, name in enumerate(types)}
    try:
        tree = sqlglot.parse_one(expression, dialect="hive")
    except sqlglot.errors.SqlglotError:
        raise Refused("InvalidInputException", f"Unsupported expression '{expression}'") from None
    tests: list[tuple[int, str, Callable[[Any, Any], bool], Any]] = []
    for term in _terms(tree):
        column, constant = getattr(term, "this", None), getattr(term, "expression", None)
        compare = COMPARISONS.get(type(term))
        if compare is None or not isinstance(column, exp.Column) or not isinstance(constant, exp.Literal):
            raise NotHonoured(f"the expression {term.sql('hive')!r} on partitions (only comparisons with a constant, and AND)")
        name = column.name.lower()
        if name not in types:
            raise Refused("InvalidInputException", f"Unsupported expression '{expression}': no partition key {column.name}")
        typed = _typed(constant.name, types[name])
        if typed is None:
            raise Refused("InvalidInputException", f"'{constant.name}' is no {types[name]}: partition key {name}")
        tests.append((places[name], types[name], compare, typed))

    def wanted(values: Sequence[str]) -> bool:
        for place, kind, compare, constant in tests:
            value = _typed(values[place], kind)
            if value is None or not compare(value, constant):
                return False
        return True

    return wanted


def _terms(tree: exp.Expr) -> Iterator[exp.Expr]:
    if isinstance(tree, exp.And):
        yield from _terms(tree.this)
        yield from _terms(tree.expression)
    elif isinstance(tree, exp.Paren):
        yield from _terms(tree.this)
    else:
        yield tree


def _typed(value: str, kind: str) -> Any:
    """A partition's value as its key's type compares it; None if it is not of the type."""
    try:
        if kind in INTEGERS:
            return int(value)
        return date.fromisoformat(value) if kind == "date" else value
    except ValueError:
        return None


def _page(found: list[dict[str, Any]], request: Mapping[str, Any], member: str) -> dict[str, Any]:
    try:
        begin = int(request.get("NextToken", "0"))
    except ValueError:
        raise Refused("InvalidInputException", f"NextToken {request['NextToken']!r} is not one that was given") from None
    end = begin + request.get("MaxResults", PAGE)
    return {member: found[begin:end], **({"NextToken": str(end)} if end < len(found) else {})}


def _only(request: Mapping[str, Any], *members: str) -> None:
    if others := sorted(request.keys() - set(members)):
        raise NotHonoured(f"{', '.join(others)} here")


def _partition_error(values: Sequence[str], error: Refused) -> dict[str, Any]:
    return {"PartitionValues": list(values), "ErrorDetail": {"ErrorCode": error.code, "ErrorMessage": error.message}}


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
