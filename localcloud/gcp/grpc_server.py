"""Calls over gRPC: one server for the methods of all services; the same manners as over HTTP."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import json_format, unknown_fields
from google.protobuf.message import DecodeError, Message

from localcloud.calls import Calls
from localcloud.faults import Lost
from localcloud.gcp.front import STATUSES, Call, broken
from localcloud.gcp.metadata import TOKEN
from localcloud.gcp.service import Method, Methods
from localcloud.service import Refused

THREADS = 32  # a call that waits for something holds one
READING = re.compile(r"(Get|List|Query|Search|Read|Pull|CreateReadSession)")
THROTTLED = Refused("rateLimitExceeded", "Quota exceeded for quota metric: too many requests", 429)
# Of a message, where the name of the thing is that the call is about; the first that is there.
NAMES = ("display_name", "displayName", "table", "name", "topic", "subscription", "read_stream", "job_id", "parent")


@dataclass
class Grpc:
    """What answers for all methods. `offered` is changed by a reset."""

    calls: Calls
    offered: Methods

    def serve(self, path: Path) -> grpc.Server:
        """A server at a socket of this machine."""
        whole = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(THREADS), handlers=[_Handler(self._handler)], options=whole)
        server.add_insecure_port(f"unix:{path}")
        server.start()
        return server

    def _handler(self, path: str, metadata: Mapping[str, str]) -> grpc.RpcMethodHandler:
        service, operation = _names(path)
        method = self.offered.get(path)
        if method is None:

            def refuse(raw: bytes, context: grpc.ServicerContext) -> None:
                said = f"the local cloud does not offer {service} {operation} ({path}): only the calls that the DAGs make"
                error = Refused("notImplemented", said, 501)
                self.calls.strange(path, error)
                _abort(context, error)

            return grpc.unary_unary_rpc_method_handler(refuse)

        if method.streams:

            def stream(raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
                yield from self._answered(service, operation, method, raw, metadata, context)

            return grpc.unary_stream_rpc_method_handler(stream)

        def single(raw: bytes, context: grpc.ServicerContext) -> bytes:
            return self._answered(service, operation, method, raw, metadata, context)[0]

        return grpc.unary_unary_rpc_method_handler(single)

    def _answered(
        self,
        service: str,
        operation: str,
        method: Method,
        raw: bytes,
        metadata: Mapping[str, str],
        context: grpc.ServicerContext,
    ) -> list[bytes]:
        """The messages of the answer, all there before the first is sent: a fault after the work is after all of it."""
        try:
            message, problem = _parsed(method, raw)
            params = json_format.MessageToDict(_plain(message), preserving_proto_field_name=True)
            call = Call(service, operation, subject(params), not READING.match(operation))
            with self.calls.noted(call, params, "internalError") as logged:
                if metadata.get("authorization") != f"Bearer {TOKEN}":
                    raise Refused("authError", "not the credentials that the metadata server of the local cloud gives", 401)
                if problem:
                    raise problem
                answer = self.calls.disturbed(call, lambda: _work(method, message), THROTTLED, broken)
                logged.status = 200
        except Refused as error:
            _abort(context, error)
        except Lost:
            _abort(context, Refused("unavailable", "the connection was closed", 503))
        return answer


@dataclass(frozen=True)
class _Handler(grpc.GenericRpcHandler):
    find: Callable[[str, Mapping[str, str]], grpc.RpcMethodHandler]

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        pairs = {name: value for name, value in details.invocation_metadata or () if isinstance(value, str)}
        return self.find(details.method, pairs)


def subject(params: Mapping[str, Any]) -> str:
    """The name of the thing that a call is about: of the thing that it brings, else that it names."""
    brought = [value for name, value in params.items() if isinstance(value, dict) and name not in ("labels", "attributes")]
    # A point of a time series is told by its metric.
    kinds = [one["metric"]["type"] for one in params.get("time_series", ()) if "type" in one.get("metric", {})]
    for each in (*brought, params):
        for name in NAMES:
            if isinstance(found := each.get(name), str) and found and not (each is not params and name == "parent"):
                return ",".join([*kinds] or [found])[:200]
    return ""


def _work(method: Method, message: Any) -> list[bytes]:
    answered = method.answer(message)
    return [_plain(each).SerializeToString() for each in (answered if method.streams else [answered])]


def _parsed(method: Method, raw: bytes) -> tuple[Any, Refused | None]:
    """The message, and why it cannot be honoured if it has fields that ours does not."""
    kind: Any = method.request
    try:
        message = kind.deserialize(raw) if hasattr(kind, "deserialize") else kind.FromString(raw)
    except DecodeError as error:
        return kind(), Refused("invalid", f"no {kind.__name__}: {error}")
    if unknown := list(_unknown(_plain(message))):
        return message, Refused("invalid", f"{kind.__name__} has fields that are not known here: {', '.join(unknown)}")
    return message, None


def _unknown(message: Message) -> Iterator[str]:
    fields: Any = unknown_fields.UnknownFieldSet(message)
    for one in fields:
        yield f"{message.DESCRIPTOR.full_name} number {one.field_number}"
    for descriptor, value in message.ListFields():
        if descriptor.message_type is None:
            continue
        if descriptor.message_type.GetOptions().map_entry:
            inner = [each for each in value.values() if isinstance(each, Message)]
        else:
            inner = value if descriptor.is_repeated else [value]
        for each in inner:
            yield from _unknown(each)


def _plain(message: Any) -> Message:
    """Of a message of proto-plus, the one that it wraps."""
    return getattr(type(message), "pb", lambda it: it)(message)


def _names(path: str) -> tuple[str, str]:
    """`/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows` is bigquerystorage, ReadRows."""
    full, _, operation = path.lstrip("/").partition("/")
    parts = [part for part in full.split(".")[:-1] if part not in ("google", "cloud") and not re.fullmatch(r"v\d\w*", part)]
    return "".join(parts), operation


def _abort(context: grpc.ServicerContext, error: Refused) -> None:
    code = getattr(grpc.StatusCode, STATUSES.get(error.status, "UNKNOWN"))
    # A client may look for the reason among what trails the answer.
    context.set_trailing_metadata((("localcloud-reason", error.code),))
    context.abort(code, error.message)
