"""The product's own statements, rendered for BigQuery and run there, answer what DuckDB answers on the same flights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from google.cloud import bigquery

from demo import simulator
from include import monitoring_sql, queries, validation
from include.authored_sql import TABLE
from include.config import ModelConfig, load_model
from include.monitoring_sql import Predictions
from include.platforms import local_engine
from include.queries import Dialect, Query
from tests.localcloud.gcp.cloud import PROJECT, GoogleCloud
from tests.localcloud.gcp.conftest import AsClient

pytestmark = [pytest.mark.localcloud, pytest.mark.gcp]
MODELS = ("flight_delays", "arrival_minutes")
FIRST, LAST = date(2013, 1, 29), date(2013, 1, 31)
BOTH: tuple[Dialect, Dialect] = ("bigquery", "duckdb")
BOUND = {"first_partition": FIRST, "last_partition": LAST}
TYPES = {"VARCHAR": "STRING", "BIGINT": "INT64", "DOUBLE": "FLOAT64", "DATE": "DATE", "TIMESTAMP": "DATETIME"}
Answers = Callable[[Callable[[Dialect], Query]], tuple[list[dict[str, Any]], list[dict[str, Any]]]]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights")
    simulator.land(folder, date(2013, 1, 1), LAST)
    simulator.land_outcomes(folder, date(2013, 1, 1), LAST)
    return folder / "source"


@pytest.fixture(scope="module")
def engine(lake: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with local_engine.connected() as connection:
        for table in ("flights", "weather", "planes", "flight_outcomes"):
            connection.execute(f"CREATE VIEW {table} AS SELECT * FROM {_files(lake, table)}")
        yield connection


def _files(lake: Path, table: str) -> str:
    return f"read_parquet('{lake / table}/**/*.parquet', hive_partitioning = true)"


@pytest.fixture(scope="module")
def client(running_google: GoogleCloud, lake: Path, engine: duckdb.DuckDBPyConnection) -> Iterator[bigquery.Client]:
    """The same flights, loaded from the same files."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        running_google.reset()
        AsClient(monkeypatch)(running_google)
        client = bigquery.Client(PROJECT)
        client.create_dataset("source")
        bucket = running_google.bucket("lake")
        for table in ("flights", "weather", "planes", "flight_outcomes"):
            _load(client, bucket, lake, table, engine)
        for name in MODELS:
            _predict(client, engine, load_model(name))
        yield client
        assert running_google.refused_hosts() == []


def _load(client: bigquery.Client, bucket: Any, lake: Path, table: str, engine: duckdb.DuckDBPyConnection) -> None:
    for file in sorted((lake / table).rglob("*.parquet")):
        bucket.blob(f"source/{file.relative_to(lake)}").upload_from_filename(file)
    described = engine.execute(f"DESCRIBE {table}").fetchall()
    schema = [bigquery.SchemaField(row[0], TYPES[row[1]]) for row in described]
    config = bigquery.LoadJobConfig(source_format="PARQUET", schema=schema, write_disposition="WRITE_TRUNCATE")
    if any(row[0] == "partition_date" for row in described):
        config.time_partitioning = bigquery.TimePartitioning(field="partition_date")
        folders = bigquery.HivePartitioningOptions()
        folders.mode, folders.source_uri_prefix = "CUSTOM", f"gs://lake/source/{table}/{{partition_date:DATE}}"
        config.hive_partitioning = folders
    client.load_table_from_uri(f"gs://lake/source/{table}/*", f"source.{table}", job_config=config).result()


def _predict(client: bigquery.Client, engine: duckdb.DuckDBPyConnection, model: ModelConfig) -> None:
    """Scores of most rows, made of what both have, in both places."""
    scale = 1 if model.task == "classification" else 120
    for dialect in BOTH:
        accepted = queries.accepted_features(model, dialect, _tables(model, dialect))
        key, digits = model.source.key, "LENGTH(flight_id) + distance"
        whole = "CAST(ROUND({0}) AS INT64)" if dialect == "bigquery" else "CAST(round({0}) AS BIGINT)"
        number = f"MOD({whole.format(digits)} * 37, 101)"
        sql = f"""SELECT {key}, partition_date, {scale} * ({number} / 100) AS score, {number} > 50 AS decision,
            '3' AS model_version FROM ({accepted.sql}) AS a WHERE {number} < 97"""
        if dialect == "bigquery":
            config = bigquery.QueryJobConfig(query_parameters=_parameters(accepted), destination=f"{PROJECT}.source.{model.name}")
            client.query(sql, config).result()
        else:
            engine.execute(f"CREATE TABLE {model.name} AS {sql}", BOUND)


def _parameters(query: Query) -> list[bigquery.ScalarQueryParameter]:
    return [bigquery.ScalarQueryParameter(name, "DATE", BOUND[name]) for name in query.parameters]


def _tables(model: ModelConfig, dialect: Dialect) -> dict[str, str]:
    return {name: _table(name, dialect) for name in queries.table_names(model)}


def _table(name: str, dialect: Dialect) -> str:
    return f"`{PROJECT}.source.{name}`" if dialect == "bigquery" else name


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest) -> ModelConfig:
    return load_model(request.param)


@pytest.fixture
def answers(client: bigquery.Client, engine: duckdb.DuckDBPyConnection) -> Answers:
    def ask(render: Callable[[Dialect], Query]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        asked = render("bigquery")
        config = bigquery.QueryJobConfig(query_parameters=_parameters(asked))
        there = [dict(row.items()) for row in client.query(asked.sql, config, job_retry=None).result()]
        asked = render("duckdb")
        found: Any = engine.execute(asked.sql, {name: BOUND[name] for name in asked.parameters})
        here = found.to_arrow_table().to_pylist()
        return there, here

    return ask


def same(found: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]], key: Sequence[str] = ()) -> int:
    """Asserts that both have the same rows, in the same order or by a key; how many they are."""

    def sorted_rows(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return sorted(rows, key=lambda row: [str(row[name]) for name in key]) if key else list(rows)

    there, here = map(sorted_rows, found)
    assert len(there) == len(here)
    for one, other in zip(there, here, strict=True):
        assert list(one) == list(other)
        for name in one:
            assert _alike(one[name], other[name]), (name, one, other)
    return len(there)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, float) and other is not None:
        return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    return bool(one == other) or (one, other) == (0, None)  # DuckDB counts NULL conditions as NULL


@pytest.mark.parametrize("query", queries.QUERIES, ids=lambda query: query.__name__)
def test_rows_of_a_model(model: ModelConfig, answers: Answers, query: Callable[..., Query]) -> None:
    ordered = query is queries.training_set
    found = answers(lambda dialect: query(model, dialect, _tables(model, dialect)))
    number = same(found, () if ordered else [model.source.key, "partition_date"])
    expected = {"quarantined_rows": 0, "rejected_rows": 0}
    assert number > 2000 or number >= expected.get(query.__name__, 2000)


@pytest.mark.parametrize("sample", [1.0, 0.3])
def test_profile(model: ModelConfig, answers: Answers, sample: float) -> None:
    cells: dict[str, dict[str, Any]] = {
        "distance": {"kind": "numeric", "edges": [-0.1, 500.0, 1000.0, 2475.0]},
        "wind_speed": {"kind": "numeric", "edges": [5.0, 10.0, 15.0]},
        "carrier": {"kind": "categorical", "values": ["B6", "UA", "O'Hare \\ Sons"]},
    }

    def render(dialect: Dialect) -> Query:
        predictions = Predictions(_table(model.name, dialect), "3", {"kind": "numeric", "edges": [0.2, 0.5]})
        pairs = [("distance", "score"), ("carrier", "wind_speed")]
        return monitoring_sql.profile(
            model,
            dialect,
            _tables(model, dialect),
            cells,
            predictions,
            pairs,
            sample,
        ).query

    assert same(answers(render), ["partition_date"]) == 3


@pytest.mark.parametrize("slices", [[], ["carrier", "origin"]])
def test_quality(model: ModelConfig, answers: Answers, slices: list[str]) -> None:
    found = answers(
        lambda dialect: monitoring_sql.quality(
            model,
            dialect,
            _tables(model, dialect),
            _table(model.name, dialect),
            slices,
        )
    )
    assert same(found, ["partition_date", "model_version", "slice", "value"]) >= 3


def test_label_sample(model: ModelConfig, answers: Answers, client: bigquery.Client, engine: duckdb.DuckDBPyConnection) -> None:
    """Of rows without a label: those of a third of the flights are taken away."""
    other = {"flight_outcomes": "some_outcomes"}
    taken = "SELECT * FROM {} WHERE MOD(LENGTH(flight_id), 2) = 0"
    client.query(f"CREATE OR REPLACE TABLE source.some_outcomes AS {taken.format('source.flight_outcomes')}").result()
    engine.execute(f"CREATE OR REPLACE TABLE some_outcomes AS {taken.format('flight_outcomes')}")

    def render(dialect: Dialect) -> Query:
        tables = {name: _table(other.get(name, name), dialect) for name in queries.table_names(model)}
        predictions = _table(model.name, dialect)
        return monitoring_sql.label_sample(model, dialect, tables, predictions, "3", [0.3, 0.7], 5, "one")

    assert same(answers(render)) > 10


def test_replayed(model: ModelConfig, answers: Answers, client: bigquery.Client, engine: duckdb.DuckDBPyConnection) -> None:
    """A snapshot in which some rows are others and some are missing."""
    for dialect in BOTH:
        training = queries.training_set(model, dialect, _tables(model, dialect))
        changed = "CASE WHEN carrier = 'B6' THEN distance + 1 ELSE distance END AS distance"
        star = f"* REPLACE ({changed})"
        sql = f"SELECT {star} FROM ({training.sql}) AS t WHERE origin <> 'LGA' OR carrier <> 'DL'"
        if dialect == "bigquery":
            into = bigquery.QueryJobConfig(
                query_parameters=_parameters(training),
                destination=f"{PROJECT}.source.snapshot",
                write_disposition="WRITE_TRUNCATE",
            )
            client.query(sql, into).result()
        else:
            engine.execute(f"CREATE OR REPLACE TABLE snapshot AS {sql}", BOUND)

    def render(dialect: Dialect) -> Query:
        tables = {**_tables(model, dialect), "_snapshot": _table("snapshot", dialect)}
        return queries.render("replayed", model, dialect, tables, snapshot=f"{TABLE}_snapshot")

    found = answers(render)
    assert same(found) == 1
    assert found[0][0]["distance"] > 100
    assert found[0][0]["_rows"] > 100


def test_a_day_reads_the_partitions_that_it_needs(client: bigquery.Client) -> None:
    """Features look back: four weeks of flights, and a day of weather."""
    model = load_model("flight_delays")
    asked = queries.build_features(model, "bigquery", _tables(model, "bigquery"))
    dry = bigquery.QueryJobConfig(query_parameters=_parameters(asked), dry_run=True)
    read = client.query(asked.sql, dry).total_bytes_processed
    assert read is not None
    everything = sum(client.get_table(f"source.{name}").num_bytes for name in queries.table_names(model))
    assert 0 < read < 2 * everything
    labels = queries.labels(model, "bigquery", _tables(model, "bigquery"))
    one = client.query(labels.sql, bigquery.QueryJobConfig(query_parameters=_parameters(labels), dry_run=True))
    days = (LAST - FIRST + timedelta(days=1)).days
    assert one.total_bytes_processed < client.get_table("source.flight_outcomes").num_bytes * days / 25


@pytest.mark.parametrize("stage", ["source", "features", "training"])
def test_expectations(
    model: ModelConfig, client: bigquery.Client, engine: duckdb.DuckDBPyConnection, lake: Path, tmp_path: Path, stage: Any
) -> None:
    """Great Expectations asks through SQLAlchemy, and comes to the same verdict."""
    seen = {}
    for dialect in BOTH:
        tables = {
            name: _table(name, dialect) if dialect == "bigquery" else _files(lake, name) for name in queries.table_names(model)
        }
        if stage == "source":
            sql = f"SELECT * FROM {tables[model.source.table]} AS t WHERE partition_date = {{}}"
        else:
            render = {"features": queries.accepted_features, "training": queries.training_set}[stage]
            sql = render(model, dialect, tables).sql
        for name in BOUND:
            sql = sql.replace("@" + name, "{}").replace("CAST($" + name + " AS DATE)", "{}")
        # A day as a literal, as the platforms write it for Great Expectations, which binds nothing.
        query = sql.replace("{}", f"DATE '{LAST}'")
        url = f"bigquery://{PROJECT}/source" if dialect == "bigquery" else "duckdb:///:memory:"
        report = validation.run_suite(
            validation.suite_file(model.name, stage),
            validation.Dataset(query, url),
            {"rows_low": 100, "rows_high": 2000},
            str(tmp_path / f"{dialect}.html"),
            validation.stage_columns(model, stage),
        )
        seen[dialect] = [
            (check.expectation, check.column, check.success, check.observed)
            for check in report.checks
            if check.expectation != "contract"
        ]
        assert [
            check
            for check in report.checks
            if check.expectation == "contract" and not check.success and check.severity == "critical"
        ] == []
    assert [each[:3] for each in seen["bigquery"]] == [each[:3] for each in seen["duckdb"]]
    assert len(seen["bigquery"]) >= 8
