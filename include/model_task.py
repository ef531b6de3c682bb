"""`@model_task`: a TaskFlow task about a model."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from airflow.sdk import task
from airflow.sdk.definitions.xcom_arg import XComArg

from include.config import ModelConfig, load_model


def model_task(function: Callable[..., Any], **task_arguments: Any) -> Callable[..., XComArg]:
    """The task of a function whose first argument is a ModelConfig.

    In the DAG it is called with the model, but only the name becomes an argument of the task, so that the UI shows a
    name and not a page of configuration; the worker reads the model's folder again.
    """

    @wraps(function)
    def in_worker(name: str, *args: Any, **kwargs: Any) -> Any:
        return function(load_model(name), *args, **kwargs)

    operator = task(multiple_outputs=False, **task_arguments)(in_worker)

    @wraps(function)
    def in_dag(model: ModelConfig, *args: Any, **kwargs: Any) -> XComArg:
        return operator(model.name, *args, **kwargs)

    return in_dag
