"""Several calls in one request, as multipart/mixed: taken apart, and the answers of them put together."""

from __future__ import annotations

import email.message
import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus

from localcloud.gcp import uploads
from localcloud.gcp.service import Answer
from localcloud.service import NotHonoured, Refused

LARGEST = 10 * 1024 * 1024
MOST_PARTS = 100
# Line ends are left as they come: clients mix those of the standard with those of Unix.
BLANK_LINE = re.compile(rb"\r?\n\r?\n")
REQUEST_LINE = re.compile(r"([A-Z]+) ((?:https?://[\w.:-]+)?/(?!/)\S*) HTTP/1\.[01]")
# Of the headers of the batch, these say how it was sent; all others are those of its parts too.
OF_THE_BATCH = {"host", "transfer-encoding", "connection", "x-http-method-override"}


@dataclass(frozen=True)
class Part:
    """One call of a batch."""

    content_id: str | None
    verb: str
    uri: str  # a path, or a whole address: Google's own client sends that
    headers: dict[str, str]  # names in lower case
    body: bytes


def parts(headers: Mapping[str, str], raw: bytes) -> list[Part]:
    """The calls of a batch, each with the headers of the batch where it has none of its own.

    Raises:
        Refused: if it cannot be read as a whole, or is too large: none of its calls is made then.
    """
    if "content-encoding" in headers:
        raise NotHonoured("a batch with a Content-Encoding")
    if len(raw) >= LARGEST:
        raise _bad(f"a batch must be smaller than {LARGEST} bytes, not {len(raw)}")
    content_type = headers.get("content-type", "")
    message = email.message.Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/mixed" or not boundary:
        raise _bad(f"a batch is multipart/mixed with a boundary, not {content_type or 'without a type'}")
    found = uploads.parts(raw.lstrip(b"\r\n"), boundary.encode())
    if not found:
        raise _bad("Failed to parse batch request: no parts, or no boundary at the end")
    if len(found) > MOST_PARTS:
        raise _bad(f"The batch has {len(found)} calls in it: {MOST_PARTS} are the most")
    common = {name: value for name, value in headers.items() if name not in OF_THE_BATCH and not name.startswith("content-")}
    return [_part(own, content, common) for own, content in found]


def answered(answers: Iterable[tuple[Part, Answer]]) -> Answer:
    """The answer to a batch, given those to its parts in their order."""
    boundary = f"batch_{uuid.uuid4().hex}"
    pieces = []
    for part, answer in answers:
        own = {"Content-Type": "application/http"}
        if part.content_id:
            own["Content-ID"] = _response_id(part.content_id)
        inner = dict(answer.headers)
        if answer.status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            inner["Content-Length"] = str(len(answer.content))
        line = f"HTTP/1.1 {answer.status} {_phrase(answer.status)}\r\n"
        head = f"--{boundary}\r\n{_written(own)}\r\n{line}{_written(inner)}\r\n"
        pieces.append(head.encode() + answer.content + b"\r\n")
    whole = b"".join(pieces) + f"--{boundary}--\r\n".encode()
    return Answer(whole, headers={"Content-Type": f"multipart/mixed; boundary={boundary}"})


def _part(own: Mapping[str, str], content: bytes, common: Mapping[str, str]) -> Part:
    if own.get("content-type", "").partition(";")[0].strip().lower() != "application/http":
        raise _bad(f"each part of a batch is application/http, not {own.get('content-type', 'without a type')}")
    # A request without a body may end without the line that would be between.
    head, *rest = BLANK_LINE.split(content.lstrip(b"\r\n"), maxsplit=1)
    line, *lines = head.decode("latin-1").splitlines() or [""]
    match = REQUEST_LINE.fullmatch(line.strip())
    if not match:
        raise _bad(f"Failed to parse batch request: {line[:100]!r} is no request")
    headers = uploads.read_headers(lines)
    body = rest[0] if rest else b""
    if (length := headers.get("content-length")) is not None:
        if not length.isdecimal() or int(length) > len(body) or body[int(length) :].strip():
            raise _bad(f"Failed to parse batch request: Content-Length is {length}, and {len(body)} bytes came")
        body = body[: int(length)]
    verb = headers.pop("x-http-method-override", match[1])
    return Part(own.get("content-id"), verb, match[2], {**common, **headers}, body)


def _response_id(content_id: str) -> str:
    return f"<response-{content_id[1:]}" if content_id.startswith("<") else f"response-{content_id}"


def _phrase(status: int) -> str:
    """499 is Google's own."""
    return HTTPStatus(status).phrase if status in set(HTTPStatus) else "Error"


def _written(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


def _bad(message: str) -> Refused:
    return Refused("badRequest", message)
