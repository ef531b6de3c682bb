"""The product at work on this machine.

python -m demo run     one week of flights, from landing to published predictions, by a real Airflow (make demo)
python -m demo up      the same Airflow to look around in, until Ctrl-C (make up)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import date, timedelta
from pathlib import Path

from demo import simulator
from demo.airflow_api import RequestRefused
from demo.postgres import PostgresFailed
from demo.progress import RunFailed, Screen, follow_runs, follow_tasks, wait_for_dags
from demo.results import results, table
from demo.stack import REPOSITORY, StackFailed, running_airflow, wipe

LOCAL = REPOSITORY / ".local"
MODEL = "flight_delays"
LANDED_FROM = date(2013, 1, 1)
TRAINED_AS_OF = date(2013, 4, 1)
PREDICTED = [TRAINED_AS_OF + timedelta(days=day) for day in range(7)]
AT_ONCE = 2


def up() -> None:
    """Airflow until Ctrl-C; its state stays in .local and is there again at the next start."""
    with running_airflow(LOCAL, port=_port()) as airflow:
        print(
            f"""
  Airflow      {airflow.api.address}   user {airflow.user}   password {airflow.password}
  lake         {airflow.lake}
  mails        {airflow.mail}
  logs         {airflow.logs}

  Land flights                  {_shown(sys.executable)} -m demo.simulator land 2013-01-01 2013-04-07 --lake {airflow.lake}
                                {_shown(sys.executable)} -m demo.simulator outcomes 2013-01-01 2013-03-31 --lake {airflow.lake}
  Use the airflow command       . {_shown(airflow.root / "airflow.env")}

  Ctrl-C stops it.""",
            flush=True,
        )
        while True:
            time.sleep(2)
            airflow.check()


def run() -> None:
    """From landed flights to published predictions and how good they were. Starts from nothing, leaves its lake to look at."""
    screen = Screen()
    root = LOCAL / "demo"
    wipe(root)
    lake = root / "lake"
    landed = simulator.land(lake, LANDED_FROM, PREDICTED[-1])
    known = simulator.land_outcomes(lake, LANDED_FROM, TRAINED_AS_OF - timedelta(days=1))
    screen.say("Landed rows: " + ", ".join(f"{name} {count:,}" for name, count in (landed | known).items()))

    with running_airflow(root, port=_port(), extra=_only_the_demos_own(lake), say=screen.say) as airflow:
        train, predict = f"train_{MODEL}", f"predict_{MODEL}"
        wait_for_dags(airflow, screen, [train, predict], seconds=120)
        screen.say(f"Look at it: {airflow.api.address}  user {airflow.user}  password {airflow.password}")

        run_id = f"demo__{TRAINED_AS_OF}"
        airflow.api.unpause(train)
        airflow.api.trigger(train, run_id, {"as_of": TRAINED_AS_OF.isoformat()})
        follow_tasks(airflow, screen, train, run_id, seconds=600)

        airflow.api.unpause(predict)
        airflow.run(
            *("backfill", "create", "--dag-id", predict, "--max-active-runs", str(AT_ONCE)),
            *("--from-date", str(PREDICTED[0]), "--to-date", str(PREDICTED[-1])),
        )
        backfill = {r["dag_run_id"]: r["partition_key"] for r in airflow.api.runs(predict) if r["run_type"] == "backfill"}
        if sorted(backfill.values()) != [str(day) for day in PREDICTED]:
            raise RunFailed(f"the backfill has runs for {sorted(backfill.values())}, not for {PREDICTED[0]} to {PREDICTED[-1]}")
        follow_runs(airflow, screen, predict, backfill, seconds=900)

    simulator.land_outcomes(lake, PREDICTED[0], PREDICTED[-1])
    screen.say("A day later it is known how the flights went")
    rows = results(lake, MODEL)
    print(f"\n{table(rows)}\n")
    if [row[0] for row in rows] != [str(day) for day in PREDICTED]:
        raise RunFailed("not every partition is published")
    predictions = _shown(lake / "predictions" / MODEL)
    look = f"import duckdb; print(duckdb.sql(\\\"FROM '{predictions}/*/*.parquet' ORDER BY score DESC LIMIT 10\\\"))"
    print(f'Predictions: {predictions}, one file per partition. To look at them:\n\n  {_shown(sys.executable)} -c "{look}"\n')
    screen.say("Done; everything is stopped")


def clean() -> None:
    """Back to a fresh clone, but for the environment."""
    wipe(LOCAL / "demo")
    wipe(LOCAL)


def _only_the_demos_own(lake: Path) -> dict[str, str]:
    """The demo must not touch a lake, ledger or registry that this shell is set up for; an empty variable is the default."""
    return {name: "" for name in os.environ if name.startswith("AILERON_")} | {"AILERON_LAKE": str(lake)}


def _port() -> int | None:
    asked = os.environ.get("AILERON_PORT")
    if asked and not asked.isdecimal():
        raise StackFailed(f"AILERON_PORT={asked} is not the number of a port")
    return int(asked) if asked else None


def _shown(path: str | Path) -> str:
    return os.path.relpath(path)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["run", "up", "clean"])
    asked = parser.parse_args()
    try:
        {"run": run, "up": up, "clean": clean}[asked.what]()
    except (RunFailed, StackFailed, PostgresFailed, RequestRefused) as error:
        sys.exit(f"\nFAILED: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
