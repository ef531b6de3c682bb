"""The local cloud that stands for Google Cloud on this machine.

python -m demo.google_cloud land 2013-02-08 2013-02-14 --url http://127.0.0.1:4599   more days land in its BigQuery
python -m demo.google_cloud outcomes 2013-02-08 --url http://127.0.0.1:4599          how the flights went
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from demo import gcp_landing
from demo.cloud import VENV, LocalCloud, landing_command
from demo.repository import REPOSITORY

PROJECT, REGION = "local-project", "us-central1"
BUCKET, DATASET, TOPIC, SUBSCRIPTION = "aileron-lake", "aileron", "aileron-landed", "aileron-landed"
LAKE, TEMPLATES = f"gs://{BUCKET}/lake", f"gs://{BUCKET}/templates"
IMAGE = f"us-docker.pkg.dev/{PROJECT}/aileron/jobs:1"
PIPELINES = f"us-docker.pkg.dev/{PROJECT}/aileron/pipelines:1"

NOISE = "You are using a Python version"  # and how long each of Google's libraries will work with it


def put_templates(bucket: Any, image: str) -> None:
    """Those of deploy/gcp, to where the DAGs look; `image` runs them."""
    for name in ("postprocess", "score"):
        metadata = json.loads((REPOSITORY / "deploy" / "gcp" / f"{name}.json").read_text())
        spec = {"image": image, "sdkInfo": {"language": "PYTHON"}, "metadata": metadata}
        bucket.blob(f"templates/{name}.json").upload_from_string(json.dumps(spec))


@dataclass(frozen=True)
class GoogleCloud(LocalCloud):
    """With a bucket, where the Flex Templates are, a dataset, and a topic with a subscription."""

    stands_for: ClassVar[str] = "Google Cloud"
    lands_on: ClassVar[str] = "in its BigQuery"
    arguments: ClassVar[tuple[str, ...]] = ("--cloud", "gcp", "--project", PROJECT, "--region", REGION)
    images: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        IMAGE: {
            "directory": str(REPOSITORY),
            "path": str(REPOSITORY / ".venv" / "bin"),
            "entrypoint": ["python", "-m", "include.jobs.vertex"],
            "environment": {"AILERON_GCS": "{gcs}", "AILERON_BIND": "127.0.0.1"},
        },
        PIPELINES: {
            "directory": str(REPOSITORY),
            "path": str(VENV / "bin"),
            "entrypoint": ["python", "deploy/gcp/launch.py"],
            "environment": {"PYTHONPATH": str(REPOSITORY)},
        },
    }

    def client(self, service: str) -> Any:
        """A client of the local cloud, whatever this shell is set up for: bigquery, storage, publisher or subscriber."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", NOISE)
            return MAKERS[service](self)

    @cached_property
    def access(self) -> dict[str, str]:
        """What it says that a process needs to be its client: a proxy, whom to trust, and a connection of Airflow."""
        return dict(self.asked("environment"))

    @property
    def token(self) -> str:
        """Whoever runs on a machine of Google's has it from there."""
        path = "/computeMetadata/v1/instance/service-accounts/default/token"
        return str(json.loads(self._answer(path, **{"Metadata-Flavor": "Google"}))["access_token"])

    @property
    def environment(self) -> dict[str, str]:
        return {
            **self.access,
            "PYTHONWARNINGS": f"ignore:{NOISE}",
            "AILERON_PLATFORM": "gcp",
            "AILERON_GCP_PROJECT": PROJECT,
            "AILERON_GCP_REGION": REGION,
            "AILERON_GCP_LAKE": LAKE,
            "AILERON_GCP_DATASET": DATASET,
            "AILERON_GCP_IMAGE": IMAGE,
            "AILERON_GCP_TEMPLATES": TEMPLATES,
            "AILERON_GCP_SERVICE_ACCOUNT": f"aileron-jobs@{PROJECT}.iam.gserviceaccount.com",
            "AILERON_GCP_SUBSCRIPTION": SUBSCRIPTION,
            "AILERON_GCP_POLL_SECONDS": "1",
            "AILERON_REGISTRY": "vertex://aileron",
            "AILERON_LEDGER": f"{LAKE}/ledger",
            "AILERON_OUTBOX": f"{LAKE}/outbox",
            "AILERON_PAGES": LAKE,
        }

    def furnish(self) -> None:
        put_templates(self.client("storage").create_bucket(BUCKET), PIPELINES)
        self.client("bigquery").create_dataset(DATASET)
        self.client("publisher").create_topic(name=_topic())
        self.client("subscriber").create_subscription(name=subscription(), topic=_topic())

    def take(self, source: Path) -> None:
        """Whoever loads days tells the topic."""
        gcp_landing.land(source, BUCKET, f"{PROJECT}.{DATASET}", self.client("bigquery"), self.client("storage"))
        tables = sorted(folder.name for folder in source.iterdir() if folder.is_dir())
        told = json.dumps({"dataset": f"{PROJECT}.{DATASET}", "tables": tables})
        self.client("publisher").publish(topic=_topic(), messages=[{"data": told.encode()}])


def subscription() -> str:
    return f"projects/{PROJECT}/subscriptions/{SUBSCRIPTION}"


def _topic() -> str:
    return f"projects/{PROJECT}/topics/{TOPIC}"


def _http(cloud: GoogleCloud) -> dict[str, Any]:
    """What a client of HTTP is given. It takes nothing from this shell, whose own proxy would come first."""
    from google.auth.transport.requests import AuthorizedSession
    from google.oauth2.credentials import Credentials

    session = AuthorizedSession(credentials := Credentials(cloud.token))
    session.trust_env = False
    session.proxies = {"https": cloud.access["HTTPS_PROXY"]}
    session.verify = cloud.access["REQUESTS_CA_BUNDLE"]
    return {"project": PROJECT, "credentials": credentials, "_http": session}


def _channel(cloud: GoogleCloud, host: str) -> Any:
    """The same of gRPC."""
    import grpc

    trusted = Path(cloud.access["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]).read_bytes()
    signed = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(trusted), grpc.access_token_call_credentials(cloud.token)
    )
    return grpc.secure_channel(f"{host}:443", signed, options=[("grpc.http_proxy", cloud.access["HTTPS_PROXY"])])


def _bigquery(cloud: GoogleCloud) -> Any:
    from google.cloud.bigquery import Client

    return Client(**_http(cloud))


def _storage(cloud: GoogleCloud) -> Any:
    from google.cloud.storage import Client

    return Client(**_http(cloud))


def _publisher(cloud: GoogleCloud) -> Any:
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    return PublisherClient(transport=PublisherGrpcTransport(channel=_channel(cloud, "pubsub.googleapis.com")))


def _subscriber(cloud: GoogleCloud) -> Any:
    from google.pubsub_v1 import SubscriberClient
    from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

    return SubscriberClient(transport=SubscriberGrpcTransport(channel=_channel(cloud, "pubsub.googleapis.com")))


MAKERS: dict[str, Callable[[GoogleCloud], Any]] = {
    "bigquery": _bigquery,
    "storage": _storage,
    "publisher": _publisher,
    "subscriber": _subscriber,
}


if __name__ == "__main__":
    landing_command(GoogleCloud, "python -m demo.google_cloud", __doc__)
