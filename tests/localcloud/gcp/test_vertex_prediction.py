"""Batch prediction of the local Vertex AI, from BigQuery through a model's container to BigQuery, by the real clients."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.api_core import exceptions

from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud
from tests.localcloud.gcp.conftest import AsClient
from tests.localcloud.gcp.vertex_requests import (
    MACHINE,
    NUMBERED,
    PARENT,
    ended,
    images,
    jobs_client,
    log,
    model,
    models_client,
    put,
    reached,
    uploaded,
    waited_for,
)

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

ROWS = """
    SELECT id, id * 2 AS x, 0.5 AS y, IF(id = 40, 'poison', 'plain') AS word, DATE '2026-01-05' AS day
    FROM UNNEST(GENERATE_ARRAY(1, 40)) AS id
"""
ALL = ["id", "x", "y", "word", "day"]


@pytest.fixture(scope="module")
def running(running_google: GoogleCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    options = {"stop_seconds": 2, "ping_seconds": 5}
    with GoogleCloud(tmp_path_factory.mktemp("vertex"), images(), **options) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: GoogleCloud, as_client: AsClient) -> Iterator[GoogleCloud]:
    """With a model late, and 40 rows in ds.rows, of which one is poison to it, and 39 in ds.plain."""
    running.reset()
    as_client(running)
    put(running.bucket("lake"), **{"models/1/model.json": json.dumps({"offset": 100})})
    client = bigquery()
    client.create_dataset("ds")
    table("rows", ROWS)
    table("plain", "SELECT * FROM ds.rows WHERE id < 40")
    uploaded(models_client(), model("late"), model_id="late")
    yield running
    assert running.refused_hosts() == []


@pytest.fixture
def client(cloud: GoogleCloud) -> Any:
    return jobs_client()


def bigquery() -> Any:
    from google.cloud import bigquery

    return bigquery.Client(PROJECT)


def table(name: str, sql: str) -> None:
    bigquery().query_and_wait(f"CREATE TABLE ds.{name} AS {sql}")


def rows(name: str) -> list[dict[str, Any]]:
    found = [dict(row.items()) for row in bigquery().list_rows(f"ds.{name}")]
    return sorted(found, key=lambda row: str(row.get("id", row.get("key"))).zfill(3))


def tables() -> list[str]:
    return sorted(each.table_id for each in bigquery().list_tables("ds"))


def asked(source: str = "plain", target: str = ".out", batch: int = 10, **more: Any) -> dict[str, Any]:
    return {
        "display_name": "score",
        "model": f"{PARENT}/models/late",
        "input_config": {
            "instances_format": "bigquery",
            "bigquery_source": {"input_uri": f"bq://{PROJECT}.ds.{source}"},
        },
        "output_config": {
            "predictions_format": "bigquery",
            "bigquery_destination": {"output_uri": f"bq://{PROJECT}.ds{target}"},
        },
        "instance_config": {"instance_type": "object", "excluded_fields": ["id", "day"]},
        "dedicated_resources": {"machine_spec": {"machine_type": MACHINE}, "starting_replica_count": 1, "max_replica_count": 1},
        "manual_batch_tuning_parameters": {"batch_size": batch},
        **more,
    }


def run(client: Any, **more: Any) -> Any:
    job = client.create_batch_prediction_job(parent=PARENT, batch_prediction_job=asked(**more))
    return ended(client.get_batch_prediction_job, job.name)


def misbehaving(how: str, **more: str) -> str:
    """A version of the model whose container does so."""
    variables = [{"name": name, "value": value} for name, value in {"BEHAVE": how, **more}.items()]
    version = uploaded(models_client(), model("late", container={"env": variables}), parent_model=f"{PARENT}/models/late")
    return f"{PARENT}/models/late@{version.model_version_id}"


def sent(cloud: GoogleCloud) -> list[dict[str, Any]]:
    """What the container was asked."""
    return [json.loads(line.removeprefix("asked: ")) for line in log(cloud, "score").splitlines() if line.startswith("asked: ")]


def test_rows_get_a_prediction_beside_them(cloud: GoogleCloud, client: Any) -> None:
    made = client.create_batch_prediction_job(parent=PARENT, batch_prediction_job=asked(labels={"team": "ml"}))
    assert made.name.startswith(f"{NUMBERED}/batchPredictionJobs/")
    assert (made.state.name, made.model_version_id) == ("JOB_STATE_PENDING", "1")
    job = ended(client.get_batch_prediction_job, made.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job.error.message
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (39, 0)
    assert job.output_info.bigquery_output_dataset == f"bq://{PROJECT}.ds"
    assert job.output_info.bigquery_output_table == "out"
    assert job.create_time <= job.start_time <= job.end_time
    first, *others = rows("out")
    assert [*first] == [*ALL, "prediction"]
    assert (first["id"], first["prediction"]) == (1, "102.5")
    assert len(others) == 38
    assert tables() == ["out", "plain", "rows"]
    assert [len(each["instances"]) for each in sent(cloud)] == [10, 10, 10, 9]
    assert sent(cloud)[0]["instances"][0].keys() == {"x", "y", "word"}
    (billed,) = cloud.jobs("batch-prediction-job")
    assert (billed["service"], billed["name"], billed["instance_type"]) == ("aiplatform", "score", MACHINE)
    assert (billed["instance_count"], billed["tags"]) == (1, {"team": "ml"})
    assert billed["billed_seconds"] >= 1


def test_a_container_is_started_as_documented(cloud: GoogleCloud, client: Any) -> None:
    container = {"args": ["--port=$(AIP_HTTP_PORT)", "$$(AS_IT_IS)", "$(NOT_THERE)"]}
    uploaded(models_client(), model("late", container=container), parent_model=f"{PARENT}/models/late")
    assert run(client, model=f"{PARENT}/models/late@2").state.name == "JOB_STATE_SUCCEEDED"
    (line,) = [line for line in log(cloud, "score").splitlines() if line.startswith("environment: ")]
    found = json.loads(line.removeprefix("environment: "))
    assert found["AIP_MODE"] == "PREDICTION"
    assert found["AIP_STORAGE_URI"] == "gs://lake/models/1"
    assert (found["AIP_HEALTH_ROUTE"], found["AIP_PREDICT_ROUTE"]) == ("/health", "/predict")
    assert "OF_IMAGE" in found
    assert "GCS" not in found
    assert f"arguments: ['--port={found['AIP_HTTP_PORT']}', '$(AS_IT_IS)', '$(NOT_THERE)']" in log(cloud, "score")


@pytest.mark.parametrize(
    ("config", "instance", "columns"),
    [
        ({}, [1, 2, 0.5, "plain", "2026-01-05"], ALL),
        ({"instance_type": "array", "included_fields": ["y", "x"]}, [0.5, 2], ["x", "y"]),
        ({"instance_type": "array", "excluded_fields": ["word", "day", "id"]}, [2, 0.5], ALL),
        ({"instance_type": "object", "key_field": "id", "excluded_fields": ["word", "day"]}, {"x": 2, "y": 0.5}, ["key"]),
    ],
)
def test_the_instance_config_says_what_is_sent_and_kept(
    cloud: GoogleCloud, client: Any, config: dict[str, Any], instance: Any, columns: list[str]
) -> None:
    job = run(client, instance_config=config)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job.error.message
    assert instance in [each for request in sent(cloud) for each in request["instances"]]
    assert [*rows("out")[0]] == [*columns, "prediction"]


def test_into_a_dataset_go_tables_of_vertex_own_naming(client: Any) -> None:
    job = run(client, target="")
    name = job.output_info.bigquery_output_table
    assert re.fullmatch(r"predictions_\d{4}_\d\d_\d\dT\d\d_\d\d_\d\d_\d{3}Z", name)
    assert tables() == [name.replace("predictions", "errors"), "plain", name, "rows"]
    assert len(rows(name)) == 39
    assert rows(name.replace("predictions", "errors")) == []


def test_what_a_model_answers_is_kept_as_json(client: Any) -> None:
    run(client, model=misbehaving("object"))
    assert json.loads(rows("out")[0]["prediction"]) == {"score": 0.5, "label": "late"}


def test_parameters_go_with_every_request(cloud: GoogleCloud, client: Any) -> None:
    run(client, model_parameters={"threshold": 0.5})
    assert {json.dumps(each["parameters"]) for each in sent(cloud)} == {'{"threshold": 0.5}'}


def test_few_rows_that_fail_are_set_aside(client: Any) -> None:
    job = run(client, source="rows", batch=1)
    assert job.state.name == "JOB_STATE_PARTIALLY_SUCCEEDED"
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (39, 1)
    assert "poison is no number" in job.partial_failures[0].message
    assert not job.error.message
    assert [row["id"] for row in rows("out")] == list(range(1, 40))
    (bad,) = rows("out_errors")
    assert (bad["id"], bad["word"], bad["errors"]["code"]) == (40, "poison", 3)
    assert "poison is no number" in bad["errors"]["message"]


def test_many_rows_that_fail_fail_the_job(client: Any) -> None:
    job = run(client, source="rows", batch=10)
    assert (job.state.name, job.error.code) == ("JOB_STATE_FAILED", 3)
    assert "10 of 40 instances failed" in job.error.message
    assert (job.completion_stats.successful_count, job.completion_stats.failed_count) == (30, 10)
    assert len(rows("out")) == 30


def test_no_more_is_asked_when_too_many_have_failed(cloud: GoogleCloud, client: Any) -> None:
    job = run(client, model=misbehaving("short"))
    assert job.state.name == "JOB_STATE_FAILED"
    assert "the model answered 9 predictions for 10 instances" in job.error.message
    assert (job.completion_stats.failed_count, job.completion_stats.incomplete_count) == (10, 29)
    assert len(sent(cloud)) == 1


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("chatter", "no JSON object with predictions"),
        ("die", "Model server terminated: exit code 7"),
        ("crash", "No module named 'xgboost'"),
        ("sick", "never became ready"),
    ],
)
def test_a_container_that_misbehaves_fails_the_job(client: Any, how: str, said: str) -> None:
    job = run(client, model=misbehaving(how))
    assert job.state.name == "JOB_STATE_FAILED"
    assert said in job.error.message
    assert "out" not in tables() or rows("out") == []


def test_a_request_that_the_server_is_to_blame_for_is_tried_again(client: Any) -> None:
    assert run(client, model=misbehaving("", FAIL_TIMES="2")).state.name == "JOB_STATE_SUCCEEDED"


def test_tables_and_columns_must_be_as_they_are_asked_for(client: Any) -> None:
    for more, said in (
        ({"source": "none"}, "Table bq://local-project.ds.none was not found"),
        ({"target": ".rows"}, "Already Exists"),
        ({"instance_config": {"excluded_fields": ["colour"]}}, "has no column colour"),
        ({"model": f"{PARENT}/models/late@gone"}, ""),
    ):
        if not said:
            with pytest.raises(exceptions.NotFound):
                run(client, **more)
            continue
        job = run(client, **more)
        assert job.state.name == "JOB_STATE_FAILED"
        assert said in job.error.message


def test_a_job_is_cancelled_when_its_container_has_ended(cloud: GoogleCloud, client: Any) -> None:
    job = client.create_batch_prediction_job(parent=PARENT, batch_prediction_job=asked(model=misbehaving("hang")))
    waited_for(cloud, "score", "asked: ")
    client.cancel_batch_prediction_job(name=job.name)
    job = ended(client.get_batch_prediction_job, job.name)
    assert (job.state.name, job.error.code) == ("JOB_STATE_CANCELLED", 1)
    assert "out" not in tables()


def test_a_fault_fails_stops_or_hangs_a_job(cloud: GoogleCloud, client: Any) -> None:
    for kind in ("fail", "stop", "hang"):
        cloud.fault(kind, "aiplatform", "CreateBatchPredictionJob", match=f"^{kind}$", reason="no machine was free")
    made = {
        kind: client.create_batch_prediction_job(parent=PARENT, batch_prediction_job={**asked(), "display_name": kind}).name
        for kind in ("fail", "stop", "hang")
    }
    failed = ended(client.get_batch_prediction_job, made["fail"])
    assert (failed.state.name, failed.error.message) == ("JOB_STATE_FAILED", "no machine was free")
    assert ended(client.get_batch_prediction_job, made["stop"]).state.name == "JOB_STATE_CANCELLED"
    reached(client.get_batch_prediction_job, made["hang"], "JOB_STATE_RUNNING")
    listed = client.list_batch_prediction_jobs({"parent": PARENT, "filter": 'state="JOB_STATE_FAILED"'})
    assert [job.display_name for job in listed] == ["fail"]


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"generate_explanation": True}, "generate_explanation"),
        ({"disable_container_logging": True}, "disable_container_logging"),
        ({"target": None}, "a project"),
        ({"input_config": {"instances_format": "jsonl", "gcs_source": {"uris": ["gs://lake/x"]}}}, "input_config"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(client: Any, more: dict[str, Any], named: str) -> None:
    job = asked(**{name: value for name, value in more.items() if name != "target"})
    if "target" in more:
        job["output_config"]["bigquery_destination"]["output_uri"] = f"bq://{PROJECT}"
    with pytest.raises(exceptions.MethodNotImplemented, match=named):
        client.create_batch_prediction_job(parent=PARENT, batch_prediction_job=job)


def test_what_is_wrong_is_refused(cloud: GoogleCloud, client: Any) -> None:
    for more in (
        {"display_name": ""},
        {"model": ""},
        {"dedicated_resources": {}},
        {"instance_config": {"included_fields": ["x"], "excluded_fields": ["y"]}},
        {"input_config": {"instances_format": "bigquery", "bigquery_source": {"input_uri": "ds.rows"}}},
        {"output_config": {"predictions_format": "bigquery"}},
    ):
        with pytest.raises(exceptions.InvalidArgument):
            client.create_batch_prediction_job(parent=PARENT, batch_prediction_job={**asked(), **more})
    assert cloud.jobs("batch-prediction-job") == []


def test_the_hook_of_the_provider_submits(cloud: GoogleCloud) -> None:
    from airflow.providers.google.cloud.hooks.vertex_ai.batch_prediction_job import BatchPredictionJobHook

    hook = BatchPredictionJobHook(gcp_conn_id="google_cloud_default")
    submitted = hook.submit_batch_prediction_job(
        project_id=PROJECT,
        region=REGION,
        job_display_name="score",
        model_name=f"{PARENT}/models/late",
        instances_format="bigquery",
        predictions_format="bigquery",
        bigquery_source=f"bq://{PROJECT}.ds.plain",
        bigquery_destination_prefix=f"bq://{PROJECT}.ds",
        machine_type=MACHINE,
        batch_size=10,
    )
    key = submitted.name
    job = ended(lambda name: hook.get_batch_prediction_job(project_id=PROJECT, region=REGION, batch_prediction_job=name), key)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert job.completion_stats.successful_count == 39
