"""The lake on Cloud Storage: what is no table of BigQuery.

staging/<model>/2013-04-01/<run>/                   what a run is working on; nobody reads it
training/, models/, evaluations/, monitoring/, label_queue/, validations/, ledger/
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from typing import Any

from google.api_core.exceptions import NotFound
from google.cloud.storage import Blob

from include import partitions
from include.platforms.gcp.clients import client
from include.platforms.gcp.settings import gcp

MARKER = "_SUCCESS"
CHUNK = 1 << 20


def place(*names: str) -> str:
    """A URI in the lake."""
    return "/".join((gcp().lake, *names))


def workspace(model: str, run: dict[str, Any], *names: str) -> str:
    """Where one run works. Named by a digest: a run id is free text that a caller chose."""
    partition, name = partitions.parse(run.get("partition") or run["as_of"]), run["workspace"]
    if not re.fullmatch(r"[0-9a-f]{16}", name):
        raise ValueError(f"{name!r} is no workspace")
    return place("staging", model, partition.isoformat(), name, *names)


def data(folder: str) -> list[str]:
    """The URIs of the files below a folder, by name: a name that begins with _ or . is not data."""
    bucket, prefix = _split(f"{folder}/")
    found = client("storage").list_blobs(bucket, prefix=prefix)
    return sorted(f"gs://{bucket}/{blob.name}" for blob in found if not blob.name.rpartition("/")[2].startswith(("_", ".")))


def read(uri: str) -> bytes:
    """
    Raises:
        FileNotFoundError: if it is not there.
    """
    try:
        content: bytes = _blob(uri).download_as_bytes()
    except NotFound:
        raise FileNotFoundError(f"{uri}: is not there") from None
    return content


def sha256(uri: str) -> str:
    """Of an object's content, which is streamed."""
    found = hashlib.sha256()
    with _blob(uri).open("rb", chunk_size=CHUNK) as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            found.update(chunk)
    return found.hexdigest()


def write(uri: str, content: bytes) -> None:
    _blob(uri).upload_from_string(content, content_type="application/octet-stream", checksum="md5")


def write_json(uri: str, document: Any) -> None:
    write(uri, json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode())


def write_once(uri: str, content: bytes) -> None:
    """For a name that says its content."""
    if not exists(uri):
        write(uri, content)


def copy(source: str, target: str) -> None:
    """Within Cloud Storage; any size."""
    blob, token = _blob(target), None
    while True:
        token, _, _ = blob.rewrite(_blob(source), token=token)
        if token is None:
            return


def exists(uri: str) -> bool:
    return bool(_blob(uri).exists())


def digest(uri: str) -> str:
    """Changes whenever the object does.

    Raises:
        FileNotFoundError: if it is not there.
    """
    blob = client("storage").bucket(_split(uri)[0]).get_blob(_split(uri)[1])
    if blob is None:
        raise FileNotFoundError(f"{uri}: is not there")
    return base64.b64decode(blob.crc32c).hex() + f"-{blob.size}"


def _blob(uri: str) -> Any:
    bucket, name = _split(uri)
    return Blob(name, client("storage").bucket(bucket), kms_key_name=gcp().kms_key or None)


def _split(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    return bucket, name
