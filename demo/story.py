"""The story that `make demo` tells: a model is trained, approved and used, replaced by a better one, kept from a worse one, and
learns anew when the world has changed (demo/curfew.py).

All of it is real: flights of 2013, a scheduler, a gate. Only the person who is asked is played by the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

from demo import curfew, simulator
from demo.progress import RunFailed, Screen, Watch, follow, follow_tasks, runs_of, tasks_of, wait_for_dags
from demo.results import MONITORED_HEADER, PARTITIONS_HEADER, TRAININGS_HEADER, monitored, partitions, table, trainings
from demo.stack import Airflow

MODEL = "flight_delays"
TRAIN, PREDICT = f"train_{MODEL}", f"predict_{MODEL}"
LANDED_FROM = date(2013, 1, 1)
FIRST = date(2013, 4, 1)
PREDICTED = [FIRST + timedelta(days=day) for day in range(7)]
# In July a model of the spring is much better than one of the winter. In September one of the summer is not better than
# that one, although its AUC is higher.
LATER = [date(2013, 7, 1), date(2013, 9, 1)]
AT_ONCE = 2
WHY = "Above its floor, and there is no other model: the demo says yes"


def land_spring(lake: Path, screen: Screen) -> None:
    """Flights up to the last day that is to be predicted, outcomes up to the day before the first."""
    flights = simulator.land(lake, LANDED_FROM, PREDICTED[-1])
    outcomes = simulator.land_outcomes(lake, LANDED_FROM, FIRST - timedelta(days=1))
    screen.say("Landed rows: " + ", ".join(f"{name} {count:,}" for name, count in (flights | outcomes).items()))


def tell(airflow: Airflow, screen: Screen) -> str:
    """Trains, approves, predicts, trains again, and sees the world change; the path of the page of that alarm.

    Raises:
        RunFailed: if a run fails, or the first model is not promoted: then there is nothing to predict with.
    """
    wait_for_dags(airflow, screen, [TRAIN, PREDICT, curfew.MONITOR, curfew.LABEL], seconds=120)
    screen.say(f"Look at it: {airflow.api.address}  user {airflow.user}  password {airflow.password}")

    screen.say(f"A first model, as of {FIRST}")
    airflow.api.unpause(TRAIN)
    run_id = _train(airflow, FIRST)
    follow_tasks(airflow, screen, TRAIN, run_id, seconds=600, answer=_approver(airflow, screen, run_id))
    _say_verdict(airflow, screen, FIRST)
    if trainings(airflow.lake, MODEL)[-1][7] is None:
        raise RunFailed(f"version 1 of {MODEL} was not promoted, see above: there is no model to predict with")

    screen.say(
        f"The week after is predicted; meanwhile summer comes, and a model is trained as of {' and as of '.join(map(str, LATER))}"
    )
    simulator.land(airflow.lake, LANDED_FROM, LATER[-1])
    simulator.land_outcomes(airflow.lake, LANDED_FROM, LATER[-1] - timedelta(days=1))
    for dag_id in (PREDICT, curfew.MONITOR, curfew.LABEL):
        airflow.api.unpause(dag_id)
    later = [_training(airflow, screen, day) for day in LATER]  # one after the other: Airflow lets no two run at once
    follow(airflow, screen, [_backfill(airflow, screen), *later], seconds=1200)
    alarm = curfew.tell(airflow, screen)
    _say_verdict(airflow, screen, curfew.LATER)
    return alarm


def tables(lake: Path) -> str:
    """What has become of the partitions, and of the trainings.

    Raises:
        RunFailed: if something is missing in it.
    """
    published, judged, watched = partitions(lake, MODEL), trainings(lake, MODEL), monitored(lake, MODEL)
    if [row[0] for row in published] != [str(day) for day in (*PREDICTED, *curfew.WATCHED)]:
        raise RunFailed(f"not every partition is published:\n{table(PARTITIONS_HEADER, published)}")
    if [row[0] for row in judged] != [str(day) for day in (FIRST, *LATER, curfew.LATER)]:
        raise RunFailed(f"not every training has a verdict:\n{table(TRAININGS_HEADER, [row[:-1] for row in judged])}")
    shown = [(PARTITIONS_HEADER, published), (MONITORED_HEADER, watched), (TRAININGS_HEADER, judged)]
    return "\n\n".join(table(header, [row[: len(header)] for row in rows]) for header, rows in shown)


def _train(airflow: Airflow, day: date) -> str:
    run_id = f"demo__{day}"
    airflow.api.trigger(TRAIN, run_id, {"as_of": day.isoformat()})
    return run_id


def _training(airflow: Airflow, screen: Screen, day: date) -> Watch:
    tasks = tasks_of(airflow, screen, TRAIN, _train(airflow, day), name=str(day))

    def watch() -> str | None:
        now = tasks()
        if now is None:
            _say_verdict(airflow, screen, day)
        return now

    return watch


def _backfill(airflow: Airflow, screen: Screen) -> Watch:
    """The week, each day with the model that was champion then, whoever is champion by the time it is scored."""
    airflow.run(
        *("backfill", "create", "--dag-id", PREDICT, "--max-active-runs", str(AT_ONCE)),
        *("--from-date", str(PREDICTED[0]), "--to-date", str(PREDICTED[-1])),
        *("--dag-run-conf", '{"model_version": "champion as of the partition"}'),
    )
    runs = {run["dag_run_id"]: run["partition_key"] for run in airflow.api.runs(PREDICT) if run["run_type"] == "backfill"}
    if sorted(runs.values()) != [str(day) for day in PREDICTED]:
        raise RunFailed(f"the backfill has runs for {sorted(runs.values())}, not for {PREDICTED[0]} to {PREDICTED[-1]}")
    return runs_of(airflow, screen, PREDICT, runs)


def _approver(airflow: Airflow, screen: Screen, run_id: str) -> Callable[[], None]:
    """Reads a question as the person would who is asked, and says yes."""

    def answer() -> None:
        for question in airflow.api.questions(TRAIN, run_id):
            screen.say(f"A person is asked: {question['subject']}")
            for text in filter(None, map(_plain, question["body"].splitlines())):
                screen.more(text)
            airflow.api.answer(question, "Approve", {"why": WHY})
            screen.say(f'The demo answers for her: Approve, "{WHY}"')

    return answer


def _plain(markdown: str) -> str:
    """A line of Markdown as it is read on a terminal; empty where it only draws."""
    if not markdown.startswith("|"):
        return markdown.replace("**", "")
    name, *values = (cell.strip(" -") for cell in markdown.strip("|").split("|"))
    return f"{name:<22}{''.join(f'{value:>16}' for value in values)}" if name else ""


def _say_verdict(airflow: Airflow, screen: Screen, day: date) -> None:
    row = next((row for row in reversed(trainings(airflow.lake, MODEL)) if row[0] == str(day)), None)
    if row is None:
        raise RunFailed(f"the training as of {day} ended without a verdict; see {airflow.logs}")
    screen.say(f"As of {day}: {row[1]}, {row[8]}; champion is {'version ' + str(row[7]) if row[7] else 'nobody'}")
