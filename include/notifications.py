"""What on-call people receive: one mail per failed run, with what broke, whom it affects and what to do.

`FailureMail` is set twice, on purpose: as callback of every task, where the exception is known, and as callback of the
DAG, which alone is called when a process was killed. Both write a mail of the same name, so only the first one counts.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from html import escape
from itertools import islice
from pathlib import PurePath
from typing import Any
from urllib.parse import quote

from include import outbox
from include.config import INCLUDE, ModelConfig, load_model, load_models, settings
from include.outbox import send_pending
from include.partitions import NoPartition, partitions_of, training_day_of

__all__ = ["FailureMail", "render_mail", "run_url", "send_pending"]

log = logging.getLogger(__name__)

MAX_SUBJECT = 150
MAX_TEXT = 2000
MAX_ROWS = 10
MAX_COLUMNS = 6
MAX_CELL = 60


@dataclass(frozen=True)
class FailureMail:
    """Callback for `on_failure_callback` of tasks and of DAGs; never raises, and returns within seconds.

    Mails go to the owners of the model; without a model, to the owners of all of them.

    An exception may carry more for the mail: `checks`, rows (mappings or data classes) of what failed, and `facts`, a
    mapping of names to values, such as the model version.
    """

    model: str | None = None

    def __call__(self, context: Mapping[str, Any]) -> None:
        try:
            if _will_be_retried(context):
                return
            mail = self._compose(context)
            try:
                outbox.put(mail)
            except Exception:
                log.exception("The outbox cannot be written; the alert is sent at once, and may come twice.")
                outbox.send([mail])
            else:
                outbox.send_pending()
        except Exception:
            log.exception("No alert could be sent for this failure.")

    def _compose(self, context: Mapping[str, Any]) -> outbox.Mail:
        run = _run(context)
        name, answers = run.incident(run.clear_number), run.incident(0) if run.clear_number else ""
        try:
            models = [load_model(self.model)] if self.model else load_models()
            subject, text, html = _write(context, run, models)
            to = sorted({email for model in models for email in model.owner.emails})
        except Exception as error:
            log.exception("The alert could not be written in full.")
            subject = f"[{settings().environment}] {run.dag_id} failed"
            text = f"{run.dag_id} failed: {run.url}\n\nThe alert could not be written in full ({type(error).__name__}).\n"
            html = f"<p>{escape(text)}</p>"
            to = sorted({email for model in load_models() for email in model.owner.emails})
        return outbox.Mail(name=name, to=to, subject=_one_line(subject, MAX_SUBJECT), text=text, html=html, answers=answers)


@dataclass(frozen=True)
class Run:
    """What identifies a run, in whatever shape Airflow hands it over."""

    dag_id: str
    run_id: str
    clear_number: int | None  # None: Airflow did not say

    def incident(self, clear_number: int | None) -> str:
        """Name of the failure: the same in every process and at every try; a cleared run that fails again is a new one."""
        if clear_number is None:
            # This happens only in a DAG's callback, of which there is one per failure: a time keeps failures apart.
            clear_number = int(time.time())
        identity = "\n".join([settings().environment, self.dag_id, self.run_id, str(clear_number)])
        digest = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
        return f"{re.sub(r'[^A-Za-z0-9_-]', '_', self.dag_id)[:80]}-{digest[:20]}"

    @property
    def url(self) -> str:
        return run_url(self.dag_id, self.run_id)


def run_url(dag_id: str, run_id: str) -> str:
    """Where a run is to be seen in the UI."""
    from airflow.sdk.configuration import conf

    base = conf.get("api", "base_url", fallback=None) or "http://localhost:8080"
    return f"{base.rstrip('/')}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='', errors='replace')}"


def _run(context: Mapping[str, Any]) -> Run:
    run, ti, dag = context.get("dag_run"), context.get("ti"), context.get("dag")
    dag_id = getattr(dag, "dag_id", None) or getattr(ti, "dag_id", None) or "unknown_dag"
    run_id = context.get("run_id") or getattr(ti, "run_id", None) or getattr(run, "run_id", None) or "unknown run"
    return Run(str(dag_id), str(run_id), getattr(run, "clear_number", None))


def _will_be_retried(context: Mapping[str, Any]) -> bool:
    """Airflow's clean-up after lost heartbeats may call a failure callback while the task still has tries.

    Nothing is lost when it had not: such a call knows no exception, and the DAG's own callback comes in any case.
    """
    ti = context.get("ti")
    if "reason" in context or context.get("exception") is not None or ti is None:
        return False
    return ti.try_number <= (getattr(ti, "max_tries", 0) or 0)


def _write(context: Mapping[str, Any], run: Run, models: list[ModelConfig]) -> tuple[str, str, str]:
    """Subject, text and HTML of the mail."""
    ti, dag, exception = context.get("ti"), context.get("dag"), context.get("exception")
    task = getattr(ti, "task_id", None) or ""
    kind = run.dag_id.split("_")[0]
    model = models[0] if len(models) == 1 else None
    partition = _partition(context, kind)
    reason = str(context.get("reason") or "")
    tries = _tries(ti)
    told = _clean(_said(exception)) if exception else _without_exception(reason, task)
    # Our exceptions begin with what a mail says anyway, and a subject is short.
    headline = _one_line(told, 300).removeprefix(f"{model.name} {partition}: " if model else "")
    tier = str(min(m.tier for m in models)) if models else "unknown"
    runbook = _runbook(dag, model)
    facts = {
        "Environment": settings().environment,
        "Owner": ", ".join(sorted({m.owner.team for m in models})),
        "Tier": tier,
        "Partition": partition,
        "Run id": _clean(run.run_id),
        "Task": task,
        "Try": tries,
        "Cleared before": f"{run.clear_number} ×" if run.clear_number else "",
        "Code revision": settings().revision,
        **_facts(getattr(exception, "facts", None)),
    }
    view = {
        "title": model.title if model else run.dag_id,
        "dag_id": run.dag_id,
        "partition": partition,
        "task": task,
        "headline": headline,
        "details": "" if told.strip().endswith(headline) else told,
        "effect": _effect(kind, task, dag, partition),
        "done": _done(reason, exception, task, tries),
        "todo": _todo(reason, exception, task),
        "runbook": runbook,
        "runbook_url": f"{os.environ['AILERON_DOCS'].rstrip('/')}/{runbook}" if os.environ.get("AILERON_DOCS") else "",
        "checks": _table(getattr(exception, "checks", None)),
        "run_url": run.url,
        "log_url": _log_url(run, ti),
        "facts": {name: value for name, value in facts.items() if value},
    }
    start = f"[{settings().environment}][tier {tier}] {run.dag_id}: "
    end = f" · {partition}" if partition else ""
    subject = start + _one_line(headline, max(20, MAX_SUBJECT - len(start) - len(end))) + end
    return subject, render_mail("failure_mail.txt", view), render_mail("failure_mail.html", view)


def _log_url(run: Run, ti: Any) -> str:
    if ti is None:
        return ""
    mapped = getattr(ti, "map_index", None)
    which = f"/mapped/{mapped}" if mapped is not None and mapped >= 0 else ""
    return f"{run.url}/tasks/{quote(ti.task_id, safe='')}{which}?try_number={ti.try_number}"


def _partition(context: Mapping[str, Any], kind: str) -> str:
    """The day, or the range of days, that the run is about; empty if it is about none."""
    run, params = context.get("dag_run"), context.get("params") or {}
    if run is None:
        return ""
    try:
        if kind == "train":
            return str(training_day_of(run, params))
        days = partitions_of(run, params)
    except NoPartition:
        return ""
    return str(days[0]) if len(days) == 1 else f"{days[0]} to {days[-1]}"


def _tries(ti: Any) -> str:
    """ "2 of 3"; only "2" where Airflow does not say how many there were to be."""
    if ti is None or not getattr(ti, "try_number", None):
        return ""
    most = max(getattr(ti, "max_tries", 0) or 0, getattr(getattr(ti, "task", None), "retries", 0) or 0) + 1
    return f"{ti.try_number} of {most}" if ti.try_number <= most else str(ti.try_number)


def _without_exception(reason: str, task: str) -> str:
    where = f" in {task}" if task else ""
    if reason == "timed_out":
        return f"the run took longer than it may{', it was' + where if task else ''}"
    if reason == "all_tasks_deadlocked":
        return f"the run cannot go on: a task waits for what will never come{where}"
    return f"{task or 'a task'} ended without saying why: most likely its process was killed, usually because memory ran out"


def _effect(kind: str, task: str, dag: Any, partition: str) -> str:
    """What readers of predictions, and the next runs, see of this failure. Says only what the DAG's order implies."""
    of = f" of {partition}" if partition else ""
    before, at, after = {
        "predict": (
            f"Predictions{of} were not published. Readers keep what was published before.",
            f"A partition is published whole or not at all: readers see the predictions{of} as they were before this run, "
            "or all of the new ones.",
            f"Predictions{of} had been published before this failed. Readers see them.",
        ),
        "train": (
            "No model was promoted. The champion is unchanged.",
            "It is not certain whether the champion was changed: `python -m include.cli champion` says who it is.",
            "What was decided about the champion had been carried out before this failed.",
        ),
        "rollback": (
            "The champion is unchanged.",
            "It is not certain whether the champion was changed: `python -m include.cli champion` says who it is.",
            "The champion had been changed before this failed. Not all that was to be predicted again may have been started.",
        ),
        "monitor": (f"Published predictions are not touched. For {partition or 'this run'} drift was not judged.",) * 3,
        "label": ("Published predictions are not touched. Labels that were asked for have not been judged.",) * 3,
        "arrivals": ("Data that has landed may stay unpublished until a run of this DAG succeeds.",) * 3,
    }.get(kind, ("Not known here; the runbook says what depends on this DAG.",) * 3)
    if before == after:
        return before
    turn = {"predict": "publish", "train": "promote", "rollback": "roll_back"}[kind]
    if task.rsplit(".", 1)[-1] == turn:
        return at
    try:
        node = dag.get_task(task)
        upstream, downstream = (node.get_flat_relative_ids(upstream=up) for up in (True, False))
    except Exception:
        upstream = downstream = set()
    if any(name.rsplit(".", 1)[-1] == turn for name in upstream):
        return after
    if any(name.rsplit(".", 1)[-1] == turn for name in downstream):
        return before
    return f"This failure does not tell whether the run got past {turn}: the run shows it."


def _done(reason: str, exception: Any, task: str, tries: str) -> str:
    if exception is not None:
        used, _, most = tries.partition(" of ")
        if most and int(used) < int(most):
            return f"Airflow failed {task} at try {tries}, without using the tries left: another try cannot mend this error."
        return f"Airflow gave up {task} after try {tries}." if tries else f"Airflow gave up {task}."
    if reason == "timed_out":
        return "Airflow stopped the run at its time limit."
    if reason == "all_tasks_deadlocked":
        return "Airflow failed the run."
    at = f" at try {tries}" if tries else ""
    return f"Airflow noticed{at} that the process was gone, and failed the run."


def _todo(reason: str, exception: Any, task: str) -> str:
    again = f"then clear {task or 'the failed task'} in Airflow: the run goes on from there."
    if exception is not None:
        return f"Read the message above and the log, mend the cause, {again}"
    if reason == "timed_out":
        return f"See in the run what took so long, mend the cause, {again}"
    if reason == "all_tasks_deadlocked":
        return f"See in the run which task cannot start and why, mend the cause, {again}"
    return (
        "Look at the end of the log, and at the memory of the worker at that time. If it ran out, give the worker more or run "
        f"less at once, {again} If there is no log, the task never started: look at the scheduler and the API server. If "
        "somebody marked it as failed, there is nothing to mend."
    )


def _runbook(dag: Any, model: ModelConfig | None) -> str:
    """The one that the DAG's own documentation names; else the model's, else that of the DAG file."""
    named = re.search(r"docs/runbooks/[a-z0-9_]+\.md", str(getattr(dag, "doc_md", None) or ""))
    if named:
        return named.group()
    return model.runbook if model else f"docs/runbooks/{PurePath(getattr(dag, 'fileloc', None) or 'README').stem}.md"


def _table(checks: Any) -> dict[str, Any] | None:
    """Column names and the first rows of what an exception carries; None if that is no table."""
    if not isinstance(checks, Iterable) or isinstance(checks, (str, bytes, Mapping)):
        return None
    checks = list(checks)
    rows = [asdict(c) if is_dataclass(c) and not isinstance(c, type) else c for c in islice(checks, MAX_ROWS)]
    rows = [row for row in rows if isinstance(row, Mapping)]
    # That a failed check has failed need not be said in a column.
    columns = list(dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, bool)))[
        :MAX_COLUMNS
    ]
    if not columns:
        return None
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    return {"columns": [_cell(column) for column in columns], "rows": cells, "more": len(checks) - len(rows)}


def _facts(facts: Any) -> dict[str, str]:
    if not isinstance(facts, Mapping):
        return {}
    return {_cell(name): _one_line(_clean(str(value)), 200) for name, value in islice(facts.items(), MAX_ROWS)}


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return _one_line(_clean(f"{value:.4g}" if isinstance(value, float) else str(value)), MAX_CELL)


def _said(exception: Any) -> str:
    """What an exception says. Ours and Airflow's speak for themselves; of others the class is half of the message."""
    if isinstance(exception, str):
        return exception
    kind = type(exception)
    text = str(exception).strip()
    if text and kind.__module__.split(".")[0] in ("include", "airflow"):
        return text
    return f"{kind.__name__}: {text}" if text else kind.__name__


def _clean(text: str) -> str:
    """Without secrets that Airflow knows, without characters that are no text, of bounded length."""
    from airflow.sdk.log import redact

    masked = str(redact(text[: 50 * MAX_TEXT]))
    cut = masked if len(masked) <= MAX_TEXT else f"{masked[:MAX_TEXT]} … ({len(text)} characters in all, see the log)"
    return "".join(char if char.isprintable() or char in "\n\t" else " " for char in cut)


def _one_line(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def render_mail(template: str, view: Mapping[str, Any]) -> str:
    """A mail from a template of include/templates; what stands in `view` is escaped where the template is HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=FileSystemLoader(INCLUDE / "templates"),
        autoescape=select_autoescape(["html"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(view)
