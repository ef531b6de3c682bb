"""Report pages inside Airflow: serves them to people who are logged in, and gives tasks a link "Report".

A page is an HTML or JSON file below `evaluations/` or `validations/` of the lake; it is shown at `/reports/<path below the
lake>`. A task has the link when its return value is a mapping with the key `page`, or when it has pushed an XCom of that key
(a task that fails has no return value): the absolute path or URI of the page.

Where the pages are: AILERON_PAGES, else AILERON_LAKE, else `.local/lake` beside the folder of this file. A path or a URI.

This file imports nothing of the repository: a managed web server sees the plugins only. Every component of Airflow loads it,
so what only the web server needs is imported when the web server asks for it.
"""

from __future__ import annotations

import html
import json
import logging
import os
import re
import stat
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.plugins_manager import AirflowPlugin
from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from fastapi import FastAPI

log = logging.getLogger(__name__)

PREFIX = "/reports"
KEY = "page"
FOLDERS = ("evaluations", "monitoring", "validations")
TYPES = {".html": "text/html; charset=utf-8", ".json": "application/json"}
SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=-]*")  # no hidden file, no "..", nothing that is encoded
MAX_BYTES = 20_000_000
HEADERS = {
    # A page shows values that came with the data. Whatever they say: nothing runs, nothing is loaded, nothing is sent.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'; sandbox",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}


class Unreadable(RuntimeError):
    """The place of the pages cannot be read from this process."""


def pages_root() -> str:
    """Where the pages are: a path or a URI."""
    here = Path(__file__).resolve().parent.parent / ".local" / "lake"
    return os.environ.get("AILERON_PAGES") or os.environ.get("AILERON_LAKE") or str(here)


def address_of(page: object) -> str | None:
    """The address, from the root of the web server, at which a page is shown; None if it is none of ours."""
    if not isinstance(page, str):
        return None
    path = page.removeprefix("file://")
    below = next((path.removeprefix(start) for start in _starts(pages_root()) if path.startswith(start)), None)
    if below is None or _segments(below) is None:
        return None
    return f"{_base_path()}{PREFIX}/{quote(below, safe='/=')}"


def read_page(path: str) -> bytes | None:
    """The bytes of a page; None if there is none, or if it is not for showing.

    Args:
        path: below the root, e.g. "evaluations/flight_delays/2013-04-01/evaluation.html".

    Raises:
        Unreadable: the root is a URI, and this process has no access to it.
    """
    segments = _segments(path)
    if segments is None:
        return None
    root = pages_root().removeprefix("file://")
    return _read_remote(root, segments) if "://" in root else _read_local(Path(root), segments)


def build_app() -> FastAPI:
    """The sub-application. Airflow protects none of its own accord: every route here asks who is there."""
    from airflow.api_fastapi.auth.managers.models.resource_details import AccessView
    from airflow.api_fastapi.core_api.security import requires_access_view
    from fastapi import Depends, FastAPI, HTTPException, Request, Response
    from starlette.exceptions import HTTPException as AnyHTTPException

    allowed = [Depends(requires_access_view(AccessView.PLUGINS))]
    app = FastAPI(title="Reports", docs_url=None, redoc_url=None, openapi_url=None, dependencies=allowed)

    def page(path: str) -> Response:
        try:
            content = read_page(path)
        except Unreadable as error:
            raise HTTPException(503, str(error)) from error
        if content is None:
            raise HTTPException(404, "There is no such report.")
        return Response(content, media_type=TYPES[Path(path).suffix])

    def refused(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        told = "Log in to Airflow first, then open this address again." if status == 401 else str(getattr(error, "detail", ""))
        return Response(_sentence(told), status, media_type=TYPES[".html"])

    async def with_headers(request: Request, call_next: Any) -> Response:
        response: Response = await call_next(request)
        response.headers.update(HEADERS)
        return response

    app.add_api_route("/{path:path}", page, methods=["GET"], response_model=None)
    app.add_exception_handler(AnyHTTPException, refused)
    app.middleware("http")(with_headers)
    return app


class ReportLink(BaseOperatorLink):
    """The button "Report" of a task. The web server makes it, from what the task has left in the metadata database."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """The address of the task's page; empty, which hides the button, if it has none."""
        for value in _left_by(ti_key):
            if address := address_of(value):
                return address
        return ""


class ReportPages(AirflowPlugin):
    name = "report_pages"
    global_operator_extra_links = [ReportLink()]  # noqa: RUF012 - the base class says how it is written

    @cached_property
    def fastapi_apps(self) -> list[dict[str, Any]]:  # type: ignore[override]
        """Read by the web server only; other components need not import FastAPI."""
        return [{"app": build_app(), "url_prefix": PREFIX, "name": "Reports"}]


def _left_by(ti_key: Any) -> Iterable[Any]:
    """What a task instance has left that may name its page: the XCom `page` first, then that key of its return value."""
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session

    with create_session() as session:
        query = XComModel.get_many(
            run_id=ti_key.run_id, dag_ids=ti_key.dag_id, task_ids=ti_key.task_id, map_indexes=ti_key.map_index
        )
        query = query.where(XComModel.key.in_([KEY, "return_value"]))
        found = dict(session.execute(query.with_only_columns(XComModel.key, XComModel.value)).tuples().all())
    # As JSON only: to deserialise what a task has left would be to build objects that it names.
    told = {key: _from_json(value) for key, value in found.items()}
    returned = told.get("return_value")
    return [told.get(KEY), returned.get(KEY) if isinstance(returned, dict) else None]


def _from_json(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _segments(path: str) -> list[str] | None:
    """The parts of the path of a page; None if it is not where pages are, or of another type."""
    segments = path.split("/")
    known = len(segments) > 1 and segments[0] in FOLDERS and Path(segments[-1]).suffix in TYPES
    return segments if known and all(SEGMENT.fullmatch(segment) for segment in segments) else None


def _read_local(root: Path, segments: list[str]) -> bytes | None:
    folder = root.resolve() / segments[0]
    try:
        file = folder.joinpath(*segments[1:]).resolve(strict=True)
        if not file.is_relative_to(folder) or file.suffix not in TYPES or not file.is_file():
            return None
        with open(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:  # noqa: PTH123
            state = os.fstat(opened.fileno())
            return opened.read() if stat.S_ISREG(state.st_mode) and state.st_size <= MAX_BYTES else None
    except (OSError, RuntimeError):
        return None


def _read_remote(root: str, segments: list[str]) -> bytes | None:
    """From an object store, by Airflow's own paths: with the provider and the connection of this process."""
    try:
        from airflow.sdk import ObjectStoragePath

        file = ObjectStoragePath(root).joinpath(*segments)
        content: bytes | None = file.read_bytes() if file.stat().st_size <= MAX_BYTES else None
        return content
    except FileNotFoundError:
        return None
    except Exception as error:
        log.exception("The report pages of %s cannot be read here.", root)
        raise Unreadable(
            f"The reports are kept at {root}, and this web server cannot read there ({type(error).__name__}; its log says more). "
            "It needs the Airflow provider of that store and a connection that may read; or open the report where it is kept."
        ) from error


def _starts(root: str) -> list[str]:
    """How the absolute path of a page may begin: the root as it is set, and without symbolic links."""
    root = root.removeprefix("file://")
    spelled = [root] if "://" in root else [root, str(Path(root).absolute()), str(Path(root).resolve())]
    return [f"{each.rstrip('/')}/" for each in spelled]


def _base_path() -> str:
    """Of a web server that is not at the root of its host."""
    from airflow.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback=None) or "").path.rstrip("/")


def _sentence(text: str) -> str:
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        "<title>Report</title><style>:root { color-scheme: light dark }</style>"
        '<body style="font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem">'
        f'<p>{html.escape(text)}</p><p><a href="{html.escape(_base_path())}/">To Airflow</a></p></body></html>'
    )
