"""The Data API of Redshift: statements run by DuckDB on one file for each database."""

from __future__ import annotations

import re
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from localcloud import sql_types
from localcloud.glue_catalog import Catalog
from localcloud.honoured import honoured
from localcloud.jobs import Job, JobFailed, JobStopped
from localcloud.service import Cloud, Handler, Refused

KIND = "statement"
STATES = {
    "Pending": "SUBMITTED",
    "Running": "STARTED",
    "Stopping": "STARTED",
    "Completed": "FINISHED",
    "Failed": "FAILED",
    "Stopped": "ABORTED",
}
LONGEST = 100_000  # bytes of a statement
PAGE = 1000
WHERE = "ClusterIdentifier WorkgroupName SecretArn DbUser Database WithEvent=False StatementName Parameters ClientToken"
check_one = honoured("ExecuteStatement", f"Sql {WHERE} ResultFormat=JSON")
check_batch = honoured("BatchExecuteStatement", f"Sqls {WHERE} ResultFormat=JSON ExecutionMode=TRANSACTION")
RUN = (exp.Query, exp.Create, exp.Insert, exp.Delete, exp.Update, exp.Drop, exp.TruncateTable, exp.Copy, exp.Alter)
# Redshift takes them as a hint for its planner and does not hold anybody to them.
NOT_ENFORCED = (exp.PrimaryKeyColumnConstraint, exp.UniqueColumnConstraint, exp.Reference, exp.EncodeColumnConstraint)
TYPES = {
    "VARCHAR": "varchar",
    "HUGEINT": "int8",
    "BIGINT": "int8",
    "INTEGER": "int4",
    "SMALLINT": "int2",
    "DOUBLE": "float8",
    "FLOAT": "float4",
    "BOOLEAN": "bool",
    "DATE": "date",
    "TIMESTAMP": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}


class StatementFailed(Exception):
    """Why a statement failed, in Redshift's words."""


@dataclass
class Part:
    """One statement of those that were sent together."""

    text: str
    tree: exp.Expr
    state: str = "SUBMITTED"
    error: str = ""
    columns: list[dict[str, Any]] = field(default_factory=list)
    rows: list[list[dict[str, Any]]] = field(default_factory=list)
    affected: int = -1
    begun: datetime | None = None
    ended: datetime | None = None


@dataclass
class Statement:
    id: str
    database: str
    parts: list[Part]
    batch: bool


def operations(cloud: Cloud, catalog: Catalog) -> dict[str, Handler]:
    # One statement at a time, each on a connection of its own: the Data API keeps no session between them.
    running = threading.Lock()
    given: dict[str, tuple[dict[str, Any], str]] = {}  # by token: the request, and the statement it has become
    accepting = threading.Lock()

    def started(request: dict[str, Any], texts: Sequence[str], batch: bool) -> dict[str, Any]:
        token = request.get("ClientToken")
        same = {name: value for name, value in request.items() if name != "ClientToken"}
        with accepting:
            if token in given:
                if given[token][0] != same:
                    raise Refused("ValidationException", "The client token was used with other parameters")
                job = found(given[token][1])
            else:
                _check_place(request)
                parts = _parts(texts, request.get("Parameters", ()), batch)
                statement = Statement(str(uuid.uuid4()), request["Database"], parts, batch)
                if token:
                    given[token] = (same, statement.id)
                job = cloud.jobs.start(
                    "redshift-data",
                    KIND,
                    statement.id,
                    request,
                    lambda job: run(cloud, statement, job, running),
                    statement=statement,
                )
        return {"Id": job.name, "CreatedAt": job.created, **_place(request)}

    def execute_statement(request: dict[str, Any]) -> dict[str, Any]:
        check_one(request)
        return started(request, [request["Sql"]], batch=False)

    def batch_execute_statement(request: dict[str, Any]) -> dict[str, Any]:
        check_batch(request)
        return started(request, request["Sqls"], batch=True)

    def found(statement_id: str) -> Job:
        job = cloud.jobs.find(KIND, statement_id.partition(":")[0])
        if job is None:
            raise Refused("ResourceNotFoundException", "Query does not exist.")
        return job

    def describe_statement(request: dict[str, Any]) -> dict[str, Any]:
        return described(found(request["Id"]))

    def cancel_statement(request: dict[str, Any]) -> dict[str, Any]:
        job = found(request["Id"])
        state = STATES[job.state]
        if state in ("FINISHED", "FAILED", "ABORTED"):
            raise Refused("ValidationException", f"Could not cancel a query that is already in {state} state with ID: {job.name}")
        cloud.jobs.stop(job)
        return {"Status": True}

    def get_statement_result(request: dict[str, Any]) -> dict[str, Any]:
        job = found(request["Id"])
        number = request["Id"].partition(":")[2]
        statement: Statement = job.facts["statement"]
        if statement.batch != bool(number) or (number and not 1 <= int(number) <= len(statement.parts)):
            raise Refused("ResourceNotFoundException", "Query does not exist: a batch has results by sub-statement, <id>:1")
        part = statement.parts[int(number or 1) - 1]
        if STATES[job.state] != "FINISHED" or not part.columns:
            raise Refused(
                "ResourceNotFoundException", "Query does not have result. Please check query status with DescribeStatement."
            )
        begin = int(request["NextToken"]) if request.get("NextToken", "").isdigit() else 0
        end = begin + PAGE
        page = {"Records": part.rows[begin:end], "ColumnMetadata": part.columns, "TotalNumRows": len(part.rows)}
        return {**page, "NextToken": str(end)} if end < len(part.rows) else page

    return {
        "ExecuteStatement": execute_statement,
        "BatchExecuteStatement": batch_execute_statement,
        "DescribeStatement": describe_statement,
        "CancelStatement": cancel_statement,
        "GetStatementResult": get_statement_result,
    }


def _check_place(request: Mapping[str, Any]) -> None:
    if ("ClusterIdentifier" in request) == ("WorkgroupName" in request):
        raise Refused("ValidationException", "Exactly one of ClusterIdentifier and WorkgroupName must be given")
    if not re.fullmatch(r"[\w-]{1,64}", request.get("Database", "")):
        raise Refused("ValidationException", "Database is required, and is a name")


def _place(request: Mapping[str, Any]) -> dict[str, Any]:
    names = ("ClusterIdentifier", "WorkgroupName", "Database", "DbUser", "SecretArn")
    return {name: request[name] for name in names if name in request}


def _parts(texts: Sequence[str], parameters: Sequence[Mapping[str, str]], batch: bool) -> list[Part]:
    """Raises Refused if one of the texts is no statement, or if the parameters are not those that it names."""
    values = {each["name"]: each["value"] for each in parameters}
    parts, used = [], set()
    for text in texts:
        if len(text.encode()) > LONGEST:
            raise Refused("ValidationException", f"The statement is longer than {LONGEST} bytes")
        try:
            trees = [tree for tree in sqlglot.parse(text, read="redshift") if tree is not None]
        except SqlglotError as error:
            # Redshift says so when it runs the statement.
            first: dict[str, Any] = next(iter(getattr(error, "errors", [])), {})
            told = first.get("description", "it cannot be read")
            parts.append(Part(text, exp.Command(this="", expression=str(told))))
            continue
        if len(trees) != 1:
            raise Refused("ValidationException", "Each statement must be sent as one: use BatchExecuteStatement")
        named = list(trees[0].find_all(exp.Placeholder))
        if missing := sorted({place.name for place in named} - values.keys()):
            raise Refused("ValidationException", f"Parameters list is missing {', '.join(missing)}")
        used |= {place.name for place in named}
        for place in named:
            place.replace(exp.Literal.string(values[place.name]))
        parts.append(Part(text, trees[0]))
    if unused := sorted(values.keys() - used):
        raise Refused("ValidationException", f"Parameters list contains unused parameters. Unused parameters: {unused}")
    return parts


def run(cloud: Cloud, statement: Statement, job: Job, running: threading.Lock) -> None:
    """Raises JobFailed with the reason of the first part that fails; what the others did is then undone."""
    while not running.acquire(timeout=0.1):
        job.check()
    try:
        with _connected(cloud, statement.database) as connection, _interrupted(job, connection):
            connection.execute("BEGIN")
            for number, part in enumerate(statement.parts):
                part.state, part.begun = "STARTED", datetime.now(UTC)
                try:
                    _do(cloud, part, connection, statement.batch)
                    job.check()
                except duckdb.InterruptException:
                    raise JobStopped from None
                except (duckdb.Error, StatementFailed) as error:
                    job.check()
                    part.state, part.error = "FAILED", _reason(error)
                    for later in statement.parts[number + 1 :]:
                        later.state = "ABORTED"
                    prefix = f"Query #{number + 1} failed with " if statement.batch else ""
                    raise JobFailed(prefix + part.error) from None
                part.state, part.ended = "FINISHED", datetime.now(UTC)
            connection.execute("COMMIT")
    finally:
        running.release()


@contextmanager
def _connected(cloud: Cloud, database: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection that sees the database and the mirror of S3. What is not committed when it is closed is undone."""
    cloud.folder.joinpath("redshift").mkdir(exist_ok=True)
    chosen: dict[str, Any] = {"threads": 2, "memory_limit": "1GB", "async_threads": 0, "autoload_known_extensions": False}
    with duckdb.connect(str(cloud.folder / "redshift" / f"{database}.duckdb"), config=chosen) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET disabled_optimizers = 'statistics_propagation'")
        connection.execute("SET allowed_directories = $1", [[f"{cloud.files.root}/", f"{cloud.folder}/redshift/"]])
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        connection.execute("CREATE SCHEMA IF NOT EXISTS public")
        connection.execute("USE public")
        yield connection


@contextmanager
def _interrupted(job: Job, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
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


def _do(cloud: Cloud, part: Part, connection: duckdb.DuckDBPyConnection, batch: bool) -> None:
    tree = part.tree
    if isinstance(tree, exp.Command) and not tree.this:
        raise StatementFailed(f"syntax error: {tree.expression}")
    if not isinstance(tree, RUN):
        raise StatementFailed(f"the local cloud does not run this kind of statement: {part.text.strip()[:40]}")
    if isinstance(tree, exp.TruncateTable) and batch:
        raise StatementFailed("TRUNCATE commits the transaction that it is part of: send it alone, or use DELETE")
    if isinstance(tree, exp.Copy):
        part.affected = _copy(cloud, tree, connection)
        return
    for kind in (exp.Table, exp.Anonymous):
        for node in tree.find_all(kind):
            if isinstance(node, exp.Table) and not isinstance(node.this, exp.Identifier):
                raise StatementFailed(f"function {node.this.sql('redshift')} does not exist")
    plain = _plain(tree)
    columns: dict[str, dict[str, str]] = {}
    known = "SELECT table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
    for table, column, kind in connection.execute(known).fetchall():
        columns.setdefault(table, {})[column] = kind
    sql_types.divide_integers(plain, columns, "redshift")
    asked = connection.execute(plain.sql("duckdb"))
    if isinstance(tree, exp.Query):
        kinds = [str(each[1]) for each in asked.description or ()]
        part.columns = [_column(str(each[0]), kind) for each, kind in zip(asked.description or (), kinds, strict=True)]
        part.rows = [[_field(value) for value in row] for row in asked.fetchall()]
        part.affected = len(part.rows)
    elif isinstance(tree, exp.Insert | exp.Delete | exp.Update):
        [(part.affected,)] = asked.fetchall()


def _plain(tree: exp.Expr) -> exp.Expr:
    """Without what only Redshift's storage knows, and without keys, which Redshift does not enforce."""
    tree = tree.copy()
    properties = tree.args.get("properties")
    if isinstance(tree, exp.Create) and properties:
        properties.set("expressions", [each for each in properties.expressions if isinstance(each, exp.TemporaryProperty)])
    for column in tree.find_all(exp.ColumnDef):
        kept = [each for each in column.args.get("constraints", []) if not isinstance(each.args.get("kind"), NOT_ENFORCED)]
        column.set("constraints", kept)
    if isinstance(tree, exp.Create) and isinstance(tree.this, exp.Schema):
        kept = [each for each in tree.this.expressions if not isinstance(each, exp.PrimaryKey | exp.ForeignKey | exp.Constraint)]
        tree.this.set("expressions", kept)
    return tree


def _copy(cloud: Cloud, tree: exp.Copy, connection: duckdb.DuckDBPyConnection) -> int:
    """Parquet below a prefix into a table. As in Redshift, columns meet by their place and not by their name."""
    said = {each.name.upper(): (each.expression.name.upper() if each.expression else "") for each in tree.args["params"]}
    if said != {"FORMAT": "PARQUET"} or not tree.args.get("credentials"):
        raise StatementFailed("the local cloud runs COPY ... FROM 's3://...' IAM_ROLE '...' FORMAT AS PARQUET and no other COPY")
    schema = tree.this if isinstance(tree.this, exp.Schema) else None
    table = (schema.this if schema else tree.this).sql("duckdb")
    prefix = tree.args["files"][0].name
    wanted = {name: kind for name, kind, *_ in connection.execute(f"DESCRIBE {table}").fetchall()}
    names = [column.name for column in schema.expressions] if schema else list(wanted)
    uris = [uri for uri in cloud.files.keys(prefix) if not uri.rpartition("/")[2].startswith(("_", ".", "#"))]
    if not uris:
        raise StatementFailed(f"The specified S3 prefix '{prefix}' does not exist")
    rows = 0
    for uri in uris:
        file = str(cloud.files.fetch(uri)).replace("'", "''")
        source = f"read_parquet('{file}', hive_partitioning = false)"
        there = [(name, kind) for name, kind, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
        if len(there) != len(names):
            raise StatementFailed(
                f"Spectrum Scan Error. File '{uri}' has an incompatible Parquet schema: {len(there)} columns for {len(names)} of"
                f" {table}"
            )
        for name, (stored, kind) in zip(names, there, strict=True):
            if _family(kind) != _family(wanted[name]):
                raise StatementFailed(
                    f"Spectrum Scan Error. File '{uri}' has an incompatible Parquet schema for column '{uri}.{stored}'."
                    f" Column type: {wanted[name]}, Parquet schema: {kind}"
                )
        listed = ", ".join(f'"{name}"' for name in names)
        [(count,)] = connection.execute(f"INSERT INTO {table} ({listed}) SELECT * FROM {source}").fetchall()
        rows += count
    return rows


def _family(kind: str) -> str:
    plain = kind.partition("(")[0]
    families = {
        "integer": ("TINYINT", "SMALLINT", "INTEGER", "BIGINT"),
        "float": ("FLOAT", "DOUBLE"),
        "timestamp": ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE"),
    }
    return next((family for family, kinds in families.items() if plain in kinds), plain)


def _column(name: str, kind: str) -> dict[str, Any]:
    shown = "numeric" if kind.startswith("DECIMAL") else TYPES.get(kind, kind.lower())
    precision, scale = (int(part) for part in kind[8:-1].split(",")) if shown == "numeric" else (0, 0)
    return {
        "name": name,
        "label": name,
        "typeName": shown,
        "nullable": 1,
        "precision": precision,
        "scale": scale,
        "isSigned": shown.startswith(("int", "float", "numeric")),
        "isCurrency": False,
        "isCaseSensitive": shown == "varchar",
        "schemaName": "",
        "tableName": "",
        "length": 0,
    }


def _field(value: Any) -> dict[str, Any]:
    if value is None:
        return {"isNull": True}
    if isinstance(value, bool):
        return {"booleanValue": value}
    if isinstance(value, int):
        return {"longValue": value}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, bytes):
        return {"blobValue": value}
    if isinstance(value, datetime):
        shown = f"{value:%Y-%m-%d %H:%M:%S}" + (f".{value.microsecond:06}".rstrip("0") if value.microsecond else "")
        return {"stringValue": f"{shown}+00" if value.tzinfo else shown}
    if isinstance(value, date):
        return {"stringValue": value.isoformat()}
    return {"stringValue": f"{value:f}" if isinstance(value, Decimal) else str(value)}


def _reason(error: Exception) -> str:
    if isinstance(error, StatementFailed):
        return f"ERROR: {error}"
    said = str(error).split("\n\nLINE ")[0].split("\nCandidate")[0].split("\nDid you mean")[0]
    words = " ".join(said.partition(": ")[2].split()) or said
    if found := re.search(r"Table with name \"?(\S+?)\"? does not exist", said):
        return f'ERROR: relation "{found[1]}" does not exist'
    if found := re.search(r'column(?: named)? "([^"]+)" not found|have a column named "([^"]+)"', said):
        return f'ERROR: column "{found[1] or found[2]}" does not exist'
    return f"ERROR: {words}"


def described(job: Job) -> dict[str, Any]:
    """The answer of DescribeStatement."""
    statement: Statement = job.facts["statement"]
    state = STATES[job.state]
    last = statement.parts[-1]
    answer: dict[str, Any] = {
        "Id": job.name,
        **_place(job.request),
        "Status": state,
        "CreatedAt": job.created,
        "UpdatedAt": job.ended or job.started or job.created,
        "Duration": _nanoseconds(job.started, job.ended),
        "HasResultSet": state == "FINISHED" and any(part.columns for part in statement.parts),
        "RedshiftPid": 1,
        "RedshiftQueryId": abs(hash(job.name)) % 10**9 if state != "SUBMITTED" else 0,
        "ResultRows": last.affected if state == "FINISHED" else -1,
        "ResultSize": 0,
    }
    if job.request.get("Parameters"):
        answer["QueryParameters"] = job.request["Parameters"]
    if state == "FAILED":
        answer["Error"] = job.reason
    if not statement.batch:
        return {**answer, "QueryString": last.text}
    return {**answer, "SubStatements": [_sub(job, state, number, part) for number, part in enumerate(statement.parts, 1)]}


def _sub(job: Job, state: str, number: int, part: Part) -> dict[str, Any]:
    told = "ABORTED" if state == "ABORTED" and part.state in ("SUBMITTED", "STARTED") else part.state
    sub: dict[str, Any] = {
        "Id": f"{job.name}:{number}",
        "QueryString": part.text,
        "Status": told,
        "CreatedAt": job.created,
        "UpdatedAt": part.ended or part.begun or job.created,
        "Duration": _nanoseconds(part.begun, part.ended),
        "ResultRows": part.affected,
        "ResultSize": 0,
        "RedshiftQueryId": 0,
        "HasResultSet": bool(part.columns),
    }
    return {**sub, "Error": part.error} if part.error else sub


def _nanoseconds(begin: datetime | None, end: datetime | None) -> int:
    return int((end - begin).total_seconds() * 1e9) if begin and end else -1
