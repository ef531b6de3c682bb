"""### Drift monitoring

Watches every published partition: has the data changed, does the model still know what it says, and what is to be done?

* **Started by** each publication, one run per partition, also in backfills; by hand with a partition.
* **In:** the features and predictions of the partition and of the days before it, as counts; labels that have matured.
* **Out:** a verdict in the ledger, a page, and where a person must know, a mail. What follows is requested: labels, a
  training, or a rollback. Partitions of a backfill are judged and start nothing.
* **On failure:** published predictions are not touched; the partition is not judged until the task is cleared.

**Runbook:** docs/runbooks/drift_monitoring.md
"""

from __future__ import annotations

from airflow.sdk import DAG, PartitionedAssetTimetable, chain

from include import assets
from include.config import load_models
from include.defaults import dag_arguments, monitoring_form, wanted
from include.platforms import platform_for
from include.tasks.monitoring import compare, decide, find_publication, report, request_labels, request_rollback, request_training
from include.tasks.runs import start_runs

for model in load_models():
    if model.monitoring != "every_partition" or not wanted(f"monitor_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(
        schedule=PartitionedAssetTimetable(assets=assets.predictions(model)),
        # One at a time: each verdict knows those before it.
        max_active_runs=1,
        **dag_arguments(model, "monitor", __doc__),
    ) as dag:
        run = find_publication(model)
        profiled = platform.profile(model, run)
        compared = compare(model, run, profiled)
        matured = platform.evaluate_matured(model, run)
        verdict = decide(model, run, compared, matured)
        page = report(model, run, profiled, compared, matured, verdict)
        labels = request_labels(model, run, verdict)
        training = request_training(model, run, verdict)
        rollback = request_rollback(model, run, verdict)

        chain(run, profiled, compared, matured, verdict, page, [labels, training, rollback])
        start_runs(model, "label", labels)
        start_runs(model, "train", training)
        start_runs(model, "rollback", rollback)
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = monitoring_form()
