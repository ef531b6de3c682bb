"""Calls over HTTP: recognised, allowed, checked, disturbed if that was asked for, noted, and answered."""

from __future__ import annotations

import gzip
import json
import socket
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from werkzeug.serving import WSGIRequestHandler
from werkzeug.wsgi import get_input_stream

from localcloud.calls import Calls
from localcloud.control import CONTROL, Control, check_host
from localcloud.faults import Lost
from localcloud.gcp import batches, composer, discovery, uploads
from localcloud.gcp.discovery import Recognised
from localcloud.gcp.fields import partial
from localcloud.gcp.metadata import FLAVOR, TOKEN, Metadata
from localcloud.gcp.service import Answer, Asked, Operations
from localcloud.service import NotHonoured, Refused

# Of a call's parameters, those that say whose thing it is, and not which.
WHOSE = {"projectId", "project", "location", "userProject"}
THROTTLED = Refused("rateLimitExceeded", "Exceeded rate limits: too many requests", 429)
# The words that go with a status, in the errors of all services but Cloud Storage.
STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
}
# Where a library of Google's asks of itself what an account may do; it makes do with no answer.
BOUNDARIES = "iamcredentials.googleapis.com"


def broken(status: int) -> Refused:
    """The error that a fault asks for."""
    return Refused("backendError", "a fault that was asked for", status)


@dataclass(frozen=True)
class Request:
    verb: str
    host: str
    path: str  # as it was sent
    query: list[tuple[str, str]]
    headers: Mapping[str, str]  # names in lower case
    body: bytes


@dataclass(frozen=True)
class Call:
    service: str
    operation: str
    subject: str
    mutating: bool


@dataclass
class Front:
    """Answers for Google's hosts. `offered` and `web` are changed by a reset."""

    calls: Calls
    offered: Mapping[str, Operations]  # of each service
    web: Callable[[str, str, Mapping[str, str]], dict[str, Any]]  # what GET says at an address of Airflow
    sessions: uploads.Sessions = field(default_factory=uploads.Sessions)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        request = _request(environ)
        service = "storage" if "/storage/" in request.path else ""
        try:
            answer = self._answer(request)
        except Refused as error:
            answer = refusal(error, service)
        except Lost:
            # Nothing but the end of the connection: werkzeug takes this error for a client that went away.
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError from None
        return _sent(answer, request.verb, start_response)

    def _answer(self, request: Request, batch: str = "") -> Answer:
        """Answer a call. `batch`: the service of the batch that it is a part of, if it is one."""
        if request.host == BOUNDARIES:
            raise Refused("notFound", "the local cloud has no boundaries of accounts", 404)
        if request.host.endswith(f".{composer.DOMAIN}"):
            return self._airflow(request)
        try:
            if not batch and (service := discovery.batched(request.verb, request.host, request.path)):
                return self._batch(service, request)
            if not batch and "upload_id" in dict(request.query):
                return self._piece(request)
            call = discovery.recognised(request.verb, request.host, request.path)
        except Refused as error:
            self.calls.strange(f"{request.verb} {request.host}{request.path}", error)
            raise
        params = dict(call.path) | dict(request.query)
        if call.way == "upload" and not batch:
            return self._upload(call, request)
        members, problem = _readable(request)
        if batch:
            problem = _unfit(batch, call, params) or problem
        named = _call(call, params, members)
        with self.calls.noted(named, {**params, **({"body": members} if members else {})}, "internalError") as logged:
            self._allow(call, request)
            if problem:
                raise problem
            answer = self._disturbed(named, call, request, members)
            logged.status = answer.status
        return answer

    def _airflow(self, request: Request) -> Answer:
        """The web server of an environment of Composer, which lets in whoever has a token of Google's."""
        query = dict(request.query)
        call = Call("airflow", f"{request.verb} {request.path}", request.host, request.verb != "GET")
        try:
            with self.calls.noted(call, query, "internalError") as logged:
                if request.verb != "GET":
                    raise NotHonoured(f"{request.verb} {request.path} of Airflow")
                _authorise(request)
                busy = Refused("rateLimitExceeded", "too many requests", 429)
                said = self.calls.disturbed(call, lambda: self.web(request.host, request.path, query), busy, broken)
                logged.status = 200
        except Refused as error:
            return Answer(composer.said(error), error.status, {"Content-Type": "application/json"})
        return json_answer(200, said)

    def _batch(self, service: str, request: Request) -> Answer:
        """Every part is a call of its own, and they are answered one after the other. The batch itself is no call.

        Raises:
            Lost: of a part whose answer is lost: all answers are, and the parts after it are not made.
        """
        if request.query:
            raise NotHonoured("parameters of a batch: give them to its parts")
        asked = batches.parts(request.headers, request.body)
        return batches.answered([(part, self._part(service, part, request)) for part in asked])

    def _part(self, service: str, part: batches.Part, batch: Request) -> Answer:
        uri = urlsplit(part.uri)
        query = parse_qsl(uri.query, keep_blank_values=True)
        request = Request(part.verb, uri.hostname or batch.host, uri.path, query, part.headers, part.body)
        try:
            return self._answer(request, service)
        except Refused as error:
            return refusal(error, service)

    def _upload(self, call: Recognised, request: Request) -> Answer:
        """Content with its metadata, or the beginning of what comes in pieces."""
        params = dict(call.path) | dict(request.query)
        problem: Refused | None = None
        upload = uploads.Upload(params, {}, b"")
        resumable = params.get("uploadType") == "resumable"
        try:
            if resumable:
                upload = uploads.Upload(params, uploads.begun(params, request.headers, request.body), b"")
            else:
                upload = uploads.at_once(params, request.headers.get("content-type", ""), request.body)
        except Refused as error:
            problem = error
        named = _call(call, params, upload.metadata)
        if resumable:
            named = Call(named.service, f"{named.operation}:begin", named.subject, mutating=False)
        with self.calls.noted(named, {**params, "body": upload.metadata}, "internalError") as logged:
            self._allow(call, request)
            if problem:
                raise problem
            if not resumable:
                answer = self._disturbed(named, call, request, upload.metadata, upload.content)
            else:
                answer = self.calls.disturbed(named, lambda: self._begun(call, request, upload.metadata), THROTTLED, broken)
            logged.status = answer.status
        return answer

    def _begun(self, call: Recognised, request: Request, metadata: dict[str, Any]) -> Answer:
        discovery.parameters(call, request.query)
        discovery.body(call.operation, metadata)
        name = self.sessions.begin({"call": call, "query": request.query}, metadata)
        query = "&".join(f"{key}={value}" for key, value in request.query if key == "uploadType")
        where = f"https://{request.host}{request.path}?{query}&upload_id={name}"
        return Answer(b"", headers={"Location": where, "X-GUploader-UploadID": name})

    def _piece(self, request: Request) -> Answer:
        """What goes on in a session that has begun."""
        name = dict(request.query)["upload_id"]
        session = self.sessions.find(name)
        call: Recognised = session.params["call"]
        query: list[tuple[str, str]] = session.params["query"]
        params = dict(call.path) | dict(query)
        if request.verb == "DELETE":
            self.sessions.end(name)
            return Answer(b"", 499)
        named = _call(call, params, session.metadata)
        if session.done is None and not uploads.add(session, request.headers.get("content-range"), request.body):
            piece = Call(named.service, f"{named.operation}:piece", named.subject, mutating=False)
            with self.calls.noted(piece, params, "internalError") as logged:
                logged.status = 308
            here = {"Range": f"bytes=0-{len(session.content) - 1}"} if session.content else {}
            return Answer(b"", 308, {**here, "X-GUploader-UploadID": name})
        with self.calls.noted(named, {**params, "body": session.metadata}, "internalError") as logged:
            self._allow(call, request)
            begun = Request(request.verb, request.host, request.path, query, request.headers, b"")
            if session.done is None:
                answer = self._disturbed(named, call, begun, session.metadata, bytes(session.content))
                session.done = json.loads(answer.content)
                session.content.clear()
            else:
                answer = Answer(json.dumps(session.done).encode())
            logged.status = answer.status
        return answer

    def _allow(self, call: Recognised, request: Request) -> None:
        operation = call.operation
        if operation.name not in self.offered.get(operation.service, {}):
            raise Refused(
                "notImplemented",
                f"the local cloud does not offer {operation.service} {operation.name}: only the calls that the DAGs make",
                501,
            )
        _authorise(request)

    def _disturbed(
        self, named: Call, call: Recognised, request: Request, members: dict[str, Any], content: bytes = b""
    ) -> Answer:
        return self.calls.disturbed(named, lambda: self._dispatch(call, request, members, content), THROTTLED, broken)

    def _dispatch(self, call: Recognised, request: Request, members: dict[str, Any], content: bytes) -> Answer:
        operation = call.operation
        params = discovery.parameters(call, request.query)
        _check_system(call, params)
        asked = Asked(operation.name, params, discovery.body(operation, members), request.headers, content)
        answer = self.offered[operation.service][operation.name](asked)
        if isinstance(answer, Answer):
            return answer
        discovery.answered(operation, answer)
        return json_answer(200, partial(answer, params["fields"]) if "fields" in params else answer)


@dataclass(frozen=True)
class Plain:
    """Answers in the clear: the control interface and the metadata server."""

    control: Control
    metadata: Metadata
    name: str

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = get_input_stream(environ).read()
        path, verb = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        try:
            check_host(environ.get("HTTP_HOST", ""), self.name)
            if path.startswith(CONTROL):
                answer = json_answer(200, self.control.answer(verb, path, environ.get("CONTENT_TYPE", ""), body))
            elif verb == "GET":
                status, kind, said = self.metadata.answer(path, environ.get("HTTP_METADATA_FLAVOR"))
                answer = Answer(said, status, {"Content-Type": kind, **dict([FLAVOR])})
            else:
                raise Refused("NotFound", f"there is no {verb} {path}: Google's hosts are reached by CONNECT", 404)
        except Refused as error:
            answer = json_answer(error.status, {"__type": error.code, "message": error.message})
        return _sent(answer, verb, start_response)


class Quiet(WSGIRequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Calls are in the log of calls."""


def json_answer(status: int, members: Mapping[str, Any]) -> Answer:
    body = json.dumps(members, default=str).encode()
    return Answer(body, status, {"Content-Type": "application/json; charset=UTF-8"})


def refusal(error: Refused, service: str = "") -> Answer:
    """An error as Google's JSON APIs answer it."""
    if error.status == 304:
        return Answer(b"", 304)
    reason = "notImplemented" if isinstance(error, NotHonoured) else error.code
    each = {"message": error.message, "domain": "global", "reason": reason}
    members: dict[str, Any] = {"code": error.status, "message": error.message, "errors": [each]}
    if service != "storage":
        members["status"] = STATUSES.get(error.status, "UNKNOWN")
    return json_answer(error.status, {"error": members})


def _authorise(request: Request) -> None:
    """Raises Refused."""
    if request.headers.get("authorization") != f"Bearer {TOKEN}":
        raise Refused(
            "authError",
            "Request had invalid authentication credentials: not those that the metadata server of the local cloud gives",
            401,
        )


def _sent(answer: Answer, verb: str, start_response: Any) -> list[bytes]:
    bodiless = answer.status in (204, 304)
    headers = list(answer.headers.items())
    if not bodiless:
        headers.append(("Content-Length", str(len(answer.content))))
    start_response(f"{answer.status} {'OK' if answer.status < 400 else 'Error'}", headers)
    return [] if bodiless or verb == "HEAD" else [answer.content]


def _request(environ: Mapping[str, Any]) -> Request:
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    headers |= {name.replace("_", "-").lower(): environ[name] for name in ("CONTENT_TYPE",) if environ.get(name)}
    raw = urlsplit(environ["RAW_URI"])
    return Request(
        headers.get("x-http-method-override", environ["REQUEST_METHOD"]),
        (urlsplit(f"//{headers.get('host', '')}").hostname or "").lower(),
        raw.path,
        parse_qsl(raw.query, keep_blank_values=True),
        headers,
        get_input_stream(environ).read(),
    )


def _readable(request: Request) -> tuple[dict[str, Any], Refused | None]:
    """The members of a body, or why they cannot be read, which is said once the call is in the log."""
    raw = request.body
    try:
        if request.headers.get("content-encoding") == "gzip":
            raw = gzip.decompress(raw)
        return uploads.parsed(raw), None
    except (OSError, EOFError, zlib.error) as error:
        return {}, Refused("parseError", f"the body is not gzip: {error}")
    except Refused as error:
        return {}, error


def _unfit(batch: str, call: Recognised, params: Mapping[str, Any]) -> Refused | None:
    """Why a call cannot be a part of a batch, if it cannot."""
    operation = call.operation
    if operation.service != batch:
        return Refused("badRequest", f"{operation.service} {operation.name} in a batch of calls of {batch}")
    if call.way or params.get("alt") == "media" or any(name in params for name in discovery.OF_UPLOADS):
        return Refused("badRequest", f"{operation.name}: uploads and downloads of media cannot be part of a batch")
    return None


def _check_system(call: Recognised, params: dict[str, Any]) -> None:
    """The parameters that every call may have."""
    media = params.get("alt", "json") == "media"
    if params.get("alt", "json") not in ("json", "media") or (media and "download" not in call.operation.paths):
        raise NotHonoured(f"alt={params['alt']} of {call.operation.name}")
    if call.way == "download" and not media:
        raise NotHonoured("a download without alt=media")


def _call(call: Recognised, params: Mapping[str, Any], members: Mapping[str, Any]) -> Call:
    operation = call.operation
    asked = operation.name == "jobs.insert" and members.get("configuration", {}).get("dryRun") is True
    mutating = operation.verb != "GET" and not asked
    return Call(operation.service, operation.name, _subject(call, params, members)[:200], mutating)


def _subject(call: Recognised, params: Mapping[str, Any], members: Mapping[str, Any]) -> str:
    """What the call is about: bucket/object, dataset.table, the name or number of a job."""
    names = [value for name, value in call.path.items() if name not in WHOSE]
    for path in (
        "name",
        "jobReference.jobId",
        "tableReference.tableId",
        "datasetReference.datasetId",
        "launchParameter.jobName",
        "requestId",
    ):
        value: Any = members
        for part in path.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if isinstance(value, str) and value not in names and not (names and call.operation.verb == "PATCH"):
            names.append(value)
            break
    if call.operation.service == "storage" and "prefix" in params:
        names.append(params["prefix"])
    return {"storage": "/", "bigquery": "."}.get(call.operation.service, "/").join(names)
