"""The last chapter of the demo: the world changes, and the loop closes by itself.

In September the airports get a curfew (`simulator.CURFEW`), while the feed of outcomes is late. Monitoring alarms and mails; the
change lasts, so labels are asked for; they say that the model has decayed; a training is requested, admitted and judged.
"""

from __future__ import annotations

import time
from datetime import date, timedelta
from pathlib import Path

import duckdb

from demo import results, simulator
from demo.progress import RunFailed, Screen, Watch, follow, follow_tasks, runs_of
from demo.stack import Airflow

MODEL = "flight_delays"
PREDICT, MONITOR, LABEL, TRAIN = (f"{kind}_{MODEL}" for kind in ("predict", "monitor", "label", "train"))
BEGINS = date(2013, 9, 16)
# Two days before and five of it: what lasts five days is worth buying labels for.
WATCHED = [BEGINS + timedelta(days=day) for day in range(-2, 5)]
# By the time the labels have come, four weeks have gone by, and the feed of outcomes has caught up.
LATER = date(2013, 10, 14)


def tell(airflow: Airflow, screen: Screen) -> str:
    """From the change to the new champion; the path of the page of the first alarm.

    Raises:
        RunFailed: if a run fails, or if what should follow does not.
    """
    screen.say(f"From {BEGINS} there is a curfew: what left after six in the evening leaves four hours earlier")
    simulator.land(airflow.lake, BEGINS - timedelta(days=28), WATCHED[-1], curfew=BEGINS)
    for days in (WATCHED[:-1], WATCHED[-1:]):  # the last verdict rests on those before it
        _predict(airflow, screen, days)
        follow(airflow, screen, [_verdicts(airflow, screen, days)], seconds=600)
    alarm = next((row for row in results.monitored(airflow.lake, MODEL) if row[0] == str(BEGINS)), None)
    if alarm is None or alarm[1] == "ok":
        raise RunFailed(f"nobody was told of the curfew of {BEGINS}; see {airflow.lake / 'monitoring' / MODEL / 'index.html'}")

    request = f"{WATCHED[-1]}.v00001"
    queue = airflow.lake / "label_queue" / MODEL / request
    _wait_for(airflow, queue / "rows.parquet", seconds=120)
    simulator.land(airflow.lake, WATCHED[0], LATER, curfew=BEGINS)
    simulator.land_outcomes(airflow.lake, WATCHED[0] - timedelta(days=14), LATER - timedelta(days=1), curfew=BEGINS)
    screen.say(f"Labels are asked for. Four weeks later {_answer(airflow.lake, queue)} answers are there, played by the demo")
    follow(airflow, screen, [runs_of(airflow, screen, LABEL, {f"labels__{request}": str(WATCHED[-1])})], seconds=300)

    asked = [run["dag_run_id"] for run in airflow.api.runs(TRAIN) if run["dag_run_id"].startswith("retraining__")]
    if not asked:
        raise RunFailed("the labels have not asked for a training; the log of judge_labels says why")
    screen.say("The labels say that the model has decayed: a training was requested")
    follow_tasks(airflow, screen, TRAIN, asked[-1], seconds=600)
    return str(alarm[-1])


def _predict(airflow: Airflow, screen: Screen, days: list[date]) -> None:
    runs = {f"demo__{day}": str(day) for day in days}
    for run_id, day in runs.items():
        airflow.api.trigger(PREDICT, run_id, {"partition": day})
    follow(airflow, screen, [runs_of(airflow, screen, PREDICT, runs)], seconds=600)


def _verdicts(airflow: Airflow, screen: Screen, days: list[date]) -> Watch:
    """One line for each day that was judged."""
    open_days = {str(day) for day in days}

    def watch() -> str | None:
        for day, outcome, _, _, sentence, _ in results.monitored(airflow.lake, MODEL):
            if day in open_days:
                open_days.remove(str(day))
                screen.say(f"{MONITOR} {day}  {outcome}{': ' + str(sentence) if sentence else ''}")
        failed = [run["dag_run_id"] for run in airflow.api.runs(MONITOR) if run["state"] == "failed"]
        if failed:
            raise RunFailed(f"{MONITOR} {failed[0]} failed; see {airflow.logs}")
        return f"{len(open_days)} days to be judged" if open_days else None

    return watch


def _answer(lake: Path, queue: Path) -> int:
    """What people would have found out: how the flights that were asked about really went. The marker comes last."""
    with duckdb.connect() as connection:
        answers = connection.execute(
            "SELECT flight_id, coalesce(arrival_delay > 15, true)::INT AS label FROM read_parquet($rows) AS asked "
            "JOIN read_parquet($outcomes, hive_partitioning = false) AS outcome USING (flight_id) ORDER BY flight_id",
            {
                "rows": str(queue / "rows.parquet"),
                "outcomes": str(lake / "source" / "flight_outcomes" / "*" / "*.parquet"),
            },
        ).fetchall()
    (queue / "answers.csv").write_text("\n".join(["flight_id,label", *(f"{key},{label}" for key, label in answers)]) + "\n")
    (queue / "_SUCCESS").touch()
    return len(answers)


def _wait_for(airflow: Airflow, file: Path, seconds: float) -> None:
    until = time.monotonic() + seconds
    while not file.is_file():
        airflow.check()
        if time.monotonic() > until:
            raise RunFailed(f"{file} did not come within {seconds:.0f} s: no labels were asked for")
        time.sleep(0.5)
