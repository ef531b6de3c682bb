"""What a person does at the command line of this repository; `make help` has the short forms.

python -m include.cli check-models
python -m include.cli new-model churn
python -m include.cli restore flight_delays 2013-04-01
python -m include.cli model-schema
"""

from __future__ import annotations

import argparse
import getpass
import json
import re
import sys
from pathlib import Path

from include import partitions, queries, validation
from include.config import INCLUDE, InvalidModel, ModelConfig, load_model, models_folder, read_model
from include.core.files import replacing

STAGES: tuple[validation.Stage, ...] = ("source", "features", "predictions")
SCHEMA = INCLUDE / "models" / "model.schema.json"


def check_models() -> int:
    """Read every model folder the way the DAGs will; print what is wrong with file, key and reason."""
    wrong = 0
    folders = sorted(path for path in models_folder().iterdir() if path.is_dir() and not path.name.startswith((".", "_")))
    for folder in folders:
        try:
            model = read_model(folder)
            queries.check(model)
            for stage in STAGES:
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
    targets |= {f"{stage}.json": validation.suite_file(name, stage).parent for stage in STAGES}
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


def model_schema() -> str:
    """JSON Schema of model.yaml, for editors."""
    return json.dumps(ModelConfig.model_json_schema(), indent=2) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m include.cli", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check-models", help="is every folder under include/models usable?")
    commands.add_parser("new-model", help="scaffold one").add_argument("name")
    commands.add_parser("model-schema", help="write the JSON Schema of model.yaml")
    put_back = commands.add_parser("restore", help="put back the version of a partition before the present one")
    put_back.add_argument("model")
    put_back.add_argument("partition", help="YYYY-MM-DD")
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "check-models":
            return check_models()
        if chosen.command == "new-model":
            return new_model(chosen.name)
        if chosen.command == "restore":
            return restore(chosen.model, chosen.partition)
        Path(SCHEMA).write_text(model_schema())
        print(SCHEMA)
        return 0
    except (ValueError, LookupError, OSError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
