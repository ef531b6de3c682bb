"""What a person with no more than the right to trigger may try, against every DAG and every param there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from re import fullmatch
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.exceptions import AirflowException
from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.sdk.exceptions import ParamValidationError
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.session import create_session
from sqlalchemy import select

from include import ledger
from tests.dag_runs import ROOT, run_dag, states
from tests.dags.lakes import ARRIVALS, LABEL, MODEL, MONITOR, PREDICT, ROLLBACK, TRAIN, live_file, rows, visible
from tests.test_partitions import HOSTILE

DAY = "2013-02-04"
CANARY = "/tmp/aileron_was_here"
TEXTS = [
    f"2013-02-04'); COPY (SELECT 1) TO '{CANARY}'; --",
    f"$(touch {CANARY})",
    f"; touch {CANARY} #",
    f"`touch {CANARY}`",
    f"2013-02-04\ntouch {CANARY}",
    "{{ dag_run.conf }}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ var.value.get('secret') }}",
    "{% for name in conn %}{{ name }}{% endfor %}",
    "file:///etc/passwd",
    "//evil.example.com/share",
    "..",
    # The right day, written so that it is none.
    "20130204",
    "2013-W06-1",
    "2013-02-04T00:00:00",
    "2013-02-04 ",
    "２０１３-02-04",
    "2013-02-04/..",
    "2013-02-04\x00",
    "\u202e2013-02-04",
    "<script>alert(1)</script>",
    "champion'; DROP TABLE registered_models; --",
]
NUMBERS = [float("nan"), float("inf"), float("-inf"), 10**30, -1, 1e308, True, 0]
NESTED = [
    [],
    {},
    [["2013-02-04"]],
    {"a": {"b": [{"c": "{{ conf }}"}]}},
    {"$ref": "file:///etc/passwd"},
    ["2013-02-04", "2013-02-05"],
]
PAYLOADS: list[Any] = [value for value in [*HOSTILE, *TEXTS, *NUMBERS, *NESTED] if value is not None]
UNDECLARED = ("lake", "table", "sql", "model", "threshold", "max_quarantine_share", "run_id", "marker", "__class__", "partition ")
# What the params that are not under attack say, so that nothing else is a reason to refuse.
RIGHT = {
    PREDICT: {"partition": DAY},
    TRAIN: {"as_of": "2013-02-01"},
    ROLLBACK: {"why": "it is worse"},
    MONITOR: {"partition": DAY},
    LABEL: {"request": f"{DAY}.v00001"},
}


@pytest.fixture(scope="module")
def dags(airflow_database: None) -> dict[str, Any]:
    """Those of one model (another model's are made by the same code), as the API server has them: serialized."""
    found = DagBag(str(ROOT / "dags"), bundle_path=ROOT / "dags", bundle_name="dags-folder").dags
    of_one = {dag_id: dag for dag_id, dag in found.items() if dag_id.endswith(MODEL)}
    return {dag_id: DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)) for dag_id, dag in of_one.items()}


@pytest.fixture
def landed(lake: Path) -> Path:
    """An empty lake where one partition has landed, so that no run waits."""
    marker = lake / "source" / "flights" / f"partition_date={DAY}" / "_SUCCESS"
    marker.parent.mkdir(parents=True)
    marker.touch()
    return lake


@pytest.fixture(autouse=True)
def nothing_happened(tmp_path: Path) -> Iterator[None]:
    """Afterwards: nothing outside of the lake, and no payload in a path."""
    Path(CANARY).unlink(missing_ok=True)
    yield
    assert not Path(CANARY).exists()
    assert {path.name for path in tmp_path.iterdir()} <= {"lake"}
    paths = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")]
    texts = [
        text
        for payload in PAYLOADS
        for text in _texts(payload)
        if len(text.strip("./ ")) > 1 and not fullmatch(r"2013-?\d\d-?\d\d", text)
    ]
    assert [path for path in paths for text in texts if text in path] == []


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: repr(payload)[:40])
def test_no_param_takes_it(dags: dict[str, Any], landed: Path, payload: Any) -> None:
    tried = 0
    assert {dag_id for dag_id, dag in dags.items() if dag.params} == set(RIGHT), "say in RIGHT what a new DAG is asked rightly"
    for dag_id, dag in dags.items():
        for name in dag.params:
            if dag.params.get_param(name).schema.get("type") == "boolean" and isinstance(payload, bool):
                continue  # not hostile here
            tried += 1
            assert_refused(dag, {**RIGHT[dag_id], name: payload}, payload, landed)
    assert tried >= 4


@pytest.mark.parametrize("name", UNDECLARED)
def test_a_key_that_is_not_declared_is_refused(dags: dict[str, Any], landed: Path, name: str) -> None:
    for dag_id, right in RIGHT.items():
        assert_refused(dags[dag_id], {**right, name: TEXTS[0]}, TEXTS[0], landed)


def test_a_dag_without_a_form_listens_to_nothing(dags: dict[str, Any], landed: Path) -> None:
    formless = [dag_id for dag_id, dag in dags.items() if not dag.params]
    assert formless == [ARRIVALS]
    for dag_id in formless:
        run = run_dag(dag_id, conf=dict.fromkeys((*UNDECLARED, *RIGHT[PREDICT], *RIGHT[TRAIN]), TEXTS[0]))
        assert run.state == "success"
        assert_no_trace(run, TEXTS[0], landed)


@pytest.mark.parametrize(
    "key", [payload for payload in [*HOSTILE, *TEXTS] if isinstance(payload, str)], ids=lambda key: repr(key)[:40]
)
def test_no_partition_key_but_a_day(dags: dict[str, Any], landed: Path, key: str) -> None:
    try:
        run = run_dag(PREDICT, partition=key)
    except (AirflowException, ValueError) as error:
        assert "partition_key" in str(error), error
    else:
        assert states(run)["resolve_partition"] == "failed" and set(states(run).values()) == {"failed", "upstream_failed"}
        assert_no_trace(run, key, landed)


@pytest.mark.parametrize("key", ["../../etc", "2013-02-04/..", "x'; DROP TABLE y; --", "{{ conf }}", "20130204"])
def test_no_partition_is_monitored_but_a_day(dags: dict[str, Any], landed: Path, key: str) -> None:
    run = run_dag(MONITOR, partition=key)
    assert states(run)["find_publication"] == "failed", states(run)
    assert_no_trace(run, key, landed)


@pytest.mark.parametrize("dag_id", [TRAIN, ARRIVALS, ROLLBACK, LABEL])
def test_no_partition_key_where_there_is_none(airflow_database: None, dag_id: str) -> None:
    with pytest.raises(ValueError, match="not a partitioned Dag"):
        run_dag(dag_id, partition=DAY)


@pytest.mark.parametrize("run_id", ["..", "manual__../../x", "a..b", "x/y", "x y", "{{ conf }}", "$(reboot)", "x'--", "\u202ex"])
def test_no_run_id_that_climbs(airflow_database: None, run_id: str) -> None:
    with pytest.raises(ValueError, match="run_id"):
        run_dag(PREDICT, run_id=run_id)


def test_an_odd_run_id_is_data_and_no_part_of_a_path(published: Path) -> None:
    odd = "~root:-rf+.ssh"
    run = run_dag(PREDICT, conf={"partition": DAY}, run_id=odd)
    assert run.state == "success", states(run)
    assert set(rows(live_file(published, DAY), "run_id")) == {(odd,)}
    assert [str(path) for path in published.rglob("*") if "ssh" in path.name or "root" in path.name] == []


def test_what_a_caller_says_of_itself_is_not_believed(published: Path) -> None:
    run = run_dag(PREDICT, conf={"partition": DAY, "origin": "<script>", "openlineage": {"x": TEXTS[0]}})
    assert run.state == "success", states(run)
    (record,) = ledger.read("publication", MODEL, prefix=f"{DAY}.")
    assert record.body["origin"] == "manual" and TEXTS[0] not in json.dumps(record.body)


def assert_refused(dag: Any, conf: dict[str, Any], payload: Any, lake: Path) -> None:
    """By the form, which Airflow checks whoever starts the run, or else by the first task."""
    try:
        dag.params.deep_merge(conf).validate()
    except ParamValidationError:
        return
    run = run_dag(dag.dag_id, conf=conf)
    first = [task.task_id for task in dag.tasks if not task.upstream_task_ids]
    found = states(run)
    assert [found[task] for task in first] == ["failed"] and set(found.values()) == {"failed", "upstream_failed"}, (conf, found)
    assert_no_trace(run, payload, lake)


def assert_no_trace(run: DagRun, payload: Any, lake: Path) -> None:
    """Nothing published, nothing asked for, and no template of the run has what the caller said."""
    assert visible(lake) == {} and not (lake / "staging").exists() and not (lake / "ledger").exists()
    with create_session() as session:
        started = select(RenderedTaskInstanceFields).where(RenderedTaskInstanceFields.run_id == run.run_id)
        rendered = [fields.rendered_fields for fields in session.scalars(started)]
    assert rendered, "no template was rendered: this looks at nothing"
    for text in _texts(payload):
        if len(text) > 2:
            assert text not in _texts_of(rendered), (run.dag_id, text)


def _texts_of(value: Any) -> str:
    return "\n".join(_texts(value))


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for item in value.items() for part in item for text in _texts(part)]
    if isinstance(value, list | tuple):
        return [text for item in value for text in _texts(item)]
    return []
