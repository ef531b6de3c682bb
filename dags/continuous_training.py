"""### Continuous training

Learns a challenger from labelled partitions and makes it champion if it passes the gate.

* **In:** features and matured labels of the training window, frozen as a snapshot that can be rebuilt.
* **Out:** a version in the model registry and, if the gate says PROMOTE, the alias *champion* on it.
* **On failure or another verdict:** the champion stays.
* **By hand:** *Trigger* with the day to learn as of.

**Runbook:** docs/runbooks/continuous_training.md
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, chain

from include.config import load_models
from include.defaults import dag_arguments, training_form, wanted
from include.platforms import platform_for
from include.tasks.promotion import promote
from include.tasks.training import gate, register, resolve_window

for model in load_models():
    if not wanted(f"train_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(
        schedule=CronTriggerTimetable(model.training.schedule, timezone="UTC") if model.training.schedule else None,
        max_active_runs=1,
        **dag_arguments(model, "train", __doc__),
    ) as dag:
        run = resolve_window(model)
        snapshot = platform.snapshot_training_set(model, run)
        challenger = platform.train(model, run, snapshot)
        evaluation = platform.evaluate(model, run, snapshot, challenger)
        verdict = gate(model, run, challenger, evaluation)
        version = register(model, run, challenger, evaluation, verdict)
        promoted = promote(model, run, version, verdict)

        chain(run, snapshot, challenger, evaluation, verdict, version, promoted)
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = training_form()
