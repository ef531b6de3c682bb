"""`python -m tests.gcp.analyse_ml < asked.json`: Google's analyser on statements of BigQuery ML, where the local cloud has it.

asked: {statements, tables: {path: {column: type}}, model: path, label: type, features and rows: {column: type}}.

Prints of each statement what it is; what the analyser refuses ends this with its words. ML.PREDICT and ML.EVALUATE are declared
as Google documents them: they take a model and rows; the one gives the rows with a prediction, the other metrics.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from zetasql.wasi._pb2.zetasql.local_service import local_service_pb2 as messages
from zetasql.wasi._pb2.zetasql.proto import function_pb2
from zetasql.wasi._pb2.zetasql.public.function_pb2 import FunctionEnums

from localcloud.gcp import zetasql_check

# By the numbers of ZetaSQL's TypeKind.
KINDS = {"STRING": 8, "INT64": 2, "FLOAT64": 7, "BOOL": 5, "DATE": 10, "TIMESTAMP": 19, "DATETIME": 21}


def typed(name: str) -> Any:
    return zetasql_check.types().TypeProto(type_kind=KINDS[name])


def function(name: str, output: list[tuple[str, Any]]) -> Any:
    """ML.<name>(MODEL, rows) → columns."""
    made = function_pb2.TableValuedFunctionProto(name_path=["ML", name], type=FunctionEnums.FIXED_OUTPUT_SCHEMA_TVF)
    for kind in ("ARG_TYPE_MODEL", "ARG_TYPE_RELATION"):
        argument = made.signature.argument.add(kind=kind, num_occurrences=1)
        argument.options.extra_relation_input_columns_allowed = True
    made.signature.return_type.kind = argument.kind
    for column, kind in output:
        made.signature.return_type.options.relation_input_schema.column.add(name=column).type.CopyFrom(kind)
    return made


def declared(asked: dict[str, Any], catalog: Any) -> None:
    """The model, and the functions of BigQuery ML as they answer for it."""
    *path, name = asked["model"].split(".")
    place = catalog
    for part in path:
        place = next((each for each in place.catalog if each.name == part), None) or place.catalog.add(name=part)
    model = place.model.add(name=name, id=1)
    for column, kind in asked["features"].items():
        model.input.add(name=column).type.CopyFrom(typed(kind))
    probabilities, label = zetasql_check.types().TypeProto(type_kind=16), typed(asked["label"])
    struct = probabilities.array_type.element_type
    struct.type_kind = 17
    for column, kind in (("label", label), ("prob", typed("FLOAT64"))):
        struct.struct_type.field.add(field_name=column).field_type.CopyFrom(kind)
    model.output.add(name="predicted_label").type.CopyFrom(label)
    rows = [(column, typed(kind)) for column, kind in asked["rows"].items()]
    ml = catalog.catalog.add(name="ML")
    for made in (
        function("PREDICT", [("predicted_label", label), ("predicted_label_probs", probabilities), *rows]),
        function("EVALUATE", [("roc_auc", typed("FLOAT64")), ("log_loss", typed("FLOAT64"))]),
    ):
        ml.custom_tvf.add().CopyFrom(made)


def main(asked: dict[str, Any]) -> None:
    for statement in asked["statements"]:
        request = messages.AnalyzeRequest(sql_statement=zetasql_check.split_names(statement))
        request.options.language_options.CopyFrom(zetasql_check._language())
        catalog = request.simple_catalog
        catalog.name = "bigquery"
        catalog.builtin_function_options.language_options.CopyFrom(zetasql_check._language())
        for path, columns in asked["tables"].items():
            *folders, name = path.split(".")
            place = catalog
            for part in folders:
                place = next((each for each in place.catalog if each.name == part), None) or place.catalog.add(name=part)
            table = place.table.add(name=name, full_name=path)
            for column, kind in columns.items():
                table.column.add(name=column).type.CopyFrom(typed(kind))
        declared(asked, catalog)
        answer = zetasql_check._called("Analyze", request, messages.AnalyzeResponse)
        print(zetasql_check.Node(answer.resolved_statement).kind)


if __name__ == "__main__":
    main(json.load(sys.stdin))
