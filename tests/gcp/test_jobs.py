"""Jobs that are started once: all our operators, waiting and deferred, on a cloud that loses answers, stops jobs and kills."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from include.config import REPOSITORY, load_model
from include.platforms import costs
from include.platforms.base import JobFailed
from include.platforms.gcp import jobs, prices, requests, tables
from include.platforms.gcp.settings import GcpSettings
from tests.dag_runs import states
from tests.dags.lakes import MODEL
from tests.gcp.places import BUCKET, SERVICE_ACCOUNT
from tests.gcp.rooms import COLUMNS, FINDS, KINDS, LOOKS, OF_BIGQUERY, OF_VERTEX, RUN, STATES, Room, filled_cloud, room_on
from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud
from tests.remote_jobs import both_ways, context, failing, handed_over, triggered, until

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

STOPPED = r"(?i)stopped|cancelled"
KEY = "projects/local-project/locations/us/keyRings/ring/cryptoKeys/key"
NETWORK = {"network": "projects/123/global/networks/own", "subnetwork": "regions/us-central1/subnetworks/own"}

each_kind = pytest.mark.parametrize("kind", KINDS)
# Where what BigQuery is asked to do makes no difference.
each_operator = pytest.mark.parametrize("kind", ["query", *OF_VERTEX, "dataflow"])


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    cloud = filled_cloud(tmp_path_factory.mktemp("cloud"))
    yield cloud
    assert cloud.refused_hosts() == []
    cloud.stop()


@pytest.fixture
def room(cloud: GoogleCloud, quick_models: Path) -> Iterator[Room]:
    with room_on(cloud, quick_models) as room:
        yield room


@each_kind
@both_ways
def test_a_job_is_started_once_and_billed_once(room: Room, kind: str, deferrable: str) -> None:
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    first = room.tried(kind)
    assert room.tried(kind) == first, "tried again, what was done is found"
    assert room.states(kind) == ["Completed"] and len(room.starts(kind)) == 1
    (asked,), (paid,) = room.records("remote_job"), room.records("remote_cost")
    assert asked["job"] == paid["job"] == first["job"] and asked["run_id"] == "manual__jobs" and asked["estimate"] >= 0
    assert paid["seconds"] == first["seconds"] > 0 and paid["cost"] == pytest.approx(first["cost"], abs=1e-6)
    assert paid["prices"] == str(prices.book()["as_of"])
    if kind in ("load", "extract"):
        assert asked["estimate"] == paid["cost"] == 0


@each_operator
@both_ways
def test_a_job_that_runs_is_adopted(room: Room, kind: str, deferrable: str) -> None:
    """The worker is gone; the next one waits for the same job."""
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    room.fault("hang", kind)
    theirs = room.deferred(kind).serialize()[1]
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    again = room.operator(kind)
    if deferrable == "true":
        with pytest.raises(TaskDeferred) as deferred:
            again.execute(context())
        ours = deferred.value.trigger.serialize()[1]
        assert (ours["name"], ours["ref"]) == (theirs["name"], theirs["ref"])
    else:
        waiting = failing(again)
        assert until(lambda: bool(again.ref)) and waiting.is_alive()
    assert until(lambda: room.states(kind) == ["Running"])
    again.on_kill()
    if deferrable == "false":
        waiting.join(20)
        assert not waiting.is_alive()
    assert until(lambda: room.states(kind) == ["Stopped"]) and len(room.starts(kind)) == 1


@each_kind
@both_ways
@pytest.mark.parametrize("how", ["fail", "stop"])
def test_what_failed_or_was_stopped_is_no_success_and_is_tried_anew(room: Room, kind: str, deferrable: str, how: str) -> None:
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    room.fault(how, kind, reason="invalid: no such rows")
    with pytest.raises(JobFailed, match="no such rows" if how == "fail" else STOPPED):
        room.tried(kind)
    result = room.tried(kind)
    assert result["job"].endswith("-2")
    assert room.states(kind) == ["Failed" if how == "fail" else "Stopped", "Completed"]
    assert [paid["job"][-2:] for paid in room.records("remote_cost")] == ["-1", "-2"], "what failed was billed too"


@each_operator
def test_a_job_that_is_being_stopped_is_waited_for(room: Room, kind: str) -> None:
    """Its output must not come after that of the next: the new attempt is made when the old one is over."""
    running = "RUNNING" if kind in OF_BIGQUERY else "JOB_STATE_RUNNING"
    made = room.operator(kind)
    room.patch.setitem(STATES[kind], running, "stopping")
    room.fault("hang", kind)
    waited = failing(made)
    assert until(lambda: room.states(kind) == ["Running"])
    next_try = room.operator(kind)
    results: list[Any] = []
    second = threading.Thread(target=lambda: results.append(next_try.execute(context())))
    second.start()
    assert until(lambda: bool(next_try.ref)), "it has looked"
    assert room.states(kind) == ["Running"] and second.is_alive(), "nothing is started before the other is over"
    room.patch.setitem(STATES[kind], running, "running")
    made.on_kill()
    for thread in (waited, second):
        thread.join(30)
    assert room.states(kind) == ["Stopped", "Completed"] and results[0]["job"].endswith("-2")


@each_operator
def test_a_state_that_is_not_known_is_a_failure_and_starts_nothing(room: Room, kind: str) -> None:
    room.fault("hang", kind)
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    trigger = room.deferred(kind)
    for name in [name for name, state in STATES[kind].items() if state == "running"]:
        room.patch.delitem(STATES[kind], name)
    with pytest.raises(JobFailed, match="is not known; nothing was started"):
        room.tried(kind)
    with pytest.raises(JobFailed, match="is not known"):
        room.operator(kind).finish(context(), triggered(trigger).payload)
    assert len(room.started(kind)) == 1 and room.records("remote_cost") == []


@pytest.mark.parametrize("state", ["JOB_STATE_STOPPED", "JOB_STATE_RESOURCE_CLEANING_UP"])
def test_a_job_of_dataflow_that_waits_or_tidies_up_has_not_failed(state: str) -> None:
    """By Google's own words, stopped is what has "not yet started to run"."""
    assert jobs.DATAFLOW_STATES[state] == "running"


@each_kind
@both_ways
def test_an_answer_that_is_lost_does_not_start_a_second_job(room: Room, kind: str, deferrable: str) -> None:
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    room.fault("lose_response", kind)
    assert room.tried(kind)["job"].endswith("-1")
    assert room.states(kind) == ["Completed"] and len(room.records("remote_job")) == 1


@pytest.mark.parametrize("kind", [*OF_VERTEX, "dataflow"])
def test_a_call_that_makes_a_job_without_a_name_of_ours_is_made_once(room: Room, kind: str) -> None:
    """Asked twice, the service would run it twice: a library that asks again by itself knows no better."""
    room.fault("lose_response", kind, times=9)
    room.tried(kind)
    assert len(room.starts(kind)) == 1


@pytest.mark.parametrize("kind", [*OF_VERTEX, "dataflow"])
def test_a_job_that_was_accepted_after_its_worker_has_given_up_is_found_by_the_next_try(room: Room, kind: str) -> None:
    room.patch.setattr(jobs, "ACCEPTED_SECONDS", 0.5)
    room.fault("delay", kind, seconds=1.5)
    with pytest.raises(Exception, match=r"(?i)deadline|timed out"):
        room.tried(kind)
    assert until(lambda: room.states(kind) == ["Completed"])
    assert room.tried(kind)["job"].endswith("-1")
    assert room.states(kind) == ["Completed"]


@each_operator
@pytest.mark.parametrize("fault", ["throttle", "error"])
def test_a_service_that_is_busy_is_asked_again(room: Room, kind: str, fault: str) -> None:
    """What makes a job of Vertex AI or of Dataflow is asked once in a try: the task fails, and its next try asks."""
    more: dict[str, Any] = {"status": 503} if fault == "error" else {}
    room.fault(fault, kind, **more)
    room.fault(fault, kind, LOOKS[kind], **more)
    room.fault(fault, kind, FINDS[kind], **more)
    if kind not in OF_BIGQUERY:
        with pytest.raises(Exception, match=r"(?i)too many requests|asked for"):
            room.tried(kind)
        assert room.started(kind) == []
    assert room.tried(kind)["job"].endswith("-1")
    assert room.states(kind) == ["Completed"]


def test_dataflow_is_asked_by_many_at_once(room: Room) -> None:
    """A triggerer looks at many jobs, a worker is killed while it asks: a connection that they share gives one the answer of
    another, or none."""
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    room.fault("hang", "dataflow", times=4)
    requests_of = [{**room.request("dataflow"), "name": f"{room.request('dataflow')['name']}-{number}"} for number in range(4)]
    refs, wrong = [], []
    for request in requests_of:
        made = room.operator("dataflow", request)
        with pytest.raises(TaskDeferred):
            made.execute(context())
        refs.append(made.ref)
    client = jobs.client("dataflow")

    def look(ref: str) -> None:
        where = {"projectId": PROJECT, "location": REGION, "jobId": ref}
        for _ in range(8):
            try:
                if client.projects().locations().jobs().get(**where).execute()["id"] != ref:
                    wrong.append(f"another than {ref}")
            except Exception as error:
                wrong.append(repr(error))

    threads = [threading.Thread(target=look, args=(ref,)) for ref in refs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for ref in refs:
        jobs.KINDS["dataflow"].stop(client, ref)
    assert wrong == [] and not any(thread.is_alive() for thread in threads)


def test_what_dataflow_cannot_say_is_not_taken_for_nothing(room: Room) -> None:
    made, asked = room.operator("dataflow"), mock.MagicMock()
    jobs_of = asked.projects().locations().jobs()
    jobs_of.list().execute.return_value = {"failedLocation": [{"name": REGION}]}
    made.client = asked
    with pytest.raises(JobFailed, match="cannot say whether there is such a job; nothing was started"):
        made.execute(context())
    first = {"id": "1", "currentState": "JOB_STATE_DONE", "createTime": "2026-01-01T00:00:00Z"}
    jobs_of.list().execute.return_value = {"nextPageToken": "1"}
    jobs_of.list_next.side_effect = [mock.Mock(**{"execute.return_value": {"jobs": [first]}}), None]
    ref, found = made._find("any")
    assert (ref, found.state) == ("1", "succeeded"), "it is on the second page"
    assert room.started("dataflow") == []


@each_kind
def test_a_task_that_is_killed_stops_its_job(room: Room, kind: str) -> None:
    room.fault("hang", kind)
    made = room.operator(kind)
    task = failing(made)
    assert until(lambda: room.states(kind) == ["Running"])
    made.on_kill()
    task.join(20)
    assert not task.is_alive() and room.states(kind) == ["Stopped"]
    assert [job["stops"] for job in room.started(kind)] == [1]
    made.on_kill()  # it is over already
    assert [job["stops"] for job in room.started(kind)] == [1]


@each_operator
def test_a_task_that_is_killed_while_deferred_stops_its_job(room: Room, kind: str) -> None:
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    room.fault("hang", kind)
    trigger = room.deferred(kind)
    asyncio.run(handed_over(trigger).on_kill())
    assert until(lambda: room.states(kind) == ["Stopped"])
    with pytest.raises(JobFailed, match=STOPPED):
        room.operator(kind).finish(context(), triggered(trigger).payload)
    asyncio.run(handed_over(trigger).on_kill())  # cleared once more, it is over already
    assert [job["stops"] for job in room.started(kind)] == [1]


@each_operator
@both_ways
def test_a_job_that_takes_too_long_is_stopped_and_the_task_fails(room: Room, kind: str, deferrable: str) -> None:
    """Its own limit, where it has one, is an hour: it is ours that is over."""
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    room.fault("hang", kind)
    made = room.operator(kind)
    room.patch.setattr(GcpSettings, "most_seconds", 1)
    began = time.monotonic()
    with pytest.raises(JobFailed, match=STOPPED):
        room.ends(made)
    assert time.monotonic() - began < 15 and room.states(kind) == ["Stopped"]
    assert room.started(kind)[0]["stops"] >= 1


@pytest.mark.parametrize("kind", [*OF_BIGQUERY, "custom"])
def test_a_job_that_nobody_looks_after_is_stopped_by_its_own_limit(room: Room, kind: str) -> None:
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    room.patch.setattr(GcpSettings, "most_seconds", 1)
    room.fault("hang", kind)
    room.deferred(kind)
    assert until(lambda: room.states(kind) == ["Stopped"])
    assert room.started(kind)[0]["stops"] == 0


@each_operator
def test_a_trigger_that_cannot_reach_the_service_gives_the_task_back(room: Room, kind: str) -> None:
    """The task fails in its worker, where it is tried again; the job goes on, and is adopted when the service is back."""
    room.patch.setattr(jobs, "PATIENCE", 0.5)
    room.patch.setattr(jobs, "TRIES", 0)
    room.patch.setenv("AILERON_GCP_DEFERRABLE", "true")
    room.fault("hang", kind)
    trigger = room.deferred(kind)
    room.fault("error", kind, LOOKS[kind], times=1000, status=503)
    event = triggered(trigger)
    assert "could not be asked" in event.payload["told"]
    with pytest.raises(Exception, match=r"(?i)asked for|503"):
        room.operator(kind).finish(context(), event.payload)
    assert room.states(kind) == ["Running"] and room.records("remote_cost") == []
    room.place.cloud.forget_faults()
    again = room.deferred(kind)
    assert again.serialize()[1]["ref"] == trigger.serialize()[1]["ref"]
    asyncio.run(handed_over(again).on_kill())
    assert until(lambda: room.states(kind) == ["Stopped"])


@each_operator
def test_a_job_that_would_cost_too_much_is_not_submitted(room: Room, kind: str) -> None:
    """A query by a dry run, which is free; machines by the price book."""
    room.patch.setenv("AILERON_GCP_MAX_JOB_COST", "0")
    made = room.operator(kind)
    room.place.cloud.forget_calls()
    with pytest.raises(costs.TooExpensive, match="it was not submitted"):
        made.execute(context())
    assert room.records("remote_job") == room.records("remote_cost") == room.started(kind) == []
    assert [call["operation"] for call in room.place.cloud.calls(mutating=True)] == []


@pytest.mark.parametrize("kind", ["load", "extract"])
def test_what_is_free_is_never_too_expensive(room: Room, kind: str) -> None:
    room.patch.setenv("AILERON_GCP_MAX_JOB_COST", "0")
    assert room.tried(kind)["cost"] == 0


def test_the_estimate_of_a_query_is_what_it_will_read(room: Room) -> None:
    estimate = room.operator("query")._estimate()
    assert estimate == prices.billed(40 * len("plain") + 40 * 2)
    assert room.started("query") == [], "a dry run is no job"


@pytest.mark.parametrize(("kind", "variable"), [("custom", "MACHINE"), ("batch", "MACHINE"), ("dataflow", "DATAFLOW_MACHINE")])
def test_a_machine_without_a_price_is_not_rented(room: Room, kind: str, variable: str) -> None:
    room.patch.setenv(f"AILERON_GCP_{variable}", "x99-huge")
    with pytest.raises(costs.TooExpensive, match="not in the price book"):
        room.tried(kind)
    assert room.started(kind) == []


def test_machines_are_paid_for_one_and_all(room: Room) -> None:
    hour = prices.hourly("vertex", "n1-standard-4")
    room.patch.setenv("AILERON_GCP_REPLICAS", "3")
    assert room.operator("batch")._estimate() == pytest.approx(3 * hour * costs.EXPECTED_SECONDS / 3600)
    result = room.tried("batch")
    assert result["cost"] == pytest.approx(3 * hour * result["seconds"] / 3600)
    room.patch.setenv("AILERON_GCP_DATAFLOW_WORKERS", "4")
    workers = room.operator("dataflow")._estimate()
    assert workers == pytest.approx(4 * prices.hourly("dataflow", "n1-standard-1") * costs.EXPECTED_SECONDS / 3600)


def test_what_past_jobs_took_is_the_estimate_of_the_next(room: Room) -> None:
    assert costs.expected_seconds(MODEL, "custom") == costs.EXPECTED_SECONDS
    room.tried("custom")
    assert 0 < costs.expected_seconds(MODEL, "custom") < 60


def test_a_query_that_is_billed_for_more_than_is_allowed_fails(room: Room) -> None:
    room.patch.setenv("AILERON_GCP_MAX_QUERY_GB", "0.0000001")
    with pytest.raises(JobFailed, match="limit for bytes billed: 100"):
        room.tried("query")
    assert room.states("query") == ["Failed"]


@each_operator
def test_what_a_job_builds_on_was_made_again_so_it_is_another_job(room: Room, kind: str) -> None:
    request = room.request(kind)
    first = room.ends(room.operator(kind, request, after=["one"]))
    assert room.ends(room.operator(kind, request, after=["one"]))["job"] == first["job"]
    assert room.ends(room.operator(kind, request, after=["two"]))["job"] != first["job"]


@each_operator
def test_nothing_to_do_is_skipped(room: Room, kind: str) -> None:
    made = room.operator(kind)
    made.request = {}
    with pytest.raises(AirflowSkipException):
        made.execute(context())


@pytest.mark.parametrize("how", ["query", "load"])
def test_a_table_that_is_gone_is_made_again(room: Room, how: str) -> None:
    """A job that has succeeded does not bring back what it has made."""
    table = f"{room.place.name}_made_{RUN['workspace']}"
    if how == "query":
        model, sql = load_model(MODEL), f"SELECT flight_id FROM {tables.named('rows')}"
        request = requests.query(model, how, RUN, requests.create_as(model, RUN, table, sql), {}, room.place.lake, table)
    else:
        columns = COLUMNS
        request = requests.load(load_model(MODEL), how, RUN, f"gs://{BUCKET}/rows/*", table, columns, room.place.lake)
    first = room.ends(room.operator(how, request))
    assert room.ends(room.operator(how, request)) == first
    tables.forget(table)
    second = room.ends(room.operator(how, request))
    assert second["job"].endswith("-2")
    assert room.place.ask(f"SELECT COUNT(DISTINCT flight_id) FROM {tables.named(table)}") == [(40,)]


@both_ways
@pytest.mark.parametrize("rows", ["poisoned", "hardly_poisoned"])
def test_rows_that_were_not_scored_are_no_success(room: Room, deferrable: str, rows: str) -> None:
    """Vertex AI calls a job that has lost few of its rows a partial success."""
    room.patch.setenv("AILERON_GCP_DEFERRABLE", deferrable)
    with pytest.raises(JobFailed, match=r"(?s)\d+ of 40 instances failed|64 rows were not scored.*poison is no number"):
        room.ends(room.operator("batch", room.scoring(rows)))
    assert room.states("batch") == ["Failed" if rows == "poisoned" else "Completed"]
    assert len(room.records("remote_cost")) == 1, "it is paid for all the same"


@pytest.mark.parametrize(("failed", "incomplete"), [(2, 0), (0, 3), (1, -1)])
def test_a_success_that_has_not_scored_all_rows_is_none(failed: int, incomplete: int) -> None:
    """-1: Vertex AI does not know how many."""
    from google.cloud.aiplatform_v1 import BatchPredictionJob, JobState

    counts = {"successful_count": 9, "failed_count": failed, "incomplete_count": incomplete}
    found = jobs._vertex(BatchPredictionJob(state=JobState.JOB_STATE_SUCCEEDED, completion_stats=counts))
    assert found.state == "failed" and "rows were not scored" in found.told


def test_a_prediction_says_where_its_answers_are(room: Room) -> None:
    result = room.tried("batch")
    table = tables.checked(result["output"])
    assert table.endswith(f"_scores_{result['job'].replace('-', '_')}")
    found = dict(room.place.ask(f"SELECT flight_id, prediction FROM `{table}` WHERE distance < 3"))
    assert found == {"1": "101", "2": "102"}, "the key and the day were no features"


@pytest.mark.parametrize("kind", ["extract", "custom", "batch", "dataflow"])
def test_an_output_is_of_its_attempt(room: Room, kind: str) -> None:
    room.fault("fail", kind)
    with pytest.raises(JobFailed):
        room.tried(kind)
    result = room.tried(kind)
    assert (result["job"].replace("-", "_") if kind == "batch" else result["job"]) in result["output"]
    if kind == "extract":
        assert [name for name in room.place.keys("staging") if name.endswith(".parquet")]
        assert all(f"/{result['job']}/" in name for name in room.place.keys("staging"))


@each_kind
def test_every_request_has_labels_a_key_a_network_and_a_time_limit(room: Room, kind: str) -> None:
    """Batch predictions and jobs of Dataflow have no limit of their own: whoever waits for them stops them. An extract encrypts
    as its bucket does."""
    for name, value in {"kms_key": KEY, "cost_center": "CC 1", **NETWORK}.items():
        room.patch.setenv(f"AILERON_GCP_{name.upper()}", value)
    result = room.tried(kind)
    (asked,) = [call["params"] for call in room.starts(kind)]
    told = {
        "custom": lambda: asked["custom_job"],
        "batch": lambda: asked["batch_prediction_job"],
        "dataflow": lambda: asked["body"]["launchParameter"]["environment"],
    }.get(kind, lambda: asked["body"]["configuration"])()
    labels = told["additionalUserLabels" if kind == "dataflow" else "labels"]
    owner = load_model(MODEL).owner.team.replace(" ", "_").lower()
    assert labels == {
        "owner": owner,
        "model": MODEL,
        "run": "manual__jobs",
        "environment": labels["environment"],
        "cost-center": "cc_1",
    }
    if kind in OF_BIGQUERY:
        assert told["jobTimeoutMs"] == "3600000" and asked["body"]["jobReference"]["jobId"] == result["job"]
        keys = told[kind].get("destinationEncryptionConfiguration", {}).get("kmsKeyName")
        assert keys == (None if kind == "extract" else KEY)
    if kind == "query":
        assert told["query"]["maximumBytesBilled"] == str(10**12)
    if kind in OF_VERTEX:
        assert told["encryption_spec"] == {"kms_key_name": KEY} and told["display_name"] == result["job"]
    if kind == "custom":
        spec = told["job_spec"]
        assert spec["scheduling"]["timeout"] == "3600s" and spec["network"] == NETWORK["network"]
        assert spec["service_account"] == SERVICE_ACCOUNT
    if kind == "batch":
        assert told["service_account"] == SERVICE_ACCOUNT
    if kind == "dataflow":
        assert told["kmsKeyName"] == KEY and told["serviceAccountEmail"] == SERVICE_ACCOUNT and told["maxWorkers"] == 2
        assert told["subnetwork"] == NETWORK["subnetwork"] and told["ipConfiguration"] == "WORKER_IP_PRIVATE"
    assert room.started(kind)[0]["tags"] in ({}, labels)


@each_kind
def test_a_request_with_a_member_that_the_service_does_not_know_is_refused(room: Room, kind: str) -> None:
    request = room.request(kind)
    part = {"dataflow": "launch"}.get(kind, "configuration" if kind in OF_BIGQUERY else "config")
    request[part] = {**request[part], "surprising": 1}
    with pytest.raises(Exception, match="surprising"):
        room.ends(room.operator(kind, request))
    assert room.started(kind) == []


def test_after_too_many_failures_a_person_is_asked(room: Room) -> None:
    room.patch.setattr("include.platforms.remote_jobs.MOST_ATTEMPTS", 2)
    room.fault("fail", "custom", times=9)
    for _ in range(2):
        with pytest.raises(JobFailed, match="has not succeeded"):
            room.tried("custom")
    with pytest.raises(JobFailed, match="2 attempts have failed; find out why"):
        room.tried("custom")
    assert len(room.started("custom")) == 2


def test_a_quick_job_runs_once(room: Room) -> None:
    """The job that publishes runs inside a task."""
    name = f"quick-{room.place.name}".replace("_", "-")
    configuration = room.request("query")["configuration"]
    room.place.cloud.fault("fail", "bigquery", "jobs.insert", match=name, reason="invalid: not now")
    with pytest.raises(JobFailed, match="not now"):
        jobs.run_once(name, configuration)
    room.place.cloud.fault("lose_response", "bigquery", "jobs.insert", match=name)
    for _ in range(2):
        jobs.run_once(name, configuration)
    assert [job["state"] for job in room.place.cloud.jobs() if job["name"].startswith(name)] == ["Failed", "Completed"]


def test_a_worker_that_dies_when_its_job_was_accepted_leaves_it_to_the_next(room: Room) -> None:
    request = room.request("custom")
    with subprocess.Popen(
        [sys.executable, "-m", "tests.gcp.one_try", "custom"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as worker:
        room.fault("kill", "custom", pid=worker.pid, when="after")
        worker.communicate(json.dumps(request), timeout=60)
    assert worker.returncode == -signal.SIGKILL
    assert room.tried("custom")["job"].endswith("-1")
    assert room.states("custom") == ["Completed"] and len(room.starts("custom")) == 1


def test_a_task_that_airflow_ends_stops_its_job_and_its_retry_makes_another(room: Room, airflow_database: None) -> None:
    """As Airflow does it: SIGTERM, and another try."""
    folder = Path(__file__).parent / "dags"
    bundle = {"name": "jobs", "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle", "kwargs": {"path": str(folder)}}
    room.patch.setenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", json.dumps([bundle]))
    room.fault("hang", "custom")
    request, before = room.request("custom"), signal.getsignal(signal.SIGTERM)

    def end() -> None:
        if until(lambda: room.states("custom") == ["Running"], 60):
            os.kill(os.getpid(), signal.SIGTERM)

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    try:
        dag = DagBag(str(folder), bundle_path=folder, bundle_name="jobs").dags["remote_google_job"]
        run = dag.test(run_conf={"request": request})
    finally:
        ending.join(60)
        signal.signal(signal.SIGTERM, before)
    assert run.state == "success", states(run)
    assert room.states("custom") == ["Stopped", "Completed"] and room.started("custom")[0]["stops"] == 1
    assert run.get_task_instance("job").xcom_pull(task_ids="job")["job"].endswith("-2")
