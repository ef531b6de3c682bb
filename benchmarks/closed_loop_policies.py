"""The policies of `benchmarks.closed_loop`, and a year under each of them.

What asks for a training, admits it, judges the challenger and rolls it back are the product's own functions, with a ledger
of its own for each policy. A day goes: answers of labellers that are due, on Mondays a training that is due or was asked for,
the day is scored and published, monitoring, and on Mondays a training that it has just asked for, whose model scores from the
next day on. A training that was asked for waits for a Monday, as there are no other challengers.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.compute as pc

from benchmarks.closed_loop_monitoring import Monitor, verdict
from benchmarks.closed_loop_world import FIRST_AS_OF, LAST_DAY, Challenger, Year
from include import labelling, ledger, retraining
from include.config import ModelConfig
from include.core import alarms, gates
from include.core.comparison import side_by_side
from include.core.evaluation import evaluate
from include.core.features import categories

HARM_DAYS = 28
MORNING, EVENING = time(3, tzinfo=UTC), time(20, tzinfo=UTC)
BOUGHT_A_WEEK = 300  # of the fixed cadence: as many as the model.yaml lets a request buy

Watch = Literal["labels in time", "labels each week", "labels after alarms"]
# Champion, challenger, decay confirmed → promoted, and why.
Decision = Callable[[Challenger, Challenger, bool], tuple[bool, str]]


@dataclass(frozen=True)
class Policy:
    """`every_weeks`: a training is due so long after the last one; None: never. `begun`: how many weeks before 1 April the
    schedule takes the last one to have been. `watch`: what tells that a champion got worse."""

    name: str
    every_weeks: int | None = None
    begun: int = 0
    gated: bool = True
    watch: Watch | None = None


@dataclass(frozen=True)
class Release:
    """`harm`: of log loss over the next four weeks; above 0 what came was worse than what went."""

    as_of: date
    why: str
    harm: float


# Day → AUC and log loss of what was published.
Daily = Mapping[date, tuple[float, float]]


@dataclass(frozen=True)
class Outcome:
    """`daily`: of what was published; `trainings`: day and what asked for it; `labels`: bought to judge,
    `repeated` of them not for the first time; `judged`: days, or answers to a request, by what they said."""

    policy: Policy
    daily: Daily
    trainings: list[tuple[date, str]]
    releases: list[Release]
    rollbacks: list[Release]
    verdicts: Counter[str]
    judged: Counter[str]
    labels: int
    repeated: int

    @property
    def auc(self) -> float:
        return float(np.mean([auc for auc, _ in self.daily.values()]))

    @property
    def log_loss(self) -> float:
        return float(np.mean([loss for _, loss in self.daily.values()]))

    @property
    def harmful(self) -> int:
        return sum(release.harm > 0 for release in self.releases)


@dataclass
class Course:
    """How a year has gone so far. `former`: the champion before, unless it was gone back to; `published`: whose predictions of
    a day stand, those made again after a rollback too; `waiting`: day, request and answers of labels that are not there yet."""

    champion: Challenger
    former: Challenger | None = None
    promoted: date = FIRST_AS_OF
    trained: date = FIRST_AS_OF
    published: dict[date, Challenger] = field(default_factory=dict)
    earlier: dict[date, alarms.Earlier] = field(default_factory=dict)
    waiting: list[tuple[date, str, list[dict[str, Any]]]] = field(default_factory=list)
    bought: list[int] = field(default_factory=list)
    trainings: list[tuple[date, str]] = field(default_factory=list)
    releases: list[Release] = field(default_factory=list)
    rollbacks: list[Release] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)


def by_the_gate(model: ModelConfig, year: Year) -> Decision:
    """What the gate of the model.yaml says of a challenger: the same evaluation, rules and holdout as in train_<model>. Each
    question is answered once: no two challengers are judged on the same holdout, so nothing hangs on what was asked before."""
    coded = {name: categories(year.rows, name) for name in model.gate.slices}
    said: dict[tuple[date, date, bool], tuple[bool, str]] = {}

    def decide(champion: Challenger, other: Challenger, decay_confirmed: bool) -> tuple[bool, str]:
        key = (champion.as_of, other.as_of, decay_confirmed)
        if key not in said:
            said[key] = judged(champion, other, decay_confirmed)
        return said[key]

    def judged(champion: Challenger, other: Challenger, decay_confirmed: bool) -> tuple[bool, str]:
        seen = max(champion.trained.training.last, other.trained.training.last)
        held_out = year.between(seen + timedelta(days=1), other.as_of - timedelta(days=model.labels.delay_days))
        columns = {
            name: (pc.fill_null(codes.indices, -1).to_numpy(zero_copy_only=False)[held_out], codes.dictionary.to_pylist())
            for name, codes in coded.items()
        }
        days = year.days[held_out]
        document = side_by_side(
            model.task,
            year.labels[held_out],
            champion.scores[held_out],
            other.scores[held_out],
            columns,
            model.prediction.decision_threshold,
            np.unique(days, return_inverse=True)[1],
        )
        document |= {"first": str(days[0]), "last": str(days[-1]), "data_changes": None}
        for role, one in (("challenger", other), ("champion", champion)):
            part = one.trained.training
            document[role] |= {
                "manifest_sha256": f"{one.as_of}",
                "trained_from": part.first.isoformat(),
                "trained_to": part.last.isoformat(),
                "training_rows": part.rows,
                "megabytes": len(one.trained.booster.save_raw("ubj")) / 1e6,
                "seconds_per_million": 1.0,
            }
        circumstances = gates.Circumstances(
            decay_confirmed=decay_confirmed,
            champion_age_days=(other.as_of - champion.trained.training.last).days,
            label_coverage=1.0,
            holdout_uses=0,
            artifact_checked=True,
        )
        found = gates.judge(document, model.gate_rules, circumstances)
        return found.outcome == "PROMOTE", f"{found.outcome} ({found.rule})"

    return decide


def replay(
    policy: Policy, monitor: Monitor, decide: Decision, challengers: Sequence[Challenger], last_day: date, folder: Path
) -> Outcome:
    """A year under a policy; challengers[0] is the first champion of all of them. `folder`: for its ledger."""
    os.environ["AILERON_LEDGER"] = f"file://{folder}"
    course = Course(challengers[0], trained=FIRST_AS_OF - timedelta(weeks=policy.begun))
    coming = {one.as_of: one for one in challengers[1:]}
    daily: dict[date, tuple[float, float]] = {}
    for offset in range((last_day - FIRST_AS_OF).days + 1):
        day = FIRST_AS_OF + timedelta(days=offset)
        _judge_answers(course, monitor.model, day)
        if day in coming:
            _train(course, policy, monitor, decide, coming[day], datetime.combine(day, MORNING))
        course.published[day] = course.champion
        daily[day] = monitor.measured(course.champion, day)
        if policy.watch == "labels each week" and day.isoweekday() == 7:
            _buy(course, monitor, day, f"{day}", day - timedelta(days=6), BOUGHT_A_WEEK)
        elif policy.watch in ("labels in time", "labels after alarms"):
            _watch(course, monitor, day, policy.watch == "labels in time")
        if day in coming and policy.watch and retraining.open_requests(monitor.model.name):
            _train(course, policy, monitor, decide, coming[day], datetime.combine(day, EVENING))
    return Outcome(
        policy,
        daily,
        course.trainings,
        course.releases,
        course.rollbacks,
        course.verdicts,
        course.judged,
        len(course.bought),
        len(course.bought) - len(set(course.bought)),
    )


def _train(course: Course, policy: Policy, monitor: Monitor, decide: Decision, other: Challenger, at: datetime) -> None:
    """A run of train_<model> if one is due or was asked for, and what comes of it, as far as the governor admits it."""
    model = monitor.model
    due = policy.every_weeks is not None and (other.as_of - course.trained).days >= 7 * policy.every_weeks
    if not due and not retraining.open_requests(model.name):
        return
    run = retraining.Run(f"train__{at:%Y-%m-%d}", f"{at:%Y-%m-%dT%H}", at, "schedule" if due else "request")
    admission = retraining.admit(model, run, other.as_of if due else None)
    if not admission.admitted:
        course.verdicts["refused"] += 1
        return
    asked = sorted({request["reason"] for request in admission.requests}) or ["schedule"]
    course.trained = other.as_of
    course.trainings.append((other.as_of, ", ".join(asked)))
    promoted, why = decide(course.champion, other, admission.decay_confirmed) if policy.gated else (True, "always")
    course.verdicts[why] += 1
    if promoted:
        first = at.date() if at.timetz() == MORNING else at.date() + timedelta(days=1)
        course.releases.append(Release(other.as_of, why, harm(monitor.year, course.champion, other, first)))
        course.champion, course.former, course.promoted = other, course.champion, other.as_of


def _watch(course: Course, monitor: Monitor, day: date, labels_in_time: bool) -> None:
    """A run of monitor_<model>, and what follows from it: a training or labels are asked for, a champion is rolled back."""
    model = monitor.model
    on_probation = (day - course.promoted).days <= model.quality.probation_days
    former = course.former if on_probation else None
    said = verdict(monitor, day, course.champion, former, course.published, list(course.earlier.values()), labels_in_time)
    course.earlier[day] = alarms.Earlier(day, said.outcome, said.columns, said.actions)
    course.judged[said.outcome] += 1
    if "request training" in said.actions:
        evidence = {"outcome": said.outcome, "sentences": list(said.sentences)}
        retraining.request_training(model, "quality_decay", day, "scheduled", evidence)
    if "request labels" in said.actions:
        request = {**said.to_json(), "key": f"{day}.v00001", "page": ""}
        run = {"partition": day.isoformat(), "version": {"version": f"{course.champion.as_of:%Y%m%d}"}}
        labelling.request(model, run, request)
        granted = ledger.find(labelling.REQUEST, model.name, request["key"])
        assert granted is not None
        course.judged["label requests" if granted.body["rows"] else "label requests beyond the budget"] += 1
        if granted.body["rows"]:
            first = max(said.since, day - timedelta(days=labelling.DAYS - 1))
            _buy(course, monitor, day, request["key"], first, granted.body["rows"])
    if "roll back" in said.actions:
        _roll_back(course, monitor, day, labels_in_time)


def _roll_back(course: Course, monitor: Monitor, day: date, labels_in_time: bool) -> None:
    """The champion before is champion again from the next day on. What the other had published is predicted and judged again;
    it stays in what is measured, for it is what was used."""
    withdrawn, restored = course.champion, course.former
    assert restored is not None
    why = f"{restored.as_of} in the place of {withdrawn.as_of}"
    course.rollbacks.append(Release(day, why, harm(monitor.year, withdrawn, restored, day + timedelta(days=1))))
    course.champion, course.former = restored, None
    again = sorted(past for past, one in course.published.items() if one is withdrawn)
    course.published |= dict.fromkeys(again, restored)
    for past in again:
        earlier = list(course.earlier.values())
        again_said = verdict(monitor, past, restored, None, course.published, earlier, labels_in_time, may_ask=False)
        course.earlier[past] = alarms.Earlier(past, again_said.outcome, again_said.columns, again_said.actions)


def _buy(course: Course, monitor: Monitor, day: date, request: str, first: date, wanted: int) -> None:
    """The answers come as soon as the truth is known."""
    answers, places = monitor.drawn(course.champion, course.published, first, day, wanted)
    course.bought += places
    course.waiting.append((day + timedelta(days=monitor.model.labels.delay_days), request, answers))


def _judge_answers(course: Course, model: ModelConfig, day: date) -> None:
    """A run of label_<model> for each request whose answers have come."""
    for _, request, answers in [one for one in course.waiting if one[0] <= day]:
        judged = labelling.judge(model, {"metrics": {}}, answers)
        course.judged[f"labels say {judged.state}"] += 1
        if judged.state == "decay":
            evidence = {"request": request, "answered": len(answers), "quality": judged.sentence}
            retraining.request_training(model, "quality_decay", day, "scheduled", evidence)
    course.waiting = [one for one in course.waiting if one[0] > day]


def harm(year: Year, old: Challenger, new: Challenger, first: date) -> float:
    """How much more the new one loses per row than the old one would, in the four weeks that it begins with."""
    rows = year.between(first, min(first + timedelta(days=HARM_DAYS - 1), LAST_DAY))
    if rows.start == rows.stop:
        return 0.0
    losses = [evaluate("classification", year.labels[rows], one.scores[rows])["log_loss"] for one in (old, new)]
    assert losses[0] is not None and losses[1] is not None
    return losses[1] - losses[0]
