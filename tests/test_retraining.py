"""Requests for training, and the governor that answers them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from include import ledger, retraining
from include.config import Governor, ModelConfig, load_model
from include.retraining import Run, RunReason

DAY = date(2013, 5, 1)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def model() -> ModelConfig:
    return governed()


def governed(**governor: Any) -> ModelConfig:
    """The demo's model under another governor."""
    model = load_model("flight_delays")
    training = model.training.model_copy(update={"governor": Governor(**governor)})
    return model.model_copy(update={"training": training})


def run(number: int, reason: RunReason = "schedule", hours: float = 0) -> Run:
    return Run(f"run_{number}", f"{number:016x}", NOW + timedelta(hours=hours), reason)


def ask(model: ModelConfig, reason: retraining.RequestReason = "drift", origin: str = "scheduled", **evidence: Any) -> list[Any]:
    return retraining.request_training(model, reason, DAY, origin, evidence)


def admissions(model: ModelConfig) -> list[dict[str, Any]]:
    return [record.body for record in ledger.read(retraining.ADMISSION, model.name)]


def test_fifty_requests_at_once_are_one_run(lake: Path, model: ModelConfig) -> None:
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(lambda n: ask(model, distance=n), range(50)))
    assert {one["trigger_run_id"] for runs in asked for one in runs} == {"retraining__000001"}
    admission = retraining.admit(model, run(1, "request"), None)
    assert admission.admitted and len(admission.requests) == 50 and admission.as_of == DAY
    assert retraining.open_requests(model.name) == [] and retraining.run_for_open_requests(model.name) == []
    (record,) = admissions(model)
    assert record["why"] == "admitted: asked for by a request; answers 50 open requests: drift"


def test_the_same_question_is_one_request(lake: Path, model: ModelConfig) -> None:
    assert ask(model, distance=1) == ask(model, distance=1)
    assert len(retraining.open_requests(model.name)) == 1


def test_a_request_that_comes_while_a_run_is_admitted_is_in_it_or_starts_the_next(
    lake: Path, model: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claim and the look: the request is merged, and the run that it started then has nothing to do."""
    ask(model, distance=1)
    real, late = retraining.open_requests, []

    def slow(name: str) -> Any:
        if not late:
            late.append(None)
            late.append(ask(model, distance=2))
        return real(name)

    monkeypatch.setattr(retraining, "open_requests", slow)
    first = retraining.admit(model, run(1, "request"), None)
    assert first.admitted and len(first.requests) == 2
    assert late[1] == [{"trigger_run_id": "retraining__000002", "conf": {"origin": "retraining"}}]
    second = retraining.admit(model, run(2, "request", hours=48), None)
    assert not second.admitted and "no request is open" in second.why


def test_a_retry_gets_the_answer_that_was_given(lake: Path, model: ModelConfig) -> None:
    ask(model)
    first = retraining.admit(model, run(1, "request"), None)
    ask(model, "quality_decay")
    assert retraining.admit(model, run(1, "request"), None) == first
    assert len(admissions(model)) == 1 and not first.decay_confirmed
    assert retraining.admit(model, run(2, "by hand"), DAY).decay_confirmed


@pytest.mark.parametrize("origin", ["backfill", "range", "rollback", "retraining", "somewhere"])
def test_a_request_of_a_run_that_looks_at_the_past_is_refused_and_the_refusal_recorded(
    lake: Path, model: ModelConfig, origin: str
) -> None:
    assert ask(model, origin=origin) == []
    (record,) = admissions(model)
    assert record["admitted"] is False and origin in record["why"] and "looks at the past" in record["why"]
    assert retraining.open_requests(model.name) == []


def test_a_backfill_of_the_training_dag_trains_nothing(lake: Path, model: ModelConfig) -> None:
    ask(model)
    admission = retraining.admit(model, run(1, "backfill"), None)
    assert not admission.admitted and "a backfill never trains" in admission.why
    assert len(retraining.open_requests(model.name)) == 1, "and answers nobody else's request"


def test_the_cooldown_holds_for_everybody_but_a_person(lake: Path) -> None:
    model = governed(cooldown_hours=20)
    assert retraining.admit(model, run(1), DAY).admitted
    ask(model, "quality_decay")
    refused = retraining.admit(model, run(2, "request", hours=19), None)
    assert not refused.admitted and "cooldown_hours is 20" in refused.why
    assert retraining.open_requests(model.name) == [], "what was refused is answered"
    assert retraining.admit(model, run(3, "by hand", hours=19), DAY).admitted
    assert not retraining.admit(model, run(4, hours=38), DAY).admitted, "counted from the last that was admitted"
    assert retraining.admit(model, run(5, hours=39), DAY).admitted


def test_a_lost_comparison_is_made_again_in_spite_of_the_cooldown(lake: Path, model: ModelConfig) -> None:
    assert retraining.admit(model, run(1), DAY).admitted
    ask(model, "champion_changed")
    assert retraining.admit(model, run(2, "request", hours=1), None).admitted


def test_the_month_has_its_number_of_runs_also_by_hand(lake: Path) -> None:
    model = governed(cooldown_hours=0, runs_per_month=2)
    assert [retraining.admit(model, run(n, "by hand"), DAY).admitted for n in (1, 2)] == [True, True]
    third = retraining.admit(model, run(3, "by hand"), DAY)
    assert not third.admitted and "2 runs were admitted in March 2026" in third.why and "runs_per_month" in third.why
    assert retraining.admit(model, run(4, hours=24 * 25), DAY).admitted, "April"


def test_the_budget_counts_what_was_spent_and_what_is_thought_to_be(lake: Path) -> None:
    model = governed(cooldown_hours=0, cost_per_month=10, cost_per_hour=4, expected_hours=1)
    assert retraining.admit(model, run(1), DAY).admitted  # thought to cost 4
    assert retraining.admit(model, run(2), DAY).admitted  # 8
    third = retraining.admit(model, run(3), DAY)
    assert not third.admitted and "8.00 of 10.00 are spent" in third.why and "estimated at 4.00" in third.why
    for number in (1, 2):  # both have cost 1
        retraining.record_cost(model, f"run_{number}", f"{number:016x}", 900)
    fourth = retraining.admit(model, run(4), DAY)
    assert fourth.admitted
    assert admissions(model)[-1]["estimated_hours"] == 0.25


def test_every_answer_is_a_record_that_says_why(lake: Path, model: ModelConfig) -> None:
    ask(model, "new_labels", origin="arrival")
    ask(model, "drift", origin="backfill")
    retraining.admit(model, run(1), DAY)
    retraining.admit(model, run(2, hours=1), DAY)
    answers = {record["why"].split(":")[0]: record for record in admissions(model)}
    assert len(admissions(model)) == 3 and set(answers) == {"admitted", "refused"}
    assert "asked for by the schedule; answers 1 open request: new_labels" in answers["admitted"]["why"]
