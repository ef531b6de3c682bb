"""Labels that are bought: after an alarm, where none come by themselves in time, within the budget of a month.

A request is a record and a folder of the label queue. Whoever labels, people or a service, reads its rows and writes the
answers beside them; a run of label_<model> waits for these and judges the model by them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from include import ledger
from include.config import ModelConfig
from include.core import quality

REQUEST, ANSWER = "label_request", "label_answer"

DAYS = 28  # at most, up to the partition: since the change began
FEWEST = 30  # rows; fewer would tell nothing


def bands(edges: Sequence[float]) -> list[float]:
    """Four of a model's score edges, so that its scores lie in five bands of about equal frequency."""
    return sorted({edges[len(edges) * part // 5] for part in range(1, 5)}) if edges else []


def request(model: ModelConfig, run: Mapping[str, Any], verdict: Mapping[str, Any]) -> tuple[list[dict[str, Any]], str]:
    """Ask for labels of the days up to a partition: the run to start for it, and why, or none and why not.

    Asked twice it is asked once: the first answer stands, whatever has been spent meanwhile.
    """
    key = verdict["key"]
    given = ledger.find(REQUEST, model.name, key)
    if given is None:
        rows, why = _granted(model, run["partition"])
        body = {
            "partition": run["partition"],
            "since": verdict["since"],
            "model_version": run["version"]["version"],
            "rows": rows,
            "cost": rows * model.labelling.cost_per_row,
            "why": why,
            "evidence": list(verdict["sentences"]),
            "page": verdict["page"],
        }
        ledger.append(REQUEST, model.name, key, body)
        given = ledger.find(REQUEST, model.name, key)
        assert given is not None
    if not given.body["rows"]:
        return [], given.body["why"]
    return [{"trigger_run_id": f"labels__{key}", "conf": {"request": key}}], given.body["why"]


def judge(model: ModelConfig, version: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> quality.Quality:
    """What the answers say of the model.

    Each answered row stands for as many as its stratum has, divided by those of it that were answered, so that the sample
    speaks for all rows. An answer that never came is not taken for either label.
    """
    answered = [answer for answer in answers if answer["label"] is not None]
    population = {(answer["partition"], answer["band"]): answer["population"] for answer in answered}
    of_stratum = Counter((answer["partition"], answer["band"]) for answer in answered)
    weight = {stratum: population[stratum] / count for stratum, count in of_stratum.items()}
    total = sum(population.values())
    promised = version["metrics"].get("rmse")
    sums: dict[date, list[float]] = {}
    for answer in answered:
        # Scaled so that the weights add up to the rows that were answered: a sample is not more sure for being weighted.
        share = weight[answer["partition"], answer["band"]] * len(answered) / total
        if model.task == "classification":
            loss, expected = quality.log_loss(answer["label"], answer["score"])
        else:
            loss, expected = (answer["label"] - answer["score"]) ** 2, promised**2
        day = sums.setdefault(answer["partition"], [0.0, 0.0, 0.0])
        for place, value in enumerate((share, share * loss, share * expected)):
            day[place] += value
    days = [quality.DayLoss(day, *values) for day, values in sums.items()]
    fewest = min(model.quality.min_labelled, len(answers) // 2)
    rules = quality.Rules(model.quality.max_excess_loss, model.quality.false_alarms, max(fewest, FEWEST))
    return quality.judge_decay(days, rules)


def _granted(model: ModelConfig, partition: str) -> tuple[int, str]:
    """How many labels may be bought for an alarm on a partition, and why."""
    budget, wanted = model.labelling.rows_per_month, model.labelling.rows_per_request
    if not wanted:
        return 0, f"{model.name} buys no labels: labelling.rows_per_request is 0"
    month = [r.body for r in ledger.read(REQUEST, model.name) if r.body["partition"][:7] == partition[:7]]
    spent = sum(body["rows"] for body in month)
    granted = min(wanted, budget - spent)
    if granted < FEWEST:
        return 0, f"{spent} of the {budget} labels of {partition[:7]} are spent: labelling.rows_per_month"
    return granted, f"{granted} labels asked for, {spent} of the {budget} of {partition[:7]} had been"
