"""DAGs that fail in every way a mail has to tell about; `python failing_dags.py <dag id> ...` runs them with dag.test()."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, chain, task
from airflow.sdk.exceptions import AirflowFailException
from airflow.sdk.log import mask_secret

from include.notifications import FailureMail

DAGS: dict[str, DAG] = {}
MAIL = FailureMail("flight_delays")
FORM = {"partition": "2013-04-03", "last_partition": None, "as_of": "2013-04-03"}


@dataclass
class Check:
    check: str
    column: str
    success: bool
    observed: float
    limit: str


class CheckFailed(ValueError):
    def __init__(self, said: str, checks: list[Any]) -> None:
        super().__init__(said)
        self.checks = checks
        self.facts = {"Model version": "12"}


CheckFailed.__module__ = "include.tasks.validation"


def fail_check() -> None:
    checks = [
        Check("share of nulls", "tailnum", False, 0.0724, "at most 0.01"),
        Check("share of nulls", "temperature", False, 0.0312, "at most 0.03"),
        Check("smallest value", "distance", False, -12, "at least 0"),
    ]
    raise CheckFailed("flight_delays 2013-04-03: feature check failed: tailnum null 7.2 % > 1 %, and 2 more of 14 checks", checks)


def fail_twelve_checks() -> None:
    raise CheckFailed("12 checks failed", [{"check": f"rule {n} <b>", "observed": n} for n in range(12)])


def fail_plainly() -> None:
    raise RuntimeError("no room left")


def fail_for_good() -> None:
    raise AirflowFailException("the source has no column tailnum")


def fail_hostile() -> None:
    raise ValueError(
        "bad\r\nBcc: thief@example.com\r\n\r\n<script>alert('x')</script>{{ 7*7 }}\x00\x1b[31m Müller 東京 \u202etxt "
        + "A" * 1_000_000
    )


def fail_with_secret() -> None:
    mask_secret("kanarienvogel-4711")
    raise CheckFailed(
        "cannot log in with kanarienvogel-4711 at the warehouse", [{"check": "login", "observed": "kanarienvogel-4711"}]
    )


def fail_unreadably() -> None:
    class Unreadable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    raise Unreadable


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def work() -> None:
    pass


def pipeline(dag_id: str, retries: int = 0, **steps: Any) -> None:
    """A chain of tasks; both levels of callback, as in real life."""
    arguments = {"on_failure_callback": MAIL, "retries": retries, "retry_delay": timedelta(0)}
    with DAG(dag_id, schedule=None, default_args=arguments, params=FORM, on_failure_callback=MAIL) as dag:
        chain(*(task(task_id=name)(step)() for name, step in steps.items()))
    DAGS[dag_id] = dag


pipeline("predict_check", validate_source=work, build_features=fail_check, publish=work)
pipeline("predict_many_checks", build_features=fail_twelve_checks, publish=work)
pipeline("predict_after_publish", publish=work, record=fail_plainly)
pipeline("predict_in_publish", score=work, publish=fail_plainly)
pipeline("predict_hostile", score=fail_hostile, publish=work)
pipeline("predict_secret", score=fail_with_secret, publish=work)
pipeline("predict_unreadable", score=fail_unreadably, publish=work)
pipeline("train_plain", train=fail_plainly, promote=work)
pipeline("predict_killed", score=die, publish=work)

pipeline("predict_retried", retries=2, score=fail_plainly, publish=work)
pipeline("predict_for_good", retries=2, score=fail_for_good, publish=work)

with DAG(
    "predict_storm", schedule=None, default_args={"on_failure_callback": MAIL}, params=FORM, on_failure_callback=MAIL
) as storm:
    for number in range(3):
        task(task_id=f"fail_{number}")(fail_plainly)()
DAGS[storm.dag_id] = storm

globals().update(DAGS)

if __name__ == "__main__":
    for name in sys.argv[1:]:
        run = DAGS[name].test(logical_date=None)
        states = {ti.task_id: str(ti.state) for ti in run.get_task_instances()}
        print("RESULT", json.dumps({"dag": name, "state": str(run.state), "tasks": states}))
