"""`make drill`: everything that a lake has is lost, and restored from its backup. Is all of it as it was, and does it go on?

All of it is real: flights, an Airflow with a scheduler, two champions, published days. The backup is made while a day is being
predicted.
"""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from datetime import date, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import duckdb

from demo import quick, simulator
from demo.airflow_api import RequestRefused
from demo.progress import RunFailed, Screen, follow, follow_tasks, runs_of, wait_for_dags
from demo.results import trainings
from demo.stack import REPOSITORY, Airflow, StackFailed, running_airflow, wipe
from include import backup, champions, ledger, publications
from include.core.files import sha256_of
from include.registry import registry
from include.registry.base import ALIASES

ROOT = REPOSITORY / ".local" / "drill"
MODEL = "flight_delays"
TRAIN, PREDICT, MONITOR, LABEL, ROLLBACK = (f"{kind}_{MODEL}" for kind in ("train", "predict", "monitor", "label", "rollback"))
LANDED_FROM = date(2013, 1, 1)
# The world changes after the first training: the second model is better, and there is a champion to go back to.
AS_OF = [date(2013, 2, 1), date(2013, 3, 1)]
CURFEW = date(2013, 2, 5)
DAYS = [date(2013, 3, 1), date(2013, 3, 2)]
MEANWHILE, AFTER = DAYS[-1] + timedelta(days=1), DAYS[-1] + timedelta(days=2)
Known = dict[str, dict[str, Any]]


class Different(RuntimeError):
    """What was restored is not what was lost, or does not go on; the message names what."""


def main() -> int:
    screen = Screen()
    logging.getLogger("mail.log").setLevel(logging.WARNING)
    wipe(ROOT)
    lake, saved = ROOT / "lake", ROOT / "saved"
    for name in [name for name in os.environ if name.startswith("AILERON_")]:
        del os.environ[name]
    own = {"AILERON_LAKE": str(lake), "AILERON_MODELS": str(quick_models())}
    os.environ |= own
    try:
        land(lake, screen)
        with running_airflow(ROOT, extra=own, say=screen.say) as airflow:
            wait_for_dags(airflow, screen, [TRAIN, PREDICT, MONITOR, ROLLBACK], seconds=120)
            live(airflow, screen)
            save_while_predicting(airflow, screen, saved)
            before = known(lake)
            for name, facts in before.items():
                screen.say(f"There is to lose: {len(facts)} {name}")
            lose(lake, screen)
            restored = backup.restore(saved)
            screen.say(f"Restored {len(restored.files)} files, {restored.bytes / 1e6:.0f} MB, each with the digest it had")
            compare(before, known(lake), screen)
            go_on(airflow, before, screen)
    except (RunFailed, StackFailed, RequestRefused, Different, backup.Refused, OSError) as error:
        print(f"\nThe drill has FAILED after {screen.seconds:.0f} s: {error}", file=sys.stderr)
        return 1
    screen.say("The drill is passed; everything is stopped. Its lake and backup are in .local/drill")
    return 0


def quick_models() -> Path:
    """Learned in seconds; and one may become champion that decides otherwise."""
    folder = quick.models(ROOT / "models")
    for file in folder.glob("*/model.yaml"):
        file.write_text(file.read_text().replace("\ngate:\n", "\ngate:\n  max_decision_churn: 1\n"))
    return folder


def land(lake: Path, screen: Screen) -> None:
    flights = simulator.land(lake, LANDED_FROM, AFTER, CURFEW)
    outcomes = simulator.land_outcomes(lake, LANDED_FROM, DAYS[0] - timedelta(days=1), CURFEW)
    screen.say("Landed rows: " + ", ".join(f"{name} {count:,}" for name, count in (flights | outcomes).items()))


def live(airflow: Airflow, screen: Screen) -> None:
    """Two champions, one after the other, and days that each of them has predicted."""
    for dag_id in (TRAIN, PREDICT, MONITOR, ROLLBACK):
        paused(airflow, dag_id, False)
    half = len(DAYS) // 2
    for number, (as_of, days) in enumerate(zip(AS_OF, (DAYS[:half], DAYS[half:]), strict=True), 1):
        run_id = f"drill__{as_of}"
        airflow.api.trigger(TRAIN, run_id, {"as_of": as_of.isoformat()})
        follow_tasks(airflow, screen, TRAIN, run_id, seconds=900, answer=partial(approve, airflow, run_id))
        if len(champions.history(MODEL)) != number:
            raise RunFailed(f"the model as of {as_of} was not promoted: see {trainings(airflow.lake, MODEL)[-1][-1]}")
        screen.say(f"As of {as_of}: champion is version {champions.history(MODEL)[-1].version.version}")
        predict(airflow, screen, days)


def predict(airflow: Airflow, screen: Screen, days: list[date]) -> None:
    runs = {start(airflow, day): str(day) for day in days}
    follow(airflow, screen, [runs_of(airflow, screen, PREDICT, runs)], seconds=900)


def start(airflow: Airflow, day: date) -> str:
    run_id = f"drill__{day}"
    airflow.api.trigger(PREDICT, run_id, {"partition": day.isoformat()})
    return run_id


def approve(airflow: Airflow, run_id: str) -> None:
    for question in airflow.api.questions(TRAIN, run_id):
        airflow.api.answer(question, "Approve", {"why": "the drill says yes"})


def paused(airflow: Airflow, dag_id: str, yes: bool) -> None:
    airflow.api.call("PATCH", f"/dags/{dag_id}?update_mask=is_paused", {"is_paused": yes})


def save_while_predicting(airflow: Airflow, screen: Screen, saved: Path) -> None:
    """Backups while a day is being predicted, the last one when all has come to rest."""
    run_id, number, running = start(airflow, MEANWHILE), 0, True
    while running:
        running = airflow.api.run(PREDICT, run_id)["state"] in ("queued", "running")
        made = backup.make(ROOT / f"meanwhile-{number}")
        number += 1
        if backup.read(made.folder).files != made.files:
            raise Different(f"{made.folder}: is not what was written")
        shutil.rmtree(made.folder)
    follow(airflow, screen, [runs_of(airflow, screen, PREDICT, {run_id: str(MEANWHILE)})], seconds=900)
    screen.say(f"{number} backups while {MEANWHILE} was predicted and published: each of them whole")
    follow(airflow, screen, [at_rest(airflow)], seconds=900)
    for dag_id in (TRAIN, PREDICT, MONITOR, ROLLBACK):
        paused(airflow, dag_id, True)
    made = backup.make(saved)
    screen.say(f"Saved {len(made.files)} files, {made.bytes / 1e6:.0f} MB, in {saved.relative_to(REPOSITORY)}")


def at_rest(airflow: Airflow) -> Callable[[], str | None]:
    """Until each published day was watched, and nothing runs."""

    def watch() -> str | None:
        days = {record.body["partition"] for record in ledger.read("publication", MODEL)}
        watched = {record.body["partition"] for record in ledger.read("monitoring_verdict", MODEL)}
        if days - watched:
            return f"not watched yet: {', '.join(sorted(days - watched))}"
        busy = [
            run["dag_run_id"] for each in (TRAIN, PREDICT, MONITOR) for run in airflow.api.runs(each) if run["state"] == "running"
        ]
        return ", ".join(busy) or None

    return watch


def known(lake: Path) -> Known:
    """All that can be lost: what → its name → what it is."""
    with duckdb.connect() as connection:
        found = connection.execute(f"FROM read_parquet('{lake}/predictions/{MODEL}/*/*.parquet')")
        names = [column[0] for column in found.description or []]
        predicted = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return {
        "changes of champion": {str(change.number): change for change in champions.history(MODEL)},
        "records of the ledger": digests(lake, "ledger"),
        "versions of the registry": {
            change.version.version: registry().version(MODEL, change.version.version) for change in champions.history(MODEL)
        },
        "aliases": {alias: registry().alias(MODEL, alias) for alias in ALIASES},
        "rows of the registry's tables": rows_of(lake / "registry.db"),
        "published days": digests(lake, f"predictions/{MODEL}"),
        "predicted rows": {f"{row['partition_date']} {row['flight_id']}": row for row in predicted},
        "files of models, snapshots, versions and reports": digests(lake, *backup.KEPT, "quarantine"),
        "files of the source": digests(lake, "source"),
    }


def digests(lake: Path, *folders: str) -> dict[str, str]:
    files = [file for folder in folders for file in (lake / folder).rglob("*") if file.is_file()]
    return {str(file.relative_to(lake)): sha256_of(file) for file in files}


def rows_of(file: Path) -> dict[str, int]:
    """Every row of every table, and how often it is there."""
    with closing(sqlite3.connect(file)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return dict(Counter(f"{table} {row}" for table in tables for row in database.execute(f'SELECT * FROM "{table}"')))


def lose(lake: Path, screen: Screen) -> None:
    shutil.rmtree(lake)
    screen.say("Lake, registry and ledger are lost")


def compare(before: Known, after: Known, screen: Screen) -> None:
    for what, facts in before.items():
        wrong = sorted(name for name in facts.keys() | after[what].keys() if facts.get(name) != after[what].get(name))
        if wrong or not facts:
            raise Different(f"{what}: {len(wrong)} of {len(facts)} are not as they were, such as {', '.join(wrong[:3])}")
        screen.say(f"As it was: {len(facts):>6,} {what}")


def go_on(airflow: Airflow, before: Known, screen: Screen) -> None:
    """A further day is predicted; then the champion before is back, and what the last one had published is predicted again."""
    for dag_id in (PREDICT, MONITOR, ROLLBACK):
        paused(airflow, dag_id, False)
    predict(airflow, screen, [AFTER])
    follow(airflow, screen, [at_rest(airflow)], seconds=900)
    now = known(airflow.lake)
    changed = [name for name, row in before["predicted rows"].items() if now["predicted rows"].get(name) != row]
    if changed or not any(name.startswith(str(AFTER)) for name in now["predicted rows"]):
        raise Different(f"after {AFTER} was predicted, {len(changed)} rows of other days are not as they were")
    last = champions.history(MODEL)[-1]
    airflow.api.trigger(ROLLBACK, "drill", {"why": "the drill goes back"})
    follow_tasks(airflow, screen, ROLLBACK, "drill", seconds=300)
    follow(airflow, screen, [with_version(last.previous)], seconds=900)
    champion = champions.champion(MODEL)
    if champion is None or champion.version != last.previous:
        raise Different(f"champion is {champion}, not version {last.previous}")
    screen.say(f"A further day is predicted; after a rollback version {champion.version} is champion, and has predicted all days")


def with_version(version: str | None) -> Callable[[], str | None]:
    """Until what readers see of every day is by this version."""

    def watch() -> str | None:
        by = {record.body["partition"]: record.body["model_version"] for record in publications.history(MODEL)}
        other = sorted(day for day, each in by.items() if str(each) != version)
        return ", ".join(other) or None

    return watch


if __name__ == "__main__":
    sys.exit(main())
