"""An Airflow as a service lays it out, with nothing of this repository on its path and no network: can it read a bundle?"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.archives import Files

# Names of places that may not exist: enough for DAGs to be parsed, which asks no cloud.
EXAMPLES = {
    "local": {},
    "aws": {
        "AILERON_REGISTRY": "sagemaker://aileron",
        "AILERON_LEDGER": "s3://lake/aileron/ledger",
        "AILERON_AWS_LAKE": "s3://lake/aileron",
        "AILERON_AWS_DATABASE": "aileron",
        "AILERON_AWS_ROLE": "arn:aws:iam::123456789012:role/aileron-jobs",
        "AILERON_AWS_IMAGE": "123456789012.dkr.ecr.us-east-1.amazonaws.com/aileron-jobs:1",
        "AWS_DEFAULT_REGION": "us-east-1",
    },
    "gcp": {
        "AILERON_REGISTRY": "vertex://aileron",
        "AILERON_LEDGER": "gs://lake/aileron/ledger",
        "AILERON_GCP_PROJECT": "project",
        "AILERON_GCP_LAKE": "gs://lake/aileron",
        "AILERON_GCP_DATASET": "aileron",
        "AILERON_GCP_IMAGE": "us-docker.pkg.dev/project/aileron/jobs:1",
        "AILERON_GCP_TEMPLATES": "gs://lake/aileron/templates",
        "AILERON_GCP_SERVICE_ACCOUNT": "jobs@project.iam.gserviceaccount.com",
    },
}
# Each file in a process of its own, forked once Airflow is there: as the DAG processor does it.
PARSE = """
import json, multiprocessing, sys, time

def audit(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        raise RuntimeError(f"the network is asked for ({event}) while DAGs are parsed")

from airflow.dag_processing.dagbag import BundleDagBag, DagBag
from airflow.plugins_manager import ensure_plugins_loaded, get_import_errors
from airflow.serialization.serialized_objects import DagSerialization
from airflow.utils.file import list_py_file_paths

dags, forbidden = sys.argv[1], set(json.loads(sys.argv[2]))
for module in json.loads(sys.argv[3]):
    __import__(module)

class Forbidden:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in forbidden):
            raise ModuleNotFoundError(f"the service does not have {name}")

sys.meta_path.insert(0, Forbidden())
sys.addaudithook(audit)
ensure_plugins_loaded()
answer = {name: {} for name in ("dags", "errors", "seconds", "modules", "tags")}
answer["revisions"] = []
answer["errors"].update({f"plugin {name}": text for name, text in get_import_errors().items()})

def parse(file, told):
    before, started = set(sys.modules), time.process_time()
    bag = BundleDagBag(str(file), bundle_path=dags, bundle_name="dags-folder")
    seconds = time.process_time() - started
    for dag in bag.dags.values():
        DagSerialization.to_dict(dag)
    from include.config import settings
    told.send((sorted(bag.dags), list(bag.import_errors.values()), seconds, sorted(set(sys.modules) - before),
        settings().revision, {dag.dag_id: sorted(dag.tags) for dag in bag.dags.values()}))

for file in sorted(list_py_file_paths(dags)):
    name = str(file).removeprefix(dags).lstrip("/")
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    child = context.Process(target=parse, args=(file, there))
    child.start()
    there.close()
    try:
        ids, errors, seconds, modules, revision, tags = here.recv()
    except EOFError:
        ids, errors, seconds, modules, revision, tags = [], ["it ended the process"], 0, [], "", {}
    child.join()
    answer["dags"].update({name: ids} if ids else {})
    answer["errors"].update({name: f"{name}: {error}" for error in errors})
    answer["seconds"][name], answer["modules"][name] = seconds, modules
    answer["tags"].update(tags)
    answer["revisions"].append(revision)
print("\\n" + json.dumps(answer))
"""


@dataclass(frozen=True)
class Parsed:
    dags: dict[str, list[str]]  # of each file that has some, relative to the folder of DAGs
    errors: dict[str, str]  # by file; those of plugins too
    seconds: dict[str, float]  # CPU time of each file
    modules: dict[str, list[str]]  # what each file has imported
    tags: dict[str, list[str]]  # of each DAG
    revisions: list[str]  # as the code of each file tells it


def lay_out(target: str, files: Files, root: Path) -> dict[str, str]:
    """Put a bundle where the service would; the variables that say where that is."""
    home, at = (
        (root / "usr/local/airflow",) * 2 if target == "mwaa" else (root / "home/airflow/airflow", root / "home/airflow/gcs")
    )
    placed = {name: content for name, content in files.items() if name.startswith(("dags/", "plugins/"))}
    if target == "mwaa":
        placed |= {"requirements/requirements.txt": files["requirements.txt"]}
        with zipfile.ZipFile(io.BytesIO(files["plugins.zip"])) as archive:
            placed |= {f"plugins/{name}": archive.read(name) for name in archive.namelist()}
    for name, content in placed.items():
        (at / name).parent.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(content)
    for folder in (home, *(at / name for name in ("dags", "plugins", *(() if target == "mwaa" else ("data",))))):
        folder.mkdir(parents=True, exist_ok=True)
    return {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(at / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(at / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }


def parse(
    target: str,
    files: Files,
    platform: str,
    settings: Mapping[str, str],
    without: Collection[str] = (),
    preloaded: Collection[str] = (),
) -> Parsed:
    """Parse all DAGs of a bundle, and import its plugins.

    Args:
        settings: AILERON_... variables; example names stand for those that are not given.
        without: modules that the service does not have.
        preloaded: modules whose import shall not count as that of a file.

    Raises:
        RuntimeError: if that could not be tried.
    """
    with tempfile.TemporaryDirectory(prefix="aileron-bundle-") as folder:
        # All that this process has in its environment stays here: a bundle has to do without.
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": folder,
            "AILERON_PLATFORM": platform,
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            **EXAMPLES[platform],
            **settings,
            **lay_out(target, files, Path(folder).resolve()),
        }
        command = [
            sys.executable,
            "-c",
            PARSE,
            environment["AIRFLOW__CORE__DAGS_FOLDER"],
            *(json.dumps(sorted(each)) for each in (without, preloaded)),
        ]
        run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"the bundle could not be tried: {run.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return Parsed(**found)
