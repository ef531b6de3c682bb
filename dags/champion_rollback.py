"""### Champion rollback

Makes a former champion champion again, in one atomic step, and predicts again what the withdrawn version had published.

* **Started** by hand only. *version*: which one; empty for the champion before. *why*: kept in the ledger and mailed.
* **Out:** a change of champion, recorded; a prediction run for each partition that the withdrawn version had published, or
  for those within the given days.
* **On failure:** the champion is who it was, unless `roll_back` itself is green. Clearing a task does nothing twice.

**Runbook:** docs/runbooks/continuous_training.md
"""

from __future__ import annotations

from airflow.sdk import DAG, chain

from include.config import load_models
from include.defaults import dag_arguments, rollback_form, wanted
from include.tasks.promotion import list_predictions, roll_back
from include.tasks.runs import start_runs

for model in load_models():
    if not wanted(f"rollback_{model.name}"):
        continue

    with DAG(schedule=None, max_active_runs=1, **dag_arguments(model, "rollback", __doc__)) as dag:
        rolled_back = roll_back(model)
        runs = list_predictions(model, rolled_back)
        chain(rolled_back, runs)
        start_runs(model, "predict", runs, "start_predictions")
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = rollback_form()
