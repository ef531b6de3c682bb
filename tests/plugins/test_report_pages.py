"""Report pages in Airflow: who sees them, what is never served, and where a task's link leads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from tests.conftest import ROOT

PAGE = "evaluations/flight_delays/partition_date=2013-04-01/0123456789abcdef/evaluation.html"


def put(folder: Path, path: str, content: str = "<p>report</p>") -> Path:
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    return file


@pytest.fixture(scope="module")
def visitors(plugin: ModuleType, airflow_database: None) -> Iterator[dict[str, TestClient]]:
    """The sub-application as Airflow mounts it, behind Airflow's own authentication: a stranger and a viewer."""
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser

    manager = create_auth_manager()
    manager.init()
    token = manager.generate_jwt(SimpleAuthManagerUser(username="vera", role="viewer"))
    app = FastAPI()
    (mounted,) = plugin.ReportPages().fastapi_apps
    app.mount(mounted["url_prefix"], mounted["app"])
    stranger, viewer = (TestClient(app, raise_server_exceptions=False) for _ in range(2))
    viewer.headers["Authorization"] = f"Bearer {token}"
    yield {"stranger": stranger, "viewer": viewer}


@pytest.fixture
def viewer(visitors: dict[str, TestClient]) -> TestClient:
    return visitors["viewer"]


def test_a_viewer_sees_pages_and_their_json(viewer: TestClient, lake: Path) -> None:
    put(lake, PAGE, "<p>größer</p>")
    put(lake, "validations/m/2013-04-01/ab/source.json", '{"a": 1}')
    page, data = viewer.get(f"/reports/{PAGE}"), viewer.get("/reports/validations/m/2013-04-01/ab/source.json")
    assert (page.status_code, page.text, page.headers["content-type"]) == (200, "<p>größer</p>", "text/html; charset=utf-8")
    assert (data.status_code, data.json(), data.headers["content-type"]) == (200, {"a": 1}, "application/json")


@pytest.mark.parametrize("path", [PAGE, "", "evaluations/", "docs", "openapi.json", "redoc", "%2e%2e/secret.html"])
def test_a_stranger_sees_nothing_and_is_told_to_log_in(visitors: dict[str, TestClient], lake: Path, path: str) -> None:
    put(lake, PAGE, "secret")
    answer = visitors["stranger"].get(f"/reports/{path}")
    assert answer.status_code == 401
    assert "Log in to Airflow" in answer.text and "secret" not in answer.text


def test_a_token_that_is_none_is_refused(visitors: dict[str, TestClient], lake: Path) -> None:
    put(lake, PAGE, "secret")
    answer = visitors["stranger"].get(f"/reports/{PAGE}", headers={"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."})
    assert answer.status_code in (401, 403) and "secret" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "evaluations/%2e%2e/ledger/secret.html",
        "evaluations/..%2fledger/secret.html",
        "evaluations/%252e%252e/ledger/secret.html",
        "evaluations/..\\ledger\\secret.html",
        "/evaluations/m/page.html",
        "evaluations//m/page.html",
        "evaluations/%2e/m/page.html",
        "evaluations/m/page.html%00.html",
        "evaluations/m/page.html/",
        "evaluations/.hidden/page.html",
        "evaluations/m/page.txt",
        "evaluations/m/page",
        "evaluations/m/page.HTML",
        "evaluations/m/page.svg",
        "evaluations/m",
        "evaluations",
        "ledger/secret.html",
        "secret.html",
        "evaluations/m/nothing.html",
        "evaluations/m/folder.html",
        "evaluations/m/pipe.html",
        "evaluations/m/" + "a" * 5000 + ".html",
    ],
)
def test_what_is_no_page_is_not_found(viewer: TestClient, lake: Path, path: str) -> None:
    for name in ("m/page.txt", "m/page", "m/page.HTML", "m/page.svg", ".hidden/page.html", "m/page.html"):
        put(lake / "evaluations", name, "secret")
    for name in ("ledger/secret.html", "secret.html"):
        put(lake, name, "secret")
    (lake / "evaluations" / "m" / "folder.html").mkdir()
    os.mkfifo(lake / "evaluations" / "m" / "pipe.html")
    answer = viewer.get(f"/reports/{path}")
    assert answer.status_code == 404 and "secret" not in answer.text


@pytest.mark.parametrize("leads_to", ["outside.html", "lake/ledger/secret.html", "lake/validations/m/page.html"])
def test_a_link_out_of_its_folder_is_not_followed(viewer: TestClient, lake: Path, tmp_path: Path, leads_to: str) -> None:
    target = put(tmp_path, leads_to, "secret")
    (lake / "evaluations" / "m").mkdir(parents=True)
    (lake / "evaluations" / "m" / "page.html").symlink_to(target)
    (lake / "evaluations" / "n").symlink_to(target.parent)
    for path in ("m/page.html", f"n/{target.name}"):
        assert viewer.get(f"/reports/evaluations/{path}").status_code == 404


def test_a_folder_of_pages_that_is_a_link_is_not_followed(viewer: TestClient, lake: Path, tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "m/page.html", "secret")
    lake.mkdir()
    (lake / "evaluations").symlink_to(tmp_path / "elsewhere")
    assert viewer.get("/reports/evaluations/m/page.html").status_code == 404


def test_a_lake_that_is_reached_by_a_link_is_served(
    viewer: TestClient, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, PAGE)
    (tmp_path / "link").symlink_to(lake)
    monkeypatch.setenv("AILERON_LAKE", str(tmp_path / "link"))
    assert viewer.get(f"/reports/{PAGE}").status_code == 200


def test_a_huge_file_is_not_read_into_memory(
    viewer: TestClient, lake: Path, plugin: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(lake, PAGE, "x" * 1001)
    monkeypatch.setattr(plugin, "MAX_BYTES", 1000)
    assert viewer.get(f"/reports/{PAGE}").status_code == 404


def test_a_page_can_run_load_and_send_nothing(visitors: dict[str, TestClient], lake: Path) -> None:
    put(lake, PAGE)
    answers = [
        visitors["viewer"].get(f"/reports/{PAGE}"),
        visitors["viewer"].get("/reports/nothing"),
        visitors["stranger"].get(f"/reports/{PAGE}"),
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 401]
    for answer in answers:
        policy = [part.strip() for part in answer.headers["content-security-policy"].split(";")]
        assert {"default-src 'none'", "style-src 'unsafe-inline'", "img-src data:", "sandbox"} <= set(policy)
        assert not any("script" in part or "allow-" in part for part in policy)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "private" in answer.headers["cache-control"]


def test_nothing_can_be_written(viewer: TestClient, lake: Path) -> None:
    file = put(lake, PAGE)
    for method in ("post", "put", "delete", "patch"):
        assert getattr(viewer, method)(f"/reports/{PAGE}").status_code == 405
    assert file.read_text() == "<p>report</p>"


def test_pages_may_be_elsewhere_than_the_lake(viewer: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "pages", PAGE, "here")
    monkeypatch.setenv("AILERON_PAGES", str(tmp_path / "pages"))
    assert viewer.get(f"/reports/{PAGE}").text == "here"


def test_pages_by_uri_are_read_through_airflow(viewer: TestClient, lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk import ObjectStoragePath
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", fs=MemoryFileSystem())
    monkeypatch.setenv("AILERON_PAGES", "memory://bucket/lake/")
    (ObjectStoragePath("memory://bucket/lake") / PAGE).write_text("remote")
    assert viewer.get(f"/reports/{PAGE}").text == "remote"
    assert viewer.get("/reports/evaluations/m/nothing.html").status_code == 404
    assert viewer.get("/reports/evaluations/%2e%2e/x.html").status_code == 404


def test_a_place_that_cannot_be_read_is_said(viewer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILERON_PAGES", "nosuchstore://bucket/<lake>")
    answer = viewer.get(f"/reports/{PAGE}")
    assert answer.status_code == 503
    assert "nosuchstore://bucket/&lt;lake&gt;" in answer.text and "cannot read there" in answer.text


@pytest.mark.parametrize(
    ("root", "page", "address"),
    [
        ("/lake", f"/lake/{PAGE}", f"/reports/{PAGE}"),
        ("/lake/", f"/lake/{PAGE}", f"/reports/{PAGE}"),
        ("/lake", f"file:///lake/{PAGE}", f"/reports/{PAGE}"),
        ("file:///lake", f"/lake/{PAGE}", f"/reports/{PAGE}"),
        ("s3://bucket/lake", f"s3://bucket/lake/{PAGE}", f"/reports/{PAGE}"),
        ("gs://bucket", f"gs://bucket/{PAGE}", f"/reports/{PAGE}"),
        ("s3://bucket/lake", f"s3://other/lake/{PAGE}", None),
        ("s3://bucket/lake", f"/lake/{PAGE}", None),
        ("/lake", f"/lakes/{PAGE}", None),
        ("/lake", f"/other/{PAGE}", None),
        ("/lake", PAGE, None),
        ("/lake", "/lake/evaluations/../ledger/x.html", None),
        ("/lake", "/lake/ledger/x.json", None),
        ("/lake", "/lake/evaluations/m/model.pkl", None),
        ("/lake", "https://example.com/evaluations/m/x.html", None),
        ("/lake", "javascript:alert(1)", None),
        ("/lake", "/lake/evaluations/m/x.html?a=b", None),
        ("/lake", "", None),
        ("/lake", None, None),
        ("/lake", 7, None),
        ("/lake", ["/lake/evaluations/m/x.html"], None),
    ],
)
def test_only_pages_below_the_root_have_an_address(
    plugin: ModuleType, monkeypatch: pytest.MonkeyPatch, root: str, page: Any, address: str | None
) -> None:
    monkeypatch.setenv("AILERON_LAKE", root)
    assert plugin.address_of(page) == address


def test_the_address_begins_where_airflow_is(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AILERON_LAKE", "/lake")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/team/airflow/")
    assert plugin.address_of(f"/lake/{PAGE}") == f"/team/airflow/reports/{PAGE}"


def test_without_settings_pages_are_where_the_local_lake_is(plugin: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AILERON_LAKE")
    from include.config import settings

    assert Path(plugin.pages_root()) == settings().lake


@pytest.fixture(scope="module")
def links(plugin: ModuleType, airflow_database: None) -> dict[tuple[str, int], str]:
    """The link of each task instance (task id, map index) of a real run of dags/reporting.py, with pages below /lake."""
    from airflow.dag_processing.dagbag import DagBag

    folder = Path(__file__).parent / "dags"
    bundle = {
        "name": "reporting",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder)},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
        patch.setenv("AILERON_LAKE", "/lake")
        bag = DagBag(str(folder), bundle_path=folder, bundle_name="reporting")
        assert bag.import_errors == {}
        run = bag.dags["reporting"].test(logical_date=datetime(2013, 4, 1, tzinfo=UTC))
        (link,) = plugin.ReportPages().global_operator_extra_links
        assert link.name == "Report"
        return {(ti.task_id, ti.map_index): link.get_link(None, ti_key=ti.key) for ti in run.get_task_instances()}


def test_the_link_leads_to_the_page_of_the_return_value(links: dict[tuple[str, int], str]) -> None:
    assert links["evaluated", -1] == "/reports/evaluations/m/None.html"


def test_a_task_that_failed_or_was_skipped_links_to_the_page_it_had_pushed(links: dict[tuple[str, int], str]) -> None:
    assert links["validate", -1] == "/reports/validations/m/failed.html"
    assert links["gate", -1] == "/reports/evaluations/m/held.html"


def test_each_mapped_task_has_its_own_page(links: dict[tuple[str, int], str]) -> None:
    assert [links["evaluate", number] for number in (0, 1)] == [f"/reports/evaluations/m/{number}.html" for number in (0, 1)]


def test_a_task_without_a_page_has_no_link(links: dict[tuple[str, int], str]) -> None:
    others = {task: link for (task, _), link in links.items() if task not in ("evaluated", "evaluate", "validate", "gate")}
    assert len(others) == 8 and not any(others.values())


def test_the_file_stands_alone_and_costs_other_components_nothing(tmp_path: Path) -> None:
    """Loaded from a folder without the repository, by Airflow, and without FastAPI, which only the web server needs."""
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "report_pages.py").write_bytes((ROOT / "plugins" / "report_pages.py").read_bytes())
    program = (
        "import sys\n"
        "from airflow.plugins_manager import _get_plugins, get_import_errors, get_global_operator_extra_links as links\n"
        "before = set(sys.modules)\n"
        "names = [plugin.name for plugin in _get_plugins()[0]]\n"
        "print(names.count('report_pages'), len(get_import_errors()), [link.name for link in links()])\n"
        "print(sorted({name.split('.')[0] for name in set(sys.modules) - before} & {'fastapi', 'starlette', 'include'}))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "AILERON_LAKE")}
    environment |= {"AIRFLOW__CORE__PLUGINS_FOLDER": str(tmp_path / "plugins")}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-2:] == ["1 0 ['Report']", "[]"]
