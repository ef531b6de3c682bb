"""What a model is: `include/models/<name>/model.yaml`, typed, and the settings of this environment.

A model.yaml describes a model, never tasks. Everything that can be wrong with it is found here, and said with the
file, the key and the remedy, before any DAG is built from it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

if TYPE_CHECKING:
    from include.core.gates import Rules

INCLUDE = Path(__file__).resolve().parent
REPOSITORY = INCLUDE.parent
MODELS = INCLUDE / "models"
STAMP = INCLUDE / "REVISION"  # of a bundle; a working copy has none

# The safe loader in C, where PyYAML was built with it: a hundred models are read at every parse.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Names become table names, paths and DAG ids on three platforms: the common subset of what all of them allow.
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,47}$")]
Email = Annotated[str, Field(pattern=r"^[^@\s,;<>]+@[^@\s,;<>]+$")]
ColumnType = Literal["string", "integer", "number", "boolean", "date", "timestamp"]
Share = Annotated[float, Field(ge=0, le=1)]


class InvalidModel(ValueError):
    """A model folder cannot be used; the message names file, key and remedy."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Owner(Section):
    team: Annotated[str, Field(min_length=1)] = Field(description="Shown as the owner of the DAGs")
    emails: list[Email] = Field(min_length=1, description="Who is mailed when a run fails")


class Source(Section):
    table: Name = Field(description="Entity table: one row of it is one prediction")
    key: Name = Field(description="Column that identifies a row; unique within a partition")
    columns: dict[Name, ColumnType] = Field(description="The contract: columns the table must have, with their types")
    lookups: list[Name] = Field(default=[], description="Other tables that features.sql reads")
    row_rules: dict[Name, str] = Field(
        default={}, description="SQL conditions a row must meet; a row that does not goes to quarantine, with the rule's name"
    )
    max_quarantine_share: Share = Field(default=0.05, description="The run stops when a larger share is quarantined")
    wait_hours: Annotated[float, Field(gt=0, le=168)] = Field(default=12, description="How long a run waits for its partition")

    @model_validator(mode="after")
    def key_is_a_column(self) -> Source:
        if self.key not in self.columns:
            raise ValueError(f"source.key {self.key!r} is not among source.columns; add it there with its type")
        return self


class Labels(Section):
    table: Name = Field(description="Table of outcomes that labels.sql reads")
    delay_days: Annotated[int, Field(ge=0, le=365)] = Field(description="Days after the partition until its labels are complete")


class Features(Section):
    numeric: list[Name] = Field(default=[], description="Columns of features.sql with numbers, or with true and false")
    categorical: list[Name] = Field(default=[], description="Columns of features.sql with text")

    @property
    def names(self) -> list[str]:
        """All features in the order the model sees them."""
        return [*self.numeric, *self.categorical]

    @model_validator(mode="after")
    def some_and_no_twice(self) -> Features:
        if not self.names:
            raise ValueError("a model needs at least one feature: list the columns of features.sql")
        twice = sorted({name for name in self.names if self.names.count(name) > 1})
        if twice:
            raise ValueError(f"listed twice: {', '.join(twice)}")
        return self


class Prediction(Section):
    decision_threshold: Annotated[float, Field(allow_inf_nan=False)] = Field(
        default=0.5, description="decision = score >= threshold; for regression in the unit of the label"
    )
    max_unseen_share: Share = Field(default=0.1, description="Tolerated share of rows with a category the model has not seen")
    max_score_shift: Annotated[float, Field(gt=0)] = Field(
        default=0.25, description="Largest tolerated distance (Kolmogorov-Smirnov, 0..1) of the scores from the partitions before"
    )
    max_active_runs: Annotated[int, Field(ge=1, le=64)] = Field(default=4, description="Partitions that are predicted at once")
    arrivals_lookback: Annotated[int, Field(ge=1, le=366)] = Field(
        default=14, description="How many of the partitions that landed last are checked for late data"
    )


class Search(Section):
    """What `tune` may choose from. Every trial is judged on the last days before the holdout, never on the holdout."""

    trials: Annotated[int, Field(ge=1, le=200)] = Field(
        default=12, description="Parameter sets that are tried; 1 tries only the first"
    )
    validation_days: Annotated[int, Field(ge=1, le=90)] = Field(
        default=7, description="Days of each of the two validation sets, which end where the holdout begins"
    )
    windows: list[Annotated[int, Field(ge=2, le=3660)] | None] = Field(
        default=[28, 56, None],
        min_length=1,
        description="Days to learn from, counted back from the last; null is the whole snapshot",
    )
    half_lives: list[Annotated[float, Field(gt=0, le=3660)] | None] = Field(
        default=[None, 28], min_length=1, description="Days after which a row counts half; null weighs all rows alike"
    )


class Governor(Section):
    """How often and at what cost a model may be trained. By hand no cooldown holds, but the budget does."""

    cooldown_hours: Annotated[float, Field(ge=0, le=8760)] = Field(
        default=20, description="Between admitted runs that nobody started by hand"
    )
    runs_per_month: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=20, description="Admitted runs of a calendar month, those by hand among them"
    )
    cost_per_month: Annotated[float, Field(ge=0)] | None = Field(default=None, description="Budget; null for none")
    cost_per_hour: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Of the machines that train, in the budget's currency"
    )
    expected_hours: Annotated[float, Field(gt=0, le=720)] = Field(
        default=1.0, description="Of the first run; then the past runs tell"
    )


class Training(Section):
    schedule: str | None = Field(default="0 3 * * 1", description="Cron, UTC; null: trained on request only")
    window_days: Annotated[int, Field(ge=2, le=3660)] = Field(
        default=90,
        description="Labelled days in a snapshot, the holdout included; more than there are: expanding",
    )
    holdout_days: Annotated[int, Field(ge=1, le=365)] = Field(
        default=14, description="The last days of the window: never trained on"
    )
    min_rows: Annotated[int, Field(ge=1)] = Field(default=1000, description="Labelled rows to learn from, the holdout apart")
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = Field(
        default=7, description="The same snapshot and seed give the same model, byte for byte"
    )
    max_trees: Annotated[int, Field(ge=1, le=5000)] = Field(default=300, description="Early stopping mostly takes fewer")
    search: Search = Search()
    governor: Governor = Governor()
    after_new_label_days: Annotated[int, Field(ge=1, le=365)] | None = Field(
        default=None, description="Request a training when so many days of new labels have landed; null: never"
    )
    after_failed_partitions: Annotated[int, Field(ge=2, le=365)] | None = Field(
        default=None,
        description="Request a training when so many partitions in a row failed their checks; null: never",
    )
    max_feature_auc: Annotated[float, Field(gt=0.5, le=1)] = Field(
        default=0.98, description="A single feature that tells the label better than this is taken for a leak"
    )

    @model_validator(mode="after")
    def holdout_within_window(self) -> Training:
        if self.holdout_days >= self.window_days:
            raise ValueError("training.holdout_days must be smaller than training.window_days")
        return self


MetricName = Literal["auc", "average_precision", "r2"]


class Gate(Section):
    """What a challenger must show. Limits are here, under review; a run cannot bring its own."""

    floors: dict[MetricName, Annotated[float, Field(ge=-1, le=1)]] = Field(
        default={"auc": 0.5}, min_length=1, description="A model below one of them is never promoted"
    )
    alpha: Annotated[float, Field(gt=0, le=0.2)] = Field(
        default=0.05, description="Chance, per holdout, of promoting a model that is not better; spent over its uses"
    )
    max_holdout_uses: Annotated[int, Field(ge=1, le=10)] = Field(default=3, description="Then a gate waits for newer labels")
    margin: Annotated[float, Field(gt=0, le=0.2)] = Field(
        default=0.005, description="Of no consequence: a difference in AUC, or as a share of the champion's RMSE"
    )
    slices: list[Name] = Field(default=[], description="Categorical features; no value of them may get much worse")
    slice_margin: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.05, description="How much larger, as a share, the loss of a slice may become"
    )
    min_slice_rows: Annotated[int, Field(ge=2)] = Field(default=200, description="Smaller slices are shown, not judged")
    max_calibration_error: Annotated[float, Field(gt=0)] = Field(
        default=0.1,
        description="Mean distance of forecast and outcome over ten bins; regression: as a share of the labels' spread",
    )
    min_rows: Annotated[int, Field(ge=2)] = Field(default=500, description="Labelled rows of the holdout")
    min_positives: Annotated[int, Field(ge=1)] = Field(
        default=50, description="And of each class at least so many (classification)"
    )
    min_label_coverage: Share = Field(default=0.9, description="Share of the rows of the holdout that have a label")
    max_megabytes: Annotated[float, Field(gt=0)] = Field(default=100, description="Size of the model file")
    max_seconds_per_million: Annotated[float, Field(gt=0)] = Field(default=600, description="CPU time of scoring a million rows")
    max_champion_age_days: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="An older champion yields to one that is not worse; null keeps it until it is beaten",
    )
    max_decision_churn: Share = Field(
        default=0.5, description="Share of the newest rows that champion and challenger may decide differently, before promotion"
    )


class Approval(Section):
    when: Literal["always", "first", "never"] = Field(
        default="first", description="Which promotions a person must approve: all, only the very first of the model, or none"
    )
    emails: list[Email] = Field(default=[], description="Who is asked; the owner's emails if empty")
    wait_hours: Annotated[float, Field(gt=0, le=24 * 30)] = Field(default=72, description="No answer by then means no")


class Drift(Section):
    """When published partitions count as changed. Limits allow for the number of rows, of columns and for past variation."""

    sample: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="Share of a partition's rows that is profiled, always the same rows; 1 for small partitions"
    )
    false_alarms: Annotated[float, Field(gt=0, le=0.2)] = Field(
        default=0.01, description="Chance that a run alarms at all if nothing has changed, over all columns together"
    )
    tolerance: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.01, description="Distance of no consequence; about the square of a shift in standard deviations"
    )
    min_rows: Annotated[int, Field(ge=30)] = Field(default=200, description="Fewer profiled rows cannot be judged")
    history_days: Annotated[int, Field(ge=56, le=800)] = Field(
        default=365, description="Days before a partition that tell what is usual; a short history takes a season for a change"
    )
    pairs_of: Annotated[int, Field(ge=0, le=12)] = Field(
        default=6, description="Rank correlations are watched among so many of the most important features, weekly"
    )
    cooldown_days: Annotated[int, Field(ge=0, le=90)] = Field(
        default=7, description="An alarm that goes on is not mailed and starts nothing again before so many days"
    )


class Quality(Section):
    """When a model counts as worse, by its loss on matured labels."""

    max_excess_loss: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="Tolerated loss above what the model itself expects, as a share of it"
    )
    false_alarms: Annotated[float, Field(gt=0, le=0.2)] = Field(
        default=0.01, description="Chance, per run, of calling a model worse that is at the limit of what is tolerated"
    )
    min_labelled: Annotated[int, Field(ge=30)] = Field(default=200, description="Labelled rows without which nothing is judged")
    probation_days: Annotated[int, Field(ge=0, le=90)] = Field(
        default=28, description="So long a new champion is compared with the one before, and rolled back if it is worse"
    )


class Labelling(Section):
    """Labels that are bought: only after an alarm, and only where none come by themselves in time."""

    rows_per_request: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="Rows put into the label queue after an alarm; 0: labels are never bought"
    )
    rows_per_month: Annotated[int, Field(ge=0)] = Field(default=1000, description="Budget of a calendar month of partitions")
    cost_per_row: Annotated[float, Field(ge=0)] = Field(default=0.0, description="For the ledger, in the budget's currency")
    wait_days: Annotated[float, Field(gt=0, le=60)] = Field(default=7, description="How long a request waits for its answers")
    patience_days: Annotated[int, Field(ge=0, le=365)] = Field(
        default=7, description="Labels that come by themselves within so many days are waited for and not bought"
    )


class ModelConfig(Section):
    name: Name = Field(description="That of the folder; tables, paths and DAG ids are made of it")
    title: Annotated[str, Field(min_length=1)] = Field(description="What people read in the UI, on pages and in mails")
    description: Annotated[str, Field(min_length=1)] = Field(description="What is predicted, in a sentence; shown with the DAGs")
    owner: Owner
    tier: Annotated[int, Field(ge=1, le=3)] = Field(
        default=2, description="1: wakes people at night, 2: working hours, 3: whenever"
    )
    start: date = Field(description="First partition that can be predicted")
    end: date | None = Field(default=None, description="Last partition, for a feed that has ended")
    platform: Literal["local", "aws", "gcp"] | None = Field(default=None, description="Overrides AILERON_PLATFORM for this model")
    task: Literal["classification", "regression"] = Field(
        default="classification",
        description="classification: label 0 or 1, score its probability; regression: numbers",
    )
    source: Source
    labels: Labels
    features: Features
    prediction: Prediction = Prediction()
    training: Training = Training()
    gate: Gate = Gate()
    approval: Approval = Approval()
    monitoring: Literal["every_partition", "weekly_query"] = Field(
        default="every_partition",
        description="every_partition: drift and matured quality of each published partition; weekly_query: one query on the "
        "quality of the last matured week, the cheapest there is",
    )
    drift: Drift = Drift()
    quality: Quality = Quality()
    labelling: Labelling = Labelling()

    @model_validator(mode="after")
    def key_is_no_feature(self) -> ModelConfig:
        if self.source.key in self.features.names:
            raise ValueError(f"features must not contain the key {self.source.key!r}: a model would learn the rows by heart")
        if reserved := sorted({"score", "decision"} & set(self.features.names)):
            raise ValueError(f"features must not be named {' or '.join(reserved)}: predictions have columns of this name")
        if self.end is not None and self.end < self.start:
            raise ValueError("end is before start")
        return self

    @model_validator(mode="after")
    def fits_its_task(self) -> ModelConfig:
        if self.task == "classification" and not 0 < self.prediction.decision_threshold < 1:
            raise ValueError("prediction.decision_threshold of a classification must lie between 0 and 1")
        known = {"auc", "average_precision"} if self.task == "classification" else {"r2"}
        if wrong := sorted({str(name) for name in self.gate.floors} - known):
            raise ValueError(
                f"gate.floors: {', '.join(wrong)} is no metric of a {self.task}: choose of {', '.join(sorted(known))}"
            )
        if wrong := sorted(set(self.gate.slices) - set(self.features.categorical)):
            raise ValueError(f"gate.slices: {', '.join(wrong)} is not among features.categorical")
        shortest = self.training.holdout_days + 2 * self.training.search.validation_days + 1
        if self.training.window_days < shortest:
            raise ValueError(
                f"training.window_days must be at least {shortest}: holdout, two validation sets and a day to learn from"
            )
        return self

    def window(self, as_of: date) -> tuple[date, date]:
        """First and last day of the labelled partitions that a training as of a day learns from, the holdout included; the last
        is before the first if there are none."""
        last = min(as_of - timedelta(days=self.labels.delay_days), self.end or date.max)
        return max(self.start, last - timedelta(days=self.training.window_days - 1)), last

    @property
    def gate_rules(self) -> Rules:
        """The limits as `core.gates` takes them."""
        from include.core.gates import Rules  # not for whoever only reads a model

        return Rules(task=self.task, **self.gate.model_dump(exclude={"max_decision_churn"}))

    @property
    def folder(self) -> Path:
        return models_folder() / self.name

    @property
    def runbook(self) -> str:
        return "docs/runbooks/batch_prediction.md"


def read_model(folder: Path) -> ModelConfig:
    """The model described by `<folder>/model.yaml`.

    Raises:
        InvalidModel: naming the file, every wrong key and why.
    """
    file = folder / "model.yaml"
    try:
        raw: Any = yaml.load(file.read_text(), Loader=SAFE_LOADER)  # noqa: S506  it is the safe loader
    except FileNotFoundError:
        raise InvalidModel(f"{_shown(file)}: not found; every folder under include/models needs one") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidModel(f"{_shown(file)}: not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidModel(f"{_shown(file)}: must be a mapping of keys, not {type(raw).__name__}")
    try:
        model = ModelConfig.model_validate(raw)
    except ValidationError as error:
        reasons = "; ".join(
            f"{'.'.join(str(part) for part in e['loc']) or 'model'}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise InvalidModel(f"{_shown(file)}: {reasons}") from None
    if model.name != folder.name:
        raise InvalidModel(f"{_shown(file)}: name: {model.name!r} must be the name of its folder, {folder.name!r}")
    for required in ("features.sql", "labels.sql"):
        if not (folder / required).is_file():
            raise InvalidModel(f"{_shown(folder / required)}: not found; a model needs it beside its model.yaml")
    return model


def load_models(folder: Path | None = None) -> list[ModelConfig]:
    """All usable models, sorted by name. A broken folder takes none of the others down: `broken_models` has it."""
    return _read_all(folder or models_folder())[0]


def broken_models(folder: Path | None = None) -> list[str]:
    """One message per folder that could not be read."""
    return _read_all(folder or models_folder())[1]


def load_model(name: str) -> ModelConfig:
    """One model by name.

    Raises:
        InvalidModel: if there is no such model, or its folder is broken.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,47}", name):
        raise InvalidModel(f"{name!r} cannot be the name of a model: a-z, 0-9 and _ only")
    return read_model(models_folder() / name)


def models_folder() -> Path:
    """Where models live: the repository's own folder, unless AILERON_MODELS says otherwise (tests, private models)."""
    return Path(os.environ.get("AILERON_MODELS") or MODELS)


@cache
def _read_all(folder: Path) -> tuple[list[ModelConfig], list[str]]:
    models, broken = [], []
    for path in sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith((".", "_"))):
        try:
            models.append(read_model(path))
        except InvalidModel as error:
            broken.append(str(error))
    return models, broken


@dataclass(frozen=True)
class Settings:
    """The environment, from AILERON_* variables; the defaults are the embedded local platform."""

    platform: str
    environment: str
    lake: Path
    ledger: str
    registry: str
    revision: str


def settings() -> Settings:
    """Read anew at each call: cheap, and a task sees the environment it runs in."""
    env = os.environ
    lake = Path(env.get("AILERON_LAKE") or REPOSITORY / ".local" / "lake").resolve()
    return Settings(
        platform=env.get("AILERON_PLATFORM") or "local",
        environment=env.get("AILERON_ENVIRONMENT") or "dev",
        lake=lake,
        ledger=env.get("AILERON_LEDGER") or f"file://{lake}/ledger",
        registry=env.get("AILERON_REGISTRY") or f"sqlite:///{lake}/registry.db",
        revision=env.get("AILERON_REVISION") or stamped_revision() or _git_revision(),
    )


def stamped_revision() -> str:
    """The commit that this code was bundled from; empty in a working copy."""
    try:
        return STAMP.read_text().strip()
    except FileNotFoundError:
        return ""


def _git_revision() -> str:
    """The commit checked out here, read from .git (no git needed); "unknown" without one."""
    git = REPOSITORY / ".git"
    try:
        head = (git / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head[:12]
        ref = head.removeprefix("ref: ")
        if (git / ref).is_file():
            return (git / ref).read_text().strip()[:12]
        packed = (git / "packed-refs").read_text().splitlines()
        return next(line.split()[0][:12] for line in packed if line.endswith(f" {ref}"))
    except (OSError, StopIteration):
        return "unknown"


def _shown(path: Path) -> str:
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else str(path)
