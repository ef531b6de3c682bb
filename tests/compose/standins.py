"""Stand-ins for the images that docker-compose.yaml and Dockerfile name, made of Debian's and Python's packages alone."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.compose.engine import Engine
from tests.conftest import ROOT

FOLDER = Path(__file__).parent / "standins"
AUTHORITIES = Path("/etc/ssl/certs/ca-certificates.crt")


def names() -> dict[str, str]:
    """The images by what stands for them, a target of standins/Dockerfile."""
    services = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())["services"]
    (airflow,) = re.findall(r"^FROM (apache/airflow:\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    named = {"airflow": airflow} | {name: services[name]["image"] for name in ("postgres", "mail")}
    return named | {"redis": services["broker"]["image"]}


def make(engine: Engine) -> None:
    """Minutes, most of them Debian's. Only for an engine of this test's own: elsewhere they would hide the real images."""
    assert engine.ours
    with tempfile.TemporaryDirectory(prefix="aileron-standins-", dir="/var/tmp") as folder:
        root, context = Path(folder) / "debian", Path(folder) / "context"
        subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)], check=True)
        packed = subprocess.Popen(["tar", "--directory", str(root), "--create", "."], stdout=subprocess.PIPE)
        engine.docker("import", "-", "aileron-debian", stdin=packed.stdout)
        assert packed.wait() == 0
        shutil.copytree(FOLDER, context)
        shutil.copy(AUTHORITIES, context)
        shutil.copy(ROOT / "requirements.lock", context / "constraints.txt")
        for target, image in names().items():
            engine.docker("build", "--quiet", "--target", target, "--tag", image, str(context))
