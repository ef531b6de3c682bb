"""### Source arrivals

Compares what has landed with what was published, and starts a prediction run for each partition that is missing or
whose source has changed since (late data).

* **Woken by** an asset watcher when something lands, and by a slow cron as the net. The event only wakes: state decides,
  so an event that is lost, doubled or merged does no harm.
* **Out:** runs of the predict DAG with ids made from the partition and the state of its source: the same state never starts two.
* **Also** sends alert mails that could not be sent when they were written.

**Runbook:** docs/runbooks/batch_prediction.md
"""

from __future__ import annotations

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable

from include import assets
from include.config import load_models
from include.defaults import dag_arguments, wanted
from include.platforms import platform_for
from include.tasks.arrivals import deliver_alerts, find_unpublished

for model in load_models():
    if not wanted(f"arrivals_{model.name}"):
        continue
    landed = assets.landed(model, platform_for(model).landing_watchers(model))

    with DAG(
        schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("17 * * * *", timezone="UTC"), assets=[landed]),
        max_active_runs=1,
        **dag_arguments(model, "arrivals", __doc__),
    ):
        TriggerDagRunOperator.partial(
            task_id="start_predictions",
            trigger_dag_id=f"predict_{model.name}",
            logical_date=None,
            skip_when_already_exists=True,
            map_index_template="{{ task.trigger_run_id }}",
        ).expand_kwargs(find_unpublished(model))
        deliver_alerts()
