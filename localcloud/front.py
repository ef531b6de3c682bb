"""The HTTP server: every call is recognised, allowed, checked, disturbed if that was asked for, noted, and answered."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any
from xml.sax.saxutils import escape

from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wsgi import get_input_stream

from localcloud import moto_app
from localcloud.calls import Calls
from localcloud.control import CONTROL, THIS_MACHINE, Control, check_host, listens_on
from localcloud.faults import Lost
from localcloud.files import Files
from localcloud.jobs import Jobs
from localcloud.moto_app import Answer
from localcloud.recognition import Call, Protocol, recognised
from localcloud.service import Cloud, Delays, Handler, Image, Refused
from localcloud.state import emptied, taken
from localcloud.validation import answered, checked

# What is passed on to moto, and nothing else of it.
FORWARDED: dict[str, frozenset[str]] = {
    service: frozenset(names.split())
    for service, names in {
        "s3": """
            ListBuckets CreateBucket HeadBucket DeleteBucket GetBucketLocation
            PutBucketVersioning GetBucketVersioning ListObjects ListObjectsV2 DeleteObjects
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
INTERNAL = "InternalFailure"
# Given the cloud, the services of ours: what each answers.
Services = Callable[[Cloud], Mapping[str, Mapping[str, Handler]]]


class Front:
    """The WSGI application."""

    def __init__(self, cloud: Cloud, services: Services, held: IO[str], name: str) -> None:
        self._name = name
        self._held = held  # the folder is ours as long as this file is open
        self.cloud = cloud
        self.calls = Calls()
        self._control = Control(self.calls, cloud.jobs, self._health, self.reset)
        self._services = services
        self._moto = moto_app.application()
        self._handlers = services(cloud)

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = get_input_stream(environ).read()
        try:
            check_host(environ.get("HTTP_HOST", ""), self._name)
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            if path.startswith(CONTROL):
                members = self._control.answer(method, path, environ.get("CONTENT_TYPE", ""), body)
                status, headers, answer = _json(200, members)
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
        self.calls.faults.clear()
        moto_app.reset(self._moto, self.cloud.url)
        emptied(self.cloud.folder)
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
        try:
            with self.calls.noted(call, call.params, INTERNAL) as logged:
                answer = self._disturbed(call, environ, body)
                logged.status = answer[0]
        except Refused as error:
            return _refusal(call.protocol, error)
        return answer

    def _strange(self, environ: dict[str, Any], error: Refused) -> Answer:
        """Refuse a request that is no call we know, in the form in which its client will look for an error."""
        target = environ.get("HTTP_X_AMZ_TARGET", "")
        shown = target or f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        self.calls.strange(shown, error)
        return _refusal("json" if target else "query" if environ["PATH_INFO"] == "/" else "rest-xml", error)

    def _disturbed(self, call: Call, environ: dict[str, Any], body: bytes) -> Answer:
        """Answer a call, with the faults that are meant for it."""
        self._allow(call)
        return self.calls.disturbed(call, lambda: self._dispatch(call, environ, body), _throttled(call), _broken)

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

    def _health(self) -> dict[str, Any]:
        return {"state": "ready", "region": self.cloud.region, "services": sorted({*self._handlers, *FORWARDED})}


def serve(
    port: int,
    folder: Path,
    images: Mapping[str, Image],
    delays: Delays,
    region: str,
    services: Services,
    name: str = THIS_MACHINE,
) -> tuple[BaseWSGIServer, Front]:
    """A server that listens on this machine only, unless it has another name; it serves once its serve_forever() is called."""
    held = taken(folder)
    # The application is made when the port is known: the cloud calls itself by it.
    fronts: list[Front] = []
    server = make_server(
        listens_on(name),
        port,
        lambda environ, start_response: fronts[0](environ, start_response),
        threaded=True,
        request_handler=_Quiet,
    )
    url = f"http://{name}:{server.server_port}"
    cloud = Cloud(region, moto_app.ACCOUNT, url, folder, Files(url, region, folder), Jobs(delays), images, delays)
    fronts.append(Front(cloud, services, held, name))
    return server, fronts[0]


class _Quiet(moto_app.RequestHandler):
    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Calls are in the log of calls."""


def _throttled(call: Call) -> Refused:
    if call.service == "s3":
        return Refused("SlowDown", "Please reduce your request rate.", 503)
    return Refused("ThrottlingException", "Rate exceeded", 429)


def _broken(status: int) -> Refused:
    """The error that a fault asks for."""
    return Refused("ServiceUnavailable" if status == 503 else INTERNAL, "a fault that was asked for", status)


def _json(status: int, members: Mapping[str, Any]) -> Answer:
    headers = [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-RequestId", str(uuid.uuid4()))]
    if "__type" in members:
        headers.append(("x-amzn-ErrorType", str(members["__type"])))
    body = json.dumps(members, default=str).encode()
    return status, [*headers, ("Content-Length", str(len(body)))], body


def _refusal(protocol: Protocol, error: Refused) -> Answer:
    if protocol in ("json", "rest-json"):
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
