"""Deploys a bundle into an environment of Amazon MWAA or Cloud Composer.

In the bucket of the environment a record says which files are of a deployment. Only those are ever replaced or deleted; a file of
somebody else in their place stops the deployment. The record is written before the first file is touched, so that a deployment
that was killed is made good by the next one. The stamp is uploaded last: once it is there, all of the revision is.

**Has the revision been parsed?** Times of parsing alone do not tell: an Airflow parses its old files again and again until its
own copy of the bucket is new. So every DAG of a bundle carries the revision as a tag, also one whose file has not changed, for
what it imports may have. When all DAGs that the build has found show the tag, each must be parsed once more: the copy may have
been half new when the tag was read. An import error of ours that outlives a second parsing is a failure, and the bundle before
is put back.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Protocol

from deploy.archives import digest_of, tarred, untarred
from deploy.bundle import MANIFEST, REVISION

RECORD = "deployed.json"
PAGE = 100  # the most that Airflow gives at once


class Refused(ValueError):
    """Nothing was changed; the message says why not, and what to do."""


class Failed(Exception):
    """The environment does not take the bundle; the message says what it said."""


class Unreachable(Exception):
    """Airflow's web server does not answer; it may in a while."""


class Interfered(Exception):
    """Somebody else has written meanwhile: nothing more is done."""


@dataclass(frozen=True)
class Patience:
    """In seconds."""

    poll: float = 10
    update: float = 60 * 60  # of an environment that starts anew
    parse: float = 20 * 60  # until a revision is parsed
    settle: float = 60  # an import error that has gone by then was of files that came one after the other


class Store(Protocol):
    """A bucket. A tag is what changes whenever an object is written."""

    def listed(self, prefix: str) -> dict[str, str]: ...

    def read(self, key: str) -> tuple[bytes, str] | None: ...

    def put(self, key: str, content: bytes) -> str: ...

    def put_over(self, key: str, content: bytes, tag: str | None) -> str:
        """Write over what has this tag, None for nothing there. Raises Interfered if that is not so."""

    def delete(self, key: str) -> None: ...


class Service(Protocol):
    """An environment of Amazon MWAA or Cloud Composer."""

    own: str  # prefix of what only deployments read
    dags: str  # prefix of DAG files
    folders: tuple[str, ...]  # prefixes of all that `place` gives

    @property
    def store(self) -> Store: ...

    def place(self, name: str) -> str | None:
        """The key of a file of a bundle; None if it is not the bucket's, or `update` puts it there."""

    def check(self, manifest: Mapping[str, Any]) -> None:
        """Raises Refused if the environment cannot take such a bundle."""

    def changes(self, files: Mapping[str, bytes], overwrite: bool) -> list[str]:
        """What `update` would do. Raises Refused."""

    def update(self, files: Mapping[str, bytes], patience: Patience) -> None:
        """Bring the environment to what the DAGs need, and wait for it. Raises Failed."""

    def get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """What Airflow's REST API answers. Raises Unreachable."""


@dataclass
class Record:
    """What a bucket has of deployments.

    archive: of the bundle that works, or worked last; empty if none did. files: key → digest and tag of what is, or may be, there
    of ours; the tag is empty while that is not known.
    """

    archive: str = ""
    revision: str = ""
    files: dict[str, tuple[str, str]] = field(default_factory=dict)
    done: bool = True  # false while a deployment is at work, or if it was killed


@dataclass(frozen=True)
class Plan:
    put: tuple[str, ...]
    delete: tuple[str, ...]
    kept: int
    environment: tuple[str, ...]

    def lines(self) -> Iterator[str]:
        yield from (f"  environment: {change}" for change in self.environment)
        yield from (f"  put     {key}" for key in self.put)
        yield from (f"  delete  {key}" for key in self.delete)
        yield f"  {self.kept} files are as they should be"


class Release:
    """One deployment into one environment."""

    def __init__(self, service: Service, patience: Patience, say: Callable[[str], None] = print, overwrite: bool = False) -> None:
        self._service, self._store, self._patience, self._say = service, service.store, patience, say
        self._overwrite = overwrite
        found = self._store.read(f"{service.own}{RECORD}")
        self._record = _record(found[0]) if found else Record()
        # Of folders that the environment does not read any more, nothing is known, and nothing is deleted.
        self._record.files = {key: told for key, told in self._record.files.items() if key.startswith(service.folders)}
        self._tag = found[1] if found else None

    def plan(self, files: Mapping[str, bytes]) -> Plan:
        """
        Raises:
            Refused: if a file of somebody else is in the way.
        """
        return self._compared(files)[0]

    def _compared(self, files: Mapping[str, bytes]) -> tuple[Plan, dict[str, tuple[str, str]]]:
        """The plan, and of what is as it should be what a record says of it."""
        placed, there, ours = self._placed(files), self._there(), self._record.files
        kept = {
            key: (digest_of(content), there[key])
            for key, content in placed.items()
            if key in there and self._is(key, content, there)
        }
        foreign = sorted(key for key in placed if key in there and key not in kept and key not in ours)
        if foreign and not self._overwrite:
            raise Refused(
                f"{', '.join(foreign[:5])} in the bucket of the environment, of which no deployment knows: move it away, "
                "or deploy with OVERWRITE=1"
            )
        put = [key for key in placed if key not in kept]
        # The stamp is last, and what is imported is there before what imports it.
        put.sort(key=lambda key: (key == self._service.place(REVISION), "/include/" not in key, key))
        gone = sorted(key for key in ours if key not in placed and key in there)
        changes = self._service.changes(files, self._overwrite)
        return Plan(tuple(put), tuple(gone), len(kept), tuple(changes)), kept

    def _is(self, key: str, content: bytes, there: Mapping[str, str]) -> bool:
        """Is this the content of an object? As the record says, or by reading it where the record does not know."""
        digest, tag = self._record.files.get(key, ("", ""))
        if tag == there[key]:
            return digest == digest_of(content)
        found = self._store.read(key)
        return found is not None and found[0] == content

    def deploy(self, files: Mapping[str, bytes]) -> None:
        """Deploy a bundle, and put back the one before if the environment does not take it.

        Raises:
            Refused: if nothing was changed.
            Failed: if the bundle does not work; the message says what is there now.
            Interfered: if somebody else has deployed meanwhile.
        """
        archive, revision = self._record.archive, self._record.revision
        try:
            self._bring(files)
        except Failed as error:
            self._say(f"it does not work: {error}")
            raise Failed(f"{error}\n{self._back(archive, revision)}") from None
        self._say(f"deployed: {self._record.revision}")

    def _back(self, archive: str, revision: str) -> str:
        """Put back what worked before; what is there then, in words."""
        if not archive:
            for key in self._there():
                if key in self._record.files:
                    self._store.delete(key)
            self._write(Record())
            return "nothing was deployed before, so its DAGs were taken away"
        kept = self._store.read(archive)
        if kept is None:
            return f"{revision} cannot be put back, for {archive} is gone: the files are still those that do not work"
        self._say(f"putting back {revision}")
        try:
            self._bring(untarred(kept[0]))
        except Failed as error:
            return f"{revision} could not be put back either: {error}\nlook at the environment, then deploy again"
        return f"{revision} was put back, and works"

    def _bring(self, files: Mapping[str, bytes]) -> None:
        """Put everything in its place, and see that it works. Raises Failed, Interfered."""
        (plan, kept), placed = self._compared(files), self._placed(files)
        packed = tarred({name: content for name, content in files.items() if not name.startswith("jobs/")})
        archive = f"{self._service.own}bundles/{digest_of(packed)}.tar"
        if archive not in self._store.listed(archive):
            self._store.put(archive, packed)
        coming = {key: (digest_of(placed[key]), "") for key in plan.put}
        self._write(Record(self._record.archive, self._record.revision, {**self._record.files, **kept, **coming}, done=False))
        self._service.update(files, self._patience)
        known = self._errors()
        self._say(f"{len(plan.put)} files to put, {len(plan.delete)} to delete, {plan.kept} as they should be")
        stamp = self._service.place(REVISION)
        for key in plan.put:
            if key != stamp:
                self._put(key, placed[key])
        for key in plan.delete:
            self._store.delete(key)
        self._record.files = {key: told for key, told in self._record.files.items() if key in placed}
        if stamp in plan.put:
            self._put(stamp, placed[stamp])
        self._wait(files, known)
        self._finish(archive, files)

    def _put(self, key: str, content: bytes) -> None:
        self._record.files[key] = (digest_of(content), self._store.put(key, content))

    def _finish(self, archive: str, files: Mapping[str, bytes]) -> None:
        there = self._there()
        if changed := sorted(key for key, (_, tag) in self._record.files.items() if there.get(key) != tag):
            raise Interfered(f"{changed[0]} was written by somebody else during the deployment: deploy again")
        self._write(Record(archive, files[REVISION].decode().strip(), self._record.files))

    def _wait(self, files: Mapping[str, bytes], known: Mapping[str, Any]) -> None:
        """Until the revision is parsed; see at the top.

        Args:
            known: import errors from before, which new files may be about to mend.
        """
        revision, wanted = files[REVISION].decode().strip(), _dags(files)
        self._say(f"waiting until {len(wanted)} DAGs of {revision} are parsed")
        seen: dict[str, tuple[str, Any, float]] = {}  # file → its error, when it was parsed, when we saw that first
        tagged: dict[str, datetime] = {}  # DAG → when it was parsed, when all had the tag
        end = time.monotonic() + self._patience.parse
        while True:
            now = time.monotonic()
            dags = {dag["dag_id"]: dag for dag in self._pages("/dags", "dags")}
            errors = self._errors()
            new = {dag for dag in wanted & dags.keys() if any(tag["name"] == f"revision:{revision}" for tag in dags[dag]["tags"])}
            if wanted <= new:
                times = {dag: datetime.fromisoformat(dags[dag]["last_parsed_time"]) for dag in wanted}
                tagged = tagged or times
                if not errors and all(times[dag] > tagged[dag] for dag in wanted):
                    return
            seen = {file: told for file, told in seen.items() if file in errors}
            for file, error in errors.items():
                text, parsed = error["stack_trace"], error["timestamp"]
                first = seen.get(file)
                if first is None or first[0] != text:
                    seen[file] = first = (text, parsed, now)
                old = file in known and known[file]["stack_trace"] == text and not tagged
                if not old and parsed != first[1] and now - first[2] >= self._patience.settle:
                    raise Failed(f"{file} cannot be imported:\n{text.strip()}")
            if now > end:
                missing = f"; not parsed: {', '.join(sorted(wanted - new)[:5])}" if wanted - new else ""
                told = "".join(f"\n{file}: {error['stack_trace'].strip()}" for file, error in errors.items())
                raise Failed(f"after {self._patience.parse / 60:g} minutes the revision is not in use{missing}{told}")
            time.sleep(self._patience.poll)

    def _errors(self) -> dict[str, dict[str, Any]]:
        """The import errors of files of ours; those of other people in the same environment are theirs."""
        found = {error["filename"]: error for error in self._pages("/importErrors", "import_errors")}
        return {file: error for file, error in found.items() if f"{self._service.dags}{file}" in self._record.files}

    def _pages(self, path: str, member: str) -> Iterator[dict[str, Any]]:
        begin = 0
        while True:
            page = self._asked(path, {"limit": PAGE, "offset": begin})
            yield from page[member]
            begin += len(page[member])
            if begin >= page["total_entries"] or not page[member]:
                return

    def _asked(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """A web server that starts anew is waited for."""
        end = time.monotonic() + self._patience.parse
        while True:
            try:
                return self._service.get(path, query)
            except Unreachable as error:
                if time.monotonic() > end:
                    raise Failed(f"Airflow's web server does not answer: {error}") from None
            time.sleep(self._patience.poll)

    def _placed(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        return {key: content for name, content in files.items() if (key := self._service.place(name)) is not None}

    def _there(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for folder in self._service.folders:
            found |= self._store.listed(folder)
        return found

    def _write(self, record: Record) -> None:
        content = (json.dumps(asdict(record), indent=1, sort_keys=True) + "\n").encode()
        self._tag = self._store.put_over(f"{self._service.own}{RECORD}", content, self._tag)
        self._record = record


def _record(content: bytes) -> Record:
    raw = json.loads(content)
    return Record(
        raw["archive"], raw["revision"], {key: (digest, tag) for key, (digest, tag) in raw["files"].items()}, raw["done"]
    )


def _dags(files: Mapping[str, bytes]) -> set[str]:
    return {dag for ids in json.loads(files[MANIFEST])["dags"].values() for dag in ids}
