"""Hyperparameter tuning of the local cloud."""

from __future__ import annotations

import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.localcloud.cloud import LocalCloud
from tests.localcloud.sagemaker_requests import put, training, waited

pytestmark = pytest.mark.localcloud


def tuning(name: str = "tune", **more: Any) -> dict[str, Any]:
    definition = training("x", hyperparameters={})
    del definition["TrainingJobName"]
    config = {
        "Strategy": "Random",
        "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:loss"},
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 4, "MaxParallelTrainingJobs": 2},
        "ParameterRanges": {
            "IntegerParameterRanges": [{"Name": "depth", "MinValue": "2", "MaxValue": "9"}],
            "ContinuousParameterRanges": [{"Name": "rate", "MinValue": "0.001", "MaxValue": "0.3", "ScalingType": "Logarithmic"}],
        },
        "RandomSeed": 7,
        **more.pop("config", {}),
    }
    static = more.pop("static", {})
    return {
        "HyperParameterTuningJobName": name,
        "HyperParameterTuningJobConfig": config,
        "TrainingJobDefinition": {**definition, **({"StaticHyperParameters": static} if static else {})},
        **more,
    }


def test_the_best_of_several_trainings(cloud: LocalCloud) -> None:
    put(cloud.client("s3"))
    client = cloud.client("sagemaker")
    client.create_hyper_parameter_tuning_job(**tuning(static={"rounds": "5"}))
    told = waited(client, "HyperParameterTuning", "tune", 60)
    assert told["HyperParameterTuningJobStatus"] == "Completed"
    assert told["TrainingJobStatusCounters"]["Completed"] == told["ObjectiveStatusCounters"]["Succeeded"] == 4

    listed = client.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName="tune")
    tried = {each["TrainingJobName"]: each for each in listed["TrainingJobSummaries"]}
    values = {name: each["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] for name, each in tried.items()}
    best = told["BestTrainingJob"]
    assert values[best["TrainingJobName"]] == min(values.values())
    for each in tried.values():
        depth, rate = int(each["TunedHyperParameters"]["depth"]), float(each["TunedHyperParameters"]["rate"])
        assert 2 <= depth <= 9
        assert 0.001 <= rate <= 0.3
        assert each["FinalHyperParameterTuningJobObjectiveMetric"]["Value"] == abs(depth - 3) + 0.5
    training = client.describe_training_job(TrainingJobName=best["TrainingJobName"])
    assert training["TuningJobArn"] == told["HyperParameterTuningJobArn"]
    assert training["HyperParameters"]["rounds"] == "5"
    assert training["HyperParameters"]["_tuning_objective_metric"] == "validation:loss"


def test_a_seed_draws_the_same(cloud: LocalCloud) -> None:
    put(cloud.client("s3"))
    client = cloud.client("sagemaker")
    drawn = []
    for name in ("one", "two"):
        client.create_hyper_parameter_tuning_job(**tuning(name))
        waited(client, "HyperParameterTuning", name, 60)
        listed = client.list_training_jobs_for_hyper_parameter_tuning_job(HyperParameterTuningJobName=name, SortBy="Name")
        drawn.append([each["TunedHyperParameters"] for each in listed["TrainingJobSummaries"]])
    assert drawn[0] == drawn[1]


def test_a_grid_is_walked_through(cloud: LocalCloud) -> None:
    put(cloud.client("s3"))
    client = cloud.client("sagemaker")
    ranges = {"CategoricalParameterRanges": [{"Name": "depth", "Values": ["3", "5"]}]}
    limits = {"MaxParallelTrainingJobs": 2}
    client.create_hyper_parameter_tuning_job(
        **tuning(config={"Strategy": "Grid", "ParameterRanges": ranges, "ResourceLimits": limits})
    )
    told = waited(client, "HyperParameterTuning", "tune", 60)
    assert told["BestTrainingJob"]["TunedHyperParameters"] == {"depth": "3"}
    assert told["TrainingJobStatusCounters"]["Completed"] == 2


def test_a_search_without_a_success_fails(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    limits = {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 2}
    client.create_hyper_parameter_tuning_job(**tuning(static={"behave": "fail"}, config={"ResourceLimits": limits}))
    told = waited(client, "HyperParameterTuning", "tune", 60)
    assert told["HyperParameterTuningJobStatus"] == "Failed"
    assert told["TrainingJobStatusCounters"]["NonRetryableError"] == 2


def test_a_search_is_stopped_with_its_trainings(cloud: LocalCloud) -> None:
    client = cloud.client("sagemaker")
    client.create_hyper_parameter_tuning_job(**tuning(static={"behave": "hang"}))
    end = time.monotonic() + 10
    while not cloud.jobs("training-job") and time.monotonic() < end:
        time.sleep(0.05)
    client.stop_hyper_parameter_tuning_job(HyperParameterTuningJobName="tune")
    assert waited(client, "HyperParameterTuning", "tune")["HyperParameterTuningJobStatus"] == "Stopped"
    assert {job["state"] for job in cloud.jobs("training-job")} == {"Stopped"}


def test_an_objective_must_be_told_of(cloud: LocalCloud) -> None:
    objective = {"Type": "Minimize", "MetricName": "other"}
    with pytest.raises(ClientError, match="objective metric must be one of MetricDefinitions"):
        cloud.client("sagemaker").create_hyper_parameter_tuning_job(
            **tuning(config={"HyperParameterTuningJobObjective": objective})
        )
