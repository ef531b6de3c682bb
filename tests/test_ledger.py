"""The ledger: one record per key, whole or not there, in the order in which it was written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from include import ledger


def test_a_key_is_written_once(lake: Path) -> None:
    assert ledger.append("publication", "flights", "2013-04-01.v1", {"rows": 1})
    assert not ledger.append("publication", "flights", "2013-04-01.v1", {"rows": 2})
    (record,) = ledger.read("publication", "flights")
    assert record.body == {"rows": 1} and record.key == "2013-04-01.v1"


def test_records_come_in_the_order_of_writing(lake: Path) -> None:
    for key in ("b", "a", "c"):
        ledger.append("promotion", "flights", key, {})
    assert [record.key for record in ledger.read("promotion", "flights")] == ["b", "a", "c"]
    assert [record.key for record in ledger.read("promotion", "flights", prefix="a")] == ["a"]
    assert ledger.read("promotion", "other") == []


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a\nb", "a b", "x" * 200, "a..b"])
def test_a_name_cannot_leave_its_folder(lake: Path, name: str) -> None:
    with pytest.raises(ledger.InvalidRecord, match="ledger key"):
        ledger.append("publication", "flights", name, {})
    assert not list(lake.rglob("*.json"))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_is_not_json_is_refused(lake: Path, value: object) -> None:
    with pytest.raises(ledger.InvalidRecord, match="not plain JSON"):
        ledger.append("verdict", "flights", "x", {"auc": value})
    assert ledger.read("verdict", "flights") == []


def test_a_damaged_record_is_not_taken_for_none(lake: Path) -> None:
    ledger.append("verdict", "flights", "x", {})
    (file,) = lake.rglob("x.json")
    file.write_text(file.read_text()[:20])
    with pytest.raises(ledger.InvalidRecord, match=r"x\.json: damaged"):
        ledger.read("verdict", "flights")


def test_of_many_writers_one_wins(lake: Path) -> None:
    script = "from include import ledger; print(ledger.append('promotion', 'flights', 'the-one', {}))"
    environment = {**os.environ, "AILERON_LAKE": str(lake)}
    writers = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, text=True) for _ in range(6)
    ]
    said = [writer.communicate(timeout=120)[0].split()[-1] for writer in writers]
    assert sorted(said) == ["False"] * 5 + ["True"]
    assert len(ledger.read("promotion", "flights")) == 1


def test_a_writer_killed_anywhere_leaves_no_half_record(lake: Path) -> None:
    script = (
        "from include import ledger\nfor i in range(10**6): ledger.append('verdict', 'flights', f'{i:08}', {'text': 'x' * 5000})"
    )
    writer = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "AILERON_LAKE": str(lake)})
    folder = lake / "ledger" / "verdict" / "flights"
    while not folder.is_dir() or len(list(folder.glob("*.json"))) < 20:
        assert writer.poll() is None
        time.sleep(0.05)
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    records = ledger.read("verdict", "flights")
    assert len(records) >= 20 and all(len(record.body["text"]) == 5000 for record in records)


def test_who_comes_second_gets_what_the_first_has_said() -> None:
    first = ledger.once("verdict", "flight_delays", "k", {"outcome": "HOLD"})
    assert ledger.once("verdict", "flight_delays", "k", {"outcome": "PROMOTE"}) == first
    assert [record.body["outcome"] for record in ledger.read("verdict", "flight_delays")] == ["HOLD"]
