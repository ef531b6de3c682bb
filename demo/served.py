"""A local cloud of its own, furnished, until SIGTERM: what a container runs.

python -m demo.served aws --name cloud --folder /opt/airflow/cloud
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from demo.aws_cloud import AwsCloud
from demo.cloud import LocalCloud, running_cloud
from demo.google_cloud import GoogleCloud

CLOUDS: dict[str, type[LocalCloud]] = {"aws": AwsCloud, "gcp": GoogleCloud}
FURNISHED = "furnished"  # a file that is there when all that the DAGs expect is


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cloud", choices=sorted(CLOUDS))
    parser.add_argument("--name", required=True, help="what its clients call it; it listens to all of them")
    parser.add_argument("--folder", type=Path, required=True, help="for what it keeps; it begins empty")
    options = parser.parse_args()
    furnished = options.folder / FURNISHED
    furnished.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with running_cloud(CLOUDS[options.cloud], options.folder, name=options.name):
        furnished.touch()
        signal.pause()


if __name__ == "__main__":
    main()
