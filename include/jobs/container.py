"""What SageMaker starts in our container image: `python -m include.jobs.container train|process|serve`.

Files come and go below /opt/ml, as SageMaker's contracts say. The work is done by the jobs that every platform runs, each
in a process of its own: also of one that is killed for its memory, somebody is left to say so.

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
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from include.core.errors import Refused
from include.core.files import sha256_of, write_json
from include.jobs.process import PARENT_PIPE, InvalidSpec, check_snapshot

OPT_ML = "/opt/ml"
ARCHIVE = "model.tar.gz"
PROCESSED = ("tune", "inspect", "evaluate", "shadow")
# SageMaker's tuner adds the name of its objective to the hyperparameters.
OBJECTIVE = "_tuning_objective_metric"


class JobEnded(Exception):
    """A job ended without a reason that its input gave; the message says how."""


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
    snapshot = _one_parquet(folder)
    if snapshot is None:
        raise InvalidSpec(f"{folder}: holds no Parquet file: give the channel 'snapshot' the folder of the snapshot")
    given = {"snapshot": str(snapshot), "artifact": str(place / "model"), "result": str(place / "result.json")}
    if doubled := given.keys() & document["spec"].keys():
        raise InvalidSpec(f"spec.json: {', '.join(sorted(doubled))}: given by the container, leave it out")
    spec = {"threads": _cores(), **document["spec"], **given}
    spec["parameters"] = {**spec.get("parameters", {}), **_hyperparameters(base / "input" / "config" / "hyperparameters.json")}
    measured_on = "holdout"
    if "validation_days" in document:
        spec, measured_on = _trial(spec, document["validation_days"], place), "validation"

    _run("train", spec, place)
    result = json.loads((place / "result.json").read_bytes())
    for file in sorted((place / "model").iterdir()):
        shutil.copyfile(file, model / file.name)
    # Where the artifact lies is for SageMaker to say, not for a folder that is gone with the container.
    del result["artifact"]
    write_json(base / "output" / "data" / "result.json", result)
    for name, value in result["metrics"].items():
        if value is not None:
            print(f"{measured_on} {name}={value}", flush=True)


def process(base: Path, place: Path) -> None:
    """SageMaker's contract of processing: one job, whose documents SageMaker takes from where the spec puts them."""
    document = _document(base / "processing" / "input" / "spec" / "spec.json", PROCESSED)
    spec = {name: _with_paths(value, base, place) for name, value in document["spec"].items()}
    if document["job"] == "tune":
        spec = {"threads": _cores(), **spec}
    if document["job"] == "shadow":
        spec = {"work": str(place / "shadow"), **spec}
    _run(document["job"], spec, place)


def _document(path: Path, jobs: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The job and its spec, as the worker has written them."""
    try:
        document = json.loads(path.read_bytes(), parse_constant=_no_number)
    except OSError as error:
        raise InvalidSpec(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidSpec(f"{path}: is not JSON: {error}") from None
    if not isinstance(document, dict) or not {"job", "spec"} <= document.keys() or not isinstance(document["spec"], dict):
        raise InvalidSpec(f'{path}: must be an object such as {{"job": "{jobs[0]}", "spec": {{...}}}}')
    if unknown := sorted(document.keys() - {"job", "spec", *optional}):
        raise InvalidSpec(f"{path}: {', '.join(unknown)}: unknown key")
    if document["job"] not in jobs:
        raise InvalidSpec(f"{path}: job {document['job']!r} must be {' or '.join(jobs)}")
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


def _trial(spec: dict[str, Any], validation_days: object, place: Path) -> dict[str, Any]:
    """The same training one holdout earlier: on a snapshot that ends where the holdout begins."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from include.core.training import dates_of, holdout_begins, one_batch
    from include.jobs.train import TrainSpec

    if not isinstance(validation_days, int) or isinstance(validation_days, bool) or validation_days < 1:
        raise InvalidSpec(f"spec.json: validation_days: {validation_days!r} must be an integer of at least 1")
    snapshot, held_out = Path(spec["snapshot"]), spec.get("holdout_days", TrainSpec.holdout_days)
    if not isinstance(held_out, int) or isinstance(held_out, bool) or held_out < 1:
        raise InvalidSpec(f"spec.json: holdout_days: {held_out!r} must be an integer of at least 1")
    check_snapshot(snapshot, spec.get("snapshot_sha256", ""))
    with pq.ParquetFile(snapshot, pre_buffer=False) as file:
        rows = one_batch(file.read())
    dates = dates_of(rows)
    earlier = place / "before-the-holdout.parquet"
    pq.write_table(pa.Table.from_batches([rows.filter(pa.array(dates < holdout_begins(dates, held_out)))]), earlier)
    return {**spec, "snapshot": str(earlier), "snapshot_sha256": sha256_of(earlier), "holdout_days": validation_days}


def _with_paths(value: Any, base: Path, place: Path) -> Any:
    """A value of a spec with the paths in it as they are here; a packed model unpacked, one file in place of its folder."""
    if isinstance(value, list):
        return [_with_paths(item, base, place) for item in value]
    if not isinstance(value, str) or not value.startswith(f"{OPT_ML}/"):
        return value
    path = base / value.removeprefix(f"{OPT_ML}/")
    if (path / ARCHIVE).is_file():
        from include.core.artifacts import unpack

        return str(unpack(path / ARCHIVE, Path(tempfile.mkdtemp(prefix="model-", dir=place))))
    if path.is_dir() and not (path / "manifest.json").exists():
        return str(_one_parquet(path) or path)
    return str(path)


def _one_parquet(folder: Path) -> Path | None:
    """The Parquet file of a folder; Spark and S3 may have left marks beside it.

    Raises:
        InvalidSpec: if there are several.
    """
    found = [path for path in sorted(folder.rglob("*.parquet")) if path.is_file() and not path.name.startswith((".", "_"))]
    if len(found) > 1:
        raise InvalidSpec(f"{folder}: holds {len(found)} Parquet files, not one: {', '.join(path.name for path in found[:5])}")
    return found[0] if found else None


def _run(job: str, spec: dict[str, Any], place: Path) -> None:
    """Run a job. What it says goes where this process's words go.

    Raises:
        Refused: with the job's own words, if its input is wrong.
        JobEnded: if it ended in any other way.
    """
    file = place / f"{job}.json"
    file.write_text(json.dumps(spec, indent=1))
    # XGBoost's threads would wait for each other in loops.
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, PARENT_PIPE: "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", f"include.jobs.{job}", str(file)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
    ) as child:
        assert child.stderr is not None
        error = ""
        for line in child.stderr:
            if line.startswith("ERROR: "):
                error = line.removeprefix("ERROR: ").strip()
            else:
                sys.stderr.write(line)
        code = child.wait()
    if code == 1 and error:
        raise Refused(error)
    if code != 0:
        how = f"was killed by signal {-code}{', for its memory perhaps' * (code == -9)}" if code < 0 else f"ended with {code}"
        raise JobEnded(error or f"the {job} job {how}; what it said is in the log")


def _cores() -> int:
    return os.cpu_count() or 1


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that JSON has")


def _told(file: Path, code: int, error: str) -> int:
    """Say why in the log, and where SageMaker looks for it."""
    line = " ".join(error.split())
    print(f"ERROR: {line}", file=sys.stderr)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(line)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
