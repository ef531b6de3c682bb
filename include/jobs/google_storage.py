"""One object of Google Cloud Storage, for a container that has no SDK: over the JSON API, as the service account it runs as."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import ProxyHandler, Request, build_opener

from include.core.errors import Refused

STORAGE = "https://storage.googleapis.com"
METADATA = "metadata.google.internal"
SECONDS = 60
WAITS = (0.5, 1, 2, 4, 8)  # seconds before another try
PASSING = (408, 429, 500, 502, 503, 504)


class UnreadableObject(Refused):
    """An object cannot be read; the message names it and says why."""


class CutOff(Exception):
    """An object has not come as a whole."""


def download(uri: str, path: Path) -> None:
    """Put an object into a file. HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE are honoured.

    Raises:
        UnreadableObject: if there is none, or it is not for this service account.
        OSError: if it cannot be had now.
    """
    found = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])/(.+)", uri)
    if not found:
        raise UnreadableObject(f"{uri!r} is no address such as gs://bucket/folder/file")
    bucket, name = found.groups()
    address = f"{STORAGE}/storage/v1/b/{quote(bucket)}/o/{quote(name, safe='')}?alt=media"

    def attempt() -> None:
        asked = Request(address, headers={"Authorization": f"Bearer {_token()}"})  # noqa: S310  (https)
        with build_opener().open(asked, timeout=SECONDS) as answer, path.open("wb") as file:
            shutil.copyfileobj(answer, file)
            expected = answer.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise CutOff(f"{file.tell()} of {expected} bytes of {uri} came")

    try:
        _with_patience(attempt)
    except HTTPError as error:
        if error.code not in (401, 403, 404):
            raise
        remedy = "check the address" if error.code == 404 else "give the service account of the job roles/storage.objectViewer"
        raise UnreadableObject(f"{uri}: HTTP {error.code} {error.reason}: {remedy}") from None


def _token() -> str:
    host = os.environ.get("GCE_METADATA_HOST", METADATA)
    address = f"http://{host}/computeMetadata/v1/instance/service-accounts/default/token"
    # This server is beside the machine: no proxy knows it.
    with build_opener(ProxyHandler({})).open(Request(address, headers={"Metadata-Flavor": "Google"}), timeout=SECONDS) as answer:
        document: dict[str, Any] = json.load(answer)
    return str(document["access_token"])


def _with_patience(attempt: Callable[[], None]) -> None:
    """Try again after what passes: a server that is busy, a connection that breaks."""
    for wait in WAITS:
        try:
            attempt()
            return
        except HTTPError as error:
            if error.code not in PASSING:
                raise
            reason: Exception = error
        except (URLError, HTTPException, TimeoutError, ConnectionError, CutOff) as error:
            reason = error
        print(f"{reason}: trying again in {wait} s", flush=True)
        time.sleep(wait)
    attempt()
