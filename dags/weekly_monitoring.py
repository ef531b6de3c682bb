"""### Weekly monitoring

One query a week on what counts: were the predictions of the last matured week as good as they should be?

* **For** models with `monitoring: weekly_query`: it costs one query, sees no drift of single columns, and sees decay only when
  labels have come. The dearer and quicker way is the drift monitoring of each partition.
* **Out:** a verdict in the ledger; if the week is below the floors of the gate or worse than the model itself expects, a mail
  and a training request.
* **By hand:** *Trigger* with the day to look from.

**Runbook:** docs/runbooks/drift_monitoring.md
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, chain

from include.config import load_models
from include.defaults import dag_arguments, training_form, wanted
from include.platforms import platform_for
from include.tasks.monitoring import request_training
from include.tasks.runs import start_runs
from include.tasks.weekly import find_week, judge_week

for model in load_models():
    if model.monitoring != "weekly_query" or not wanted(f"monitor_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(
        schedule=CronTriggerTimetable("0 6 * * 1", timezone="UTC"),
        max_active_runs=1,
        **dag_arguments(model, "monitor", __doc__),
    ) as dag:
        week = find_week(model)
        matured = platform.evaluate_matured(model, week)
        verdict = judge_week(model, week, matured)
        training = request_training(model, week, verdict)

        chain(week, matured, verdict, training)
        start_runs(model, "train", training)
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = training_form()
