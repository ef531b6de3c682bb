"""`@model_task`: a TaskFlow task about a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from typing import Any

from airflow.sdk import task
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.definitions._internal.mixins import ResolveMixin
from airflow.sdk.definitions.xcom_arg import XComArg

from include.config import ModelConfig, load_model


def model_task(function: Callable[..., Any], **task_arguments: Any) -> Callable[..., XComArg]:
    """The task of a function whose first argument is a ModelConfig.

    In the DAG it is called with the model, but only the name becomes an argument of the task, so that the UI shows a
    name and not a page of configuration; the worker reads the model's folder again.

    The results of other tasks among its arguments are read without becoming arrows of the graph: in what order tasks
    run is said in the DAG file, by `chain`, and the graph shows that order and not who reads what.
    """

    @wraps(function)
    def in_worker(name: str, *args: Any, **kwargs: Any) -> Any:
        return function(load_model(name), *args, **kwargs)

    operator = task(multiple_outputs=False, **task_arguments)(in_worker)

    @wraps(function)
    def in_dag(model: ModelConfig, *facts: XComArg) -> XComArg:
        return operator(model.name, *(Read(fact) for fact in facts))

    return in_dag


# ResolveMixin is what Airflow asks of an argument that has its value only at run time; the SDK exports no public name for it.
class Read(ResolveMixin):
    """The result of an earlier task, or one part of it, to be read when the task that has it as an argument starts."""

    def __init__(self, result: XComArg, part: str | None = None) -> None:
        operator, self.key = next(result.iter_references())
        self.task_id, self.part = operator.task_id, part

    def __repr__(self) -> str:
        return f"<{self.task_id}: {self.part or self.key}>"

    def iter_references(self) -> Iterable[tuple[BaseOperator, str]]:
        return ()

    def resolve(self, context: Mapping[str, Any]) -> Any:
        """The value.

        Raises:
            LookupError: if that task has left none: then the DAG does not make it run before this one.
        """
        value = context["ti"].xcom_pull(task_ids=self.task_id, key=self.key)
        if value is None:
            raise LookupError(f"task {self.task_id} has left no {self.key}: it must have run before this task")
        return value if self.part is None else value[self.part]
