"""A prediction container of the tests: serves as Vertex AI asks, and misbehaves as it is told. Standard library only."""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import quote

BEHAVE = os.environ.get("BEHAVE", "")
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"


def loaded() -> dict[str, Any]:
    """The model, by the plain interface of Cloud Storage, as an account that the metadata server knows."""
    bucket, _, prefix = os.environ["AIP_STORAGE_URI"].removeprefix("gs://").partition("/")
    asked = urllib.request.Request(f"http://{os.environ['GCE_METADATA_HOST']}{TOKEN_PATH}", headers={"Metadata-Flavor": "Google"})
    token = json.load(urllib.request.urlopen(asked))["access_token"]
    url = f"https://storage.googleapis.com/storage/v1/b/{bucket}/o/{quote(f'{prefix}/model.json', safe='')}?alt=media"
    model: dict[str, Any] = json.load(
        urllib.request.urlopen(urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"}))
    )
    return model


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model: dict[str, Any]
    failures = int(os.environ.get("FAIL_TIMES", "0"))

    def log_message(self, *_: object) -> None:
        """No line for every request."""

    def do_GET(self) -> None:
        known = self.path == os.environ["AIP_HEALTH_ROUTE"]
        self.answer(503 if BEHAVE == "sick" else 200 if known else 404, {})

    def do_POST(self) -> None:
        assert self.path == os.environ["AIP_PREDICT_ROUTE"]
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        print(f"asked: {json.dumps(asked)}", flush=True)
        instances = asked["instances"]
        if BEHAVE == "die":
            os._exit(7)
        if BEHAVE == "hang":
            time.sleep(600)
        if type(self).failures > 0:
            type(self).failures -= 1
            self.answer(503, {"error": "not now"})
        elif any("poison" in json.dumps(instance) for instance in instances):
            self.answer(400, {"error": "poison is no number"})
        elif BEHAVE == "short":
            self.answer(200, {"predictions": [1] * (len(instances) - 1)})
        elif BEHAVE == "chatter":
            self.answer(200, ["predictions"])
        elif BEHAVE == "object":
            self.answer(200, {"predictions": [{"score": 0.5, "label": "late"} for _ in instances]})
        else:
            numbers = [instance.values() if isinstance(instance, dict) else instance for instance in instances]
            offset = self.model["offset"]
            self.answer(
                200, {"predictions": [offset + sum(each for each in row if isinstance(each, int | float)) for row in numbers]}
            )

    def answer(self, status: int, members: Any) -> None:
        body = json.dumps(members).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> int:
    print(f"environment: {json.dumps(dict(os.environ))}", flush=True)
    print(f"arguments: {sys.argv[1:]}", flush=True)
    if BEHAVE == "crash":
        print("ModuleNotFoundError: No module named 'xgboost'", file=sys.stderr, flush=True)
        return 2
    Handler.model = loaded()
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["AIP_HTTP_PORT"])), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
