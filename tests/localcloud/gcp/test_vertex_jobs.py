"""Custom jobs and training pipelines of the local Vertex AI: programs that really run, by the real clients."""

from __future__ import annotations

import json
import time
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
    TRAINER,
    custom,
    ended,
    images,
    jobs_client,
    log,
    model,
    models_client,
    pipelines_client,
    put,
    reached,
    uploaded,
    waited_for,
)

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

OUTPUT = {"base_output_directory": {"output_uri_prefix": "gs://lake/out"}}
CUSTOM_TASK = "gs://google-cloud-aiplatform/schema/trainingjob/definition/custom_task_1.0.0.yaml"


@pytest.fixture(scope="module")
def running(running_google: GoogleCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("vertex"), images(), stop_seconds=2) as cloud:
        yield cloud


@pytest.fixture
def cloud(running: GoogleCloud, as_client: AsClient) -> Iterator[GoogleCloud]:
    running.reset()
    as_client(running)
    yield running
    assert running.refused_hosts() == []


@pytest.fixture
def lake(cloud: GoogleCloud) -> Any:
    bucket = cloud.bucket("lake")
    put(bucket, **{"in/a.txt": "1\n2\n", "in/b.txt": "3\n", "in/old.json": "{}", "in/folder/": ""})
    return bucket


@pytest.fixture
def client(lake: Any) -> Any:
    return jobs_client()


def created(client: Any, *args: str, name: str = "train", **more: Any) -> Any:
    return client.create_custom_job(parent=PARENT, custom_job=custom(name, *args, **more))


def environment(cloud: GoogleCloud, name: str) -> dict[str, str]:
    """What the program found."""
    (line,) = [line for line in log(cloud, name).splitlines() if line.startswith("environment: ")]
    found: dict[str, str] = json.loads(line.removeprefix("environment: "))
    return found


def test_a_program_reads_and_writes_the_buckets(cloud: GoogleCloud, client: Any, lake: Any) -> None:
    job = created(client, spec=OUTPUT, labels={"team": "ml"})
    assert job.name.startswith(f"{NUMBERED}/customJobs/")
    assert job.state.name == "JOB_STATE_PENDING"
    assert not job.start_time
    reached(client.get_custom_job, job.name, "JOB_STATE_RUNNING")
    job = ended(client.get_custom_job, job.name)
    assert job.state.name == "JOB_STATE_SUCCEEDED"
    assert job.create_time <= job.start_time <= job.end_time
    assert not job.error.message
    assert json.loads(lake.blob("out/model/model.json").download_as_text()) == {"rows": 3, "offset": 100}
    (billed,) = cloud.jobs()
    assert (billed["service"], billed["kind"], billed["name"]) == ("aiplatform", "custom-job", "train")
    assert (billed["instance_type"], billed["instance_count"], billed["tags"]) == (MACHINE, 1, {"team": "ml"})
    assert billed["billed_seconds"] >= 1


def test_a_program_is_told_what_vertex_tells(cloud: GoogleCloud, client: Any) -> None:
    asked = [{"name": "FIRST", "value": "1"}, {"name": "SECOND", "value": "$(FIRST)2"}]
    job = created(client, spec=OUTPUT, container={"env": asked})
    ended(client.get_custom_job, job.name)
    found = environment(cloud, "train")
    assert found["AIP_MODEL_DIR"] == "gs://lake/out/model/"
    assert found["AIP_CHECKPOINT_DIR"] == "gs://lake/out/checkpoints/"
    assert found["AIP_TENSORBOARD_LOG_DIR"] == "gs://lake/out/logs/"
    assert found["CLOUD_ML_JOB_ID"] == job.name.rpartition("/")[2]
    assert found["CLOUD_ML_PROJECT_ID"] == "1"
    assert (found["FIRST"], found["SECOND"], found["OF_IMAGE"]) == ("1", "12", "yes")
    assert found["GOOGLE_CLOUD_PROJECT"] == PROJECT
    assert found["HTTPS_PROXY"] == cloud.url
    assert "USER" not in found


def test_a_command_takes_the_place_of_the_entrypoint(cloud: GoogleCloud, client: Any) -> None:
    job = created(client, "-c", "echo hello $0", "world", container={"command": ["sh"]})
    assert ended(client.get_custom_job, job.name).state.name == "JOB_STATE_SUCCEEDED"
    assert log(cloud, "train") == "hello world\n"


def test_what_is_changed_and_deleted_below_the_mount_is_so_in_the_bucket(client: Any, lake: Any) -> None:
    untouched = lake.get_blob("in/folder/").generation
    job = created(client, "--behave", "tidy")
    assert ended(client.get_custom_job, job.name).state.name == "JOB_STATE_SUCCEEDED"
    assert lake.blob("in/a.txt").download_as_text() == "1\n2\nmore\n"
    assert not lake.blob("in/old.json").exists()
    assert lake.get_blob("in/folder/").generation == untouched


def test_what_is_not_changed_is_not_written_again(client: Any, lake: Any) -> None:
    before = lake.get_blob("in/a.txt").generation
    ended(client.get_custom_job, created(client, spec=OUTPUT).name)
    assert lake.get_blob("in/a.txt").generation == before


def test_a_file_where_no_bucket_is_fails_the_job(client: Any) -> None:
    job = ended(client.get_custom_job, created(client, "--behave", "nowhere").name)
    assert job.state.name == "JOB_STATE_FAILED"
    assert "/gcs/no-such-bucket/file: Input/output error" in job.error.message


def test_a_program_that_fails_fails_its_job_with_its_last_words(cloud: GoogleCloud, client: Any) -> None:
    job = ended(client.get_custom_job, created(client, "--behave", "fail").name)
    assert job.state.name == "JOB_STATE_FAILED"
    assert job.error.code == 3
    assert "exited with a non-zero status of 3" in job.error.message
    assert "ValueError: the rows are wrong" in job.error.message
    assert job.end_time
    (billed,) = cloud.jobs("custom-job")
    assert (billed["state"], billed["reason"]) == ("Failed", job.error.message)


def test_a_program_that_is_killed_fails_its_job(client: Any) -> None:
    job = ended(client.get_custom_job, created(client, "--behave", "kill").name)
    assert "non-zero status of 137" in job.error.message


def test_an_image_that_is_not_there_fails_the_job(client: Any) -> None:
    job = ended(client.get_custom_job, created(client, container={"image_uri": "nowhere:1"}).name)
    assert job.state.name == "JOB_STATE_FAILED"
    assert "Failed to pull image nowhere:1" in job.error.message


def test_a_command_that_is_not_there_fails_the_job(client: Any) -> None:
    job = ended(client.get_custom_job, created(client, container={"command": ["no-such-program"]}).name)
    assert job.state.name == "JOB_STATE_FAILED"
    assert "cannot be started" in job.error.message


def test_a_job_is_cancelled_when_its_program_has_ended(cloud: GoogleCloud, client: Any) -> None:
    job = created(client, "--behave", "hang")
    waited_for(cloud, "train", "hanging")
    client.cancel_custom_job(name=job.name)
    assert client.get_custom_job(name=job.name).state.name in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")
    job = ended(client.get_custom_job, job.name)
    assert (job.state.name, job.error.code) == ("JOB_STATE_CANCELLED", 1)
    assert cloud.jobs()[0]["stops"] == 1
    with pytest.raises(exceptions.FailedPrecondition, match="cannot be cancelled"):
        client.cancel_custom_job(name=job.name)


def test_a_job_that_takes_too_long_is_cancelled(cloud: GoogleCloud, client: Any) -> None:
    job = created(client, "--behave", "hang", spec={"scheduling": {"timeout": {"seconds": 1}}})
    job = ended(client.get_custom_job, job.name)
    assert (job.state.name, job.error.code) == ("JOB_STATE_CANCELLED", 4)
    assert "timeout" in job.error.message
    assert cloud.jobs()[0]["stops"] == 0


def test_a_fault_fails_stops_or_hangs_a_job(cloud: GoogleCloud, client: Any) -> None:
    cloud.fault("fail", "aiplatform", "CreateCustomJob", match="broken", reason="no machine was free")
    cloud.fault("stop", "aiplatform", "CreateCustomJob", match="stopped")
    cloud.fault("hang", "aiplatform", "CreateCustomJob", match="stuck")
    broken, stopped, stuck = (created(client, name=name) for name in ("broken", "stopped", "stuck"))
    broken = ended(client.get_custom_job, broken.name)
    assert (broken.state.name, broken.error.message) == ("JOB_STATE_FAILED", "no machine was free")
    assert ended(client.get_custom_job, stopped.name).state.name == "JOB_STATE_CANCELLED"
    assert client.get_custom_job(name=stuck.name).state.name == "JOB_STATE_RUNNING"
    client.cancel_custom_job(name=stuck.name)
    assert ended(client.get_custom_job, stuck.name).state.name == "JOB_STATE_CANCELLED"


def test_an_answer_that_is_lost_leaves_a_job_that_can_be_found(cloud: GoogleCloud, client: Any) -> None:
    cloud.fault("lose_response", "aiplatform", "CreateCustomJob")
    with pytest.raises(exceptions.ServiceUnavailable):
        client.create_custom_job({"parent": PARENT, "custom_job": custom("train", labels={"run": "7"})}, retry=None)
    (found,) = client.list_custom_jobs({"parent": PARENT, "filter": 'display_name="train" AND labels.run="7"'})
    assert found.display_name == "train"


def test_two_jobs_may_have_one_name(cloud: GoogleCloud, client: Any) -> None:
    first, second = created(client), created(client)
    assert first.name != second.name
    for job in (first, second):
        assert ended(client.get_custom_job, job.name).state.name == "JOB_STATE_SUCCEEDED"
    assert [job["name"] for job in cloud.jobs("custom-job")] == ["train", "train"]


def test_lists_are_filtered_and_the_newest_is_first(cloud: GoogleCloud, client: Any) -> None:
    made = [created(client, "--behave", how, name=f"job-{how or 'good'}", labels={"how": how}) for how in ("", "fail", "")]
    for job in made:
        ended(client.get_custom_job, job.name)
    assert [job.name for job in client.list_custom_jobs(parent=PARENT)] == [job.name for job in reversed(made)]
    for filter, names in (
        ('state="JOB_STATE_FAILED"', ["job-fail"]),
        ('display_name="job-good"', ["job-good", "job-good"]),
        ('display_name="job-good" AND state="JOB_STATE_FAILED"', []),
        ('labels.how="fail"', ["job-fail"]),
    ):
        assert [job.display_name for job in client.list_custom_jobs({"parent": PARENT, "filter": filter})] == names
    assert len(list(client.list_custom_jobs({"parent": PARENT, "page_size": 1}))) == 3
    with pytest.raises(exceptions.MethodNotImplemented, match="filter"):
        client.list_custom_jobs({"parent": PARENT, "filter": 'create_time>"2026-01-01"'})
    with pytest.raises(exceptions.MethodNotImplemented, match="read_mask"):
        client.list_custom_jobs({"parent": PARENT, "read_mask": {"paths": ["name"]}})


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"pool": {"replica_count": 2}}, "worker_pool_specs.replica_count=2"),
        ({"pool": {"machine_spec": {"machine_type": MACHINE, "accelerator_type": "NVIDIA_TESLA_T4"}}}, "accelerator_type"),
        ({"spec": {"scheduling": {"strategy": "SPOT"}}}, "scheduling.strategy=SPOT"),
        ({"spec": {"scheduling": {"restart_job_on_worker_restart": True}}}, "restart_job_on_worker_restart"),
        ({"spec": {"enable_web_access": True}}, "enable_web_access"),
        ({"spec": {"tensorboard": "x"}}, "tensorboard"),
        ({"spec": {"persistent_resource_id": "x"}}, "persistent_resource_id"),
    ],
)
def test_what_is_not_honoured_is_refused_by_name(client: Any, more: dict[str, Any], named: str) -> None:
    with pytest.raises(exceptions.MethodNotImplemented, match=named):
        created(client, **more)


def test_what_is_wrong_is_refused(cloud: GoogleCloud, client: Any) -> None:
    for job in (
        custom(""),
        custom("x" * 129),
        custom("train", labels={"Run": "1"}),
        custom("train", pool={"machine_spec": {}}),
        custom("train", pool={"replica_count": 0}),
        custom("train", container={"image_uri": ""}),
        custom("train", spec={"worker_pool_specs": []}),
        custom("train", spec={"base_output_directory": {"output_uri_prefix": "s3://lake"}}),
    ):
        with pytest.raises(exceptions.InvalidArgument):
            client.create_custom_job(parent=PARENT, custom_job=job)
    with pytest.raises(exceptions.InvalidArgument, match="europe-west1"):
        client.create_custom_job(parent=f"projects/{PROJECT}/locations/europe-west1", custom_job=custom("train"))
    with pytest.raises(exceptions.NotFound):
        client.get_custom_job(name=f"{PARENT}/customJobs/1")
    assert cloud.jobs() == []


def test_the_hook_of_the_provider_creates_and_cancels(cloud: GoogleCloud, lake: Any) -> None:
    from airflow.providers.google.cloud.hooks.vertex_ai.custom_job import CustomJobHook

    hook = CustomJobHook(gcp_conn_id="google_cloud_default")
    job = hook.create_custom_job(project_id=PROJECT, region=REGION, custom_job=custom("train", "--behave", "hang"))
    waited_for(cloud, "train", "hanging")
    key = hook.extract_custom_job_id(job.name)
    hook.cancel_custom_job(project_id=PROJECT, region=REGION, custom_job=key)
    client = hook.get_job_service_client(REGION)
    assert ended(client.get_custom_job, job.name).state.name == "JOB_STATE_CANCELLED"


def pipeline(name: str, *args: str, inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    pool = {
        "machineSpec": {"machineType": MACHINE},
        "replicaCount": 1,
        "containerSpec": {"imageUri": TRAINER, "args": list(args)},
    }
    return {
        "display_name": name,
        "training_task_definition": CUSTOM_TASK,
        "training_task_inputs": {
            "workerPoolSpecs": [pool],
            "baseOutputDirectory": {"outputUriPrefix": "gs://lake/out"},
            **(inputs or {}),
        },
        **more,
    }


def test_a_pipeline_trains_in_a_custom_job_that_is_billed_once(cloud: GoogleCloud, lake: Any) -> None:
    client = pipelines_client()
    made = client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline("train", labels={"team": "ml"}))
    assert made.state.name == "PIPELINE_STATE_PENDING"
    done = ended(client.get_training_pipeline, made.name)
    assert done.state.name == "PIPELINE_STATE_SUCCEEDED"
    backing = jobs_client().get_custom_job(name=done.training_task_metadata["backingCustomJob"])
    assert (backing.state.name, backing.display_name) == ("JOB_STATE_SUCCEEDED", "train-custom-job")
    assert dict(backing.labels) == {"team": "ml"}
    assert lake.blob("out/model/model.json").exists()
    (billed,) = cloud.jobs()
    assert (billed["kind"], billed["name"]) == ("training-pipeline", "train")
    assert billed["billed_seconds"] >= 1


def test_a_pipeline_uploads_the_model_that_it_trains(cloud: GoogleCloud, lake: Any) -> None:
    put(lake, **{"models/1/model.json": "{}"})
    parent = uploaded(models_client(), model("late")).model
    upload = model("late", version_aliases=["challenger"])
    del upload["artifact_uri"]
    client = pipelines_client()
    made = client.create_training_pipeline(
        parent=PARENT, training_pipeline=pipeline("train", model_to_upload=upload, parent_model=parent)
    )
    done = ended(client.get_training_pipeline, made.name)
    assert (done.model_to_upload.name, done.model_to_upload.version_id) == (parent, "2")
    version = models_client().get_model(name=f"{parent}@challenger")
    assert version.artifact_uri == "gs://lake/out/model"


def test_the_hook_of_the_provider_submits_a_pipeline(cloud: GoogleCloud, lake: Any) -> None:
    from airflow.providers.google.cloud.hooks.vertex_ai.custom_job import CustomJobHook

    hook = CustomJobHook(gcp_conn_id="google_cloud_default")
    hook.submit_custom_container_training_job(
        project_id=PROJECT,
        region=REGION,
        display_name="train",
        container_uri=TRAINER,
        args=["--input=lake/in"],
        staging_bucket="gs://lake",
        base_output_dir="gs://lake/out",
        replica_count=1,
        machine_type=MACHINE,
    )
    # The SDK creates it in a thread of its own, and does not wait for that.
    waited_for(cloud, "train", "environment: ")
    client = hook.get_pipeline_service_client(REGION)
    (made,) = client.list_training_pipelines({"parent": PARENT, "filter": 'display_name="train"'})
    done = ended(client.get_training_pipeline, made.name)
    assert done.state.name == "PIPELINE_STATE_SUCCEEDED", done.error.message
    assert lake.blob("out/model/model.json").exists()


def test_a_pipeline_without_a_model_to_upload_fails(lake: Any) -> None:
    client = pipelines_client()
    asked = pipeline("train", "--behave", "nothing", model_to_upload={**model("late"), "artifact_uri": ""})
    done = ended(client.get_training_pipeline, client.create_training_pipeline(parent=PARENT, training_pipeline=asked).name)
    assert done.state.name == "PIPELINE_STATE_FAILED"
    assert "no object below" in done.error.message


def test_a_pipeline_fails_and_is_cancelled_with_its_job(cloud: GoogleCloud, lake: Any) -> None:
    client = pipelines_client()
    failing = client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline("failing", "--behave", "fail"))
    hanging = client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline("hanging", "--behave", "hang"))
    failed = ended(client.get_training_pipeline, failing.name)
    assert failed.state.name == "PIPELINE_STATE_FAILED"
    assert "the rows are wrong" in failed.error.message
    waited_for(cloud, "hanging", "hanging")
    client.cancel_training_pipeline(name=hanging.name)
    assert ended(client.get_training_pipeline, hanging.name).state.name == "PIPELINE_STATE_CANCELLED"
    listed = client.list_training_pipelines({"parent": PARENT, "filter": 'state="PIPELINE_STATE_CANCELLED"'})
    assert [each.display_name for each in listed] == ["hanging"]


def test_what_a_pipeline_is_not_is_refused(lake: Any) -> None:
    client = pipelines_client()
    with pytest.raises(exceptions.MethodNotImplemented, match="training_task_definition"):
        other = CUSTOM_TASK.replace("custom_task", "automl_tabular")
        client.create_training_pipeline(parent=PARENT, training_pipeline={**pipeline("train"), "training_task_definition": other})
    with pytest.raises(exceptions.MethodNotImplemented, match="input_data_config"):
        client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline("train", input_data_config={"dataset_id": "1"}))
    with pytest.raises(exceptions.InvalidArgument, match="workerPools"):
        client.create_training_pipeline(parent=PARENT, training_pipeline=pipeline("train", inputs={"workerPools": []}))


def test_jobs_survive_a_restart_and_those_that_ran_have_failed(
    running_google: GoogleCloud, as_client: AsClient, tmp_path: Any
) -> None:
    cloud = GoogleCloud(tmp_path / "restarted", images())
    with cloud:
        as_client(cloud)
        cloud.bucket("lake")
        client = jobs_client()
        done = ended(client.get_custom_job, created(client, name="done").name)
        running = created(client, "--behave", "hang", name="running")
        waited_for(cloud, "running", "hanging")
        assert cloud.process
        cloud.process.kill()
        time.sleep(0.2)
    with cloud:
        as_client(cloud)
        client = jobs_client()
        assert client.get_custom_job(name=done.name) == done
        lost = client.get_custom_job(name=running.name)
        assert (lost.state.name, lost.error.code) == ("JOB_STATE_FAILED", 13)
        assert "local cloud ended" in lost.error.message
        with pytest.raises(exceptions.FailedPrecondition):
            client.cancel_custom_job(name=running.name)
