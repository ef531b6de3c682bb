"""What SageMaker and Glue are asked, with the settings, tags, keys and limits that all our jobs have alike.

Where an attempt writes is its own: `{job}` in a request becomes the name of the attempt.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from functools import cache
from typing import Any

from include.config import INCLUDE, ModelConfig
from include.core.files import json_bytes
from include.platforms.aws import lake
from include.platforms.aws.settings import aws, tags
from include.platforms.remote_jobs import job_name

CONTAINER = ["python", "-m", "include.jobs.container"]
SPEC, OUTPUT = "/opt/ml/processing/input/spec", "/opt/ml/processing/output"
DISK_GB = 50


def processing(
    model: ModelConfig, step: str, run: Mapping[str, Any], folder: str, inputs: Mapping[str, str], spec: Mapping[str, Any]
) -> dict[str, Any]:
    """A processing job that runs a job script of ours. Its documents are then in `<folder>/<job>/`.

    Args:
        inputs: name → object of the lake whose name says its content; a spec finds it in `/opt/ml/processing/input/<name>`.
        spec: of `include.jobs.<step>`, without `result`.
    """
    spec_folder = _put_spec(folder, {"job": step, "spec": {**spec, "result": f"{OUTPUT}/{step}.json"}})
    sources = {"spec": spec_folder, **inputs}
    config: dict[str, Any] = {
        "ProcessingInputs": [
            {
                "InputName": name,
                "S3Input": {
                    "S3Uri": source,
                    "LocalPath": f"/opt/ml/processing/input/{name}",
                    "S3DataType": "S3Prefix",
                    "S3InputMode": "File",
                    "S3DataDistributionType": "FullyReplicated",
                },
            }
            for name, source in sources.items()
        ],
        "ProcessingOutputConfig": {
            "Outputs": [
                {
                    "OutputName": "documents",
                    "S3Output": {"S3Uri": f"{folder}/{{job}}", "LocalPath": OUTPUT, "S3UploadMode": "EndOfJob"},
                }
            ],
            **_key("KmsKeyId"),
        },
        "ProcessingResources": {
            "ClusterConfig": {
                "InstanceCount": 1,
                "InstanceType": aws().instance,
                "VolumeSizeInGB": DISK_GB,
                **_key("VolumeKmsKeyId"),
            }
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": aws().most_seconds},
        "AppSpecification": {
            "ImageUri": aws().image,
            "ContainerEntrypoint": CONTAINER,
            "ContainerArguments": ["process"],
        },
        "RoleArn": aws().role,
        "Tags": _tags(model, run),
        **({"NetworkConfig": {"VpcConfig": _network()}} if _network() else {}),
    }
    name = job_name(model, step, _day(run), {"config": _same(config)}, longest=52)
    return {"name": name, "config": config, "instance": aws().instance, "instances": 1, "output": f"{folder}/{{job}}"}


def training(model: ModelConfig, run: Mapping[str, Any], folder: str, snapshot: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A training job on the file of a snapshot. The model is then in `<folder>/<job>/output/model.tar.gz`."""
    config = {
        **_training_definition(folder, snapshot, {"job": "train", "spec": dict(spec)}),
        "Tags": _tags(model, run),
        **({"VpcConfig": _network()} if _network() else {}),
    }
    name = job_name(model, "train", _day(run), {"config": _same(config)}, longest=52)
    output = f"{folder}/{{job}}/output/model.tar.gz"
    return {"name": name, "config": config, "instance": aws().instance, "instances": 1, "output": output}


def tuning(model: ModelConfig, run: Mapping[str, Any], folder: str, snapshot: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A tuning job of SageMaker: trainings that are measured on the last days before the holdout.

    Args:
        spec: of `include.jobs.train`; what is searched is added to its parameters.
    """
    from include.core.tuning import DEPTHS, SEARCHED  # imports XGBoost

    search = model.training.search
    choices: dict[str, list[Any]] = {"window_days": search.windows, "half_life_days": search.half_lives}
    document = {"job": "train", "spec": dict(spec), "validation_days": search.validation_days}
    definition = _training_definition(folder, snapshot, document)
    config = {
        "HyperParameterTuningJobConfig": {
            "Strategy": "Bayesian",
            "RandomSeed": model.training.seed,
            "HyperParameterTuningJobObjective": {"Type": "Minimize", "MetricName": "validation:loss"},
            "ResourceLimits": {
                "MaxNumberOfTrainingJobs": int(aws().tuning_jobs),
                "MaxParallelTrainingJobs": min(2, int(aws().tuning_jobs)),
            },
            "ParameterRanges": {
                "IntegerParameterRanges": [
                    {"Name": "max_depth", "MinValue": str(DEPTHS[0]), "MaxValue": str(DEPTHS[1])},
                    {"Name": "trees", "MinValue": "20", "MaxValue": str(max(21, model.training.max_trees))},
                ],
                "ContinuousParameterRanges": [
                    {
                        "Name": name,
                        "MinValue": repr(one.low),
                        "MaxValue": repr(one.high),
                        "ScalingType": "Logarithmic" if one.log else "Linear",
                    }
                    for name, one in SEARCHED.items()
                ],
                "CategoricalParameterRanges": [
                    {"Name": name, "Values": [json.dumps(value) for value in values]} for name, values in choices.items()
                ],
            },
        },
        "TrainingJobDefinition": {**definition, **({"VpcConfig": _network()} if _network() else {})},
        "Tags": _tags(model, run),
    }
    # No name of a tuning job is longer than 32.
    name = job_name(model, "hpo", _day(run), {"config": _same(config)}, longest=29)
    return {"name": name, "config": config, "instance": aws().instance, "instances": 1}


def _training_definition(folder: str, snapshot: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """What a training job and each training of a tuning job are told alike."""
    sources = {"spec": _put_spec(folder, document), "snapshot": snapshot}
    limit = {"MaxRuntimeInSeconds": aws().most_seconds}
    spot = {"EnableManagedSpotTraining": True} if aws().is_spot else {}
    return {
        "AlgorithmSpecification": {
            "TrainingImage": aws().image,
            "TrainingInputMode": "File",
            "MetricDefinitions": [
                {"Name": f"{part}:loss", "Regex": f"{part} (?:log_loss|rmse)=([0-9.eE+-]+)"} for part in ("holdout", "validation")
            ],
        },
        "RoleArn": aws().role,
        "InputDataConfig": [
            {
                "ChannelName": name,
                "DataSource": {
                    "S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": source, "S3DataDistributionType": "FullyReplicated"}
                },
                "InputMode": "File",
            }
            for name, source in sources.items()
        ],
        "OutputDataConfig": {"S3OutputPath": folder, **_key("KmsKeyId")},
        "ResourceConfig": {
            "InstanceType": aws().instance,
            "InstanceCount": 1,
            "VolumeSizeInGB": DISK_GB,
            **_key("VolumeKmsKeyId"),
        },
        # Waiting for spare capacity counts against the second limit, training against the first.
        "StoppingCondition": {**limit, "MaxWaitTimeInSeconds": 2 * aws().most_seconds} if spot else limit,
        **spot,
    }


def sagemaker_model(model: ModelConfig, version: Mapping[str, Any], run: Mapping[str, Any], package: str) -> dict[str, Any]:
    """A model from a version of the registry; its container refuses files that are not those that were registered."""
    config = {
        "PrimaryContainer": {
            "ModelPackageName": package,
            "Environment": {
                "AILERON_MANIFEST_SHA256": version["manifest_sha256"],
                "AILERON_KEY": model.source.key,
            },
        },
        "ExecutionRoleArn": aws().role,
        **({"VpcConfig": _network()} if _network() else {}),
    }
    digest = hashlib.sha256(json_bytes(config)).hexdigest()[:10]
    prefix = model.name.replace("_", "-")[:40].rstrip("-")
    # Used by many runs, so no run is among its tags.
    own = [tag for tag in _tags(model, run) if tag["Key"] != "run"]
    return {**config, "ModelName": f"{prefix}-v{version['version']}-{digest}", "Tags": own}


def transform(
    model: ModelConfig, step: str, run: Mapping[str, Any], name: str, source: str, folder: str, reads: str
) -> dict[str, Any]:
    """A batch transform of the JSON lines below `source`, compressed; the answers are then below `<folder>/<job>/`.

    Args:
        name: of the SageMaker model.
        reads: the state of what is below `source`.
    """
    config = {
        "ModelName": name,
        "BatchStrategy": "MultiRecord",
        "MaxPayloadInMB": 6,
        "ModelClientConfig": {"InvocationsTimeoutInSeconds": 600, "InvocationsMaxRetries": 1},
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": f"{source}/"}},
            "ContentType": "application/jsonlines",
            "CompressionType": "Gzip",
            "SplitType": "Line",
        },
        "TransformOutput": {
            "S3OutputPath": f"{folder}/{{job}}/",
            "Accept": "application/jsonlines",
            "AssembleWith": "Line",
            **_key("KmsKeyId"),
        },
        "TransformResources": {
            "InstanceType": aws().instance,
            "InstanceCount": int(aws().instances),
            **_key("VolumeKmsKeyId"),
        },
        "Tags": _tags(model, run),
    }
    base = job_name(model, step, _day(run), {"config": _same(config), "reads": reads}, longest=52)
    instances = int(aws().instances)
    return {"name": base, "config": config, "instance": aws().instance, "instances": instances, "output": f"{folder}/{{job}}"}


def glue(
    model: ModelConfig, step: str, run: Mapping[str, Any], script: str, output: str, arguments: Mapping[str, str]
) -> dict[str, Any]:
    """A run of one of our Spark scripts, which writes to `output`."""
    code = _code()
    settings = {
        "GlueVersion": "5.0",
        "WorkerType": aws().glue_worker,
        "NumberOfWorkers": int(aws().glue_workers),
        "Timeout": max(1, aws().most_seconds // 60),
        **({"SecurityConfiguration": aws().glue_security} if aws().glue_security else {}),
        "DefaultArguments": {"--job-language": "python", "--extra-py-files": _put_once("code", f"{code[0]}.zip", code[1])},
        "Tags": {tag["Key"]: tag["Value"] for tag in _tags(model, run) if tag["Key"] != "run"},
    }
    content = (INCLUDE / "jobs" / script).read_bytes()
    place = _put_once("code", f"{hashlib.sha256(content).hexdigest()[:16]}/{script}", content)
    told = {**arguments, "--output": f"{output}/"}
    base = job_name(model, step, _day(run), {"script": place, "arguments": told, "settings": _same(settings)}, longest=52)
    return {
        "name": base,
        "job": f"aileron-{model.name.replace('_', '-')}-{step}",
        "description": f"{model.title}: {step}"[:2000],
        "script": place,
        "arguments": told,
        "job_settings": settings,
        "run_settings": {},
        "output": output,
    }


def query(
    model: ModelConfig, step: str, run: Mapping[str, Any], sql: str, reads: object, table: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """A statement of Athena.

    Args:
        reads: the state of what it reads, so that other data is another query.
        table: what the statement makes.
    """
    base = job_name(model, step, _day(run), {"sql": sql, "reads": reads}, longest=52)
    return {"name": base, "query": sql, **({"table": dict(table)} if table else {})}


def statements(model: ModelConfig, step: str, run: Mapping[str, Any], asked: list[str], reads: object) -> dict[str, Any]:
    """Statements of Redshift, in one transaction.

    Args:
        reads: the state of what they read.
    """
    base = job_name(model, step, _day(run), {"statements": asked, "reads": reads}, longest=52)
    return {"name": base, "statements": asked}


def _put_spec(folder: str, document: Mapping[str, Any]) -> str:
    """The folder of a spec: named by its content, so that a request that is made again is the same."""
    content = json_bytes(document)
    place = f"{folder}/specs/{hashlib.sha256(content).hexdigest()[:16]}"
    lake.write(f"{place}/spec.json", content)
    return place


def _put_once(*names_and_content: Any) -> str:
    *names, content = names_and_content
    place = lake.place(*names)
    if not lake.exists(place):
        lake.write(place, content)
    return place


@cache
def _code() -> tuple[str, bytes]:
    """`include/core` as a zip, which is imported by the Spark scripts, and its digest. The same code gives the same bytes."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [INCLUDE / "__init__.py", *sorted((INCLUDE / "core").glob("*.py"))]:
            entry = zipfile.ZipInfo(str(file.relative_to(INCLUDE.parent)), (2020, 1, 1, 0, 0, 0))
            archive.writestr(entry, file.read_bytes())
    content = packed.getvalue()
    return hashlib.sha256(content).hexdigest()[:16], content


def _same(config: Mapping[str, Any]) -> dict[str, Any]:
    """A request without what does not change its result."""
    return {name: value for name, value in config.items() if name not in ("Tags", "StoppingCondition")}


def _tags(model: ModelConfig, run: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags(model, run["run_id"]).items()]


def _network() -> dict[str, list[str]] | None:
    chosen = aws()
    if not chosen.subnets:
        return None
    return {"Subnets": chosen.subnets.split(","), "SecurityGroupIds": chosen.security_groups.split(",")}


def _key(name: str) -> dict[str, str]:
    return {name: aws().kms_key} if aws().kms_key else {}


def _day(run: Mapping[str, Any]) -> str:
    return str(run.get("partition") or run["as_of"])
