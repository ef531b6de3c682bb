"""Amazon MWAA: environments that read a bucket of S3, take their time to be updated, and have an Airflow that parses."""

from __future__ import annotations

import io
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from localcloud.honoured import honoured
from localcloud.jobs import Job, JobFailed
from localcloud.managed_airflow import ManagedAirflow, Source, image_of
from localcloud.service import Cloud, Handler, NotHonoured, Refused

KIND = "environment"
FILES = ("Plugins", "Requirements", "StartupScript")
PATHS = " ".join(f"{name}S3Path {name}S3ObjectVersion" for name in FILES)
check_create = honoured(
    "CreateEnvironment",
    f"Name ExecutionRoleArn SourceBucketArn DagS3Path NetworkConfiguration AirflowVersion EnvironmentClass {PATHS}",
)
check_update = honoured("UpdateEnvironment", f"Name {PATHS}")
check_invoke = honoured("InvokeRestApi", "Name Path Method=GET QueryParameters")


@dataclass
class Environment:
    config: dict[str, Any]  # as it is shown
    created: datetime
    airflow: ManagedAirflow
    plugins: dict[str, bytes] = field(default_factory=dict)
    updates: list[Job] = field(default_factory=list)

    @property
    def bucket(self) -> str:
        return str(self.config["SourceBucketArn"].rpartition(":")[2])


def operations(cloud: Cloud) -> dict[str, Handler]:
    known: dict[str, Environment] = {}

    def found(name: str) -> Environment:
        if name not in known:
            raise Refused("ResourceNotFoundException", f"Environment {name} not found", 404)
        return known[name]

    def create_environment(request: dict[str, Any]) -> dict[str, Any]:
        check_create(request)
        name = request["Name"]
        if name in known:
            raise Refused("ValidationException", f"Environment {name} already exists")
        image = image_of(cloud.images, request.get("AirflowVersion", ""))
        home = cloud.folder / "mwaa" / name
        source = Source(lambda: _listed(cloud, known[name]), lambda path: _read(cloud, known[name], path))
        airflow = ManagedAirflow("mwaa", name, cloud.jobs, image, home, source)
        made = Environment(dict(request), datetime.now(UTC), airflow)
        _check_bucket(cloud, made.bucket)
        known[name] = made
        _start(cloud, name, made, {})
        return {"Arn": cloud.arn("airflow", f"environment/{name}")}

    def get_environment(request: dict[str, Any]) -> dict[str, Any]:
        made = found(request["Name"])
        first, last = made.updates[0], made.updates[-1]
        shown = {
            **made.config,
            "Arn": cloud.arn("airflow", f"environment/{request['Name']}"),
            "CreatedAt": made.created,
            "Status": _status(first, last),
            "WebserverUrl": f"{request['Name']}.c0.{cloud.region}.airflow.amazonaws.com",
        }
        if last is not first:
            states = {"Completed": "SUCCESS", "Failed": "FAILED", "Stopped": "FAILED"}
            told = {"Status": states.get(last.state, "PENDING"), "CreatedAt": last.created}
            if last.reason:
                told["Error"] = {"ErrorCode": "INCORRECT_CONFIGURATION", "ErrorMessage": last.reason[:1024]}
            shown["LastUpdate"] = told
        return {"Environment": shown}

    def update_environment(request: dict[str, Any]) -> dict[str, Any]:
        check_update(request)
        made = found(request["Name"])
        if (status := _status(made.updates[0], made.updates[-1])) not in ("AVAILABLE", "UPDATE_FAILED"):
            raise Refused("ValidationException", f"Environment {request['Name']} is in status {status}: it cannot be updated")
        changed = {key: value for key, value in request.items() if key != "Name"}
        _start(cloud, request["Name"], made, changed)
        return {"Arn": cloud.arn("airflow", f"environment/{request['Name']}")}

    def invoke_rest_api(request: dict[str, Any]) -> dict[str, Any]:
        check_invoke({key: value for key, value in request.items() if key != "QueryParameters"})
        made = found(request["Name"])
        if made.updates[0].state != "Completed":
            raise Refused("ValidationException", f"Environment {request['Name']} is not available")
        answer = made.airflow.answer(request["Path"], request.get("QueryParameters", {}))
        return {"RestApiStatusCode": 200, "RestApiResponse": answer}

    return {
        "CreateEnvironment": create_environment,
        "GetEnvironment": get_environment,
        "UpdateEnvironment": update_environment,
        "InvokeRestApi": invoke_rest_api,
    }


def _status(first: Job, last: Job) -> str:
    if last is first:
        return {"Completed": "AVAILABLE", "Failed": "CREATE_FAILED", "Stopped": "CREATE_FAILED"}.get(first.state, "CREATING")
    return {"Completed": "AVAILABLE", "Failed": "UPDATE_FAILED", "Stopped": "UPDATE_FAILED"}.get(last.state, "UPDATING")


def _start(cloud: Cloud, name: str, made: Environment, changed: Mapping[str, Any]) -> None:
    """Containers are started with the new files; only when all is well are they those of the environment."""

    def work(job: Job) -> None:
        config = {**made.config, **changed}
        files = {each: _file(cloud, made.bucket, config, each) for each in FILES}
        if (plugins := files["Plugins"]) is not None:
            try:
                with zipfile.ZipFile(io.BytesIO(plugins)) as archive:
                    made.plugins = {f"plugins/{entry}": archive.read(entry) for entry in archive.namelist()}
            except zipfile.BadZipFile as error:
                raise JobFailed(f"The plugins.zip cannot be unpacked: {error}") from None
        made.airflow.environment = _environment(files["StartupScript"])
        made.config = config

    made.updates.append(cloud.jobs.start("mwaa", KIND, name, dict(changed), work, unbilled=True))


def _environment(script: bytes | None) -> dict[str, str]:
    """What a startup script exports."""
    if script is None:
        return {}
    show = ". /dev/stdin > /dev/null && env -0"
    bare = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
    run = subprocess.run(["bash", "-c", show], input=script, env=bare, capture_output=True, timeout=300, check=False)
    if run.returncode:
        raise JobFailed(f"The startup script ended with exit code {run.returncode}: {run.stderr.decode(errors='replace')[-500:]}")
    pairs = (line.partition("=") for line in run.stdout.decode().split("\0") if line)
    return {name: value for name, _, value in pairs if name not in (*bare, "PWD", "SHLVL", "_", "PYTHONPATH")}


def _file(cloud: Cloud, bucket: str, config: Mapping[str, Any], name: str) -> bytes | None:
    path, version = config.get(f"{name}S3Path"), config.get(f"{name}S3ObjectVersion")
    if not path:
        return None
    s3 = cloud.client("s3")
    try:
        body: bytes = s3.get_object(Bucket=bucket, Key=path, **({"VersionId": version} if version else {}))["Body"].read()
    except s3.exceptions.ClientError as error:
        raise JobFailed(f"{path} (version {version or 'latest'}) cannot be read: {error}") from None
    return body


def _check_bucket(cloud: Cloud, bucket: str) -> None:
    s3 = cloud.client("s3")
    try:
        versioning = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    except s3.exceptions.ClientError as error:
        raise Refused("ValidationException", f"The bucket {bucket} cannot be read: {error}") from None
    if versioning != "Enabled":
        raise Refused("ValidationException", f"The bucket {bucket} must have versioning enabled")


def _listed(cloud: Cloud, made: Environment) -> dict[str, str]:
    prefix = made.config["DagS3Path"].strip("/") + "/"
    pages = cloud.client("s3").get_paginator("list_objects_v2").paginate(Bucket=made.bucket, Prefix=prefix)
    found = {f"dags/{each['Key'].removeprefix(prefix)}": each["ETag"] for page in pages for each in page.get("Contents", ())}
    return {**{name: each for name, each in found.items() if not name.endswith("/")}, **_tags(made)}


def _tags(made: Environment) -> dict[str, str]:
    return dict.fromkeys(made.plugins, made.config.get("PluginsS3ObjectVersion") or "")


def _read(cloud: Cloud, made: Environment, path: str) -> bytes:
    if path in made.plugins:
        return made.plugins[path]
    key = made.config["DagS3Path"].strip("/") + path.removeprefix("dags")
    try:
        body: bytes = cloud.client("s3").get_object(Bucket=made.bucket, Key=key)["Body"].read()
    except cloud.client("s3").exceptions.NoSuchKey:
        raise NotHonoured(f"{key}, which went away while it was read") from None
    return body
