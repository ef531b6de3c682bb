"""What Amazon MWAA or Cloud Composer reads, built from this repository.

It is written to `.local/bundles/<target>/`. The same commit gives the same bytes. `include/` and `expectations/` lie below
`dags/`, as neither service lets one set PYTHONPATH. The only file that names the commit is `dags/include/REVISION`: what a
service must start anew for (plugins, requirements, the startup script) changes with its content, not with each commit.

A build ends with the DAGs being parsed in an Airflow that is laid out as the service lays it out; a bundle with import errors is
no bundle.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from packaging.requirements import Requirement

from deploy import bare_airflow
from deploy.archives import Files, digest_of, tarred, zipped

ROOT = Path(__file__).resolve().parents[1]
BUNDLES = ROOT / ".local" / "bundles"
MANIFEST = "manifest.json"
REVISION = "dags/include/REVISION"
DIRTY = "-dirty"

# What is read of the repository.
READ = (
    *("dags", "include", "expectations", "plugins", "requirements.txt", "requirements.lock", ":(glob)deploy/*.py"),
    *("deploy/aws/Dockerfile*", "deploy/aws/requirements.txt"),
    *("deploy/gcp/Dockerfile*", "deploy/gcp/requirements*.txt", "deploy/gcp/launch.py", ":(glob)deploy/gcp/*.json"),
)
# Beside the providers, what Cloud Composer brings in versions of its own.
OF_COMPOSER = ("pyarrow", "pydantic")

Target = Literal["mwaa", "composer"]
TARGETS: tuple[Target, ...] = get_args(Target)

IGNORED = "# DAG files are beside this file; these folders are imported by them.\nexpectations/\ninclude/\n"
PLUGINS_OF_MWAA = "/usr/local/airflow/plugins"
VARIABLE = re.compile(r"AILERON_[A-Z][A-Z0-9_]*")
# As in docker-compose.yaml: libraries are to send nothing home.
QUIET = {"DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "False", "MLFLOW_DISABLE_TELEMETRY": "true"}


@dataclass(frozen=True)
class Service:
    platform: str
    python: str
    spared: frozenset[str]  # requirements that are the service's own, or those of the other cloud
    images: Mapping[str, str]  # images of jobs: name → Dockerfile


SERVICES: dict[Target, Service] = {
    "mwaa": Service(
        "aws",
        "3.12",
        frozenset({"apache-airflow", "apache-airflow-providers-google", "apache-airflow-providers-apache-beam"}),
        {"sagemaker": "deploy/aws/Dockerfile"},
    ),
    "composer": Service(
        "gcp",
        "3.11",
        frozenset({"apache-airflow", "apache-airflow-providers-amazon"}),
        {"vertex": "deploy/gcp/Dockerfile", "dataflow": "deploy/gcp/Dockerfile.dataflow"},
    ),
}


class Unbuildable(ValueError):
    """The repository, or what was asked for, gives no bundle; the message says why, and what to do."""


@dataclass(frozen=True)
class Bundle:
    """A bundle as it lies in a folder."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def files(self) -> dict[str, bytes]:
        return {name: (self.folder / name).read_bytes() for name in self.manifest["files"]}


def contents(target: Target, settings: Mapping[str, str], repository: Path = ROOT, revision: str = "") -> dict[str, bytes]:
    """All files of a bundle but its manifest, by their paths in it.

    Args:
        settings: AILERON_... variables of the environment; for Amazon MWAA, which has no other place for them.
        revision: of what is built; asked of git if it is empty.

    Raises:
        Unbuildable: if the repository does not do.
    """
    made = _files(target, repository, _tracked(repository), settings)
    return {**made, REVISION: f"{revision or revision_of(repository)}\n".encode()}


def build(target: Target, folder: Path, settings: Mapping[str, str], repository: Path = ROOT, revision: str = "") -> Bundle:
    """Build a bundle, in the place of whatever is in the folder. Arguments are those of `contents`.

    Raises:
        Unbuildable: if the repository does not do, or the DAGs cannot be parsed.
    """
    made = contents(target, settings, repository, revision)
    parsed = bare_airflow.parse(target, made, SERVICES[target].platform, settings)
    if parsed.errors:
        raise Unbuildable("\n".join(["the DAGs cannot be parsed as the service would do it:", *parsed.errors.values()]))
    return write(target, folder, made, parsed.dags, settings, airflow_of(repository))


def write(
    target: Target, folder: Path, made: Files, dags: Mapping[str, list[str]], settings: Mapping[str, str], airflow: str
) -> Bundle:
    """Write a bundle and its manifest.

    Args:
        dags: the ids of the DAGs of each file.
        airflow: the version that it is made for.
    """
    manifest = {
        "target": target,
        "revision": made[REVISION].decode().strip(),
        "airflow": airflow,
        "settings": sorted(settings),
        "dags": dags,
        "images": {name: _tag(made[f"jobs/{name}.tar"]) for name in SERVICES[target].images},
        "files": {name: digest_of(made[name]) for name in sorted(made)},
    }
    _write(folder, {**made, MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode()})
    return Bundle(folder, manifest)


def read(folder: Path) -> Bundle:
    """A bundle that was built before.

    Raises:
        Unbuildable: if there is none, or if it is not as it was built.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        there = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    except (OSError, ValueError) as error:
        raise Unbuildable(f"there is no bundle in {folder} ({error}): make bundle") from None
    found = {name: digest_of(content) for name, content in there.items() if name != MANIFEST}
    if wrong := sorted({
        name for name in found.keys() | manifest["files"].keys() if found.get(name) != manifest["files"].get(name)
    }):
        raise Unbuildable(f"the bundle in {folder} was changed since it was built ({', '.join(wrong[:5])}): build it again")
    return Bundle(folder, manifest)


def read_settings(file: Path) -> dict[str, str]:
    """The AILERON_... variables of an environment: lines NAME=value, as `docker run --env-file` has them.

    Raises:
        Unbuildable: naming the line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, sign, value = line.partition("=")
        if not sign or not VARIABLE.fullmatch(name) or not value.isprintable() or value != value.strip():
            raise Unbuildable(f"{file}, line {number}: must be AILERON_...=value, without quotes, or a comment")
        if name == "AILERON_REVISION":
            raise Unbuildable(f"{file}, line {number}: AILERON_REVISION is in the bundle: leave it out")
        found[name] = value
    return found


def revision_of(repository: Path) -> str:
    """The commit that is checked out; with a mark if what is built is not what was committed."""
    changed = _git(repository, "status", "--porcelain", "--untracked-files=all", "--", *READ)
    return _git(repository, "rev-parse", "--short=12", "HEAD").strip() + (DIRTY if changed.strip() else "")


def _tracked(repository: Path) -> list[str]:
    """What may get into a bundle: what git knows of, or would take. Never what it ignores: caches, secrets, data."""
    listed = _git(repository, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *READ).split("\0")
    return sorted({name for name in listed if name and (repository / name).is_file()})


def _git(repository: Path, *arguments: str) -> str:
    try:
        run = subprocess.run(["git", "-C", str(repository), *arguments], capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Unbuildable("git is needed to build a bundle: install it") from None
    except subprocess.CalledProcessError as error:
        raise Unbuildable(f"{repository} is no git repository: {error.stderr.strip()}") from None
    return run.stdout


def _files(target: Target, repository: Path, tracked: list[str], settings: Mapping[str, str]) -> dict[str, bytes]:
    """All files of a bundle but the stamp and the manifest."""

    def content(name: str) -> bytes:
        return (repository / name).read_bytes()

    made = {name: content(name) for name in tracked if name.startswith("dags/")}
    made |= {f"dags/{name}": content(name) for name in tracked if name.startswith(("include/", "expectations/"))}
    made["dags/.airflowignore"] = IGNORED.encode()
    plugins = {name: content(name) for name in tracked if name.startswith("plugins/") and name.endswith(".py")}
    service = SERVICES[target]
    pinned = dict(_pinned(content("requirements.lock").decode(), service.python))
    wanted = list(_wanted(content("requirements.txt").decode(), service))
    if target == "mwaa":
        constraints = "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))
        inside = {name.removeprefix("plugins/"): each for name, each in plugins.items()}
        made["plugins.zip"] = zipped({**inside, "constraints.txt": constraints.encode()})
        lines = [f'--constraint "{PLUGINS_OF_MWAA}/constraints.txt"', *wanted]
        made["startup.sh"] = _startup(settings).encode()
    else:
        made |= plugins
        lines = [_exactly(line, pinned) for line in wanted]
        made |= {f"jobs/{name}.json": content(f"deploy/gcp/{name}.json") for name in ("postprocess", "score")}
    made["requirements.txt"] = ("\n".join(lines) + "\n").encode()
    for name, dockerfile in service.images.items():
        made[f"jobs/{name}.tar"] = _context(repository, tracked, dockerfile)
    return made


def _pinned(lock: str, python: str) -> Iterator[tuple[str, str]]:
    """Package and version of every line of the lock that is for the service's Python, on Linux."""
    there = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "implementation_name": "cpython",
        "os_name": "posix",
    }
    for line in lock.splitlines():
        if re.match(r"[a-z0-9]", line):
            asked = Requirement(line.removesuffix("\\").strip())
            if asked.marker is None or asked.marker.evaluate(there):
                (version,) = asked.specifier
                yield asked.name, version.version


def _wanted(requirements: str, service: Service) -> Iterator[str]:
    """The lines of requirements.txt that the service installs, for its Python, without comments."""
    for line in requirements.splitlines():
        if not (text := line.partition("#")[0].strip()):
            continue
        asked = Requirement(text)
        there = {"python_version": service.python, "sys_platform": "linux"}
        if asked.name not in service.spared and (asked.marker is None or asked.marker.evaluate(there)):
            asked.marker = None
            yield str(asked)


def _exactly(line: str, pinned: Mapping[str, str]) -> str:
    """At the version of the lock, but for what Cloud Composer brings."""
    asked = Requirement(line)
    own = asked.name.startswith("apache-airflow-") or asked.name in OF_COMPOSER
    return line if own else f"{asked.name}{extras_of(asked)}=={pinned[asked.name]}"


def extras_of(asked: Requirement) -> str:
    """As they are written: [one,two], or nothing."""
    return f"[{','.join(sorted(asked.extras))}]" if asked.extras else ""


def airflow_of(repository: Path) -> str:
    """The version of Airflow that requirements.txt pins."""
    (version,) = re.findall(r"^apache-airflow==(\S+)", (repository / "requirements.txt").read_text(), re.MULTILINE)
    return str(version)


def _startup(settings: Mapping[str, str]) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted({**QUIET, **settings}.items())]
    return "\n".join([
        "# The variables of this environment: Amazon MWAA runs this in every container before Airflow.",
        *lines,
        "",
    ])


def _context(repository: Path, tracked: list[str], dockerfile: str) -> bytes:
    """What an image is built of, by the list of what its build may see: `docker build --file <dockerfile> - < <this>`."""
    listed = (repository / f"{dockerfile}.dockerignore").read_text().splitlines()
    allowed = tuple(line[1:] for line in listed if line.startswith("!"))
    seen = [dockerfile, *(name for name in tracked if any(name == each or name.startswith(f"{each}/") for each in allowed))]
    return tarred({name: (repository / name).read_bytes() for name in seen})


def _tag(context: bytes) -> str:
    """Of an image: it is another one only if it is built of something else."""
    return digest_of(context)[:16]


def _write(folder: Path, files: Files) -> None:
    """Beside it, then in its place: a build that is killed leaves no half bundle."""
    draft = folder.with_name(f"{folder.name}.draft")
    for old in (draft, folder):
        shutil.rmtree(old, ignore_errors=True)
    for name, content in files.items():
        path = draft / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(0o644)
    draft.rename(folder)
