"""The tasks of monitor_<model> that are the same on every platform: what was measured becomes a verdict, and acts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date, timedelta
from typing import Any

from airflow.sdk.exceptions import AirflowSkipException

from include import champions, documents, labelling, ledger, monitoring_page, notices, partitions, retraining
from include.config import ModelConfig, settings
from include.core import alarms, quality
from include.core.files import json_bytes
from include.model_task import model_task
from include.monitoring_sql import QualityRow
from include.platforms import platform_for
from include.tasks import history
from include.tasks.findings import PAGE, findings, index_entries, read_profiles

log = logging.getLogger(__name__)

WEEKLY = 7  # isoweekday on which pairs are judged: how two columns go together is a matter of weeks


@model_task
def find_publication(
    model: ModelConfig, *, dag_run: Any = None, params: Any = None, triggering_asset_events: Any = None
) -> dict[str, Any]:
    """Which publication is this run about, which version has scored it, and where did it come from?

    Raises:
        NoPartition: if the run names no partition, or one that was never published.
    """
    partitions.refuse_unknown_conf(dag_run, "partition")
    day = partitions.partition_of(dag_run, params)
    published = history.published(model.name).get(day.isoformat())
    if published is None:
        raise partitions.NoPartition(f"{model.name}: partition {day} was never published: run predict_{model.name} for it first")
    change = champions.promotion_of(model.name, published.body["model_version"])
    if change is None:
        raise ledger.InvalidRecord(
            f"{model.name}: the ledger has no promotion of version {published.body['model_version']}, which has scored {day}: "
            "restore it from a backup"
        )
    manifest = platform_for(model).manifest_of(model, asdict(change.version))
    last = day - timedelta(days=model.labels.delay_days)
    first = max(model.start, last - timedelta(days=max(quality.WINDOWS) - 1))
    trained_to = date.fromisoformat(manifest["holdout"]["last"])
    publication = published.body["version"]
    run = {
        "partition": day.isoformat(),
        "publication": publication,
        "rows": published.body["rows_scored"],
        "origin": _origin(published, triggering_asset_events),
        "version": asdict(change.version),
        "trained_to": trained_to.isoformat(),
        "former": _former(model, change, day),
        "pairs": _pairs(model, manifest),
        "matured": {"first": first.isoformat(), "last": last.isoformat()} if first <= last else None,
        "folder": f"{platform_for(model).monitoring_folder(model)}/{day}/v{publication:05d}",
        "dag_id": dag_run.dag_id,
        "run_id": dag_run.run_id,
        "workspace": partitions.workspace_of(dag_run),
        "links": [{"text": "Checks before it was published", "page": published.body["page"]}],
    }
    log.info("%s, publication %d, by version %s, asked for by: %s", day, publication, change.version.version, run["origin"])
    return run


def _origin(published: ledger.Record, events: Any) -> str:
    """Where the partition comes from: what its events say, and its record. If one of them looks at the past, that one."""
    told = [event.extra.get("origin") for each in (events or {}).values() for event in each if event.extra.get("origin")]
    origins = [*told, published.body["origin"]]
    return next((origin for origin in origins if origin not in retraining.ORIGINS_THAT_MAY_ASK), origins[0])


def _former(model: ModelConfig, change: champions.Change, day: date) -> dict[str, Any] | None:
    """The champion that is to be compared with, as long as the present one is on probation."""
    now = champions.history(model.name)[-1]
    on_probation = (day - change.as_of).days <= model.quality.probation_days
    if now.number != change.number or change.previous is None or not on_probation:
        return None
    before = champions.promotion_of(model.name, change.previous)
    return asdict(before.version) if before else None


def _pairs(model: ModelConfig, manifest: dict[str, Any]) -> list[list[str]]:
    importance = manifest.get("importance", {})  # the oldest artifacts do not tell
    chosen = sorted(model.features.names, key=lambda name: -importance.get(name, 0.0))[: model.drift.pairs_of]
    return [[a, b] for number, a in enumerate(chosen) for b in chosen[number + 1 :]]


@model_task
def compare(model: ModelConfig, run: dict[str, Any], profiled: dict[str, Any]) -> dict[str, Any]:
    """Every column against the days before and against what it has done in the past; the findings are a document."""
    from include.core import drift  # numpy; not while DAGs are parsed

    day = partitions.parse(run["partition"])
    profiles = read_profiles(profiled)
    broken = {e.partition: set(e.columns) for e in _earlier(model, day) if e.outcome == "broken data"}
    days = {each: _without(broken.get(each, set()), profile.columns) for each, profile in profiles.items()}
    pairs_of = {each: _without(broken.get(each, set()), profile.pairs) for each, profile in profiles.items()}
    trained_on = platform_for(model).manifest_of(model, run["version"])["reference"]["features"]
    rules = drift.Rules(model.drift.tolerance, model.drift.false_alarms, model.drift.min_rows)
    comparisons = drift.compare(days, day, rules)
    pairs = drift.compare_pairs(pairs_of, day, rules) if day.isoweekday() == WEEKLY else []
    found = {
        "comparisons": [asdict(one) for one in comparisons],
        "pairs": [asdict(one) for one in pairs],
        "faults": [asdict(one) for one in drift.faults(days, day, comparisons, trained_on)],
    }
    place = f"{run['folder']}/comparisons.json"
    documents.write(place, json_bytes(found))
    alarmed = sorted({one["column"] for one in (*found["comparisons"], *found["pairs"]) if one["state"] == "alarm"})
    log.info("%d columns compared; beyond their limit: %s", len(profiles[day].columns), ", ".join(alarmed) or "none")
    return {"document": place, "columns": len(profiles[day].columns), "alarmed": alarmed}


def _without(broken: set[str], columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns, or pairs of them, that were not found broken on their day: what was is no measure of what is usual. The
    others stay, or a week would be short of its Monday. "*" is the whole day."""
    return {name: cells for name, cells in columns.items() if "*" not in broken and not broken & set(name.split(" × "))}


@model_task
def decide(model: ModelConfig, run: dict[str, Any], compared: dict[str, Any], matured: dict[str, Any]) -> dict[str, Any]:
    """What it all means, and what is to be done. Recorded once for each publication: a retry says what was said."""
    from include.core import drift  # numpy; not while DAGs are parsed

    day, found = partitions.parse(run["partition"]), documents.read_json(compared["document"])
    rows = [QualityRow.from_json(row) for row in documents.read_json(matured["document"])["rows"]]
    former = [QualityRow.from_json(row) for row in documents.read_json(matured["document"])["former"]]
    _record_matured(model, rows)
    rules, lost = quality_rules(model), losses(run, rows, run["version"]["version"])
    judged = quality.judge_decay(lost, rules)
    measured = alarms.Measured(
        comparisons=[drift.Comparison(**one) for one in found["comparisons"]],
        pairs=[drift.PairComparison(**one) for one in found["pairs"]],
        faults=[drift.Fault(**one) for one in found["faults"]],
        quality=judged,
        former=quality.judge_former(lost, losses(run, former, run["former"]["version"]), rules) if run["former"] else None,
        labels_in_time=_labels_in_time(model, run, rows),
    )
    may_ask = run["origin"] in retraining.ORIGINS_THAT_MAY_ASK
    verdict = alarms.judge(day, measured, _earlier(model, day), model.drift.cooldown_days, may_ask)
    key = f"{day}.v{run['publication']:05d}"
    body = {
        **verdict.to_json(),
        "partition": run["partition"],
        "publication": run["publication"],
        "rows": run["rows"],
        "model_version": run["version"]["version"],
        "origin": run["origin"],
        "quality": judged.to_json(),
        "former": {"version": run["former"]["version"], **measured.former.to_json()} if measured.former else None,
        "page": f"{run['folder']}/{PAGE}",
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "git_revision": settings().revision,
    }
    said = ledger.once(history.VERDICT, model.name, key, body)
    log.info("%s: %s", said.body["outcome"], " ".join(said.body["sentences"]) or "nothing has changed that matters")
    told = ("outcome", "sentences", "notes", "since", "actions", "repeated", "page")
    return {"key": key, **{name: said.body[name] for name in told}}


@model_task
def report(
    model: ModelConfig,
    run: dict[str, Any],
    profiled: dict[str, Any],
    compared: dict[str, Any],
    matured: dict[str, Any],
    verdict: dict[str, Any],
    *,
    ti: Any = None,
    dag_run: Any = None,
) -> dict[str, Any]:
    """The page of this run, the index of all, and a mail where a person must know."""
    said = ledger.find(history.VERDICT, model.name, verdict["key"])
    assert said is not None
    document = findings(model, run, profiled, compared, matured, said.body)
    page = said.body["page"]
    documents.write(page, monitoring_page.render(model.title, document).encode())
    index = f"{platform_for(model).monitoring_folder(model)}/index.html"
    documents.write(index, monitoring_page.render_index(model.title, index_entries(model)).encode())
    ti.xcom_push("page", page)
    log.info("page: %s", page)
    if run["origin"] in retraining.ORIGINS_THAT_MAY_ASK:  # of the past there are no figures of today
        platform_for(model).record_figures(model, _figures(run, compared, said.body))
    if "mail" in verdict["actions"]:
        mail(model, {**said.body, "key": verdict["key"]}, dag_run)
    return {"page": page, "index": index}


def _figures(run: dict[str, Any], compared: dict[str, Any], verdict: dict[str, Any]) -> dict[str, float]:
    """What a dashboard shows of a run; losses are those of the longest window that could be judged."""
    figures = {
        "Alarm": float(verdict["outcome"] not in ("ok", "cannot judge")),
        "ColumnsBeyondLimit": float(len(compared["alarmed"])),
        "PublishedRows": float(run["rows"]),
    }
    judged = [window for window in verdict["quality"]["windows"] if window["loss"] is not None]
    if judged:
        figures |= {"Loss": judged[-1]["loss"], "LabelledRows": float(judged[-1]["labelled"])}
        if judged[-1]["expected"] is not None:
            figures["ExpectedLoss"] = judged[-1]["expected"]
    return figures


@model_task
def request_labels(model: ModelConfig, run: dict[str, Any], verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Put rows into the label queue, as far as the budget goes; the run of label_<model> that waits for their answers."""
    _only_if("request labels", verdict)
    runs, why = labelling.request(model, run, verdict)
    log.info("%s", why)
    if not runs:
        raise AirflowSkipException(why)
    return runs


@model_task
def request_training(model: ModelConfig, run: dict[str, Any], verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Ask for a training with the evidence; the run of train_<model> that is to answer. The governor has the last word."""
    _only_if("request training", verdict)
    evidence = {name: verdict[name] for name in ("outcome", "sentences", "since", "key")}
    return retraining.request_training(model, "quality_decay", partitions.parse(run["partition"]), run["origin"], evidence)


@model_task
def request_rollback(model: ModelConfig, run: dict[str, Any], verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """The run of rollback_<model> that withdraws the new champion, if it still is the champion when that run comes."""
    _only_if("roll back", verdict)
    withdraw, to = int(run["version"]["version"]), int(run["former"]["version"])
    conf = {"version": to, "withdraw": withdraw, "why": f"monitoring of {run['partition']}: {verdict['sentences'][0]}"[:500]}
    return [{"trigger_run_id": f"worse_champion__{withdraw}__{run['partition']}", "conf": conf}]


def _only_if(action: alarms.Action, verdict: dict[str, Any]) -> None:
    if action not in verdict["actions"]:
        again = ", repeated" if verdict["repeated"] else ""
        raise AirflowSkipException(f"nothing to do: the verdict is {verdict['outcome']}{again}")


def _earlier(model: ModelConfig, day: date) -> list[alarms.Earlier]:
    return [
        alarms.Earlier(date.fromisoformat(key), body["outcome"], tuple(body["columns"]), tuple(body["actions"]))
        for key, body in history.verdicts(model.name).items()
        if key < day.isoformat()
    ]


def quality_rules(model: ModelConfig) -> quality.Rules:
    chosen = model.quality
    return quality.Rules(chosen.max_excess_loss, chosen.false_alarms, chosen.min_labelled, max(1, chosen.probation_days))


def losses(run: dict[str, Any], rows: Sequence[QualityRow], version: str) -> list[quality.DayLoss]:
    """What a version has lost on the matured days that the run's version has not learned from."""
    promised = run["version"]["metrics"].get("rmse")
    return [
        quality.DayLoss(row.partition, row.labelled, row.loss_sum, _expected(row, promised))
        for row in rows
        if row.slice == "" and row.labelled and row.model_version == version and row.partition > _trained_to(run)
    ]


def _trained_to(run: dict[str, Any]) -> date:
    return partitions.parse(run["trained_to"])


def _expected(row: QualityRow, rmse: float | None) -> float:
    """The loss that a day was expected to have: a classification's scores say it, a regression was promoted with it."""
    if row.expected_sum is not None:
        return row.expected_sum
    if rmse is None:
        raise ValueError("the version was promoted without an rmse in its metrics, so nothing says what it is expected to lose")
    return rmse**2 * row.labelled


def _labels_in_time(model: ModelConfig, run: dict[str, Any], rows: Sequence[QualityRow]) -> bool:
    """Do labels come soon enough by themselves? The newest days that should have theirs are looked at."""
    if model.labels.delay_days > model.labelling.patience_days:
        return False
    overall = sorted((row for row in rows if row.slice == ""), key=lambda row: row.partition)[-quality.MIN_DAYS :]
    predicted = sum(row.rows for row in overall)
    return not predicted or sum(row.labelled for row in overall) >= model.gate.min_label_coverage * predicted


def _record_matured(model: ModelConfig, rows: Sequence[QualityRow]) -> None:
    """What was known of each day when its labels had first come; later labels do not change it."""
    there = {record.key for record in ledger.read(history.MATURED, model.name)}
    for row in rows:
        key = history.matured_key(row.partition, row.model_version)
        if row.slice == "" and row.labelled and key not in there:
            known = {"loss": row.loss, "expected": row.expected, "auc": row.auc, "coverage": row.coverage}
            ledger.append(history.MATURED, model.name, key, {**row.to_json(), **known})


def mail(model: ModelConfig, verdict: dict[str, Any], dag_run: Any) -> None:
    """Tell the owner, once for each verdict. `verdict`: its record, with its `key`."""
    outcome, shown = verdict["outcome"], verdict["sentences"][:6]
    more = len(verdict["sentences"]) - len(shown)
    notices.send(
        model,
        name=f"monitor-{model.name}-{verdict['key'].replace('.', '-')}",
        to=model.owner.emails,
        subject=f"{model.name}: {outcome} · {verdict['partition']}",
        paragraphs=[
            *shown,
            *([f"And {more} more; the page has them all."] if more else []),
            MEANING[outcome],
            *verdict["notes"],
            *([f"It goes on since {verdict['since']}."] if verdict["since"] != verdict["partition"] else []),
            *([f"Report: {verdict['page']}"] if verdict["page"] else []),
            "What to do: docs/runbooks/drift_monitoring.md",
        ],
        dag_run=dag_run,
    )


MEANING = {
    "broken data": "This is how broken data looks, not how the world changes. The predictions of the partition are published; "
    "nothing is learned from it until somebody has looked. Ask who delivers these columns.",
    "covariate drift": "The data has changed more than chance and its own past explain. Whether the predictions suffer, only "
    "labels can tell.",
    "quality decay": "The predictions have become worse than the model itself expects. A training has been requested.",
    "worse champion": "The champion before would have done better on the same rows. It is being made champion again, and what "
    "the new one has published is predicted again.",
    "cannot judge": "Until now it could be judged, now it cannot. That is not the same as no drift.",
}
