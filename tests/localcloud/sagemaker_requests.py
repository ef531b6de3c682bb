"""Requests as small as SageMaker takes them, and waiting for what becomes of them."""

from __future__ import annotations

import time
from typing import Any

IMAGE = "123456789012.dkr.ecr.us-east-1.amazonaws.com/aileron:test"
ROLE = "arn:aws:iam::123456789012:role/aileron"
BUCKET = "lake"


def training(name: str, *, source: str = "", **more: Any) -> dict[str, Any]:
    hyperparameters = more.pop("hyperparameters", {})
    channels = [
        {"ChannelName": "data", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, "InputMode": "File"}
    ]
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": IMAGE,
            "TrainingInputMode": "File",
            "MetricDefinitions": [{"Name": "validation:loss", "Regex": "validation loss=([0-9.]+)"}],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/models"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 5},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
        **({"HyperParameters": hyperparameters} if hyperparameters else {}),
        **({"InputDataConfig": channels} if source else {}),
        **more,
    }


def processing(name: str, source: str, output: str, **more: Any) -> dict[str, Any]:
    return {
        "ProcessingJobName": name,
        "ProcessingInputs": [
            {
                "InputName": "data",
                "S3Input": {
                    "S3Uri": source,
                    "LocalPath": "/opt/ml/processing/input/data",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                },
            }
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "out",
                    "S3Output": {"S3Uri": output, "LocalPath": "/opt/ml/processing/output", "S3UploadMode": "EndOfJob"},
                }
            ]
        },
        "ProcessingResources": {"ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 5}},
        "AppSpecification": {"ImageUri": IMAGE, "ContainerArguments": ["process"]},
        "RoleArn": ROLE,
        **more,
    }


def transform(name: str, model: str, source: str, output: str, **more: Any) -> dict[str, Any]:
    given = more.pop("given", {})
    written = more.pop("written", {})
    return {
        "TransformJobName": name,
        "ModelName": model,
        "TransformInput": {"DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source}}, **given},
        "TransformOutput": {"S3OutputPath": output, **written},
        "TransformResources": {"InstanceType": "ml.m5.large", "InstanceCount": 1},
        **more,
    }


def model(name: str, **container: Any) -> dict[str, Any]:
    return {"ModelName": name, "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": IMAGE, **container}}


def waited(
    client: Any, kind: str, name: str, seconds: float = 30, until: tuple[str, ...] = ("Completed", "Failed", "Stopped")
) -> Any:
    """What describes a job once it is over: kind is Training, Processing, Transform or HyperParameterTuning."""
    describe = getattr(
        client,
        {
            "Training": "describe_training_job",
            "Processing": "describe_processing_job",
            "Transform": "describe_transform_job",
            "HyperParameterTuning": "describe_hyper_parameter_tuning_job",
        }[kind],
    )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        told = describe(**{f"{kind}JobName": name})
        if told[f"{kind}JobStatus"] in until:
            return told
        time.sleep(0.05)
    raise AssertionError(f"{name} is still {told[f'{kind}JobStatus']} after {seconds} seconds")


def put(s3: Any, **contents: bytes | str) -> None:
    """Objects of the bucket, which is made if it is not there; `a__b` stands for a/b in a key."""
    s3.create_bucket(Bucket=BUCKET)
    for key, content in contents.items():
        s3.put_object(Bucket=BUCKET, Key=key.replace("__", "/"), Body=content)


def got(s3: Any, key: str) -> bytes:
    body: bytes = s3.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return body


def keys(s3: Any, prefix: str) -> list[str]:
    return [each["Key"] for each in s3.list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", ())]
