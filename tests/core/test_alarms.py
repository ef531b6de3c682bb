"""From what was measured to a verdict: which one, how often it is said, and what it starts."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta

import pytest

from include.core.alarms import Earlier, Measured, Verdict, judge
from include.core.drift import Comparison, Fault
from include.core.quality import Former, Quality

DAY = date(2013, 7, 1)
FINE = Comparison("carrier", 1, "ok", 0.01, 0.1, 900, 25000, 28, "'UA'", 0.2, 0.21, None, "as usual")
DRIFTED = replace(FINE, column="temperature", state="alarm", distance=0.4, why="distance 0.4 is above the limit 0.1")
UNJUDGED = replace(FINE, state="cannot judge", distance=None, limit=None, why="only 90 rows")
GOOD, BAD = Quality("ok", "Quality is as expected.", ()), Quality("decay", "It loses more than it expects.", ())
UNKNOWN = Quality("cannot judge", "Quality cannot be judged yet.", ())
WORSE = Former(9, 900, 0.1, 0.05, 0.15, True, "It loses more than the champion before.")
QUIET = Measured([FINE], [], [], GOOD, None, True)
FAULT = Fault("temperature", "missing", "temperature is missing in 40 % of the rows, before in 1 %.")


def verdict(measured: Measured, earlier: list[Earlier] | None = None, may_ask: bool = True, day: date = DAY) -> Verdict:
    return judge(day, measured, earlier or [], 7, may_ask)


def before(days: int, outcome: str, columns: tuple[str, ...] = (), *actions: str) -> Earlier:
    return Earlier(DAY - timedelta(days=days), outcome, columns, actions)  # type: ignore[arg-type]


def test_nothing_changed() -> None:
    said = verdict(QUIET)
    assert (said.outcome, said.sentences, said.actions) == ("ok", (), ())


@pytest.mark.parametrize(
    ("measured", "outcome", "actions"),
    [
        (replace(QUIET, comparisons=[DRIFTED, FINE]), "covariate drift", ("mail",)),
        (replace(QUIET, comparisons=[DRIFTED], labels_in_time=False), "covariate drift", ("mail",)),
        (replace(QUIET, pairs=[replace(DRIFTED, column="a × b")]), "covariate drift", ("mail",)),
        (replace(QUIET, quality=BAD), "quality decay", ("mail", "request training")),
        (replace(QUIET, quality=BAD, comparisons=[DRIFTED]), "quality decay", ("mail", "request training")),
        (replace(QUIET, quality=BAD, former=WORSE), "worse champion", ("mail", "roll back")),
        (replace(QUIET, quality=BAD, former=WORSE, comparisons=[DRIFTED], faults=[FAULT]), "broken data", ("mail",)),
    ],
)
def test_what_is_broken_comes_first_and_nothing_is_learned_from_it(
    measured: Measured, outcome: str, actions: tuple[str, ...]
) -> None:
    said = verdict(measured)
    assert (said.outcome, said.actions) == (outcome, actions)
    assert said.sentences


def test_what_looks_at_the_past_starts_nothing_and_says_so() -> None:
    for measured in (replace(QUIET, quality=BAD), replace(QUIET, former=WORSE), replace(QUIET, faults=[FAULT])):
        said = verdict(measured, may_ask=False)
        assert said.actions == () and "looks at the past" in said.notes[-1]


def test_an_alarm_that_goes_on_is_said_once_in_a_cooldown() -> None:
    drifted = replace(QUIET, comparisons=[DRIFTED])
    again = verdict(drifted, [before(1, "covariate drift", ("temperature",), "mail")])
    assert again.repeated and again.actions == () and again.since == DAY - timedelta(days=1)
    assert verdict(drifted, [before(8, "covariate drift", ("temperature",), "mail")]).actions == ("mail",)
    assert verdict(drifted, [before(1, "covariate drift", ("temperature",))]).actions == ("mail",)
    assert verdict(drifted, [before(1, "broken data", ("temperature",), "mail")]).actions == ("mail",)


def test_labels_are_bought_for_what_lasts_once_in_a_cooldown_and_only_where_none_come() -> None:
    drifted = replace(QUIET, comparisons=[DRIFTED], labels_in_time=False)
    days = [
        before(number, "covariate drift", ("temperature",), *(("mail",) if number == 4 else ())) for number in range(4, 0, -1)
    ]
    assert verdict(drifted, days[1:]).actions == ("mail",)
    assert verdict(drifted, days).actions == ("request labels",)
    assert verdict(replace(drifted, labels_in_time=True), days).actions == ()
    assert verdict(drifted, days, may_ask=False).actions == ()
    assert verdict(drifted, [*days[:-1], before(1, "covariate drift", ("temperature",), "request labels")]).actions == ()


def test_an_alarm_that_grows_is_said_again() -> None:
    grown = replace(QUIET, comparisons=[DRIFTED, replace(DRIFTED, column="pressure")])
    assert verdict(grown, [before(1, "covariate drift", ("temperature",), "mail")]).actions == ("mail",)
    both = [before(1, "covariate drift", ("temperature",), "mail"), before(2, "covariate drift", ("pressure",), "mail")]
    assert verdict(grown, both).repeated


def test_a_hundred_alarms_in_a_row_ask_for_a_training_once_in_a_cooldown() -> None:
    earlier: list[Earlier] = []
    asked = 0
    for number in range(100):
        day = DAY + timedelta(days=number)
        said = verdict(replace(QUIET, quality=BAD), earlier, day=day)
        asked += "request training" in said.actions
        earlier.append(Earlier(day, said.outcome, said.columns, said.actions))
    assert asked == 13  # every eighth day
    assert said.since == DAY


def test_an_alarm_that_was_quiet_begins_anew() -> None:
    decayed = replace(QUIET, quality=BAD)
    assert verdict(decayed, [before(5, "quality decay")]).since == DAY
    assert verdict(decayed, [before(4, "quality decay"), before(8, "quality decay")]).since == DAY - timedelta(days=8)


def test_what_cannot_be_judged_is_never_ok() -> None:
    assert verdict(replace(QUIET, comparisons=[UNJUDGED, replace(UNJUDGED, column="origin")])).outcome == "cannot judge"
    assert verdict(replace(QUIET, comparisons=[])).outcome == "cannot judge"


def test_a_sparse_column_among_others_is_named_and_hides_nothing() -> None:
    others = [replace(FINE, column=name) for name in ("dest", "origin")]
    said = verdict(replace(QUIET, comparisons=[*others, UNJUDGED]))
    assert said.outcome == "ok" and "Not judged: carrier." in said.notes


def test_a_column_that_a_week_can_judge_is_judged() -> None:
    by_week = replace(FINE, horizon=7)
    assert verdict(replace(QUIET, comparisons=[UNJUDGED, by_week])).outcome == "ok"


def test_scores_of_a_new_champion_are_a_note_and_no_verdict() -> None:
    said = verdict(replace(QUIET, comparisons=[FINE, replace(UNJUDGED, column="score")]))
    assert said.outcome == "ok" and any("What the model says is not judged" in note for note in said.notes)


def test_that_a_new_model_cannot_be_judged_wakes_nobody_but_that_an_old_one_no_longer_can_does() -> None:
    unjudged = replace(QUIET, comparisons=[UNJUDGED], quality=UNKNOWN)
    assert verdict(unjudged).actions == ()
    assert verdict(unjudged, [before(1, "cannot judge", ("carrier",))]).actions == ()
    assert verdict(unjudged, [before(1, "ok")]).actions == ("mail",)


def test_the_furthest_beyond_its_limit_is_told_first_and_each_column_once() -> None:
    far = replace(DRIFTED, column="pressure", distance=9.0)
    said = verdict(replace(QUIET, comparisons=[DRIFTED, far, replace(far, horizon=7, distance=0.2)]))
    assert said.columns == ("pressure", "temperature")
    assert [sentence.split(":")[0] for sentence in said.sentences] == ["pressure", "temperature"]
