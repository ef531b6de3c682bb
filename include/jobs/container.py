"""What SageMaker starts in our container image: `python -m include.jobs.container train|process|serve`.

Files come and go below /opt/ml, as SageMaker's contracts say. The work is done by the jobs that every platform runs.

train    input/data/spec/spec.json     {"job": "train", "spec": {...}}: jobs.train.TrainSpec without its three paths
         input/data/snapshot/          one Parquet file
         model/, output/data/result.json, output/failure
process  processing/input/spec/spec.json   {"job": "evaluate", "spec": {...}}: the spec of that job; what begins with
                                           /opt/ml/ is a path
         output/message
serve    model/                        see include/jobs/inference.py
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from include.core.errors import Refused
from include.core.files import sha256_of, write_json
from include.jobs.process import InvalidSpec, check_snapshot
from include.jobs.runs import ARCHIVE, PROCESSED, JobEnded, one_parquet, processed, read_document, trained, with_paths

OPT_ML = "/opt/ml"
# SageMaker's tuner adds the name of its objective to the hyperparameters.
OBJECTIVE = "_tuning_objective_metric"


def main(arguments: Sequence[str]) -> int:
    """Do what the one argument says. 1: what was given cannot be used. 2: something else went wrong, another try may go well."""
    # The first process of a container ignores SIGTERM unless it says otherwise, and that is how SageMaker stops a job.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    base = Path(os.environ.get("SAGEMAKER_BASE_DIR", OPT_ML))
    match list(arguments):
        case ["serve"]:
            from include.jobs.inference import serve

            return serve(base / "model")
        case ["train"]:
            work, message = train, base / "output" / "failure"
        case ["process"]:
            work, message = process, base / "output" / "message"
        case _:
            print(f"ERROR: give one argument: train, process or serve, not {' '.join(arguments) or 'none'}", file=sys.stderr)
            return 1
    try:
        # On the volume that the job has asked for, not in /tmp: a model and its scores may be large.
        with tempfile.TemporaryDirectory(prefix=".work-", dir=base) as place:
            work(base, Path(place))
    except Refused as error:
        return _told(message, 1, str(error))
    except JobEnded as error:
        return _told(message, 2, str(error))
    except Exception as error:
        traceback.print_exc()
        return _told(message, 2, f"{type(error).__name__}: {error}")
    return 0


def train(base: Path, place: Path) -> None:
    """SageMaker's contract of training. The files of the artifact become the files of model.tar.gz.

    With `validation_days` beside `spec` it is a trial of a search: the holdout is dropped first, so that no search learns
    from it, and the model is measured on the last `validation_days` partitions before.
    """
    document = _document(base / "input" / "data" / "spec" / "spec.json", ("train",), optional=("validation_days",))
    model = base / "model"
    model.mkdir(parents=True, exist_ok=True)
    if found := sorted(path.name for path in model.iterdir()):
        raise InvalidSpec(f"{model}: is not empty ({', '.join(found)}): all in it would become part of {ARCHIVE}")
    folder = base / "input" / "data" / "snapshot"
    snapshot = one_parquet(folder)
    if snapshot is None:
        raise InvalidSpec(f"{folder}: holds no Parquet file: give the channel 'snapshot' the folder of the snapshot")
    spec = document["spec"]
    if doubled := sorted(spec.keys() & {"snapshot", "artifact", "result"}):
        raise InvalidSpec(f"spec.json: {', '.join(doubled)}: given by the container, leave it out")
    spec["parameters"] = {**spec.get("parameters", {}), **_hyperparameters(base / "input" / "config" / "hyperparameters.json")}
    measured_on = "holdout"
    if "validation_days" in document:
        snapshot, measured_on = _before_the_holdout(spec, snapshot, place), "validation"
        spec |= {"snapshot_sha256": sha256_of(snapshot), "holdout_days": document["validation_days"]}

    artifact, result = trained(spec, snapshot, place, measured_on)
    for file in sorted(artifact.iterdir()):
        shutil.copyfile(file, model / file.name)
    write_json(base / "output" / "data" / "result.json", result)


def process(base: Path, place: Path) -> None:
    """SageMaker's contract of processing: one job, whose documents SageMaker takes from where the spec puts them."""
    document = _document(base / "processing" / "input" / "spec" / "spec.json", PROCESSED)

    def path_of(value: str) -> Path | None:
        return base / value.removeprefix(f"{OPT_ML}/") if value.startswith(f"{OPT_ML}/") else None

    processed(document["job"], {name: with_paths(value, path_of, place) for name, value in document["spec"].items()}, place)


def _document(path: Path, jobs: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The job and its spec, as the worker has written them."""
    document = read_document(path)
    if not {"job", "spec"} <= document.keys() or not isinstance(document["spec"], dict):
        raise InvalidSpec(f'{path}: must be an object such as {{"job": "{jobs[0]}", "spec": {{...}}}}')
    if unknown := sorted(document.keys() - {"job", "spec", *optional}):
        raise InvalidSpec(f"{path}: {', '.join(unknown)}: unknown key")
    if document["job"] not in jobs:
        raise InvalidSpec(f"{path}: job {document['job']!r} must be {' or '.join(jobs)}")
    if not isinstance(days := document.get("validation_days", 1), int) or isinstance(days, bool) or days < 1:
        raise InvalidSpec(f"spec.json: validation_days: {days!r} must be an integer of at least 1")
    return document


def _hyperparameters(path: Path) -> dict[str, Any]:
    """What SageMaker's tuner has chosen: text, each a value of JSON. The train job says which names and values there may be."""
    try:
        texts: dict[str, str] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    chosen = {}
    for name, text in texts.items():
        if name == OBJECTIVE:
            continue
        try:
            chosen[name] = json.loads(text)
        except (TypeError, ValueError):
            raise InvalidSpec(f"{path}: {name}: {text!r} is no number and not null") from None
    return chosen


def _before_the_holdout(spec: dict[str, Any], snapshot: Path, place: Path) -> Path:
    """A snapshot that ends where the holdout begins, for the same training one holdout earlier."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.core.training import dates_of, holdout_begins, one_batch
    from include.jobs.train import TrainSpec

    held_out = spec.get("holdout_days", TrainSpec.holdout_days)
    if not isinstance(held_out, int) or isinstance(held_out, bool) or held_out < 1:
        raise InvalidSpec(f"spec.json: holdout_days: {held_out!r} must be an integer of at least 1")
    check_snapshot(snapshot, spec.get("snapshot_sha256", ""))
    with pq.ParquetFile(snapshot, pre_buffer=False) as file:
        rows = one_batch(file.read())
    dates = dates_of(rows)
    earlier = place / "before-the-holdout.parquet"
    pq.write_table(pa.Table.from_batches([rows.filter(pa.array(dates < holdout_begins(dates, held_out)))]), earlier)
    return earlier


def _told(file: Path, code: int, error: str) -> int:
    """Say why in the log, and where SageMaker looks for it."""
    line = " ".join(error.split())
    print(f"ERROR: {line}", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
