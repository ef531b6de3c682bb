"""The search for parameters: bounded, seeded, and judged on days later than those it learns from.

Every set of parameters is tried on two validation sets that follow each other in time and end where the holdout begins:

    |------------- learn ------------|-- set 1 --|
    |------------------- learn ------------------|-- set 2 --|--- holdout, never read ---|

A window and a half-life count back from the last day before the set, as the final training's count back from the last
day before the holdout. So what is chosen is what would have done best had it been trained then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xgboost

from include.core.evaluation import Task
from include.core.features import check_columns, encode
from include.core.training import (
    RANGES,
    CannotTrain,
    Parameters,
    boosting,
    dates_of,
    enough,
    fit_encodings,
    holdout_begins,
    labels_of,
    one_batch,
    quantiles,
    training_matrix,
    weights,
    within,
)

METRICS: dict[Task, str] = {"classification": "logloss", "regression": "rmse"}
# A forecast of certainty would make the loss of a single row infinite.
NEVER = 1e-9
# Trees without a better validation loss, after which no more are grown.
PATIENCE = 20
# Trials that are drawn at random before the sampler trusts what it has seen, and that are never cut short.
STARTUP_TRIALS = 4


@dataclass(frozen=True)
class Searched:
    """The numbers that a search may draw for a parameter; with `log`, as many below their geometric mean as above it."""

    low: float
    high: float
    log: bool = False


DEPTHS = (3, 8)
SEARCHED = {
    "learning_rate": Searched(0.05, 0.3, log=True),
    "min_child_weight": Searched(1.0, 64.0, log=True),
    "subsample": Searched(0.5, 1.0),
    "colsample_bytree": Searched(0.5, 1.0),
    "reg_lambda": Searched(0.1, 30.0, log=True),
}


@dataclass(frozen=True)
class Space:
    """What may be chosen. `windows` and `half_lives` in days; None is all days, and all rows alike.

    Raises:
        CannotTrain: if there is nothing to choose from, or a window or half-life is out of range.
    """

    windows: tuple[int | None, ...]
    half_lives: tuple[float | None, ...]
    max_trees: int = 300

    def __post_init__(self) -> None:
        for name, values, parameter in (
            ("windows", self.windows, "window_days"),
            ("half_lives", self.half_lives, "half_life_days"),
            ("max_trees", (self.max_trees,), "trees"),
        ):
            faults = [f"{value!r} {fault}" for value in values if (fault := RANGES[parameter].fault(value))]
            if faults or not values:
                raise CannotTrain(f"training.search: {name}: {'; '.join(faults) or 'is empty, give at least one'}")


@dataclass(frozen=True)
class Trial:
    """One set of parameters and how it did. `loss` is None where it was cut short after the first set: it had no hope."""

    parameters: Parameters
    loss: float | None

    def to_json(self) -> dict[str, Any]:
        return {"parameters": self.parameters.to_json(), "loss": self.loss, "trees": self.parameters.trees}


@dataclass(frozen=True)
class Validation:
    """One set that trials are judged on, and the loss on it of forecasting the mean label of all rows before it."""

    first: date
    last: date
    rows: int
    baseline_loss: float

    def to_json(self) -> dict[str, Any]:
        return {"first": self.first.isoformat(), "last": self.last.isoformat(), "rows": self.rows}


@dataclass(frozen=True)
class Tuned:
    """The best parameters, and what they were compared with. Losses are log loss, or RMSE in the unit of the label."""

    parameters: Parameters
    loss: float
    baseline_loss: float
    trials: tuple[Trial, ...]
    validation: tuple[Validation, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "parameters": self.parameters.to_json(),
            "loss": self.loss,
            "baseline_loss": self.baseline_loss,
            "trials": [trial.to_json() for trial in self.trials],
            "validation": [one.to_json() for one in self.validation],
        }


def tune(
    rows: pa.Table,
    task: Task,
    numeric: Sequence[str],
    categorical: Sequence[str],
    label: str,
    space: Space,
    *,
    trials: int,
    validation_days: int,
    holdout_days: int,
    min_rows: int,
    seed: int,
    threads: int = 2,
    progress: Callable[[int, Trial, float], None] = lambda *_: None,
) -> Tuned:
    """The parameters with the least mean loss on two validation sets of `validation_days` partitions each.

    The first trial is always the same: XGBoost's own defaults, the longest window, the weights that are most alike. The
    further ones are drawn by a tree-structured Parzen estimator (Bergstra et al., "Algorithms for hyper-parameter
    optimization", NIPS 2011); of these one is cut short when it does worse on the later set than half of those before.
    Each stops adding trees when these no longer help; the trees of the final model are the mean of the two counts.
    The same rows, arguments and threads give the same answer. The holdout is dropped before anything else is looked at.

    Args:
        rows: as for `core.training.train`.
        progress: is told the number of the trial from 1, the trial, and the best loss so far.

    Raises:
        CannotTrain: if there are too few partitions, or none of the windows has enough rows before each set.
        UnusableFeatures: if a feature is missing, of another type, or infinite.
    """
    if trials < 1:
        raise CannotTrain(f"training.search.trials is {trials}: at least one must be tried")
    batch = one_batch(rows)
    check_columns(batch, numeric, categorical)
    dates = dates_of(batch)
    batch = batch.filter(pa.array(dates < holdout_begins(dates, holdout_days)))
    known = _Rows(task, batch, labels_of(batch, label, task), dates_of(batch), tuple(numeric), tuple(categorical), seed, threads)
    validation = _validation_sets(known, validation_days)
    windows = _usable(space.windows, known, validation, min_rows)
    judge = _Judge(known, validation)
    study = _study(seed)
    study.enqueue_trial({
        **{name: getattr(Parameters(), name) for name in ("max_depth", "learning_rate", "min_child_weight", "reg_lambda")},
        **{name: getattr(Parameters(), name) for name in ("subsample", "colsample_bytree")},
        "window_days": _longest(windows),
        "half_life_days": _longest(space.half_lives),
    })
    done: list[Trial] = []
    for number in range(1, trials + 1):
        asked = study.ask()
        drawn = replace(_draw(asked, windows, space.half_lives), trees=space.max_trees, seed=seed)
        done.append(_try(study, asked, judge, drawn))
        best = min((trial.loss, index) for index, trial in enumerate(done) if trial.loss is not None)
        progress(number, done[-1], best[0])
    baseline = float(np.mean([one.baseline_loss for one in validation]))
    return Tuned(done[best[1]].parameters, best[0], baseline, tuple(done), validation)


@dataclass(frozen=True)
class _Rows:
    """All that may be looked at: the rows before the holdout."""

    task: Task
    batch: pa.RecordBatch
    labels: npt.NDArray
    dates: npt.NDArray
    numeric: tuple[str, ...]
    categorical: tuple[str, ...]
    seed: int
    threads: int

    def before(self, day: date, window_days: int | None) -> npt.NDArray[np.bool_]:
        """Which rows a model would learn from that is judged from `day` on."""
        earlier = self.dates < np.datetime64(day)
        return earlier & within(self.dates, self.dates[earlier].max(), window_days)


class _Judge:
    """Losses on the validation sets. What is the same for all trials of a window is made once and kept: the encodings,
    fitted on the rows of the window before the set, and both matrices in XGBoost's bins, a byte or two per value."""

    def __init__(self, rows: _Rows, validation: tuple[Validation, ...]) -> None:
        self.rows, self.validation = rows, validation
        self.made: dict[tuple[Validation, int | None], tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix]] = {}

    def loss(self, one: Validation, parameters: Parameters) -> tuple[float, int]:
        """The least loss on a validation set, and the number of trees that had it."""
        known, learn, judge = self.rows, *self._matrices(one, parameters.window_days)
        used = known.dates[known.before(one.first, parameters.window_days)]
        row_weights = weights(used, parameters.half_life_days)
        learn.set_weight(np.ones(len(used)) if row_weights is None else row_weights)
        booster = xgboost.train(
            {**boosting(known.task, parameters, known.threads), "eval_metric": METRICS[known.task]},
            learn,
            num_boost_round=parameters.trees,
            evals=[(judge, "validation")],
            early_stopping_rounds=PATIENCE,
            verbose_eval=False,
        )
        return float(booster.best_score), booster.best_iteration + 1

    def _matrices(self, one: Validation, window_days: int | None) -> tuple[xgboost.QuantileDMatrix, xgboost.QuantileDMatrix]:
        if (one, window_days) not in self.made:
            known, used = self.rows, self.rows.before(one.first, window_days)
            judged = (known.dates >= np.datetime64(one.first)) & (known.dates <= np.datetime64(one.last))
            batch, labels = known.batch.filter(pa.array(used)), known.labels[used]
            spec, encoded = fit_encodings(known.task, batch, labels, known.numeric, known.categorical, known.seed)
            learn = quantiles(training_matrix(batch, known.numeric, encoded), labels, spec, None, known.threads)
            matrix, _ = encode(known.batch.filter(pa.array(judged)), spec)
            judge = xgboost.QuantileDMatrix(
                matrix, label=known.labels[judged], feature_names=list(spec.names), nthread=known.threads, ref=learn
            )
            self.made[one, window_days] = learn, judge
        return self.made[one, window_days]


def _validation_sets(rows: _Rows, days: int) -> tuple[Validation, ...]:
    """The two sets, the later one first."""
    partitions = np.unique(rows.dates)
    if days < 1 or len(partitions) <= 2 * days:
        raise CannotTrain(
            f"the training set has {len(partitions)} partitions before the holdout, of which two validation sets of "
            f"training.search.validation_days = {days} leave none to learn from; widen training.window_days"
        )
    found = []
    for part in (partitions[-days:], partitions[-2 * days : -days]):
        judged = rows.labels[(rows.dates >= part[0]) & (rows.dates <= part[-1])]
        mean = float(rows.labels[rows.dates < part[0]].mean())
        found.append(Validation(part[0].astype(date), part[-1].astype(date), len(judged), _loss(rows.task, judged, mean)))
    return tuple(found)


def _loss(task: Task, labels: npt.NDArray, forecast: float) -> float:
    if task == "regression":
        return float(np.sqrt(np.mean((labels - forecast) ** 2)))
    share = min(max(forecast, NEVER), 1 - NEVER)
    return float(-np.mean(labels * np.log(share) + (1 - labels) * np.log(1 - share)))


def _usable(
    windows: Sequence[int | None], rows: _Rows, validation: Sequence[Validation], min_rows: int
) -> tuple[int | None, ...]:
    """The windows that leave enough to learn from, each only once: longer ones than there are days are all the same."""
    after = (rows.dates.max() + np.timedelta64(1, "D")).astype(date)
    usable, faults = [], []
    for window in dict.fromkeys(windows):
        try:
            enough(rows.task, rows.labels[rows.before(after, window)], min_rows)
            for one in validation:
                enough(rows.task, rows.labels[rows.before(one.first, window)], 1)
            usable.append(window)
        except CannotTrain as fault:
            faults.append(f"{'all' if window is None else window} days: {fault}")
    if not usable:
        raise CannotTrain(f"no window of training.search.windows has enough to learn from: {'; '.join(faults)}")
    earlier = rows.dates[rows.dates < np.datetime64(validation[0].first)]
    there = int((earlier.max() - earlier.min()).astype(int)) + 1
    all_there_is = [window for window in usable if window is None or window >= there]
    return tuple(window for window in usable if window not in all_there_is or window == _longest(all_there_is))


def _longest(values: Sequence[Any]) -> Any:
    return None if None in values else max(values)


def _study(seed: int) -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
    )


def _draw(asked: Any, windows: Sequence[int | None], half_lives: Sequence[float | None]) -> Parameters:
    def number(name: str) -> float:
        searched = SEARCHED[name]
        return _short(asked.suggest_float(name, searched.low, searched.high, log=searched.log))

    half_life = asked.suggest_categorical("half_life_days", half_lives)
    return Parameters(
        max_depth=asked.suggest_int("max_depth", *DEPTHS),
        learning_rate=number("learning_rate"),
        min_child_weight=number("min_child_weight"),
        subsample=number("subsample"),
        colsample_bytree=number("colsample_bytree"),
        reg_lambda=number("reg_lambda"),
        window_days=asked.suggest_categorical("window_days", windows),
        half_life_days=None if half_life is None else float(half_life),
    )


def _short(value: float) -> float:
    """Three digits are enough, for people too."""
    return float(f"{value:.3g}")


def _try(study: Any, asked: Any, judge: _Judge, drawn: Parameters) -> Trial:
    from optuna.trial import TrialState

    found = []
    for step, one in enumerate(judge.validation):
        found.append(judge.loss(one, drawn))
        loss, trees = float(np.mean([loss for loss, _ in found])), round(float(np.mean([trees for _, trees in found])))
        if not np.isfinite(loss):
            raise CannotTrain(f"the loss of {drawn} is {loss}: look for extreme labels in the training set")
        asked.report(loss, step)
        if step == 0 and asked.should_prune():
            study.tell(asked, state=TrialState.PRUNED)
            return Trial(replace(drawn, trees=trees), None)
    study.tell(asked, loss)
    return Trial(replace(drawn, trees=trees), loss)
