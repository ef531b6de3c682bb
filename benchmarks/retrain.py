"""Does a change of the training code make models better or worse? `python -m benchmarks.retrain --base origin/main`

Every model of the demo is trained anew, on the flights as they were known on three mornings of 2013, by the code of this tree
and by the code of another commit, each with its own SQL, search and training, and both with the packages of this tree. Each
pair scores the four weeks after, which neither has seen. Differences are told with their standard errors over days. Ends with 1
if a model is shown to be worse, by more than two of them. Three mornings show large changes only: it is an alarm, no proof.

Prints Markdown: a summary of a job in CI can show it as it is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import closed_loop_world as world
from include.config import ModelConfig, load_model
from include.core import comparison, gates

ROOT = Path(__file__).resolve().parents[1]
MORNINGS = (date(2013, 4, 1), date(2013, 7, 1), date(2013, 9, 2))
DAYS = 28  # that each model scores
MODELS = ("flight_delays", "arrival_minutes")
SHOWN_BY = 2.0  # standard errors


class NothingToCompare(ValueError):
    """The other commit cannot be asked; the message says why."""


def scores(model: ModelConfig, mornings: tuple[date, ...], trials: int | None) -> pa.Table:
    """What models of those mornings say of the days after: key, day, label and score of each row."""
    with tempfile.TemporaryDirectory(prefix="retrain-") as folder:
        year = world.the_year(model, Path(folder))
    parts = []
    for morning in mornings:
        trained = world.challenger(model, year, morning, trials or model.training.search.trials)
        rows = year.between(morning, morning + timedelta(days=DAYS - 1))
        part = {
            "key": year.part(rows)[model.source.key],
            "day": year.days[rows],
            "label": year.labels[rows],
            "score": trained.scores[rows],
        }
        parts.append(pa.table(part))
    return pa.concat_tables(parts)


def scores_of(tree: Path, name: str, arguments: list[str], file: Path) -> pa.Table:
    """The same, by the code of another tree."""
    command = [sys.executable, "-m", "benchmarks.retrain", "--scores", name, "--file", str(file), *arguments]
    subprocess.run(command, cwd=tree, check=True, stdout=sys.stderr)
    return pq.read_table(file)


def checked_out(commit: str, folder: Path) -> Path:
    """The files of a commit.

    Raises:
        NothingToCompare: if there is no such commit, or it is from before this benchmark.
    """
    made = subprocess.run(["git", "archive", "--end-of-options", commit], cwd=ROOT, capture_output=True)
    if made.returncode:
        raise NothingToCompare(f"{commit} is no commit of this clone: {made.stderr.decode().strip()}")
    folder.mkdir()
    subprocess.run(["tar", "--extract", "--directory", folder], input=made.stdout, check=True)
    if not (folder / "benchmarks" / "retrain.py").is_file():
        raise NothingToCompare(f"{commit} does not have this benchmark yet")
    return folder


def compared(model: ModelConfig, base: pa.Table, ours: pa.Table) -> dict[str, Any]:
    """On the rows that both have: of each metric both values, the improvement and its standard error."""
    both = base.join(ours, ["key", "day"], join_type="inner", right_suffix="_ours").sort_by([
        ("day", "ascending"),
        ("key", "ascending"),
    ])
    old, new = (both[name].to_numpy() for name in ("score", "score_ours"))
    days = np.unique(both["day"].to_numpy(), return_inverse=True)[1]
    metrics = comparison.compare(model.task, both["label_ours"].to_numpy(), old, new, days)
    return {"rows": both.num_rows, "same": bool((old == new).all()), "metrics": {one["metric"]: one for one in metrics}}


def verdict(model: ModelConfig, found: dict[str, Any]) -> str:
    """Worse by any metric is worse: a change is looked at by people, who are better asked once too often."""
    if found["same"]:
        return "the same scores"
    states = {name: _state(one) for name, one in found["metrics"].items()}
    return "WORSE" if "WORSE" in states.values() else states[gates.LOSS[model.task]]


def _state(one: dict[str, Any]) -> str:
    if one["improvement"] is None or one["standard_error"] is None:
        return "WORSE"  # no number is no proof of anything good
    limit = SHOWN_BY * one["standard_error"]
    return "WORSE" if one["improvement"] < -limit else "better" if one["improvement"] > limit else "alike"


def told(name: str, found: dict[str, Any], said: str) -> list[str]:
    """A line for each metric; what is said of the model stands in the first."""
    lines, start = [], (name, f"{found['rows']:,}", said)
    for metric, one in found["metrics"].items():
        values = [f"{one[which]:.4f}" for which in ("champion", "challenger")]
        difference = " ± ".join("-" if one[which] is None else f"{one[which]:.5f}" for which in ("improvement", "standard_error"))
        lines.append(
            f"| {start[0]} | {start[1]} | {gates.SHOWN.get(metric, metric)} | {' | '.join(values)} | {difference} | {start[2]} |"
        )
        start = ("", "", "")
    return lines


def report(commit: str, mornings: tuple[date, ...], arguments: list[str]) -> tuple[str, bool]:
    """The page, and whether a model is shown to be worse."""
    told_when = ", ".join(map(str, mornings))
    lines = [f"### Retrained, against {commit}", "", f"As of {told_when}; judged on the {DAYS} days after each.", ""]
    lines += ["| model | rows | | base | this | better by | |", "| --- | --- | --- | --- | --- | --- | --- |"]
    worse = False
    with tempfile.TemporaryDirectory(prefix="retrain-") as temporary:
        folder = Path(temporary)
        tree = checked_out(commit, folder / "base")
        for name in MODELS:
            if not (tree / "include" / "models" / name).is_dir():
                lines.append(f"| {name} | | | | | | is new |")
                continue
            model = load_model(name)
            base, ours = (scores_of(one, name, arguments, folder / f"{name}.parquet") for one in (tree, ROOT))
            found = compared(model, base, ours)
            said = verdict(model, found)
            worse |= said == "WORSE"
            lines += told(name, found, said)
    return "\n".join(lines), worse


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.retrain", description=__doc__.splitlines()[0])
    parser.add_argument("--base", default="origin/main", help="the commit to compare with")
    parser.add_argument(
        "--mornings", type=int, default=len(MORNINGS), choices=range(1, len(MORNINGS) + 1), help="how many of them"
    )
    parser.add_argument("--trials", type=int, help="parameter sets per search; the model.yaml's by default")
    parser.add_argument("--scores", metavar="MODEL", help="write what models of this tree say, and compare nothing")
    parser.add_argument("--file", type=Path, help="where --scores writes")
    asked = parser.parse_args()
    mornings = MORNINGS[: asked.mornings]
    if asked.scores:
        pq.write_table(scores(load_model(asked.scores), mornings, asked.trials), asked.file)
        return 0
    arguments = ["--mornings", str(asked.mornings), *(["--trials", str(asked.trials)] if asked.trials else [])]
    try:
        page, worse = report(asked.base, mornings, arguments)
    except NothingToCompare as error:
        print(f"### Retrained\n\nNothing to compare with: {error}.")
        return 0
    print(page)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
