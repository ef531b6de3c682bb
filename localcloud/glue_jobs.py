"""Jobs of Glue: scripts for Spark, taken from S3 as they are, which read and write S3 and are run on this machine."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from localcloud.glue_catalog import Catalog
from localcloud.honoured import honoured
from localcloud.jobs import OVER, Job, JobFailed
from localcloud.service import Cloud, Handler, NotHonoured, Refused
from localcloud.spark import SPARKS, Script

KIND = "glue-run"
STATES = {
    "Pending": "STARTING",
    "Running": "RUNNING",
    "Stopping": "STOPPING",
    "Completed": "SUCCEEDED",
    "Failed": "FAILED",
    "Stopped": "STOPPED",
}
LOG_GROUP = "/aws-glue/jobs"
DPUS = {"Standard": 1.0, "G.025X": 0.25, "G.1X": 1.0, "G.2X": 2.0, "G.4X": 4.0, "G.8X": 8.0, "G.12X": 12.0, "G.16X": 16.0}
TIMEOUT_MINUTES = 480
DEFAULT_VERSION = "5.0"
PAGE = 100

DEFINITION = """
    Role Command.Name=glueetl Command.ScriptLocation Command.PythonVersion=3|3.11 DefaultArguments NonOverridableArguments
    MaxRetries=0 Timeout GlueVersion=5.0|5.1 WorkerType NumberOfWorkers MaxCapacity Description LogUri
    SecurityConfiguration ExecutionProperty.MaxConcurrentRuns ExecutionClass=STANDARD JobMode=SCRIPT JobRunQueuingEnabled=False"""
check_create = honoured("CreateJob", f"Name Tags {DEFINITION}")
check_update = honoured("JobUpdate", DEFINITION)
check_start = honoured("StartJobRun", "JobName Arguments Timeout WorkerType NumberOfWorkers MaxCapacity ExecutionClass=STANDARD")


@dataclass
class Definition:
    members: dict[str, Any]
    tags: dict[str, str]


def operations(cloud: Cloud, catalog: Catalog, minute: float = 60.0) -> dict[str, Handler]:
    """minute: how many seconds the minutes of a timeout have."""
    jobs: dict[str, Definition] = {}
    lock = threading.RLock()

    def definition(name: str) -> Definition:
        if name not in jobs:
            raise Refused("EntityNotFoundException", f"Entity not found: Job {name} is not found")
        return jobs[name]

    def create_job(request: dict[str, Any]) -> dict[str, Any]:
        check_create(request)
        with lock:
            if request["Name"] in jobs:
                raise Refused("AlreadyExistsException", f"Job with name: {request['Name']} already submitted")
            given = {key: value for key, value in request.items() if key != "Tags"}
            jobs[request["Name"]] = Definition(_defined(given), dict(request.get("Tags", {})))
        return {"Name": request["Name"]}

    def get_job(request: dict[str, Any]) -> dict[str, Any]:
        return {"Job": definition(request["JobName"]).members}

    def update_job(request: dict[str, Any]) -> dict[str, Any]:
        check_update(request["JobUpdate"])
        with lock:
            known = definition(request["JobName"])
            # What is not given is not kept, but for the name.
            known.members = {
                **_defined({**request["JobUpdate"], "Name": request["JobName"]}),
                "CreatedOn": known.members["CreatedOn"],
            }
        return {"JobName": request["JobName"]}

    def start_job_run(request: dict[str, Any]) -> dict[str, Any]:
        check_start(request)
        with lock:
            known = definition(request["JobName"])
            most = known.members["ExecutionProperty"]["MaxConcurrentRuns"]
            if sum(job.state not in OVER for job in runs(request["JobName"])) >= most:
                raise Refused("ConcurrentRunsExceededException", f"Concurrent runs exceeded for {request['JobName']}")
            settled = _settled(known.members, request)
            run_id = f"jr_{secrets.token_hex(32)}"
            cloud.jobs.start(
                "glue",
                KIND,
                run_id,
                request,
                lambda job: run(cloud, job),
                limit=settled["Timeout"] * minute,
                definition=known.members,
                settled=settled,
                instance_type=settled.get("WorkerType"),
                instance_count=settled.get("NumberOfWorkers"),
                tags=dict(known.tags),
            )
        return {"JobRunId": run_id}

    def runs(name: str) -> list[Job]:
        return [job for job in cloud.jobs.list(KIND) if job.request["JobName"] == name]

    def found(name: str, run_id: str) -> Job:
        definition(name)
        job = cloud.jobs.find(KIND, run_id)
        if job is None or job.request["JobName"] != name:
            raise Refused("EntityNotFoundException", f"Entity not found: Job run {run_id} is not found")
        return job

    def get_job_run(request: dict[str, Any]) -> dict[str, Any]:
        return {"JobRun": described(found(request["JobName"], request["RunId"]))}

    def get_job_runs(request: dict[str, Any]) -> dict[str, Any]:
        definition(request["JobName"])
        newest_first = [described(job) for job in reversed(runs(request["JobName"]))]
        begin = int(request["NextToken"]) if request.get("NextToken", "").isdigit() else 0
        end = begin + request.get("MaxResults", PAGE)
        return {"JobRuns": newest_first[begin:end], **({"NextToken": str(end)} if end < len(newest_first) else {})}

    def batch_stop_job_run(request: dict[str, Any]) -> dict[str, Any]:
        stopped, errors = [], []
        for run_id in request["JobRunIds"]:
            named = {"JobName": request["JobName"], "JobRunId": run_id}
            try:
                job = found(request["JobName"], run_id)
                if job.state in OVER:
                    raise Refused("InvalidInputException", f"Job run {run_id} is {_state(job)} and cannot be stopped")
            except Refused as error:
                errors.append({**named, "ErrorDetail": {"ErrorCode": error.code, "ErrorMessage": error.message}})
                continue
            cloud.jobs.stop(job)
            stopped.append(named)
        return {"SuccessfulSubmissions": stopped, "Errors": errors}

    def of_arn(arn: str) -> Definition:
        name = re.fullmatch(re.escape(cloud.arn("glue", "job/")) + "(.+)", arn)
        if not name:
            raise NotHonoured(f"tags of {arn} (only those of jobs)")
        return definition(name[1])

    def tag_resource(request: dict[str, Any]) -> dict[str, Any]:
        of_arn(request["ResourceArn"]).tags.update(request["TagsToAdd"])
        return {}

    def get_tags(request: dict[str, Any]) -> dict[str, Any]:
        return {"Tags": dict(of_arn(request["ResourceArn"]).tags)}

    def untag_resource(request: dict[str, Any]) -> dict[str, Any]:
        tags = of_arn(request["ResourceArn"]).tags
        for key in request["TagsToRemove"]:
            tags.pop(key, None)
        return {}

    return {
        "CreateJob": create_job,
        "GetJob": get_job,
        "UpdateJob": update_job,
        "StartJobRun": start_job_run,
        "GetJobRun": get_job_run,
        "GetJobRuns": get_job_runs,
        "BatchStopJobRun": batch_stop_job_run,
        "TagResource": tag_resource,
        "UntagResource": untag_resource,
        "GetTags": get_tags,
    }


def run(cloud: Cloud, job: Job) -> None:
    """The script and what it reads down, Spark, what it has written up: also if it fails or is stopped, as in S3.

    Raises:
        JobFailed: with Glue's ErrorMessage.
    """
    settled, definition = job.facts["settled"], job.facts["definition"]
    folder = cloud.folder / "glue" / job.name[:20]
    folder.mkdir(parents=True)
    try:
        script = folder / Path(definition["Command"]["ScriptLocation"]).name
        script.write_bytes(_read(cloud, definition["Command"]["ScriptLocation"]))
        arguments = settled["Arguments"]
        buckets = Buckets(cloud, folder / "s3", [*arguments.values(), definition["Command"]["ScriptLocation"]])
        py_files = [_kept(cloud, uri.strip()) for uri in arguments.get("--extra-py-files", "").split(",") if uri.strip()]
        output, errors = folder / "output.log", folder / "error.log"
        asked = Script(
            str(script),
            list(_argv(job, arguments)),
            [str(path) for path in py_files],
            {name: str(path) for name, path in buckets.folders.items()},
            str(output),
            str(errors),
            str(folder),
        )
        try:
            SPARKS.run(asked, _environment(cloud), job.stopping)
        except JobFailed as error:
            told = errors.read_text(errors="replace") if errors.is_file() else ""
            errors.write_text(told or f"{error}\n")
            raise
        finally:
            buckets.upload()
            for stream, file in (("output", output), ("error", errors)):
                _log(cloud, f"{LOG_GROUP}/{stream}", job, file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Buckets:
    """A copy of the buckets that a job names, for its own use; what it changes there is then changed in S3."""

    def __init__(self, cloud: Cloud, folder: Path, named: list[str]) -> None:
        self._cloud, self._folder = cloud, folder
        self.folders: dict[str, Path] = {}
        for bucket in sorted({name for text in named for name in re.findall(r"s3://([a-z0-9][a-z0-9.-]+)", text)}):
            self.folders[bucket] = folder / bucket
            self.folders[bucket].mkdir(parents=True)
            mirror = cloud.files.fetch(f"s3://{bucket}/")
            for uri in cloud.files.keys(f"s3://{bucket}/"):
                key = uri.removeprefix(f"s3://{bucket}/")
                target = self.folders[bucket] / key
                target.parent.mkdir(parents=True, exist_ok=True)
                # A name more for the same bytes. Spark replaces files and changes none.
                with suppress(FileNotFoundError):
                    os.link(mirror / key, target)
        self._before = dict(self._seen())

    def upload(self) -> None:
        now = dict(self._seen())
        client = self._cloud.client("s3")
        for bucket, key in sorted(self._before.keys() - now.keys()):
            client.delete_object(Bucket=bucket, Key=key)
        changed = [named for named, seen in now.items() if self._before.get(named) != seen]
        # Markers such as _SUCCESS say that the rest is there.
        for bucket, key in sorted(changed, key=lambda named: (Path(named[1]).name.startswith("_"), named)):
            client.upload_file(str(self.folders[bucket] / key), bucket, key)

    def _seen(self) -> Iterator[tuple[tuple[str, str], tuple[int, int, int]]]:
        for bucket, folder in self.folders.items():
            for path in folder.rglob("*"):
                key = path.relative_to(folder)
                # On S3 what was not committed cannot be seen.
                if "_temporary" in key.parts or any(part.startswith(".spark-staging") for part in key.parts):
                    continue
                if path.is_file() and path.suffix != ".crc":
                    found = path.stat()
                    yield (bucket, key.as_posix()), (found.st_ino, found.st_mtime_ns, found.st_size)


def described(job: Job) -> dict[str, Any]:
    """A JobRun of Glue."""
    settled, definition = job.facts["settled"], job.facts["definition"]
    state = _state(job)
    run: dict[str, Any] = {
        "Id": job.name,
        "Attempt": 0,
        "JobName": job.request["JobName"],
        "StartedOn": job.created,
        "LastModifiedOn": job.ended or job.started or job.created,
        "JobRunState": state,
        "PredecessorRuns": [],
        "AllocatedCapacity": int(settled["MaxCapacity"]),
        "ExecutionTime": job.billed_seconds,
        "DPUSeconds": job.billed_seconds * settled["MaxCapacity"],
        "LogGroupName": LOG_GROUP,
        "GlueVersion": definition["GlueVersion"],
        "ExecutionClass": "STANDARD",
        **settled,
        "Arguments": job.request.get("Arguments", {}),
    }
    if job.ended:
        run["CompletedOn"] = job.ended
    if state == "FAILED":
        run["ErrorMessage"] = job.reason
    if state == "TIMEOUT":
        run["ErrorMessage"] = "Job run exceeded its timeout"
    return run


def _state(job: Job) -> str:
    return "TIMEOUT" if job.state == "Stopped" and job.expired else STATES[job.state]


def _defined(given: Mapping[str, Any]) -> dict[str, Any]:
    """A Job of Glue, with what is so unless it is said."""
    _check_capacity(given)
    known = {"MaxRetries": 0, "Timeout": TIMEOUT_MINUTES, "GlueVersion": DEFAULT_VERSION, "DefaultArguments": {}}
    concurrent = given.get("ExecutionProperty", {}).get("MaxConcurrentRuns", 1)
    now = datetime.now(UTC)
    return {
        **known,
        **given,
        "ExecutionProperty": {"MaxConcurrentRuns": concurrent},
        "CreatedOn": now,
        "LastModifiedOn": now,
        "MaxCapacity": _capacity(given),
    }


def _settled(definition: Mapping[str, Any], request: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for one run: its arguments, time and capacity."""
    _check_capacity(request)
    own = ("WorkerType", "NumberOfWorkers", "MaxCapacity")
    capacity = {key: (request if any(key in request for key in own) else definition).get(key) for key in own}
    return {
        **{key: value for key, value in capacity.items() if value is not None},
        "MaxCapacity": _capacity({key: value for key, value in capacity.items() if value is not None}),
        "Timeout": request.get("Timeout", definition["Timeout"]),
        "Arguments": {
            **definition.get("DefaultArguments", {}),
            **request.get("Arguments", {}),
            **definition.get("NonOverridableArguments", {}),
        },
    }


def _check_capacity(given: Mapping[str, Any]) -> None:
    if "MaxCapacity" in given and ("WorkerType" in given or "NumberOfWorkers" in given):
        raise Refused("InvalidInputException", "Please do not set Max Capacity if using Worker Type and Number of Workers.")
    if ("WorkerType" in given) != ("NumberOfWorkers" in given):
        raise Refused("InvalidInputException", "Please set both Worker Type and Number of Workers.")
    if given.get("WorkerType", "G.1X") not in DPUS:
        raise Refused("InvalidInputException", f"Worker Type {given['WorkerType']} is not one of {', '.join(DPUS)}")


def _capacity(given: Mapping[str, Any]) -> float:
    if "WorkerType" in given:
        return float(DPUS[given["WorkerType"]] * given["NumberOfWorkers"])
    return float(given.get("MaxCapacity", 10))


def _argv(job: Job, arguments: Mapping[str, str]) -> Iterator[str]:
    """What Glue gives a script: its own arguments among those of the job, in no order that could be counted on."""
    own = {
        "--JOB_ID": "j_" + hashlib.sha256(job.request["JobName"].encode()).hexdigest(),
        "--JOB_RUN_ID": job.name,
        "--job-bookmark-option": "job-bookmark-disable",
        "--JOB_NAME": job.request["JobName"],
    }
    for name, value in {**own, **{key: value for key, value in arguments.items() if key != "--extra-py-files"}}.items():
        yield name
        yield value


def _environment(cloud: Cloud) -> dict[str, str]:
    """So that a script which asks AWS itself finds this cloud."""
    return {
        "AWS_ENDPOINT_URL": cloud.url,
        "AWS_DEFAULT_REGION": cloud.region,
        "AWS_REGION": cloud.region,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "GLUE_VERSION": DEFAULT_VERSION,
    }


def _read(cloud: Cloud, uri: str) -> bytes:
    try:
        return cloud.files.read(uri)
    except FileNotFoundError:
        raise JobFailed(f"LAUNCH ERROR | File not found: {uri}. Please refer logs for details.") from None


def _kept(cloud: Cloud, uri: str) -> Path:
    """A file of modules by what is in it: the workers that know it serve the next job too, and no other."""
    content = _read(cloud, uri)
    path = cloud.folder / "glue" / "modules" / hashlib.sha256(content).hexdigest() / Path(uri).name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{secrets.token_hex(4)}.draft")
        draft.write_bytes(content)
        draft.replace(path)
    # A single module is found in its folder, a zip is looked into.
    return path.parent if path.suffix == ".py" else path


def _log(cloud: Cloud, group: str, job: Job, file: Path) -> None:
    """The lines of a file as a stream of CloudWatch Logs, called as the run."""
    if not file.is_file():
        return
    client = cloud.client("logs")
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_group(logGroupName=group)
    with suppress(client.exceptions.ResourceAlreadyExistsException):
        client.create_log_stream(logGroupName=group, logStreamName=job.name)
    moment = int(time.time() * 1000)
    lines = [line for line in file.read_text(errors="replace").splitlines() if line.strip()]
    for line in lines:
        job.say(line)
    for begin in range(0, len(lines), 500):
        events = [{"timestamp": moment, "message": line[:2000]} for line in lines[begin : begin + 500]]
        client.put_log_events(logGroupName=group, logStreamName=job.name, logEvents=events)
