"""Our images on the local Google Cloud, from rows of BigQuery to predictions: each number as on a laptop."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.config import REPOSITORY
from include.core.files import sha256_of
from include.jobs.vertex import pack
from tests.core.examples import flights
from tests.jobs import beam, running
from tests.jobs.test_beam_postprocess import STAMP
from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud
from tests.localcloud.gcp.conftest import AsClient
from tests.localcloud.gcp.vertex_requests import MACHINE, PARENT, REGISTRY, ended, jobs_client, models_client

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

JOBS, DATAFLOW = f"{REGISTRY}/jobs", f"{REGISTRY}/dataflow"


def images() -> dict[str, dict[str, Any]]:
    ours = {"directory": str(REPOSITORY)}
    return {
        JOBS: {
            **ours,
            "path": str(Path(sys.executable).parent),
            "entrypoint": ["python", "-m", "include.jobs.vertex"],
            "environment": {"AILERON_GCS": "{gcs}", "AILERON_BIND": "127.0.0.1"},
        },
        DATAFLOW: {
            **ours,
            "path": str(beam.PYTHON.parent),
            "entrypoint": ["python", "deploy/gcp/launch.py"],
            "environment": {"PYTHONPATH": str(REPOSITORY)},
        },
    }


@pytest.fixture(scope="module")
def our_cloud(
    running_google: GoogleCloud,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("google"), images()) as cloud:
        yield cloud


@pytest.fixture
def lake(our_cloud: GoogleCloud, as_client: AsClient) -> Iterator[Any]:
    """A bucket, in a cloud that knows our images."""
    our_cloud.reset()
    as_client(our_cloud)
    yield our_cloud.bucket("lake")
    assert our_cloud.refused_hosts() == []


def put(lake: Any, name: str, rows: pa.Table) -> None:
    sink = io.BytesIO()
    pq.write_table(rows, sink)
    lake.blob(name).upload_from_string(sink.getvalue())


def read(lake: Any, prefix: str) -> pa.Table:
    found = [blob for blob in lake.list_blobs(prefix=prefix) if blob.name.endswith(".parquet")]
    return pa.concat_tables([pq.read_table(io.BytesIO(blob.download_as_bytes())) for blob in found]).sort_by("flight_id")


def ran(get: Any, name: str) -> None:
    job = ended(get, name, 120)
    assert job.state.name == "JOB_STATE_SUCCEEDED", job.error.message


def custom_job(lake: Any, spec: dict[str, Any], *mode: str) -> None:
    lake.blob(f"specs/{mode[-1]}.json").upload_from_string(json.dumps(spec))
    output = f"gs://lake/{mode[-1]}"
    arguments = [*mode, f"gs://lake/specs/{mode[-1]}.json", *([output] if mode[0] != "train" else [])]
    pool = {
        "machine_spec": {"machine_type": MACHINE},
        "replica_count": 1,
        "container_spec": {"image_uri": JOBS, "command": ["python", "-m", "include.jobs.vertex"], "args": arguments},
    }
    asked = {"worker_pool_specs": [pool], "base_output_directory": {"output_uri_prefix": output}}
    client = jobs_client()
    job = client.create_custom_job(parent=PARENT, custom_job={"display_name": mode[-1], "job_spec": asked})
    ran(client.get_custom_job, job.name)


def launch(lake: Any, template: str, **parameters: str) -> None:
    from airflow.providers.google.cloud.hooks.dataflow import DataflowHook

    metadata = json.loads((REPOSITORY / "deploy" / "gcp" / f"{template}.json").read_bytes())
    spec = {"image": DATAFLOW, "sdkInfo": {"language": "PYTHON"}, "metadata": metadata}
    lake.blob(f"templates/{template}.json").upload_from_string(json.dumps(spec))
    body = {"jobName": template, "containerSpecGcsPath": f"gs://lake/templates/{template}.json", "parameters": parameters}
    hook = DataflowHook(poll_sleep=1)
    job = hook.launch_job_with_flex_template(body={"launchParameter": body}, location="us-central1", project_id=PROJECT)
    hook.wait_for_done(job_name=template, job_id=job["id"], location="us-central1", project_id=PROJECT)


def test_a_model_is_trained_in_order_and_measured(lake: Any, tmp_path: Path) -> None:
    rows = flights(3000)
    for number, part in enumerate((rows.slice(1300), rows.slice(0, 1300))):
        put(lake, f"extracted/part-{number:012d}.parquet", part)
    custom_job(lake, {"input": "gs://lake/extracted/", "key": "flight_id"}, "order")
    facts = json.loads(lake.blob("order/order.json").download_as_bytes())
    snapshot = tmp_path / "data.parquet"
    lake.blob("order/data.parquet").download_to_filename(snapshot)
    assert facts == {"rows": 3000, "sha256": sha256_of(snapshot)}
    spec = {
        "snapshot_id": "one",
        "snapshot_sha256": facts["sha256"],
        "model": "flight_delays",
        "task": "classification",
        "numeric": ["distance", "hour"],
        "categorical": ["carrier", "origin"],
        "parameters": {"trees": 10},
        "holdout_days": 3,
        "min_rows": 100,
    }
    custom_job(lake, {**spec, "snapshot": "gs://lake/order/data.parquet"}, "train")
    here = {"snapshot": str(snapshot), "artifact": str(tmp_path / "here"), "result": str(tmp_path / "here.json")}
    assert running.run("train", {**spec, **here}, tmp_path).returncode == 0
    digest = json.loads((tmp_path / "here.json").read_bytes())["manifest_sha256"]
    assert json.loads(lake.blob("train/model/result.json").download_as_bytes())["manifest_sha256"] == digest
    against = {"artifact": "gs://lake/train/model", "manifest_sha256": digest, "snapshot": "gs://lake/order/data.parquet"}
    custom_job(lake, {**against, "snapshot_sha256": facts["sha256"], "champion_artifact": None}, "process", "evaluate")
    assert json.loads(lake.blob("evaluate/evaluate.json").download_as_bytes())["rows"] > 100


@pytest.fixture
def scored(lake: Any, model: tuple[Path, str], tmp_path: Path) -> pa.Table:
    """Features and a model in the bucket, and their scores by the job of a laptop."""
    rows = flights(300, seed=9).drop_columns(["label"])
    put(lake, "features/part-000000000000.parquet", rows)
    pack(model[0], tmp_path / "model.tar.gz")
    lake.blob("models/1/model.tar.gz").upload_from_filename(tmp_path / "model.tar.gz")
    pq.write_table(rows, tmp_path / "features.parquet")
    spec = {"features": str(tmp_path / "features.parquet"), "output": str(tmp_path / "scores.parquet"), "key": "flight_id"}
    spec |= {"result": str(tmp_path / "result.json"), "artifact": str(model[0]), "manifest_sha256": model[1]}
    assert running.run("score", spec, tmp_path).returncode == 0
    return pq.read_table(tmp_path / "scores.parquet").sort_by("flight_id")


def test_a_batch_prediction_gives_the_scores_of_a_laptop(lake: Any, model: tuple[Path, str], scored: pa.Table) -> None:
    from google.cloud import bigquery

    client = bigquery.Client(PROJECT)
    client.create_dataset("ds")
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    client.load_table_from_uri("gs://lake/features/*.parquet", f"{PROJECT}.ds.features", job_config=config).result(timeout=60)
    container = {
        "image_uri": JOBS,
        "command": ["python", "-m", "include.jobs.vertex"],
        "args": ["serve"],
        "env": [{"name": "AILERON_MANIFEST_SHA256", "value": model[1]}],
        "predict_route": "/predict",
        "health_route": "/health",
    }
    registered = {"display_name": "flights", "artifact_uri": "gs://lake/models/1", "container_spec": container}
    made = models_client().upload_model({"parent": PARENT, "model": registered}).result(timeout=60)
    target = {"output_uri": f"bq://{PROJECT}.ds.answers"}
    asked = {
        "display_name": "predict",
        "model": made.model,
        "input_config": {"instances_format": "bigquery", "bigquery_source": {"input_uri": f"bq://{PROJECT}.ds.features"}},
        "instance_config": {"instance_type": "object", "excluded_fields": ["flight_id", "partition_date"]},
        "output_config": {"predictions_format": "bigquery", "bigquery_destination": target},
        "dedicated_resources": {"machine_spec": {"machine_type": MACHINE}, "starting_replica_count": 1, "max_replica_count": 1},
    }
    jobs = jobs_client()
    job = jobs.create_batch_prediction_job(parent=PARENT, batch_prediction_job=asked)
    ran(jobs.get_batch_prediction_job, job.name)
    answers = {row["flight_id"]: json.loads(row["prediction"]) for row in client.list_rows(f"{PROJECT}.ds.answers")}
    expected = dict(zip(scored["flight_id"].to_pylist(), scored["score"].to_pylist(), strict=True))
    assert answers == {key: {"score": score, "unseen": []} for key, score in expected.items()}


def test_dataflow_gives_the_scores_and_predictions_of_a_laptop(
    lake: Any, model: tuple[Path, str], scored: pa.Table, tmp_path: Path
) -> None:
    artifact = {"artifact": "gs://lake/models/1/model.tar.gz", "manifest_sha256": model[1], "key": "flight_id"}
    launch(lake, "score", features="gs://lake/features/*.parquet", output="gs://lake/scores/part", **artifact)
    assert read(lake, "scores/").drop_columns(["unseen"]).equals(scored)
    stamp = {name: str(value) for name, value in STAMP.items()}
    launch(lake, "postprocess", input="gs://lake/scores/*.parquet", output="gs://lake/predictions/part", **stamp)
    spec = {**STAMP, "scores": str(tmp_path / "scores.parquet"), "output": str(tmp_path / "predictions.parquet")}
    assert running.run("postprocess", {**spec, "result": str(tmp_path / "result.json")}, tmp_path).returncode == 0
    assert read(lake, "predictions/").equals(pq.read_table(tmp_path / "predictions.parquet").sort_by("flight_id"))
