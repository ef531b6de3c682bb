"""Dataflow's flex templates: a container is launched with its parameters, and runs the pipeline itself, on this machine."""

from __future__ import annotations

import re
import secrets
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from google.cloud import dataflow_v1beta3 as types

from localcloud.gcp.containers import command, environment, failure, last_words, logged, run
from localcloud.gcp.dataflow_jobs import Entry, of_job, shown, told
from localcloud.gcp.dataflow_template import Template, check_environment, template
from localcloud.gcp.service import Asked, Cloud, Method, Methods, Operations, Rest, pages
from localcloud.gcp.vertex_resources import PAGE, Store, made
from localcloud.honoured import honoured
from localcloud.jobs import Job
from localcloud.service import NotHonoured, Refused

KIND = "dataflow-job"
SERVICE = "/google.dataflow.v1beta3.JobsV1Beta3/"
NAME = re.compile(r"[a-z]([-a-z0-9]{0,1022}[a-z0-9])?")
ENDED = ("JOB_STATE_DONE", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED")
IMPORTANCE = ("JOB_MESSAGE_DEBUG", "JOB_MESSAGE_DETAILED", "JOB_MESSAGE_BASIC", "JOB_MESSAGE_WARNING", "JOB_MESSAGE_ERROR")

check_launch = honoured(
    "flexTemplates.launch",
    """
    launchParameter.jobName launchParameter.containerSpecGcsPath launchParameter.parameters launchParameter.environment
    launchParameter.update=False validateOnly=False
    """,
)


class Dataflow:
    """Jobs are found among all jobs of the cloud, so that what answers over HTTP and over gRPC sees the same."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._store = Store(cloud.folder / "dataflow")
        self._former = {key: Entry(kept) for key, kept in self._store.load().items()}
        for key, entry in self._former.items():
            if entry.resource["currentState"] not in ENDED:
                entry.die()
                self._store.save(key, entry.resource)

    def operations(self) -> Operations:
        offered: dict[str, Rest] = {
            "flexTemplates.launch": self.launch,
            "jobs.get": self.get,
            "jobs.list": self.list,
            "jobs.update": self.update,
            "jobs.messages.list": self.messages,
        }
        return {f"projects.locations.{name}": rest for name, rest in offered.items()}

    def methods(self) -> Methods:
        return {
            f"{SERVICE}GetJob": Method(types.GetJobRequest, self.get_message),
            f"{SERVICE}ListJobs": Method(types.ListJobsRequest, self.list_messages),
        }

    def launch(self, asked: Asked) -> dict[str, Any]:
        self._check_place(asked.params)
        check_launch(asked.body)
        parameter = asked.body.get("launchParameter", {})
        name = parameter.get("jobName", "")
        if not NAME.fullmatch(name):
            raise Refused("badRequest", f"The job name {name!r} must match {NAME.pattern}.", 400)
        if "containerSpecGcsPath" not in parameter:
            raise Refused("badRequest", "containerSpecGcsPath must be given.", 400)
        wanted = template(self._cloud, parameter["containerSpecGcsPath"])
        wanted.check(parameter.get("parameters", {}))
        settings = {**wanted.environment, **parameter.get("environment", {})}
        check_environment(settings, wanted.image, self._cloud.region)
        with self._lock:
            for entry in self._entries().values():
                if entry.resource["name"] == name and shown(entry)["currentState"] not in ENDED:
                    raise Refused(
                        "alreadyExists",
                        f"There is already an active job named {name}. If you want to submit a second job, try again with a"
                        " different name.",
                        409,
                    )
            entry = self._start(name, wanted, parameter.get("parameters", {}), settings)
        return {"job": _only(shown(entry), "JOB_VIEW_SUMMARY")}

    def get(self, asked: Asked) -> dict[str, Any]:
        self._check_place(asked.params)
        return _only(shown(self._found(asked.params["jobId"])), asked.params.get("view"))

    def list(self, asked: Asked) -> dict[str, Any]:
        """The newest first."""
        self._check_place(asked.params)
        size, token = asked.params.get("pageSize") or PAGE, asked.params.get("pageToken")
        part, following = self._listed(asked.params.get("filter"), asked.params.get("name"), size, token)
        jobs = [_only(job, asked.params.get("view")) for job in part]
        return {"jobs": jobs, **({"nextPageToken": following} if following else {})}

    def update(self, asked: Asked) -> dict[str, Any]:
        """Cancels: the job is cancelled when its program has ended."""
        self._check_place(asked.params)
        if asked.params.get("updateMask"):
            raise NotHonoured("updateMask of jobs.update")
        if unknown := asked.body.keys() - {"requestedState"}:
            raise NotHonoured(f"{', '.join(sorted(unknown))} of jobs.update")
        entry = self._found(asked.params["jobId"])
        state, wanted = shown(entry)["currentState"], asked.body.get("requestedState")
        if wanted != "JOB_STATE_CANCELLED":
            raise NotHonoured(f"requestedState={wanted} of jobs.update (only JOB_STATE_CANCELLED; a batch job is not drained)")
        if entry.job is None or state in ENDED:
            raise Refused("failedPrecondition", f"Job {asked.params['jobId']} is {state} and cannot be cancelled.", 400)
        self._cloud.jobs.stop(entry.job)
        return {**_only(shown(entry), "JOB_VIEW_SUMMARY"), "requestedState": wanted}

    def messages(self, asked: Asked) -> dict[str, Any]:
        """What happened to a job, and the last words of one that failed."""
        self._check_place(asked.params)
        least = asked.params.get("minimumImportance", "JOB_MESSAGE_IMPORTANCE_UNKNOWN")
        ranks = IMPORTANCE[IMPORTANCE.index(least) if least in IMPORTANCE else 0 :]
        begin, end = (datetime.fromisoformat(asked.params.get(name, other)) for name, other in BOUNDS)
        rows = [
            row
            for row in told(self._found(asked.params["jobId"]))
            if row["messageImportance"] in ranks and begin <= datetime.fromisoformat(row["time"]) < end
        ]
        part, following = pages(rows, asked.params.get("pageSize") or PAGE, asked.params.get("pageToken"))
        return {"jobMessages": part, **({"nextPageToken": following} if following else {})}

    def get_message(self, request: types.GetJobRequest) -> types.Job:
        self._check_place({"projectId": request.project_id, "location": request.location})
        job: types.Job = made(types.Job, _only(shown(self._found(request.job_id)), request.view.name))
        return job

    def list_messages(self, request: types.ListJobsRequest) -> types.ListJobsResponse:
        self._check_place({"projectId": request.project_id, "location": request.location})
        part, following = self._listed(
            request.filter.name, request.name or None, request.page_size or PAGE, request.page_token or None
        )
        jobs = [made(types.Job, _only(job, request.view.name)) for job in part]
        return types.ListJobsResponse(jobs=jobs, next_page_token=following)

    def _start(self, name: str, wanted: Template, parameters: Mapping[str, str], settings: dict[str, Any]) -> Entry:
        now = datetime.now(UTC)
        key = f"{now:%Y-%m-%d_%H_%M_%S}-{secrets.randbelow(9 * 10**18) + 10**18}"
        labels = dict(settings.get("additionalUserLabels", {}))
        resource = of_job(key, name, self._cloud.project, self._cloud.region, labels, parameters, settings, now)
        self._store.save(key, resource)
        job = self._cloud.jobs.start(
            "dataflow",
            KIND,
            name,
            {"parameters": dict(parameters), "environment": settings, "image": wanted.image},
            lambda job: self._run(job, key, wanted, parameters, settings),
            on_end=lambda job: self._end(Entry(resource, job)),
            resource=resource,
            instance_type=settings.get("machineType"),
            instance_count=settings.get("numWorkers", 1),
            tags=labels,
        )
        return Entry(resource, job)

    def _run(self, job: Job, key: str, wanted: Template, parameters: Mapping[str, str], settings: Mapping[str, Any]) -> None:
        image = self._cloud.images[wanted.image]
        options = {
            **parameters,
            "runner": "FnApiRunner",
            "project": self._cloud.project,
            "region": self._cloud.region,
            "job_name": job.name,
            **{option: settings[name] for name, option in LOCATIONS.items() if name in settings},
        }
        home = self._cloud.folder / "dataflow" / "work" / key
        home.mkdir(parents=True)
        with logged(self._cloud, job, key):
            argv = command(image, {"args": [f"--{name}={value}" for name, value in options.items()]})
            try:
                code = run(job, argv, environment(self._cloud, image, home, {}, {}), image)
            finally:
                with suppress(OSError):
                    shutil.rmtree(home)
        if code:
            raise failure(job, f"The pipeline ended with exit code {code}.\n{last_words(job)}")

    def _end(self, entry: Entry) -> None:
        assert entry.job is not None
        ends = entry.job.facts["ends"]
        self._store.save(entry.resource["id"], {**shown(entry, ends), "messages": told(entry, ends)})

    def _listed(self, state: str | None, name: str | None, size: int, token: str | None) -> tuple[Any, str]:
        rows = [shown(entry) for entry in self._entries().values()]
        rows.sort(key=lambda row: str(row["createTime"]), reverse=True)
        if name:
            rows = [row for row in rows if row["name"] == name]
        if state in ("ACTIVE", "TERMINATED"):
            rows = [row for row in rows if (row["currentState"] in ENDED) == (state == "TERMINATED")]
        return pages(rows, size, token)

    def _entries(self) -> dict[str, Entry]:
        jobs = [Entry(job.facts["resource"], job) for job in self._cloud.jobs.list(KIND)]
        return {**self._former, **{entry.resource["id"]: entry for entry in jobs}}

    def _found(self, key: str) -> Entry:
        entry = self._entries().get(key)
        if entry is None:
            raise Refused("notFound", f"Information about job {key} could not be found in our system.", 404)
        return entry

    def _check_place(self, params: Mapping[str, Any]) -> None:
        if params["projectId"] != self._cloud.project:
            raise Refused("forbidden", f"Could not find project {params['projectId']}, or it may not be used.", 403)
        if params["location"] != self._cloud.region:
            raise NotHonoured(f"location {params['location']}: this local cloud is {self._cloud.region}")


# Of a launch's environment, what the program is told, and by which option.
LOCATIONS = {"tempLocation": "temp_location", "stagingLocation": "staging_location"}
BOUNDS = (("startTime", "1970-01-01T00:00:00+00:00"), ("endTime", "9999-01-01T00:00:00+00:00"))


def operations(cloud: Cloud) -> Operations:
    return Dataflow(cloud).operations()


def methods(cloud: Cloud) -> Methods:
    return Dataflow(cloud).methods()


def _only(job: dict[str, Any], view: str | None) -> dict[str, Any]:
    """A job as a view shows it."""
    hidden = {"messages"} if view in ("JOB_VIEW_ALL", "JOB_VIEW_DESCRIPTION") else {"messages", "environment"}
    return {name: value for name, value in job.items() if name not in hidden}
