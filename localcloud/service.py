"""What a service of the local cloud stands on, and how it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localcloud.files import Files
    from localcloud.jobs import Jobs

# A validated request in, the members of the answer out, both as botocore has them: datetimes, dicts, lists.
Handler = Callable[[dict[str, Any]], dict[str, Any]]

# Whoever signs with this key is the cloud itself: not logged, not disturbed by faults.
OWN_KEY = "localcloud"


class Refused(Exception):
    """An error as the cloud answers it."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status


class NotHonoured(Refused):
    """The real cloud could do this; the local one cannot, and says so rather than leave it out."""

    def __init__(self, what: str) -> None:
        super().__init__("NotImplemented", f"the local cloud does not honour {what}: leave it out, or try the real cloud", 501)


@dataclass(frozen=True)
class Image:
    """What stands for a container image: a program and where it runs."""

    directory: str
    entrypoint: tuple[str, ...]
    path: str = ""  # a folder of programs, put first on PATH
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delays:
    start_seconds: float = 0.5  # from being asked for to running
    job_seconds: float = 1.0  # the least that a job runs
    stop_seconds: float = 5.0  # from SIGTERM to SIGKILL; 120 on AWS
    ping_seconds: float = 60.0  # until a model server must be ready


@dataclass(frozen=True)
class Cloud:
    """Handed to every service."""

    region: str
    account: str
    url: str
    folder: Path
    files: Files
    jobs: Jobs
    images: Mapping[str, Image]
    delays: Delays

    def client(self, service: str) -> Any:
        """A boto3 client of this very cloud."""
        return own_client(service, self.url, self.region)

    def arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"


@cache
def own_client(service: str, url: str, region: str) -> Any:
    """A boto3 client by which the cloud calls itself. Clients are safe to share between threads."""
    # A session of its own: boto3's default session must not be made by two threads at once.
    import boto3
    from botocore.config import Config

    session = boto3.session.Session(aws_access_key_id=OWN_KEY, aws_secret_access_key=OWN_KEY, region_name=region)
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, max_pool_connections=20)
    return session.client(service, endpoint_url=url, config=config)
