"""Which call of Google's is this request, and is it well formed? Answered from the discovery documents that Google publishes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import googleapiclient

from localcloud.service import NotHonoured, Refused

DOCUMENTS = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
VERSIONS = {"bigquery": "v2", "storage": "v1", "dataflow": "v1b3", "composer": "v1"}
# Every service answers at this host as well as at its own.
SHARED = "www.googleapis.com"
# Of the parameters that every call may have: these change nothing that is not honoured.
SYSTEM = ("alt", "fields", "prettyPrint")
OF_UPLOADS = ("uploadType", "upload_id")
Way = Literal["", "upload", "download"]


# Those of whose calls there are batches.
BATCHED = ("storage",)


@dataclass(frozen=True)
class Operation:
    service: str
    name: str  # without the service: "jobs.insert"
    verb: str
    paths: Mapping[Way, re.Pattern[str]]
    parameters: Mapping[str, Mapping[str, Any]]
    request: str | None  # the schema of the body
    response: str | None
    weight: int  # the more letters of its path are fixed, the sooner it is taken


@dataclass(frozen=True)
class Recognised:
    operation: Operation
    way: Way
    path: Mapping[str, str]  # the parameters that are part of the path


@cache
def _document(service: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((DOCUMENTS / f"{service}.{VERSIONS[service]}.json").read_text())
    return document


@cache
def _operations(service: str) -> tuple[Operation, ...]:
    document = _document(service)
    found = [_operation(service, document, method) for method in _methods(document)]
    return tuple(sorted(found, key=lambda each: -each.weight))


def _methods(resource: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from resource.get("methods", {}).values()
    for each in resource.get("resources", {}).values():
        yield from _methods(each)


# What Google's own clients send all the same.
UNDOCUMENTED: dict[str, dict[str, Mapping[str, Any]]] = {
    "bigquery.jobs.get": {"projection": {"type": "string"}},
    "bigquery.jobs.cancel": {"projection": {"type": "string"}},
    **{
        f"composer.projects.locations.environments.{name}": {"$alt": {"type": "string", "enum": ["json;enum-encoding=int"]}}
        for name in ("create", "get")
    },
}


def _operation(service: str, document: Mapping[str, Any], method: Mapping[str, Any]) -> Operation:
    path = f"/{document['servicePath']}{method['path']}"
    paths: dict[Way, re.Pattern[str]] = {"": _pattern(path, method.get("parameters", {}))}
    if method.get("supportsMediaUpload"):
        paths["upload"] = _pattern(method["mediaUpload"]["protocols"]["simple"]["path"])
    if method.get("supportsMediaDownload"):
        paths["download"] = _pattern(f"/download{path}")
    return Operation(
        service,
        method["id"].partition(".")[2],
        method["httpMethod"],
        paths,
        {
            **_system(document, SYSTEM + (OF_UPLOADS if "upload" in paths else ())),
            **method.get("parameters", {}),
            **UNDOCUMENTED.get(method["id"], {}),
        },
        method.get("request", {}).get("$ref"),
        method.get("response", {}).get("$ref"),
        len(re.sub(r"\{[^}]*\}", "", path)),
    )


def _system(document: Mapping[str, Any], names: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    return {name: document["parameters"].get(name, {"type": "string"}) for name in names}


def _pattern(template: str, parameters: Mapping[str, Mapping[str, Any]] | None = None) -> re.Pattern[str]:
    """A parameter with a plus is a name of several parts, which has a pattern of its own."""
    parts = re.split(r"(\{\+?\w+\})", template)
    return re.compile("".join(_part(part, parameters or {}) for part in parts))


def _part(part: str, parameters: Mapping[str, Mapping[str, Any]]) -> str:
    if not part.startswith("{"):
        return re.escape(part)
    name = part.strip("{+}")
    own = parameters.get(name, {}).get("pattern", "") if "+" in part else ""
    return f"(?P<{name}>{own.removeprefix('^').removesuffix('$') or '[^/]+'})"


def recognised(verb: str, host: str, path: str) -> Recognised:
    """Which operation a request means.

    Args:
        path: as it was sent: a slash in a name is still %2F.

    Raises:
        Refused: if it is none of the services that we have documents of.
    """
    for service in VERSIONS:
        document = _document(service)
        if host not in (SHARED, urlsplit(document["rootUrl"]).hostname):
            continue
        if path.startswith("/batch"):
            raise NotHonoured(f"batches of calls ({path})")
        for operation in _operations(service):
            for way, pattern in operation.paths.items():
                if operation.verb == verb and (match := pattern.fullmatch(path)):
                    return Recognised(operation, way, {name: unquote(value) for name, value in match.groupdict().items()})
    raise Refused("notFound", f"{verb} {host}{path} is no call that the local cloud has a name for", 404)


def batched(verb: str, host: str, path: str) -> str:
    """The service whose calls a batch has in it; empty if a request is none, or of a service without."""
    for service in BATCHED:
        document = _document(service)
        hosts = (SHARED, urlsplit(document["rootUrl"]).hostname)
        if verb == "POST" and host in hosts and path == f"/{document['batchPath']}":
            return service
    return ""


def parameters(call: Recognised, query: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """All parameters of a call, by the types that they have.

    Raises:
        Refused: if there is one that the operation does not have, or of another type.
    """
    given: dict[str, Any] = {}
    for name, text in [*call.path.items(), *query]:
        schema = call.operation.parameters.get(name)
        if schema is None:
            raise _invalid(f"Unknown name \"{name}\": Cannot bind query parameter. Field '{name}' could not be found.")
        if not text:
            continue  # as if it were not there, as Google has it
        value = _typed(name, text, schema)
        if schema.get("repeated"):
            given.setdefault(name, []).append(value)
        elif name in given:
            raise _invalid(f"Invalid value at '{name}': it is not repeated, and was given twice")
        else:
            given[name] = value
    for name, schema in call.operation.parameters.items():
        if schema.get("required") and name not in given:
            raise Refused("required", f"Required parameter: {name}")
    return given


def _typed(name: str, text: str, schema: Mapping[str, Any]) -> Any:
    kind, form = schema["type"], schema.get("format", "")
    if kind == "boolean":
        if text.lower() not in ("true", "false"):
            raise _invalid(f"Invalid value at '{name}' (TYPE_BOOL), \"{text}\"")
        return text.lower() == "true"
    if kind == "integer" or "int" in form:
        if not re.fullmatch(r"-?\d+", text):
            raise _invalid(f"Invalid value at '{name}' (TYPE_{(form or 'int32').upper()}), \"{text}\"")
        return int(text)
    _one_of(name, text, schema)
    if (pattern := schema.get("pattern")) and not re.search(pattern, text):
        raise _invalid(f"Invalid value at '{name}', \"{text}\": it must match {pattern}")
    return text


def body(operation: Operation, members: Any) -> dict[str, Any]:
    """The body of a call, without what is null; that is kept in a patch, where it means to take something away.

    Raises:
        Refused: if it does not fit the schema that the operation has for it.
    """
    if operation.request is None:
        if members:
            raise _invalid(f"Invalid JSON payload received. {operation.name} has no body")
        return {}
    if not isinstance(members, dict):
        raise _invalid("Invalid JSON payload received. The body must be an object")
    kept: dict[str, Any] = members if operation.verb == "PATCH" else _without_null(members)
    check(operation.service, {"$ref": operation.request}, kept, "")
    return kept


def answered(operation: Operation, members: dict[str, Any]) -> dict[str, Any]:
    """Raises RuntimeError if an answer of ours is none that Google could give."""
    if operation.response:
        try:
            check(operation.service, {"$ref": operation.response}, members, "")
        except Refused as error:
            raise RuntimeError(f"the answer of {operation.service} {operation.name}: {error.message}") from None
    return members


def check(service: str, schema: Mapping[str, Any], value: Any, path: str) -> None:
    """Raises Refused, naming what does not fit, as Google does."""
    schema = _document(service)["schemas"][schema["$ref"]] if "$ref" in schema else schema
    kind = schema.get("type", "any")
    if value is None or kind == "any":
        return
    if kind == "object":
        if not isinstance(value, dict):
            raise _wrong(path, "an object", value)
        known, other = schema.get("properties", {}), schema.get("additionalProperties")
        for name, each in value.items():
            if (inner := known.get(name, other)) is None:
                where = f" at '{path}'" if path else ""
                raise _invalid(f'Invalid JSON payload received. Unknown name "{name}"{where}: Cannot find field.')
            check(service, inner, each, f"{path}.{name}".lstrip("."))
    elif kind == "array":
        if not isinstance(value, list):
            raise _wrong(path, "an array", value)
        for i, each in enumerate(value):
            check(service, schema["items"], each, f"{path}[{i}]")
    else:
        _check_scalar(kind, schema, value, path)


def _check_scalar(kind: str, schema: Mapping[str, Any], value: Any, path: str) -> None:
    form = schema.get("format", "")
    # A 64 bit integer may come as a text, and a smaller one too.
    if kind == "integer" or "int" in form:
        fits = isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"-?\d+", value) is not None)
        if not fits or isinstance(value, bool):
            raise _wrong(path, form or "integer", value)
    elif kind == "number":
        if isinstance(value, bool) or not isinstance(value, int | float | str):
            raise _wrong(path, "number", value)
    elif kind == "boolean":
        if not isinstance(value, bool):
            raise _wrong(path, "bool", value)
    elif isinstance(value, int | float) and path.endswith("parameterValue.value"):
        pass  # the value of a parameter of BigQuery: its own client writes numbers there
    elif not isinstance(value, str):
        raise _wrong(path, "string", value)
    else:
        _one_of(path, value, schema)


def _one_of(path: str, text: str, schema: Mapping[str, Any]) -> None:
    if "enum" in schema and text not in schema["enum"]:
        raise _invalid(f"Invalid value at '{path}', \"{text}\": it must be one of {', '.join(schema['enum'])}")


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_null(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_null(each) for each in value]
    return value


def _wrong(path: str, wanted: str, value: Any) -> Refused:
    return _invalid(f"Invalid value at '{path}': {wanted} is wanted, not {json.dumps(value, default=str)[:100]}")


def _invalid(message: str) -> Refused:
    return Refused("invalid", message)
