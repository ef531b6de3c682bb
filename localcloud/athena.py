"""Athena: queries over the tables of the catalog, run by DuckDB on the files that lie in S3."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb

from localcloud import athena_results, athena_sql, athena_tables
from localcloud.athena_sql import Malformed, Name, QueryFailed, Statement
from localcloud.glue_catalog import Catalog
from localcloud.jobs import Job, JobFailed, JobStopped
from localcloud.service import Cloud, Handler, NotHonoured, Refused

KIND = "query"
STATES = {
    "Pending": "QUEUED",
    "Running": "RUNNING",
    "Stopping": "CANCELLED",
    "Completed": "SUCCEEDED",
    "Failed": "FAILED",
    "Stopped": "CANCELLED",
}
LONGEST = 262144  # bytes
WORKGROUP = "primary"
MEMORY_LIMIT = "1GB"
CREATING = (athena_sql.CreateTable, athena_sql.DropTable, athena_sql.CreateDatabase, athena_sql.AddPartitions)


@dataclass
class Execution:
    """One query and what came of it."""

    id: str
    text: str
    parameters: tuple[str, ...]
    database: str
    output: str  # an S3 folder
    encryption: dict[str, Any] = field(default_factory=dict)
    columns: list[dict[str, Any]] = field(default_factory=list)
    header: tuple[str, ...] = ()
    rows: list[tuple[str | None, ...]] = field(default_factory=list)
    updated: int = 0
    scanned: int = 0
    substatement: str = ""
    # What makes the written files a table: done as the query ends, so that one that was stopped leaves nothing registered.
    commit: Callable[[], None] | None = None

    @property
    def statement_type(self) -> str:
        return "DDL" if self.substatement in ("CREATE_TABLE", "DROP_TABLE", "CREATE_DATABASE", "ALTER_TABLE") else "DML"

    @property
    def place(self) -> str:
        """The object that holds the answer."""
        return f"{self.output}{self.id}{'.txt' if self.statement_type == 'DDL' else '.csv'}"


def operations(cloud: Cloud, catalog: Catalog) -> dict[str, Handler]:
    given: dict[str, tuple[dict[str, Any], str]] = {}  # by token: the request, and the query that it has become
    lock = threading.Lock()

    def start_query_execution(request: dict[str, Any]) -> dict[str, Any]:
        token = request.get("ClientRequestToken")
        same = {name: value for name, value in request.items() if name != "ClientRequestToken"}
        with lock:
            if token in given:
                if given[token][0] != same:
                    raise Refused("InvalidRequestException", "Idempotent parameters do not match")
                return {"QueryExecutionId": given[token][1]}
            execution = _accepted(cloud, request)
            if token:
                given[token] = (same, execution.id)
            query = Query(cloud, catalog, execution)
            cloud.jobs.start("athena", KIND, execution.id, request, query.run, on_end=query.end, execution=execution)
        return {"QueryExecutionId": execution.id}

    def found(request: Mapping[str, Any]) -> Job:
        job = cloud.jobs.find(KIND, request["QueryExecutionId"])
        if job is None:
            raise Refused("InvalidRequestException", f"QueryExecution {request['QueryExecutionId']} was not found")
        return job

    def get_query_execution(request: dict[str, Any]) -> dict[str, Any]:
        return {"QueryExecution": _described(found(request))}

    def stop_query_execution(request: dict[str, Any]) -> dict[str, Any]:
        cloud.jobs.stop(found(request))
        return {}

    def get_query_results(request: dict[str, Any]) -> dict[str, Any]:
        job = found(request)
        state, execution = STATES[job.state], _execution(job)
        if state in ("QUEUED", "RUNNING"):
            raise Refused("InvalidRequestException", f"Query has not yet finished. Current state: {state}")
        if state != "SUCCEEDED":
            raise Refused("InvalidRequestException", f"Query did not finish successfully. Final query state: {state}")
        return _page(execution, request)

    def get_work_group(request: dict[str, Any]) -> dict[str, Any]:
        if request["WorkGroup"] != WORKGROUP:
            raise Refused("InvalidRequestException", f"WorkGroup {request['WorkGroup']} is not found.")
        configuration = {
            "ResultConfiguration": {},
            "EnforceWorkGroupConfiguration": False,
            "PublishCloudWatchMetricsEnabled": False,
            "RequesterPaysEnabled": False,
            "EngineVersion": ENGINE,
        }
        return {"WorkGroup": {"Name": WORKGROUP, "State": "ENABLED", "Configuration": configuration}}

    return {
        "StartQueryExecution": start_query_execution,
        "GetQueryExecution": get_query_execution,
        "StopQueryExecution": stop_query_execution,
        "GetQueryResults": get_query_results,
        "GetWorkGroup": get_work_group,
    }


ENGINE = {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"}


def _accepted(cloud: Cloud, request: Mapping[str, Any]) -> Execution:
    """A query that is worth queueing.

    Raises:
        Refused: as Athena refuses it.
    """
    text = request["QueryString"]
    if len(text.encode()) > LONGEST:
        raise Refused("InvalidRequestException", f"Your query has exceeded the maximum query length of {LONGEST} bytes")
    if request.get("WorkGroup", WORKGROUP) != WORKGROUP:
        raise Refused("InvalidRequestException", f"WorkGroup {request['WorkGroup']} is not found.")
    context = request.get("QueryExecutionContext", {})
    if context.get("Catalog", athena_sql.CATALOG).lower() != athena_sql.CATALOG:
        raise Refused("InvalidRequestException", f"Catalog {context['Catalog']} does not exist")
    configuration = request.get("ResultConfiguration", {})
    # Keys are not looked for: whether a role may use one is a thing of AWS.
    if others := sorted(configuration.keys() - {"OutputLocation", "EncryptionConfiguration"}):
        raise NotHonoured(f"{', '.join(others)} of ResultConfiguration")
    if request.get("ResultReuseConfiguration", {}).get("ResultReuseByAgeConfiguration", {}).get("Enabled"):
        raise NotHonoured("ResultReuseConfiguration")
    output = configuration.get("OutputLocation", "")
    if not output:
        raise Refused(
            "InvalidRequestException",
            "No output location provided. An output location is required either through the Workgroup result configuration"
            " setting or as an API input.",
        )
    if not re.fullmatch(r"s3://[^/]+(/.*)?", output):
        raise Refused("InvalidRequestException", f"outputLocation is not a valid S3 path: {output}")
    parameters = tuple(request.get("ExecutionParameters", ()))
    execution = Execution(
        id=str(uuid.uuid4()),
        text=text,
        parameters=parameters,
        database=context.get("Database", "default"),
        output=output.rstrip("/") + "/",
        encryption=configuration.get("EncryptionConfiguration", {}),
    )
    try:
        execution.substatement = _substatement(athena_sql.read(text, parameters, execution.database))
    except Malformed as error:
        raise Refused("InvalidRequestException", str(error)) from None
    except QueryFailed:
        execution.substatement = "SELECT"  # it says so again when it is run
    return execution


def _substatement(statement: Statement) -> str:
    names: dict[type[Any], str] = {
        athena_sql.Select: "SELECT",
        athena_sql.CreateTableAs: "CREATE_TABLE_AS_SELECT",
        athena_sql.Unload: "UNLOAD",
        athena_sql.Insert: "INSERT",
        athena_sql.CreateTable: "CREATE_TABLE",
        athena_sql.DropTable: "DROP_TABLE",
        athena_sql.CreateDatabase: "CREATE_DATABASE",
        athena_sql.AddPartitions: "ALTER_TABLE",
    }
    return names[type(statement)]


@dataclass
class Query:
    """A query while it is run."""

    cloud: Cloud
    catalog: Catalog
    execution: Execution

    def run(self, job: Job) -> None:
        """Raises JobFailed with the reason, in Athena's words."""
        execution = self.execution
        with _connected(self.cloud) as (connection, scratch), _interrupted(job, connection):
            try:
                statement = athena_sql.read(execution.text, execution.parameters, execution.database)
                self._do(statement, connection, scratch)
                job.check()
            except duckdb.InterruptException:
                raise JobStopped from None
            except duckdb.Error as error:
                job.check()
                raise JobFailed(reason(error)) from None
            except (QueryFailed, Malformed) as error:
                raise JobFailed(str(error)) from None
            except Refused as error:
                raise JobFailed(f"{error.code}: {error.message}") from None

    def end(self, job: Job) -> None:
        if job.facts["ends"] == "Completed" and self.execution.commit:
            self.execution.commit()

    def _do(self, statement: Statement, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        if isinstance(statement, athena_sql.Select):
            self._select(self._translated(statement.query, connection), connection)
        elif isinstance(statement, athena_sql.CreateTableAs):
            self._create_table_as(statement, connection, scratch)
        elif isinstance(statement, athena_sql.Unload):
            self._unload(statement, connection, scratch)
        elif isinstance(statement, athena_sql.Insert):
            self._insert(statement, connection, scratch)
        else:
            self._define(statement)
            self.cloud.files.write(self.execution.place, b"")

    def _translated(self, query: Any, connection: duckdb.DuckDBPyConnection) -> str:
        """The query for DuckDB, with a view for each place where a table is read."""
        views: dict[int, str] = {}
        columns: dict[str, Mapping[str, str]] = {}
        known: dict[Name, tuple[dict[str, Any], list[dict[str, Any]]]] = {}  # each table as it is now, wherever it is read
        read: list[tuple[Any, Name]] = []
        for table in athena_sql.tables(query):
            name = athena_sql.table_name(table, self.execution.database)
            if name not in known:
                known[name] = self._found(name)
            read.append((table, name))
        reader = athena_tables.Reader(self.cloud.files, connection)
        for number, (table, name) in enumerate(read):
            whole, partitions = known[name]
            terms = athena_sql.partition_terms(table, [each["Name"] for each in athena_tables.keys(whole)])
            relation = athena_tables.relation(reader, whole, partitions, terms)
            views[id(table)] = f"_{number}_{name.table}"
            columns[views[id(table)]] = relation.columns
            connection.execute(f'CREATE TEMP VIEW "{views[id(table)]}" AS {relation.sql}')
            self.execution.scanned += relation.scanned
        return athena_sql.duckdb(query, [views[id(table)] for table, _ in read], columns)

    def _found(self, name: Name) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        try:
            return self.catalog.table_and_partitions(name.database, name.table)
        except Refused as error:
            if error.message.startswith("Database"):
                raise QueryFailed(f"SCHEMA_NOT_FOUND: line 1:1: Schema '{name.database}' does not exist") from None
            raise QueryFailed(f"TABLE_NOT_FOUND: line 1:1: Table '{name}' does not exist") from None

    def _select(self, sql: str, connection: duckdb.DuckDBPyConnection) -> None:
        execution = self.execution
        described = connection.execute(f"DESCRIBE {sql}").fetchall()
        names, kinds = [row[0] for row in described], [row[1] for row in described]
        answer = connection.execute(sql).fetchall()
        execution.columns = [athena_results.column_info(name, kind) for name, kind in zip(names, kinds, strict=True)]
        execution.header = tuple(names)
        execution.rows = [
            tuple(athena_results.text(value, kind) for value, kind in zip(row, kinds, strict=True)) for row in answer
        ]
        self.cloud.files.write(execution.place, athena_results.csv(execution.header, execution.rows))
        self.cloud.files.write(f"{execution.place}.metadata", b"")

    def _create_table_as(self, asked: athena_sql.CreateTableAs, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        execution = self.execution
        if self._exists(asked.name):
            if asked.if_not_exists:
                return
            raise QueryFailed(f"TABLE_ALREADY_EXISTS: line 1:1: Destination table '{asked.name}' already exists")
        athena_tables.check_format(asked.format, asked.compression)
        if asked.bucketed_by and not asked.buckets:
            raise QueryFailed("INVALID_TABLE_PROPERTY: bucketed_by needs bucket_count")
        location = asked.location.rstrip("/") or f"{execution.output}tables/{execution.id}"
        sql = self._translated(asked.query, connection)
        self._must_be_empty(location, str(asked.name))
        written = athena_tables.write(
            connection,
            sql,
            scratch,
            asked.format,
            asked.compression,
            asked.partitioned_by,
            asked.buckets,
            asked.bucketed_by,
        )
        self._upload(scratch, location)
        own, keys = _split(written.columns, asked.partitioned_by)
        table = {
            "Name": asked.name.table,
            "TableType": "EXTERNAL_TABLE",
            "Parameters": {"EXTERNAL": "TRUE", "has_encrypted_data": "false", "transactional": "false"},
            "PartitionKeys": keys,
            "StorageDescriptor": athena_tables.storage(asked.format, location, own),
        }
        partitions = [
            {"Values": list(values), "StorageDescriptor": athena_tables.storage(asked.format, f"{location}/{below}", own)}
            for values, below in written.partitions
        ]
        execution.updated = written.rows
        execution.commit = lambda: self.catalog.create_table(asked.name.database, table, partitions)

    def _unload(self, asked: athena_sql.Unload, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        athena_tables.check_format(asked.format, asked.compression)
        sql = self._translated(asked.query, connection)
        self._must_be_empty(asked.to, "temporary")
        self.execution.updated = athena_tables.write(connection, sql, scratch, asked.format, asked.compression).rows
        self._upload(scratch, asked.to)

    def _insert(self, asked: athena_sql.Insert, connection: duckdb.DuckDBPyConnection, scratch: Path) -> None:
        table, partitions = self._found(asked.name)
        kinds, keys = athena_tables.types(table), [each["Name"].lower() for each in athena_tables.keys(table)]
        names = list(asked.columns or kinds)
        if unknown := [name for name in names if name not in kinds]:
            raise QueryFailed(f"COLUMN_NOT_FOUND: line 1:1: Insert column name does not exist in target table: {unknown[0]}")
        sql = self._translated(asked.query, connection)
        found = connection.execute(f"DESCRIBE {sql}").fetchall()
        if len(found) != len(names):
            raise QueryFailed(
                f"TYPE_MISMATCH: line 1:1: Insert query has mismatched column types: {len(names)} wanted, {len(found)} given"
            )
        listed = ", ".join(f'"{name}"' for name in names)
        shown = ", ".join(
            f'CAST({f"_given.{chr(34)}{name}{chr(34)}" if name in names else "NULL"} AS {kind}) AS "{name}"'
            for name, kind in kinds.items()
        )
        whole = f"SELECT {shown} FROM ({sql}) AS _given({listed})"
        written = athena_tables.write(connection, whole, scratch, athena_tables.format_of(table), "", keys)
        location = table["StorageDescriptor"]["Location"].rstrip("/")
        there = {tuple(each["Values"]): each["StorageDescriptor"]["Location"] for each in partitions}
        new = []
        for values, below in written.partitions or (((), ""),):
            target = there.get(values, f"{location}/{below}".rstrip("/"))
            self._upload(scratch / below, target)
            if below and values not in there:
                new.append({"Values": list(values), "StorageDescriptor": {**table["StorageDescriptor"], "Location": target}})
        self.execution.updated = written.rows
        if new:
            self.execution.commit = lambda: self._register(asked.name, new)

    def _register(self, name: Name, partitions: Sequence[Mapping[str, Any]]) -> None:
        for values, error in self.catalog.create_partitions(name.database, name.table, partitions):
            if error.code != "AlreadyExistsException":
                raise JobFailed(f"HIVE_METASTORE_ERROR: partition {values}: {error.message}")

    def _define(self, asked: Statement) -> None:
        """What changes the catalog and nothing else."""
        try:
            if isinstance(asked, athena_sql.CreateDatabase):
                self.catalog.create_database({"Name": asked.name})
            elif isinstance(asked, athena_sql.CreateTable):
                self.catalog.create_table(asked.name.database, asked.table)
            elif isinstance(asked, athena_sql.DropTable):
                self.catalog.delete_table(asked.name.database, asked.name.table)
            elif isinstance(asked, athena_sql.AddPartitions):
                self._add_partitions(asked)
        except Refused as error:
            lenient = getattr(asked, "if_not_exists", False) and error.code == "AlreadyExistsException"
            absent = getattr(asked, "if_exists", False) and error.code == "EntityNotFoundException"
            if not (lenient or absent):
                raise QueryFailed(f"FAILED: Execution Error, return code 1: {error.code}: {error.message}") from None

    def _add_partitions(self, asked: athena_sql.AddPartitions) -> None:
        table = self.catalog.table(asked.name.database, asked.name.table)
        names = [each["Name"].lower() for each in athena_tables.keys(table)]
        for given, location in asked.partitions:
            if sorted(given) != sorted(names):
                raise QueryFailed(f"FAILED: SemanticException: partition spec {dict(given)} doesn't contain all of {names}")
            values = [given[name] for name in names]
            hive = "/".join(f"{name}={given[name]}" for name in names)
            target = location or f"{table['StorageDescriptor']['Location'].rstrip('/')}/{hive}"
            storage = {**table["StorageDescriptor"], "Location": target}
            try:
                self.catalog.create_partition(
                    asked.name.database, asked.name.table, {"Values": values, "StorageDescriptor": storage}
                )
            except Refused as error:
                if not (asked.if_not_exists and error.code == "AlreadyExistsException"):
                    raise

    def _exists(self, name: Name) -> bool:
        try:
            self._found(name)
        except QueryFailed as error:
            if str(error).startswith("SCHEMA_NOT_FOUND"):
                raise
            return False
        return True

    def _must_be_empty(self, location: str, table: str) -> None:
        if self.cloud.files.keys(location.rstrip("/") + "/"):
            raise QueryFailed(
                f"HIVE_PATH_ALREADY_EXISTS: Target directory for table '{table}' already exists: {location}. You may need to"
                " manually clean the data at this location before retrying. Athena will not delete data in your account."
            )

    def _upload(self, folder: Path, location: str) -> None:
        """What was written, and a list of it beside the answer."""
        put = self.cloud.files.upload(folder, location)
        manifest = f"{self.execution.output}{self.execution.id}-manifest.csv"
        self.cloud.files.write(manifest, "".join(f"{uri}\n" for uri in put).encode())


def _split(
    columns: Sequence[tuple[str, str]], partitioned_by: Sequence[str]
) -> tuple[list[tuple[str, str]], list[dict[str, str]]]:
    own = [(name, kind) for name, kind in columns if name not in partitioned_by]
    return own, [{"Name": name, "Type": kind} for name, kind in columns if name in partitioned_by]


@contextmanager
def _connected(cloud: Cloud) -> Iterator[tuple[duckdb.DuckDBPyConnection, Path]]:
    """A DuckDB of its own that sees the mirror of S3 and a folder to write in, and no other file of this machine."""
    scratch = Path(tempfile.mkdtemp(prefix="athena-", dir=cloud.folder))
    chosen: dict[str, Any] = {"threads": 2, "memory_limit": MEMORY_LIMIT, "async_threads": 0, "autoload_known_extensions": False}
    try:
        with duckdb.connect(config=chosen) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"SET temp_directory = '{scratch / '.spill'}'")
            # Of a Parquet file it believes the least and largest value, which leave NaN out: NaN would pass as a number.
            connection.execute("SET disabled_optimizers = 'statistics_propagation'")
            connection.execute("SET allowed_directories = $1", [[f"{cloud.files.root}/", f"{scratch}/"]])
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            yield connection, scratch / "out"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _interrupted(job: Job, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """While this lasts, DuckDB is interrupted as soon as the job is to be stopped."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.1):
            if job.stopping.is_set():
                connection.interrupt()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()


def reason(error: duckdb.Error) -> str:
    """What DuckDB says, as Athena would begin it."""
    said = str(error).split("\n\nLINE ")[0].split("\nCandidate")[0].split("\nDid you mean")[0]
    words = " ".join(said.partition(": ")[2].split()) or said
    place = "line 1:1: "
    if re.search(r"Malformed JSON|JSON transform error|CSV Error|in file \"", said):
        return f"HIVE_BAD_DATA: {words.partition(' This type was')[0][:500]}"
    if found := re.search(r'column(?: named)? "([^"]+)" not found|have a column named "([^"]+)"', said):
        column = found[1] or found[2]
        return (
            f"COLUMN_NOT_FOUND: {place}Column '{column}' cannot be resolved or requester is not authorized to access"
            " requested resources"
        )
    if found := re.search(r"Function with name \"?(\w+)\"? does not exist", said):
        return f"FUNCTION_NOT_FOUND: {place}Function '{found[1]}' not registered"
    if "must appear in the GROUP BY" in said:
        return f"EXPRESSION_NOT_AGGREGATE: {place}{words}"
    if "Division by zero" in said:
        return "DIVISION_BY_ZERO: Division by zero"
    codes: dict[type[duckdb.Error], str] = {
        duckdb.ConversionException: "INVALID_CAST_ARGUMENT: ",
        duckdb.OutOfRangeException: "NUMERIC_VALUE_OUT_OF_RANGE: ",
        duckdb.BinderException: f"SYNTAX_ERROR: {place}",
        duckdb.CatalogException: f"SYNTAX_ERROR: {place}",
        duckdb.ParserException: f"SYNTAX_ERROR: {place}",
        duckdb.OutOfMemoryException: "EXCEEDED_MEMORY_LIMIT: ",
    }
    return codes.get(type(error), "GENERIC_INTERNAL_ERROR: ") + words


def _execution(job: Job) -> Execution:
    execution: Execution = job.facts["execution"]
    return execution


def _described(job: Job) -> dict[str, Any]:
    execution = _execution(job)
    state = STATES[job.state]
    status: dict[str, Any] = {"State": state, "SubmissionDateTime": job.created}
    if state in ("SUCCEEDED", "FAILED", "CANCELLED"):
        status["CompletionDateTime"] = job.ended or job.created
    if state == "FAILED":
        status["StateChangeReason"] = job.reason
        status["AthenaError"] = {"ErrorCategory": 2, "ErrorType": 1, "Retryable": False, "ErrorMessage": job.reason}
    if state == "CANCELLED":
        status["StateChangeReason"] = "Query cancelled by user"
    queued = _milliseconds(job.created, job.started)
    ran = _milliseconds(job.started, job.ended)
    statistics: dict[str, Any] = {
        "EngineExecutionTimeInMillis": ran,
        "DataScannedInBytes": execution.scanned,
        "TotalExecutionTimeInMillis": queued + ran,
        "QueryQueueTimeInMillis": queued,
        "ServiceProcessingTimeInMillis": 0,
    }
    if execution.substatement in ("CREATE_TABLE_AS_SELECT", "UNLOAD", "INSERT"):
        statistics["DataManifestLocation"] = f"{execution.output}{execution.id}-manifest.csv"
    return {
        "QueryExecutionId": execution.id,
        "Query": execution.text,
        "StatementType": execution.statement_type,
        "SubstatementType": execution.substatement,
        "ResultConfiguration": {
            "OutputLocation": execution.place,
            **({"EncryptionConfiguration": execution.encryption} if execution.encryption else {}),
        },
        "QueryExecutionContext": {"Database": execution.database, "Catalog": athena_sql.CATALOG},
        "Status": status,
        "Statistics": statistics,
        "WorkGroup": WORKGROUP,
        "EngineVersion": ENGINE,
        **({"ExecutionParameters": list(execution.parameters)} if execution.parameters else {}),
    }


def _milliseconds(begin: Any, end: Any) -> int:
    return int((end - begin).total_seconds() * 1000) if begin and end else 0


def _page(execution: Execution, request: Mapping[str, Any]) -> dict[str, Any]:
    """A page of the answer; the first row of all is the names of the columns."""
    rows = [execution.header, *execution.rows] if execution.header else []
    begin = _begin(request.get("NextToken"))
    end = begin + request.get("MaxResults", 1000)
    shown = [{"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in rows[begin:end]]
    page: dict[str, Any] = {
        "UpdateCount": execution.updated,
        "ResultSet": {"Rows": shown, "ResultSetMetadata": {"ColumnInfo": execution.columns}},
    }
    return {**page, "NextToken": json.dumps(end)} if end < len(rows) else page


def _begin(token: str | None) -> int:
    if token is None:
        return 0
    if not token.isdigit():
        raise Refused("InvalidRequestException", f"NextToken {token!r} is not one that was given")
    return int(token)
