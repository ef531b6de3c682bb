"""The jobs of BigQuery: asked for, done once at most, and known for good by their id."""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import duckdb

from localcloud.gcp import bigquery_statements, bigquery_transfers, bigquery_writes
from localcloud.gcp.bigquery_statements import Statement
from localcloud.gcp.bigquery_tables import ANONYMOUS, LOCATION, Name, Session, Store, now
from localcloud.gcp.service import Cloud
from localcloud.honoured import honoured
from localcloud.jobs import OVER, Job, JobFailed, JobStopped
from localcloud.service import NotHonoured, Refused

Resource = dict[str, Any]
KINDS = ("query", "load", "extract", "copy")
ANSWERS_LAST = 24 * 3600 * 1000  # milliseconds
ID = re.compile(r"[A-Za-z0-9_-]{1,1024}")
# The status of a call that asks for what a failed job has found.
STATUSES = {"notFound": 404, "duplicate": 409, "accessDenied": 403, "stopped": 499, "backendError": 503, "notImplemented": 501}
OF_TABLES = "projectId datasetId tableId"


def _of(path: str, members: str) -> str:
    return " ".join(f"{path}.{member}" for member in members.split())


check = honoured(
    "jobs.insert",
    " ".join([
        "id kind etag selfLink user_email",
        _of("jobReference", "projectId jobId location"),
        "configuration.dryRun configuration.jobTimeoutMs configuration.labels configuration.jobType",
        _of(
            "configuration.query",
            "query useLegacySql=False priority useQueryCache maximumBytesBilled parameterMode=NAMED queryParameters"
            " writeDisposition=WRITE_TRUNCATE|WRITE_APPEND|WRITE_EMPTY createDisposition=CREATE_IF_NEEDED|CREATE_NEVER"
            " allowLargeResults flattenResults timePartitioning clustering destinationEncryptionConfiguration.kmsKeyName",
        ),
        _of("configuration.query.destinationTable", OF_TABLES),
        _of("configuration.query.defaultDataset", "projectId datasetId"),
        _of(
            "configuration.load",
            "sourceUris sourceFormat=PARQUET schema.fields timePartitioning clustering"
            " writeDisposition=WRITE_TRUNCATE|WRITE_APPEND|WRITE_EMPTY createDisposition=CREATE_IF_NEEDED|CREATE_NEVER"
            " destinationTableProperties.description destinationTableProperties.labels autodetect maxBadRecords=0"
            " parquetOptions.enableListInference hivePartitioningOptions.mode hivePartitioningOptions.sourceUriPrefix"
            " ignoreUnknownValues=False destinationEncryptionConfiguration.kmsKeyName",
        ),
        _of("configuration.load.destinationTable", OF_TABLES),
        _of(
            "configuration.extract",
            "destinationUri destinationUris destinationFormat=PARQUET compression=NONE|SNAPPY|GZIP|ZSTD printHeader",
        ),
        _of("configuration.extract.sourceTable", OF_TABLES),
        _of(
            "configuration.copy",
            "operationType=COPY|SNAPSHOT writeDisposition=WRITE_TRUNCATE|WRITE_APPEND|WRITE_EMPTY"
            " createDisposition=CREATE_IF_NEEDED|CREATE_NEVER destinationExpirationTime"
            " destinationEncryptionConfiguration.kmsKeyName",
        ),
        *(_of(f"configuration.copy.{which}", OF_TABLES) for which in ("sourceTable", "sourceTables", "destinationTable")),
    ]),
)


@dataclass
class Run:
    """A job while it is known to this process."""

    resource: Resource
    job: Job | None = None
    error: Refused | None = None
    finished: bool = False  # its work is done, whatever is asked of it afterwards
    statistics: dict[str, Any] = field(default_factory=dict)


class BigQueryJobs:
    def __init__(self, cloud: Cloud, store: Store) -> None:
        self._cloud, self.store = cloud, store
        self._lock = threading.Lock()
        self._runs: dict[str, Run] = {}
        with store.writing() as session:
            session.sql.execute("CREATE TABLE IF NOT EXISTS _localcloud.jobs (id VARCHAR, created BIGINT, resource VARCHAR)")
            for id, text in session.sql.execute("SELECT id, resource FROM _localcloud.jobs").fetchall():
                resource = json.loads(text)
                if resource["status"]["state"] != "DONE":
                    # It was under way when the cloud was stopped.
                    _fail(resource, Refused("backendError", "the local cloud was stopped while this job ran", 503))
                    self._keep(session, id, resource)

    # Asking.

    def insert(self, asked: Mapping[str, Any]) -> Resource:
        """A new job; of a dry run, what it would do.

        Raises:
            Refused: if the request is none, or the id was used.
        """
        check(asked)
        configuration = asked.get("configuration", {})
        kinds = [kind for kind in KINDS if kind in configuration]
        if len(kinds) != 1:
            raise Refused("invalid", "Job configuration must contain exactly one job-specific configuration object", 400)
        _check_kind(kinds[0], configuration[kinds[0]])
        reference = asked.get("jobReference", {})
        id = reference.get("jobId") or f"job_{uuid.uuid4().hex}"
        if not ID.fullmatch(id):
            raise Refused("invalid", f"Invalid job ID: {id}", 400)
        if reference.get("projectId", self._cloud.project) != self._cloud.project:
            raise Refused("invalid", f"Project of the job reference is not {self._cloud.project}", 400)
        location = reference.get("location") or self._location(configuration[kinds[0]])
        resource: Resource = {
            "kind": "bigquery#job",
            "id": f"{self._cloud.project}:{location}.{id}",
            "jobReference": {"projectId": self._cloud.project, "jobId": id, "location": location},
            "configuration": {**configuration, "jobType": kinds[0].upper()},
            "user_email": f"airflow@{self._cloud.project}.iam.gserviceaccount.com",
            "status": {"state": "PENDING"},
            "statistics": {"creationTime": str(now())},
        }
        if configuration.get("dryRun"):
            return self._dry(resource)
        return self._start(id, kinds[0], resource)

    def _location(self, configuration: Mapping[str, Any]) -> str:
        """Where the datasets are that the job names."""
        named = [configuration.get(name) for name in ("destinationTable", "sourceTable", "defaultDataset")]
        with self.store.reading() as session:
            for each in filter(None, [*named, *configuration.get("sourceTables", ())]):
                try:
                    return str(session.dataset(each["datasetId"]).get("location", LOCATION))
                except Refused:
                    continue
            known = session.datasets()
        return str(known[0].get("location", LOCATION)) if known else LOCATION

    def _start(self, id: str, kind: str, resource: Resource) -> Resource:
        with self._lock:
            with self.store.writing() as session:
                if session.first("SELECT 1 FROM _localcloud.jobs WHERE id = ?", [id]):
                    raise Refused("duplicate", f"Already Exists: Job {resource['id']}", 409)
                created = int(resource["statistics"]["creationTime"])
                session.sql.execute("INSERT INTO _localcloud.jobs VALUES (?, ?, ?)", [id, created, json.dumps(resource)])
            run = self._runs[id] = Run(resource)
            limit = resource["configuration"].get("jobTimeoutMs")
            work = _Work(self._cloud, self.store, kind, run)
            run.job = self._cloud.jobs.start(
                "bigquery",
                f"{kind} job",
                id,
                resource["configuration"],
                work.run,
                limit=int(limit) / 1000 if limit else None,
                on_end=lambda job: self._ended(id, run, job),
            )
        return self.described(run)

    def _dry(self, resource: Resource) -> Resource:
        configuration = resource["configuration"]
        if "query" not in configuration:
            raise NotHonoured("dryRun of jobs that are no queries")
        with self.store.reading() as session:
            statement = bigquery_statements.prepared(session, configuration["query"])
        resource["jobReference"].pop("jobId")
        moment = resource["statistics"]["creationTime"]
        statistics = {"creationTime": moment, "totalBytesProcessed": str(statement.processed)}
        statistics["query"] = query_statistics(self._cloud.project, statement)
        return {**resource, "status": {"state": "DONE"}, "statistics": statistics}

    # Knowing.

    def run(self, id: str, location: str | None = None) -> Run:
        """Raises Refused if there is no such job."""
        run = self._runs.get(id)
        if run is None:
            with self.store.reading() as session:
                found = session.first("SELECT resource FROM _localcloud.jobs WHERE id = ?", [id])
            run = Run(json.loads(found[0])) if found else None
        if run is None or (location and location.lower() != run.resource["jobReference"]["location"].lower()):
            raise Refused("notFound", f"Not found: Job {self._cloud.project}:{location + '.' if location else ''}{id}", 404)
        return run

    def listed(self) -> list[Resource]:
        """The newest first."""
        with self.store.reading() as session:
            found = session.sql.execute("SELECT id FROM _localcloud.jobs ORDER BY created DESC, rowid DESC").fetchall()
        return [self.described(self.run(id)) for (id,) in found]

    def described(self, run: Run) -> Resource:
        """A job as it is now."""
        job = run.job
        if job is None or job.state in OVER:
            return run.resource
        statistics = dict(run.resource["statistics"])
        if job.started is not None:
            statistics["startTime"] = str(int(job.started.timestamp() * 1000))
        return {**run.resource, "status": {"state": "PENDING" if job.state == "Pending" else "RUNNING"}, "statistics": statistics}

    def cancel(self, run: Run) -> Resource:
        if run.job is not None:
            self._cloud.jobs.stop(run.job)
        return self.described(run)

    @staticmethod
    def over(run: Run, seconds: float) -> bool:
        """Is it over? Waits for a while."""
        return run.job is None or run.job.over.wait(max(0.0, seconds))

    # The end.

    def _ended(self, id: str, run: Run, job: Job) -> None:
        resource, ends = dict(run.resource), job.facts["ends"]
        if run.finished:
            resource["status"] = {"state": "DONE"}
        elif ends == "Stopped":
            late = f"Job timed out after {int(resource['configuration'].get('jobTimeoutMs', 0)) // 1000} sec"
            why = late if job.expired else "User requested cancellation"
            _fail(resource, Refused("stopped", f"Job execution was cancelled: {why}", 499))
        else:
            _fail(resource, run.error or _fault(job.reason))
        begin = int((job.started or job.created).timestamp() * 1000)
        times = {"startTime": str(begin), "endTime": str(now()), "totalSlotMs": str(max(1, now() - begin))}
        resource["statistics"] = {**resource["statistics"], **times, **run.statistics}
        run.resource = resource
        with self.store.writing() as session:
            self._keep(session, id, resource)

    def _keep(self, session: Session, id: str, resource: Resource) -> None:
        session.sql.execute("UPDATE _localcloud.jobs SET resource = ? WHERE id = ?", [json.dumps(resource), id])


def _check_kind(kind: str, given: Mapping[str, Any]) -> None:
    required = {"query": ("query",), "load": ("destinationTable",), "extract": ("sourceTable",), "copy": ("destinationTable",)}
    for name in required[kind]:
        if not given.get(name):
            raise Refused("invalid", f"Required parameter is missing: {name}", 400)
    if kind == "query" and given.get("useLegacySql", True):
        raise NotHonoured("legacy SQL: useLegacySql must be false, and is true where nothing is said")
    for kind_of, default in (("load", "CSV"), ("extract", "CSV")):
        member = {"load": "sourceFormat", "extract": "destinationFormat"}[kind_of]
        if kind == kind_of and member not in given:
            raise NotHonoured(f"{member}={default}, which is meant where nothing is said")


def _fail(resource: Resource, error: Refused) -> None:
    reason = {"NotImplemented": "notImplemented"}.get(error.code, error.code)
    told = {"reason": reason, "message": error.message}
    if reason == "invalidQuery":
        told["location"] = "query"
    resource["status"] = {"state": "DONE", "errorResult": told, "errors": [told]}


def _fault(reason: str) -> Refused:
    """The error of a job that was made to fail: `reason: message`, or any text."""
    word, _, message = reason.partition(": ")
    if word in STATUSES or word in ("invalid", "invalidQuery", "quotaExceeded", "rateLimitExceeded", "resourcesExceeded"):
        return Refused(word, message, STATUSES.get(word, 400))
    return Refused("backendError", reason, 503)


def refusal(resource: Resource) -> Refused | None:
    """What is answered to who asks for the rows of a job that has failed."""
    error = resource["status"].get("errorResult")
    return Refused(error["reason"], error["message"], STATUSES.get(error["reason"], 400)) if error else None


def query_statistics(project: str, statement: Statement) -> dict[str, Any]:
    """What is said of a query, before it is done and afterwards."""
    found: dict[str, Any] = {
        "statementType": statement.kind,
        "totalBytesProcessed": str(statement.processed),
        "totalBytesBilled": str(statement.billed),
        "cacheHit": False,
        "referencedTables": [name.reference() for name in statement.referenced],
    }
    if statement.fields:
        found["schema"] = {"fields": statement.fields}
    if statement.performed and statement.target is not None:
        found |= {"ddlOperationPerformed": statement.performed, "ddlTargetTable": statement.target.reference()}
    if statement.changes is not None and statement.changes.counts:
        counts = statement.changes.counts
        found["numDmlAffectedRows"] = str(statement.changes.affected)
        names = (("insertedRowCount", "insert"), ("deletedRowCount", "delete"), ("updatedRowCount", "update"))
        found["dmlStats"] = {name: str(counts.get(kind, 0)) for name, kind in names}  # type: ignore[call-overload]
    return found


@dataclass
class _Work:
    """What a job does."""

    cloud: Cloud
    store: Store
    kind: str
    run_: Run

    def run(self, job: Job) -> None:
        # First the time passes, then it is done at once: a job that is stopped meanwhile has changed nothing.
        if job.stopping.wait(self.cloud.delays.job_seconds):
            raise JobStopped
        configuration = self.run_.resource["configuration"][self.kind]
        with self.store.connected() as session, _interrupted(job, session.sql):
            session.location = self.run_.resource["jobReference"]["location"]
            try:
                if self.kind == "query":
                    self._query(session, configuration, job)
                elif self.kind == "load":
                    self.run_.statistics["load"] = bigquery_transfers.load(session, self.cloud.objects, configuration)
                elif self.kind == "extract":
                    self.run_.statistics["extract"] = bigquery_transfers.extract(session, self.cloud.objects, configuration)
                else:
                    self.run_.statistics["copy"] = bigquery_transfers.copy(session, configuration)
                self.run_.finished = True
            except duckdb.InterruptException:
                raise JobStopped from None
            except Refused as error:
                job.check()
                self.run_.error = error
                raise JobFailed(f"{error.code}: {error.message}") from None

    def _query(self, session: Session, given: Mapping[str, Any], job: Job) -> None:
        with session.reading():
            statement = bigquery_statements.prepared(session, given)
            self._told(statement)
            _check_bill(statement, given)
            if statement.sql:
                bigquery_statements.answered(session, statement, "answer_")
        job.check()
        with session.writing():
            if statement.kind == "SELECT":
                self._keep_answer(session, statement, given)
            elif given.get("destinationTable"):
                raise Refused("invalidQuery", f"Cannot set destination table in jobs with {statement.kind} statements", 400)
            else:
                bigquery_statements.done(session, statement)
        self._told(statement)

    def _told(self, statement: Statement) -> None:
        told = query_statistics(self.cloud.project, statement)
        self.run_.statistics |= {"query": told, "totalBytesProcessed": told["totalBytesProcessed"]}

    def _keep_answer(self, session: Session, statement: Statement, given: Mapping[str, Any]) -> None:
        if given.get("destinationTable"):
            to = bigquery_writes.destination(given, self.cloud.project, "WRITE_EMPTY")
        else:
            for table in session.expired(ANONYMOUS):
                session.drop(table)
            name = Name(self.cloud.project, ANONYMOUS, f"anon{uuid.uuid4().hex}")
            to = bigquery_writes.Destination(name, "WRITE_EMPTY", layout={"expirationTime": str(now() + ANSWERS_LAST)})
        try:
            bigquery_writes.written(session, to, "SELECT * FROM answer_", statement.fields)
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            raise bigquery_statements.failure(error) from None
        configuration = self.run_.resource["configuration"]
        query = {**configuration["query"], "destinationTable": to.name.reference()}
        self.run_.resource = {**self.run_.resource, "configuration": {**configuration, "query": query}}


def _check_bill(statement: Statement, given: Mapping[str, Any]) -> None:
    limit = given.get("maximumBytesBilled")
    if limit is not None and statement.billed > int(limit):
        message = f"Query exceeded limit for bytes billed: {limit}. {statement.billed} or higher required."
        raise Refused("bytesBilledLimitExceeded", message, 400)


@contextmanager
def _interrupted(job: Job, connection: duckdb.DuckDBPyConnection) -> Generator[None, None, None]:
    """What runs here ends when the job is stopped."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if job.stopping.wait(0.2):
                connection.interrupt()
                over.wait(0.1)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
