"""What the demo shows at its end is what the ledger says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.results import MONITORED_HEADER, TRAININGS_HEADER, monitored, table, trainings
from include import ledger

MODEL = "flight_delays"
SUPERIORITY = {"check": "superiority", "sentence": "Log loss 0.5 of the champion, 0.4 of the challenger: shown to be better."}


def verdict(as_of: str, outcome: str, rule: str, findings: list[dict[str, Any]], champion: str | None, auc: float) -> str:
    key = f"{as_of}.run.{auc}"
    body = {
        "as_of": as_of,
        "outcome": outcome,
        "rule": rule,
        "findings": findings,
        "champion": champion,
        "metrics": {"auc": auc, "log_loss": 0.4},
        "champion_metrics": {"auc": 0.7, "log_loss": 0.5} if champion else {},
        "page": f"/lake/{key}.html",
    }
    ledger.append("verdict", MODEL, key, body)
    return key


def promotion(number: int, version: str, key: str | None, by: str | None = None) -> None:
    approval = {"needed": by is not None, "approved": True} | ({"by": by} if by else {})
    facts = {"verdict": key, "approval": approval} if key else {}
    ledger.append("promotion", MODEL, f"{number:06d}", {**facts, "number": number, "version": version})


def test_a_training_is_shown_with_its_verdict_and_who_was_champion_then(lake: Path) -> None:
    passed = {"check": "floor auc", "outcome": "PROMOTE", "sentence": "AUC 0.7 is at or above its floor 0.6."}
    first = {"check": "first model", "outcome": "PROMOTE", "sentence": "No champion yet, and the model passes every check."}
    promotion(1, "1", verdict("2013-04-01", "PROMOTE", "first model", [passed, first], None, 0.701), by="ada")
    better = SUPERIORITY | {"outcome": "PROMOTE"}
    promotion(2, "2", verdict("2013-07-01", "PROMOTE", "superiority", [passed, better], "1", 0.77))
    promotion(3, "1", None)  # a rollback, which comes of no verdict
    worse = {"check": "superiority", "outcome": "REJECT", "sentence": "Log loss 0.4, 0.5: shown to be worse."}
    slices = [{"check": f"slice origin = {name}", "outcome": "REJECT", "sentence": "worse: far."} for name in ("EWR", "JFK")]
    verdict("2013-09-01", "REJECT", "superiority", [*slices, passed, worse], "1", 0.723)
    few = {"check": "rows", "outcome": "HOLD", "sentence": "The holdout has 10 labelled rows; at least 500 are needed."}
    verdict("2013-09-08", "HOLD", "superiority", [few, worse], "1", 0.72)

    rows = trainings(lake, MODEL)
    assert [row[:2] + row[3:8] for row in rows] == [
        ("2013-04-01", "PROMOTE", "0.701", None, "0.400", None, "1"),
        ("2013-07-01", "PROMOTE", "0.770", "0.700", "0.400", "0.500", "2"),
        ("2013-09-01", "REJECT", "0.723", "0.700", "0.400", "0.500", "1"),
        ("2013-09-08", "HOLD", "0.720", "0.700", "0.400", "0.500", "1"),
    ]
    assert [row[8] for row in rows] == [
        "the model passes every check; ada agreed",
        "shown to be better",
        "shown to be worse, and 2 more findings",
        "The holdout has 10 labelled rows; at least 500 are needed",
    ]
    assert rows[0][-1] == "/lake/2013-04-01.run.0.701.html"
    shown = table(TRAININGS_HEADER, [row[:-1] for row in rows]).splitlines()
    assert len(shown) == 5 and len({len(line) for line in shown}) == 1


def test_no_training_is_no_row(lake: Path) -> None:
    assert trainings(lake, MODEL) == []


@pytest.mark.parametrize("outcome", ["HOLD", "REJECT"])
def test_a_first_model_that_is_not_promoted_leaves_nobody(lake: Path, outcome: str) -> None:
    low = {"check": "floor auc", "outcome": outcome, "sentence": "AUC 0.55 is below its floor 0.6, beyond chance."}
    verdict("2013-04-01", outcome, "first model", [low], None, 0.55)
    assert trainings(lake, MODEL)[0][7:9] == (None, "AUC 0.55 is below its floor 0.6, beyond chance")


def test_what_monitoring_said_is_shown_by_partition(lake: Path) -> None:
    assert monitored(lake, MODEL) == []
    for day, outcome, columns, sentences, actions in (
        ("2013-09-16", "covariate drift", ["hour", "origin"], ["hour: it grew", "more"], ["mail", "request labels"]),
        ("2013-09-15", "ok", [], [], []),
    ):
        body = {"partition": day, "publication": 1, "outcome": outcome, "columns": columns, "sentences": sentences}
        body |= {"actions": actions, "page": f"/{day}"}
        ledger.append("monitoring_verdict", MODEL, f"{day}.v00001", body)
    fine, alarm = monitored(lake, MODEL)
    assert fine[:2] == ("2013-09-15", "ok") and not any(fine[2:5])
    assert alarm == ("2013-09-16", "covariate drift", "hour, origin", "mail, request labels", "hour: it grew", "/2013-09-16")
    assert len(MONITORED_HEADER) == len(alarm) - 2
