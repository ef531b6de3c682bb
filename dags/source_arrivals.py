"""### Source arrivals

Compares what has landed with what was published, and starts a prediction run for each partition that is missing or
whose source has changed since (late data).

* **Woken by** an asset watcher when something lands, and by a slow cron as the net. The event only wakes: state decides,
  so an event that is lost, doubled or merged does no harm.
* **Out:** runs of the predict DAG with ids made from the partition and the state of its source: the same state never starts two.
  And a run of the train DAG when one is due: requests that no run has answered, enough new labels, or failed data quality.
* **Also** sends alert mails that could not be sent when they were written.

**Runbook:** docs/runbooks/batch_prediction.md
"""

from __future__ import annotations

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from include import assets
from include.config import load_models
from include.defaults import dag_arguments, wanted
from include.platforms import platform_for
from include.tasks.arrivals import deliver_alerts, find_training_due, find_unpublished
from include.tasks.runs import start_runs

for model in load_models():
    if not wanted(f"arrivals_{model.name}"):
        continue
    landed = assets.landed(model, platform_for(model).landing_watchers(model))

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("17 * * * *", timezone="UTC"), assets=[landed]),
        max_active_runs=1,
        **dag_arguments(model, "arrivals", __doc__),
    ):
        start_runs(model, "predict", find_unpublished(model), "start_predictions")
        start_runs(model, "train", find_training_due(model), "start_training")
        deliver_alerts()
