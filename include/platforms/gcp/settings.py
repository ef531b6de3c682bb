"""Where in a Google Cloud project the DAGs work: AILERON_GCP_* variables, checked before anything is asked of Google."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from include.config import ModelConfig, settings
from include.platforms import environment
from include.platforms.environment import InvalidSettings
from include.platforms.remote_jobs import Terms

PREFIX = "AILERON_GCP_"
Scoring = Literal["vertex", "dataflow"]


@dataclass(frozen=True)
class GcpSettings:
    """One variable each: `lake` is AILERON_GCP_LAKE. Empty: not used."""

    project: str
    lake: str  # gs://bucket/prefix
    dataset: str  # of BigQuery, with the source tables
    image: str  # of the container of deploy/gcp, in Artifact Registry
    templates: str  # gs://bucket/prefix of the specs of the Flex Templates of deploy/gcp
    service_account: str  # e-mail, of the jobs of Vertex AI and Dataflow
    region: str = "us-central1"  # of Vertex AI and Dataflow
    location: str = "US"  # of the dataset
    connection: str = "google_cloud_default"  # of Airflow
    kms_key: str = ""  # projects/.../cryptoKeys/...: encrypts what jobs write and the disks they use
    network: str = ""  # projects/.../global/networks/...: jobs of Vertex AI are peered with it
    subnetwork: str = ""  # regions/.../subnetworks/...: workers of Dataflow run in it, without public addresses
    machine: str = "n1-standard-4"  # of custom jobs and batch predictions
    replicas: str = "1"  # of a batch prediction
    dataflow_machine: str = "n1-standard-1"
    dataflow_workers: str = "2"  # at most
    scoring: Scoring = "vertex"  # dataflow: scores are made inside Dataflow
    max_job_hours: str = "4"  # then a job is stopped
    max_job_cost: str = "25"  # US dollars, estimated; a dearer job is not submitted
    max_query_gb: str = "1000"  # that one query may be billed
    cost_center: str = ""  # a label
    poll_seconds: str = "30"
    deferrable: str = "true"  # false: a worker waits for each job
    subscription: str = ""  # of Pub/Sub, that tells of landed partitions

    @property
    def bucket(self) -> str:
        return self.lake.removeprefix("gs://").partition("/")[0]

    @property
    def parent(self) -> str:
        """Of the resources of Vertex AI."""
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def seconds(self) -> float:
        """Between two looks at a job."""
        return int(self.poll_seconds)

    @property
    def most_seconds(self) -> int:
        """That a job may take."""
        return int(float(self.max_job_hours) * 3600)

    @property
    def most_bytes(self) -> int:
        """That a query may be billed."""
        return int(float(self.max_query_gb) * 1e9)


PATTERNS = {
    "project": (r"[a-z][a-z0-9-]{4,28}[a-z0-9]", "the id of a project"),
    "lake": (r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[A-Za-z0-9_=.-]+)*", "like gs://bucket/aileron"),
    "dataset": (r"[A-Za-z_][A-Za-z0-9_]{0,200}", "the name of a dataset of BigQuery"),
    "image": (r"[A-Za-z0-9][A-Za-z0-9./_:@-]{1,254}", "the URI of the container image that deploy/gcp/Dockerfile makes"),
    "templates": (r"gs://[a-z0-9][a-z0-9._-]{1,61}[a-z0-9](/[A-Za-z0-9_=.-]+)*", "like gs://bucket/aileron/templates"),
    "service_account": (r"[a-z0-9-]{1,63}@[a-z0-9.-]+\.gserviceaccount\.com", "the e-mail of a service account"),
    "region": (r"[a-z]+-[a-z]+[0-9]{1,2}", "a region, like us-central1"),
    "location": (r"[A-Za-z0-9-]{2,30}", "the location of the dataset, like US or europe-west1"),
    "connection": (r"[A-Za-z0-9_.-]{1,200}", "the id of an Airflow connection"),
    "kms_key": (
        r"(projects/[a-z0-9-]+/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]+/cryptoKeys/[A-Za-z0-9_-]+)?",
        "like projects/p/locations/l/keyRings/r/cryptoKeys/k",
    ),
    "network": (r"(projects/[a-z0-9-]+/global/networks/[a-z0-9-]+)?", "like projects/123/global/networks/default"),
    "subnetwork": (
        r"((https://\S+/)?regions/[a-z0-9-]+/subnetworks/[a-z0-9-]+)?",
        "like regions/us-central1/subnetworks/default",
    ),
    "machine": (r"[a-z][a-z0-9]+-[a-z0-9-]+", "a machine type, like n1-standard-4"),
    "replicas": (r"[1-9][0-9]?", "a number from 1 to 99"),
    "dataflow_machine": (r"[a-z][a-z0-9]+-[a-z0-9-]+", "a machine type, like n1-standard-1"),
    "dataflow_workers": (r"[1-9][0-9]?", "a number from 1 to 99"),
    "scoring": (r"vertex|dataflow", "vertex or dataflow"),
    "max_job_hours": (r"[0-9]+(\.[0-9]+)?", "a number of hours"),
    "max_job_cost": (r"[0-9]+(\.[0-9]+)?", "a number of US dollars"),
    "max_query_gb": (r"[0-9]+(\.[0-9]+)?", "a number of gigabytes"),
    "cost_center": (r"[A-Za-z0-9 _-]{0,63}", "letters, digits, - and _"),
    "poll_seconds": (r"[1-9][0-9]{0,2}", "a number of seconds from 1 to 999"),
    "deferrable": (r"true|false", "true or false"),
    "subscription": (r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}|", "the name of a subscription of Pub/Sub in the project"),
}


def gcp() -> GcpSettings:
    """Read anew at each call, as `config.settings`.

    Raises:
        InvalidSettings: naming every variable that is missing or wrong.
    """
    chosen = environment.given(GcpSettings, PREFIX)
    if wrong := environment.faults(chosen, PREFIX, PATTERNS):
        raise InvalidSettings("the environment of platform gcp: " + "; ".join(wrong) + " (docs/platforms/gcp.md)")
    return chosen


def terms() -> Terms:
    """On what terms jobs are run."""
    from include.platforms.gcp.prices import book

    chosen = gcp()
    return Terms(
        connection=chosen.connection,
        defers=chosen.deferrable == "true",
        poll_seconds=chosen.seconds,
        most_seconds=chosen.most_seconds,
        most_cost=float(chosen.max_job_cost),
        hours_variable=environment.variable(PREFIX, "max_job_hours"),
        cost_variable=environment.variable(PREFIX, "max_job_cost"),
        prices=str(book()["as_of"]),
    )


def labels(model: ModelConfig, run_id: str = "") -> dict[str, str]:
    """What every resource carries. A run id is free text: what Google takes for no label becomes _."""
    chosen = {
        "owner": model.owner.team,
        "model": model.name,
        "run": run_id,
        "environment": settings().environment,
        "cost-center": gcp().cost_center,
    }
    return {name: label(value) for name, value in chosen.items() if value}


def label(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]", "_", text.lower())[:63]
