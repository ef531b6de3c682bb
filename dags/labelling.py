"""### Labelling

Asks for the labels of some rows after an alarm, waits for the answers, and judges the model by them.

* **Started by** the monitoring DAG, within the label budget.
* **Out:** a request in the label queue; when it is answered, what the labels say of the model, recorded and mailed, and a
  training request if it has decayed.
* **On failure:** no answer within the time that the model allows fails the wait; nothing is trained.

**Runbook:** docs/runbooks/drift_monitoring.md
"""

from __future__ import annotations

from airflow.sdk import DAG, chain

from include.config import load_models
from include.defaults import dag_arguments, labelling_form, wanted
from include.platforms import platform_for
from include.tasks.labels import judge_labels, read_request
from include.tasks.runs import start_runs

for model in load_models():
    if not model.labelling.rows_per_request or not wanted(f"label_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(schedule=None, max_active_runs=4, **dag_arguments(model, "label", __doc__)) as dag:
        asked = read_request(model)
        queued = platform.queue_labels(model, asked)
        answered = platform.await_labels(model)
        training = judge_labels(model, asked, queued)

        chain(asked, queued, answered, training)
        start_runs(model, "train", training)
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = labelling_form()
