"""How good scores were, counted by the platform, is what NumPy finds on the same rows."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.config import load_model
from include.monitoring_sql import BINS, label_sample, quality, read_quality

DAY = date(2020, 1, 1)
NEXT = DAY + timedelta(days=1)
# Names that the statement itself uses somewhere: a model may have them too.
SLICES = ["value", "rows"]
FEATURES = """SELECT row_id, partition_date, "labelled", "value", "rows" FROM {{ table("facts") }}
WHERE partition_date BETWEEN :first_partition AND :last_partition"""
LABELS = """SELECT row_id, partition_date, label FROM {{ table("outcomes") }}
WHERE partition_date BETWEEN :first_partition AND :last_partition"""
FACTS = pa.schema({
    "row_id": pa.int64(),
    "partition_date": pa.date32(),
    "labelled": pa.float64(),
    "value": pa.string(),
    "rows": pa.string(),
})
PREDICTIONS = pa.schema({
    "row_id": pa.int64(),
    "partition_date": pa.date32(),
    "score": pa.float64(),
    "decision": pa.bool_(),
    "model_version": pa.string(),
})
OUTCOMES = pa.schema({"row_id": pa.int64(), "partition_date": pa.date32(), "label": pa.float64()})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("quality")


@pytest.fixture(autouse=True)
def models(place, lake, monkeypatch):
    """Two models that differ in their task."""
    monkeypatch.setenv("AILERON_MODELS", str(place))
    for task in ("classification", "regression"):
        folder = place / task
        folder.mkdir(exist_ok=True)
        columns = {"row_id": "integer", "labelled": "number", "value": "string", "rows": "string"}
        document = {
            "name": task,
            "title": "Facts",
            "description": "What is known?",
            "owner": {"team": "facts", "emails": ["facts@example.com"]},
            "start": "2020-01-01",
            "task": task,
            "source": {"table": "facts", "key": "row_id", "columns": columns},
            "labels": {"table": "outcomes", "delay_days": 1},
            "features": {"numeric": ["labelled"], "categorical": SLICES},
            "gate": {"floors": {"auc": 0.5} if task == "classification" else {"r2": 0.0}},
        }
        (folder / "model.yaml").write_text(yaml.safe_dump(document))
        (folder / "features.sql").write_text(FEATURES)
        (folder / "labels.sql").write_text(LABELS)


@pytest.fixture
def land(place):
    """Writes rows, each a dictionary with `predicted`, `version` and `label` beside its features; how DuckDB reads the tables."""

    def write(rows):
        rows = [{"row_id": number, "partition_date": DAY} | row for number, row in enumerate(rows)]
        scored = [
            row | {"score": row["predicted"], "model_version": row.get("version", "1")} for row in rows if "predicted" in row
        ]
        tables = {}
        for name, schema, content in (
            ("facts", FACTS, rows),
            ("outcomes", OUTCOMES, [row for row in rows if "label" in row]),
            ("predictions", PREDICTIONS, scored),
        ):
            pq.write_table(pa.Table.from_pylist(content, schema), place / f"{name}.parquet")
            tables[name] = f"read_parquet('{place / name}.parquet')"
        return tables

    return write


@pytest.fixture
def ask(connection, land):
    """What `quality` says of rows."""

    def answer(task, rows, slices=SLICES):
        tables = land(rows)
        predictions = tables.pop("predictions")
        query = quality(load_model(task), "duckdb", tables, predictions, slices)
        found = connection.execute(query.sql, {"first_partition": DAY, "last_partition": NEXT})
        names = [column[0] for column in found.description]
        read = [read_quality(names, row) for row in found.fetchall()]
        keyed = {(row.partition, row.model_version, row.slice, row.value): row for row in read}
        assert len(keyed) == len(read)
        return keyed

    return answer


def expected(rows, task):
    """By hand: rows, labelled, and the sums over the labelled rows."""
    labelled = [row for row in rows if row.get("label") is not None]
    y = np.array([row["label"] for row in labelled], dtype=float)
    score = np.array([row["predicted"] for row in labelled], dtype=float)
    if task == "regression":
        loss = (y - score) ** 2
        return (len(rows), len(y), y.sum(), score.sum(), loss.sum(), (loss**2).sum(), None, None, (), ())
    p = np.clip(score, 1e-15, 1 - 1e-15)
    loss = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    variance = p * (1 - p) * np.log(p / (1 - p)) ** 2
    cell = np.minimum((score * BINS).astype(int), BINS - 1)
    bins = tuple(np.bincount(cell, minlength=BINS).tolist())
    positives = tuple(np.bincount(cell[y == 1], minlength=BINS).tolist())
    sums = (y.sum(), score.sum(), loss.sum(), (loss**2).sum(), entropy.sum(), variance.sum())
    return (len(rows), len(y), *sums, bins, positives)


def figures(row):
    return (
        row.rows,
        row.labelled,
        row.label_sum,
        row.score_sum,
        row.loss_sum,
        row.loss_squares,
        row.expected_sum,
        row.variance_sum,
        row.bins,
        row.positives,
    )


def assert_equal(found, wanted):
    for one, other in zip(figures(found), wanted, strict=True):
        assert one == (pytest.approx(other, rel=1e-9, abs=1e-9) if isinstance(other, float) else other)


def groups(rows):
    """The rows of each partition, version and slice."""
    found = {}
    for row in rows:
        for name in ("", *SLICES):
            key = (row["partition_date"], row["version"], name, row.get(name) if name else None)
            found.setdefault(key, []).append(row)
    return found


@st.composite
def tables(draw):
    task = draw(st.sampled_from(["classification", "regression"]))
    if task == "classification":
        edges = st.sampled_from([0.0, 1.0, 0.5, 1e-300, 0.025, 0.975, float(np.nextafter(1, 0))])
        score, label = st.one_of(st.floats(0, 1), edges), st.sampled_from([0, 1, None])
    else:
        score, label = st.floats(-1e6, 1e6), st.one_of(st.none(), st.floats(-1e6, 1e6))
    texts = st.sampled_from([None, "", "a", "A", "é", "'", "rows"])
    row = st.fixed_dictionaries({
        "partition_date": st.sampled_from([DAY, NEXT]),
        "version": st.sampled_from(["1", "2"]),
        "predicted": score,
        "value": texts,
        "rows": texts,
        "label": label,
    })
    return task, draw(st.lists(row, max_size=15))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables())
def test_sums_are_those_of_numpy(ask, table):
    task, rows = table
    found, wanted = ask(task, rows), groups(rows)
    assert found.keys() == wanted.keys()
    for key, members in wanted.items():
        assert_equal(found[key], expected(members, task))


def test_only_rows_that_are_accepted_and_predicted_count(ask):
    fine = {"predicted": 0.25, "label": 1, "version": "1", "value": "x", "rows": "y"}
    rows = [
        fine,
        fine | {"labelled": float("inf")},  # a feature: such a row is in quarantine
        fine | {"partition_date": NEXT + timedelta(days=1)},
        {"label": 1},
        {key: fine[key] for key in fine.keys() - {"label"}},
    ]
    found = ask("classification", rows)
    assert set(found) == {(DAY, "1", name, value) for name, value in (("", None), ("value", "x"), ("rows", "y"))}
    for row in found.values():
        assert (row.rows, row.labelled, row.label_sum, row.score_sum) == (2, 1, 1.0, 0.25)
        assert row.loss_sum == pytest.approx(-np.log(0.25))


def test_nothing_labelled(ask):
    [row] = ask("classification", [{"predicted": 0.3}], slices=[]).values()
    assert figures(row) == (1, 0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, (0,) * BINS, (0,) * BINS)


def test_a_true_probability_costs_what_is_expected(ask):
    """The formulas of expectation and variance, held against 20 000 outcomes drawn from the scores."""
    random = np.random.default_rng(7)
    scores = random.beta(1, 3, 20_000)
    labels = (random.random(20_000) < scores).astype(int)
    rows = [{"predicted": float(p), "label": int(y)} for p, y in zip(scores, labels, strict=True)]
    [row] = ask("classification", rows, slices=[]).values()
    assert abs(row.loss_sum - row.expected_sum) < 4 * np.sqrt(row.variance_sum)
    residuals = row.loss_squares - np.sum((scores * np.log(scores) + (1 - scores) * np.log(1 - scores)) ** 2)
    assert residuals == pytest.approx(row.variance_sum, rel=0.1)


def test_text_and_numbers_are_read_alike(ask):
    """A platform may give every value as text."""
    columns = ["partition_date", "model_version", "slice", "value", "rows", "labelled", "label_sum", "score_sum", "loss_sum"]
    columns += ["loss_squares", "expected_sum", "variance_sum"]
    numbers = [DAY, "3", "", None, 2, 1, 1.5, 0.5, 1.0, 1.0, None, None]
    text = [None if value is None else str(value) for value in numbers]
    assert read_quality(columns, numbers) == read_quality(columns, text)


def test_slices_are_categorical_features():
    with pytest.raises(ValueError, match=r"labelled is not among features.categorical"):
        quality(load_model("classification"), "duckdb", {"facts": "facts", "outcomes": "outcomes"}, "predictions", ["labelled"])


def test_labels_are_asked_for_evenly_and_for_others_the_next_time(connection, land):
    """Of each day and band of scores the same number, as far as there are so many; never what has a label."""
    rows = [
        {"partition_date": day, "predicted": number / 400, **({"label": 1.0} if number % 4 == 0 else {})}
        for day in (DAY, NEXT)
        for number in range(400)
    ]
    tables = land(rows)
    predictions = tables.pop("predictions")

    def draw(request):
        query = label_sample(load_model("classification"), "duckdb", tables, predictions, "1", [0.02, 0.5], 20, request)
        found = connection.execute(query.sql, {"first_partition": DAY, "last_partition": NEXT})
        assert [column[0] for column in found.description] == ["row_id", "partition_date", "score", "band", "population"]
        return found.fetchall()

    drawn = draw("2020-01-02.v00001")
    counts = {}
    for key, day, score, band, population in drawn:
        assert key % 4 and band == (0 if score <= 0.02 else 1 if score <= 0.5 else 2)
        counts[day, band, population] = counts.get((day, band, population), 0) + 1
    assert counts == {(day, *band): n for day in (DAY, NEXT) for band, n in {(0, 6): 6, (1, 144): 20, (2, 150): 20}.items()}
    assert draw("2020-01-02.v00001") == drawn
    assert len({row[0] for row in draw("2020-01-03.v00001")} & {row[0] for row in drawn if row[3]}) < 30


def test_no_version_but_a_number_reaches_the_sample(land):
    with pytest.raises(ValueError, match="is no version of a model"):
        label_sample(load_model("classification"), "duckdb", land([]), "x", "1' OR 1=1", [0.5], 5, "r")
