"""Who asks for a training, and whether it is admitted.

A request is a record with a reason and evidence. A run of train_<model> takes all that are open, whoever it was started
by, and decides once for all of them: cooldown, runs and cost of the month. Every answer is a record that says why.

A request that comes while many others do starts no run of its own: the id of the run it asks for is the number of the next
admission, so all that ask before that one share it. A run first claims its number and then looks for requests: whoever
still saw the old number had written his request by then.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any, Literal

from include import ledger
from include.config import Governor, ModelConfig

REQUEST, CLAIM, ADMISSION, COST = "training_request", "training_claim", "training_admission", "training_cost"

RequestReason = Literal["quality_decay", "drift", "new_labels", "data_quality", "champion_changed"]
RunReason = Literal["schedule", "request", "by hand", "backfill"]

# What looks at the present. A backfill, a range and a rollback look at the past, and the past asks for nothing.
ORIGINS_THAT_MAY_ASK = ("scheduled", "arrival", "manual")


@dataclass(frozen=True)
class Run:
    """A run of train_<model> as its first task sees it; `at` is when Airflow was to start it (UTC), not when it did."""

    run_id: str
    workspace: str
    at: datetime
    reason: RunReason


@dataclass(frozen=True)
class Admission:
    """`why` is a sentence; `requests` are the bodies of those that were merged into the run, oldest first."""

    number: int
    admitted: bool
    why: str
    requests: tuple[Mapping[str, Any], ...]

    @property
    def decay_confirmed(self) -> bool:
        """Has it been shown on matured labels that the champion got worse? Then a gate asks for less."""
        return any(request["reason"] == "quality_decay" for request in self.requests)

    @property
    def as_of(self) -> date | None:
        """The latest day that a request is about."""
        return max((date.fromisoformat(request["as_of"]) for request in self.requests), default=None)


def request_training(
    model: ModelConfig, reason: RequestReason, as_of: date, origin: str, evidence: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Ask for a training as of a day; the run to start for it, as arguments of TriggerDagRunOperator, or none.

    The same question is one request, however often it is asked. One born in a backfill is answered with no at once.
    """
    digest = hashlib.sha256(json.dumps(evidence, sort_keys=True, default=str).encode()).hexdigest()[:12]
    key = f"{as_of}.{reason}.{digest}"
    body = {"key": key, "reason": reason, "as_of": as_of.isoformat(), "origin": origin, "evidence": dict(evidence)}
    ledger.append(REQUEST, model.name, key, body)
    if origin not in ORIGINS_THAT_MAY_ASK:
        why = f"refused: it comes from a {origin} run, which looks at the past; who may ask: {', '.join(ORIGINS_THAT_MAY_ASK)}"
        answer = {"admitted": False, "why": why, "requests": [key], "number": None}
        ledger.append(ADMISSION, model.name, f"request.{key}", answer)
    return run_for_open_requests(model.name)


def run_for_open_requests(model: str) -> list[dict[str, Any]]:
    """The run that is to answer the open requests, if there are any. Asking twice is asking once."""
    if not open_requests(model):
        return []
    return [{"trigger_run_id": f"retraining__{len(ledger.read(CLAIM, model)) + 1:06d}", "conf": {"origin": "retraining"}}]


def open_requests(model: str) -> list[Mapping[str, Any]]:
    """Requests that no admission has answered, oldest first."""
    answered = {key for record in ledger.read(ADMISSION, model) for key in record.body["requests"]}
    return [record.body for record in ledger.read(REQUEST, model) if record.body["key"] not in answered]


def admit(model: ModelConfig, run: Run, as_of: date | None) -> Admission:
    """Decide whether a run may train, and record it. A retry of the run gets the same answer.

    Args:
        as_of: the day the run was told to learn as of; None for one that takes it from its requests.
    """
    number = _claim(model.name, run)
    key = f"{number:06d}"
    given = ledger.find(ADMISSION, model.name, key)
    if given is None:
        # A backfill is refused for what it is: that is no answer to the requests of others.
        requests = [] if run.reason == "backfill" else open_requests(model.name)
        costs = {r.body["workspace"]: r.body["cost"] for r in ledger.read(COST, model.name)}
        answers = [r.body for r in ledger.read(ADMISSION, model.name)]
        past = [{**a, "cost": costs.get(a["workspace"], a["estimated_cost"])} for a in answers if a["admitted"]]
        hours = _hours(model)
        refused = refusal(model.training.governor, run, [request["reason"] for request in requests], past, hours)
        body = {
            "number": number,
            "admitted": refused is None,
            "why": refused or _why_admitted(run, requests),
            "requests": [request["key"] for request in requests],
            "reason": run.reason,
            "as_of": as_of.isoformat() if as_of else None,
            "run_id": run.run_id,
            "workspace": run.workspace,
            "at": run.at.isoformat(),
            "estimated_hours": hours,
            "estimated_cost": hours * model.training.governor.cost_per_hour,
        }
        ledger.append(ADMISSION, model.name, key, body)
        given = ledger.find(ADMISSION, model.name, key)
        assert given is not None
    bodies = {record.body["key"]: record.body for record in ledger.read(REQUEST, model.name)}
    answer = given.body
    return Admission(number, answer["admitted"], answer["why"], tuple(bodies[key] for key in answer["requests"]))


def refusal(governor: Governor, run: Run, requests: list[str], admitted: list[dict[str, Any]], hours: float) -> str | None:
    """Why a run may not train; None if it may. `admitted` are the admissions before it, with what each cost,
    or is thought to cost as long as it has not ended; `hours` is what this run is thought to take."""
    if run.reason == "backfill":
        return "refused: a backfill never trains; to train as of a past day, start a run by hand with that day"
    if run.reason == "request" and not requests:
        return "refused: no request is open; another run has taken those it was started for"
    month = [a for a in admitted if a["at"][:7] == run.at.isoformat()[:7]]
    if len(month) >= governor.runs_per_month:
        return (
            f"refused: {len(month)} runs were admitted in {run.at:%B %Y}, training.governor.runs_per_month is "
            f"{governor.runs_per_month}; wait for the next month, or raise it"
        )
    if governor.cost_per_month is not None:
        spent = sum(a["cost"] for a in month)
        estimate = hours * governor.cost_per_hour
        if not spent + estimate <= governor.cost_per_month:
            return (
                f"refused: {spent:.2f} of {governor.cost_per_month:.2f} are spent in {run.at:%B %Y} and this run is estimated at "
                f"{estimate:.2f}; wait for the next month, or raise training.governor.cost_per_month"
            )
    # A comparison that was lost costs little, as its model is there already; and a person who asks has a reason.
    if run.reason == "by hand" or "champion_changed" in requests:
        return None
    last = max((datetime.fromisoformat(a["at"]) for a in admitted), default=None)
    if last is not None and run.at - last < timedelta(hours=governor.cooldown_hours):
        return (
            f"refused: the last run was admitted at {last:%Y-%m-%d %H:%M}, training.governor.cooldown_hours is "
            f"{governor.cooldown_hours:g}; if it is urgent, start one by hand"
        )
    return None


def record_cost(model: ModelConfig, run_id: str, workspace: str, seconds: float) -> None:
    """What a run has taken, for the estimates and the budget of those after it."""
    cost = seconds / 3600 * model.training.governor.cost_per_hour
    ledger.append(COST, model.name, workspace, {"run_id": run_id, "workspace": workspace, "seconds": seconds, "cost": cost})


def _hours(model: ModelConfig) -> float:
    """What a run is thought to take: the median of the last five, or what the model.yaml expects of the first."""
    seconds = [record.body["seconds"] for record in ledger.read(COST, model.name)][-5:]
    return median(seconds) / 3600 if seconds else model.training.governor.expected_hours


def _claim(model: str, run: Run) -> int:
    claims = ledger.read(CLAIM, model)
    own = next((r.body["number"] for r in claims if r.body["workspace"] == run.workspace), None)
    number = own or len(claims) + 1
    while own is None:
        body = {"number": number, "run_id": run.run_id, "workspace": run.workspace}
        if ledger.append(CLAIM, model, f"{number:06d}", body):
            break
        number += 1
    return number


def _why_admitted(run: Run, requests: list[Mapping[str, Any]]) -> str:
    asked = {"schedule": "the schedule", "request": "a request", "by hand": "a person"}[run.reason]
    reasons = ", ".join(sorted({str(request["reason"]) for request in requests}))
    return f"admitted: asked for by {asked}" + (
        f"; answers {len(requests)} open request{'s' if len(requests) > 1 else ''}: {reasons}" if requests else ""
    )
