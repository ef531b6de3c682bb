"""A training container of the tests: reads and writes below /gcs, and misbehaves as it is told. Standard library only."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from pathlib import Path

GCS = Path(os.environ["GCS"])


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--behave", default="")
    parser.add_argument("--input", default="lake/in")
    options = parser.parse_args()
    print(f"environment: {json.dumps(dict(os.environ))}", flush=True)
    if options.behave == "fail":
        print("ValueError: the rows are wrong", file=sys.stderr, flush=True)
        return 3
    if options.behave == "hang":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        print("hanging", flush=True)
        time.sleep(600)
    if options.behave == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if options.behave == "nowhere":
        (GCS / "no-such-bucket").mkdir()
        (GCS / "no-such-bucket" / "file").write_text("lost")
    if options.behave == "tidy":
        for path in (GCS / options.input).glob("*.txt"):
            with path.open("a") as file:
                file.write("more\n")
        (GCS / options.input / "old.json").unlink()
    rows = [line for path in (GCS / options.input).glob("*.txt") for line in path.read_text().splitlines()]
    if "AIP_MODEL_DIR" in os.environ and options.behave != "nothing":
        model = GCS / os.environ["AIP_MODEL_DIR"].removeprefix("gs://")
        model.mkdir(parents=True, exist_ok=True)
        (model / "model.json").write_text(json.dumps({"rows": len(rows), "offset": 100}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
