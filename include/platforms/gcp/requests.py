"""What BigQuery, Vertex AI and Dataflow are asked, with the settings, labels, keys and limits that all our jobs have alike.

Where an attempt writes is its own: `{job}` in a request becomes the name of the attempt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import date
from typing import Any

from include.config import ModelConfig
from include.core.files import json_bytes
from include.platforms.gcp import lake, tables
from include.platforms.gcp.settings import gcp, labels
from include.platforms.remote_jobs import job_name

CONTAINER = ["python", "-m", "include.jobs.vertex"]
LONGEST = 52  # of a name, without its attempt


def query(
    model: ModelConfig,
    step: str,
    run: Mapping[str, Any],
    sql: str,
    days: Mapping[str, date],
    reads: object,
    makes: str = "",
) -> dict[str, Any]:
    """A query of BigQuery.

    Args:
        days: its parameters.
        reads: the state of what it reads, so that other data is another query.
        makes: the table that the statement makes.
    """
    asked = {
        "query": sql,
        "useLegacySql": False,
        "maximumBytesBilled": str(gcp().most_bytes),
        **({"parameterMode": "NAMED", "queryParameters": tables.parameters(days)} if days else {}),
        **_encryption(),
    }
    return _bigquery(model, step, run, {"query": asked}, reads, makes)


def publication(model: ModelConfig, partition: date, source: str, target: str) -> dict[str, Any]:
    """The configuration of the job that puts all rows of a table in the place of a day of another: readers have the rows before
    or these. Rows of another day fail it."""
    return {
        "query": {
            "query": f"SELECT * FROM {tables.named(source)}",
            "useLegacySql": False,
            "maximumBytesBilled": str(gcp().most_bytes),
            "destinationTable": tables.reference(target, partition),
            "writeDisposition": "WRITE_TRUNCATE",
            "createDisposition": "CREATE_NEVER",
            **_encryption(),
        },
        "labels": labels(model),
        **_limit(),
    }


def create_as(model: ModelConfig, run: Mapping[str, Any], table: str, select: str) -> str:
    """A statement that makes a table of a run: whole or not at all, in the place of one that is there, and not for ever."""
    told = ", ".join(f'("{name}", "{value}")' for name, value in labels(model, run["run_id"]).items())
    return (
        f"CREATE OR REPLACE TABLE {tables.named(table)}\n"
        "OPTIONS (\n"
        f"  expiration_timestamp = TIMESTAMP_ADD(CURRENT_TIMESTAMP(), INTERVAL {tables.STAGED_DAYS} DAY),\n"
        f"  labels = [{told}]\n"
        f") AS\n{select}"
    )


def extract(model: ModelConfig, step: str, run: Mapping[str, Any], table: str, folder: str, reads: object) -> dict[str, Any]:
    """A job that writes a table as Parquet to `<folder>/<job>/`. It is free."""
    asked = {
        "sourceTable": tables.reference(table),
        "destinationUris": [f"{folder}/{{job}}/part-*.parquet"],
        "destinationFormat": "PARQUET",
        "compression": "ZSTD",
    }
    request = _bigquery(model, step, run, {"extract": asked}, reads)
    return {**request, "output": f"{folder}/{{job}}"}


def load(
    model: ModelConfig,
    step: str,
    run: Mapping[str, Any],
    files: str,
    table: str,
    columns: Mapping[str, str],
    reads: object,
) -> dict[str, Any]:
    """A job that makes a table of Parquet files, in the place of one that is there. It is free.

    Args:
        columns: name → type, as BigQuery has them.
    """
    asked = {
        "sourceUris": [files],
        "sourceFormat": "PARQUET",
        "destinationTable": tables.reference(table),
        "schema": {"fields": [{"name": name, "type": kind} for name, kind in columns.items()]},
        "writeDisposition": "WRITE_TRUNCATE",
        "createDisposition": "CREATE_IF_NEEDED",
        **_encryption(),
    }
    return _bigquery(model, step, run, {"load": asked}, reads, table)


def _bigquery(
    model: ModelConfig, step: str, run: Mapping[str, Any], asked: Mapping[str, Any], reads: object, makes: str = ""
) -> dict[str, Any]:
    configuration = {**asked, "labels": labels(model, run["run_id"]), **_limit()}
    name = job_name(model, step, _day(run), {"asked": asked, "reads": reads}, LONGEST)
    return {"name": name, "configuration": configuration, **({"table": makes} if makes else {})}


def custom_job(
    model: ModelConfig, step: str, run: Mapping[str, Any], folder: str, mode: list[str], spec: Mapping[str, Any]
) -> dict[str, Any]:
    """A custom job of Vertex AI that runs a job script of ours. What it makes is then below `<folder>/<job>/`; a model below
    `<folder>/<job>/model/`, where Vertex AI looks for models.

    Args:
        mode: of `include.jobs.vertex`: ["process", "evaluate"], ["train"] or ["order"].
        spec: of the script; what it reads are URIs of objects whose names say their content.
    """
    content = json_bytes(spec)
    place = f"{folder}/specs/{hashlib.sha256(content).hexdigest()[:16]}.json"
    lake.write_once(place, content)
    output = f"{folder}/{{job}}"
    config = {
        "labels": labels(model, run["run_id"]),
        "job_spec": {
            "worker_pool_specs": [
                {
                    "machine_spec": {"machine_type": gcp().machine},
                    "replica_count": 1,
                    "container_spec": {
                        "image_uri": gcp().image,
                        "command": CONTAINER,
                        "args": [*mode, place, *([] if mode == ["train"] else [output])],
                    },
                }
            ],
            "base_output_directory": {"output_uri_prefix": output},
            "scheduling": {"timeout": f"{gcp().most_seconds}s"},
            "service_account": gcp().service_account,
            **({"network": gcp().network} if gcp().network else {}),
        },
        **_key("encryption_spec"),
    }
    name = job_name(model, step, _day(run), {"mode": mode, "spec": place, "image": gcp().image}, LONGEST)
    return {"name": name, "config": config, "machine": gcp().machine, "replicas": 1, "output": output}


def batch_prediction(
    model: ModelConfig, step: str, run: Mapping[str, Any], version: str, features: str, target: str, reads: object
) -> dict[str, Any]:
    """A batch prediction of all rows of a table.

    Args:
        version: the resource name of the version, with its number.
        features: the table; target: how the table of the answers begins; its attempt has one of its own.
        reads: the state of the table.
    """
    replicas = int(gcp().replicas)
    config = {
        "model": version,
        "input_config": {
            "instances_format": "bigquery",
            "bigquery_source": {"input_uri": f"bq://{tables.full(features)}"},
        },
        # The key and the day are no features; they are told with each answer all the same.
        "instance_config": {"instance_type": "object", "excluded_fields": [model.source.key, "partition_date"]},
        "output_config": {
            "predictions_format": "bigquery",
            "bigquery_destination": {"output_uri": f"bq://{tables.full(target)}_{{job_}}"},
        },
        "dedicated_resources": {
            "machine_spec": {"machine_type": gcp().machine},
            "starting_replica_count": replicas,
            "max_replica_count": replicas,
        },
        "service_account": gcp().service_account,
        "labels": labels(model, run["run_id"]),
        **_key("encryption_spec"),
    }
    told = {name: config[name] for name in ("model", "input_config", "instance_config")}
    name = job_name(model, step, _day(run), {"asked": told, "reads": reads}, LONGEST)
    return {"name": name, "config": config, "machine": gcp().machine, "replicas": replicas}


def dataflow(
    model: ModelConfig, step: str, run: Mapping[str, Any], template: str, folder: str, arguments: Mapping[str, str]
) -> dict[str, Any]:
    """A run of one of the Flex Templates of deploy/gcp, which writes below `<folder>/<job>/`."""
    output = f"{folder}/{{job}}"
    spec = f"{gcp().templates}/{template}.json"
    launch = {
        "containerSpecGcsPath": spec,
        "parameters": {**arguments, "output": f"{output}/part"},
        "environment": {
            "serviceAccountEmail": gcp().service_account,
            "machineType": gcp().dataflow_machine,
            "maxWorkers": int(gcp().dataflow_workers),
            "tempLocation": lake.place("dataflow"),
            "stagingLocation": lake.place("dataflow"),
            "additionalUserLabels": labels(model, run["run_id"]),
            **({"kmsKeyName": gcp().kms_key} if gcp().kms_key else {}),
            **({"subnetwork": gcp().subnetwork, "ipConfiguration": "WORKER_IP_PRIVATE"} if gcp().subnetwork else {}),
        },
    }
    depends_on = {"template": lake.digest(spec), "arguments": arguments}
    name = job_name(model, step, _day(run), depends_on, LONGEST)
    return {"name": name, "launch": launch, "output": output}


def _limit() -> dict[str, str]:
    return {"jobTimeoutMs": str(gcp().most_seconds * 1000)}


def _encryption() -> dict[str, Any]:
    return {"destinationEncryptionConfiguration": {"kmsKeyName": gcp().kms_key}} if gcp().kms_key else {}


def _key(name: str) -> dict[str, Any]:
    return {name: {"kms_key_name": gcp().kms_key}} if gcp().kms_key else {}


def _day(run: Mapping[str, Any]) -> str:
    return str(run.get("partition") or run["as_of"])
