"""`python -m localcloud serve`: says `ready <url>` when it serves, and ends with all that it has started."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from localcloud.credentials import in_sight
from localcloud.front import Occupied, serve
from localcloud.service import Delays, Image
from localcloud.services import services

REGION = "us-east-1"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m localcloud", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="serve until SIGTERM or Ctrl-C")
    command.add_argument("--port", type=int, default=4599, help="0 for a free one")
    command.add_argument("--state", type=Path, required=True, help="folder for what the cloud keeps; emptied by a reset")
    command.add_argument("--images", type=Path, help="JSON file: what stands for each container image")
    command.add_argument("--region", default=REGION)
    command.add_argument("--start-seconds", type=float, default=Delays.start_seconds, help="from asked for to running")
    command.add_argument("--job-seconds", type=float, default=Delays.job_seconds, help="the least that a job runs")
    command.add_argument("--stop-seconds", type=float, default=Delays.stop_seconds, help="from SIGTERM to SIGKILL")
    command.add_argument("--ping-seconds", type=float, default=Delays.ping_seconds, help="until a model server must be ready")
    command.add_argument("--while-stdin", action="store_true", help="end when standard input does: with who started it")
    options = parser.parse_args()
    if found := in_sight(os.environ, Path.home()):
        sys.exit(
            f"real AWS credentials may be in sight: {', '.join(found)}. Start the local cloud without them: unset the variables,"
            " and set AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE to /dev/null"
        )
    images = _images(options.images) if options.images else {}
    delays = Delays(options.start_seconds, options.job_seconds, options.stop_seconds, options.ping_seconds)
    try:
        server, front = serve(options.port, options.state.resolve(), images, delays, options.region, services)
    except Occupied as error:
        sys.exit(str(error))

    # From another thread: shutdown() waits for serve_forever(), which this one is in.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    if options.while_stdin:
        threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(f"ready {front.cloud.url}", flush=True)
    try:
        server.serve_forever()
    finally:
        front.cloud.jobs.close()
    # Threads that wait in the middle of a job have nothing left to do.
    os._exit(0)


def _images(path: Path) -> dict[str, Image]:
    """Raises SystemExit, naming the file and the image, if it is not what is wanted."""
    try:
        raw: dict[str, dict[str, Any]] = json.loads(path.read_text())
        return {
            uri: Image(one["directory"], tuple(one["entrypoint"]), one.get("path", ""), one.get("environment", {}))
            for uri, one in raw.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        sys.exit(f"{path}: {type(error).__name__}: {error}; wanted is {{uri: {{directory, path, entrypoint, environment}}}}")


if __name__ == "__main__":
    main()
