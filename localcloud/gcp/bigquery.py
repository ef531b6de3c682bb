"""BigQuery over HTTP: datasets, tables, their rows, and jobs."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from localcloud.gcp import bigquery_parquet, bigquery_writes, zetasql_check
from localcloud.gcp import bigquery_resources as resources
from localcloud.gcp import bigquery_types as types
from localcloud.gcp.bigquery_jobs import BigQueryJobs, Resource, Run, refusal
from localcloud.gcp.bigquery_tables import ANONYMOUS, LOCATION, Name, Session, Store, Table, now
from localcloud.gcp.bigquery_types import quoted
from localcloud.gcp.service import Asked, Cloud, Objects, Operations, pages
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

# What a query that is asked for by jobs.query has of a job's configuration.
OF_QUERY = (
    "query",
    "useLegacySql",
    "useQueryCache",
    "maximumBytesBilled",
    "parameterMode",
    "queryParameters",
    "defaultDataset",
    "destinationEncryptionConfiguration",
)
OF_JOB = ("labels", "jobTimeoutMs", "dryRun")
OF_TABLE = (
    "tableReference.projectId tableReference.datasetId tableReference.tableId schema.fields labels description friendlyName"
    " expirationTime requirePartitionFilter timePartitioning.type timePartitioning.field timePartitioning.requirePartitionFilter"
    " clustering.fields encryptionConfiguration.kmsKeyName"
)
KEPT = ("labels", "description", "friendlyName", "expirationTime", "requirePartitionFilter", "timePartitioning", "clustering")
# A client that changes a table may send back all that it was told of it.
TOLD = (
    " kind etag id selfLink type location creationTime lastModifiedTime numBytes numRows numLongTermBytes numTotalLogicalBytes"
    " numActiveLogicalBytes"
)
check_dataset = honoured(
    "datasets.insert",
    "kind datasetReference.projectId datasetReference.datasetId location labels description friendlyName",
)
check_table = honoured("tables.insert", OF_TABLE)
check_patch = honoured("tables.patch", OF_TABLE + TOLD)
check_query = honoured(
    "jobs.query",
    f"{' '.join(OF_QUERY)} {' '.join(OF_JOB)} kind location maxResults timeoutMs requestId"
    " formatOptions.useInt64Timestamp formatOptions.timestampOutputFormat"
    " jobCreationMode=JOB_CREATION_MODE_UNSPECIFIED|JOB_CREATION_REQUIRED|JOB_CREATION_OPTIONAL",
)


class BigQuery:
    """BigQuery as the cloud itself sees it."""

    def __init__(self, folder: Path, objects: Objects) -> None:
        self.store = Store(folder)
        self.objects = objects
        threading.Thread(target=zetasql_check.warm_up, name="warm up", daemon=True).start()

    def rows(self, table: str) -> pa.Table:
        """Raises LookupError if there is no such table."""
        name = _named(table)
        with self.store.reading() as session:
            try:
                found = session.find(name)
            except Refused as error:
                raise LookupError(error.message) from None
            if found is None:
                raise LookupError(table)
            return arrow_rows(session, found)

    def write(self, table: str, rows: pa.Table, *, replace: bool = True) -> None:
        name = _named(table)
        fields = [_field(each) for each in rows.schema]
        to = bigquery_writes.Destination(name, "WRITE_TRUNCATE" if replace else "WRITE_APPEND")
        with self.store.writing() as session:
            session.sql.register("given_", rows)
            try:
                bigquery_writes.written(session, to, "SELECT * FROM given_", fields)
            except Refused as error:
                if error.status != 404:
                    raise
                raise LookupError(error.message) from None
            finally:
                session.sql.unregister("given_")

    def close(self) -> None:
        self.store.close()


def _named(table: str) -> Name:
    project, dataset, name = table.split(".")
    return bigquery_writes.named({"projectId": project, "datasetId": dataset, "tableId": name})


def _field(column: pa.Field) -> types.Field:
    naive = pa.types.is_timestamp(column.type) and column.type.tz is None
    found = bigquery_parquet.field(column.name, column.type)
    return {**found, "type": "DATETIME"} if naive else found


def arrow_rows(session: Session, table: Table, condition: str = "true") -> pa.Table:
    """A table's rows with the types that BigQuery gives them in Arrow."""
    columns = ", ".join(quoted(each["name"]) for each in table.fields)
    found = session.arrow(f"SELECT {columns} FROM {table.name.place} WHERE {condition}")
    return found.cast(pa.schema([pa.field(each["name"], bigquery_parquet.arrow(each)) for each in table.fields]))


def tables(folder: Path, objects: Objects) -> BigQuery:
    return BigQuery(folder, objects)


def operations(cloud: Cloud) -> Operations:
    bigquery = cloud.tables
    assert isinstance(bigquery, BigQuery)
    store = bigquery.store
    store.project = cloud.project
    service = _Service(cloud, store, BigQueryJobs(cloud, store))
    return {
        "datasets.get": service.get_dataset,
        "datasets.insert": service.insert_dataset,
        "tables.get": service.get_table,
        "tables.insert": service.insert_table,
        "tables.patch": service.patch_table,
        "tables.delete": service.delete_table,
        "tables.list": service.list_tables,
        "tabledata.list": service.list_rows,
        "jobs.insert": service.insert_job,
        "jobs.get": service.get_job,
        "jobs.cancel": service.cancel_job,
        "jobs.list": service.list_jobs,
        "jobs.query": service.query,
        "jobs.getQueryResults": service.results,
    }


class _Service:
    def __init__(self, cloud: Cloud, store: Store, jobs: BigQueryJobs) -> None:
        self._cloud, self._store, self._jobs = cloud, store, jobs
        self._lock = threading.Lock()
        self._asked: dict[str, tuple[str, str]] = {}  # by the id of a request: what it was, and the job that it has become

    # Datasets.

    def get_dataset(self, asked: Asked) -> Resource:
        _honour(asked, "datasetView=FULL|METADATA|DATASET_VIEW_UNSPECIFIED")
        self._check_project(asked)
        with self._store.reading() as session:
            return resources.dataset(self._cloud.project, asked.params["datasetId"], session.dataset(asked.params["datasetId"]))

    def insert_dataset(self, asked: Asked) -> Resource:
        _honour(asked, "")
        check_dataset(asked.body)
        self._check_project(asked)
        name = asked.body.get("datasetReference", {}).get("datasetId", "")
        if not name.replace("_", "a").isalnum() or (name.startswith("_") and name == ANONYMOUS):
            raise Refused("invalid", f'Invalid dataset ID "{name}". Dataset IDs must be alphanumeric (plus underscores)', 400)
        kept = {key: asked.body[key] for key in ("labels", "description", "friendlyName") if asked.body.get(key)}
        moment = str(now())
        resource = {
            "location": asked.body.get("location") or LOCATION,
            "creationTime": moment,
            "lastModifiedTime": moment,
            **kept,
        }
        with self._store.writing() as session:
            session.create_dataset(name, resource)
        return resources.dataset(self._cloud.project, name, resource)

    def _check_project(self, asked: Asked) -> None:
        if asked.params["projectId"] != self._cloud.project:
            raise Refused("notFound", f"Not found: Project {asked.params['projectId']}", 404)

    # Tables.

    def get_table(self, asked: Asked) -> Resource:
        _honour(asked, "view")
        name = _asked_table(asked)
        with self._store.reading() as session:
            table = session.table(name)
            if name.partition == resources.SUMMARY:
                return resources.summary(table, name)
            session.condition(table, name.partition)
            return resources.described(session, table, name)

    def insert_table(self, asked: Asked) -> Resource:
        _honour(asked, "")
        check_table(asked.body)
        given = asked.body.get("tableReference", {})
        reference = {
            "projectId": asked.params["projectId"],
            "datasetId": asked.params["datasetId"],
            "tableId": given.get("tableId"),
        }
        name = bigquery_writes.named({key: value or "" for key, value in reference.items()})
        fields = types.read_fields(asked.body.get("schema", {}).get("fields", ()))
        with self._store.writing() as session:
            table = session.create(name, fields, _facts(asked.body))
            return resources.described(session, table, name)

    def patch_table(self, asked: Asked) -> Resource:
        _honour(asked, "")
        check_patch(asked.body)
        name = _asked_table(asked)
        with self._store.writing() as session:
            table = session.table(name)
            wanted = asked.headers.get("if-match", "*")
            if wanted not in ("*", resources.described(session, table, name)["etag"]):
                raise Refused("conditionNotMet", "Precondition Failed", 412)
            if given := (asked.body.get("schema") or {}).get("fields"):
                table = session.add_columns(table, types.read_fields(given))
            changes = _facts(asked.body)
            for fixed in ("timePartitioning", "clustering"):
                if changes.get(fixed) is not None and changes[fixed] != table.resource.get(fixed):
                    raise NotHonoured(f"another {fixed} of a table that there is")
            if changes.get("labels"):
                labels = {**table.resource.get("labels", {}), **changes["labels"]}
                changes["labels"] = {key: value for key, value in labels.items() if value is not None}
            return resources.described(session, session.change(table, changes), name)

    def delete_table(self, asked: Asked) -> Resource:
        _honour(asked, "")
        name = _asked_table(asked)
        with self._store.writing() as session:
            table = session.table(name)
            if not name.partition:
                session.drop(table)
                return {}
            session.sql.execute(f"DELETE FROM {name.place} WHERE {session.condition(table, name.partition)}")
            session.touched(table, [name.partition])
        return {}

    def list_tables(self, asked: Asked) -> Resource:
        _honour(asked, "maxResults pageToken")
        self._check_project(asked)
        with self._store.reading() as session:
            found = [resources.described(session, table, table.name) for table in session.tables(asked.params["datasetId"])]
        shown, token = pages(found, asked.params.get("maxResults", 50), asked.params.get("pageToken"))
        names = (
            "kind",
            "id",
            "tableReference",
            "type",
            "timePartitioning",
            "clustering",
            "labels",
            "creationTime",
            "expirationTime",
        )
        rows = [{name: each[name] for name in names if name in each} for each in shown]
        return resources.with_token(
            {"kind": "bigquery#tableList", "tables": rows, "totalItems": len(found)}, "nextPageToken", token
        )

    # Rows.

    def list_rows(self, asked: Asked) -> Resource:
        _honour(asked, "maxResults pageToken startIndex selectedFields formatOptions.useInt64Timestamp"
                " formatOptions.timestampOutputFormat")  # fmt: skip
        name = _asked_table(asked)
        with self._store.reading() as session:
            table = session.table(name)
            if name.partition == resources.SUMMARY:
                return resources.summary_rows(session, table, asked.params)
            page = resources.page(session, table, session.condition(table, name.partition), asked.params)
        return {"kind": "bigquery#tableDataList", "etag": resources.etag(table), **page}

    # Jobs.

    def insert_job(self, asked: Asked) -> Resource:
        _honour(asked, "")
        self._check_project(asked)
        if asked.content:
            raise NotHonoured("load jobs with content: their files are in Cloud Storage")
        return resources.job(self._jobs.insert(asked.body))

    def get_job(self, asked: Asked) -> Resource:
        _honour(asked, "location projection")
        self._check_project(asked)
        return resources.job(self._jobs.described(self._jobs.run(asked.params["jobId"], asked.params.get("location"))))

    def cancel_job(self, asked: Asked) -> Resource:
        _honour(asked, "location projection")
        self._check_project(asked)
        run = self._jobs.run(asked.params["jobId"], asked.params.get("location"))
        return {"kind": "bigquery#jobCancelResponse", "job": resources.job(self._jobs.cancel(run))}

    def list_jobs(self, asked: Asked) -> Resource:
        _honour(asked, "allUsers maxResults pageToken projection stateFilter minCreationTime maxCreationTime")
        self._check_project(asked)
        wanted = [state.upper() for state in asked.params.get("stateFilter", ())]
        low, high = (
            int(asked.params.get(name, default)) for name, default in (("minCreationTime", 0), ("maxCreationTime", 2**63))
        )
        found = []
        for each in self._jobs.listed():
            state = each["status"]["state"]
            if (not wanted or state in wanted) and low <= int(each["statistics"]["creationTime"]) <= high:
                whole = asked.params.get("projection", "minimal") == "full"
                names = (
                    "kind",
                    "id",
                    "jobReference",
                    "status",
                    "statistics",
                    "user_email",
                    *(("configuration",) if whole else ()),
                )
                error = {"errorResult": each["status"]["errorResult"]} if "errorResult" in each["status"] else {}
                found.append({**{name: each[name] for name in names}, "state": state, **error})
        shown, token = pages(found, asked.params.get("maxResults", 50), asked.params.get("pageToken"))
        return resources.with_token({"kind": "bigquery#jobList", "jobs": shown}, "nextPageToken", token)

    def query(self, asked: Asked) -> Resource:
        _honour(asked, "")
        self._check_project(asked)
        check_query(asked.body)
        body = asked.body
        query = {name: body[name] for name in OF_QUERY if name in body}
        configuration = {"query": query, **{name: body[name] for name in OF_JOB if name in body}}
        reference = {"jobId": f"job_{uuid.uuid4().hex}", "projectId": self._cloud.project}
        if body.get("location"):
            reference["location"] = body["location"]
        request = {"jobReference": reference, "configuration": configuration}
        if body.get("dryRun"):
            return resources.dry_answer(self._jobs.insert(request))
        id = self._once(body, request)
        run = self._jobs.run(id)
        # Ten seconds if nothing is said, as BigQuery waits.
        done = self._jobs.over(run, int(body.get("timeoutMs", 10_000)) / 1000)
        params = {
            **{f"formatOptions.{name}": value for name, value in body.get("formatOptions", {}).items()},
            **resources.limit(body),
        }
        answer = {name: value for name, value in self._answer(run, params, done).items() if name != "etag"}
        return {**answer, "kind": "bigquery#queryResponse"}

    def _once(self, body: Mapping[str, Any], request: Mapping[str, Any]) -> str:
        """The job of a request; that which there is already if it is sent again."""
        with self._lock:
            token, text = body.get("requestId"), json.dumps(body, sort_keys=True)
            if token and token in self._asked:
                if self._asked[token][0] != text:
                    raise Refused("invalid", f"The request id {token} was used for another query", 400)
                return self._asked[token][1]
            id = str(self._jobs.insert(request)["jobReference"]["jobId"])
            if token:
                self._asked[token] = (text, id)
            return id

    def results(self, asked: Asked) -> Resource:
        _honour(asked, "location maxResults pageToken startIndex timeoutMs formatOptions.useInt64Timestamp"
                " formatOptions.timestampOutputFormat")  # fmt: skip
        self._check_project(asked)
        run = self._jobs.run(asked.params["jobId"], asked.params.get("location"))
        if "query" not in run.resource["configuration"]:
            raise Refused("invalid", f"Cannot read results of a job that is no query: {run.resource['id']}", 400)
        done = self._jobs.over(run, asked.params.get("timeoutMs", 10_000) / 1000)
        return {**self._answer(run, asked.params, done), "kind": "bigquery#getQueryResultsResponse"}

    def _answer(self, run: Run, params: Mapping[str, Any], done: bool) -> Resource:
        resource = self._jobs.described(run)
        found: Resource = {"jobReference": resource["jobReference"], "jobComplete": done}
        if not done:
            return found
        if error := refusal(resource):
            raise error
        told = resource["statistics"]["query"]
        found |= {name: told[name] for name in ("totalBytesProcessed", "cacheHit", "numDmlAffectedRows") if name in told}
        to = resource["configuration"]["query"].get("destinationTable")
        if to is None:
            return {**found, "totalRows": "0", "schema": {"fields": []}} if told["statementType"] != "SELECT" else found
        name = bigquery_writes.named(to, self._cloud.project)
        with self._store.reading() as session:
            table = session.table(name)
            page = resources.page(session, table, session.condition(table, name.partition), params)
        return {**found, "etag": resources.etag(table), "schema": {"fields": told["schema"]["fields"]}, **page}


def _honour(asked: Asked, names: str) -> None:
    own = {"projectId", "datasetId", "tableId", "jobId"}
    system = {"alt", "fields", "prettyPrint"}
    honoured(asked.operation, names)({name: value for name, value in asked.params.items() if name not in own | system})


def _asked_table(asked: Asked) -> Name:
    return bigquery_writes.named({name: asked.params[name] for name in ("projectId", "datasetId", "tableId")})


def _facts(body: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of what is said of a table."""
    facts = {name: body[name] for name in KEPT if name in body}
    if partitioning := facts.get("timePartitioning"):
        required = partitioning.get("requirePartitionFilter")
        plain = {name: value for name, value in partitioning.items() if name != "requirePartitionFilter" and value is not None}
        facts["timePartitioning"] = {"type": "DAY", **plain}
        if required is not None:
            facts["requirePartitionFilter"] = required
    return {name: value for name, value in facts.items() if value is not None or name not in ("timePartitioning", "clustering")}
