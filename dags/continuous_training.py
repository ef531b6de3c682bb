"""### Continuous training

Learns a challenger from labelled partitions and makes it champion if it passes the gate, and a person agrees where one is
to be asked.

* **Started by** its cron, by requests (drift, worse quality, new labels, failed data quality), or by hand.
* **In:** features and matured labels of the training window, frozen as a snapshot that can be made again.
* **Out:** a verdict with a report page; after PROMOTE a version in the model registry, and the champion.
* **On failure, HOLD, REJECT, a no, or no answer:** the champion stays.
* **By hand:** *Trigger* with the day to learn as of.

**Runbook:** docs/runbooks/continuous_training.md
"""

from __future__ import annotations

from airflow.sdk import DAG, CronTriggerTimetable, chain

from include.config import load_models
from include.defaults import dag_arguments, training_form, wanted
from include.platforms import platform_for
from include.tasks.approval import approve
from include.tasks.promotion import promote
from include.tasks.training import admit, current_champion, gate, validate_training_set

for model in load_models():
    if not wanted(f"train_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(
        schedule=CronTriggerTimetable(model.training.schedule, timezone="UTC") if model.training.schedule else None,
        max_active_runs=1,
        **dag_arguments(model, "train", __doc__),
    ) as dag:
        run = admit(model)
        snapshot = platform.snapshot_training_set(model, run)
        checked = validate_training_set(model, run, snapshot)
        inspected = platform.inspect_training_set(model, run, snapshot)
        tuned = platform.tune(model, run, snapshot)
        challenger = platform.train(model, run, snapshot, tuned)
        champion = current_champion(model, run)
        evaluation = platform.evaluate(model, run, snapshot, challenger, champion)
        verdict = gate(model, run, snapshot, tuned, challenger, champion, evaluation)
        version = platform.register(model, run, snapshot, tuned, challenger, verdict)
        shadow = platform.shadow_score(model, run, version, champion)
        approval = approve(model, run=run, champion=champion, verdict=verdict, version=version, shadow=shadow)
        promoted = promote(model, run, snapshot, champion, verdict, version, shadow, approval)

        chain(run, snapshot, checked, inspected, tuned, challenger, champion, evaluation, verdict)
        chain(verdict, version, shadow, approval, promoted)
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = training_form()
