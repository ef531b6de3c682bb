"""Containers of training and processing jobs, as programs on this machine.

/opt/ml cannot be made without being root. Each job has a folder instead, which SAGEMAKER_BASE_DIR names; all else of
the contract of a container is as on SageMaker.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import tarfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcloud.jobs import Job, JobFailed, JobStopped
from localcloud.service import Cloud, Image
from localcloud.transitions import note

ROOT = "/opt/ml"
HOST = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
LONGEST_REASON = 1024
EVENT_BYTES = 250_000  # of CloudWatch's 256 KB
BATCH_BYTES, BATCH_EVENTS = 1_000_000, 10_000  # of one call


def train(cloud: Cloud, job: Job) -> None:
    """Channels down, `train`, model and output up."""
    request = job.request
    algorithm = request["AlgorithmSpecification"]
    image = image_of(cloud, algorithm["TrainingImage"])
    base = folder_of(cloud, job)
    entrypoint = algorithm.get("ContainerEntrypoint") or [*image.entrypoint]
    # An entrypoint of the request takes the place of the image's, and "train" is then only said if the request says it.
    arguments = algorithm.get("ContainerArguments") or ([] if algorithm.get("ContainerEntrypoint") else ["train"])
    environment = container_environment(
        cloud,
        image,
        base,
        {"TRAINING_JOB_NAME": job.name, "TRAINING_JOB_ARN": job.facts["arn"]},
        request.get("Environment", {}),
    )
    note(job, "Downloading", "Downloading input data")
    checkpoints = request.get("CheckpointConfig", {}).get("S3Uri")
    _prepare_training(cloud, request, base)
    note(job, "Training", "Training image download completed. Training in progress.")
    output = f"{request['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{job.name}/output"
    try:
        with CloudWatch(cloud, job, "/aws/sagemaker/TrainingJobs", f"{job.name}/algo-1-{_milliseconds()}"):
            code = started(job, [*entrypoint, *arguments], environment, image)
    except JobStopped:
        # What was saved in time is kept.
        _upload_model(cloud, job, base, output)
        raise
    finally:
        if checkpoints:
            cloud.files.upload(base / "checkpoints", checkpoints)
        job.facts["metrics"] = _metrics(algorithm.get("MetricDefinitions", ()), job.log)
    if code != 0:
        raise JobFailed(f"AlgorithmError: {_told(base / 'output/failure')}, exit code: {code}")
    note(job, "Uploading", "Uploading generated training model")
    _upload_model(cloud, job, base, output)
    with suppress(OSError):
        shutil.rmtree(base)


def process(cloud: Cloud, job: Job) -> None:
    """Inputs down, the program, outputs up."""
    request = job.request
    application = request["AppSpecification"]
    image = image_of(cloud, application["ImageUri"])
    base = folder_of(cloud, job)
    for each in request.get("ProcessingInputs", ()):
        download(cloud, each["S3Input"]["S3Uri"], _inside(base, each["S3Input"]["LocalPath"]))
    outputs = [each["S3Output"] for each in request.get("ProcessingOutputConfig", {}).get("Outputs", ())]
    for each in outputs:
        _inside(base, each["LocalPath"]).mkdir(parents=True, exist_ok=True)
    _write_json(base / "config/resourceconfig.json", HOST)
    _write_json(base / "config/processingjobconfig.json", request)
    argv = [*(application.get("ContainerEntrypoint") or image.entrypoint), *application.get("ContainerArguments", ())]
    own = {"PROCESSING_JOB_ARN": job.facts["arn"], "PROCESSING_JOB_NAME": job.name}
    environment = container_environment(cloud, image, base, own, request.get("Environment", {}))
    try:
        with CloudWatch(cloud, job, "/aws/sagemaker/ProcessingJobs", f"{job.name}/algo-1-{_milliseconds()}"):
            code = started(job, argv, environment, image)
    finally:
        job.facts["exit_message"] = _told(base / "output/message") or None
    if code != 0:
        raise JobFailed(f"AlgorithmError: See job logs for more information, exit code: {code}")
    for each in outputs:
        cloud.files.upload(_inside(base, each["LocalPath"]), each["S3Uri"])
    with suppress(OSError):
        shutil.rmtree(base)


def image_of(cloud: Cloud, uri: str) -> Image:
    """Raises JobFailed if nothing stands for it."""
    if uri not in cloud.images:
        raise JobFailed(f"ClientError: Cannot find image {uri}: it is not in the registry, which is images.json here")
    return cloud.images[uri]


def folder_of(cloud: Cloud, job: Job) -> Path:
    """What stands for /opt/ml, new and empty."""
    base = cloud.folder / "sagemaker" / job.kind / f"{job.name}-{_milliseconds()}" / "ml"
    base.mkdir(parents=True)
    return base


def container_environment(
    cloud: Cloud, image: Image, base: Path, own: Mapping[str, str], asked: Mapping[str, str]
) -> dict[str, str]:
    """What the program is given, and nothing of this server's own environment."""
    return {
        "PATH": ":".join([*([image.path] if image.path else []), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(base.parent),
        "LANG": "C.UTF-8",
        "AWS_REGION": cloud.region,
        **image.environment,
        **own,
        **asked,
        "SAGEMAKER_BASE_DIR": str(base),
    }


def started(job: Job, argv: Sequence[str], environment: Mapping[str, str], image: Image) -> int:
    """Run a container to its end; its exit code.

    Raises:
        JobFailed: if there is no such program.
    """
    try:
        return job.run(located(argv, environment), environment, image.directory)
    except OSError as error:
        raise JobFailed(f"AlgorithmError: the container cannot be started: {error}") from None


def located(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The program by its path: it is looked for on the container's PATH, not on this server's."""
    return [shutil.which(argv[0], path=environment["PATH"]) or argv[0], *argv[1:]]


def download(cloud: Cloud, uri: str, target: Path) -> None:
    """All objects below a prefix, or one object, into a folder.

    Raises:
        JobFailed: if there is nothing, or something whose key merely begins alike: AWS would take that too.
    """
    keys = cloud.files.keys(uri)
    source = cloud.files.fetch(uri)
    if not keys:
        raise JobFailed(f"ClientError: Data download failed: No S3 objects found under S3 URL {uri!r}")
    target.mkdir(parents=True, exist_ok=True)
    for key in keys:
        relative = relative_key(uri, key)
        path = target / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source if key == uri else source / relative, path)


def relative_key(uri: str, key: str) -> str:
    """The name of an object below a prefix.

    Raises:
        JobFailed: if it is not below it.
    """
    if key == uri:
        return key.rpartition("/")[2]
    below = key.removeprefix(uri.rstrip("/") + "/")
    if below == key:
        raise JobFailed(f"ClientError: {key} begins like {uri} but is not below it: AWS would read it too, so end it with /")
    return below


def unpack_model(cloud: Cloud, uri: str, target: Path) -> None:
    """A model.tar.gz into a folder.

    Raises:
        JobFailed: if it is not there, or is no archive that can be unpacked safely.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(fileobj=io.BytesIO(cloud.files.read(uri)), mode="r:gz") as archive:
            # Not by a filter of tarfile's: those came with Python 3.11.4.
            inside = target.resolve()
            for member in (members := archive.getmembers()):
                plain = member.isreg() or member.isdir()
                if not plain or not (inside / member.name).resolve().is_relative_to(inside):
                    raise tarfile.TarError(f"{member.name} is no file of a model")
            archive.extractall(target, members)  # noqa: S202
    except FileNotFoundError:
        raise JobFailed(f"ClientError: Could not find model data at {uri}") from None
    except (tarfile.TarError, OSError, EOFError) as error:
        raise JobFailed(f"ClientError: Failed to extract model data archive from {uri}: {error}") from None


class CloudWatch:
    """Sends the log of a job to CloudWatch Logs while it runs, twice a second, and the rest at the end."""

    def __init__(self, cloud: Cloud, job: Job, group: str, stream: str) -> None:
        self._client = cloud.client("logs")
        self._job, self._group, self._stream = job, group, stream
        self._waiting: list[dict[str, Any]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._sender = threading.Thread(target=self._send_on, daemon=True)

    def __enter__(self) -> CloudWatch:
        with suppress(self._client.exceptions.ResourceAlreadyExistsException):
            self._client.create_log_group(logGroupName=self._group)
        self._client.create_log_stream(logGroupName=self._group, logStreamName=self._stream)
        self._job.on_line = self._take
        self._sender.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._job.on_line = None
        self._over.set()
        self._sender.join()
        self._send()

    def _take(self, line: str) -> None:
        if not line.strip():
            return
        with self._lock:
            self._waiting.append({"timestamp": _milliseconds(), "message": line[: EVENT_BYTES // 4]})

    def _send_on(self) -> None:
        while not self._over.wait(0.5):
            self._send()

    def _send(self) -> None:
        with self._lock:
            events, self._waiting = self._waiting, []
        while events:
            size, count = 0, 0
            for event in events[:BATCH_EVENTS]:
                size += len(event["message"].encode()) + 26
                if count and size > BATCH_BYTES:
                    break
                count += 1
            self._client.put_log_events(logGroupName=self._group, logStreamName=self._stream, logEvents=events[:count])
            events = events[count:]


def _prepare_training(cloud: Cloud, request: Mapping[str, Any], base: Path) -> None:
    for name in ("model", "output/data", "input/config", "input/data"):
        (base / name).mkdir(parents=True)
    channels = request.get("InputDataConfig", ())
    for channel in channels:
        download(cloud, channel["DataSource"]["S3DataSource"]["S3Uri"], base / "input/data" / channel["ChannelName"])
    if "CheckpointConfig" in request:
        (base / "checkpoints").mkdir()
        if cloud.files.keys(uri := request["CheckpointConfig"]["S3Uri"]):
            download(cloud, uri, base / "checkpoints")
    config = base / "input/config"
    _write_json(config / "hyperparameters.json", request.get("HyperParameters", {}))
    described = {
        channel["ChannelName"]: {
            "TrainingInputMode": "File",
            "S3DistributionType": channel["DataSource"]["S3DataSource"].get("S3DataDistributionType", "FullyReplicated"),
            "RecordWrapperType": "None",
            **({"ContentType": channel["ContentType"]} if "ContentType" in channel else {}),
        }
        for channel in channels
    }
    _write_json(config / "inputdataconfig.json", described)
    _write_json(config / "resourceconfig.json", HOST)


def _upload_model(cloud: Cloud, job: Job, base: Path, output: str) -> None:
    for folder, name in ((base / "model", "model.tar.gz"), (base / "output/data", "output.tar.gz")):
        if folder.is_dir() and any(folder.iterdir()):
            cloud.files.write(f"{output}/{name}", _archive(folder))
            if name == "model.tar.gz":
                job.facts["model_artifacts"] = {"S3ModelArtifacts": f"{output}/{name}"}


def _archive(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for path in sorted(folder.iterdir()):
            archive.add(path, arcname=path.name)
    return buffer.getvalue()


def _metrics(definitions: Sequence[Mapping[str, str]], log: str) -> list[dict[str, Any]] | None:
    """The last value of each metric that the log tells."""
    found = []
    for definition in definitions:
        values = []
        for match in re.finditer(definition["Regex"], log):
            with suppress(ValueError, IndexError):
                values.append(float(match[1]))
        if values:
            found.append({"MetricName": definition["Name"], "Value": values[-1], "Timestamp": datetime.now(UTC)})
    return found or None


def _inside(base: Path, path: str) -> Path:
    return base / path.removeprefix(f"{ROOT}/")


def _told(path: Path) -> str:
    """What a container has left as a message; as much of it as AWS takes."""
    if not path.is_file():
        return ""
    return path.read_text(errors="replace").strip()[: LONGEST_REASON - 100]


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, default=str))


def _milliseconds() -> int:
    return int(time.time() * 1000)
