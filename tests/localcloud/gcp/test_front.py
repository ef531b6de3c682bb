"""The port that clients see: where it leads, what it refuses, what it notes, and how calls go wrong."""

from __future__ import annotations

import gzip
import json
import os
import socket
import ssl
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core.exceptions import ServiceUnavailable, TooManyRequests, Unauthenticated
from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from include.config import REPOSITORY
from tests.localcloud.cloud import PYTHON, ROOT
from tests.localcloud.gcp.cloud import PROJECT, REGION, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
STORAGE = "https://storage.googleapis.com"
TOPIC = f"projects/{PROJECT}/topics/drift"


@pytest.fixture
def worker() -> Iterator[subprocess.Popen[bytes]]:
    """A process that can be killed."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@pytest.fixture
def publisher(cloud: GoogleCloud) -> Iterator[Any]:
    from google.cloud import pubsub_v1

    client = pubsub_v1.PublisherClient()
    yield client
    client.transport.close()


@pytest.mark.parametrize(
    "target",
    ["pypi.org:443", "storage.googleapis.com:80", "googleapis.com.evil.org:443", "a.b.googleapis.com:443", "169.254.169.254:80"],
)
def test_nothing_leaves_the_machine(running_google: GoogleCloud, target: str) -> None:
    running_google.reset()
    with _connected(running_google) as connection:
        connection.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 502")
    assert b"nothing leaves this machine" in answer
    assert running_google.proxied() == [{"host": target, "let_through": False, "times": 1}]
    assert running_google.refused_hosts() == [target]


def test_a_proxy_of_requests_in_the_clear_is_none(running_google: GoogleCloud) -> None:
    running_google.reset()
    answer = requests.get("http://example.org/x", proxies={"http": running_google.url}, timeout=10)
    assert answer.status_code == 502
    assert running_google.refused_hosts() == ["http://example.org/x"]


def test_the_certificates_are_strictly_right(running_google: GoogleCloud) -> None:
    """As Python 3.13 checks them, and no key of theirs is for others to read."""
    environment = running_google.environment()
    context = ssl.create_default_context(cafile=environment["SSL_CERT_FILE"])
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    with _connected(running_google) as connection:
        connection.sendall(b"CONNECT bigquery.googleapis.com:443 HTTP/1.1\r\n\r\n")
        assert b" 200 " in connection.recv(1000)
        with context.wrap_socket(connection, server_hostname="bigquery.googleapis.com") as inner:
            certificate: Any = inner.getpeercert()
    assert 28 * 86400 < ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time() < 31 * 86400
    folder = Path(environment["SSL_CERT_FILE"]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [(path.name, stat.S_IMODE(path.stat().st_mode)) for path in folder.glob("*.key")] == [("server.key", 0o600)]


def test_certificates_are_renewed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from localcloud.gcp import certificates

    with monkeypatch.context() as patched:
        patched.setattr(certificates, "VALID", timedelta(days=9))
        old = certificates.certificates(tmp_path).authority.read_bytes()
    new = certificates.certificates(tmp_path).authority.read_bytes()
    assert old != new
    assert certificates.certificates(tmp_path).authority.read_bytes() == new


def test_credentials_are_found_as_on_composer(cloud: GoogleCloud) -> None:
    import google.auth
    from google.auth import compute_engine
    from google.auth.transport.requests import Request

    credentials, project = google.auth.default()
    assert (type(credentials), project) == (compute_engine.Credentials, PROJECT)
    credentials.refresh(Request())
    found: Any = credentials
    assert found.service_account_email == f"composer@{PROJECT}.iam.gserviceaccount.com"
    assert found.universe_domain == "googleapis.com"


def test_other_credentials_are_refused(cloud: GoogleCloud) -> None:
    from google.cloud import pubsub_v1

    for token in ({}, {"Authorization": "Bearer ya29.of-somebody"}):
        answer = requests.get(f"{STORAGE}/storage/v1/b/lake", headers=token, timeout=10)
        assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (401, "authError")

    with pytest.raises(Unauthenticated):
        pubsub_v1.PublisherClient(credentials=AnonymousCredentials()).get_topic(topic=TOPIC)
    assert [call["status"] for call in cloud.calls()] == [401, 401, 401]


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/computeMetadata/v1/project/project-id", {}, 403),
        ("/computeMetadata/v1/project/project-id", {"Metadata-Flavor": "Google", "Host": "evil.org"}, 403),
        ("/computeMetadata/v1/instance/disks", {"Metadata-Flavor": "Google"}, 404),
        ("/_localcloud/calls", {"Host": "evil.org"}, 403),
        ("/_localcloud/moon", {}, 404),
    ],
)
def test_a_page_in_a_browser_learns_nothing(running_google: GoogleCloud, path: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(urllib.request.Request(running_google.url + path, headers=headers), timeout=10)
    assert caught.value.code == status


def test_a_page_in_a_browser_changes_nothing(running_google: GoogleCloud) -> None:
    request = urllib.request.Request(
        f"{running_google.url}/_localcloud/reset", data=b"{}", headers={"Content-Type": "text/plain"}, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    assert caught.value.code == 415


def test_it_says_what_it_is(cloud: GoogleCloud) -> None:
    health = cloud.control("GET", "health")
    assert (health["state"], health["project"], health["region"]) == ("ready", PROJECT, REGION)
    assert {"pubsub", "storage", "monitoring"} <= set(health["services"])


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({"name": "lake", "colour": "red"}, 'Unknown name "colour": Cannot find field.'),
        ({"name": "lake", "iamConfiguration": {"colour": 1}}, "Unknown name \"colour\" at 'iamConfiguration'"),
        ({"name": "lake", "labels": {"a": 1}}, "Invalid value at 'labels.a': string"),
        ({"name": "lake", "versioning": {"enabled": "yes"}}, "Invalid value at 'versioning.enabled': bool"),
        ({"name": "lake", "lifecycle": {"rule": [{"colour": 1}]}}, "at 'lifecycle.rule[0]'"),
        (["lake"], "body must be an object"),
    ],
)
def test_bodies_are_held_against_the_documents(cloud: GoogleCloud, body: Any, named: str) -> None:
    answer = _asked("POST", f"/storage/v1/b?project={PROJECT}", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["errors"][0]["domain"]) == (400, "global")
    assert named in error["message"]
    assert cloud.calls()[0]["status"] == 400


def test_what_could_be_but_is_not_honoured(cloud: GoogleCloud) -> None:
    answer = _asked("POST", f"/storage/v1/b?project={PROJECT}", json={"name": "lake", "versioning": {"enabled": True}})
    assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (501, "notImplemented")
    assert "versioning.enabled=True of buckets.insert" in answer.json()["error"]["message"]


def test_bodies_may_be_compressed_and_verbs_hidden(cloud: GoogleCloud) -> None:
    body = gzip.compress(json.dumps({"name": "lake", "labels": None}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    answer = _asked("POST", f"/storage/v1/b?project={PROJECT}&fields=name,iamConfiguration(x)", data=body, headers=headers)
    assert answer.json() == {"name": "lake"}
    hidden = _asked("POST", "/storage/v1/b/lake", headers={"X-HTTP-Method-Override": "GET"})
    assert (hidden.status_code, hidden.json()["name"]) == (200, "lake")
    answer = _asked("POST", f"/storage/v1/b?project={PROJECT}", data=b"{", headers=headers)
    assert (answer.status_code, answer.json()["error"]["errors"][0]["reason"]) == (400, "parseError")


def test_clients_by_httplib2_come_here_too(cloud: GoogleCloud) -> None:
    """The provider's hook of Dataflow is one."""
    from googleapiclient.discovery import build
    from googleapiclient.errors import HttpError

    service = build("storage", "v1", cache_discovery=False)
    service.buckets().insert(project=PROJECT, body={"name": "lake"}).execute()
    assert service.buckets().get(bucket="lake").execute()["name"] == "lake"
    with pytest.raises(HttpError, match=r"storage buckets\.list"):
        service.buckets().list(project=PROJECT).execute()


@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_calls_that_fail_are_done_the_next_time(cloud: GoogleCloud, publisher: Any, kind: str) -> None:
    cloud.bucket("lake")
    cloud.fault(kind, "storage", match="^lake/a$", status=503)
    answer = _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=media&name=a", data=b"1")
    assert answer.status_code == (429 if kind == "throttle" else 503)
    storage.Client(PROJECT).bucket("lake").blob("a").upload_from_string(b"2")
    cloud.fault(kind, "pubsub", "CreateTopic", match="drift$", status=503)
    with pytest.raises(TooManyRequests if kind == "throttle" else ServiceUnavailable):
        publisher.create_topic(name=TOPIC, retry=None)
    publisher.create_topic(name=TOPIC, retry=None)
    assert cloud.faults() == []


def test_lost_responses_have_been_accepted(cloud: GoogleCloud, publisher: Any) -> None:
    bucket = cloud.bucket("lake")
    cloud.fault("lose_response", "storage", "objects.insert")
    with pytest.raises(requests.ConnectionError):
        _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=media&name=a", data=b"1")
    assert bucket.get_blob("a").download_as_bytes() == b"1"
    cloud.fault("lose_response", "pubsub", "CreateTopic")
    with pytest.raises(ServiceUnavailable):
        publisher.create_topic(name=TOPIC, retry=None)
    assert publisher.get_topic(topic=TOPIC).name == TOPIC
    assert [call["status"] for call in cloud.calls(mutating=True)] == [200, 0, 0]


def test_calls_are_late(cloud: GoogleCloud, publisher: Any) -> None:
    cloud.fault("delay", "pubsub", seconds=0.5)
    begin = time.monotonic()
    publisher.create_topic(name=TOPIC)
    assert time.monotonic() - begin >= 0.5


@pytest.mark.parametrize(("when", "made"), [("before", False), ("after", True)])
def test_a_worker_is_killed_at_a_call(
    cloud: GoogleCloud, publisher: Any, worker: subprocess.Popen[bytes], when: str, made: bool
) -> None:
    bucket = cloud.bucket("lake")
    cloud.fault("kill", "storage", "objects.insert", pid=worker.pid, when=when)
    with pytest.raises(requests.ConnectionError):
        _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=media&name=a", data=b"1")
    assert worker.wait(10) == -9
    assert bucket.blob("a").exists() is made


def test_boundaries_are_told_apart(cloud: GoogleCloud, publisher: Any, worker: subprocess.Popen[bytes]) -> None:
    """What differs from run to run is left out of them; calls that read have none."""
    bucket = cloud.bucket("lake")
    cloud.fault("kill", pid=worker.pid, each_boundary=True)
    for _ in range(3):
        for day in ("2013-04-01", "2013-04-02"):
            try:
                _asked("POST", f"/upload/storage/v1/b/lake/o?uploadType=media&name=day={day}/a", data=b"1")
            except requests.ConnectionError:
                continue
    for _ in range(2):
        with pytest.raises(ServiceUnavailable):
            publisher.create_topic(name=TOPIC, retry=None)
    bucket.blob("a").exists()
    assert [(each["operation"], each["subject"], each["when"]) for each in cloud.boundaries()] == [
        ("objects.insert", "lake/day=--/a", "before"),
        ("objects.insert", "lake/day=--/a", "after"),
        ("CreateTopic", TOPIC, "before"),
        ("CreateTopic", TOPIC, "after"),
    ]


def test_messages_with_fields_that_are_not_known_are_refused(cloud: GoogleCloud) -> None:
    import grpc

    channel = _channel()
    call = channel.unary_unary("/google.pubsub.v1.Publisher/CreateTopic", lambda raw: raw, lambda raw: raw)
    raw = b"\x0a" + bytes([len(TOPIC)]) + TOPIC.encode() + b"\xf8\x7f\x01"  # the name, and number 2047
    with pytest.raises(grpc.RpcError) as caught:
        call(raw, metadata=[("authorization", "Bearer localcloud")])
    refused: Any = caught.value
    assert refused.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "google.pubsub.v1.Topic number 2047" in refused.details()
    channel.close()


def test_every_session_of_aiohttp_takes_the_proxy(running_google: GoogleCloud, tmp_path: Path) -> None:
    """And what the environment itself customizes is still done."""
    (tmp_path / "sitecustomize.py").write_text("print('the environment')\n")
    said = "import aiohttp, asyncio\nasync def f(): print(aiohttp.ClientSession()._trust_env)\nasyncio.run(f())"
    environment = {"PATH": os.environ["PATH"], **running_google.environment()}
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    ended = subprocess.run([sys.executable, "-c", said], env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split("\n")[:2] == ["the environment", "True"]


def test_a_finder_of_the_same_name_is_no_finder_of_ours() -> None:
    """As environments have one that virtualenv or uv has made."""
    said = """
import sys
class _Finder:
    def find_spec(self, *_): return None
sys.meta_path.insert(0, _Finder())
import localcloud.gcp.client.sitecustomize, aiohttp, asyncio
async def f(): print(aiohttp.ClientSession()._trust_env)
asyncio.run(f())
"""
    ended = subprocess.run([sys.executable, "-c", said], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout.split() == ["True"]


@pytest.mark.parametrize(
    ("seen", "named"),
    [
        ({"GOOGLE_APPLICATION_CREDENTIALS": "/secret-key.json"}, "GOOGLE_APPLICATION_CREDENTIALS"),
        ({"CLOUDSDK_AUTH_ACCESS_TOKEN_FILE": "/secret"}, "CLOUDSDK_AUTH_ACCESS_TOKEN_FILE"),
        ({"file": '{"refresh_token": "secret"}'}, "application_default_credentials.json"),
    ],
)
def test_real_credentials_keep_it_from_starting(tmp_path: Path, seen: dict[str, str], named: str) -> None:
    if "file" in seen:
        (tmp_path / ".config" / "gcloud").mkdir(parents=True)
        (tmp_path / ".config" / "gcloud" / named).write_text(seen["file"])
    ended = subprocess.run(
        [str(PYTHON), "-m", "localcloud", "serve", "--cloud", "gcp", "--port", "0", "--state", str(tmp_path / "state")],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **{name: seen[name] for name in seen if name != "file"}},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode != 0
    assert named in ended.stderr
    assert "secret" not in ended.stderr


def _asked(method: str, path: str, **more: Any) -> requests.Response:
    """A request that no client of Google's would make."""
    headers = {"Authorization": "Bearer localcloud", **more.pop("headers", {})}
    return requests.request(method, STORAGE + path, headers=headers, timeout=30, **more)


def _connected(cloud: GoogleCloud) -> socket.socket:
    host, _, port = cloud.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def _channel() -> Any:
    import grpc

    return grpc.secure_channel("pubsub.googleapis.com:443", grpc.ssl_channel_credentials())
