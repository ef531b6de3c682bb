"""How one DAG starts runs of another."""

from __future__ import annotations

from typing import Literal

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.definitions.mappedoperator import MappedOperator
from airflow.sdk.definitions.xcom_arg import XComArg

from include.config import ModelConfig


def start_runs(
    model: ModelConfig, kind: Literal["predict", "train", "rollback", "label"], runs: XComArg, task_id: str = ""
) -> MappedOperator:
    """One run of <kind>_<model> for each of `runs`, with the id that it names; a run of that id is left as it is.

    Without a logical date: these runs are about what their conf says, not about the moment at which they were asked for.
    """
    return TriggerDagRunOperator.partial(
        task_id=task_id or f"start_{kind}",
        trigger_dag_id=f"{kind}_{model.name}",
        logical_date=None,
        skip_when_already_exists=True,
        map_index_template="{{ task.trigger_run_id }}",
    ).expand_kwargs(runs)
