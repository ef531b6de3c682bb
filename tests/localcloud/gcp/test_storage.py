"""Cloud Storage, as its clients use it: Google's own, gcsfs, and the one of the provider's triggers."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
import requests
from google.api_core.exceptions import BadRequest, Conflict, NotFound, PreconditionFailed
from google.cloud import storage

from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
ROOT = "https://storage.googleapis.com"


@pytest.fixture
def bucket(cloud: GoogleCloud) -> Any:
    return cloud.bucket("lake")


def test_objects_are_kept_as_they_were_put(bucket: Any, cloud: GoogleCloud) -> None:
    blob = bucket.blob("a b/é+%1.txt")
    blob.metadata = {"run_id": "1"}
    blob.upload_from_string(b"one\r\n", content_type="text/plain")
    again = bucket.get_blob("a b/é+%1.txt")
    assert (again.download_as_bytes(), again.content_type, again.metadata) == (b"one\r\n", "text/plain", {"run_id": "1"})
    assert (again.generation, again.size, again.crc32c) == (blob.generation, 5, blob.crc32c)
    assert again.download_as_bytes(start=1, end=2) == b"ne"
    assert again.download_as_bytes(start=-2) == b"\r\n"
    assert bucket.blob("nothing").exists() is False
    assert [call["subject"] for call in cloud.calls("storage", mutating=True)] == ["lake", "lake/a b/é+%1.txt"]


@pytest.mark.parametrize("size", [0, 1, 9_000_001])
def test_content_of_any_size(bucket: Any, cloud: GoogleCloud, size: int) -> None:
    content = b"x" * size
    blob = bucket.blob("big", chunk_size=1 << 20)
    with blob.open("wb") as file:  # piece by piece, the whole size unknown until the end
        file.write(content)
    blob.upload_from_string(content)
    assert blob.download_as_bytes(if_generation_match=blob.generation) == content
    operations = [call["operation"] for call in cloud.calls("storage", mutating=True)]
    assert operations == ["buckets.insert", "objects.insert", "objects.insert"]


def test_an_object_is_made_once(bucket: Any) -> None:
    blob = bucket.blob("ledger/1.json")
    blob.upload_from_string(b"{}", if_generation_match=0)
    first = blob.generation
    with pytest.raises(PreconditionFailed, match="pre-condition"):
        bucket.blob("ledger/1.json").upload_from_string(b"other", if_generation_match=0)
    assert blob.download_as_bytes() == b"{}"
    with pytest.raises(PreconditionFailed):
        blob.delete(if_generation_match=first + 1)
    blob.upload_from_string(b"{1}", if_generation_match=first)
    assert blob.generation > first
    blob.delete(if_generation_match=blob.generation)
    with pytest.raises(NotFound, match=r"No such object: lake/ledger/1\.json"):
        blob.delete()


def test_lists_are_cut_into_pages_and_folders(bucket: Any) -> None:
    for name in ("a/1", "a/2", "a/sub/3", "b", "Z", "ü"):
        bucket.blob(name).upload_from_string(b"")
    assert [blob.name for blob in bucket.list_blobs()] == ["Z", "a/1", "a/2", "a/sub/3", "b", "ü"]
    found = bucket.list_blobs(prefix="a/", delimiter="/", page_size=2)
    pages = [([blob.name for blob in page], sorted(page.prefixes)) for page in found.pages]
    assert pages == [(["a/1", "a/2"], []), ([], ["a/sub/"])]
    assert [blob.name for blob in bucket.list_blobs(start_offset="a/2", end_offset="b")] == ["a/2", "a/sub/3"]
    with pytest.raises(NotFound):
        list(storage.Client(PROJECT).list_blobs("nowhere"))


def test_copies(bucket: Any, cloud: GoogleCloud) -> None:
    source = bucket.blob("source")
    source.metadata = {"of": "source"}
    source.upload_from_string(b"one", content_type="text/plain")
    copied = bucket.copy_blob(source, bucket, "copy", if_generation_match=0)
    assert (copied.download_as_bytes(), copied.content_type) == (b"one", "text/plain")
    target = bucket.blob("rewritten")
    assert target.rewrite(source) == (None, 3, 3)
    assert bucket.get_blob("rewritten").metadata == {"of": "source"}
    with pytest.raises(PreconditionFailed):
        bucket.copy_blob(source, bucket, "copy", if_generation_match=0)
    assert "lake/source/lake/copy" in [call["subject"] for call in cloud.calls("storage", operation="objects.copy")]


def test_an_object_tells_of_its_key(bucket: Any) -> None:
    key = "projects/local-project/locations/us/keyRings/ring/cryptoKeys/key"
    blob = bucket.blob("one", kms_key_name=key)
    blob.upload_from_string(b"1")
    assert bucket.get_blob("one").kms_key_name == f"{key}/cryptoKeyVersions/1"
    with bucket.blob("two", kms_key_name=key).open("wb") as file:
        file.write(b"2")
    assert bucket.get_blob("two").kms_key_name == f"{key}/cryptoKeyVersions/1"
    bucket.blob("plain").rewrite(blob)
    bucket.blob("moved", kms_key_name=f"{key}2").rewrite(blob)
    assert bucket.get_blob("plain").kms_key_name is None
    assert bucket.get_blob("moved").kms_key_name == f"{key}2/cryptoKeyVersions/1"


def test_buckets(cloud: GoogleCloud) -> None:
    client = storage.Client(PROJECT)
    bucket = client.create_bucket("lake", location="us-central1")
    assert (bucket.location, client.lookup_bucket("lake").exists(), client.lookup_bucket("sea")) == ("US-CENTRAL1", True, None)
    with pytest.raises(Conflict, match="you already own it"):
        client.create_bucket("lake")
    with pytest.raises(BadRequest, match="Invalid bucket name"):
        client.create_bucket("Lake")


def test_content_that_came_wrong_is_not_kept(bucket: Any) -> None:
    parts = (
        b'--x\r\nContent-Type: application/json\r\n\r\n{"name": "a", "crc32c": "AAAAAA=="}\r\n'
        b"--x\r\nContent-Type: text/plain\r\n\r\nabc\r\n--x--"
    )
    kind = {"Content-Type": "multipart/related; boundary=x"}
    answer = _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=multipart", data=parts, headers=kind)
    assert answer.status_code == 400
    assert "doesn't match calculated CRC32C" in answer.json()["error"]["message"]
    answer = _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=multipart", data=parts[:-20], headers=kind)
    assert answer.status_code == 400
    assert list(bucket.list_blobs()) == []


def test_an_upload_is_resumed_where_it_was_cut(bucket: Any) -> None:
    begun = _asked("POST", "/upload/storage/v1/b/lake/o?uploadType=resumable&name=a", json={"contentType": "text/plain"})
    session = begun.headers["Location"].removeprefix(ROOT)
    piece = b"x" * (256 * 1024)
    total = 2 * len(piece) + 1

    def put(content: bytes, content_range: str) -> requests.Response:
        return _asked("PUT", session, data=content, headers={"Content-Range": content_range})

    assert put(piece, f"bytes 0-{len(piece) - 1}/{total}").status_code == 308
    asked = put(b"", f"bytes */{total}")
    assert (asked.status_code, asked.headers["Range"]) == (308, f"bytes=0-{len(piece) - 1}")
    assert put(b"y", f"bytes {total}-{total}/{total + 1}").status_code == 503
    rest = put(piece + b"y", f"bytes {len(piece)}-{total - 1}/{total}")
    assert (rest.status_code, rest.json()["size"]) == (200, str(total))
    assert put(b"", f"bytes */{total}").json()["generation"] == rest.json()["generation"]
    assert bucket.get_blob("a").download_as_bytes() == piece + piece + b"y"


@pytest.mark.parametrize(
    ("path", "status", "named"),
    [
        ("/storage/v1/b/lake/o?colour=red", 400, 'Unknown name "colour"'),
        ("/storage/v1/b/lake/o?maxResults=many", 400, "maxResults"),
        ("/storage/v1/b/lake/o?projection=half", 400, "noAcl"),
        ("/storage/v1/b/lake/o?projection=full", 501, "projection=full"),
        ("/storage/v1/b/lake/o?matchGlob=**", 501, "matchGlob"),
        ("/storage/v1/b/lake/acl", 501, "storage bucketAccessControls.list"),
        ("/batch/bigquery/v2", 501, "batches"),
        ("/storage/v1/moon", 404, "/storage/v1/moon is no call"),
    ],
)
def test_what_is_not_honoured_is_refused(bucket: Any, path: str, status: int, named: str) -> None:
    answer = _asked("GET", path)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, status)
    assert named in error["message"]


def test_gcsfs_makes_an_object_once(bucket: Any, cloud: GoogleCloud) -> None:
    """What the ledger stands on."""
    import gcsfs

    fs = gcsfs.GCSFileSystem(project=PROJECT, skip_instance_cache=True)
    fs.pipe_file("lake/runs/1.json", b'{"a": 1}', mode="create")
    with pytest.raises(FileExistsError):
        fs.pipe_file("lake/runs/1.json", b"{}", mode="create")
    assert json.loads(fs.cat_file("lake/runs/1.json")) == {"a": 1}
    fs.pipe_file("lake/runs/2.json", b"{}")
    assert sorted(fs.ls("lake/runs", refresh=True)) == ["lake/runs/1.json", "lake/runs/2.json"]
    assert fs.cat(["lake/runs/1.json", "lake/runs/2.json"]) == {"lake/runs/1.json": b'{"a": 1}', "lake/runs/2.json": b"{}"}
    with pytest.raises(FileNotFoundError):
        fs.cat_file("lake/runs/3.json")
    big = b"z" * 6_000_000
    with fs.open("lake/big", "wb", block_size=2 << 20) as file:
        file.write(big)
    assert fs.cat_file("lake/big", start=5_999_999) == b"z"
    fs.rm_file("lake/runs/2.json")
    assert not fs.exists("lake/runs/2.json")
    assert cloud.calls("?") == []


def test_the_hook_of_the_providers_triggers(bucket: Any, cloud: GoogleCloud) -> None:
    """By aiohttp, which would miss the proxy."""
    from airflow.providers.google.cloud.hooks.gcs import GCSHook
    from airflow.providers.google.cloud.triggers.gcs import GCSBlobTrigger, GCSPrefixBlobTrigger

    GCSHook().upload("lake", "landed/day=2013-04-01/_SUCCESS", data="", mime_type="text/plain")
    trigger = GCSBlobTrigger("lake", "landed/day=2013-04-01/_SUCCESS", False, 0.2, "google_cloud_default", {})
    assert _first(trigger) == {"status": "success", "message": "success"}
    prefixed = GCSPrefixBlobTrigger("lake", "landed/", 0.2, "google_cloud_default", {})
    assert _first(prefixed)["matches"] == ["landed/day=2013-04-01/_SUCCESS"]
    assert cloud.calls("storage", operation="objects.list")


def test_a_trigger_waits_for_an_object(bucket: Any, cloud: GoogleCloud) -> None:
    from airflow.providers.google.cloud.triggers.gcs import GCSBlobTrigger

    trigger = GCSBlobTrigger("lake", "late", False, 0.1, "google_cloud_default", {})
    writer = threading.Timer(1, lambda: bucket.blob("late").upload_from_string(b""))
    writer.start()
    assert _first(trigger)["status"] == "success"
    assert 404 in [call["status"] for call in cloud.calls("storage", operation="objects.get")]


def test_objects_outlive_a_restart(tmp_path: Any, running_google: GoogleCloud, as_client: Any) -> None:
    with GoogleCloud(tmp_path / "cloud") as first:
        as_client(first)
        first.bucket("lake").blob("a").upload_from_string(b"one")
        generation = storage.Client(PROJECT).bucket("lake").get_blob("a").generation
    with GoogleCloud(tmp_path / "cloud") as second:
        as_client(second)
        blob = storage.Client(PROJECT).bucket("lake").get_blob("a")
        assert (blob.generation, blob.download_as_bytes()) == (generation, b"one")
        blob.upload_from_string(b"two")
        assert blob.generation > generation


def _first(trigger: Any) -> dict[str, Any]:
    """The first event of a trigger, as a triggerer would see it."""

    async def run() -> dict[str, Any]:
        payload: dict[str, Any] = (await anext(trigger.run())).payload
        return payload

    return asyncio.run(asyncio.wait_for(run(), 30))


def _asked(method: str, path: str, **more: Any) -> requests.Response:
    """A request that no client of Google's would make."""
    headers = {"Authorization": "Bearer localcloud", **more.pop("headers", {})}
    return requests.request(method, ROOT + path, headers=headers, timeout=30, **more)
