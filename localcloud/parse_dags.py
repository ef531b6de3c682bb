"""What an Airflow makes of the files that it is given: run by the Python of an Airflow, for the local cloud has none.

`python parse_dags.py <folder of DAGs> <result.json>`; the environment says where that Airflow lives. Each file is parsed in a
process of its own, as its DAG processor does it.
"""

import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any


def main(folder: str, result: str) -> None:
    from airflow.dag_processing.dagbag import BundleDagBag
    from airflow.plugins_manager import ensure_plugins_loaded
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.utils.file import list_py_file_paths

    ensure_plugins_loaded()

    def parse(file: Path, told: Any) -> None:
        bag = BundleDagBag(str(file), bundle_path=Path(folder), bundle_name="dags-folder")
        errors = list(bag.import_errors.values())
        dags = []
        for dag in bag.dags.values():
            try:
                DagSerialization.to_dict(dag)
            except Exception as error:
                errors.append(f"{dag.dag_id} cannot be serialised: {error}")
            dags.append(shown(dag))
        told.send({"dags": dags, "error": "\n".join(errors)})

    def shown(dag: Any) -> dict[str, Any]:
        return {
            "dag_id": dag.dag_id,
            "dag_display_name": dag.dag_display_name,
            "description": dag.description,
            "fileloc": dag.fileloc,
            "tags": sorted(dag.tags),
            "max_active_tasks": dag.max_active_tasks,
            "max_active_runs": dag.max_active_runs,
            "owners": sorted({task.owner for task in dag.tasks}) or ["airflow"],
        }

    context = multiprocessing.get_context("fork")
    found = {}
    for file in sorted(list_py_file_paths(folder)):
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=parse, args=(file, there))
        child.start()
        there.close()
        try:
            answer = here.recv()
        except EOFError:
            answer = {"dags": [], "error": "the process that parsed this file ended"}
        child.join()
        found[str(file).removeprefix(folder).lstrip("/")] = answer
    Path(result).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
