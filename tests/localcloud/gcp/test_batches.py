"""Batches of calls to Cloud Storage: each part is answered, logged and disturbed as a call of its own."""

from __future__ import annotations

import email
import subprocess
from typing import Any

import pytest
import requests
from google.api_core.exceptions import NotFound
from google.cloud import storage

from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
BATCH = "https://storage.googleapis.com/batch/storage/v1"
OBJECTS = "/storage/v1/b/lake/o"


@pytest.fixture
def bucket(cloud: GoogleCloud) -> Any:
    """With the objects a, b and c."""
    bucket = cloud.bucket("lake")
    for name in "abc":
        bucket.blob(name).upload_from_string(name.encode())
    cloud.forget_calls()
    return bucket


def names(bucket: Any) -> list[str]:
    return [blob.name for blob in bucket.list_blobs()]


def statuses(cloud: GoogleCloud) -> list[tuple[str, str, int]]:
    return [(call["operation"], call["subject"], call["status"]) for call in cloud.calls("storage")]


def test_copies_and_deletes_in_one_request(bucket: Any, cloud: GoogleCloud) -> None:
    read = bucket.blob("b")
    with bucket.client.batch():
        bucket.copy_blob(bucket.blob("a"), bucket, "copied é/1")
        bucket.blob("a").delete()
        read.reload()
    assert (read.size, read.content_type) == (1, "text/plain")
    assert statuses(cloud) == [
        ("objects.copy", "lake/a/lake/copied é/1", 200),
        ("objects.delete", "lake/a", 204),
        ("objects.get", "lake/b", 200),
    ]
    assert names(bucket) == ["b", "c", "copied é/1"]
    assert bucket.blob("copied é/1").download_as_bytes() == b"a"


def test_what_fails_of_a_batch_leaves_the_others_as_they_are(bucket: Any, cloud: GoogleCloud) -> None:
    with pytest.raises(NotFound, match="No such object: lake/nothing"), bucket.client.batch():
        for name in ("a", "nothing", "b"):
            bucket.blob(name).delete()
    with bucket.client.batch(raise_exception=False) as batch:
        bucket.copy_blob(bucket.blob("nothing"), bucket, "d")
        bucket.blob("c").delete(if_generation_match=1)
        bucket.copy_blob(bucket.blob("c"), bucket, "d", if_generation_match=0)
    assert [answer.status_code for answer in batch._responses] == [404, 412, 200]
    assert batch._responses[1].json()["error"]["errors"][0]["reason"] == "conditionNotMet"
    assert names(bucket) == ["c", "d"]
    assert "conditionNotMet" in cloud.calls("storage", status=412)[0]["error"]


@pytest.mark.parametrize(("kind", "status"), [("throttle", 429), ("error", 503)])
def test_a_fault_befalls_one_part(bucket: Any, cloud: GoogleCloud, kind: str, status: int) -> None:
    cloud.fault(kind, "storage", "objects.delete", match="lake/b", status=503)
    with bucket.client.batch(raise_exception=False) as batch:
        for name in "abc":
            bucket.blob(name).delete()
    assert [answer.status_code for answer in batch._responses] == [204, status, 204]
    assert names(bucket) == ["b"]


def test_who_is_killed_at_a_part_has_made_the_parts_before(bucket: Any, cloud: GoogleCloud) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        cloud.fault("kill", "storage", match="lake/b", pid=victim.pid, when="after")
        with pytest.raises(requests.ConnectionError), bucket.client.batch():
            for name in "abc":
                bucket.blob(name).delete()
        assert victim.wait(10) == -9
    assert statuses(cloud)[:2] == [("objects.delete", "lake/a", 204), ("objects.delete", "lake/b", 0)]
    assert names(bucket) == ["c"]


def test_every_part_is_a_boundary(bucket: Any, cloud: GoogleCloud) -> None:
    with subprocess.Popen(["sleep", "60"]) as victim:
        cloud.fault("kill", "storage", match="^lake/[ab]", pid=victim.pid, each_boundary=True)
        for _ in range(4):
            with pytest.raises(requests.ConnectionError), bucket.client.batch():
                bucket.blob("a").delete()
                bucket.blob("b").delete()
            bucket.blob("a").upload_from_string(b"")
        assert victim.wait(10) == -9
    met = [(each["subject"], each["when"]) for each in cloud.boundaries() if each["operation"] == "objects.delete"]
    assert met == [("lake/a", "before"), ("lake/a", "after"), ("lake/b", "before"), ("lake/b", "after")]


def test_gcsfs_deletes_in_batches(bucket: Any, cloud: GoogleCloud) -> None:
    import gcsfs

    fs = gcsfs.GCSFileSystem(project=PROJECT, skip_instance_cache=True)
    with bucket.client.batch():
        for number in range(100):
            bucket.copy_blob(bucket.blob("a"), bucket, f"many/{number}/x")
    assert names(bucket)[3:] == sorted(f"many/{number}/x" for number in range(100))
    cloud.forget_calls()
    fs.rm([f"lake/many/{number}/x" for number in range(100)] + ["lake/b"])
    assert names(bucket) == ["a", "c"]
    assert len(cloud.calls("storage", operation="objects.delete", status=204)) == 101


def asked(*calls: str, part_headers: str = "", **headers: str) -> requests.Response:
    """A batch as the standard writes it, of requests that may have headers and a body."""
    part = f"--x\r\nContent-Type: application/http\r\n{part_headers}\r\n"
    raw = "".join(f"{part}{call}\r\n" for call in calls) + "--x--"
    headers = {"Authorization": "Bearer localcloud", "Content-Type": "multipart/mixed; boundary=x", **headers}
    return requests.post(BATCH, data=raw.encode(), headers=headers, timeout=30)


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\n\r\n"


def answers(answer: requests.Response) -> list[tuple[int, str]]:
    """Status and content of each part."""
    assert answer.status_code == 200, answer.text
    whole = email.message_from_string(f"Content-Type: {answer.headers['Content-Type']}\n\n{answer.text}")
    parts: list[Any] = list(whole.get_payload())
    texts = [part.get_payload().replace("\r\n", "\n") for part in parts]
    return [(int(text.split()[1]), text.partition("\n\n")[2]) for text in texts]


def test_parts_have_names_and_headers_of_their_own(bucket: Any, cloud: GoogleCloud) -> None:
    named = asked(get(f"{OBJECTS}/a"), part_headers="Content-ID: <one+1>\r\n")
    assert [status for status, _ in answers(named)] == [200]
    assert "Content-ID: <response-one+1>" in named.text
    made = 'POST /storage/v1/b?project=p HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"name": "sea"}'
    other = f"GET {OBJECTS}/a HTTP/1.1\r\nAuthorization: Bearer another\r\n\r\n"
    assert [status for status, _ in answers(asked(made, other))] == [200, 401]
    assert [status for status, _ in answers(asked(get(f"{OBJECTS}/a"), Authorization="Bearer another"))] == [401]
    assert storage.Client(PROJECT).lookup_bucket("sea") is not None


@pytest.mark.parametrize(
    ("call", "status", "said"),
    [
        (get(f"{OBJECTS}/a?alt=media"), 400, "downloads of media"),
        (get(f"/download{OBJECTS}/a?alt=media"), 400, "downloads of media"),
        (f"POST /upload{OBJECTS}?uploadType=media&name=d HTTP/1.1\r\n\r\nx", 400, "uploads"),
        (f"POST {OBJECTS}?uploadType=media&name=d HTTP/1.1\r\n\r\n", 400, "uploads"),
        (f"PUT /upload{OBJECTS}?uploadType=resumable&upload_id=1 HTTP/1.1\r\n\r\nx", 404, "no call"),
        (get("https://bigquery.googleapis.com/bigquery/v2/projects/p/datasets/d"), 400, "bigquery datasets.get in a batch"),
        (get("https://example.com/a"), 404, "no call"),
        ("POST /batch/storage/v1 HTTP/1.1\r\n\r\n", 501, "batches"),
        (get(f"{OBJECTS}?colour=red"), 400, "colour"),
        (get("/storage/v1/b/lake/acl"), 501, "bucketAccessControls.list"),
    ],
)
def test_a_part_that_is_refused(bucket: Any, cloud: GoogleCloud, call: str, status: int, said: str) -> None:
    refused, other = answers(asked(call, get(f"{OBJECTS}/a")))
    assert (refused[0], other[0]) == (status, 200)
    assert said in refused[1]
    assert [call["status"] for call in cloud.calls()] == [status, 200]
    assert names(bucket) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("calls", "headers", "said"),
    [
        ([], {}, "no parts"),
        ([get(f"{OBJECTS}/a")] * 100, {}, "101 calls"),
        (["moon"], {}, "is no request"),
        (["GET //[ HTTP/1.1\r\n\r\n"], {}, "is no request"),
        ([f"GET {OBJECTS}/a HTTP/1.1\r\nContent-Length: 9\r\n\r\n"], {}, "Content-Length is 9"),
        ([get(f"{OBJECTS}/{'a' * 11_000_000}")], {}, "smaller than"),
        ([get(f"{OBJECTS}/a")], {"Content-Type": "application/json"}, "multipart/mixed"),
        ([get(f"{OBJECTS}/a")], {"Content-Type": "multipart/mixed; boundary=y"}, "no parts"),
    ],
)
def test_a_batch_that_cannot_be_read_makes_no_call(
    bucket: Any, cloud: GoogleCloud, calls: list[str], headers: dict[str, str], said: str
) -> None:
    delete = f"DELETE {OBJECTS}/a HTTP/1.1\r\n\r\n"
    answer = asked(*([delete, *calls] if calls else []), **headers)
    assert (answer.status_code, cloud.calls("storage")) == (400, [])
    assert said in answer.json()["error"]["message"]
    assert len(cloud.calls("?", status=400)) == 1


def test_what_is_not_honoured_of_a_batch(bucket: Any) -> None:
    call = get(f"{OBJECTS}/a")
    assert asked(call, **{"Content-Encoding": "identity"}).status_code == 501
    refused = requests.post(f"{BATCH}?fields=kind", headers={"Authorization": "Bearer localcloud"}, timeout=30)
    assert refused.status_code == 501
    assert "leave it out, or try the real cloud" in refused.json()["error"]["message"]
