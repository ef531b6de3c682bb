"""The evaluate job: both models on the rows that neither has seen, as one document, or a refusal that says why not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from include.core.artifacts import CorruptArtifact, load_artifact, predict
from include.core.errors import Refused
from include.core.evaluation import evaluate
from include.core.features import encode
from include.core.files import sha256_of
from include.core.gates import Circumstances, Rules, judge
from include.jobs import evaluate as job
from tests.core.examples import delays, flights, saved
from tests.core.test_artifacts import with_golden_scores
from tests.jobs.running import refusal, run

RULES = Rules(
    task="classification",
    floors={"auc": 0.55},
    alpha=0.05,
    max_holdout_uses=3,
    margin=0.005,
    slices=("origin", "carrier"),
    slice_margin=0.05,
    min_slice_rows=100,
    max_calibration_error=0.2,
    min_rows=500,
    min_positives=50,
    min_label_coverage=0.9,
    max_megabytes=100,
    max_seconds_per_million=600,
    max_champion_age_days=None,
)


def of_days(rows: pa.Table, last: date) -> pa.Table:
    return rows.filter(pc.less_equal(rows["partition_date"], pa.scalar(last)))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Folder and digest of models by the last day that they were trained on; the last three days of their rows are held out."""
    folder = tmp_path_factory.mktemp("models")
    made = {
        "5th": (folder / "5th", saved(folder / "5th", of_days(flights(), date(2013, 1, 8)))),
        "9th": (folder / "9th", saved(folder / "9th")),
        "minutes": (folder / "minutes", saved(folder / "minutes", task="regression")),
    }
    return {name: (str(path), digest) for name, (path, digest) in made.items()}


def spec_of(
    folder: Path, challenger: tuple[str, str], champion: tuple[str, str] | None, rows: pa.Table, **more: Any
) -> job.EvaluateSpec:
    snapshot = folder / "partition_date=2013-01-12" / "data.parquet"
    snapshot.parent.mkdir(exist_ok=True)
    pq.write_table(rows, snapshot, row_group_size=700)
    return job.EvaluateSpec(
        snapshot=str(snapshot),
        snapshot_sha256=sha256_of(snapshot),
        artifact=challenger[0],
        manifest_sha256=challenger[1],
        result=str(folder / "evaluation.json"),
        champion_artifact=champion[0] if champion else None,
        champion_manifest_sha256=champion[1] if champion else None,
        **{"slices": ("origin", "carrier"), **more},
    )


@pytest.fixture
def spec(models: dict[str, tuple[str, str]], tmp_path: Path) -> job.EvaluateSpec:
    return spec_of(tmp_path, models["9th"], models["5th"], flights())


def evaluated(spec: job.EvaluateSpec) -> dict[str, Any]:
    job.run(spec)
    return json.loads(Path(spec.result).read_bytes())


def scores(model: tuple[str, str], rows: pa.Table) -> np.ndarray:
    artifact = load_artifact(Path(model[0]), model[1])
    return predict(artifact.booster, encode(rows.combine_chunks().to_batches()[0], artifact.spec)[0])


def test_both_models_are_measured_on_the_rows_later_than_both(spec: job.EvaluateSpec, models: dict, tmp_path: Path) -> None:
    done = run("evaluate", json.loads(json.dumps(vars(spec))), tmp_path)
    assert done.returncode == 0, done.stderr
    assert "evaluated on 750 rows of 2013-01-10 to 2013-01-12" in done.stdout
    found = json.loads(Path(spec.result).read_bytes())
    rows = flights()[2250:]
    labels = rows["label"].to_numpy()
    assert (found["task"], found["rows"], found["positives"]) == ("classification", 750, int(labels.sum()))
    assert (found["first"], found["last"]) == ("2013-01-10", "2013-01-12")
    for role, name, trained_to, trained_rows in (
        ("challenger", "9th", "2013-01-09", 2250),
        ("champion", "5th", "2013-01-05", 1250),
    ):
        one, expected = found[role], evaluate("classification", labels, scores(models[name], rows))
        assert {metric: value["value"] for metric, value in one["metrics"].items()} == pytest.approx(expected)
        assert (one["trained_from"], one["trained_to"], one["training_rows"]) == ("2013-01-01", trained_to, trained_rows)
        assert one["manifest_sha256"] == models[name][1]
        assert 0 < one["megabytes"] < 1 and 0 < one["seconds_per_million"] < 600
        assert sum(item["rows"] for item in one["calibration"]) == 750
    assert [item["metric"] for item in found["comparisons"]] == ["log_loss", "auc", "brier"]
    assert {one["feature"] for one in found["data_changes"]} and 0 <= found["churn"] <= 1


def test_the_document_has_the_keys_that_its_readers_know(spec: job.EvaluateSpec) -> None:
    found = evaluated(spec)
    whole = "task rows positives first last partitions challenger champion comparisons slices churn scores data_changes"
    model = "manifest_sha256 trained_from trained_to training_rows metrics calibration calibration_error roc pr megabytes"
    of_slice = "column value rows positives challenger_loss champion_loss improvement standard_error groups"
    of_slice += " challenger_auc champion_auc"
    assert set(found) == set(whole.split())
    assert set(found["challenger"]) == set(found["champion"]) == {*model.split(), "seconds_per_million"}
    assert set(found["comparisons"][0]) == {"metric", "champion", "challenger", "improvement", "standard_error", "groups"}
    assert set(found["slices"][0]) == set(of_slice.split())
    assert set(found["scores"]) == {"edges", "challenger", "champion"}


def test_slices_hold_every_row_and_name_what_is_missing(spec: job.EvaluateSpec) -> None:
    found = evaluated(spec)["slices"]
    carriers = {item["value"]: item["rows"] for item in found if item["column"] == "carrier"}
    assert set(carriers) == {"AA", "DL", "UA", "WN", "(missing)"} and sum(carriers.values()) == 750
    assert carriers["(missing)"] == flights()["carrier"][2250:].null_count
    assert carriers["UA"] == pc.sum(pc.equal(flights()["carrier"][2250:], "UA")).as_py()


def test_batches_are_of_no_consequence(spec: job.EvaluateSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = evaluated(spec)
    monkeypatch.setattr(job, "BATCH_ROWS", 97)
    parts = evaluated(spec)
    for document in (whole, parts):
        for role in ("challenger", "champion"):
            del document[role]["seconds_per_million"]
    assert whole == parts


def test_without_a_champion_there_is_nothing_to_compare(models: dict, tmp_path: Path) -> None:
    for champion in (None, ("", "")):
        found = evaluated(spec_of(tmp_path, models["9th"], champion, flights()))
        assert found["champion"] is None and found["comparisons"] == [] and found["churn"] is None
        assert found["rows"] == 750 and found["scores"]["champion"] is None
        circumstances = Circumstances(False, None, 1.0, 0, True)
        verdict = judge(found, RULES, circumstances)
        assert (verdict.outcome, verdict.rule) == ("PROMOTE", "first model"), verdict.reasons


def test_a_gate_can_judge_what_the_job_writes(models: dict, tmp_path: Path) -> None:
    circumstances = Circumstances(False, 7, 1.0, 0, True)
    found = evaluated(spec_of(tmp_path, models["9th"], models["5th"], flights()))
    verdict = judge(found, RULES, circumstances)
    assert verdict.rule == "superiority"
    assert any(finding.check == "superiority" for finding in verdict.findings), verdict.reasons
    itself = evaluated(spec_of(tmp_path, models["9th"], models["9th"], flights()))
    assert {item["improvement"] for item in itself["comparisons"]} == {0} and itself["churn"] == 0
    assert judge(itself, RULES, circumstances).outcome == "HOLD"


def test_rows_that_only_the_champion_has_seen_are_no_holdout(models: dict, tmp_path: Path) -> None:
    found = evaluated(spec_of(tmp_path, models["5th"], models["9th"], flights()))
    assert found["first"] == "2013-01-10" and found["rows"] == 750
    assert evaluated(spec_of(tmp_path, models["5th"], None, flights()))["first"] == "2013-01-06"


def test_no_later_rows_are_refused_with_the_model_that_has_seen_them(models: dict, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, models["5th"], models["9th"], of_days(flights(), date(2013, 1, 9)))
    said = refusal(run("evaluate", json.loads(json.dumps(vars(spec))), tmp_path))
    assert "no row later than 2013-01-09, the last day that the champion was trained on" in said
    assert not Path(spec.result).exists()


@pytest.mark.parametrize("damage", ["missing", "changed", "no folder", "digest", "half", "other half"])
@pytest.mark.parametrize("role", ["challenger", "champion"])
def test_a_damaged_model_is_refused_by_its_role(spec: job.EvaluateSpec, tmp_path: Path, damage: str, role: str) -> None:
    prefix = "champion_" if role == "champion" else ""
    folder = tmp_path / "damaged"
    shutil.copytree(getattr(spec, f"{prefix}artifact"), folder)
    change: dict[str, Any] = {f"{prefix}artifact": str(folder)}
    if damage == "missing":
        (folder / "model.ubj").unlink()
    elif damage == "changed":
        content = bytearray((folder / "model.ubj").read_bytes())
        content[len(content) // 2] ^= 1
        (folder / "model.ubj").write_bytes(content)
    elif damage == "no folder":
        shutil.rmtree(folder)
    elif damage == "digest":
        change[f"{prefix}manifest_sha256"] = "0" * 64
    elif damage == "half":
        change[f"{prefix}manifest_sha256"] = ""
    else:
        change[f"{prefix}artifact"] = ""
    with pytest.raises(CorruptArtifact, match=f"^the {role}: "):
        job.run(replace(spec, **change))
    assert not Path(spec.result).exists()


def test_a_champion_that_no_longer_scores_as_it_did_is_refused(spec: job.EvaluateSpec, tmp_path: Path) -> None:
    folder = tmp_path / "champion"
    shutil.copytree(spec.champion_artifact or "", folder)
    digest = with_golden_scores(folder, 0.01)
    with pytest.raises(CorruptArtifact, match=r"the champion: .*golden rows"):
        job.run(replace(spec, champion_artifact=str(folder), champion_manifest_sha256=digest))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"snapshot_sha256": "0" * 64}, "take the snapshot again"),
        ({"label": "late"}, "no column 'late'"),
        ({"label": "origin"}, "the label 'origin' holds string"),
        ({"label": "hour"}, "is not 0 or 1"),
        ({"slices": ("airport",)}, "list of slices: column 'airport' is missing"),
        ({"slices": ("hour",)}, "list of slices: column 'hour' holds int64"),
        ({"task": "ranking"}, "task is 'ranking'"),
        ({"task": "regression"}, "is a classification, not a regression"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(spec: job.EvaluateSpec, change: dict[str, Any], message: str) -> None:
    with pytest.raises(Refused, match=message):
        job.run(replace(spec, **change))
    assert not Path(spec.result).exists()


def test_labels_that_are_null_are_refused(models: dict, tmp_path: Path) -> None:
    rows = flights()
    labels = pa.array([None if i == 2900 else v for i, v in enumerate(rows["label"].to_pylist())], pa.int32())
    rows = rows.set_column(rows.column_names.index("label"), "label", labels)
    with pytest.raises(Refused, match=r"of 1 of .* rows is not 0 or 1"):
        job.run(spec_of(tmp_path, models["9th"], None, rows))


def test_a_feature_that_only_the_champion_reads_is_named(spec: job.EvaluateSpec, models: dict, tmp_path: Path) -> None:
    without = spec_of(tmp_path, models["9th"], models["5th"], flights().drop_columns(["distance"]))
    with pytest.raises(Refused, match="the challenger: column 'distance' is missing"):
        job.run(without)


def test_a_regression_is_measured_by_its_errors(models: dict, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, models["minutes"], models["minutes"], delays(), task="regression", threshold=15.0)
    found = evaluated(spec)
    assert set(found["challenger"]["metrics"]) == {"rmse", "mae", "r2"}
    assert found["positives"] is None and found["challenger"]["roc"] is None
    assert [item["metric"] for item in found["comparisons"]] == ["rmse", "mae"]
    assert found["challenger"]["metrics"]["r2"]["value"] > 0.5
    labels = delays()["label"][2250:].to_numpy()
    assert found["challenger"]["metrics"]["rmse"]["value"] == pytest.approx(
        float(np.sqrt(np.mean((scores(models["minutes"], delays()[2250:]) - labels) ** 2)))
    )
