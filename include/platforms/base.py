"""What the DAGs need of a platform.

A platform is a module with these functions. The first group is called while DAGs are parsed and returns native
operators (of a verb that is several tasks, `steps.Steps`), so that links, deferral and logs of the provider stay
visible in the UI; arguments named `run`, `version` and so on are XComs of the tasks before. The second group is called
inside tasks. Only small facts (counts, digests, places) pass between tasks; rows stay where they are.

Nothing outside `platforms/` and `registry/` may know which platform it is on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any, Protocol

from airflow.sdk import AssetWatcher
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.definitions.xcom_arg import XComArg

from include.config import ModelConfig
from include.validation import Dataset, Stage


class SourceMissing(ValueError):
    """A partition that a run needs has not landed."""


class SourceChanged(RuntimeError):
    """A partition was replaced while it was read; a retry reads the new one."""


class LeakFound(ValueError):
    """A training set has what nobody could know at prediction time; the message names the columns."""


class JobFailed(RuntimeError):
    """A job ended without a result; the message carries its last words."""


@dataclass(frozen=True)
class Publication:
    """What readers see of one partition, as the ledger records it."""

    partition: str
    version: int
    digest: str
    rows: int
    location: str


class Platform(Protocol):
    # Operators, while DAGs are parsed.
    def await_source(self, model: ModelConfig) -> BaseOperator:
        """A deferrable sensor on the marker of the run's partition; fails after `source.wait_hours`."""

    def landing_watchers(self, model: ModelConfig) -> list[AssetWatcher]:
        """Wake-ups for the arrivals DAG; may be late, doubled or lost."""

    def build_features(self, model: ModelConfig, run: XComArg) -> XComArg:
        """Source partition → features and quarantine in staging.

        Facts: rows_in, rows (features), rows_quarantined, reasons {reason: rows}, source (fingerprint).
        """

    def score(self, model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
        """Features → raw scores in staging. Facts: rows, unseen {feature: rows}, histogram, mean, seconds."""

    def postprocess(self, model: ModelConfig, run: XComArg, version: XComArg) -> XComArg:
        """Raw scores → predictions in staging: decision, model version, run, time and revision on each row."""

    def deliver(self, model: ModelConfig, run: XComArg) -> list[XComArg]:
        """What brings a partition that was published to readers elsewhere, such as a warehouse; often nothing."""

    def snapshot_training_set(self, model: ModelConfig, run: XComArg) -> XComArg:
        """Features as known at prediction time joined with matured labels, immutable, with a manifest that it can be made
        again from. Facts: snapshot (id), file, sha256, sql_sha256, rows, label_coverage (share of the holdout's rows)."""

    def inspect_training_set(self, model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
        """Look for leaks: a feature that tells the label alone, and days that are other rows when they are made again from
        what had landed by then. Facts: rows, positives, strength {feature: ...}, replayed (days). Fails naming what leaks
        (`LeakFound`), or what else forbids learning from it."""

    def tune(self, model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
        """Parameters and window, by time-ordered validation before the holdout. Facts: parameters, loss, trials, seconds."""

    def train(self, model: ModelConfig, run: XComArg, snapshot: XComArg, tuned: XComArg) -> XComArg:
        """Snapshot → artifact. Facts: artifact, manifest_sha256, snapshot, seconds."""

    def evaluate(self, model: ModelConfig, run: XComArg, snapshot: XComArg, challenger: XComArg, champion: XComArg) -> XComArg:
        """Challenger and champion on the same rows, later than any they were trained on; the document of
        `jobs.evaluate` is kept in `evaluation_folder`. Facts: document (its place), rows, seconds."""

    def register(
        self,
        model: ModelConfig,
        run: XComArg,
        snapshot: XComArg,
        tuned: XComArg,
        challenger: XComArg,
        verdict: XComArg,
    ) -> XComArg:
        """Give the artifact a version in the registry; the same artifact has the same version, however often this runs.
        Facts: those of `registry.base.ModelVersion`."""

    def shadow_score(self, model: ModelConfig, run: XComArg, version: XComArg, champion: XComArg) -> XComArg:
        """Load the packaged version apart, verify it, and score the newest landed partition beside the champion.

        Facts: partition, rows, rows_scored, unseen {feature: rows}; without a champion None: churn (share of rows decided
        differently), shift (Kolmogorov-Smirnov distance of the scores, 0..1).
        """

    def profile(self, model: ModelConfig, run: XComArg) -> XComArg:
        """How the rows of the partition and of the days before it lie in the cells of the version that has scored it: one
        pass, where the data is, over the days that have not been counted yet. Facts: folder (of `<day>.json`, the documents
        of `monitoring_sql.DayProfile`), days, rows (profiled), population (published)."""

    def evaluate_matured(self, model: ModelConfig, run: XComArg) -> XComArg:
        """Sums of loss and of expected loss over the rows whose labels have come, by day, version and slice; for a new
        champion also those of the champion before, which scores the same days. Facts: document (rows and former, as
        `monitoring_sql.QualityRow`), days, seconds."""

    def queue_labels(self, model: ModelConfig, request: XComArg) -> XComArg:
        """A stratified sample of the unlabelled rows of the days, put where people or a service find it. Facts: rows, place."""

    def await_labels(self, model: ModelConfig) -> BaseOperator:
        """A deferrable sensor on the answers to the request of the run; fails after `labelling.wait_days`."""

    # Inside tasks.
    def marker(self, model: ModelConfig, partition: date) -> str:
        """Where the marker of a source partition appears once the partition is complete."""

    def declared_rows(self, model: ModelConfig, partition: date) -> int | None:
        """How many rows the marker says the partition has, if it says so."""

    def fingerprint(self, model: ModelConfig, partition: date) -> str:
        """State of one source partition.

        Raises:
            SourceMissing: if it has not landed.
        """

    def landed(self, model: ModelConfig) -> dict[date, str]:
        """Fingerprint of every complete source partition; it changes when the partition does."""

    def dataset(self, model: ModelConfig, stage: Stage, run: dict[str, Any]) -> Dataset:
        """What a suite of a stage is run on; for stage training, `run` has the file of the snapshot as `snapshot`."""

    def manifest_of(self, model: ModelConfig, version: dict[str, Any]) -> dict[str, Any]:
        """The manifest of a version whose files are still those that were registered.

        Raises:
            ValueError: naming the file that is gone or was changed.
        """

    def monitoring_folder(self, model: ModelConfig) -> str:
        """Where the monitoring of a model keeps its documents and pages; a folder or a URI."""

    def label_answers(self, model: ModelConfig, request: str) -> list[dict[str, Any]]:
        """What was asked for in a label request, with the answers: partition, stratum, weight, score, label (None: not answered).

        Raises:
            ValueError: naming what is wrong with the answers.
        """

    def record_figures(self, model: ModelConfig, figures: Mapping[str, float]) -> None:
        """Show the figures of a monitoring run where the platform shows those of everything else, if it has such a place."""

    def snapshot_manifest(self, model: ModelConfig, snapshot: str) -> dict[str, Any]:
        """What is known of a snapshot: sql, sql_sha256, sources, rows, sha256, first, last, labels, git_revision.

        Raises:
            LookupError: if there is no such snapshot.
        """

    def labelled_until(self, model: ModelConfig) -> date | None:
        """The last partition whose labels have landed."""

    def evaluation_folder(self, model: ModelConfig, run: dict[str, Any]) -> str:
        """Where a training run keeps its evaluation and its report page; a folder or a URI."""

    def publish(self, model: ModelConfig, run: dict[str, Any], facts: dict[str, Any]) -> Publication:
        """Make the staged predictions of the run what readers see, in one atomic step; keep what they saw."""

    def restore(self, model: ModelConfig, partition: date, by: str) -> Publication:
        """Put back the version of a partition that was live before the present one; `by` says who asked."""

    def find_predictions(self, model: ModelConfig, key: str, partition: date | None) -> list[dict[str, Any]]:
        """Published rows with this key, of one partition or of all: the columns of predictions, as text and numbers."""

    def report_page(self, model: ModelConfig, run: dict[str, Any], stage: Stage) -> str:
        """Where the data-docs page of a validation belongs."""
