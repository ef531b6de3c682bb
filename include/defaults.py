"""Policy, written once: owners, retries, timeouts, tags, forms and mails of every DAG."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

from airflow.sdk import CronPartitionTimetable, ExceptionRetryPolicy, Param, RetryAction, RetryRule, get_parsing_context
from airflow.sdk.definitions.param import ParamsDict

from include import partitions
from include.config import ModelConfig, settings, stamped_revision
from include.notifications import FailureMail

# A ValueError says that what was given is wrong: the same try would fail the same way, so people hear of it at once.
RETRY_POLICY = ExceptionRetryPolicy(
    rules=[RetryRule(exception=ValueError, action=RetryAction.FAIL, reason="the input is wrong; a retry would read the same")]
)

# Midnight: the partition date of a run, of a backfill and of a run by hand is then the same instant.
DAILY = CronPartitionTimetable("0 0 * * *", timezone="UTC", run_offset=-1, key_format=partitions.KEY_FORMAT)


def wanted(dag_id: str) -> bool:
    """Does whoever parses this file need this DAG? A worker asks for one of them and is spared the others."""
    return get_parsing_context().dag_id in (None, dag_id)


def dag_arguments(model: ModelConfig, kind: str, doc: str, **arguments: Any) -> dict[str, Any]:
    """What every DAG of a model has; `doc` is the docstring of its file."""
    mail = FailureMail(model.name)
    return {
        "dag_id": f"{kind}_{model.name}",
        "dag_display_name": f"{model.title}: {kind}",
        "description": model.description,
        "doc_md": _doc(model, kind, doc),
        "tags": [
            f"model:{model.name}",
            f"pipeline:{kind}",
            f"platform:{model.platform or settings().platform}",
            f"tier:{model.tier}",
            # Of a bundle only: a deployment waits for it, and a version of a DAG tells which code it was.
            *([f"revision:{revision}"] if (revision := stamped_revision()) else []),
        ],
        "owner_links": {model.owner.team: f"mailto:{model.owner.emails[0]}"},
        "start_date": datetime.combine(model.start, time.min, UTC),
        # No end_date, also for a feed that has ended: Airflow gives a run after it no tasks, and calls that a success.
        "catchup": False,
        "default_args": {
            "owner": model.owner.team,
            "retries": 2,
            "retry_delay": timedelta(seconds=30),
            "retry_exponential_backoff": 2.0,
            "max_retry_delay": timedelta(minutes=10),
            "retry_policy": RETRY_POLICY,
            "execution_timeout": timedelta(hours=2),
            "on_failure_callback": mail,
        },
        # A task that is killed on its last try calls nothing back; the DAG does. One mail comes of both.
        "on_failure_callback": mail,
        **arguments,
    }


def prediction_form() -> ParamsDict:
    """What a person may choose. Thresholds, tables and names are not choices: they are in the model.yaml, under review."""
    return ParamsDict({
        "partition": _day("Partition", "The day to predict, e.g. 2013-04-01"),
        "last_partition": _day("Last partition", "For a range: one run is started for each day up to this"),
        "model_version": Param(
            "champion",
            title="Model version",
            enum=["champion", "champion as of the partition"],
            description="Today's champion, or the one that a run of that day would have used",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Score and audit, but publish nothing"),
    })


def training_form() -> ParamsDict:
    return ParamsDict({
        "as_of": _day(
            "As of",
            "The day to learn as of; nothing that became known later is used. Cron runs take their own day",
        )
    })


def monitoring_form() -> ParamsDict:
    return ParamsDict({"partition": _day("Partition", "The published day to judge again, e.g. 2013-04-01")})


def labelling_form() -> ParamsDict:
    return ParamsDict({
        "request": Param(
            None,
            type=["null", "string"],
            pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}[.]v[0-9]{5}$",
            title="Request",
            description="The key of a label request in the ledger, e.g. 2013-04-01.v00001",
        )
    })


def rollback_form() -> ParamsDict:
    return ParamsDict({
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=999_999_999,
            title="Version",
            description="Which former champion; empty for the one before today's that was not rolled back",
        ),
        "withdraw": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            maximum=999_999_999,
            title="Withdraw",
            description="The version that is to go: if another is champion by then, nothing happens; empty for whichever it is",
        ),
        "why": Param(type="string", minLength=3, maxLength=500, title="Why", description="What is wrong with today's champion"),
        "predict_again": Param(
            True,
            type="boolean",
            title="Predict again",
            description="What the withdrawn version has published, with the restored one",
        ),
        "first_partition": _day("First partition", "Predict again from this day; empty for the first that is affected"),
        "last_partition": _day("Last partition", "Predict again up to this day; empty for the last that is affected"),
    })


def _day(title: str, description: str) -> Param:
    return Param(None, type=["null", "string"], format="date", title=title, description=description)


def _doc(model: ModelConfig, kind: str, doc: str) -> str:
    facts = (
        f"**Model:** {model.title}. {model.description}\n\n"
        f"**Owner:** {model.owner.team} ({', '.join(model.owner.emails)}) · **Tier:** {model.tier}\n\n"
    )
    return f"{doc.strip()}\n\n{facts}"
