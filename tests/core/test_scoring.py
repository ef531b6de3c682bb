"""Scores keep the order of their rows, and the summary of the parts is the summary of the whole."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.core.artifacts import Artifact, load_artifact, predict
from include.core.features import UnusableFeatures, encode
from include.core.scoring import Summary, histogram, score, score_reference
from tests.core.examples import flights, saved


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder: Path = tmp_path_factory.mktemp("artifact") / "model"
    return load_artifact(folder, saved(folder))


def test_scores_are_those_of_the_model_in_the_order_of_the_rows(artifact: Artifact) -> None:
    batch = flights(500, seed=2).combine_chunks().to_batches()[0]
    scored, summary = score(batch, artifact, "flight_id")
    assert scored.schema.names == ["flight_id", "partition_date", "score"]
    assert scored.column("flight_id").equals(batch.column("flight_id"))
    np.testing.assert_array_equal(scored.column("score").to_numpy(), predict(artifact.booster, encode(batch, artifact.spec)[0]))
    assert summary.missing["carrier"] == batch.column("carrier").null_count
    assert summary.rows == 500


@given(st.lists(st.integers(1, 200), min_size=1, max_size=4))
def test_the_summary_of_parts_is_that_of_the_whole(artifact: Artifact, sizes: list[int]) -> None:
    batch = flights(sum(sizes), seed=3).combine_chunks().to_batches()[0]
    _, whole = score(batch, artifact, "flight_id")
    parts, start = Summary(), 0
    for size in sizes:
        parts += score(batch.slice(start, size), artifact, "flight_id")[1]
        start += size
    assert parts.total == pytest.approx(whole.total)
    for name in ("rows", "lowest", "highest", "counts", "unseen", "missing"):
        assert getattr(parts, name) == getattr(whole, name)
    assert sum(parts.counts) == parts.rows


def test_no_rows_have_a_summary_without_numbers(artifact: Artifact) -> None:
    scored, summary = score(flights(10).combine_chunks().to_batches()[0].slice(0, 0), artifact, "flight_id")
    assert scored.num_rows == 0
    assert summary == Summary()
    assert summary.to_json()["mean"] is None


@pytest.mark.parametrize("column", ["flight_id", "partition_date"])
def test_rows_must_be_identified(artifact: Artifact, column: str) -> None:
    batch = flights(10).drop_columns([column]).combine_chunks().to_batches()[0]
    with pytest.raises(UnusableFeatures, match=f"'{column}' is missing"):
        score(batch, artifact, "flight_id")


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.9, 1.0]), max_size=60), st.lists(st.floats(0, 1), max_size=60))
def test_every_score_is_counted_in_the_bin_of_the_edges_around_it(few: list[float], many: list[float]) -> None:
    scores = np.array(few + many, dtype=np.float32)
    reference = score_reference(scores)
    edges = [-np.inf, *reference["edges"], np.inf]
    expected = [int(((scores > low) & (scores <= high)).sum()) for low, high in pairwise(edges)]
    assert reference["counts"] == expected == histogram(scores, reference["edges"]).tolist()
    assert sum(expected) == len(scores)


def test_bins_are_of_equal_frequency_where_scores_differ() -> None:
    scores = np.random.default_rng(1).random(10_000).astype(np.float32)
    reference = score_reference(scores)
    assert len(reference["edges"]) == 19
    assert max(reference["counts"]) - min(reference["counts"]) <= 2
