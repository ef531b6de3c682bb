"""What Vertex AI starts in our container image: `python -m include.jobs.vertex process|train|order|serve ...`.

An object gs://bucket/key is the file /gcs/bucket/key, as Vertex mounts it (AILERON_GCS names another root). The work is done
by the jobs that every platform runs, each in a process of its own. What they write is put in its place when they have ended
well, each file whole or not at all.

process JOB SPEC OUTPUT   JOB: inspect, tune, evaluate or shadow. SPEC: its spec, a JSON object, without `result`. Values that are
                          gs:// URIs are what it reads: a folder stands for its one Parquet file, or for the packed model in it.
                          Writes OUTPUT/<JOB>.json.
train SPEC                SPEC: jobs.train.TrainSpec without `artifact` and `result`. Writes model.tar.gz, manifest.json and,
                          last, result.json below AIP_MODEL_DIR.
order SPEC OUTPUT         SPEC: jobs.order.OrderSpec without `output` and `result`. Writes OUTPUT/data.parquet and, last,
                          OUTPUT/order.json.
serve                     See include/jobs/prediction.py.
"""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from include.core.errors import Refused
from include.core.files import replacing, write_json
from include.jobs.process import InvalidSpec
from include.jobs.runs import (
    ARCHIVE,
    MANIFEST,
    PROCESSED,
    JobEnded,
    cores,
    one_parquet,
    processed,
    read_document,
    run,
    trained,
    with_paths,
)

MOUNT = "/gcs"
GS = "gs://"


def main(arguments: Sequence[str]) -> int:
    """Do what the arguments say. 1: what was given cannot be used. 2: something else went wrong, another try may go well."""
    # The first process of a container ignores SIGTERM unless it says otherwise, and that is how Vertex stops a job.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    work: Callable[[Path], None]
    match list(arguments):
        case ["process", job, spec, output]:
            work = partial(process, job, spec, output)
        case ["train", spec]:
            work = partial(train, spec, os.environ.get("AIP_MODEL_DIR", ""))
        case ["order", spec, output]:
            work = partial(order, spec, output)
        case ["serve"]:
            from include.jobs.prediction import serve

            work = partial(serve, os.environ)
        case _:
            given = " ".join(arguments) or "nothing"
            return _told(1, f"give process JOB SPEC OUTPUT, train SPEC, order SPEC OUTPUT or serve, not {given}")
    try:
        with tempfile.TemporaryDirectory(prefix="work-") as place:
            work(Path(place))
    except Refused as error:
        return _told(1, str(error))
    except JobEnded as error:
        return _told(2, str(error))
    except Exception as error:
        traceback.print_exc()
        return _told(2, f"{type(error).__name__}: {error}")
    return 0


def process(job: str, spec: str, output: str, place: Path) -> None:
    """Run one job that looks at rows and models."""
    if job not in PROCESSED:
        raise InvalidSpec(f"job {job!r} must be {' or '.join(PROCESSED)}")
    destination = mounted(output)
    document = _document(spec, "result")
    given = {name: with_paths(value, _path_of, place) for name, value in document.items()}
    result = place / f"{job}.result.json"
    processed(job, {**given, "result": str(result)}, place)
    _deliver(result, destination / f"{job}.json")


def train(spec: str, model_dir: str, place: Path) -> None:
    """Train a model, and leave it packed where Vertex takes the artifact of a model from."""
    if not model_dir:
        raise InvalidSpec("AIP_MODEL_DIR is not set: give the job a base_output_directory")
    destination = mounted(model_dir)
    document = _document(spec, "artifact", "result")
    address = document.pop("snapshot", None)
    if not isinstance(address, str):
        raise InvalidSpec(f"{spec}: snapshot: {address!r} must be the gs:// URI of a Parquet file, or of its folder")
    snapshot = _there(address)
    if snapshot.is_dir():
        found = one_parquet(snapshot)
        if found is None:
            raise InvalidSpec(f"{address}: holds no Parquet file")
        snapshot = found
    folder, result = trained(document, snapshot, place)
    pack(folder, place / ARCHIVE)
    write_json(place / "result.json", result)
    _deliver(place / ARCHIVE, destination / ARCHIVE)
    _deliver(folder / MANIFEST, destination / MANIFEST)
    # Last: who finds it finds a whole model.
    _deliver(place / "result.json", destination / "result.json")


def order(spec: str, output: str, place: Path) -> None:
    """Put a training set in order: many Parquet files below a folder become one."""
    destination, document = mounted(output), _document(spec, "output", "result")
    source = _there(str(document.get("input", "")))
    if destination.is_relative_to(source):
        raise InvalidSpec(f"{output} lies in {document['input']}: what is written there would be read as a part of it")
    data, result = place / "data.parquet", place / "order.result.json"
    run("order", {"threads": cores(), **document, "input": str(source), "output": str(data), "result": str(result)}, place)
    _deliver(data, destination / data.name)
    # Last: who finds it finds a whole file.
    _deliver(result, destination / "order.json")


def pack(folder: Path, archive: Path) -> None:
    """The files of an artifact as model.tar.gz, what SageMaker makes of them. The same files give the same bytes."""
    with archive.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as zipped:
        with tarfile.open(fileobj=zipped, mode="w") as tar:
            for path in sorted(folder.iterdir()):
                member = tarfile.TarInfo(path.name)
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)


def mounted(uri: str) -> Path:
    """Where an object, or a folder of objects, is as a file.

    Raises:
        InvalidSpec: if it is no gs:// URI, or leads elsewhere.
    """
    parts = PurePosixPath(uri.removeprefix(GS)).parts
    if not uri.startswith(GS) or not parts or parts[0] == "/" or ".." in parts:
        raise InvalidSpec(f"{uri!r} is no address such as gs://bucket/folder/file")
    return Path(os.environ.get("AILERON_GCS", MOUNT)).joinpath(*parts)


def _document(uri: str, *given: str) -> dict[str, Any]:
    """A spec, without the paths that only the container knows."""
    document = read_document(mounted(uri))
    if doubled := sorted(document.keys() & set(given)):
        raise InvalidSpec(f"{uri}: {', '.join(doubled)}: given by the container, leave it out")
    return document


def _path_of(value: str) -> Path | None:
    return _there(value) if value.startswith(GS) else None


def _there(uri: str) -> Path:
    path = mounted(uri)
    if not path.exists():
        raise InvalidSpec(f"{uri}: is not there (no file {path})")
    return path


def _deliver(file: Path, destination: Path) -> None:
    with replacing(destination) as temporary:
        shutil.copyfile(file, temporary)
    print(f"wrote {destination}", flush=True)


def _told(code: int, error: str) -> int:
    print(f"ERROR: {' '.join(error.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
