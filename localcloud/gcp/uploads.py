"""How content comes with its metadata: at once, in two parts, or piece by piece in a session that can be resumed."""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
import threading
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from localcloud.service import Refused

PIECE = 256 * 1024  # all but the last are a multiple of this
RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass(frozen=True)
class Upload:
    """What was uploaded, complete."""

    params: dict[str, Any]
    metadata: dict[str, Any]
    content: bytes


@dataclass
class Session:
    params: dict[str, Any]
    metadata: dict[str, Any]
    content: bytearray = field(default_factory=bytearray)
    done: dict[str, Any] | None = None  # what was answered in the end: asked again, it is answered again


class Sessions:
    """The uploads that are going on. A restart ends them, as Google's end after a week: clients begin anew."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def begin(self, params: dict[str, Any], metadata: dict[str, Any]) -> str:
        name = uuid.uuid4().hex
        with self._lock:
            self._sessions[name] = Session(params, metadata)
        return name

    def find(self, name: str) -> Session:
        with self._lock:
            session = self._sessions.get(name)
        if session is None:
            raise Refused("notFound", f"there is no upload {name}", 404)
        return session

    def end(self, name: str) -> None:
        with self._lock:
            self._sessions.pop(name, None)


def at_once(params: dict[str, Any], content_type: str, raw: bytes) -> Upload:
    """All of an upload in one request: `uploadType` is media or multipart.

    Raises:
        Refused: if it is neither, or cut off.
    """
    kind = params.get("uploadType")
    if kind == "media":
        return Upload(params, _with(params, {"contentType": content_type} if content_type else {}), raw)
    if kind != "multipart":
        raise Refused("invalidParameter", f"uploadType must be media, multipart or resumable, not {kind}")
    head = f"Content-Type: {content_type}\r\nMIME-Version: 1.0\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head)
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/related" or not boundary:
        raise Refused("badRequest", f"an upload of two parts is multipart/related with a boundary, not {content_type}")
    found = parts(raw, boundary.encode())
    if len(found) != 2:
        raise Refused("badRequest", f"Missing end boundary in multipart body, or not two parts but {len(found)}")
    metadata = parsed(found[0][1])
    if part_type := found[1][0].get("content-type"):
        metadata.setdefault("contentType", part_type)
    return Upload(params, _with(params, metadata), found[1][1])


def parsed(raw: bytes) -> dict[str, Any]:
    """A JSON object; {} of nothing."""
    try:
        members = json.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise Refused("parseError", f"Parse Error: {error}") from None
    if not isinstance(members, dict):
        raise Refused("parseError", "Parse Error: the body must be an object")
    return members


def begun(params: dict[str, Any], headers: Mapping[str, str], raw: bytes) -> dict[str, Any]:
    """The metadata by which an upload in pieces begins."""
    metadata = parsed(raw)
    if given := headers.get("x-upload-content-type"):
        metadata.setdefault("contentType", given)
    return _with(params, metadata)


def add(session: Session, content_range: str | None, piece: bytes) -> bool:
    """Add what a request brings to its upload. Is it complete?

    Raises:
        Refused: if it does not go on where the last one ended.
    """
    if content_range is None:
        session.content[:] = piece
        return True
    match = RANGE.fullmatch(content_range)
    if not match:
        raise Refused("badRequest", f"Failed to parse Content-Range header: {content_range}")
    first, last, total = match.groups()
    if first is None:
        return total != "*" and int(total) == len(session.content)
    if int(last) - int(first) + 1 != len(piece) or int(first) > len(session.content):
        raise Refused("badRequest", f"{content_range}: {len(piece)} bytes came, {len(session.content)} are here already", 503)
    if total == "*" and len(piece) % PIECE:
        raise Refused("badRequest", f"all pieces but the last must be a multiple of {PIECE} bytes, not {len(piece)}")
    session.content[int(first) :] = piece
    return total != "*" and int(total) == len(session.content)


def _with(params: Mapping[str, Any], metadata: dict[str, Any]) -> dict[str, Any]:
    """The name may be a parameter, which comes first."""
    return {**metadata, "name": params["name"]} if "name" in params else metadata


def parts(raw: bytes, boundary: bytes) -> list[tuple[dict[str, str], bytes]]:
    """Headers and content of each part; [] if they do not end as they should.

    By hand: a parser of mails would not leave a line's end of the content as it is.
    """
    begin = b"--" + boundary
    # Google's own clients end lines as the standard says, others as Unix does.
    end = b"\r\n" if raw.startswith(begin + b"\r\n") else b"\n"
    pieces = (end + raw).split(end + begin)
    if len(pieces) < 3 or pieces[0] or not pieces[-1].startswith(b"--"):
        return []
    found = []
    for piece in pieces[1:-1]:
        head, _, content = piece.removeprefix(end).partition(end + end)
        found.append((read_headers(head.decode("latin-1").splitlines()), content))
    return found


def read_headers(lines: Iterable[str]) -> dict[str, str]:
    """By their names in lower case."""
    cut = (line.partition(":") for line in lines)
    return {name.strip().lower(): value.strip() for name, _, value in cut}
