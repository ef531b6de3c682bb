"""### Batch prediction

Scores one partition with the champion and publishes it only when every check passes.

* **In:** the partition of the source table, complete when its marker is there.
* **Out:** the published predictions of that partition, as one atomic swap; the rows that were set aside are in quarantine,
  with the reason.
* **On failure:** nothing is published; readers keep what they have, and the owner is mailed. Clear the failed task when
  the cause is gone.
* **By hand:** *Trigger* with a partition or a range, or *Backfill* for many days.

**Runbook:** docs/runbooks/batch_prediction.md
"""

from __future__ import annotations

from airflow.sdk import DAG, chain

from include.config import load_models
from include.defaults import DAILY, dag_arguments, prediction_form, wanted
from include.platforms import platform_for
from include.tasks.prediction import audit_predictions, choose_model, list_range, publish, resolve_partition
from include.tasks.runs import start_runs
from include.tasks.validation import validate_features, validate_source

for model in load_models():
    if not wanted(f"predict_{model.name}"):
        continue
    platform = platform_for(model)

    with DAG(
        schedule=DAILY,
        max_active_runs=model.prediction.max_active_runs,
        **dag_arguments(model, "predict", __doc__),
    ) as dag:
        resolved, run, range_runs = resolve_partition(model)
        await_source = platform.await_source(model)
        version = choose_model(model, run)
        source = validate_source(model, run)
        features = platform.build_features(model, run)
        checked = validate_features(model, run, features)
        scores = platform.score(model, run, version)
        predictions = platform.postprocess(model, run, version)
        audit = audit_predictions(model, run, version, features, scores, predictions)
        published = publish(model, run, version, features, audit)

        chain(resolved, await_source, source, features, checked, scores, predictions, audit, published)
        chain(published, *platform.deliver(model, run))
        chain(await_source, version, scores)

        # A run about a range only starts one run for each of its partitions.
        days = list_range(model, range_runs)
        resolved >> days
        start_runs(model, "predict", days, "start_range_runs")
        # Last: a task is given a copy of the params that its DAG has by then, and serialising them costs more than all else.
        dag.params = prediction_form()
