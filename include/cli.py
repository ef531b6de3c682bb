"""What a person does at the command line of this repository; `make help` has the short forms.

python -m include.cli check-models
python -m include.cli new-model churn
python -m include.cli restore flight_delays 2013-04-01
python -m include.cli champion flight_delays --at 2013-04-01T12:00:00+00:00
python -m include.cli explain flight_delays 2013-04-01-EV-4357-EWR-1600
python -m include.cli explain flight_delays --snapshot 2013-04-01-0123456789abcdef
python -m include.cli bigquery-ml flight_delays project.dataset 2013-04-01
python -m include.cli backup /backups/2013-04-01
python -m include.cli restore-backup /backups/2013-04-01
python -m include.cli model-schema
"""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from include import bigquery_ml, champions, lineage, partitions, queries, validation
from include.config import INCLUDE, InvalidModel, ModelConfig, load_model, models_folder, read_model
from include.core.files import replacing

if TYPE_CHECKING:
    from include.backup import Backup

SCHEMA = INCLUDE / "models" / "model.schema.json"


def check_models() -> int:
    """Read every model folder the way the DAGs will; print what is wrong with file, key and reason."""
    wrong = 0
    folders = sorted(path for path in models_folder().iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    for folder in folders:
        try:
            model = read_model(folder)
            queries.check(model)
            for stage in validation.STAGES:
                validation.read_suite(validation.suite_file(model.name, stage), validation.stage_columns(model, stage))
        except ValueError as error:
            wrong += 1
            print(f"wrong  {error}")
        else:
            print(f"ok     {folder.name}")
    return 1 if wrong else 0


def new_model(name: str) -> int:
    """Write a model folder and its suites, which pass check-models as they are, to be edited."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        raise InvalidModel(f"{name!r} cannot be the name of a model: a-z, 0-9 and _ only, a letter first")
    targets = {"model.yaml": models_folder() / name, "features.sql": models_folder() / name, "labels.sql": models_folder() / name}
    targets |= {f"{stage}.json": validation.suite_file(name, stage).parent for stage in validation.STAGES}
    for folder in sorted(set(targets.values())):
        if folder.exists():
            raise InvalidModel(f"{folder}: is there already; choose another name or edit it")
    templates = Environment(  # ruff: ignore[jinja2-autoescape-false]  YAML, SQL and JSON, not HTML
        loader=FileSystemLoader(INCLUDE / "templates" / "model"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    for file, folder in targets.items():
        with replacing(folder / file) as draft:
            draft.write_text(templates.get_template(file).render(name=name, title=name.replace("_", " ").capitalize()))
        print(folder / file)
    print(f"Edit these, land a partition of {name}_entities, and unpause predict_{name} and train_{name}: docs/add-a-model.md")
    return 0


def restore(name: str, partition: str) -> int:
    """Put back the predictions that readers saw before the present version of a partition."""
    from include.platforms import platform_for

    model = load_model(name)
    publication = platform_for(model).restore(model, partitions.parse(partition), by=getpass.getuser())
    shown = f"version {publication.version} shows {publication.rows} rows again: {publication.location}"
    print(f"{name} {publication.partition}: {shown}")
    return 0


def backup(to: str, with_source: bool) -> int:
    """Ledger, registry and what they name, as they are now, in a folder; runs may go on."""
    from include import backup as backups

    _print_backup("saved", backups.make(_folder(to, "TO"), with_source))
    return 0


def restore_backup(folder: str) -> int:
    """Put a backup back where it was made, which must be empty."""
    from include import backup as backups

    _print_backup("restored", backups.restore(_folder(folder, "FROM")))
    return 0


def _folder(named: str, variable: str) -> Path:
    if not named:
        raise ValueError(f"name the folder of the backup: {variable}=/backups/2013-04-01")
    return Path(named)


def _print_backup(what: str, done: Backup) -> None:
    days = sum(map(len, done.published.values()))
    print(f"{what}: {len(done.files)} files, {done.bytes / 1e6:.1f} MB, {days} published days, as of {done.at}: {done.folder}")


def champion(name: str, at: str | None) -> int:
    """Who is champion, or who was at a moment, since when, and why."""
    model = load_model(name)
    moment = datetime.fromisoformat(at) if at else datetime.now(UTC)
    if moment.tzinfo is None:
        raise ValueError(f"--at {at}: give a time zone, such as 2013-04-01T12:00:00+00:00")
    change = champions.champion_at(model.name, moment)
    if change is None:
        raise LookupError(f"{name} had no champion at {moment.isoformat()}")
    facts = {
        "version": change.version.version,
        "since": change.at.isoformat(),
        "change": f"{change.number} ({change.action.replace('_', ' ')})",
        "in the place of": change.previous or "nobody",
        "as of": change.as_of.isoformat(),
        "why": "; ".join(change.body["reasons"]),
        "run": f"{change.body['dag_id']} {change.body['run_id']}",
        "artifact": change.version.artifact,
    }
    _print_steps([lineage.Step("champion", facts)])
    return 0


def explain(name: str, key: str | None, partition: str | None, snapshot: str | None) -> int:
    """How a prediction came to be, or what became of a snapshot."""
    model = load_model(name)
    if (key is None) == (snapshot is None):
        raise ValueError("give the key of a prediction, or --snapshot")
    if snapshot is not None:
        _print_steps(lineage.explain_snapshot(model, snapshot))
    else:
        _print_steps(lineage.explain_prediction(model, str(key), partitions.parse(partition) if partition else None))
    return 0


def print_bigquery_ml(name: str, dataset: str, day: str) -> int:
    """The statements of BigQuery ML that learn as of a day, measure, and predict the day."""
    model, partition = load_model(name), partitions.parse(day)
    made = bigquery_ml.statements(model, dataset, partition, partition)
    print(f"{made.create};\n\n{made.evaluate};\n\n{made.predict};")
    return 0


def _print_steps(steps: list[lineage.Step]) -> None:
    for step in steps:
        print(step.what)
        for name, value in step.facts.items():
            print(f"  {name:16} {'; '.join(map(str, value)) if isinstance(value, list) else value}")


def model_schema() -> str:
    """JSON Schema of model.yaml, for editors."""
    return json.dumps(ModelConfig.model_json_schema(), indent=2) + "\n"


def parser() -> argparse.ArgumentParser:
    whole = argparse.ArgumentParser(prog="python -m include.cli", description=__doc__.splitlines()[0])
    commands = whole.add_subparsers(dest="command", required=True)
    commands.add_parser("check-models", help="is every folder under include/models usable?")
    commands.add_parser("new-model", help="scaffold one").add_argument("name", help="a-z, 0-9 and _, a letter first")
    commands.add_parser("model-schema", help="write the JSON Schema of model.yaml")
    put_back = commands.add_parser("restore", help="put back the version of a partition before the present one")
    put_back.add_argument("model", help="its name")
    put_back.add_argument("partition", help="YYYY-MM-DD")
    save = commands.add_parser("backup", help="copy ledger, registry and what they name to a folder, while runs go on")
    save.add_argument("to", help="a folder that is not there yet")
    save.add_argument("--without-source", action="store_true", help="where the source keeps what has landed")
    saved = commands.add_parser("restore-backup", help="put a backup where it was made, which must be empty")
    saved.add_argument("folder", help="of the backup")
    who = commands.add_parser("champion", help="who is champion, or was at a moment")
    who.add_argument("model", help="its name")
    who.add_argument("--at", help="moment with time zone, ISO 8601")
    sql = commands.add_parser("bigquery-ml", help="the SQL of a model of BigQuery ML, with the same features and labels")
    sql.add_argument("model", help="its name")
    sql.add_argument("dataset", help="project.dataset of the source tables")
    sql.add_argument("day", help="YYYY-MM-DD: to learn as of, and to predict")
    how = commands.add_parser("explain", help="from a prediction back to the commit, or from a snapshot to its predictions")
    how.add_argument("model", help="its name")
    how.add_argument("key", nargs="?", help="key of the predicted row")
    how.add_argument("--partition", help="YYYY-MM-DD, where a key was predicted on several days")
    how.add_argument("--snapshot", help="id of a snapshot, as a verdict names it")
    return whole


def main(arguments: list[str] | None = None) -> int:
    chosen = parser().parse_args(arguments)
    try:
        if chosen.command == "check-models":
            return check_models()
        if chosen.command == "new-model":
            return new_model(chosen.name)
        if chosen.command == "restore":
            return restore(chosen.model, chosen.partition)
        if chosen.command == "backup":
            return backup(chosen.to, not chosen.without_source)
        if chosen.command == "restore-backup":
            return restore_backup(chosen.folder)
        if chosen.command == "champion":
            return champion(chosen.model, chosen.at)
        if chosen.command == "explain":
            return explain(chosen.model, chosen.key, chosen.partition, chosen.snapshot)
        if chosen.command == "bigquery-ml":
            return print_bigquery_ml(chosen.model, chosen.dataset, chosen.day)
        Path(SCHEMA).write_text(model_schema())
        print(SCHEMA)
        return 0
    except BrokenPipeError:
        raise
    except (ValueError, LookupError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def told() -> int:
    """`main`, for a reader who may stop reading: Python would still try to tell the rest when it ends."""
    try:
        status = main()
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(told())
