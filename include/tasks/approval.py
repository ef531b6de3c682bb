"""A person says yes or no, in Airflow's own form; no answer is a no."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import Param
from airflow.sdk.definitions.xcom_arg import XComArg
from airflow.sdk.exceptions import AirflowSkipException

from include import ledger, notices
from include.config import ModelConfig, load_model
from include.core.audit import Shadow, ShadowLimits, shadow_problems
from include.model_task import Read
from include.notifications import run_url
from include.registry import registry

APPROVE, REJECT = "Approve", "Reject"


class UnfitVersion(ValueError):
    """A version passed its gate, and still does not do on the newest data what a champion must. `facts` are for the mail."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts


class Approval(HITLOperator):
    """Asks where the model.yaml wants a person to be asked, and records the answer; everything else passes at once.

    A no, and a question that nobody answered in time, end the run here: what follows is skipped, the champion stays.
    """

    def __init__(self, *, model: ModelConfig, facts: Mapping[str, XComArg], **arguments: Any) -> None:
        super().__init__(
            task_id="approve",
            subject=f"Is the new version of {model.name} to become champion?",
            options=[APPROVE, REJECT],
            defaults=REJECT,
            response_timeout=timedelta(hours=model.approval.wait_hours),
            params={"why": Param(None, type=["null", "string"], maxLength=500, title="Why", description="Kept with the answer")},
            doc_md="Waits for a person, without holding a worker, where `approval` of the model.yaml says so. No answer is a no.",
            **arguments,
        )
        self.model_name = model.name
        self.facts = {name: Read(fact) for name, fact in facts.items()}

    def execute(self, context: Any) -> Any:
        model, facts = load_model(self.model_name), self._read(context)
        _require_fit(model, facts)
        if not _is_needed(model, facts["champion"]):
            return {"needed": False, "approved": True}
        given = _given(model, facts)
        if given:
            return given
        self.subject, self.body = _question(model, facts)
        _mail(model, self, context, facts)
        return super().execute(context)

    def execute_complete(self, context: Any, event: dict[str, Any]) -> Any:
        answer = super().execute_complete(context, event)
        model, facts = load_model(self.model_name), self._read(context)
        approved, late = answer["chosen_options"] == [APPROVE], bool(event.get("timedout"))
        user = answer["responded_by_user"] or {}
        body = {
            "needed": True,
            "approved": approved and not late,
            "version": facts["version"]["version"],
            "by": user.get("name") or user.get("id"),
            "answered_at": answer["responded_at"].isoformat() if answer["responded_at"] else None,
            "timed_out": late,
            "why": answer["params_input"].get("why") or "",
            "dag_id": facts["run"]["dag_id"],
            "run_id": facts["run"]["run_id"],
        }
        asked = len(ledger.read("approval", model.name, prefix=_key(facts)))
        ledger.append("approval", model.name, f"{_key(facts)}.{asked + 1}", body)
        if not body["approved"]:
            said = (
                f"nobody answered within {model.approval.wait_hours:g} hours" if late else f"{body['by']} said no: {body['why']}"
            )
            registry().record_approval(model.name, body["version"], False, said)
            raise AirflowSkipException(f"version {body['version']} of {model.name} is not promoted: {said}")
        return body

    def _read(self, context: Any) -> dict[str, Any]:
        return {name: fact.resolve(context) for name, fact in self.facts.items()}


def approve(model: ModelConfig, **facts: XComArg) -> XComArg:
    """The task that asks; `facts` are what it asks with: run, champion, verdict, version and shadow."""
    return Approval(model=model, facts=facts).output


def _require_fit(model: ModelConfig, facts: dict[str, Any]) -> None:
    limits = ShadowLimits(model.prediction.max_unseen_share, model.prediction.max_score_shift, model.gate.max_decision_churn)
    shadow, version, champion = Shadow(**facts["shadow"]), facts["version"]["version"], facts["champion"]["version"]
    if found := shadow_problems(shadow, limits):
        raise UnfitVersion(
            f"{model.name}: version {version} is not promoted: on partition {shadow.partition} {'; '.join(found)}",
            {"Version": version, "Champion": champion["version"] if champion else "none"},
        )


def _is_needed(model: ModelConfig, champion: dict[str, Any]) -> bool:
    return model.approval.when == "always" or (model.approval.when == "first" and champion["version"] is None)


def _given(model: ModelConfig, facts: dict[str, Any]) -> dict[str, Any] | None:
    """The yes of an attempt before. A no is not final: whoever clears this task asks again."""
    answers = [record.body for record in ledger.read("approval", model.name, prefix=_key(facts))]
    return answers[-1] if answers and answers[-1]["approved"] else None


def _key(facts: dict[str, Any]) -> str:
    return f"{facts['run']['as_of']}.{facts['run']['workspace']}.v{facts['version']['version']}"


def _question(model: ModelConfig, facts: dict[str, Any]) -> tuple[str, str]:
    """Subject and body (Markdown) with the numbers that the answer depends on."""
    verdict, champion, shadow = facts["verdict"], facts["champion"]["version"], facts["shadow"]
    version = facts["version"]["version"]
    was = verdict["champion_metrics"]
    rows = [
        f"| {name} | {value:.4f} | {was[name]:.4f} |" if was.get(name) is not None else f"| {name} | {value:.4f} | – |"
        for name, value in sorted(verdict["metrics"].items())
        if value is not None
    ]
    lines = [
        f"**{model.title}**: the gate says **{verdict['outcome']}** ({verdict['rule']}), as of {facts['run']['as_of']}, "
        f"started by: {facts['run']['reason']}.",
        "",
        f"| on the same rows | version {version} | champion {champion['version'] if champion else '(none)'} |",
        "|---|---|---|",
        *rows,
        "",
        *(f"* {reason}" for reason in verdict["reasons"]),
        f"* On the newest partition, {shadow['partition']}, it scored {shadow['rows_scored']} of {shadow['rows']} rows"
        + (f" and decided {shadow['churn']:.1%} of them differently." if shadow["churn"] is not None else "."),
        "",
        f"Report: {verdict['page']}",
        "",
        f"Without an answer within {model.approval.wait_hours:g} hours the champion stays.",
    ]
    return f"{model.title}: is version {version} to become champion?", "\n".join(lines)


def _mail(model: ModelConfig, operator: Approval, context: Any, facts: dict[str, Any]) -> None:
    version, verdict = facts["version"]["version"], facts["verdict"]
    notices.send(
        model,
        name=f"approval-{model.name}-{facts['run']['workspace']}-v{version}",
        to=model.approval.emails or model.owner.emails,
        subject=f"{model.name}: is version {version} to become champion?",
        paragraphs=[
            f"The gate says {verdict['outcome']}: {' '.join(verdict['reasons'])}",
            f"Your answer is awaited for {model.approval.wait_hours:g} hours; without one the champion stays.",
            f"Report: {verdict['page']}",
        ],
        dag_run=context["dag_run"],
        link=("Answer", f"{run_url(facts['run']['dag_id'], facts['run']['run_id'])}/tasks/{operator.task_id}/required_actions"),
    )
