"""What the DAG processor makes of runs whose task could not report: killed, timed out, deadlocked."""

from __future__ import annotations

import pytest

from .conftest import Inbox
from .dag_processor import NO_TASK, dag_failed, task_failed
from .test_failure_mail import html, one_line


def test_a_killed_task_is_told_by_the_dags_own_callback(inbox: Inbox) -> None:
    dag_failed("predict_killed", "score")
    (mail,) = inbox.mails
    said = "score ended without saying why: most likely its process was killed"
    assert mail["Subject"].startswith(f"[dev][tier 2] predict_killed: {said}")
    assert mail["Subject"].endswith(" · 2013-04-03") and len(mail["Subject"]) <= 150
    assert said in html(mail)
    assert "Predictions of 2013-04-03 were not published." in one_line(mail)
    assert "Airflow noticed at try 1 of 1 that the process was gone, and failed the run." in one_line(mail)


@pytest.mark.parametrize(
    ("msg", "said"),
    [
        ("timed_out", "the run took longer than it may, it was in score"),
        ("all_tasks_deadlocked", "the run cannot go on: a task waits for what will never come in score"),
    ],
)
def run_dags_that_ended_otherwise_are_not_called_killed(inbox: Inbox, msg: str, said: str) -> None:
    dag_failed("predict_killed", "score", msg=msg)
    (mail,) = inbox.mails
    assert said in mail["Subject"] and "memory" not in one_line(mail)


def test_a_run_without_a_known_task_is_mailed_too(inbox: Inbox) -> None:
    dag_failed("predict_killed", NO_TASK, run_id="manual__hostile/../<b>run</b>")
    (mail,) = inbox.mails
    assert "&lt;b&gt;run&lt;/b&gt;" in html(mail) and "<b>" not in html(mail)
    assert "/runs/manual__hostile%2F..%2F%3Cb%3Erun%3C%2Fb%3E" in one_line(mail)


def test_the_same_failure_told_four_times_is_one_mail(inbox: Inbox) -> None:
    for _ in range(2):
        task_failed()
        dag_failed()
    assert len(inbox.mails) == 1


def test_a_cleared_run_that_fails_again_is_a_new_mail_of_the_same_conversation(inbox: Inbox) -> None:
    dag_failed()
    dag_failed(clear_number=1)
    dag_failed(clear_number=1)
    first, second = inbox.mails
    assert second["References"] == first["Message-ID"] != second["Message-ID"]
    assert "Cleared before: 1 ×" in one_line(second)


def test_a_lost_task_that_will_be_retried_is_no_alert(inbox: Inbox) -> None:
    task_failed("predict_retried", max_tries=2)
    assert inbox.mails == []
    dag_failed("predict_retried")
    assert len(inbox.mails) == 1


def test_two_runs_are_two_mails(inbox: Inbox) -> None:
    dag_failed(run_id="a")
    dag_failed(run_id="b")
    assert len({mail["Message-ID"] for mail in inbox.mails}) == 2
