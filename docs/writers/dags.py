"""docs/dags.md: what the DAGs say of themselves."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from docs.writers.tables import table

HEAD = """\
# DAGs

<!-- Written by `make docs` from the DAGs themselves. Edit their docstrings, not this page. -->

Every model under `include/models` has the DAGs below; `<model>` stands for its name.
"""


def page(dags: Iterable[Any], models: Iterable[Any]) -> str:
    """The page. All DAGs of a file are alike, so one of them is shown; what differs is in the table of models.

    Raises:
        ValueError: if a task says nothing about itself.
    """
    models = sorted(models, key=lambda model: model.name)
    dags = sorted(dags, key=lambda dag: Path(dag.fileloc).name)
    shown = {dag.fileloc: dag for dag in sorted(dags, key=lambda dag: dag.dag_id, reverse=True)}
    sections = [_section(dag, _model_of(dag)) for _, dag in sorted(shown.items())]
    return "\n".join([HEAD, *sections, "## Models\n", _models(models, dags)])


def _model_of(dag: Any) -> str:
    return next(tag.removeprefix("model:") for tag in dag.tags if tag.startswith("model:"))


def _section(dag: Any, model: str) -> str:
    file = Path(dag.fileloc)
    doc = (ast.get_docstring(ast.parse(file.read_text())) or "").strip()
    lines = [
        re.sub(r"^### ", "## ", re.sub(r"docs/(runbooks/(\w+)\.md)", r"[\2](\1)", doc)),
        "",
        f"**DAG** `{_generic(dag.dag_id, model)}`, from [dags/{file.name}](../dags/{file.name}); runs at once: "
        + ("as the model says (`prediction.max_active_runs`)" if dag.max_active_runs > 1 else "1"),
        "",
    ]
    fields = [(name, dag.params.get_param(name)) for name in dag.params]
    if fields:
        choices = [(f"`{name}`", param.description, _choices(param)) for name, param in fields]
        lines += table(("Field of the form", "What it means", "May be"), choices)
    rows = [(f"`{task.task_id}`", _says(task, model), _assets(task, model)) for task in dag.topological_sort()]
    if any(assets for *_, assets in rows):
        lines += table(("Task", "What it does", "Asset"), rows)
    else:
        lines += table(("Task", "What it does"), [row[:2] for row in rows])
    return "\n".join(lines)


def _models(models: list[Any], dags: list[Any]) -> str:
    by_id = {dag.dag_id: dag for dag in dags}
    names = list(dict.fromkeys(dag.dag_id.removesuffix(f"_{_model_of(dag)}") for dag in dags))
    rows = [
        (
            f"`{model.name}`",
            model.owner.team,
            model.tier,
            f"{model.start} to {model.end or 'today'}",
            *(_schedule(by_id.get(f"{name}_{model.name}"), model.name) for name in names),
        )
        for model in models
    ]
    return "\n".join(table(("Model", "Owner", "Tier", "Partitions", *(f"`{name}` starts" for name in names)), rows))


def _schedule(dag: Any, model: str) -> str:
    from airflow.sdk import AssetOrTimeSchedule, CronPartitionTimetable, CronTriggerTimetable, PartitionedAssetTimetable

    if dag is None:
        return "(not for this model)"
    times = dag.timetable
    if isinstance(times, PartitionedAssetTimetable):
        watched: Any = times.asset_condition
        return f"each partition of asset `{_generic(watched.name, model)}`"
    if isinstance(times, CronPartitionTimetable):
        return f"{_cron(times)}, for the day before" if times.run_offset == -1 else f"{_cron(times)}, offset {times.run_offset}"
    if isinstance(times, AssetOrTimeSchedule):
        assets: Any = times.asset_condition
        return (
            f"asset {' and '.join(f'`{_generic(asset.name, model)}`' for asset in assets.objects)}, or {_cron(times.timetable)}"
        )
    return _cron(times) if isinstance(times, CronTriggerTimetable) else "on request only"


def _cron(timetable: Any) -> str:
    return f"cron `{timetable.expression}` {timetable.timezone}"


def _says(task: Any, model: str) -> str:
    """The first paragraph of what a task says about itself."""
    doc = (task.doc_md or "").strip().split("\n\n")[0]
    if doc:
        # Without backticks <model> would be taken for HTML, and not be seen.
        return re.sub(r"(?<![`\w])(\w+_<model>)", r"`\1`", " ".join(doc.split()))
    target = getattr(task, "partial_kwargs", {}).get("trigger_dag_id")
    if target:
        return f"Starts these runs of `{_generic(target, model)}`; one that is there already is left alone."
    raise ValueError(f"{task.dag_id}.{task.task_id}: says nothing about itself; give its function a docstring")


def _assets(task: Any, model: str) -> str:
    return ", ".join(f"`{_generic(asset.name, model)}`" for asset in getattr(task, "outlets", None) or [])


def _choices(param: Any) -> str:
    kind = param.schema.get("type", "string")
    kind = next(each for each in kind if each != "null") if isinstance(kind, list) else kind
    choices = param.schema.get("enum") or ([True, False] if kind == "boolean" else [param.schema.get("format", kind)])
    default = "" if param.value is None else f"; {_json(param.value)} if not given"
    return " or ".join(_json(choice) for choice in choices) + default


def _json(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _generic(name: str, model: str) -> str:
    return re.sub(rf"(?<![a-z0-9]){model}(?![a-z0-9_])", "<model>", name)


def all_dags(folder: Path) -> list[Any]:
    """The DAGs of a folder.

    Raises:
        ValueError: if a file of it does not parse.
    """
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(folder), bundle_path=folder, bundle_name="dags-folder")
    if bag.import_errors:
        raise ValueError("\n".join(f"{file}: {error}" for file, error in bag.import_errors.items()))
    return list(bag.dags.values())
