"""A local Google Cloud for jobs that do little, and rooms on it where a test has its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from google.cloud.bigquery import ExtractJobConfig

from include import ledger
from include.config import load_model
from include.platforms.gcp import jobs, requests, tables
from tests.dags.lakes import MODEL
from tests.gcp.places import BUCKET, Place
from tests.localcloud.gcp.cloud import GoogleCloud
from tests.localcloud.gcp.vertex_requests import PARENT, PIPELINE, PREDICTOR, TRAINER, images, models_client, uploaded
from tests.remote_jobs import context, triggered

DATASET = "jobs"
RUN = {"partition": "2013-02-01", "run_id": "manual__jobs", "workspace": "0" * 16}
OF_BIGQUERY = ("query", "load", "extract")
OF_VERTEX = ("custom", "batch")
KINDS = (*OF_BIGQUERY, *OF_VERTEX, "dataflow")
OPERATORS: dict[str, Any] = {
    **dict.fromkeys(OF_BIGQUERY, jobs.BigQueryJob),
    "custom": jobs.CustomJob,
    "batch": jobs.BatchPrediction,
    "dataflow": jobs.DataflowJob,
}
# Service and operation that start a job; those that find one by its name, and that look at one.
STARTS = {
    **dict.fromkeys(OF_BIGQUERY, ("bigquery", "jobs.insert")),
    "custom": ("aiplatform", "CreateCustomJob"),
    "batch": ("aiplatform", "CreateBatchPredictionJob"),
    "dataflow": ("dataflow", "projects.locations.flexTemplates.launch"),
}
FINDS = {
    **dict.fromkeys(OF_BIGQUERY, "jobs.get"),
    "custom": "ListCustomJobs",
    "batch": "ListBatchPredictionJobs",
    "dataflow": "projects.locations.jobs.list",
}
LOOKS = {
    **dict.fromkeys(OF_BIGQUERY, "jobs.get"),
    "custom": "GetCustomJob",
    "batch": "GetBatchPredictionJob",
    "dataflow": "projects.locations.jobs.get",
}
STATES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(OF_BIGQUERY, jobs.BIGQUERY_STATES),
    **dict.fromkeys(OF_VERTEX, jobs.VERTEX_STATES),
    "dataflow": jobs.DATAFLOW_STATES,
}
COLUMNS = {"flight_id": "STRING", "partition_date": "DATE", "distance": "INT64", "word": "STRING"}
PLAIN = "CAST(id AS STRING) AS flight_id, DATE '2013-02-01' AS partition_date, id AS distance"
# Vertex asks for 64 predictions at once, and a row that cannot be scored is the end of all: too many are a failure.
TABLES = {
    "rows": f"SELECT {PLAIN}, 'plain' AS word FROM UNNEST(GENERATE_ARRAY(1, 40)) AS id",
    "poisoned": f"SELECT {PLAIN}, IF(id = 7, 'poison', 'plain') AS word FROM UNNEST(GENERATE_ARRAY(1, 40)) AS id",
    "hardly_poisoned": f"SELECT {PLAIN}, IF(id = 7, 'poison', 'plain') AS word FROM UNNEST(GENERATE_ARRAY(1, 2200)) AS id",
}
PARAMETERS = ("source", "target", "output")
VERSION = f"{PARENT}/models/trial@1"
numbers = itertools.count(1)


def filled_cloud(folder: Path) -> GoogleCloud:
    """Started, with all that jobs need which do little: tables, a file of the same rows, a model and a template."""
    cloud = GoogleCloud(folder, images(), start_seconds=0.1, job_seconds=0.2, stop_seconds=2).start()
    place = Place(cloud, Path(), "setup", "jobs")
    with place.settings(dataset=DATASET):
        bucket, bigquery = place.client("storage").create_bucket(BUCKET), place.client("bigquery")
        parameters = [{"name": name, "label": name, "helpText": name} for name in PARAMETERS]
        spec = {"image": PIPELINE, "sdkInfo": {"language": "PYTHON"}, "metadata": {"name": "trial", "parameters": parameters}}
        bucket.blob("trials/trial.json").upload_from_string(json.dumps(spec))
        bucket.blob("models/1/model.json").upload_from_string(json.dumps({"offset": 100}))
        bigquery.create_dataset(DATASET)
        for name, select in TABLES.items():
            bigquery.query_and_wait(f"CREATE TABLE {tables.named(name)} AS {select}")
        asked = ExtractJobConfig(destination_format="PARQUET")
        bigquery.extract_table(tables.full("rows"), f"gs://{BUCKET}/rows/*.parquet", job_config=asked).result()
        container = {"image_uri": PREDICTOR, "predict_route": "/predict", "health_route": "/health"}
        model = {"display_name": "trial", "artifact_uri": f"gs://{BUCKET}/models/1", "container_spec": container}
        uploaded(models_client(), model, model_id="trial")
    return cloud


@dataclass
class Room:
    """A place where a test has its jobs, and one request for each kind of them."""

    place: Place
    patch: pytest.MonkeyPatch
    names: dict[str, str] = field(default_factory=dict)

    def request(self, kind: str) -> dict[str, Any]:
        """The same whenever it is asked for."""
        made = self._request(kind)
        self.names[kind] = made["name"]
        return made

    def _request(self, kind: str) -> dict[str, Any]:
        model, lake = load_model(MODEL), self.place.lake
        folder = f"{lake}/staging/jobs"
        if kind == "query":
            return requests.query(model, kind, RUN, f"SELECT COUNT(DISTINCT word) AS n FROM {tables.named('rows')}", {}, lake)
        if kind == "load":
            return requests.load(model, kind, RUN, f"gs://{BUCKET}/rows/*.parquet", f"{self.place.name}_loaded", COLUMNS, lake)
        if kind == "extract":
            return requests.extract(model, kind, RUN, "rows", folder, lake)
        if kind == "custom":
            request = requests.custom_job(model, kind, RUN, folder, ["process", "inspect"], {"of": lake})
            self.container(request)["command"] = ["true"]
            return request
        if kind == "batch":
            return self.scoring("rows")
        return requests.dataflow(model, kind, RUN, "trial", folder, {"source": f"{lake}/in", "target": f"{lake}/out"})

    def scoring(self, rows: str) -> dict[str, Any]:
        """The request of a batch prediction of a table."""
        made = requests.batch_prediction(
            load_model(MODEL), "batch", RUN, VERSION, rows, f"{self.place.name}_scores", self.place.lake
        )
        self.names["batch"] = made["name"]
        return made

    @staticmethod
    def container(request: dict[str, Any]) -> dict[str, Any]:
        spec: dict[str, Any] = request["config"]["job_spec"]["worker_pool_specs"][0]["container_spec"]
        return spec

    def operator(self, kind: str, request: dict[str, Any] | None = None, after: Any = ()) -> Any:
        """An operator as a worker has it when its templates are rendered."""
        made = OPERATORS[kind](task_id="job", model=load_model(MODEL), step=kind, request={})
        made.request, made.after = self.request(kind) if request is None else request, list(after)
        return made

    def ends(self, operator: Any) -> dict[str, Any]:
        """A try from its beginning to its end; deferred it goes on in a triggerer, and ends in another worker."""
        try:
            found: dict[str, Any] = operator.execute(context())
        except TaskDeferred as deferred:
            event = triggered(deferred.trigger)
            found = getattr(self.operator(operator.step, operator.request), deferred.method_name)(context(), event.payload)
        return found

    def tried(self, kind: str) -> dict[str, Any]:
        return self.ends(self.operator(kind))

    def deferred(self, kind: str) -> Any:
        """The trigger of a try that is deferred."""
        with pytest.raises(TaskDeferred) as deferred:
            self.operator(kind).execute(context())
        return deferred.value.trigger

    def started(self, kind: str) -> list[dict[str, Any]]:
        """The jobs of this room in the ledger of the cloud, in its order."""
        return [job for job in self.place.cloud.jobs() if job["name"].startswith(self.names[kind])]

    def states(self, kind: str) -> list[str]:
        return [job["state"] for job in self.started(kind)]

    def starts(self, kind: str) -> list[dict[str, Any]]:
        """The calls that asked for the jobs of this room."""
        service, operation = STARTS[kind]
        asked = self.place.cloud.calls(service, operation=operation)
        return [call for call in asked if call["subject"].startswith(self.names[kind])]

    def fault(self, what: str, kind: str, operation: str = "", **more: Any) -> None:
        """On the call that starts the job of this room, or on another operation of its service."""
        service, start = STARTS[kind]
        meant = {} if operation else {"match": self.request(kind)["name"]}
        self.place.cloud.fault(what, service, operation or start, **{**meant, **more})

    def records(self, kind: str) -> list[dict[str, Any]]:
        return [record.body for record in ledger.read(kind, MODEL)]


@contextmanager
def room_on(cloud: GoogleCloud, models: Path) -> Iterator[Room]:
    place = Place(cloud, models, f"jobs_{next(numbers)}", registry="jobs")
    own = {"image": TRAINER, "dataset": DATASET, "templates": f"gs://{BUCKET}/trials"}
    with place.settings(deferrable="false", max_job_hours="1", **own) as patch:
        yield Room(place, patch)
    cloud.forget_faults()
