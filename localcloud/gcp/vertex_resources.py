"""What all resources of Vertex AI share: names, labels, filters of lists, pages, and files that outlive the cloud."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from localcloud.gcp.service import pages
from localcloud.service import NotHonoured, Refused

NUMBER = "1"  # of the project, as the metadata server has it: Vertex answers with it, whatever it was asked with
PAGE = 10  # less than Vertex's, where a request does not say: clients that do not turn pages are found out
DISPLAY_NAME = 128
LABELS, LABEL = 64, 64  # how many, and how long
TERM = re.compile(r'(display_name|state|labels\.[\w-]+)\s*=\s*(?:"([^"\\]*)"|([\w-]+))')
AND = re.compile(r"\s+AND\s+")


def invalid(message: str) -> Refused:
    return Refused("INVALID_ARGUMENT", message, 400)


def not_found(message: str) -> Refused:
    return Refused("NOT_FOUND", message, 404)


def too_late(message: str) -> Refused:
    return Refused("FAILED_PRECONDITION", message, 412)


@dataclass(frozen=True)
class Location:
    """The only one that this cloud has."""

    project: str
    region: str

    @property
    def name(self) -> str:
        return f"projects/{NUMBER}/locations/{self.region}"

    def check(self, parent: str) -> None:
        """Raises Refused if a parent is not this location, by the project's id or number."""
        self._below(parent, "")

    def id_of(self, name: str, collection: str) -> str:
        """What follows the collection in a resource's name.

        Raises:
            Refused: if it is no such name, or of another location.
        """
        return self._below(name, f"/{collection}/(.+)")

    def _below(self, name: str, rest: str) -> str:
        match = re.fullmatch(r"projects/([^/]+)/locations/([^/]+)" + rest.replace(".+", "[^/]+"), name)
        if match is None:
            raise invalid(f"Invalid resource name {name!r}.")
        if match[1] not in (self.project, NUMBER):
            raise Refused("PERMISSION_DENIED", f"Permission denied on resource project {match[1]}.", 403)
        if match[2] != self.region:
            raise invalid(f"{name!r} is in {match[2]}, but this local cloud is {self.region} only.")
        return match[3] if rest else ""


class Store:
    """Resources as JSON files, one each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def save(self, name: str, value: Mapping[str, Any]) -> None:
        """A file is there whole or not at all."""
        self._folder.mkdir(parents=True, exist_ok=True)
        draft = self._folder / f".{name}"
        draft.write_text(json.dumps(value, indent=1))
        draft.replace(self._folder / f"{name}.json")

    def load(self) -> dict[str, dict[str, Any]]:
        return {path.stem: json.loads(path.read_text()) for path in sorted(self._folder.glob("*.json"))}


def given(message: Any) -> dict[str, Any]:
    """The members of a message that are set, by their names in the proto; a message without any is not set."""
    shown: dict[str, Any] = _filled(json_format.MessageToDict(type(message).pb(message), preserving_proto_field_name=True))
    return shown


def _filled(value: Any) -> Any:
    if isinstance(value, list):
        return [_filled(each) for each in value]
    if isinstance(value, dict):
        filled = {name: _filled(each) for name, each in value.items()}
        return {name: each for name, each in filled.items() if each != {}}
    return value


def made(kind: Any, members: Mapping[str, Any]) -> Any:
    """A message of these members."""
    return kind.wrap(json_format.ParseDict(dict(members), kind.pb(kind())))


def new_id() -> str:
    """A number, as all of Vertex's own ids."""
    return str(10**18 + secrets.randbelow(8 * 10**18))


def now() -> str:
    return stamp(datetime.now(UTC))


def stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def check_named(resource: Mapping[str, Any]) -> None:
    """Raises Refused if the display name or the labels of a resource are not as Vertex wants them."""
    name = resource.get("display_name", "")
    if not 0 < len(name) <= DISPLAY_NAME:
        raise invalid(f"display_name must have 1 to {DISPLAY_NAME} characters.")
    check_labels(resource.get("labels", {}))


def check_labels(labels: Mapping[str, str]) -> None:
    """Raises Refused, naming the first that is not as it must be."""
    if len(labels) > LABELS:
        raise invalid(f"There are {len(labels)} labels, more than {LABELS}.")
    for key, value in labels.items():
        for part in (key, value):
            if len(part) > LABEL or part != part.lower() or not all(letter.isalnum() or letter in "_-" for letter in part):
                raise invalid(f"Label {key}={value}: only lower-case letters, digits, _ and -, and at most {LABEL} of them.")
        if not key:
            raise invalid("A label has no key.")


def selected(text: str, known: Iterable[str]) -> Callable[[Mapping[str, Any]], bool]:
    """What a filter of a list says: `name="value"` joined by AND. known: of display_name, state and labels.

    Raises:
        NotHonoured: if it says anything else.
    """
    wanted: list[tuple[str, str]] = []
    position = 0
    while text.strip():
        term = TERM.match(text, position)
        if term is None or term[1].partition(".")[0] not in known:
            raise NotHonoured(f'filter {text!r} (only NAME="value" of {", ".join(known)}, joined by AND)')
        wanted.append((term[1], term[2] if term[2] is not None else term[3]))
        if term.end() == len(text):
            break
        joined = AND.match(text, term.end())
        if joined is None:
            raise NotHonoured(f"filter {text!r} (only terms joined by AND)")
        position = joined.end()

    def meant(resource: Mapping[str, Any]) -> bool:
        return all(
            (resource.get("labels", {}).get(name.removeprefix("labels.")) if "." in name else resource.get(name)) == value
            for name, value in wanted
        )

    return meant


def page(request: Any, rows: list[Any]) -> tuple[list[Any], str]:
    """The part of a list that a request asks for."""
    if request.page_size < 0 or (request.page_token and not request.page_token.isdigit()):
        raise invalid("page_size must not be negative, and page_token must be one of a former answer.")
    return pages(rows, request.page_size or PAGE, request.page_token or None)


def check_list(request: Any, *honoured: str) -> None:
    """Raises NotHonoured if a list is asked for in a way that is not known here."""
    for name in given(request):
        if name not in ("parent", "name", "filter", "page_size", "page_token", *honoured):
            raise NotHonoured(f"{name} of {type(request).__name__.removesuffix('Request')}")
