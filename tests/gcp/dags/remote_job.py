"""A DAG with one job on Google Cloud, whose request its run is given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, chain, task

from include.config import load_model
from include.model_task import Read
from include.platforms.gcp.jobs import CustomJob

with DAG("remote_google_job", schedule=None, default_args={"retries": 1, "retry_delay": timedelta(0)}):

    @task(multiple_outputs=False)
    def plan(*, dag_run: Any = None) -> dict[str, Any]:
        asked: dict[str, Any] = dag_run.conf["request"]
        return asked

    planned = plan()
    job = CustomJob(task_id="job", model=load_model("flight_delays"), step="custom", request=Read(planned))
    chain(planned, job)
