"""Jobs of Google Cloud that are started once: operators of the Google provider, except for what a retry does.

See `platforms.remote_jobs`. BigQuery takes our names for its jobs, so the same name is never two jobs. Vertex AI and Dataflow
give names of their own: ours is what they display, by which a job is found again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar

from airflow.providers.google.cloud.hooks.bigquery import BigQueryHook
from airflow.providers.google.cloud.hooks.dataflow import DataflowHook
from airflow.providers.google.cloud.links.bigquery import BigQueryJobDetailLink
from airflow.providers.google.cloud.links.dataflow import DataflowJobLink
from airflow.providers.google.cloud.links.vertex_ai import VertexAIBatchPredictionJobLink
from airflow.providers.google.cloud.operators.bigquery import BigQueryInsertJobOperator
from airflow.providers.google.cloud.operators.cloud_base import GoogleCloudBaseOperator
from airflow.providers.google.cloud.operators.dataflow import DataflowStartFlexTemplateOperator
from airflow.sdk.definitions.xcom_arg import XComArg
from google.api_core.exceptions import Conflict, NotFound, from_http_response
from google.api_core.retry import Retry
from google.auth.transport.requests import AuthorizedSession
from google.cloud.bigquery import DEFAULT_RETRY, QueryJobConfig
from googleapiclient.errors import HttpError

from include.config import ModelConfig
from include.model_task import Read
from include.platforms.base import JobFailed
from include.platforms.gcp import prices, tables
from include.platforms.gcp.clients import client
from include.platforms.gcp.settings import gcp, terms
from include.platforms.remote_jobs import MOST_ATTEMPTS, Found, Kind, RemoteJob, State, Terms, filled, known_state

QUICK_POLL = 0.5  # seconds
# How long a service that is busy is asked again whether it has a job, and how it does: seconds, and for Dataflow tries more.
PATIENCE, TRIES = 60, 3
LAUNCHES = "https://dataflow.googleapis.com/v1b3"
ACCEPTED_SECONDS = 60.0  # that a job of Vertex AI or Dataflow may take to be accepted


class _GoogleJob(RemoteJob):
    cloud = "gcp"

    @staticmethod
    def terms() -> Terms:
        return terms()


class BigQueryJob(_GoogleJob, BigQueryInsertJobOperator):
    """A query, or a load, an extract or a copy of tables. `request` may name the table that the job makes: if it is gone, what
    is left of a job that has succeeded is of no use, and a new attempt is made."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    operator_extra_links = (BigQueryJobDetailLink(),)  # type: ignore[assignment]
    kind = "bigquery"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(configuration={}, gcp_conn_id=gcp().connection, deferrable=False, force_rerun=False, **arguments)
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        ref, found = super()._find(name)
        request: Any = self.request
        if found.state == "succeeded" and request.get("table") and not tables.exists(request["table"]):
            return ref, Found("failed", "the table that it made is gone", found.seconds, found.cost)
        return ref, found

    def _start(self, context: Any) -> str:
        request: Any = self.request
        self.configuration = filled(request["configuration"], self.name)
        where = {"project_id": gcp().project, "location": gcp().location}
        try:
            BigQueryHook(gcp_conn_id=self.gcp_conn_id).insert_job(
                configuration=self.configuration, job_id=self.name, nowait=True, **where
            )
        except Conflict:
            self.log.info("%s was accepted before, but the answer was lost", self.name)
        BigQueryJobDetailLink.persist(context=context, job_id=self.name, **where)
        return self.name

    def _estimate(self) -> float:
        """By a dry run, which is free. Loads, extracts and copies cost nothing."""
        request: Any = self.request
        if "query" not in request["configuration"]:
            return 0.0
        configuration = filled(request["configuration"], self.name)
        config = QueryJobConfig.from_api_repr({**configuration, "dryRun": True})
        return prices.billed(self.client.query(configuration["query"]["query"], job_config=config).total_bytes_processed or 0)


def run_once(name: str, configuration: Mapping[str, Any]) -> None:
    """A quick job of BigQuery, inside a task. One of this name that runs is waited for, and one that has succeeded is not
    repeated; after one that has failed there is another attempt.

    Raises:
        JobFailed: if it fails.
    """
    asked = client("bigquery")
    for attempt in range(1, MOST_ATTEMPTS + 1):
        numbered = f"{name}-{attempt}"
        found = _look_at_query(asked, numbered)
        if found.state == "failed":
            continue
        if found.state == "absent":
            with suppress(Conflict):  # accepted before, but the answer was lost
                BigQueryHook(gcp_conn_id=gcp().connection).insert_job(
                    configuration=dict(configuration),
                    job_id=numbered,
                    project_id=gcp().project,
                    location=gcp().location,
                    nowait=True,
                )
        while (found := _look_at_query(asked, numbered)).state == "running":
            time.sleep(QUICK_POLL)
        if found.state != "succeeded":
            raise JobFailed(f"{numbered} has not succeeded: {found.state}: {found.told}")
        return
    raise JobFailed(f"{name}: {MOST_ATTEMPTS} attempts have failed; find out why before this task is cleared")


class _VertexJob(_GoogleJob, GoogleCloudBaseOperator):
    """Vertex does not know two jobs of one name from each other, so a call that makes one is never repeated.

    Not from the provider's operators of Vertex AI: they import its whole SDK, seven seconds of a core at each parse.
    """

    listed: ClassVar[str]  # the method that lists jobs of this kind

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(**arguments)
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        asked = {"parent": gcp().parent, "filter": f'display_name="{name}"'}
        jobs = sorted(getattr(self.client, self.listed)(request=asked, **_again()), key=lambda job: job.create_time)
        return (jobs[0].name, self._with_price(_vertex(jobs[0]))) if jobs else ("", Found("absent"))

    def _start(self, context: Any) -> str:
        request: Any = self.request
        told = {**filled(request["config"], self.name), "display_name": self.name}
        try:
            return str(self._create(told).name)
        except Exception:
            ref, found = self._find(self.name)
            if found.state == "absent":
                raise
            self.log.info("%s was accepted, but the answer was lost", self.name)
            return ref

    def _create(self, told: dict[str, Any]) -> Any:
        raise NotImplementedError

    def _price(self) -> float:
        request: Any = self.request
        return prices.hourly("vertex", request["machine"]) * request["replicas"]


class CustomJob(_VertexJob):
    """A container that Vertex AI runs to its end. The provider has operators for training pipelines only, which cannot be given
    a time limit."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind, listed = "custom", "list_custom_jobs"

    def _create(self, told: dict[str, Any]) -> Any:
        return self.client.create_custom_job(parent=gcp().parent, custom_job=told, retry=None, timeout=ACCEPTED_SECONDS)


class BatchPrediction(_VertexJob):
    """A batch prediction from a table of BigQuery to another. The provider's operator cannot say which columns are features: it
    knows no `instance_config`."""

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    operator_extra_links = (VertexAIBatchPredictionJobLink(),)
    kind, listed = "batch", "list_batch_prediction_jobs"

    @property
    def extra_links_params(self) -> dict[str, Any]:
        return {"region": gcp().region, "project_id": gcp().project}

    def _start(self, context: Any) -> str:
        ref = super()._start(context)
        VertexAIBatchPredictionJobLink.persist(context=context, batch_prediction_job_id=ref.rpartition("/")[2])
        return ref

    def _create(self, told: dict[str, Any]) -> Any:
        return self.client.create_batch_prediction_job(
            parent=gcp().parent, batch_prediction_job=told, retry=None, timeout=ACCEPTED_SECONDS
        )

    def finish(self, context: Any, event: Mapping[str, Any]) -> dict[str, Any]:
        """`output`: the table with the answers, as the job itself tells it."""
        result = super().finish(context, event)
        told = self.client.get_batch_prediction_job(name=result["ref"], **_again()).output_info
        dataset = told.bigquery_output_dataset.removeprefix("bq://")
        return {**result, "output": f"{dataset}.{told.bigquery_output_table}"}


class DataflowJob(_GoogleJob, DataflowStartFlexTemplateOperator):
    """A run of a Flex Template. Dataflow allows one active job of a name, and lists those that have ended.

    It is launched by no client of the provider: those ask again by themselves, and of a job that has ended meanwhile there
    would be two.
    """

    template_fields = ("request", "after")
    template_fields_renderers: ClassVar[dict[str, str]] = {"request": "json"}
    kind = "dataflow"

    def __init__(self, *, model: ModelConfig, step: str, request: Read, after: Sequence[XComArg] = (), **arguments: Any) -> None:
        super().__init__(
            body={},
            location=gcp().region,
            project_id=gcp().project,
            gcp_conn_id=gcp().connection,
            append_job_name=False,
            deferrable=False,
            wait_until_finished=False,
            **arguments,
        )
        self.prepare(model, step, request, after)

    def _find(self, name: str) -> tuple[str, Found]:
        jobs, found = self.client.projects().locations().jobs(), []
        asked = jobs.list(projectId=gcp().project, location=gcp().region, name=name)
        while asked is not None:
            answer = asked.execute(num_retries=TRIES)
            if answer.get("failedLocation"):
                raise JobFailed(f"{name}: Dataflow cannot say whether there is such a job; nothing was started")
            found += answer.get("jobs", [])
            asked = jobs.list_next(asked, answer)
        found.sort(key=lambda job: str(job["createTime"]))
        return (found[0]["id"], self._with_price(_dataflow(found[0]))) if found else ("", Found("absent"))

    def _start(self, context: Any) -> str:
        request: Any = self.request
        self.body = {"launchParameter": {**filled(request["launch"], self.name), "jobName": self.name}}
        try:
            ref = self._launch()
        except Exception:
            ref, found = self._find(self.name)
            if found.state == "absent":
                raise
            self.log.info("%s was accepted, but the answer was lost", self.name)
        DataflowJobLink.persist(context=context, project_id=gcp().project, region=gcp().region, job_id=ref)
        return ref

    def _launch(self) -> str:
        where = f"{LAUNCHES}/projects/{gcp().project}/locations/{gcp().region}/flexTemplates:launch"
        with AuthorizedSession(DataflowHook(gcp_conn_id=self.gcp_conn_id).get_credentials()) as session:
            answer = session.post(where, json=self.body, timeout=ACCEPTED_SECONDS)
        if not answer.ok:
            raise from_http_response(answer)
        return str(answer.json()["job"]["id"])

    def _price(self) -> float:
        return prices.hourly("dataflow", gcp().dataflow_machine) * int(gcp().dataflow_workers)


BIGQUERY_STATES: dict[str, State] = {"PENDING": "running", "RUNNING": "running", "DONE": "succeeded"}
VERTEX_STATES: dict[str, State] = {
    **dict.fromkeys(("JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING", "JOB_STATE_UPDATING"), "running"),
    "JOB_STATE_CANCELLING": "stopping",
    "JOB_STATE_SUCCEEDED": "succeeded",
    **dict.fromkeys(("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED", "JOB_STATE_PARTIALLY_SUCCEEDED"), "failed"),
}
DATAFLOW_STATES: dict[str, State] = {
    # By Google's own words, STOPPED is what has not yet started to run.
    **dict.fromkeys(("JOB_STATE_STOPPED", "JOB_STATE_QUEUED", "JOB_STATE_PENDING", "JOB_STATE_RUNNING"), "running"),
    "JOB_STATE_RESOURCE_CLEANING_UP": "running",
    **dict.fromkeys(("JOB_STATE_CANCELLING", "JOB_STATE_DRAINING"), "stopping"),
    "JOB_STATE_DONE": "succeeded",
    **dict.fromkeys(("JOB_STATE_FAILED", "JOB_STATE_CANCELLED", "JOB_STATE_DRAINED"), "failed"),
}


def _look_at_query(asked: Any, ref: str) -> Found:
    try:
        job = asked.get_job(
            ref, project=gcp().project, location=gcp().location, retry=DEFAULT_RETRY.with_timeout(PATIENCE), timeout=PATIENCE
        )
    except NotFound:
        return Found("absent")
    seconds = (job.ended - job.started).total_seconds() if job.started and job.ended else 0.0
    cost = prices.billed(getattr(job, "total_bytes_billed", None) or 0)
    state, told = known_state(BIGQUERY_STATES, job.state, None)
    if state == "succeeded" and job.error_result:
        state, told = "failed", f"{job.error_result.get('reason')}: {job.error_result.get('message')}"
    return Found(state, told, seconds, cost)


def _vertex(job: Any) -> Found:
    state, told = known_state(VERTEX_STATES, job.state.name, job.error.message)
    begun, over = job.start_time, job.end_time
    seconds = (over - begun).total_seconds() if begun and over else 0.0
    if job.state.name in ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED") and (lost := _lost(job)):
        why = "".join(f": {one.message}" for one in job.partial_failures[:1])
        state, told = "failed", f"{lost} rows were not scored; its errors table says why{why}"
    return Found(state, told, seconds)


def _lost(job: Any) -> int:
    """How many rows of a batch prediction have no score, as far as Vertex AI knows: -1 are those that it has not counted."""
    stats = getattr(job, "completion_stats", None)
    return int(stats.failed_count + max(stats.incomplete_count, 0)) if stats else 0


def _again() -> dict[str, Any]:
    """For calls of Vertex AI that change nothing, or nothing more when they are made twice: its clients do not ask again by
    themselves."""
    return {"retry": Retry(timeout=PATIENCE), "timeout": PATIENCE}


def _look_at_vertex(get: str, asked: Any, ref: str) -> Found:
    try:
        return _vertex(getattr(asked, get)(name=ref, **_again()))
    except NotFound:
        return Found("absent")


def _stop_vertex(cancel: str, asked: Any, ref: str) -> None:
    getattr(asked, cancel)(name=ref, **_again())


def _dataflow(job: Mapping[str, Any]) -> Found:
    state, told = known_state(DATAFLOW_STATES, job.get("currentState", "?"), None)
    begun, over = (_moment(job.get(name)) for name in ("startTime", "currentStateTime"))
    seconds = max(0.0, over - begun) if begun and over and state in ("succeeded", "failed") else 0.0
    return Found(state, told, seconds)


def _look_at_dataflow(asked: Any, ref: str) -> Found:
    where = {"projectId": gcp().project, "location": gcp().region, "jobId": ref}
    jobs = asked.projects().locations().jobs()
    try:
        found = _dataflow(jobs.get(**where).execute(num_retries=TRIES))
    except HttpError as error:
        if error.resp.status == 404:
            return Found("absent")
        raise
    if found.state != "failed":
        return found
    told = jobs.messages().list(**where, minimumImportance="JOB_MESSAGE_ERROR").execute(num_retries=TRIES).get("jobMessages", [])
    return Found(found.state, ": ".join([found.told, *(one["messageText"] for one in told[-1:])]), found.seconds)


def _stop_dataflow(asked: Any, ref: str) -> None:
    where = {"projectId": gcp().project, "location": gcp().region, "jobId": ref}
    asked.projects().locations().jobs().update(**where, body={"requestedState": "JOB_STATE_CANCELLED"}).execute(num_retries=TRIES)


def _moment(text: str | None) -> float | None:
    from datetime import datetime

    return datetime.fromisoformat(text).timestamp() if text else None


def _kind(service: str, look: Callable[[Any, str], Found], stop: Callable[[Any, str], Any]) -> Kind:
    return Kind(partial(client, service), look, stop)


KINDS: dict[str, Kind] = {
    "bigquery": _kind(
        "bigquery",
        _look_at_query,
        lambda asked, ref: asked.cancel_job(ref, project=gcp().project, location=gcp().location),
    ),
    "custom": _kind("jobs", partial(_look_at_vertex, "get_custom_job"), partial(_stop_vertex, "cancel_custom_job")),
    "batch": _kind(
        "jobs", partial(_look_at_vertex, "get_batch_prediction_job"), partial(_stop_vertex, "cancel_batch_prediction_job")
    ),
    "dataflow": _kind("dataflow", _look_at_dataflow, _stop_dataflow),
}
