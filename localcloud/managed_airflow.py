"""The Airflow of a managed service: it takes the files of a bucket, parses them, and says what it has found.

The parsing is Airflow's own, in an image that has one. What an Airflow would parse again and again with the same outcome is
parsed once here, and its time moves on. A DAG that its file no longer has stays listed; a real one forgets it in a minute.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcloud.jobs import Job, JobFailed, Jobs
from localcloud.service import Image, NotHonoured, Refused

PARSE = Path(__file__).with_name("parse_dags.py")
KIND = "parsing"
BUNDLE = "dags-folder"
MOST = 100  # of a page: Airflow's own maximum


@dataclass(frozen=True)
class Source:
    """The files that an environment is told to read.

    listed: paths below the home of the files, each with what changes when its content does. read: the content of a path.
    """

    listed: Callable[[], Mapping[str, str]]
    read: Callable[[str], bytes]


class ManagedAirflow:
    """One environment. `environment` is what its processes have beside the places of its files."""

    def __init__(self, service: str, name: str, jobs: Jobs, image: Image, home: Path, source: Source) -> None:
        self._service, self._name, self._jobs, self._image, self._home, self._source = service, name, jobs, image, home, source
        self.environment: Mapping[str, str] = {}
        self._lock = threading.Lock()
        self._here: dict[str, str] = {}  # of each file that was taken, what would change with it
        self._parsed = ""  # the state of all that the last parsing has seen
        self._dags: dict[str, dict[str, Any]] = {}
        self._found: set[str] = set()  # the DAGs that the last parsing has found
        self._errors: dict[str, dict[str, Any]] = {}
        self._numbered = 0

    def answer(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        """What its REST API says to GET, below /api/v2. The answer is of what was parsed so far.

        Raises:
            Refused: for all that is not offered.
        """
        self._look()
        offered = {"/dags": ("dags", self._shown_dags), "/importErrors": ("import_errors", self._shown_errors)}
        if path not in offered:
            raise NotHonoured(f"GET {path} of the REST API of Airflow")
        member, shown = offered[path]
        with self._lock:
            rows = shown(_flag(query, "exclude_stale", default=True))
        if unknown := query.keys() - {"limit", "offset", *(("exclude_stale",) if path == "/dags" else ())}:
            raise NotHonoured(f"{', '.join(sorted(unknown))} of GET {path}")
        begin, size = _number(query, "offset", 0), min(_number(query, "limit", 50), MOST)
        return {member: rows[begin : begin + size], "total_entries": len(rows)}

    def _look(self) -> None:
        """Parse what has changed, later; what has not is parsed again, as of now."""
        with self._lock:
            newest = self._jobs.find(KIND, self._name)
            if newest and newest.ended is None:
                return
            if self._state() != self._parsed:
                self._jobs.start(self._service, KIND, self._name, {}, self._parse, unbilled=True)
                return
            now = _now()
            for dag_id in self._found:
                self._dags[dag_id]["last_parsed_time"] = now
            for error in self._errors.values():
                error["timestamp"] = now

    def _state(self) -> str:
        seen = [sorted(self._source.listed().items()), sorted(self.environment.items())]
        return hashlib.sha256(json.dumps(seen).encode()).hexdigest()

    def _parse(self, job: Job) -> None:
        state = self._state()
        self._take()
        result = self._home / "parsed.json"
        result.unlink(missing_ok=True)
        dags = str(self._home / "dags")
        environment = {
            "HOME": str(self._home),
            "PATH": self._image.path,
            "AIRFLOW_HOME": str(self._home / "airflow"),
            "AIRFLOW__CORE__DAGS_FOLDER": dags,
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(self._home / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            **self._image.environment,
            **self.environment,
        }
        code = job.run([*self._image.entrypoint, str(PARSE), dags, str(result)], environment, "/")
        if code or not result.is_file():
            raise JobFailed(f"the DAG processor ended with exit code {code}: {job.log[-2000:]}")
        self._keep(json.loads(result.read_text()))
        self._parsed = state

    def _take(self) -> None:
        """Bring the files here, and let those go that are gone."""
        listed = self._source.listed()
        for name in self._here.keys() - listed.keys():
            (self._home / name).unlink(missing_ok=True)
        for name, seen in listed.items():
            if self._here.get(name) != seen:
                file = self._home / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(self._source.read(name))
        self._here = dict(listed)
        for folder in ("dags", "plugins", "airflow"):
            (self._home / folder).mkdir(parents=True, exist_ok=True)
        for cache in self._home.rglob("__pycache__"):
            shutil.rmtree(cache, ignore_errors=True)

    def _keep(self, found: Mapping[str, Mapping[str, Any]]) -> None:
        """As in Airflow's database: DAGs are stale whose file is gone or cannot be imported."""
        now = _now()
        with self._lock:
            for dag in self._dags.values():
                of_file = found.get(dag["relative_fileloc"])
                dag["has_import_errors"] = bool(of_file and of_file["error"])
                dag["is_stale"] = dag["is_stale"] or of_file is None or dag["has_import_errors"]
            self._found = set()
            for file, told in found.items():
                if told["error"]:
                    self._numbered += file not in self._errors
                    kept = self._errors.get(file, {"import_error_id": self._numbered, "filename": file, "bundle_name": BUNDLE})
                    self._errors[file] = {**kept, "timestamp": now, "stack_trace": told["error"]}
                    continue
                self._dags.update({dag["dag_id"]: _dag(file, dag, now) for dag in told["dags"]})
                self._found.update(dag["dag_id"] for dag in told["dags"])
            for file in [known for known in self._errors if not found.get(known, {"error": ""})["error"]]:
                del self._errors[file]

    def _shown_dags(self, without_stale: bool) -> list[dict[str, Any]]:
        return [dict(dag) for _, dag in sorted(self._dags.items()) if not (without_stale and dag["is_stale"])]

    def _shown_errors(self, _: bool) -> list[dict[str, Any]]:
        return sorted(map(dict, self._errors.values()), key=lambda error: error["import_error_id"])


def _dag(file: str, dag: Mapping[str, Any], now: str) -> dict[str, Any]:
    """A DAG as Airflow's API shows it, as far as files tell."""
    tags = [{"name": name, "dag_id": dag["dag_id"], "dag_display_name": dag["dag_display_name"]} for name in dag["tags"]]
    unknown = (
        *("last_expired", "last_parse_duration", "bundle_version", "allowed_run_types"),
        *("timetable_summary", "timetable_description"),
        *(
            "next_dagrun_logical_date",
            "next_dagrun_data_interval_start",
            "next_dagrun_data_interval_end",
            "next_dagrun_run_after",
        ),
    )
    return {
        **dict.fromkeys(unknown),
        **dag,
        "tags": tags,
        "relative_fileloc": file,
        "bundle_name": BUNDLE,
        "last_parsed_time": now,
        "is_paused": True,
        "is_stale": False,
        "has_import_errors": False,
        "has_task_concurrency_limits": False,
        "max_consecutive_failed_dag_runs": 0,
        "timetable_partitioned": False,
        "timetable_periodic": False,
        "is_backfillable": False,
        "file_token": "",
    }


def image_of(images: Mapping[str, Image], version: str) -> Image:
    """Raises Refused if there is no Airflow of this version."""
    if (name := f"airflow:{version}") not in images:
        raise Refused("ValidationException", f"there is no image {name} in images.json: this Airflow cannot be had here")
    return images[name]


def _number(query: Mapping[str, Any], name: str, default: int) -> int:
    text = str(query.get(name, default))
    if not text.isdecimal():
        raise Refused("RestApiClientException", f"{name} must be a number, not {text!r}")
    return int(text)


def _flag(query: Mapping[str, Any], name: str, default: bool) -> bool:
    return str(query.get(name, default)).lower() == "true"


def _now() -> str:
    return datetime.now(UTC).isoformat()
