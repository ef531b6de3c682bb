"""Who is champion: one chain that nobody can fork, and aliases that follow it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from include import champions, ledger
from include.config import REPOSITORY
from include.registry import registry
from include.registry.base import ModelVersion, RegistryUnavailable

MODEL = "flight_delays"


def registered(number: int) -> ModelVersion:
    digest = f"{number:064x}"
    return registry().register(MODEL, f"/lake/models/{MODEL}/{number}", digest, {"auc": 0.7}, {})


def promote(version: ModelVersion, expected: int, workspace: str, as_of: str = "2013-04-01") -> champions.Change:
    return champions.promote(MODEL, version, date.fromisoformat(as_of), expected, workspace, {"reasons": ["better"]})


def aliases() -> tuple[str | None, str | None]:
    found = [registry().alias(MODEL, name) for name in ("champion", "previous")]
    return tuple(version.version if version else None for version in found)  # type: ignore[return-value]


def test_before_the_first_promotion_there_is_no_champion(lake: Path) -> None:
    assert champions.champion(MODEL) is None and champions.history(MODEL) == []
    champions.mirror(MODEL)
    assert aliases() == (None, None)
    with pytest.raises(champions.NothingToRollBackTo, match="no champion yet"):
        champions.roll_back(MODEL, None, "r1", {})


def test_promotions_are_a_chain_and_the_aliases_follow_it(lake: Path) -> None:
    one, two = registered(1), registered(2)
    first = promote(one, 0, "a" * 16)
    assert (first.number, first.previous, aliases()) == (1, None, ("1", None))
    second = promote(two, 1, "b" * 16)
    assert (second.number, second.previous, aliases()) == (2, "1", ("2", "1"))
    assert champions.champion(MODEL) == two
    assert promote(two, 1, "b" * 16) == second, "a retry finds what was done"
    assert len(champions.history(MODEL)) == 2


def test_who_was_compared_with_another_champion_loses_and_changes_nothing(lake: Path) -> None:
    one, two, three = (registered(number) for number in (1, 2, 3))
    promote(one, 0, "a" * 16)
    promote(two, 1, "b" * 16)
    with pytest.raises(champions.ChampionChanged, match=r"version 2 became champion \(change 2\) after change 1"):
        promote(three, 1, "c" * 16)
    assert aliases() == ("2", "1") and len(champions.history(MODEL)) == 2
    with pytest.raises(champions.ChampionChanged):
        promote(three, 0, "c" * 16)


def test_a_registry_that_is_down_after_the_decision_is_caught_up_by_the_retry(
    lake: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = registered(1), registered(2)
    promote(one, 0, "a" * 16)
    real, calls = registry().__class__.set_alias, []

    def down(self: Any, *arguments: Any) -> None:
        calls.append(arguments)
        raise RegistryUnavailable("down")

    monkeypatch.setattr(registry().__class__, "set_alias", down)
    with pytest.raises(RegistryUnavailable):
        promote(two, 1, "b" * 16)
    assert calls and champions.champion(MODEL) == two, "what was decided is decided"
    monkeypatch.setattr(registry().__class__, "set_alias", real)
    promote(two, 1, "b" * 16)
    assert aliases() == ("2", "1") and len(champions.history(MODEL)) == 2


def test_roll_back_goes_to_the_champion_before_and_is_done_once(lake: Path) -> None:
    one, two = registered(1), registered(2)
    promote(one, 0, "a" * 16, "2013-04-01")
    promote(two, 1, "b" * 16, "2013-05-01")
    change = champions.roll_back(MODEL, None, "r" * 16, {"reasons": ["bad"]})
    assert (change.number, change.action, change.version.version, change.previous) == (3, "roll_back", "1", "2")
    assert champions.roll_back(MODEL, None, "r" * 16, {"reasons": ["bad"]}) == change
    assert aliases() == ("1", "2") and len(champions.history(MODEL)) == 3
    with pytest.raises(champions.NothingToRollBackTo, match="champion is 1, and no version before it is left"):
        champions.roll_back(MODEL, None, "s" * 16, {})
    with pytest.raises(champions.NothingToRollBackTo, match="champion already"):
        champions.roll_back(MODEL, "1", "s" * 16, {})
    with pytest.raises(champions.NothingToRollBackTo, match="version 7 was never champion; former champions: 2"):
        champions.roll_back(MODEL, "7", "s" * 16, {})
    again = champions.roll_back(MODEL, "2", "s" * 16, {"reasons": ["it was not that"]})
    assert again.version == two and aliases() == ("2", "1")


def test_a_version_that_was_rolled_back_is_not_the_one_before(lake: Path) -> None:
    for number in (1, 2, 3):
        promote(registered(number), number - 1, f"{number:016x}", f"2013-0{number}-01")
    champions.roll_back(MODEL, None, "r" * 16, {})  # 3 → 2
    change = champions.roll_back(MODEL, None, "s" * 16, {})  # 2 → 1, not back to 3
    assert change.version.version == "1"
    as_of = {month: champions.champion_as_of(MODEL, date(2013, month, 15)) for month in (1, 2, 3)}
    assert {month: version and version.version for month, version in as_of.items()} == {1: "1", 2: "1", 3: "1"}


def test_who_was_champion_at_a_moment(lake: Path) -> None:
    before = datetime.now(UTC)
    promote(registered(1), 0, "a" * 16)
    between = datetime.now(UTC)
    promote(registered(2), 1, "b" * 16)
    after = datetime.now(UTC)
    found = [champions.champion_at(MODEL, moment) for moment in (before, between, after)]
    assert [change and change.version.version for change in found] == [None, "1", "2"]


RACER = """
import sys
from datetime import date
from include import champions
from include.registry.base import ModelVersion
number, expected = sys.argv[1:]
version = ModelVersion("flight_delays", number, f"/lake/{number}", f"{int(number):064x}", {})
champions.mirror = lambda model: None
sys.stdin.readline()
try:
    champions.promote("flight_delays", version, date(2013, 4, 1), int(expected), f"{int(number):016x}", {"reasons": []})
    print("won")
except champions.ChampionChanged:
    print("lost")
"""


def test_of_runs_that_race_to_promote_one_wins(lake: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, str(number), "0"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for number in range(1, 5)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    outcomes = [racer.communicate(timeout=120)[0].strip() for racer in racers]
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]
    (change,) = champions.history(MODEL)
    assert outcomes[int(change.version.version) - 1] == "won"


def test_a_damaged_record_is_no_champion_less(lake: Path) -> None:
    promote(registered(1), 0, "a" * 16)
    (file,) = (lake / "ledger" / "promotion" / MODEL).glob("*.json")
    record = json.loads(file.read_text())
    del record["body"]["artifact"]
    file.write_text(json.dumps(record))
    with pytest.raises(ledger.InvalidRecord, match=r"promotion/flight_delays/000001.*artifact"):
        champions.champion(MODEL)
