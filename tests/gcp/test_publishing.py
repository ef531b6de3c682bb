"""A day is published where it was asked for, whatever of the same name was published elsewhere, or before, in the project."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from include.config import load_model
from include.platforms.gcp import prediction, tables
from tests.dags.lakes import MODEL
from tests.gcp.places import BUCKET, Place
from tests.localcloud.gcp.cloud import GoogleCloud

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]

DAY = date(2013, 2, 1)
COLUMNS = {"source": "s", "rows_in": 1, "rows_scored": 1, "rows_quarantined": 0}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GoogleCloud]:
    with GoogleCloud(tmp_path_factory.mktemp("cloud"), start_seconds=0, job_seconds=0) as cloud:
        place = Place(cloud, Path(), "setup", "aileron")
        with place.settings():
            place.client("storage").create_bucket(BUCKET)
        yield cloud


def published(place: Place, key: str) -> None:
    """One prediction, staged and published by a run of its own."""
    model, run = load_model(MODEL), {"partition": DAY.isoformat(), "workspace": f"{len(key):016x}", "run_id": key}
    columns = ", ".join(f"CAST(NULL AS {kind}) AS `{name}`" for name, kind in prediction.prediction_columns(model).items())
    aside = "'x' AS flight_id, partition_date, 'reason' AS reason"
    with place.settings():
        asked = place.client("bigquery")
        asked.create_dataset(place.name, exists_ok=True)
        rows = f"SELECT * REPLACE ('{key}' AS flight_id, DATE '{DAY}' AS partition_date) FROM (SELECT {columns})"
        staged, quarantine = (tables.named(tables.staged(model, run, what)) for what in ("staged", "quarantine"))
        asked.query_and_wait(f"CREATE OR REPLACE TABLE {staged} AS {rows}")
        asked.query_and_wait(f"CREATE OR REPLACE TABLE {quarantine} AS SELECT {aside} FROM {staged} WHERE FALSE")
        prediction.publish(model, run, COLUMNS)


def seen(place: Place) -> list[Any]:
    return [row[0] for row in place.rows(DAY.isoformat(), "flight_id")]


def test_two_environments_of_a_project_publish_the_same_day(cloud: GoogleCloud, quick_models: Path) -> None:
    development, production = (Place(cloud, quick_models, name, "aileron") for name in ("development", "production"))
    published(development, "d")
    published(production, "p")
    assert seen(development) == ["d"] and seen(production) == ["p"]


def test_who_begins_anew_publishes_anew(cloud: GoogleCloud, quick_models: Path) -> None:
    """The tables and the ledger were removed: version 1 of the day is another one now."""
    place = Place(cloud, quick_models, "anew", "aileron")
    published(place, "one")
    with place.settings():
        bucket = place.client("storage").bucket(BUCKET)
        bucket.delete_blobs(list(bucket.list_blobs(prefix="anew/")))
        bigquery = place.client("bigquery")
        for table in list(bigquery.list_tables("anew")):
            bigquery.delete_table(table)
    published(place, "two")
    assert seen(place) == ["two"]


def test_a_day_that_was_published_is_published_once(cloud: GoogleCloud, quick_models: Path) -> None:
    """A task that is done again finds what it has done."""
    place = Place(cloud, quick_models, "again", "aileron")
    published(place, "one")
    model, run = load_model(MODEL), {"partition": DAY.isoformat(), "workspace": f"{3:016x}", "run_id": "one"}
    before = len(cloud.jobs())
    with place.settings():
        assert prediction.publish(model, run, COLUMNS).version == 1
    assert [job for job in cloud.jobs()[before:] if job["name"].startswith("aileron-publish")] == []
    assert seen(place) == ["one"]
