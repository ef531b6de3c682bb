"""Hyperparameter tuning: many trainings, and the best of them.

Random and Grid search are SageMaker's. Bayesian is not: its draws are Random's here, so that its calls and states can be
tried, but not its sense of direction.
"""

from __future__ import annotations

import itertools
import math
import random
import threading
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from localcloud.honoured import honoured
from localcloud.jobs import OVER, Job, JobFailed, JobStopped
from localcloud.listing import listed
from localcloud.sagemaker_models import Registry
from localcloud.service import Cloud, Handler, NotHonoured, Refused
from localcloud.transitions import note

if TYPE_CHECKING:
    from localcloud.sagemaker import SageMakerJobs

KIND = "hyper-parameter-tuning-job"
TRAINING = "training-job"
# Members of a definition that are not those of a training job.
OF_TUNING = ("DefinitionName", "TuningObjective", "HyperParameterRanges", "StaticHyperParameters")

check = honoured(
    "CreateHyperParameterTuningJob",
    """
    HyperParameterTuningJobName Tags
    HyperParameterTuningJobConfig.Strategy=Random|Grid|Bayesian
    HyperParameterTuningJobConfig.HyperParameterTuningJobObjective HyperParameterTuningJobConfig.ResourceLimits
    HyperParameterTuningJobConfig.ParameterRanges.IntegerParameterRanges
    HyperParameterTuningJobConfig.ParameterRanges.ContinuousParameterRanges
    HyperParameterTuningJobConfig.ParameterRanges.CategoricalParameterRanges
    HyperParameterTuningJobConfig.TrainingJobEarlyStoppingType=Off HyperParameterTuningJobConfig.RandomSeed
    TrainingJobDefinition
    """,
)


class Tuning:
    def __init__(self, cloud: Cloud, jobs: SageMakerJobs, registry: Registry) -> None:
        self._cloud, self._jobs, self._registry = cloud, jobs, registry
        self._lock = threading.Lock()  # two requests for one name: the second is refused

    def operations(self) -> dict[str, Handler]:
        return {
            "CreateHyperParameterTuningJob": self.create_alone,
            "DescribeHyperParameterTuningJob": self.describe,
            "StopHyperParameterTuningJob": self.stop,
            "ListTrainingJobsForHyperParameterTuningJob": self.trainings,
        }

    def create_alone(self, request: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            return self.create(request)

    def create(self, request: dict[str, Any]) -> dict[str, Any]:
        check(request)
        name, config = request["HyperParameterTuningJobName"], request["HyperParameterTuningJobConfig"]
        if "TrainingJobDefinition" not in request:
            raise Refused("ValidationException", "TrainingJobDefinition must be given.")
        definition = request["TrainingJobDefinition"]
        for member in ("TuningObjective", "HyperParameterRanges"):
            if member in definition:
                raise NotHonoured(f"TrainingJobDefinition.{member}: give it in HyperParameterTuningJobConfig")
        objective = config.get("HyperParameterTuningJobObjective")
        known = [each["Name"] for each in definition["AlgorithmSpecification"].get("MetricDefinitions", ())]
        if objective is None or objective["MetricName"] not in known:
            raise Refused("ValidationException", f"The objective metric must be one of MetricDefinitions: {known}.")
        arn = self._cloud.arn("sagemaker", f"{KIND}/{name.lower()}")
        if self._cloud.jobs.find(KIND, name):
            raise Refused("ResourceInUse", f"A hyperparameter tuning job with this name already exists ({arn})")
        draws = list(_drawn(config, name))
        # What the trainings will be asked is asked here, so that what is not honoured is refused now.
        trainings = [_training(request, number, draw) for number, draw in enumerate(draws, 1)]
        self._jobs.check_training(trainings[0])
        tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", ())}
        self._registry.tag(arn, tags)
        self._cloud.jobs.start(
            "sagemaker",
            KIND,
            name,
            request,
            lambda job: self._search(job, trainings),
            limit=config["ResourceLimits"].get("MaxRuntimeInSeconds"),
            arn=arn,
            tags=tags,
            unbilled=True,
            drawn=dict(zip([training["TrainingJobName"] for training in trainings], draws, strict=True)),
        )
        return {"HyperParameterTuningJobArn": arn}

    def describe(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._found(request)
        trainings = self._trainings(job)
        ended = [training for training in trainings if training.state in OVER]
        objectives = [training for training in ended if _value(job, training) is not None]
        best = _best(job, trainings)
        return {
            "HyperParameterTuningJobName": job.name,
            "HyperParameterTuningJobArn": job.facts["arn"],
            "HyperParameterTuningJobConfig": job.request["HyperParameterTuningJobConfig"],
            "TrainingJobDefinition": job.request["TrainingJobDefinition"],
            "HyperParameterTuningJobStatus": {"Pending": "InProgress", "Running": "InProgress"}.get(job.state, job.state),
            "CreationTime": job.created,
            "LastModifiedTime": job.ended or job.started or job.created,
            "HyperParameterTuningEndTime": job.ended,
            "TrainingJobStatusCounters": {
                "Completed": sum(training.state == "Completed" for training in trainings),
                "InProgress": len(trainings) - len(ended),
                "RetryableError": 0,
                "NonRetryableError": sum(training.state == "Failed" for training in trainings),
                "Stopped": sum(training.state == "Stopped" for training in trainings),
            },
            "ObjectiveStatusCounters": {
                "Succeeded": len(objectives),
                "Pending": len(trainings) - len(ended),
                "Failed": len(ended) - len(objectives),
            },
            "BestTrainingJob": self._summary(job, best) if best else None,
            "FailureReason": job.reason[:1024] or None,
        }

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._found(request)
        if job.state in OVER:
            raise Refused("ValidationException", f"The request was rejected because the tuning job is in status {job.state}.")
        self._cloud.jobs.stop(job)
        return {}

    def trainings(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._found(request)
        rows = [self._summary(job, training) for training in self._trainings(job)]
        rows = [row for row in rows if request.get("StatusEquals") in (None, row["TrainingJobStatus"])]
        if request.get("SortBy") == "FinalObjectiveMetricValue":
            raise NotHonoured("SortBy=FinalObjectiveMetricValue: sort what is listed")
        return listed(request, rows, "TrainingJobName", "TrainingJobSummaries", "TrainingJobStatus")

    def _search(self, job: Job, trainings: Sequence[dict[str, Any]]) -> None:
        most = job.request["HyperParameterTuningJobConfig"]["ResourceLimits"]["MaxParallelTrainingJobs"]
        running: list[Job] = []
        waiting = list(trainings)
        try:
            while waiting or running:
                job.check()
                while waiting and len(running) < most:
                    asked = waiting.pop(0)
                    self._jobs.create_training(asked, tuning_job_arn=job.facts["arn"])
                    made = self._cloud.jobs.find(TRAINING, asked["TrainingJobName"])
                    assert made is not None
                    running.append(made)
                job.stopping.wait(0.1)
                running = [training for training in running if not training.over.is_set()]
        except JobStopped:
            for training in running:
                note(training, "Stopping")
                self._cloud.jobs.stop(training)
            for training in running:
                training.over.wait()
            raise
        if _best(job, self._trainings(job)) is None:
            raise JobFailed("No training job succeeded with an objective metric: see the failures of the training jobs")

    def _found(self, request: Mapping[str, Any]) -> Job:
        name = request["HyperParameterTuningJobName"]
        job = self._cloud.jobs.find(KIND, name)
        if job is None:
            raise Refused("ResourceNotFound", f"Amazon SageMaker can't find a tuning job with the name {name}")
        return job

    def _trainings(self, job: Job) -> list[Job]:
        found = (self._cloud.jobs.find(TRAINING, name) for name in job.facts["drawn"])
        return [training for training in found if training is not None]

    def _summary(self, job: Job, training: Job) -> dict[str, Any]:
        value = _value(job, training)
        objective = job.request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]
        pending = training.state not in OVER
        return {
            "TrainingJobName": training.name,
            "TrainingJobArn": training.facts["arn"],
            "CreationTime": training.created,
            "TrainingStartTime": training.started,
            "TrainingEndTime": training.ended,
            "TrainingJobStatus": {"Pending": "InProgress", "Running": "InProgress"}.get(training.state, training.state),
            "TunedHyperParameters": job.facts["drawn"][training.name],
            "FailureReason": training.reason[:1024] or None,
            "FinalHyperParameterTuningJobObjectiveMetric": None if value is None else {**objective, "Value": value},
            "ObjectiveStatus": "Pending" if pending else "Succeeded" if value is not None else "Failed",
        }


def _training(request: Mapping[str, Any], number: int, draw: Mapping[str, str]) -> dict[str, Any]:
    """The request of one training. SageMaker tells it the objective in a hyperparameter of its own."""
    name = request["HyperParameterTuningJobName"]
    definition = request["TrainingJobDefinition"]
    mark = f"{zlib.crc32(f'{name}/{number}'.encode()):08x}"
    metric = request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    return {
        **{member: value for member, value in definition.items() if member not in OF_TUNING},
        "TrainingJobName": f"{name}-{number:03}-{mark}",
        "HyperParameters": {**definition.get("StaticHyperParameters", {}), **draw, "_tuning_objective_metric": metric},
        **({"Tags": request["Tags"]} if "Tags" in request else {}),
    }


def _drawn(config: Mapping[str, Any], name: str) -> Iterator[dict[str, str]]:
    """The hyperparameters of every training: the same for the same seed, or else for the same name.

    Raises:
        Refused: if there is nothing to search, or no number of trainings.
    """
    ranges = config.get("ParameterRanges", {})
    numbers = [*ranges.get("IntegerParameterRanges", ()), *ranges.get("ContinuousParameterRanges", ())]
    categories = ranges.get("CategoricalParameterRanges", ())
    most = config["ResourceLimits"].get("MaxNumberOfTrainingJobs")
    if not numbers and not categories:
        raise Refused("ValidationException", "ParameterRanges must name at least one hyperparameter.")
    if config["Strategy"] == "Grid":
        if numbers:
            raise Refused("ValidationException", "Grid search takes CategoricalParameterRanges only.")
        points = itertools.product(*(each["Values"] for each in categories))
        for point in itertools.islice(points, most):
            yield dict(zip([each["Name"] for each in categories], point, strict=True))
        return
    if most is None:
        raise Refused("ValidationException", "MaxNumberOfTrainingJobs must be given for this strategy.")
    chance = random.Random(config.get("RandomSeed", zlib.crc32(name.encode())))  # noqa: S311 - a search, not a secret
    for _ in range(most):
        draw = {each["Name"]: str(_whole(each, chance)) for each in ranges.get("IntegerParameterRanges", ())}
        draw |= {each["Name"]: repr(_number(each, chance)) for each in ranges.get("ContinuousParameterRanges", ())}
        yield draw | {each["Name"]: chance.choice(each["Values"]) for each in categories}


def _whole(wanted: Mapping[str, str], chance: random.Random) -> int:
    low, high = int(wanted["MinValue"]), int(wanted["MaxValue"])
    return min(high, max(low, round(_number(wanted, chance))))


def _number(wanted: Mapping[str, str], chance: random.Random) -> float:
    """Even on the scale that is asked for.

    Raises:
        Refused: if the range is none on that scale.
    """
    low, high = float(wanted["MinValue"]), float(wanted["MaxValue"])
    scale = wanted.get("ScalingType", "Auto")
    if low > high or (scale == "Logarithmic" and low <= 0) or (scale == "ReverseLogarithmic" and not 0 <= low <= high < 1):
        raise Refused("ValidationException", f"The range {low} to {high} of {wanted['Name']} is none on a {scale} scale.")
    if scale == "Logarithmic":
        return math.exp(chance.uniform(math.log(low), math.log(high)))
    if scale == "ReverseLogarithmic":
        return 1 - math.exp(chance.uniform(math.log(1 - high), math.log(1 - low)))
    return chance.uniform(low, high)


def _value(job: Job, training: Job) -> float | None:
    """What a training that has ended reached."""
    if training.state != "Completed":
        return None
    metric = job.request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["MetricName"]
    return next((each["Value"] for each in training.facts.get("metrics") or () if each["MetricName"] == metric), None)


def _best(job: Job, trainings: Sequence[Job]) -> Job | None:
    kind = job.request["HyperParameterTuningJobConfig"]["HyperParameterTuningJobObjective"]["Type"]
    known = [(value, training) for training in trainings if (value := _value(job, training)) is not None]
    if not known:
        return None
    return (max if kind == "Maximize" else min)(known, key=lambda each: each[0])[1]
