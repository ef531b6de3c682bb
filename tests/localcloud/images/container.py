"""A container of the tests: trains, processes or serves, and misbehaves as it is told. Standard library only."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BASE = Path(os.environ["SAGEMAKER_BASE_DIR"])


def train() -> int:
    told = json.loads((BASE / "input/config/hyperparameters.json").read_text())
    print(f"environment: {sorted(os.environ)}", flush=True)
    behave(told.get("behave", ""))
    checkpoints = BASE / "checkpoints"
    if checkpoints.is_dir():
        before = len(list(checkpoints.iterdir()))
        (checkpoints / f"{before}.txt").write_text("saved")
        print(f"checkpoints before: {before}", flush=True)
    rows = sum(len(path.read_text().splitlines()) for path in (BASE / "input/data").rglob("*") if path.is_file())
    (BASE / "model/model.json").write_text(json.dumps({"rows": rows, "hyperparameters": told}))
    (BASE / "output/data/result.json").write_text(json.dumps({"rows": rows}))
    print("validation loss=0.9")
    print(f"validation loss={abs(float(told.get('depth', '0')) - 3) + 0.5}", flush=True)
    return 0


def process() -> int:
    behave(os.environ.get("BEHAVE", ""))
    for path in (BASE / "processing/input").rglob("*"):
        if path.is_file():
            target = BASE / "processing/output" / path.relative_to(BASE / "processing/input")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().upper())
    (BASE / "output").mkdir(exist_ok=True)
    (BASE / "output/message").write_text("well done")
    return 0


def behave(how: str) -> None:
    if how == "fail":
        for name in ("failure", "message"):
            (BASE / "output").mkdir(exist_ok=True)
            (BASE / "output" / name).write_text("the rows are wrong " + "x" * 2000)
        sys.exit(3)
    if how == "hang":
        print("hanging", flush=True)
        time.sleep(600)
    if how == "save":
        (BASE / "model/model.json").write_text("half")
        time.sleep(600)
    if how.startswith("child:"):
        # A grandchild of the server, which writes its number and sleeps.
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(how.removeprefix("child:")).write_text(str(child.pid))
        child.wait()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    failures = int(os.environ.get("FAIL_TIMES", "0"))

    def log_message(self, *_: object) -> None:
        """No line for every request."""

    def do_GET(self) -> None:
        known = self.path == "/ping"
        healthy = os.environ.get("PING", "200")
        self.answer(int(healthy) if known else 404, b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        print(f"request of {len(body.splitlines())} lines as {self.headers['Content-Type']}", flush=True)
        if b"poison" in body:
            self.answer(400, b"poison is no number")
        elif type(self).failures > 0:
            type(self).failures -= 1
            self.answer(503, b"not now")
        elif os.environ.get("ECHO"):
            self.answer(200, body)
        else:
            greeting = os.environ.get("GREETING", "")
            scores = [f"{greeting}{len(line)}" for line in body.decode().splitlines()]
            self.answer(200, "\n".join(scores).encode())

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve() -> int:
    print(f"model: {sorted(path.name for path in (BASE / 'model').iterdir())}", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["SAGEMAKER_BIND_TO_PORT"])), Handler).serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit({"train": train, "process": process, "serve": serve}[sys.argv[1]]())
