"""SageMaker: what its jobs are asked, and what is told of them. What the jobs do is in sagemaker_runs and _transform."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from localcloud import sagemaker_runs, sagemaker_transform, sagemaker_tuning
from localcloud.files import Unusable
from localcloud.honoured import honoured
from localcloud.jobs import OVER, Job, JobFailed
from localcloud.listing import listed
from localcloud.sagemaker_models import Registry
from localcloud.service import Cloud, Handler, Refused
from localcloud.transitions import ended, note, secondary, transitions

DAY = 86400


@dataclass(frozen=True)
class Kind:
    """One of SageMaker's kinds of jobs."""

    name: str  # as in CreateTrainingJob
    resource: str  # as in an ARN
    missing: str  # the message for a job that is not there
    again: str  # members of the request that are told again
    check: Callable[[Mapping[str, Any]], None]

    @property
    def member(self) -> str:
        return f"{self.name}JobName"


TRAINING = Kind(
    "Training",
    "training-job",
    "Requested resource not found.",
    (
        "HyperParameters AlgorithmSpecification RoleArn InputDataConfig OutputDataConfig ResourceConfig VpcConfig"
        " EnableNetworkIsolation EnableInterContainerTrafficEncryption EnableManagedSpotTraining CheckpointConfig"
        " ExperimentConfig Environment"
    ),
    honoured(
        "CreateTrainingJob",
        """
        TrainingJobName HyperParameters RoleArn Environment Tags VpcConfig ExperimentConfig
        AlgorithmSpecification.TrainingImage AlgorithmSpecification.TrainingInputMode=File
        AlgorithmSpecification.MetricDefinitions AlgorithmSpecification.ContainerEntrypoint
        AlgorithmSpecification.ContainerArguments AlgorithmSpecification.EnableSageMakerMetricsTimeSeries=False
        InputDataConfig.ChannelName InputDataConfig.ContentType InputDataConfig.CompressionType=None
        InputDataConfig.RecordWrapperType=None InputDataConfig.InputMode=File
        InputDataConfig.DataSource.S3DataSource.S3DataType=S3Prefix InputDataConfig.DataSource.S3DataSource.S3Uri
        InputDataConfig.DataSource.S3DataSource.S3DataDistributionType
        OutputDataConfig.KmsKeyId OutputDataConfig.S3OutputPath OutputDataConfig.CompressionType=GZIP
        ResourceConfig.InstanceType ResourceConfig.InstanceCount=1 ResourceConfig.VolumeSizeInGB
        ResourceConfig.VolumeKmsKeyId StoppingCondition.MaxRuntimeInSeconds StoppingCondition.MaxWaitTimeInSeconds
        EnableNetworkIsolation EnableInterContainerTrafficEncryption EnableManagedSpotTraining
        CheckpointConfig.S3Uri CheckpointConfig.LocalPath=/opt/ml/checkpoints
        """,
    ),
)
PROCESSING = Kind(
    "Processing",
    "processing-job",
    "Could not find requested job with name: {name}",
    (
        "ProcessingInputs ProcessingOutputConfig ProcessingResources AppSpecification Environment NetworkConfig RoleArn"
        " ExperimentConfig"
    ),
    honoured(
        "CreateProcessingJob",
        """
        ProcessingJobName RoleArn Environment Tags NetworkConfig ExperimentConfig
        ProcessingInputs.InputName ProcessingInputs.AppManaged=False ProcessingInputs.S3Input.S3Uri
        ProcessingInputs.S3Input.LocalPath ProcessingInputs.S3Input.S3DataType=S3Prefix
        ProcessingInputs.S3Input.S3InputMode=File ProcessingInputs.S3Input.S3DataDistributionType
        ProcessingInputs.S3Input.S3CompressionType=None
        ProcessingOutputConfig.KmsKeyId ProcessingOutputConfig.Outputs.OutputName
        ProcessingOutputConfig.Outputs.AppManaged=False ProcessingOutputConfig.Outputs.S3Output.S3Uri
        ProcessingOutputConfig.Outputs.S3Output.LocalPath ProcessingOutputConfig.Outputs.S3Output.S3UploadMode=EndOfJob
        ProcessingResources.ClusterConfig.InstanceCount=1 ProcessingResources.ClusterConfig.InstanceType
        ProcessingResources.ClusterConfig.VolumeSizeInGB ProcessingResources.ClusterConfig.VolumeKmsKeyId
        StoppingCondition.MaxRuntimeInSeconds
        AppSpecification.ImageUri AppSpecification.ContainerEntrypoint AppSpecification.ContainerArguments
        """,
    ),
)
TRANSFORM = Kind(
    "Transform",
    "transform-job",
    "Could not find requested job with name: {name}",
    (
        "ModelName MaxConcurrentTransforms ModelClientConfig MaxPayloadInMB BatchStrategy Environment TransformInput"
        " TransformOutput TransformResources DataProcessing ExperimentConfig"
    ),
    honoured(
        "CreateTransformJob",
        """
        TransformJobName ModelName Environment Tags ExperimentConfig
        MaxConcurrentTransforms MaxPayloadInMB BatchStrategy ModelClientConfig
        TransformInput.DataSource.S3DataSource.S3DataType=S3Prefix TransformInput.DataSource.S3DataSource.S3Uri
        TransformInput.ContentType TransformInput.CompressionType TransformInput.SplitType=None|Line
        TransformOutput.S3OutputPath TransformOutput.Accept TransformOutput.AssembleWith TransformOutput.KmsKeyId
        TransformResources.InstanceType TransformResources.InstanceCount TransformResources.VolumeKmsKeyId
        DataProcessing
        """,
    ),
)
KINDS = (TRAINING, PROCESSING, TRANSFORM)
STATUS = {"Pending": "InProgress", "Running": "InProgress"}  # the other states are called as here


def operations(cloud: Cloud) -> dict[str, Handler]:
    registry = Registry(cloud)
    jobs = SageMakerJobs(cloud, registry)
    return {**jobs.operations(), **registry.operations(), **sagemaker_tuning.Tuning(cloud, jobs, registry).operations()}


class SageMakerJobs:
    """Training, processing and transform jobs: asked for, told of, stopped and listed alike."""

    def __init__(self, cloud: Cloud, registry: Registry) -> None:
        self._cloud, self._registry = cloud, registry
        self._lock = threading.Lock()  # two requests for one name: the second is refused

    def operations(self) -> dict[str, Handler]:
        found: dict[str, Handler] = {
            "CreateTrainingJob": self.create_training,
            "CreateProcessingJob": self.create_processing,
            "CreateTransformJob": self.create_transform,
            "DescribeTrainingJob": self.describe_training,
            "DescribeProcessingJob": self.describe_processing,
            "DescribeTransformJob": self.describe_transform,
        }
        for kind in KINDS:
            found[f"Stop{kind.name}Job"] = self._stopper(kind)
            found[f"List{kind.name}Jobs"] = self._lister(kind)
        return found

    def check_training(self, request: dict[str, Any]) -> dict[str, int]:
        """Refuse a request that no training can be made of; its stopping condition."""
        TRAINING.check(request)
        condition = {"MaxRuntimeInSeconds": DAY, **request.get("StoppingCondition", {})}
        _check_training(request, condition)
        return condition

    def create_training(self, request: dict[str, Any], **facts: Any) -> dict[str, Any]:
        condition = self.check_training(request)
        resources = request["ResourceConfig"]
        facts |= {"stopping_condition": condition, **_billing(resources["InstanceType"], resources["InstanceCount"])}
        return self._create(
            TRAINING, request, lambda job: sagemaker_runs.train(self._cloud, job), condition["MaxRuntimeInSeconds"], **facts
        )

    def create_processing(self, request: dict[str, Any]) -> dict[str, Any]:
        PROCESSING.check(request)
        condition = {"MaxRuntimeInSeconds": DAY, **request.get("StoppingCondition", {})}
        _check_processing(request)
        cluster = request["ProcessingResources"]["ClusterConfig"]
        return self._create(
            PROCESSING,
            request,
            lambda job: sagemaker_runs.process(self._cloud, job),
            condition["MaxRuntimeInSeconds"],
            stopping_condition=condition,
            **_billing(cluster["InstanceType"], cluster["InstanceCount"]),
        )

    def create_transform(self, request: dict[str, Any]) -> dict[str, Any]:
        TRANSFORM.check(request)
        container = self._registry.container(request["ModelName"])
        plan = sagemaker_transform.planned(request)
        resources = request["TransformResources"]
        return self._create(
            TRANSFORM,
            request,
            lambda job: sagemaker_transform.transform(self._cloud, job, container, plan),
            None,
            **_billing(resources["InstanceType"], resources["InstanceCount"]),
        )

    def describe_training(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self.found(TRAINING, request)
        facts = job.facts
        return {
            **self._told(TRAINING, job),
            "StoppingCondition": facts["stopping_condition"],
            "SecondaryStatus": secondary(job),
            "SecondaryStatusTransitions": transitions(job),
            "TrainingStartTime": job.started,
            "TrainingEndTime": job.ended,
            "LastModifiedTime": _last_modified(job),
            "TrainingTimeInSeconds": job.billed_seconds if job.ended else None,
            "BillableTimeInSeconds": job.billed_seconds if job.ended else None,
            "ModelArtifacts": facts.get("model_artifacts"),
            "FinalMetricDataList": facts.get("metrics"),
            "TuningJobArn": facts.get("tuning_job_arn"),
        }

    def describe_processing(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self.found(PROCESSING, request)
        return {
            **self._told(PROCESSING, job),
            "StoppingCondition": job.facts["stopping_condition"],
            "ProcessingStartTime": job.started,
            "ProcessingEndTime": job.ended,
            "LastModifiedTime": _last_modified(job),
            "ExitMessage": job.facts.get("exit_message"),
        }

    def describe_transform(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self.found(TRANSFORM, request)
        return {**self._told(TRANSFORM, job), "TransformStartTime": job.started, "TransformEndTime": job.ended}

    def found(self, kind: Kind, request: Mapping[str, Any]) -> Job:
        """Raises Refused as AWS does, which is not alike for all kinds."""
        name = request[kind.member]
        job = self._cloud.jobs.find(kind.resource, name)
        if job is None:
            raise Refused("ValidationException", kind.missing.format(name=name))
        return job

    def stop(self, kind: Kind, job: Job) -> None:
        if job.state in OVER:
            raise Refused(
                "ValidationException",
                f"The request was rejected because the {kind.name.lower()} job is in status {job.state}.",
            )
        note(job, "Stopping")
        self._cloud.jobs.stop(job)

    def _create(
        self, kind: Kind, request: dict[str, Any], work: Callable[[Job], None], limit: float | None, **facts: Any
    ) -> dict[str, Any]:
        name = request[kind.member]
        arn = self._cloud.arn("sagemaker", f"{kind.resource}/{name.lower()}")

        def done(job: Job) -> None:
            try:
                work(job)
            except Unusable as error:
                raise JobFailed(f"ClientError: {error}") from None

        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
        with self._lock:
            if self._cloud.jobs.find(kind.resource, name):
                raise Refused(
                    "ResourceInUse",
                    f"{kind.name} job names must be unique within an AWS account and region, and a {kind.name.lower()} job"
                    f" with this name already exists ({arn})",
                )
            self._registry.tag(arn, tags)
            self._cloud.jobs.start(
                "sagemaker", kind.resource, name, request, done, limit=limit, on_end=ended, arn=arn, tags=tags, **facts
            )
        return {f"{kind.name}JobArn": arn}

    def _told(self, kind: Kind, job: Job) -> dict[str, Any]:
        """What all kinds tell."""
        return {
            **{name: job.request[name] for name in kind.again.split() if name in job.request},
            kind.member: job.name,
            f"{kind.name}JobArn": job.facts["arn"],
            f"{kind.name}JobStatus": STATUS.get(job.state, job.state),
            "CreationTime": job.created,
            "FailureReason": job.reason[:1024] or None,
        }

    def _stopper(self, kind: Kind) -> Handler:
        def stop(request: dict[str, Any]) -> dict[str, Any]:
            self.stop(kind, self.found(kind, request))
            return {}

        return stop

    def _lister(self, kind: Kind) -> Handler:
        def summaries(request: dict[str, Any]) -> dict[str, Any]:
            rows = [self._summary(kind, job) for job in self._cloud.jobs.list(kind.resource)]
            rows = [row for row in rows if request.get("StatusEquals") in (None, row[f"{kind.name}JobStatus"])]
            return listed(request, rows, kind.member, f"{kind.name}JobSummaries", f"{kind.name}JobStatus")

        return summaries

    def _summary(self, kind: Kind, job: Job) -> dict[str, Any]:
        told = self._told(kind, job)
        row = {name: told[name] for name in (kind.member, f"{kind.name}JobArn", f"{kind.name}JobStatus", "CreationTime")}
        row |= {f"{kind.name}EndTime": job.ended, "LastModifiedTime": _last_modified(job)}
        if kind is TRAINING:
            return {**row, "SecondaryStatus": secondary(job)}
        return {**row, "FailureReason": told["FailureReason"]}


def _last_modified(job: Job) -> datetime:
    return job.ended or job.started or job.created


def _billing(instance_type: str, instance_count: int) -> dict[str, Any]:
    return {"instance_type": instance_type, "instance_count": instance_count}


def _check_training(request: Mapping[str, Any], condition: Mapping[str, int]) -> None:
    if not request["AlgorithmSpecification"].get("TrainingImage"):
        raise Refused("ValidationException", "You must provide TrainingImage or AlgorithmName in AlgorithmSpecification.")
    if missing := [
        name for name in ("InstanceType", "InstanceCount", "VolumeSizeInGB") if name not in request.get("ResourceConfig", {})
    ]:
        raise Refused("ValidationException", f"ResourceConfig must have {', '.join(missing)}.")
    most, wait = condition["MaxRuntimeInSeconds"], condition.get("MaxWaitTimeInSeconds")
    if request.get("EnableManagedSpotTraining"):
        if wait is None or wait < most:
            raise Refused(
                "ValidationException",
                "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds",
            )
    elif wait is not None:
        raise Refused("ValidationException", "MaxWaitTimeInSeconds is only valid with EnableManagedSpotTraining")
    channels = [channel["ChannelName"] for channel in request.get("InputDataConfig", ())]
    if len(channels) != len(set(channels)):
        raise Refused("ValidationException", "Channel names in InputDataConfig must be unique.")
    for channel in request.get("InputDataConfig", ()):
        if "S3DataSource" not in channel["DataSource"]:
            raise Refused("ValidationException", f"Channel {channel['ChannelName']} has no data source.")


def _check_processing(request: Mapping[str, Any]) -> None:
    inputs = [("S3Input", each, each["InputName"]) for each in request.get("ProcessingInputs", ())]
    outputs = [("S3Output", each, each["OutputName"]) for each in request.get("ProcessingOutputConfig", {}).get("Outputs", ())]
    for side in (inputs, outputs):
        if len({name for _, _, name in side}) != len(side):
            raise Refused("ValidationException", "Names of processing inputs, and of outputs, must be unique.")
    paths = []
    for member, each, name in (*inputs, *outputs):
        path = each.get(member, {}).get("LocalPath", "")
        if not path.startswith("/opt/ml/processing/") or ".." in path.split("/"):
            raise Refused("ValidationException", f"LocalPath of {name} must be below /opt/ml/processing/, not {path!r}")
        paths.append(path.rstrip("/"))
    if len(paths) != len(set(paths)):
        raise Refused("ValidationException", "LocalPath must be unique among the inputs and outputs of a processing job.")
