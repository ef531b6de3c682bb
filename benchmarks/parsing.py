"""What does a model more cost the DAG processor? `python -m benchmarks.parsing`

For 1, 10, 100 and 200 models (copies of the demo model), in a process of its own each: CPU seconds to parse all files
under dags/ as Airflow does, and to serialise every DAG. CPU time, not wall time: the machine may be busy.

Importing Airflow itself is shown apart: the DAG processor has done it once and forks.

Prints a table and, last, one line of JSON: cpu_s_300_dags (parse and serialise, what the DAG files import included) and
ms_per_dag (slope between the smallest and the largest).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from include.config import MODELS, REPOSITORY

COUNTS = (1, 10, 100, 200)
MEASURE = """
import json, sys, time
started = time.process_time()
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.serialized_objects import DagSerialization
imported = time.process_time()
bag = DagBag(sys.argv[1], bundle_path=sys.argv[1], bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
parsed = time.process_time()
size = sum(len(json.dumps(DagSerialization.to_dict(dag), default=str)) for dag in bag.dags.values())
done = time.process_time()
cost = {"airflow": imported - started, "parse": parsed - imported, "serialise": done - parsed}
print(json.dumps({"dags": len(bag.dags), "bytes": size, **cost}))
"""


def measure(models: int) -> dict[str, float]:
    """CPU seconds for a repository of so many models."""
    with tempfile.TemporaryDirectory(prefix="aileron-parsing-") as folder:
        for number in range(models):
            target = Path(folder) / "models" / f"model_{number:03}"
            shutil.copytree(MODELS / "flight_delays", target)
            text = (target / "model.yaml").read_text().replace("name: flight_delays", f"name: model_{number:03}")
            (target / "model.yaml").write_text(text)
        environment = {
            **os.environ,
            "AILERON_MODELS": f"{folder}/models",
            "AIRFLOW_HOME": folder,
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR",
            "PYTHONPATH": str(REPOSITORY),
        }
        command = [sys.executable, "-c", MEASURE, str(REPOSITORY / "dags")]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if run.returncode:
            raise RuntimeError(run.stderr[-2000:])
        return json.loads(run.stdout.splitlines()[-1])


def main() -> int:
    found = {count: measure(count) for count in COUNTS}
    print(f"{'models':>7}{'DAGs':>7}{'Airflow':>10}{'parse':>10}{'serialise':>11}{'total':>9}   CPU seconds")
    for count, cost in found.items():
        total = cost["parse"] + cost["serialise"]
        print(f"{count:>7}{cost['dags']:>7}{cost['airflow']:>10.2f}{cost['parse']:>10.2f}{cost['serialise']:>11.2f}{total:>9.2f}")
    totals = {count: cost["parse"] + cost["serialise"] for count, cost in found.items()}
    slope = (totals[COUNTS[-1]] - totals[COUNTS[0]]) / (found[COUNTS[-1]]["dags"] - found[COUNTS[0]]["dags"])
    per_300 = totals[100] * 300 / found[100]["dags"]
    print(json.dumps({"cpu_s_300_dags": round(per_300, 2), "ms_per_dag": round(1000 * slope, 2)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
