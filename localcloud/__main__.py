"""`python -m localcloud serve`: says `ready <url>` when it serves, and ends with all that it has started."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localcloud import credentials
from localcloud.control import THIS_MACHINE
from localcloud.service import Delays, Image
from localcloud.state import Occupied

REGIONS = {"aws": "us-east-1", "gcp": "us-central1"}


class Served(Protocol):
    def serve_forever(self) -> None: ...

    def shutdown(self) -> Any: ...


@dataclass(frozen=True)
class Started:
    url: str
    server: Served
    close: Callable[[], None]  # ends what the cloud has started


def main() -> None:
    options = _options()
    _refuse_credentials(options.cloud)
    images = _images(options.images) if options.images else {}
    delays = Delays(options.start_seconds, options.job_seconds, options.stop_seconds, options.ping_seconds)
    start = _google if options.cloud == "gcp" else _aws
    try:
        started = start(options, images, delays)
    except Occupied as error:
        sys.exit(str(error))
    server = started.server

    # From another thread: shutdown() waits for serve_forever(), which this one is in.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown, daemon=True).start())
    if options.while_stdin:
        threading.Thread(target=lambda: (sys.stdin.read(), server.shutdown()), daemon=True).start()
    print(f"ready {started.url}", flush=True)
    try:
        server.serve_forever()
    finally:
        started.close()
    # Threads that wait in the middle of a job have nothing left to do.
    os._exit(0)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m localcloud", description=__doc__)
    command = parser.add_subparsers(dest="command", required=True).add_parser("serve", help="serve until SIGTERM or Ctrl-C")
    command.add_argument("--cloud", choices=sorted(REGIONS), default="aws")
    command.add_argument("--port", type=int, default=4599, help="0 for a free one")
    command.add_argument(
        "--name", default=THIS_MACHINE, help="what its clients call it: another than %(default)s, and it listens to them all"
    )
    command.add_argument("--state", type=Path, required=True, help="folder for what the cloud keeps; emptied by a reset")
    command.add_argument("--images", type=Path, help="JSON file: what stands for each container image")
    command.add_argument("--project", default="local-project", help="Google's name for what AWS calls an account")
    command.add_argument("--region", help=", ".join(f"{region} of {cloud}" for cloud, region in REGIONS.items()))
    command.add_argument("--start-seconds", type=float, default=Delays.start_seconds, help="from asked for to running")
    command.add_argument("--job-seconds", type=float, default=Delays.job_seconds, help="the least that a job runs")
    command.add_argument("--stop-seconds", type=float, default=Delays.stop_seconds, help="from SIGTERM to SIGKILL")
    command.add_argument("--ping-seconds", type=float, default=Delays.ping_seconds, help="until a model server must be ready")
    command.add_argument("--while-stdin", action="store_true", help="end when standard input does: with who started it")
    options = parser.parse_args()
    options.region = options.region or REGIONS[options.cloud]
    return options


def _refuse_credentials(cloud: str) -> None:
    """Raises SystemExit if a client that misses the local cloud could reach a real one."""
    if cloud == "aws" and (found := credentials.in_sight(os.environ, Path.home())):
        sys.exit(
            f"real AWS credentials may be in sight: {', '.join(found)}. Start the local cloud without them: unset the variables,"
            " and set AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE to /dev/null"
        )
    if cloud == "gcp" and (found := credentials.google_in_sight(os.environ, Path.home())):
        sys.exit(
            f"real Google credentials may be in sight: {', '.join(found)}. Start the local cloud without them: unset the"
            " variables, and set CLOUDSDK_CONFIG to nothing"
        )


# Each cloud needs much that the other does not, and is imported only when it is the one.
def _aws(options: argparse.Namespace, images: dict[str, Image], delays: Delays) -> Started:
    from localcloud.front import serve
    from localcloud.services import services

    server, front = serve(options.port, options.state.resolve(), images, delays, options.region, services, options.name)
    return Started(front.cloud.url, server, front.cloud.jobs.close)


def _google(options: argparse.Namespace, images: dict[str, Image], delays: Delays) -> Started:
    from localcloud.gcp.serving import Server

    server = Server(options.port, options.state.resolve(), images, delays, options.project, options.region, options.name)
    return Started(server.url, server, server.close)


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
