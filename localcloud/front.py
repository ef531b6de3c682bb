"""The HTTP server: every call is recognised, allowed, checked, disturbed if that was asked for, noted, and answered."""

from __future__ import annotations

import fcntl
import json
import shutil
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit
from xml.sax.saxutils import escape

from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wsgi import get_input_stream

from localcloud import moto_app
from localcloud.faults import Faults, Lost
from localcloud.files import Files
from localcloud.jobs import Job, Jobs, coming_fault
from localcloud.moto_app import Answer
from localcloud.recognition import Call, Protocol, recognised
from localcloud.service import Cloud, Delays, Handler, Image, Refused
from localcloud.validation import answered, checked

CONTROL = "/_localcloud/"
# What is passed on to moto, and nothing else of it.
FORWARDED: dict[str, frozenset[str]] = {
    service: frozenset(names.split())
    for service, names in {
        "s3": """
            ListBuckets CreateBucket HeadBucket DeleteBucket GetBucketLocation ListObjects ListObjectsV2 DeleteObjects
            GetObject PutObject HeadObject DeleteObject CopyObject CreateMultipartUpload UploadPart UploadPartCopy
            CompleteMultipartUpload AbortMultipartUpload ListParts ListMultipartUploads""",
        "sqs": """
            CreateQueue GetQueueUrl GetQueueAttributes SetQueueAttributes SendMessage SendMessageBatch ReceiveMessage
            DeleteMessage DeleteMessageBatch ChangeMessageVisibility PurgeQueue ListQueues""",
        "sns": "CreateTopic Publish Subscribe ListTopics ListSubscriptionsByTopic",
        "ses": "SendEmail SendRawEmail VerifyEmailIdentity",
        "cloudwatch": "PutMetricData ListMetrics GetMetricStatistics",
        "logs": """
            CreateLogGroup CreateLogStream PutLogEvents DescribeLogGroups DescribeLogStreams GetLogEvents FilterLogEvents""",
        "sts": "GetCallerIdentity",
        "kms": "CreateKey DescribeKey",
    }.items()
}
THROTTLED = ("ThrottlingException", "Rate exceeded", 429)
MARK = ".localcloud"  # in the folder of a state: it is ours to empty
# Given the cloud, the services of ours: what each answers.
Services = Callable[[Cloud], Mapping[str, Mapping[str, Handler]]]


@dataclass
class Logged:
    """One call, in the order of arrival."""

    service: str
    operation: str
    subject: str
    mutating: bool
    params: dict[str, Any]
    at: str
    status: int | None = None  # None while it is answered, 0 if the connection was closed without an answer
    error: str = ""


class Front:
    """The WSGI application."""

    def __init__(self, cloud: Cloud, services: Services, held: IO[str]) -> None:
        self._held = held  # the folder is ours as long as this file is open
        self.cloud = cloud
        self.faults = Faults()
        self.calls: list[Logged] = []
        self._services = services
        self._moto = moto_app.application()
        self._lock = threading.Lock()
        self._handlers = services(cloud)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = get_input_stream(environ).read()
        try:
            _check_host(environ)
            if environ["PATH_INFO"].startswith(CONTROL):
                status, headers, answer = self._control(environ, body)
            else:
                status, headers, answer = self._answer(environ, body)
        except Refused as error:
            status, headers, answer = _json(error.status, _error_members(error))
        except Lost:
            # Nothing but the end of the connection: werkzeug takes this error for a client that went away.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError from None
        start_response(f"{status} {'OK' if status < 400 else 'Error'}", headers)
        return [answer]

    def reset(self) -> None:
        """As if the cloud had just been started."""
        self.cloud.jobs.reset()
        self.faults.clear()
        moto_app.reset(self._moto, self.cloud.url)
        for path in self.cloud.folder.iterdir():
            if path.name != MARK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.cloud.files.reset()
        self._handlers = self._services(self.cloud)
        self.calls.clear()

    def _answer(self, environ: dict[str, Any], body: bytes) -> Answer:
        try:
            call = recognised(environ, body)
        except Refused as error:
            return self._strange(environ, error)
        if call.own:
            return self._dispatch(call, environ, body)
        logged = Logged(
            call.service, call.operation, call.subject, call.mutating, call.params, datetime.now(UTC).isoformat(), None
        )
        with self._lock:
            self.calls.append(logged)
        try:
            status, headers, answer = self._disturbed(call, environ, body)
        except Refused as error:
            status, headers, answer = _refusal(call.protocol, error)
            logged.error = f"{error.code}: {error.message}"
        except Lost:
            logged.status, logged.error = 0, "the connection was closed"
            raise
        except Exception as error:
            traceback.print_exc()
            fault = Refused("InternalFailure", f"a fault of the local cloud: {type(error).__name__}: {error}", 500)
            status, headers, answer = _refusal(call.protocol, fault)
            logged.error = f"{fault.code}: {fault.message}"
        logged.status = status
        return status, headers, answer

    def _strange(self, environ: dict[str, Any], error: Refused) -> Answer:
        """Refuse a request that is no call we know, in the form in which its client will look for an error."""
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        shown = target or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        at = datetime.now(UTC).isoformat()
        with self._lock:
            self.calls.append(Logged("?", shown, "", True, {}, at, error.status, f"{error.code}: {error.message}"))
        return _refusal("json" if target else "query" if environ["PATH_INFO"] == "/" else "rest-xml", error)

    def _disturbed(self, call: Call, environ: dict[str, Any], body: bytes) -> Answer:
        """Answer a call, with the faults that are meant for it."""
        self._allow(call)
        self.faults.kill(call, "before")
        if fault := self.faults.take(call, "delay"):
            time.sleep(fault.seconds)
        if self.faults.take(call, "throttle"):
            raise Refused(*(("SlowDown", "Please reduce your request rate.", 503) if call.service == "s3" else THROTTLED))
        if fault := self.faults.take(call, "error"):
            code = "ServiceUnavailable" if fault.status == 503 else "InternalFailure"
            raise Refused(code, "a fault that was asked for", fault.status)
        token = coming_fault.set(lambda: self.faults.job_fault(call))
        try:
            answer = self._dispatch(call, environ, body)
        finally:
            coming_fault.reset(token)
        self.faults.kill(call, "after")
        if self.faults.take(call, "lose_response"):
            raise Lost
        return answer

    def _allow(self, call: Call) -> None:
        if call.operation not in self._handlers.get(call.service, FORWARDED.get(call.service, ())):
            raise Refused(
                "NotImplemented",
                f"the local cloud does not offer {call.service} {call.operation}: only the calls that the DAGs make",
                501,
            )
        if call.service in self._handlers and call.region != self.cloud.region:
            raise Refused(
                "InvalidRegion",
                f"this local cloud is {self.cloud.region}, the call is for {call.region}: set AWS_DEFAULT_REGION",
                501,
            )

    def _dispatch(self, call: Call, environ: dict[str, Any], body: bytes) -> Answer:
        request = checked(call.service, call.operation, call.params, call.complete)
        if call.service not in self._handlers:
            return moto_app.forward(self._moto, environ, body)
        members = self._handlers[call.service][call.operation](request)
        return _json(200, answered(call.service, call.operation, members))

    def _control(self, environ: dict[str, Any], body: bytes) -> Answer:
        what = (environ["REQUEST_METHOD"], environ["PATH_INFO"].removeprefix(CONTROL))
        raw: Any = {}
        if what[0] in ("POST", "PUT"):
            # A page in a browser cannot send this type elsewhere without asking first, and is never answered.
            if environ.get("CONTENT_TYPE", "").partition(";")[0] != "application/json":
                raise Refused("InvalidRequest", "the body must be of type application/json", 415)
            try:
                raw = json.loads(body or b"{}")
            except ValueError as error:
                raise Refused("InvalidRequest", f"the body is not JSON: {error}") from None
            if not isinstance(raw, dict):
                raise Refused("InvalidRequest", "the body must be a JSON object")
        if what == ("GET", "health"):
            return _json(200, {"state": "ready", "region": self.cloud.region, "services": sorted({*self._handlers, *FORWARDED})})
        if what == ("GET", "calls"):
            with self._lock:
                return _json(200, {"calls": [asdict(call) for call in self.calls]})
        if what == ("DELETE", "calls"):
            with self._lock:
                self.calls.clear()
            return _json(200, {})
        if what == ("GET", "jobs"):
            return _json(200, {"jobs": [_shown(job) for job in self.cloud.jobs.all()]})
        if what == ("POST", "faults"):
            return _json(200, asdict(self.faults.ask(raw)))
        if what == ("GET", "faults"):
            return _json(200, {"faults": self.faults.shown()})
        if what == ("DELETE", "faults"):
            self.faults.clear()
            return _json(200, {})
        if what == ("PUT", "faults/pid"):
            self.faults.move(raw.get("pid", 0))
            return _json(200, {})
        if what == ("GET", "boundaries"):
            return _json(200, {"boundaries": self.faults.boundaries})
        if what == ("POST", "reset"):
            self.reset()
            return _json(200, {})
        raise Refused("NotFound", f"there is no {' '.join(what)} below {CONTROL}", 404)


class Occupied(Exception):
    """A folder cannot be taken for the state of a cloud; the message says why."""


def serve(
    port: int,
    folder: Path,
    images: Mapping[str, Image],
    delays: Delays,
    region: str,
    services: Services,
) -> tuple[BaseWSGIServer, Front]:
    """A server that listens on this machine only; it serves once its serve_forever() is called."""
    held = _taken(folder)
    # The application is made when the port is known: the cloud calls itself by it.
    fronts: list[Front] = []
    server = make_server(
        "127.0.0.1",
        port,
        lambda environ, start_response: fronts[0](environ, start_response),
        threaded=True,
        request_handler=_Quiet,
    )
    url = f"http://127.0.0.1:{server.server_port}"
    cloud = Cloud(region, moto_app.ACCOUNT, url, folder, Files(url, region, folder), Jobs(delays), images, delays)
    fronts.append(Front(cloud, services, held))
    return server, fronts[0]


def _taken(folder: Path) -> IO[str]:
    """Make the folder of a state ours alone.

    Raises:
        Occupied: if it has files of somebody else, or another local cloud uses it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if any(folder.iterdir()) and not mark.is_file():
        raise Occupied(f"{folder} has files that are not those of a local cloud, and would be emptied: name another folder")
    held = mark.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise Occupied(f"{folder} is in use by another local cloud: stop it, or name another folder") from None
    return held


class _Quiet(moto_app.RequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Calls are in the log of calls."""


def _check_host(environ: dict[str, Any]) -> None:
    """Refuse a page in a browser whose name has come to mean this machine."""
    host = urlsplit(f"//{environ.get('HTTP_HOST', '')}").hostname or ""
    if host not in ("127.0.0.1", "localhost"):
        raise Refused("AccessDenied", f"{host!r} is not this machine: use http://127.0.0.1 and path-style addresses", 403)


def _shown(job: Job) -> dict[str, Any]:
    """A job in the ledger of what would be billed."""
    return {
        "service": job.service,
        "kind": job.kind,
        "name": job.name,
        "state": job.state,
        "reason": job.reason,
        "created": _iso(job.created),
        "started": _iso(job.started),
        "ended": _iso(job.ended),
        "billed_seconds": job.billed_seconds,
        "instance_type": job.facts.get("instance_type"),
        "instance_count": job.facts.get("instance_count"),
        "tags": job.facts.get("tags", {}),
        "stops": job.stops,
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _json(status: int, members: Mapping[str, Any]) -> Answer:
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", str(uuid.uuid4()))]
    if "__type" in members:
        headers.append(("x-amzn-ErrorType", str(members["__type"])))
    body = json.dumps(members, default=str).encode()
    return status, [*headers, ("Content-Length", str(len(body)))], body


def _refusal(protocol: Protocol, error: Refused) -> Answer:
    if protocol == "json":
        return _json(error.status, _error_members(error))
    code, message = escape(error.code), escape(error.message)
    inner = f"<Code>{code}</Code><Message>{message}</Message>"
    if protocol == "query":
        side = "Sender" if error.status < 500 else "Receiver"
        text = f"<ErrorResponse><Error><Type>{side}</Type>{inner}</Error><RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    else:
        text = f'<?xml version="1.0" encoding="UTF-8"?><Error>{inner}<RequestId>{uuid.uuid4()}</RequestId></Error>'
    body = text.encode()
    return error.status, [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))], body


def _error_members(error: Refused) -> dict[str, str]:
    return {"__type": error.code, "message": error.message}
