"""What a service of the local Google Cloud stands on, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from localcloud.jobs import Jobs
from localcloud.service import Delays, Image

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Asked:
    """A call over HTTP, recognised and held against Google's discovery document of the service."""

    operation: str  # as there, without the service: "jobs.insert", or "projects.locations.flexTemplates.launch"
    params: dict[str, Any]  # of path and query, by the names and of the types that they have there (int64: int)
    body: dict[str, Any]  # {} if there is none
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    content: bytes = b""  # of an upload, its metadata in `body`


@dataclass(frozen=True)
class Answer:
    """An answer that is no JSON object."""

    content: bytes
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


# What answers a call over HTTP: members of a JSON object, or bytes. Raises localcloud.service.Refused.
Rest = Callable[[Asked], "dict[str, Any] | Answer"]


@dataclass(frozen=True)
class Method:
    """What answers a call over gRPC.

    request: the class of its message (proto-plus or plain). answer: given the message, gives the answer's, or an iterable of
    them if `streams`. Raises localcloud.service.Refused.
    """

    request: type
    answer: Callable[[Any], Any]
    streams: bool = False


class Objects(Protocol):
    """Cloud Storage, as the cloud itself sees it; `gs://` URIs."""

    def read(self, uri: str) -> bytes:
        """Raises FileNotFoundError."""

    def write(self, uri: str, content: bytes) -> None: ...

    def buckets(self) -> list[str]:
        """The names of all buckets, in order."""

    def keys(self, prefix: str) -> list[str]:
        """The URIs of all objects whose own begins so, in order."""

    def matching(self, pattern: str) -> list[str]:
        """The same, of a URI that may have one or more `*`, as load and extract jobs take it."""

    def delete(self, uri: str) -> None: ...

    def path(self, uri: str) -> Path:
        """A file with the content of an object, for reading: it must not be written to. Raises FileNotFoundError."""


class Tables(Protocol):
    """BigQuery, as the cloud itself sees it; a table is `project.dataset.table`."""

    def rows(self, table: str) -> pa.Table:
        """Raises LookupError if there is no such table."""

    def write(self, table: str, rows: pa.Table, *, replace: bool = True) -> None:
        """Make a table, or put these rows in the place of all that it has (or beside them)."""


@dataclass(frozen=True)
class Cloud:
    """Handed to every service.

    url: of the control interface, which is the proxy too. environment: what a program needs to be a client of this cloud.
    """

    project: str
    region: str
    url: str
    folder: Path
    jobs: Jobs
    images: Mapping[str, Image]
    delays: Delays
    environment: Mapping[str, str]
    objects: Objects
    tables: Tables


# Of a service, over HTTP: by the operation's name; over gRPC: by the method's path, `/package.Service/Method`.
Operations = Mapping[str, Rest]
Methods = Mapping[str, Method]


def pages(found: Iterable[Any], size: int, token: str | None) -> tuple[list[Any], str]:
    """One page of a list, and the token of the next; empty if there is none."""
    rows, begin = list(found), int(token or 0)
    end = begin + size
    return rows[begin:end], str(end) if end < len(rows) else ""
