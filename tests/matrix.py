"""One cell of the version matrix: an Airflow and a Python with which the bundles are read and one loop runs. `make matrix`.

The pinned Airflow is installed from requirements.lock, hashes and all. The newest of its minor version is resolved anew: what the
lock says of Airflow, its providers and the clients of clouds is left open, the rest is as in the lock.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from packaging.version import Version

from deploy.bundle import airflow_of

ROOT = Path(__file__).resolve().parents[1]
CELLS = ROOT / ".local" / "matrix"
NEWEST = "newest"
UV = str(Path(sys.executable).with_name("uv"))
# The providers, and what they stand on; and with them Airflow itself.
PROVIDERS = (
    "apache-airflow-providers-|apache-airflow-task-sdk|boto3|botocore|aiobotocore|s3transfer|s3fs|gcsfs|fsspec|awscrt|google-|"
    "googleapis-|gcloud-aio-|grpc|proto-plus|protobuf"
)
OPEN = f"apache-airflow|{PROVIDERS}"
# Who runs which Python, and on which platform.
SERVICES = {"3.11": ("composer", "gcp"), "3.12": ("mwaa", "aws")}
READ = """
import sys
from deploy import bare_airflow, bundle
target, platform = sys.argv[1:]
parsed = bare_airflow.parse(target, bundle.contents(target, {}), platform, {})
print(f"{target}, {platform}: {sum(map(len, parsed.dags.values()))} DAGs")
sys.exit("\\n".join(parsed.errors.values()) or (0 if parsed.dags else "no DAG was found"))
"""
LOOP = ["tests/dags/test_second_model.py"]


class Unfit(RuntimeError):
    """This cell does not hold; the message says which step."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("airflow", help=f"{pinned()} or {NEWEST}")
    parser.add_argument("python", help="3.11, 3.12, or an interpreter of them")
    chosen = parser.parse_args()
    try:
        cell(chosen.airflow, chosen.python)
    except Unfit as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0


def cell(airflow: str, python: str) -> None:
    """Resolve, install, read the bundle, run the loop; where this Python is not on the machine, resolve only.

    Raises:
        Unfit: at the first step that fails.
    """
    if airflow not in (pinned(), NEWEST):
        raise Unfit(f"AIRFLOW={airflow}: give {pinned()}, which requirements.txt pins, or {NEWEST}")
    interpreter = found(python)
    version = version_of(interpreter) if interpreter else python
    if version not in SERVICES:
        raise Unfit(f"PYTHON={python}: give 3.11 or 3.12, or an interpreter of them")
    folder = CELLS / f"{airflow}-python{version}"
    folder.mkdir(parents=True, exist_ok=True)
    resolved = folder / "requirements.txt"
    with step(f"Airflow {airflow}, Python {version}: resolve"):
        resolve(airflow, version, resolved)
    print(
        "\n".join(re.findall(r"^apache-airflow(?:-core|-providers-\S+?)?==\S+", resolved.read_text(), re.MULTILINE)), flush=True
    )
    if interpreter is None:
        print(f"Python {version} is not on this machine: resolved, no more. Name an interpreter: PYTHON=/path/to/python{version}")
        return
    with step("install"):
        run(UV, "venv", "--quiet", "--clear", "--python", interpreter, str(folder / "venv"))
        hashes = ["--require-hashes"] if airflow != NEWEST else []
        inside = str(folder / "venv" / "bin" / "python")
        run(UV, "pip", "sync", "--quiet", "--python", inside, *hashes, str(resolved))
        run(UV, "pip", "check", "--python", inside)
    target, platform = SERVICES[version]
    with step("what is imported is compiled"):  # else the first DAG file may take longer than Airflow grants one
        run("env", f"AIRFLOW_HOME={folder / 'airflow'}", inside, "-c", f"import include.platforms.{platform}.platform")
    with step(f"the bundle for {target} is read"):
        for each in (platform, "local"):
            run(inside, "-c", READ, target, each)
    with step("a model is trained, predicts and is watched"):
        run(inside, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", *LOOP)


def resolve(airflow: str, version: str, resolved: Path) -> None:
    """Write what this cell installs. Of the pinned Airflow that is the lock, if the requirements are still met by it."""
    constraints = resolved.with_name("constraints.txt")
    compile_ = [UV, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", version]
    if airflow != NEWEST:
        constraints.write_text(pins())
        run(*compile_, "--generate-hashes", "-c", str(constraints), "requirements-dev.txt", "-o", str(resolved))
        return
    constraints.write_text(pins(but=OPEN))
    override = resolved.with_name("override.txt")
    major, minor = Version(pinned()).release[:2]
    override.write_text(f"apache-airflow>={pinned()},<{major}.{minor + 1}\n")
    newest = [*compile_, "--upgrade", "-c", str(constraints), "--override", str(override)]
    run(*newest, "requirements-dev.txt", "-o", str(resolved))


def pins(but: str = r"(?!)") -> str:
    """The lines of the lock without hashes, as constraints; but for packages that begin with this pattern."""
    found = re.findall(r"^[a-zA-Z0-9_.-]+==[^\n\\]+", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    return "".join(f"{pin.strip()}\n" for pin in found if not re.match(but, pin))


def pinned() -> str:
    return airflow_of(ROOT)


def found(python: str) -> str | None:
    """Path of the interpreter that is meant, None if there is none. Nothing is downloaded."""
    asked = subprocess.run([UV, "python", "find", "--no-python-downloads", "--system", python], capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else None


def version_of(interpreter: str) -> str:
    program = "import sys; print('{}.{}'.format(*sys.version_info))"
    said = subprocess.run([interpreter, "-c", program], capture_output=True, text=True)
    return said.stdout.strip()


@contextmanager
def step(name: str) -> Iterator[None]:
    began = time.monotonic()
    print(f"--- {name}", flush=True)
    yield
    print(f"    {time.monotonic() - began:.0f} s", flush=True)


def run(*command: str) -> None:
    if subprocess.run(command, cwd=ROOT).returncode:
        raise Unfit(f"failed: {' '.join(command)}")


if __name__ == "__main__":
    sys.exit(main())
