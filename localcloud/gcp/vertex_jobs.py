"""Vertex AI's custom jobs and training pipelines: programs that are run in containers, one of one replica at a time."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

from localcloud.gcp.containers import command, environment, failure, image_of, last_words, logged, run, variables
from localcloud.gcp.service import Cloud, Method, Methods
from localcloud.gcp.vertex_entries import Entries, Kind
from localcloud.gcp.vertex_models import Registry
from localcloud.gcp.vertex_mount import Mount
from localcloud.gcp.vertex_resources import NUMBER, Location, check_named, given, invalid
from localcloud.honoured import honoured
from localcloud.jobs import Job
from localcloud.service import NotHonoured, Refused

SERVICE = "aiplatform"
CUSTOM = Kind("customJobs", types.CustomJob, "JOB_STATE_", "CustomJob", "custom_jobs")
PIPELINE = Kind("trainingPipelines", types.TrainingPipeline, "PIPELINE_STATE_", "TrainingPipeline", "training_pipelines")
CUSTOM_TASK = "gs://google-cloud-aiplatform/schema/trainingjob/definition/custom_task_1.0.0.yaml"
WEEK = 7 * 86400.0

check_custom = honoured("CreateCustomJob", "display_name labels encryption_spec.kms_key_name")
check_spec = honoured(
    "CustomJobSpec",
    """
    worker_pool_specs.container_spec.image_uri worker_pool_specs.container_spec.command worker_pool_specs.container_spec.args
    worker_pool_specs.container_spec.env worker_pool_specs.machine_spec.machine_type worker_pool_specs.replica_count=1
    worker_pool_specs.disk_spec
    scheduling.timeout scheduling.strategy=STANDARD|ON_DEMAND scheduling.disable_retries
    service_account network base_output_directory.output_uri_prefix
    """,
)
check_pipeline = honoured(
    "CreateTrainingPipeline",
    f"""
    display_name labels encryption_spec.kms_key_name training_task_definition={CUSTOM_TASK} training_task_inputs
    model_to_upload model_id parent_model
    """,
)


class Trainings:
    """Both kinds. The work of a pipeline is that of a custom job, which can be looked at and is what is billed."""

    def __init__(self, cloud: Cloud, location: Location, registry: Registry) -> None:
        self._cloud, self._location, self._registry = cloud, location, registry
        self._custom, self._pipelines = Entries(cloud, location, CUSTOM), Entries(cloud, location, PIPELINE)

    def methods(self) -> Methods:
        jobs, pipelines = (f"/google.cloud.aiplatform.v1.{name}Service/" for name in ("Job", "Pipeline"))
        return {
            f"{jobs}CreateCustomJob": Method(types.CreateCustomJobRequest, self.create_custom),
            **self._custom.methods(jobs, types),
            f"{pipelines}CreateTrainingPipeline": Method(types.CreateTrainingPipelineRequest, self.create_pipeline),
            **self._pipelines.methods(pipelines, types),
        }

    def create_custom(self, request: types.CreateCustomJobRequest) -> types.CustomJob:
        self._location.check(request.parent)
        resource = given(request.custom_job)
        check_custom({name: value for name, value in resource.items() if name != "job_spec"})
        check_named(resource)
        spec = _checked(resource.get("job_spec", {}))
        entry = self._custom.begin(resource)
        entry.job = self._start(
            "custom-job",
            resource,
            spec,
            lambda job: run_custom(self._cloud, job, spec, entry.key),
            lambda job: self._custom.end(entry, job),
        )
        message: types.CustomJob = self._custom.message(entry)
        return message

    def create_pipeline(self, request: types.CreateTrainingPipelineRequest) -> types.TrainingPipeline:
        self._location.check(request.parent)
        resource = given(request.training_pipeline)
        check_pipeline(resource)
        check_named(resource)
        if "training_task_definition" not in resource:
            raise invalid("training_task_definition must be given.")
        spec = _checked(_spec(resource.get("training_task_inputs") or {}))
        model = resource.get("model_to_upload")
        parent = resource.get("parent_model", "").partition("@")[0]
        parent = self._location.id_of(parent, "models") if parent else ""
        if model is not None:
            self._registry.check(model, parent, resource.get("model_id", ""))
            if "base_output_directory" not in spec:
                raise invalid("model_to_upload needs a base_output_directory, below which the training leaves the model.")
        backing: dict[str, Any] = {name: resource[name] for name in ("labels", "encryption_spec") if name in resource}
        custom = self._custom.begin({**backing, "display_name": f"{resource['display_name']}-custom-job", "job_spec": spec})
        pipeline = self._pipelines.begin(resource)

        def work(job: Job) -> None:
            told = {"training_task_metadata": {"backingCustomJob": custom.resource["name"]}}
            job.facts["told"] = {PIPELINE.collection: told}
            run_custom(self._cloud, job, spec, custom.key)
            if model is not None:
                version = self._upload(job, model, spec, parent, resource.get("model_id", "") or pipeline.key)
                job.facts["told"] = {PIPELINE.collection: {**told, "model_to_upload": version}}

        def on_end(job: Job) -> None:
            self._custom.end(custom, job)
            self._pipelines.end(pipeline, job)

        custom.job = pipeline.job = self._start("training-pipeline", resource, spec, work, on_end)
        message: types.TrainingPipeline = self._pipelines.message(pipeline)
        return message

    def _start(
        self,
        kind: str,
        resource: dict[str, Any],
        spec: Mapping[str, Any],
        work: Callable[[Job], None],
        on_end: Callable[[Job], None],
    ) -> Job:
        pool = spec["worker_pool_specs"][0]
        timeout = spec.get("scheduling", {}).get("timeout")
        return self._cloud.jobs.start(
            SERVICE,
            kind,
            resource["display_name"],
            resource,
            work,
            limit=float(timeout.removesuffix("s")) if timeout else WEEK,
            on_end=on_end,
            instance_type=pool["machine_spec"]["machine_type"],
            instance_count=int(pool["replica_count"]),
            tags=dict(resource.get("labels", {})),
        )

    def _upload(self, job: Job, model: Mapping[str, Any], spec: Mapping[str, Any], parent: str, model_id: str) -> dict[str, Any]:
        trained = f"{spec['base_output_directory']['output_uri_prefix'].rstrip('/')}/model"
        try:
            return self._registry.commit({"artifact_uri": trained, **model}, parent, model_id)
        except Refused as error:
            raise failure(job, f"The model cannot be uploaded: {error.message}") from None


def run_custom(cloud: Cloud, job: Job, spec: Mapping[str, Any], key: str) -> None:
    """The program of a custom job, with all buckets below what stands for /gcs."""
    container = spec["worker_pool_specs"][0]["container_spec"]
    with logged(cloud, job, key) as log:
        image = image_of(cloud, job, container["image_uri"])
        home = cloud.folder / "vertex" / "work" / key
        shutil.rmtree(home, ignore_errors=True)
        mount = Mount(cloud.objects, home / "gcs", job.say)
        mount.fill()
        own = _own(cloud, spec, key)
        asked = variables(container.get("env", ()), own)
        try:
            code = run(job, command(image, container), environment(cloud, image, home, own, asked, mount.folder), image)
        finally:
            # Also of a program that has failed: Cloud Storage FUSE has written it long since.
            mount.publish()
            with suppress(OSError):
                shutil.rmtree(home)
        if code:
            raise failure(
                job,
                f"The replica workerpool0-0 exited with a non-zero status of {code}.\n{last_words(job)}\n"
                f"To find out more about why your job exited please check the logs: {log}",
            )


def _own(cloud: Cloud, spec: Mapping[str, Any], key: str) -> dict[str, str]:
    """What Vertex tells a training container by its environment."""
    task = {"type": "workerpool0", "index": 0, "trial": ""}
    cluster = {"workerpool0": ["127.0.0.1:2222"]}
    given_to = {
        "CLOUD_ML_JOB_ID": key,
        "CLOUD_ML_PROJECT_ID": NUMBER,
        "CLOUD_ML_REGION": cloud.region,
        "CLUSTER_SPEC": json.dumps({"cluster": cluster, "environment": "cloud", "task": task}),
    }
    if base := spec.get("base_output_directory", {}).get("output_uri_prefix", "").rstrip("/"):
        given_to["AIP_MODEL_DIR"] = f"{base}/model/"
        given_to["AIP_CHECKPOINT_DIR"] = f"{base}/checkpoints/"
        given_to["AIP_TENSORBOARD_LOG_DIR"] = f"{base}/logs/"
    return given_to


def _spec(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a pipeline's task, which are JSON in either way of writing names, by the names of the proto.

    Raises:
        Refused: naming what a custom job does not have.
    """
    try:
        spec = json_format.ParseDict(dict(inputs), types.CustomJobSpec.pb(types.CustomJobSpec()))
    except json_format.ParseError as error:
        raise invalid(f"training_task_inputs: {error}") from None
    return given(types.CustomJobSpec.wrap(spec))


def _checked(spec: dict[str, Any]) -> dict[str, Any]:
    """Raises Refused if a job cannot be run, or not here."""
    check_spec(spec)
    pools = spec.get("worker_pool_specs", [])
    if not pools:
        raise invalid("worker_pool_specs must have one worker pool.")
    if len(pools) > 1:
        raise NotHonoured("more than one of worker_pool_specs")
    pool = pools[0]
    if "image_uri" not in pool.get("container_spec", {}):
        raise invalid("worker_pool_specs[0].container_spec.image_uri must be given.")
    if "machine_type" not in pool.get("machine_spec", {}):
        raise invalid("worker_pool_specs[0].machine_spec.machine_type must be given.")
    if "replica_count" not in pool:
        raise invalid("worker_pool_specs[0].replica_count must be at least 1.")
    base = spec.get("base_output_directory", {}).get("output_uri_prefix", "gs://")
    if not base.startswith("gs://"):
        raise invalid(f"base_output_directory {base!r} must begin with gs://.")
    return spec
