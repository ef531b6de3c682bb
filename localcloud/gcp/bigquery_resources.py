"""Datasets, tables, rows and jobs as BigQuery's REST interface shows them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from localcloud.gcp import bigquery_results
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_jobs import Resource
from localcloud.gcp.bigquery_tables import LOCATION, Name, Partition, Session, Table
from localcloud.gcp.bigquery_types import quoted
from localcloud.gcp.service import pages
from localcloud.service import Refused

ROWS = 5000  # of a page, where a request does not say
SUMMARY = "__PARTITIONS_SUMMARY__"
SUMMARY_FIELDS = types.read_fields([
    *({"name": name, "type": "STRING"} for name in ("project_id", "dataset_id", "table_id", "partition_id")),
    *({"name": name, "type": "INTEGER"} for name in ("creation_time", "last_modified_time")),
])


def with_token(members: Resource, name: str, token: str) -> Resource:
    return {**members, name: token} if token else members


def limit(body: Mapping[str, Any]) -> dict[str, Any]:
    return {"maxResults": int(body["maxResults"])} if body.get("maxResults") is not None else {}


def dataset(project: str, name: str, resource: Mapping[str, Any]) -> Resource:
    return {
        "kind": "bigquery#dataset",
        "etag": f'"{resource.get("lastModifiedTime", 0)}"',
        "id": f"{project}:{name}",
        "selfLink": f"https://bigquery.googleapis.com/bigquery/v2/projects/{project}/datasets/{name}",
        "datasetReference": {"projectId": project, "datasetId": name},
        "type": "DEFAULT",
        **resource,
    }


def etag(table: Table) -> str:
    return f'"{table.resource["lastModifiedTime"]}"'


def described(session: Session, table: Table, name: Name) -> Resource:
    """A table, or one of its partitions, as the REST interface shows it."""
    partitions: list[Partition] = session.partitions(table)
    if name.partition:
        partitions = [each for each in partitions if each.id == name.partition]
    size = str(sum(each.bytes for each in partitions))
    reference = name.reference()
    project, dataset, id = reference["projectId"], reference["datasetId"], reference["tableId"]
    return {
        "kind": "bigquery#table",
        "etag": etag(table),
        "id": f"{project}:{dataset}.{id}",
        "selfLink": f"https://bigquery.googleapis.com/bigquery/v2/projects/{project}/datasets/{dataset}/tables/{id}",
        "tableReference": reference,
        "location": session.dataset(dataset).get("location", LOCATION),
        "numRows": str(sum(each.rows for each in partitions)),
        "numBytes": size,
        "numLongTermBytes": "0",
        "numTotalLogicalBytes": size,
        "numActiveLogicalBytes": size,
        **table.resource,
    }


def summary(table: Table, name: Name) -> Resource:
    if not table.day:
        raise Refused("invalid", f"Cannot read partition information from a table that is not partitioned: {table.name}", 400)
    return {
        "kind": "bigquery#table",
        "id": str(name),
        "tableReference": name.reference(),
        "type": "TABLE",
        "schema": {"fields": SUMMARY_FIELDS},
    }


def summary_rows(session: Session, table: Table, params: Mapping[str, Any]) -> Resource:
    summary(table, table.name)
    found = [
        (table.name.project, table.name.dataset, table.name.table, each.id, each.created, each.modified)
        for each in session.partitions(table)
    ]
    names = params["selectedFields"].split(",") if params.get("selectedFields") else [each["name"] for each in SUMMARY_FIELDS]
    chosen = [place for place, field in enumerate(SUMMARY_FIELDS) if field["name"] in names]
    fields = [SUMMARY_FIELDS[place] for place in chosen]
    shown, token = pages(found, params.get("maxResults", ROWS), params.get("pageToken"))
    rows = [bigquery_results.row([each[place] for place in chosen], fields, whole=True) for each in shown]
    answer = {"kind": "bigquery#tableDataList", "totalRows": str(len(found)), "rows": rows}
    return with_token(answer, "pageToken", token)


def page(session: Session, table: Table, condition: str, params: Mapping[str, Any]) -> Resource:
    """A page of a table's rows."""
    options = {name.removeprefix("formatOptions."): value for name, value in params.items() if name.startswith("formatOptions.")}
    whole = bigquery_results.whole_timestamps(options)
    fields = table.fields
    if selected := params.get("selectedFields"):
        wanted = [name.strip().lower() for name in selected.split(",")]
        fields = [each for each in fields if each["name"].lower() in wanted]
        if len(fields) != len(set(wanted)):
            raise Refused("invalid", f"Invalid field selection {selected}", 400)
    token = params.get("pageToken")
    if token is not None and not str(token).isdigit():
        raise Refused("invalid", f"Invalid page token {token}", 400)
    begin = int(token) if token is not None else int(params.get("startIndex", 0))
    size = int(params.get("maxResults", ROWS))
    columns = ", ".join(quoted(each["name"]) for each in fields)
    total = session.first(f"SELECT count(*) FROM {table.name.place} WHERE {condition}")
    number = int(total[0]) if total else 0
    sql = f"SELECT {columns} FROM {table.name.place} WHERE {condition} LIMIT {size} OFFSET {begin}"
    found = session.sql.execute(sql).fetchall() if size else []
    answer: Resource = {"totalRows": str(number)}
    if found:
        answer["rows"] = [bigquery_results.row(each, fields, whole) for each in found]
    return with_token(answer, "pageToken", str(begin + size) if size and begin + size < number else "")


def job(resource: Resource) -> Resource:
    project, id = resource["jobReference"]["projectId"], resource["jobReference"].get("jobId", "")
    link = f"https://bigquery.googleapis.com/bigquery/v2/projects/{project}/jobs/{id}"
    return {"etag": f'"{hash(json.dumps(resource["status"])):x}"', "selfLink": link, **resource}


def dry_answer(resource: Resource) -> Resource:
    told = resource["statistics"]["query"]
    return {
        "kind": "bigquery#queryResponse",
        "jobReference": resource["jobReference"],
        "jobComplete": True,
        "totalBytesProcessed": told["totalBytesProcessed"],
        "cacheHit": False,
        "schema": told.get("schema", {"fields": []}),
        "totalRows": "0",
    }
