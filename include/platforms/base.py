"""What the DAGs need of a platform.

A platform is a module with these functions. The first group is called while DAGs are parsed and returns native
operators, so that links, deferral and logs of the provider stay visible in the UI; arguments named `run`, `version`
and so on are XComs of the tasks before. The second group is called inside tasks. Only small facts (counts, digests,
places) pass between tasks; rows stay where they are.

Nothing outside `platforms/` and `registry/` may know which platform it is on.
"""

from __future__ import annotations

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

    def snapshot_training_set(self, model: ModelConfig, run: XComArg) -> XComArg:
        """Features joined with matured labels, immutable. Facts: snapshot, sha256, rows, first, last."""

    def train(self, model: ModelConfig, run: XComArg, snapshot: XComArg) -> XComArg:
        """Snapshot → artifact. Facts: artifact, manifest_sha256, metrics."""

    def evaluate(self, model: ModelConfig, run: XComArg, snapshot: XComArg, challenger: XComArg) -> XComArg:
        """The packaged artifact on rows later than any it was trained on. Facts: metrics, rows, first, last."""

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
        """What a suite of stage source, features or predictions is run on."""

    def publish(self, model: ModelConfig, run: dict[str, Any], facts: dict[str, Any]) -> Publication:
        """Make the staged predictions of the run what readers see, in one atomic step; keep what they saw."""

    def restore(self, model: ModelConfig, partition: date, by: str) -> Publication:
        """Put back the version of a partition that was live before the present one; `by` says who asked."""

    def report_page(self, model: ModelConfig, run: dict[str, Any], stage: Stage) -> str:
        """Where the data-docs page of a validation belongs."""
