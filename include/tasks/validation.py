"""Running a model's expectation suites inside a run."""

from __future__ import annotations

import logging
from statistics import median
from typing import Any

from airflow.sdk import get_current_context

from include import partitions
from include.config import ModelConfig
from include.model_task import model_task
from include.platforms import platform_for
from include.tasks import history
from include.validation import Report, Stage, run_suite, stage_columns, suite_file

log = logging.getLogger(__name__)

VOLUME_BAND = (0.5, 2.0)  # of the median of the partitions before
UNLIMITED = 10**12


class ValidationFailed(ValueError):
    """A blocking expectation does not hold. `checks` and `facts` are for the mail."""

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.checks = report.failed
        self.facts = {"Report": report.page}


@model_task
def validate_source(model: ModelConfig, run: dict[str, Any]) -> dict[str, Any]:
    """Is the partition that landed what the contract says, and all of it?"""
    history.record_attempt(model, run, platform_for(model).fingerprint(model, partitions.parse(run["partition"])))
    return validate(model, "source", run, volume(model, run))


@model_task
def validate_features(model: ModelConfig, run: dict[str, Any], features: dict[str, Any]) -> dict[str, Any]:
    """Are the features what the model was made for?"""
    return validate(model, "features", run, {})


def validate(model: ModelConfig, stage: Stage, run: dict[str, Any], parameters: dict[str, float]) -> dict[str, Any]:
    """Run the suite of a stage; small facts about it for the UI.

    Raises:
        ValidationFailed: if a blocking check fails; readers keep what they have, the page says what was found.
    """
    report = check_stage(model, stage, run, parameters)
    if not report.success:
        if stage != "training":
            history.record_failed_checks(model.name, run, stage, [check.sentence for check in report.failed])
        found = "; ".join(check.sentence for check in report.failed)
        if report.warnings:  # a column that nobody knows tells what became of one that is missing
            found += f" (also: {'; '.join(check.sentence for check in report.warnings)})"
        raise ValidationFailed(f"{model.name} {run['partition']}: {stage} check failed: {found}", report)
    return {"checks": len(report.checks), "warnings": [check.sentence for check in report.warnings], "page": report.page}


def check_stage(model: ModelConfig, stage: Stage, run: dict[str, Any], parameters: dict[str, float]) -> Report:
    """The report of a stage's suite on the run's data, also when it fails."""
    platform = platform_for(model)
    page = platform.report_page(model, run, stage)
    data, contract = platform.dataset(model, stage, run), stage_columns(model, stage)
    report = run_suite(suite_file(model.name, stage), data, parameters, page, contract)
    log.log(logging.WARNING if report.failed or report.warnings else logging.INFO, "%s", report.summary())
    log.info("page: %s", report.page)
    get_current_context()["ti"].xcom_push("page", report.page)  # the UI links it, also where the task fails
    return report


def volume(model: ModelConfig, run: dict[str, Any]) -> dict[str, float]:
    """How many rows the partition should have: what its marker declares, and near what recent partitions had.

    A third of the rows with a proud marker is still a third of the rows.
    """
    partition = partitions.parse(run["partition"])
    recent = [record.body["rows_in"] for record in history.before(model.name, partition)]
    low, high = (VOLUME_BAND[0] * median(recent), VOLUME_BAND[1] * median(recent)) if len(recent) >= 3 else (1, UNLIMITED)
    declared = platform_for(model).declared_rows(model, partition)
    if declared is not None:
        low, high = max(low, declared), min(high, declared)
    return {"rows_low": max(1, int(low)), "rows_high": int(high)}
