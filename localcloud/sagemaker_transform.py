"""Batch Transform: a model's container serves, and every object below a prefix goes through it."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import secrets
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from localcloud.jobs import Job, JobFailed
from localcloud.sagemaker_models import Container
from localcloud.sagemaker_runs import (
    CloudWatch,
    container_environment,
    folder_of,
    image_of,
    located,
    relative_key,
    unpack_model,
)
from localcloud.service import Cloud, NotHonoured, Refused
from localcloud.transform_records import MB, Filters, Unprocessable, batches, filters, lines

DEFAULTS = {"MaxConcurrentTransforms": 1, "MaxPayloadInMB": 6, "BatchStrategy": "MultiRecord"}
TOGETHER_MB = 100  # of MaxConcurrentTransforms × MaxPayloadInMB


@dataclass(frozen=True)
class Plan:
    """How the objects of a job are sent and written."""

    source: str
    output: str
    content_type: str
    accept: str
    zipped: bool
    by_line: bool
    line_breaks: bool
    filters: Filters | None
    asked: Mapping[str, Any]  # those of DEFAULTS that the request says
    retries: int
    seconds: int
    concurrent: int = 1
    payload: int = 6 * MB
    single: bool = False


def planned(request: Mapping[str, Any]) -> Plan:
    """Raises Refused if parts of a request contradict each other."""
    source, output = request["TransformInput"], request["TransformOutput"]
    split = source.get("SplitType", "None")
    asked = {name: request[name] for name in DEFAULTS if name in request}
    if asked.get("MaxPayloadInMB") == 0:
        raise NotHonoured("MaxPayloadInMB=0 of CreateTransformJob (payloads without a limit)")
    if asked.get("MaxConcurrentTransforms", 1) * asked.get("MaxPayloadInMB", 6) > TOGETHER_MB:
        raise Refused("ValidationException", f"MaxConcurrentTransforms * MaxPayloadInMB must not exceed {TOGETHER_MB} MB.")
    if asked.get("BatchStrategy") and split == "None":
        raise Refused("ValidationException", "BatchStrategy is only valid with a SplitType other than None.")
    model_client = request.get("ModelClientConfig", {})
    content_type = source.get("ContentType", "")
    return Plan(
        source=source["DataSource"]["S3DataSource"]["S3Uri"],
        output=output["S3OutputPath"].rstrip("/"),
        content_type=content_type,
        accept=output.get("Accept", ""),
        zipped=source.get("CompressionType") == "Gzip",
        by_line=split == "Line",
        line_breaks=output.get("AssembleWith") == "Line",
        filters=filters(request.get("DataProcessing", {}), content_type, split),
        asked=asked,
        retries=model_client.get("InvocationsMaxRetries", 3),
        seconds=model_client.get("InvocationsTimeoutInSeconds", 600),
    )


def transform(cloud: Cloud, job: Job, container: Container, plan: Plan) -> None:
    """All objects below the prefix. One that fails does not keep the others from being transformed, but fails the job."""
    image = image_of(cloud, container.image)
    base = folder_of(cloud, job)
    (base / "model").mkdir()
    if container.model_data:
        unpack_model(cloud, container.model_data, base / "model")
    keys = _objects(cloud, plan.source)
    port = _free_port()
    own = {"SAGEMAKER_BIND_TO_PORT": str(port), "SAGEMAKER_BATCH": "true"}
    own |= {f"SAGEMAKER_{_upper(name)}": str(plan.asked.get(name, default)) for name, default in DEFAULTS.items()}
    asked = {**container.environment, **job.request.get("Environment", {})}
    environment = container_environment(cloud, image, base, own, asked)
    argv = located([*image.entrypoint, "serve"], environment)
    failed = []
    stream = f"{job.name}/i-{secrets.token_hex(8)}-{int(time.time() * 1000)}"
    with CloudWatch(cloud, job, "/aws/sagemaker/TransformJobs", stream):
        try:
            server = job.start(argv, environment, image.directory)
        except OSError as error:
            raise JobFailed(f"AlgorithmError: the container cannot be started: {error}") from None
        try:
            _wait_for_ping(job, server, port, cloud.delays.ping_seconds)
            plan = _settled(plan, port)
            strategy = "SINGLE_RECORD" if plan.single else "MULTI_RECORD"
            job.say(
                f"[sagemaker logs]: MaxConcurrentTransforms={plan.concurrent}, MaxPayloadInMB={plan.payload // MB},"
                f" BatchStrategy={strategy}"
            )
            for key in keys:
                job.check()
                try:
                    answer = _transformed(cloud.files.read(key), plan, port, job)
                except Unprocessable as error:
                    job.check()
                    job.say(f"[sagemaker logs]: {key.removeprefix('s3://')}: {error}")
                    failed.append(key)
                else:
                    cloud.files.write(f"{plan.output}/{relative_key(plan.source, key)}.out", answer)
        finally:
            job.end(server, cloud.delays.stop_seconds)
    if failed:
        raise JobFailed("ClientError: See job logs for more information")
    with suppress(OSError):
        shutil.rmtree(base)


def _objects(cloud: Cloud, source: str) -> list[str]:
    """SageMaker leaves none out: not those whose name begins with _ or a dot either."""
    sizes = cloud.files.sizes(source)
    if not sizes:
        raise JobFailed(f"ClientError: No S3 objects found under S3 URL {source!r}")
    for key, size in sizes.items():
        relative_key(source, key)
        if size == 0:
            raise JobFailed(f"ClientError: {key} is empty; AWS does not say what becomes of it, so do not ask for it")
    return list(sizes)


def _transformed(content: bytes, plan: Plan, port: int, job: Job) -> bytes:
    """The whole output of one object, or none: order is kept.

    Raises:
        Unprocessable: if a part of it failed.
    """
    if plan.zipped:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise Unprocessable(f"is not compressed as CompressionType=Gzip says: {error}") from None
    if not plan.by_line:
        if len(content) > plan.payload:
            raise Unprocessable(f"is {len(content)} bytes, more than MaxPayloadInMB={plan.payload // MB}")
        return _assembled([_invoked(content, plan, port, job)], plan.line_breaks)
    records = lines(content)
    sent = [plan.filters.sent(record) for record in records] if plan.filters else records
    requests = list(batches(sent, plan.payload, plan.single))
    with ThreadPoolExecutor(plan.concurrent) as pool:
        answers = list(pool.map(lambda batch: _invoked(b"\n".join(batch), plan, port, job), requests))
    if plan.filters is None:
        return _assembled(answers, plan.line_breaks)
    written, done = [], 0
    for batch, answer in zip(requests, answers, strict=True):
        told = lines(answer)
        if len(told) != len(batch):
            raise Unprocessable(f"{len(batch)} records were answered by {len(told)} lines, so they cannot be told apart")
        written += [plan.filters.written(record, line) for record, line in zip(records[done:], told, strict=False)]
        done += len(batch)
    return _assembled(written, plan.line_breaks)


def _assembled(answers: Sequence[bytes], line_breaks: bool) -> bytes:
    if not line_breaks:
        return b"".join(answers)
    return b"".join(answer if answer.endswith(b"\n") else answer + b"\n" for answer in answers)


def _invoked(body: bytes, plan: Plan, port: int, job: Job) -> bytes:
    """Raises Unprocessable if the model does not answer, after the retries."""
    headers = {"Content-Type": plan.content_type} if plan.content_type else {}
    headers |= {"Accept": plan.accept} if plan.accept else {}
    trouble = ""
    for _ in range(plan.retries + 1):
        job.check()
        try:
            status, answer = _asked(port, "POST", "/invocations", plan.seconds, body, headers)
        except TimeoutError:
            trouble = f"Model server did not respond to /invocations request within {plan.seconds} seconds"
        except (OSError, http.client.HTTPException) as error:
            trouble = f"the connection to the model failed: {error!r}"
            time.sleep(0.1)
        else:
            if status == 200:
                return answer
            trouble = f"Bad HTTP status received from algorithm: {status}\nMessage: {answer[:1000].decode(errors='replace')}"
            if status < 500:
                break
    raise Unprocessable(trouble)


def _wait_for_ping(job: Job, server: subprocess.Popen[str], port: int, seconds: float) -> None:
    """Raises JobFailed if the container does not answer /ping with 200 in time."""
    last = "no answer"
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job.check()
        if server.poll() is not None:
            raise JobFailed(f"AlgorithmError: the model container ended with exit code {server.returncode} before it served")
        try:
            status, answer = _asked(port, "GET", "/ping", 2)
        except (OSError, http.client.HTTPException) as error:
            last = repr(error)
        else:
            if status == 200:
                return
            last = f"{status}: {answer[:300].decode(errors='replace')}"
        job.stopping.wait(0.05)
    job.check()
    job.say(f"[sagemaker logs]: /ping was answered with {last}")
    raise JobFailed("InternalServerError: the model container did not pass the ping health check: see the job's log")


def _settled(plan: Plan, port: int) -> Plan:
    """What the request leaves open, the container may say: /execution-parameters."""
    told: dict[str, Any] = {}
    with suppress(OSError, http.client.HTTPException, ValueError, TypeError):
        status, answer = _asked(port, "GET", "/execution-parameters", 2)
        if status == 200:
            told = dict(json.loads(answer))
    told = {name: told[name] for name in DEFAULTS if name in told}
    settled = {**DEFAULTS, **told, **plan.asked}
    return replace(
        plan,
        concurrent=max(1, int(settled["MaxConcurrentTransforms"])),
        payload=int(settled["MaxPayloadInMB"]) * MB,
        single=str(settled["BatchStrategy"]).replace("_", "").lower() == "singlerecord",
    )


def _asked(
    port: int, method: str, path: str, seconds: float, body: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def _upper(name: str) -> str:
    """MAX_PAYLOAD_IN_MB of MaxPayloadInMB."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).upper()
