"""Google's own analyser of SQL: what it refuses BigQuery refuses, and what it has understood is what is run.

The analyser is ZetaSQL compiled to WebAssembly (the wheel `zetasql`, pinned): no other module knows it.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, cached_property
from typing import Any

from google.protobuf.descriptor import FieldDescriptor

from localcloud.service import Refused

Path = tuple[str, ...]  # of a table, as it is written
# Quoted text and comments stand as they are; a name in backticks may be a whole path.
TOKENS = re.compile(
    r"""(?is)(?:r?b?|br)(?:\"\"\".*?(?<!\\)\"\"\"|'''.*?(?<!\\)'''|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')"""
    r"""|--[^\n]*|\#[^\n]*|/\*.*?\*/|`(?P<name>[^`\n]+)`"""
)
# The analyser works in one memory of its own.
_one_at_a_time = threading.RLock()


class Node:
    """A part of what the analyser has understood: fields by name, also those of its kind; absent ones are None or []."""

    def __init__(self, message: Any) -> None:
        while (union := message.DESCRIPTOR.oneofs_by_name.get("node")) is not None:
            message = getattr(message, message.WhichOneof(union.name))
        self._message = message

    @cached_property
    def kind(self) -> str:
        """Such as TableScan."""
        return str(self._message.DESCRIPTOR.name).removeprefix("Resolved").removesuffix("Proto")

    def __getattr__(self, name: str) -> Any:
        message = self._message
        while True:
            if (field := message.DESCRIPTOR.fields_by_name.get(name)) is not None:
                return _value(message, field)
            if "parent" not in message.DESCRIPTOR.fields_by_name:
                raise AttributeError(f"{self.kind} has no {name}")
            message = message.parent

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        message = self._message
        while message is not None:
            for field, value in message.ListFields():
                if (
                    field.type == FieldDescriptor.TYPE_MESSAGE
                    and field.name != "parent"
                    and "Resolved" in field.message_type.name
                ):
                    for each in value if field.is_repeated else (value,):
                        yield from Node(each).walk()
            message = message.parent if "parent" in message.DESCRIPTOR.fields_by_name else None


def _value(message: Any, field: FieldDescriptor) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None:
        resolved = "Resolved" in field.message_type.name
        if field.is_repeated:
            return [Node(each) for each in value] if resolved else list(value)
        if not message.HasField(field.name):
            return None
        if not resolved:
            return value
        union = value.DESCRIPTOR.oneofs_by_name.get("node")
        return None if union is not None and value.WhichOneof(union.name) is None else Node(value)
    if field.enum_type is not None:
        names = field.enum_type.values_by_number
        return [names[each].name for each in value] if field.is_repeated else names[value].name
    return list(value) if field.is_repeated else value


def split_names(sql: str) -> str:
    """The text with `project.dataset.table` as BigQuery reads it: `project`.`dataset`.`table`."""
    return TOKENS.sub(lambda found: "`" + found["name"].replace(".", "`.`") + "`" if found["name"] else found[0], sql)


def table_paths(sql: str) -> list[Path]:
    """The tables that a statement reads or changes, but for those that it defines.

    Raises:
        Refused: if it is no statement.
    """
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    request = messages.ExtractTableNamesFromStatementRequest(sql_statement=sql, options=_language())
    answer = _called("ExtractTableNamesFromStatement", request, messages.ExtractTableNamesFromStatementResponse)
    return list(dict.fromkeys(tuple(found.table_name_segment) for found in answer.table_name))


def analysed(sql: str, tables: Mapping[Path, tuple[str, Sequence[tuple[str, Any]]]], parameters: Mapping[str, Any]) -> Node:
    """What a statement means.

    Args:
        tables: by its path a table's full name, and its columns with their types.
        parameters: their types, by name.

    Raises:
        Refused: in the analyser's words.
    """
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    request = messages.AnalyzeRequest(sql_statement=sql)
    request.options.language_options.CopyFrom(_language())
    request.options.prune_unused_columns = True
    request.options.default_timezone = "UTC"
    request.options.error_message_mode = 1  # ERROR_MESSAGE_ONE_LINE: with the place
    for name, kind in parameters.items():
        request.options.query_parameters.add(name=name).type.CopyFrom(kind)
    catalog = request.simple_catalog
    catalog.name = "bigquery"
    catalog.builtin_function_options.language_options.CopyFrom(_language())
    for path, (full_name, columns) in tables.items():
        place = catalog
        for part in path[:-1]:
            place = next((each for each in place.catalog if each.name == part), None) or place.catalog.add(name=part)
        table = place.table.add(name=path[-1], full_name=full_name)
        for name, kind in columns:
            table.column.add(name=name).type.CopyFrom(kind)
    return Node(_called("Analyze", request, messages.AnalyzeResponse).resolved_statement)


def types() -> Any:
    """The protobuf module of types: TypeProto and TypeKind."""
    from zetasql.wasi._pb2.zetasql.public import type_pb2

    return type_pb2


def evaluated(sql: str) -> Any:
    """The first row of a query that reads no table, as the reference implementation has it: messages of ValueProto."""
    from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages

    request = messages.EvaluateQueryRequest(sql=sql)
    request.options.language_options.CopyFrom(_language())
    request.options.default_timezone = "UTC"
    request.simple_catalog.name = "bigquery"
    request.simple_catalog.builtin_function_options.language_options.CopyFrom(_language())
    answer = _called("EvaluateQuery", request, messages.EvaluateQueryResponse)
    return answer.content.table_data.row[0].cell


def warm_up() -> None:
    """Compiles the analyser, which takes many seconds once on a machine."""
    _service()


def _called(name: str, request: Any, answer: type[Any]) -> Any:
    from zetasql.core.exceptions import ServerError

    with _one_at_a_time:
        try:
            return _service().wasm_client.call_grpc_func(f"ZetaSqlLocalService_{name}", request, answer)
        except ServerError as error:
            message = re.sub(r"^Code: \d+, Message: ", "", str(error.raw_error))
            message = re.sub(r" \[at (\d+:\d+)\]$", r" at [\1]", message)
            raise Refused("invalidQuery", message, 400) from None


@cache
def _service() -> Any:
    with _one_at_a_time:
        from zetasql.core import local_service, wasm_client

        # Kept compiled on disk: without it every process compiles 28 MB of WebAssembly for a quarter of a minute.
        original = wasm_client.Config

        def caching() -> Any:
            config = original()
            with suppress(Exception):
                config.cache = True
            return config

        wasm_client.Config = caching
        try:
            return local_service.ZetaSqlLocalService.get_instance()
        finally:
            wasm_client.Config = original


@cache
def _language() -> Any:
    """The language of BigQuery: all that is known of it, and a little that only other users of ZetaSQL have."""
    from zetasql.types import LanguageOptions, ProductMode

    with _one_at_a_time:
        _service()
        options = LanguageOptions.maximum_features()
    options.product_mode = ProductMode.PRODUCT_EXTERNAL
    options.supported_statement_kinds = []
    options.reserved_keywords = ["QUALIFY"]
    return options.to_proto()
