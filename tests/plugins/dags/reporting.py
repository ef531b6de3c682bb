"""A DAG whose tasks leave, or do not leave, a page."""

from __future__ import annotations

from typing import Any

from airflow.sdk import dag, get_current_context, task
from airflow.sdk.exceptions import AirflowSkipException

LEFT = {
    "nothing": None,
    "number": 7,
    "text": "text",
    "list": [1],
    "other": {"rows": 3},
    "no_page": {"page": None},
    "odd_page": {"page": {"a": 1}},
    "elsewhere": {"page": "/etc/evaluations/m/x.html"},
}


@dag(schedule=None)
def reporting() -> None:
    for name, value in LEFT.items():

        @task(task_id=name, multiple_outputs=False)
        def leave(value: Any) -> Any:
            return value

        leave(value)

    @task(multiple_outputs=False)
    def evaluate(number: int | None = None) -> dict[str, Any]:
        return {"rows": 3, "page": f"/lake/evaluations/m/{number}.html"}

    @task
    def validate() -> None:
        get_current_context()["ti"].xcom_push("page", "/lake/validations/m/failed.html")
        raise ValueError("a check failed")

    @task
    def gate() -> None:
        get_current_context()["ti"].xcom_push("page", "/lake/evaluations/m/held.html")
        raise AirflowSkipException("HOLD")

    gate()
    evaluate.override(task_id="evaluated")()
    evaluate.expand(number=[0, 1])
    validate()


reporting()
