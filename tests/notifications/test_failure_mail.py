"""The mail of a failed run, as a mail server receives it from real DAG runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from include.notifications import FailureMail

from .conftest import Inbox, connection, free_port, run_dags

RUNS = [
    *("predict_check", "predict_many_checks", "predict_after_publish", "predict_in_publish", "predict_hostile", "predict_secret"),
    *("predict_unreadable", "train_plain", "predict_storm", "predict_retried", "predict_for_good"),
]


@pytest.fixture(scope="module")
def runs(
    airflow_database: None, serve: Callable[[int], Inbox], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Inbox, Mapping[str, Any]]:
    """All DAGs have run; what the mail server got, and how they ended."""
    port = free_port()
    inbox = serve(port)
    environment = {
        "AILERON_LAKE": str(tmp_path_factory.mktemp("lake")),
        "AILERON_ENVIRONMENT": "prod",
        "AILERON_DOCS": "https://git.example.com/aileron/blob/main/",
        "AIRFLOW__API__BASE_URL": "https://airflow.example.com/ui",
        "AIRFLOW_CONN_SMTP_DEFAULT": connection(port),
    }
    return inbox, run_dags(*RUNS, **environment)


@pytest.fixture
def mail_of(runs: tuple[Inbox, Any]) -> Callable[[str], EmailMessage]:
    """The only mail of a DAG."""

    def only(dag_id: str) -> EmailMessage:
        (mail,) = runs[0].of(dag_id)
        return mail

    return only


def text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body is not None
    return str(body.get_content()).replace("\r\n", "\n")


def one_line(mail: EmailMessage) -> str:
    return " ".join(text(mail).split())


def html(mail: EmailMessage) -> str:
    body = mail.get_body(("html",))
    assert body is not None
    return str(body.get_content())


@pytest.mark.parametrize("dag_id", RUNS)
def test_a_failed_run_is_one_mail(runs: tuple[Inbox, Any], dag_id: str) -> None:
    inbox, ended = runs
    assert ended[dag_id]["state"] == "failed"
    assert len(inbox.of(dag_id)) == 1


def test_three_failing_tasks_are_one_mail(runs: tuple[Inbox, Any]) -> None:
    inbox, ended = runs
    assert list(ended["predict_storm"]["tasks"].values()) == ["failed"] * 3
    assert len(inbox.of("predict_storm")) == 1


def test_subject_says_where_what_and_when(mail_of: Callable[[str], EmailMessage]) -> None:
    assert mail_of("predict_check")["Subject"] == (
        "[prod][tier 2] predict_check: feature check failed: tailnum null 7.2 % > 1 %, and 2 more of 14 checks · 2013-04-03"
    )


def test_body_leads_to_the_run_the_log_and_the_runbook(mail_of: Callable[[str], EmailMessage]) -> None:
    mail = mail_of("predict_check")
    assert mail["To"] == "oncall@example.com"
    run = r"https://airflow\.example\.com/ui/dags/predict_check/runs/manual__[0-9A-Za-z._%-]+"
    for link in (
        run,
        run + r"/tasks/build_features\?try_number=1",
        r"https://git\.example\.com/aileron/blob/main/docs/runbooks/\w+\.md",
    ):
        assert re.search(rf"(^|\s){link}$", text(mail), re.MULTILINE), link
        assert re.search(rf'href="{link}"', html(mail)), link
    for fact in (
        "Owner:          flight-operations",
        "Try:            1 of 1",
        "Model version:  12",
        "Partition:      2013-04-03",
    ):
        assert fact in text(mail)


def test_failed_checks_are_a_table(mail_of: Callable[[str], EmailMessage]) -> None:
    mail = mail_of("predict_check")
    assert "  share of nulls  tailnum      0.0724    at most 0.01" in text(mail)
    assert "success" not in text(mail)
    cells = ("share of nulls", "tailnum", "0.0724", "at most 0.01")
    assert re.search("<tr>" + "".join(rf"<td[^>]*>{cell}</td>" for cell in cells) + "</tr>", html(mail))


def test_a_long_table_is_cut(mail_of: Callable[[str], EmailMessage]) -> None:
    mail = mail_of("predict_many_checks")
    assert "rule 9 <b>" in text(mail) and "rule 10" not in text(mail) and "and 2 more, see the log" in text(mail)
    assert "rule 9 &lt;b&gt;" in html(mail) and "<b>" not in html(mail)


@pytest.mark.parametrize(
    ("dag_id", "effect"),
    [
        ("predict_check", "Predictions of 2013-04-03 were not published. Readers keep what was published before."),
        ("predict_after_publish", "Predictions of 2013-04-03 had been published before this failed. Readers see them."),
        ("predict_in_publish", "readers see the predictions of 2013-04-03 as they were before this run, or all of the new ones."),
        ("predict_storm", "This failure does not tell whether the run got past publish: the run shows it."),
        ("train_plain", "No model was promoted. The champion is unchanged."),
    ],
)
def test_effect_is_true_of_where_the_run_broke(mail_of: Callable[[str], EmailMessage], dag_id: str, effect: str) -> None:
    assert effect in one_line(mail_of(dag_id))
    assert effect in " ".join(html(mail_of(dag_id)).split())


def test_tries_are_told(mail_of: Callable[[str], EmailMessage]) -> None:
    assert "Airflow gave up score after try 3 of 3." in one_line(mail_of("predict_retried"))
    assert "failed score at try 1 of 3, without using the tries left" in one_line(mail_of("predict_for_good"))


def test_only_a_foreign_exception_shows_its_class(mail_of: Callable[[str], EmailMessage]) -> None:
    assert "RuntimeError: no room left" in mail_of("predict_retried")["Subject"]
    assert "predict_for_good: the source has no column tailnum" in mail_of("predict_for_good")["Subject"]


def test_a_hostile_message_stays_text(mail_of: Callable[[str], EmailMessage]) -> None:
    mail = mail_of("predict_hostile")
    assert mail["Bcc"] is None and set(mail.keys()) >= {"From", "To", "Subject", "Message-ID"}
    assert mail.keys().count("To") == 1
    assert len(mail["Subject"]) <= 150 and mail["Subject"].endswith("… · 2013-04-03")
    assert "<script" not in html(mail) and "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;" in html(mail)
    for body in (text(mail), html(mail)):
        assert "{{ 7*7 }}" in body and "Müller 東京" in body
        assert not set("\x00\x1b\u202e") & set(body)
        assert len(body) < 20_000 and re.search(r"1000\d{3} characters in all, see the log", body)


def test_half_a_character_does_not_stop_a_mail(inbox: Inbox) -> None:
    FailureMail("flight_delays")({"run_id": "r\ud800", "exception": ValueError("broken \ud800 text")})
    (mail,) = inbox.mails
    assert "ValueError: broken text" in mail["Subject"]


def test_secrets_are_masked(runs: tuple[Inbox, Any], mail_of: Callable[[str], EmailMessage]) -> None:
    mail = mail_of("predict_secret")
    assert "cannot log in with *** at the warehouse" in mail["Subject"]
    assert "kanarienvogel" not in mail["Subject"] + text(mail) + html(mail)


def test_an_alert_that_cannot_be_written_in_full_is_sent_in_short(runs: tuple[Inbox, Any]) -> None:
    (mail,) = runs[0].of("predict_unreadable")
    assert mail["To"] == "oncall@example.com"
    assert "https://airflow.example.com/ui/dags/predict_unreadable/runs/" in text(mail) and "https://airflow" in html(mail)


def test_html_is_self_contained(mail_of: Callable[[str], EmailMessage]) -> None:
    page = html(mail_of("predict_check"))
    assert not re.search(r"<(img|link|script|style|form|iframe|input|button)\b|url\(|src=", page)


def test_a_mail_without_a_model_goes_to_all_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inbox: Inbox) -> None:
    from include.config import MODELS

    described = (MODELS / "flight_delays" / "model.yaml").read_text()
    for name, address in (("first", "one@example.com"), ("second", "two@example.com")):
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        changed = described.replace("name: flight_delays", f"name: {name}").replace("oncall@example.com", address)
        (folder / "model.yaml").write_text(changed)
        for required in ("features.sql", "labels.sql"):
            (folder / required).write_text("SELECT 1")
    monkeypatch.setenv("AILERON_MODELS", str(tmp_path / "models"))
    FailureMail()({"run_id": "r", "reason": "timed_out"})
    (mail,) = inbox.mails
    assert mail["To"] == "one@example.com, two@example.com"


def test_building_it_costs_nothing_and_the_dag_serialises() -> None:
    from timeit import timeit

    from airflow.serialization.serialized_objects import DagSerialization

    from .dags.failing_dags import DAGS

    assert timeit(lambda: FailureMail("flight_delays"), number=1000) < 0.1  # 100 microseconds each
    assert DagSerialization.to_dict(DAGS["predict_check"])["dag"]["has_on_failure_callback"]
