"""The product at work on this machine.

python -m demo run     a model is trained, approved, used, replaced and defended, by a real Airflow (make demo)
python -m demo look    its Airflow again, with all that it did, until Ctrl-C (make look)
python -m demo up      an Airflow to work with, until Ctrl-C (make up); with --platform aws or gcp beside a local cloud
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from contextlib import ExitStack
from datetime import date, timedelta
from pathlib import Path
from typing import NoReturn

from demo import story
from demo.airflow_api import RequestRefused
from demo.cloud import running_cloud
from demo.picture import picture_of
from demo.postgres import PostgresFailed
from demo.progress import RunFailed, Screen
from demo.repository import REPOSITORY, StackFailed
from demo.results import top_key, trainings
from demo.served import CLOUDS
from demo.signals import terminating
from demo.stack import Airflow, running_airflow, wipe

LOCAL = REPOSITORY / ".local"
# What has landed when the platform is a cloud: enough to train as of the day after, and to predict a week.
FLIGHTS_OF = (date(2013, 1, 1), date(2013, 2, 7))
OUTCOMES_OF = (date(2013, 1, 1), date(2013, 1, 31))
ONE_DAY = timedelta(days=1)
# Of the local cloud: a suite of expectations is dozens of queries, and each would take a second longer.
QUICK = {"start_seconds": 0.1, "job_seconds": 0.2}


def up() -> None:
    """Airflow until Ctrl-C; its state stays in .local and is there again at the next start."""
    with running_airflow(LOCAL, port=_port()) as airflow:
        print(
            f"""{_where(airflow)}
  Land flights                  {_shown(sys.executable)} -m demo.simulator land 2013-01-01 2013-04-07 --lake {airflow.lake}
                                {_shown(sys.executable)} -m demo.simulator outcomes 2013-01-01 2013-03-31 --lake {airflow.lake}
  Use the airflow command       . {_shown(airflow.root / "airflow.env")}

  Ctrl-C stops it.""",
            flush=True,
        )
        _wait(airflow)


def up_beside(platform: str) -> None:
    """The same beside a local cloud. What it has is gone at the end, so each start is a fresh one."""
    root, screen, kind = LOCAL / platform, Screen(), CLOUDS[platform]
    wipe(root)
    with ExitStack() as stack:
        stack.enter_context(terminating())
        cloud = stack.enter_context(running_cloud(kind, root / "cloud", screen.say, **QUICK))
        rows = cloud.land(*FLIGHTS_OF) | cloud.land_outcomes(*OUTCOMES_OF)
        screen.say(f"Landed {cloud.lands_on}: " + ", ".join(f"{name} {count:,}" for name, count in rows.items()))
        extra = _only_the_demos_own(root / "lake") | cloud.environment
        airflow = stack.enter_context(running_airflow(root, port=_port(), extra=extra, say=screen.say))
        landing = f"{_shown(sys.executable)} -m {kind.__module__}"
        print(
            f"""
  Airflow      {airflow.api.address}   user {airflow.user}   password {airflow.password}
  {cloud.stands_for:12} {cloud.url}   a local cloud: nothing leaves this machine, nothing is billed
  its calls    {cloud.url}/_localcloud/calls   its jobs {cloud.url}/_localcloud/jobs
  mails        {airflow.mail}
  logs         {airflow.logs}

  1. Unpause train_flight_delays and Trigger it with the day {OUTCOMES_OF[1] + ONE_DAY}. The first model needs a yes:
     Required Actions.
  2. Unpause predict_flight_delays and monitor_flight_delays. Trigger predict with a partition, such as {FLIGHTS_OF[1]};
     monitor follows by itself.

  Land flights                  {landing} land 2013-02-08 2013-02-14 --url {cloud.url}
                                {landing} outcomes 2013-02-01 2013-02-07 --url {cloud.url}
  Use the airflow command       . {_shown(airflow.root / "airflow.env")}

  Ctrl-C stops both, and the local cloud forgets all.""",
            flush=True,
        )
        _wait(airflow)


def look() -> None:
    """The Airflow of the last demo, until Ctrl-C: its runs, its lake and its reports."""
    root = LOCAL / "demo"
    lake = root / "lake"
    if not lake.is_dir():
        raise StackFailed(f"{_shown(lake)} is not there: run make demo first")
    with running_airflow(root, port=_port(), extra=_only_the_demos_own(lake)) as airflow:
        print(f"{_where(airflow)}\n  Ctrl-C stops it.", flush=True)
        _wait(airflow)


def _where(airflow: Airflow) -> str:
    return f"""
  Airflow      {airflow.api.address}   user {airflow.user}   password {airflow.password}
  lake         {airflow.lake}
  mails        {airflow.mail}
  logs         {airflow.logs}
"""


def _wait(airflow: Airflow) -> NoReturn:
    while True:
        time.sleep(2)
        airflow.check()


def run() -> None:
    """From landed flights to trained models, published predictions and how good they were. Leaves its lake to look at."""
    screen = Screen()
    root = LOCAL / "demo"
    wipe(root)
    lake = root / "lake"
    story.land_spring(lake, screen)
    with running_airflow(root, port=_port(), extra=_only_the_demos_own(lake), say=screen.say) as airflow:
        alarm = story.tell(airflow, screen)
    print(f"\n{story.tables(lake)}\n")
    print(_where_to_look(lake))
    picture = picture_of(alarm, root / "monitoring.png")
    print(f"The first alarm of the curfew, a page for a browser: {_shown(alarm)}")
    print(
        f"  and as a picture: {_shown(picture)}\n" if picture else "  (no Chromium or Chrome is here to make a picture of it)\n"
    )
    screen.say("Done; everything is stopped")


def _where_to_look(lake: Path) -> str:
    predictions = _shown(lake / "predictions" / story.MODEL)
    look = f"import duckdb; print(duckdb.sql(\\\"FROM '{predictions}/*/*.parquet' ORDER BY score DESC LIMIT 10\\\"))"
    cli = f"AILERON_LAKE={_shown(lake)} {_shown(sys.executable)} -m include.cli"
    pages = "\n".join(f"  {row[0]}  {_shown(str(row[-1]))}" for row in trainings(lake, story.MODEL))
    return f"""\
Reports of the gate, pages for a browser:

{pages}

The same Airflow again, with all these runs: make look

Predictions, one file per partition, and the champion behind them:

  {_shown(sys.executable)} -c "{look}"
  {cli} champion {story.MODEL}
  {cli} explain {story.MODEL} {top_key(lake, story.MODEL)}
"""


def clean() -> None:
    """Back to a fresh clone, but for the environment."""
    for part in ("demo", *CLOUDS):
        wipe(LOCAL / part)
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
    parser.add_argument("what", choices=["run", "look", "up", "clean"])
    parser.add_argument("--platform", choices=["local", *CLOUDS], default="local", help="of `up`")
    asked = parser.parse_args()
    if asked.platform != "local" and asked.what != "up":
        parser.error(f"{asked.what} is of the local platform: --platform is for up")
    try:
        if asked.platform in CLOUDS:
            up_beside(asked.platform)
        else:
            {"run": run, "look": look, "up": up, "clean": clean}[asked.what]()
    except (RunFailed, StackFailed, PostgresFailed, RequestRefused) as error:
        sys.exit(f"\nFAILED: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
