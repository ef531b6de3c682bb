"""Which call of AWS is this request? Found from botocore's models, as AWS finds it: by target, action, or path and query."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from urllib.parse import parse_qs, parse_qsl

from botocore.model import OperationModel, Shape

from localcloud.service import OWN_KEY, Refused
from localcloud.validation import operation_model, service_model

Protocol = Literal["json", "query", "rest-json", "rest-xml"]
PROTOCOLS: dict[str, Protocol] = {
    "sagemaker": "json",
    "glue": "json",
    "athena": "json",
    "redshift-data": "json",
    "sqs": "json",
    "logs": "json",
    "kms": "json",
    "cloudwatch": "json",
    "sns": "query",
    "ses": "query",
    "sts": "query",
    "mwaa": "rest-json",
    "s3": "rest-xml",
}
# The name a request is signed with, where it is not the service's.
SIGNED_AS = {"monitoring": "cloudwatch", "email": "ses", "airflow": "mwaa"}
READING = re.compile(r"(Get|Describe|List|Head|BatchGet|Receive)")


@dataclass(frozen=True)
class Call:
    service: str
    operation: str
    params: dict[str, Any]  # as they came; not yet checked
    region: str
    own: bool  # the cloud calls itself
    complete: bool = True  # params have all that the model asks for; not so where a body is passed on unread

    @property
    def protocol(self) -> Protocol:
        return PROTOCOLS[self.service]

    @property
    def mutating(self) -> bool:
        # A call that carries another call does what that one does.
        return not READING.match(self.operation) and self.params.get("Method") != "GET"

    @property
    def subject(self) -> str:
        """What the call is about, in short: the name of a job, a table, a bucket and key."""
        if self.service == "s3":
            return "/".join(str(self.params[name]) for name in ("Bucket", "Key") if name in self.params)
        if self.service == "glue" and "DatabaseName" in self.params:
            return ".".join(_names(self.params))
        shape = operation_model(self.service, self.operation).input_shape
        ordered = [*shape.required_members, *shape.members] if shape else []
        named = (self.params[name] for name in ordered if isinstance(self.params.get(name), str))
        return next(named, "").rpartition("/" if self.service == "sqs" else "\0")[2][:200]


def _names(params: dict[str, Any]) -> list[str]:
    """A table of Glue's catalog, and the values of a partition."""
    names = [params["DatabaseName"], params.get("TableName") or params.get("Name")]
    for key in ("TableInput", "PartitionInput"):
        names += [params.get(key, {}).get("Name")]
    values = params.get("PartitionInput", {}).get("Values") or params.get("PartitionValues") or params.get("PartitionValueList")
    return [name for name in names if isinstance(name, str)] + ([json.dumps(values)] if values else [])


def recognised(environ: dict[str, Any], body: bytes) -> Call:
    """Raises Refused if it is none that the local cloud has a name for."""
    key, region, service = _signature(environ)
    own = key == OWN_KEY
    if service not in PROTOCOLS:
        raise _unknown(f"service {service}")
    protocol = PROTOCOLS[service]
    if protocol == "json":
        operation, params = _by_target(service, environ, body)
        return Call(service, operation, params, region, own)
    if protocol == "query":
        operation, params = _by_action(service, body)
        return Call(service, operation, params, region, own)
    if protocol == "rest-json":
        operation, params = _by_resource(service, environ, body)
        return Call(service, operation, params, region, own)
    operation, params = _by_path(environ)
    return Call(service, operation, params, region, own, complete=False)


def _unknown(what: str) -> Refused:
    return Refused("NotImplemented", f"the local cloud does not know {what}: only the calls that the DAGs make", 501)


def _signature(environ: dict[str, Any]) -> tuple[str, str, str]:
    """Key, region and service a request was signed with."""
    found = re.search(r"Credential=([^,\s]+)", environ.get("HTTP_AUTHORIZATION", ""))
    signed = found[1] if found else "".join(parse_qs(environ.get("QUERY_STRING", "")).get("X-Amz-Credential", ()))
    parts = signed.split("/")
    if len(parts) != 5:
        raise Refused("MissingAuthenticationToken", "the request is not signed: give the client dummy credentials", 403)
    return parts[0], parts[2], SIGNED_AS.get(parts[3], parts[3])


def _by_target(service: str, environ: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    prefix, _, operation = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")
    model = service_model(service)
    if prefix != model.metadata["targetPrefix"] or operation not in model.operation_names:
        raise _unknown(f"{service} {operation or 'in another protocol than JSON'}")
    return operation, _json_object(body)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        params = json.loads(body or b"{}")
    except ValueError as error:
        raise Refused("SerializationException", f"the body is not JSON: {error}") from None
    if not isinstance(params, dict):
        raise Refused("SerializationException", "the body is not a JSON object")
    return params


def _by_action(service: str, body: bytes) -> tuple[str, dict[str, Any]]:
    form = dict(parse_qsl(body.decode(), keep_blank_values=True))
    operation = form.pop("Action", "")
    form.pop("Version", None)
    if operation not in service_model(service).operation_names:
        raise _unknown(f"{service} {operation or 'without an Action'}")
    shape = operation_model(service, operation).input_shape
    params = _unfolded(shape, form, "") if shape else {}
    return operation, params if isinstance(params, dict) else {}


def _by_resource(service: str, environ: dict[str, Any], body: bytes) -> tuple[str, dict[str, Any]]:
    """Verb and path say the operation; the path has some of its members, and a JSON body the others."""
    verb, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    for operation in service_model(service).operation_names:
        http = operation_model(service, operation).http
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", http["requestUri"])
        if http["method"] == verb and (match := re.fullmatch(pattern, path)):
            if environ.get("QUERY_STRING"):
                raise _unknown(f"{service} {operation} with a query")
            return operation, {**_json_object(body), **match.groupdict()}
    raise _unknown(f"{service} {verb} {path}")


def _unfolded(shape: Shape, form: dict[str, str], at: str) -> Any:
    """A value out of a form like {"Destination.ToAddresses.member.1": "a@b"}; None if nothing begins so."""
    if not any(name == at or not at or name.startswith(f"{at}.") for name in form):
        return None
    kind = shape.type_name
    if kind == "structure":
        below = {name: _unfolded(member, form, f"{at}.{name}".lstrip(".")) for name, member in shape.members.items()}
        return {name: value for name, value in below.items() if value is not None}
    if kind == "list":
        stem = at if shape.serialization.get("flattened") else f"{at}.{shape.member.serialization.get('name', 'member')}"
        return [_unfolded(shape.member, form, f"{stem}.{number}") for number in _numbers(form, stem)]
    if kind == "map":
        stem = at if shape.serialization.get("flattened") else f"{at}.entry"
        names = [shape.key.serialization.get("name", "key"), shape.value.serialization.get("name", "value")]
        pairs = [[f"{stem}.{number}.{name}" for name in names] for number in _numbers(form, stem)]
        return {form[key]: _unfolded(shape.value, form, value) for key, value in pairs}
    return _scalar(kind, form[at])


def _numbers(form: dict[str, str], stem: str) -> list[int]:
    found = {re.match(rf"{re.escape(stem)}\.(\d+)(\.|$)", name) for name in form}
    return sorted({int(each[1]) for each in found if each})


def _scalar(kind: str, text: str) -> Any:
    """Text of a form or a header in the type of its shape; as it is if it does not fit, for the check to name it."""
    try:
        if kind in ("integer", "long"):
            return int(text)
        if kind in ("float", "double"):
            return float(text)
    except ValueError:
        return text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower(), text)
    return text


def _by_path(environ: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """S3: the operation whose path and method fit, and most of whose own marks in query and headers are there."""
    path = environ["PATH_INFO"].encode("latin-1").decode("utf-8", "replace")
    bucket, _, key = path.lstrip("/").partition("/")
    level = "object" if key else "bucket" if bucket else "service"
    query = dict(parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True))
    headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name.startswith("HTTP_")}
    fitting = []
    for name, (method, where, marks) in _s3_operations().items():
        if (method, where) == (environ["REQUEST_METHOD"], level) and all(_marked(mark, query, headers) for mark in marks):
            fitting.append((len(marks), name))
    if not fitting:
        raise _unknown(f"s3 {environ['REQUEST_METHOD']} of a {level}")
    # A mark of a name that is in no model (a new call of S3) must not pass for the plain operation.
    operation = max(fitting, key=lambda each: each[0])[1]
    model = operation_model("s3", operation)
    fixed = {mark[1] for mark in _s3_operations()[operation][2]}
    known = fixed | {member.serialization.get("name", "") for member in model.input_shape.members.values()}
    strange = [name for name in query if name not in known and not name.lower().startswith("x-amz-") and name != "x-id"]
    if strange:
        raise _unknown(f"s3 {environ['REQUEST_METHOD']} of a {level} with ?{strange[0]}")
    return operation, _s3_params(model, bucket, key, query, headers)


Mark = tuple[Literal["query", "header"], str, str | None]


def _marked(mark: Mark, query: dict[str, str], headers: dict[str, str]) -> bool:
    place, name, value = mark
    found = (query if place == "query" else headers).get(name)
    return found is not None and value in (None, found)


@cache
def _s3_operations() -> dict[str, tuple[str, str, tuple[Mark, ...]]]:
    """Method, level and marks of every operation of S3."""
    model = service_model("s3")
    found = {}
    for name in model.operation_names:
        operation = model.operation_model(name)
        path, _, query = operation.http["requestUri"].partition("?")
        level = {"/": "service", "/{Bucket}": "bucket", "/{Bucket}/{Key+}": "object"}.get(path)
        if level is None or operation.deprecated:
            continue
        marks: list[Mark] = [("query", key, value or None) for key, value in parse_qsl(query, keep_blank_values=True)]
        shape = operation.input_shape
        for member in shape.required_members if shape else ():
            serialization = shape.members[member].serialization
            if serialization.get("location") == "querystring":
                marks.append(("query", serialization["name"], None))
            elif serialization.get("location") == "header":
                marks.append(("header", serialization["name"].lower(), None))
        found[name] = (operation.http["method"], level, tuple(marks))
    return found


def _s3_params(model: OperationModel, bucket: str, key: str, query: dict[str, str], headers: dict[str, str]) -> dict[str, Any]:
    """What path, query and headers say; the body is passed on unread."""
    params: dict[str, Any] = {}
    for name, member in model.input_shape.members.items() if model.input_shape else ():
        at = member.serialization.get("name", name)
        location = member.serialization.get("location")
        text = {
            "uri": {"Bucket": bucket, "Key": key}.get(name),
            "querystring": query.get(at),
            "header": headers.get(at.lower()),
        }.get(location)
        if text is not None and member.type_name in ("string", "integer", "long", "boolean"):
            # S3 reads its words in headers whatever their case.
            known = {each.lower(): each for each in member.metadata.get("enum", ())}
            params[name] = known.get(text.lower()) or _scalar(member.type_name, text)
    return params
