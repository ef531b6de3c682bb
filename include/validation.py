"""Is a dataset what it should be? Runs a suite file of Great Expectations, and the contract of model.yaml, where the data is.

A suite is a JSON file under `expectations/<model>/`, one per stage, in Great Expectations' own format. A limit that depends
on other partitions is written `{"$PARAMETER": "rows_low"}` and given when the suite is run. Severity `critical` (the
default) blocks, `warning` is only reported. Nothing counts as passed because it could not be checked.

Great Expectations takes seconds to import and is imported only when a suite is read or run. Why it can be asked about
DuckDB at all: docs/adr/0001-great-expectations-on-duckdb.md.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from include import documents
from include.config import REPOSITORY, ColumnType, ModelConfig

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuiteValidationResult, ExpectationValidationResult
    from great_expectations.datasource.fluent.interfaces import Batch
    from great_expectations.expectations.expectation import Expectation
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration
    from sqlalchemy import Engine

EXPECTATIONS = REPOSITORY / "expectations"
PAGE = Path(__file__).resolve().parent / "templates" / "validation.html"

# What a suite may use: the same verdict on every engine, in one pass, in memory that does not grow with the rows. Types are
# not among them, their names differ between engines: they are in the contract (source.columns of model.yaml).
PORTABLE = {
    "expect_table_row_count_to_be_between": "rows",
    "expect_column_values_to_not_be_null": "null",
    "expect_column_values_to_be_null": "not null",
    "expect_column_values_to_be_unique": "duplicated",
    "expect_compound_columns_to_be_unique": "duplicated",
    "expect_column_values_to_be_between": "out of range",
    "expect_column_values_to_be_in_set": "other values",
    "expect_column_values_to_not_be_in_set": "forbidden values",
    "expect_column_value_lengths_to_be_between": "of another length",
    "expect_column_pair_values_a_to_be_greater_than_b": "not greater",
    "expect_column_mean_to_be_between": "mean",
    "expect_column_min_to_be_between": "minimum",
    "expect_column_max_to_be_between": "maximum",
    "expect_column_sum_to_be_between": "sum",
    "expect_column_stdev_to_be_between": "standard deviation",
    "expect_column_unique_value_count_to_be_between": "distinct values",
    "expect_column_proportion_of_unique_values_to_be_between": "share of distinct values",
    "expect_column_proportion_of_non_null_values_to_be_between": "share of values that are not null",
}
# Expectations that hold or do not hold for each row.
OF_ROWS = ("expect_column_values_", "expect_column_value_lengths_", "expect_column_pair_values_", "expect_compound_columns_")
ROW_COUNT = "expect_table_row_count_to_be_between"
CONTRACT = "contract"
PARTITION = "partition_date"  # a column of every stage, made by how partitions are stored

# The names engines give to a type of the contract: DuckDB, BigQuery, Athena, Spark. Whole numbers are numbers too.
INTEGERS = {
    *("TINYINT", "SMALLINT", "INTEGER", "INT", "BIGINT", "HUGEINT", "INT64", "BYTE", "SHORT", "LONG"),
    *("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT"),
}
ENGINE_TYPES: Mapping[ColumnType, set[str]] = {
    "string": {"VARCHAR", "STRING", "TEXT", "CHAR"},
    "integer": INTEGERS,
    "number": {*INTEGERS, "DOUBLE", "FLOAT", "REAL", "FLOAT64", "DECIMAL", "NUMERIC", "BIGNUMERIC"},
    "boolean": {"BOOLEAN", "BOOL"},
    "date": {"DATE"},
    "timestamp": {"TIMESTAMP", "DATETIME", "TIMESTAMPTZ", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "TIMESTAMP_NTZ"},
}

# One suite at a time in a process: Great Expectations keeps its current context in a global.
_running = threading.Lock()

Severity = Literal["critical", "warning"]
Stage = Literal["source", "features", "predictions", "training"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class InvalidSuite(ValueError):
    """A suite file cannot be used; the message names the file and the reason."""


class MissingParameter(ValueError):
    """A limit of the suite was not given, or is not a number."""


class UnreadableDataset(RuntimeError):
    """The data could not be read at all."""


@dataclass(frozen=True)
class Dataset:
    """What to check: a SELECT, and the SQLAlchemy URL of the engine that runs it."""

    query: str
    url: str = "duckdb:///:memory:"


@dataclass(frozen=True)
class Suite:
    """A suite file that has been read and is known to be usable."""

    name: str
    path: Path
    expectations: tuple[Mapping[str, Any], ...]
    parameters: frozenset[str]


@dataclass(frozen=True)
class Check:
    """One expectation and what was seen. `column` is None for the table as a whole, "a, b" for several columns."""

    expectation: str
    column: str | None
    severity: Severity
    success: bool
    observed: str
    limit: str

    @property
    def sentence(self) -> str:
        return f"{self.column or 'table'}: {self.observed} (limit: {self.limit})"


@dataclass(frozen=True)
class Report:
    suite: str
    checks: tuple[Check, ...]
    page: str  # a path or a URI

    @property
    def success(self) -> bool:
        """Something was checked, and nothing critical failed."""
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[Check, ...]:
        """Checks that block."""
        return tuple(check for check in self.checks if not check.success and check.severity == "critical")

    @property
    def warnings(self) -> tuple[Check, ...]:
        """Checks that failed and only warn."""
        return tuple(check for check in self.checks if not check.success and check.severity == "warning")

    def summary(self) -> str:
        """What broke against which limit, for a mail or a log line."""
        if not self.checks:
            return f"{self.suite}: nothing was checked"
        asked, passed = len(self.checks), sum(check.success for check in self.checks)
        if self.failed:
            told = [f"{len(self.failed)} of {asked} checks failed"]
        else:
            told = [f"{passed} of {asked} checks passed" if self.warnings else f"{asked} checks passed"]
        told += _once(check.sentence for check in self.failed)
        told += _once(f"warning, {check.sentence}" for check in self.warnings)
        return f"{self.suite}: " + "; ".join(told)


def suite_file(model: str, stage: str) -> Path:
    """The suite of a stage: source, features or predictions."""
    return expectations_folder() / model / f"{stage}.json"


def expectations_folder() -> Path:
    """Where suites live: the repository's own folder, unless AILERON_EXPECTATIONS says otherwise (tests, private models)."""
    return Path(os.environ.get("AILERON_EXPECTATIONS") or EXPECTATIONS)


def read_suite(path: Path, columns: Collection[str] | None = None) -> Suite:
    """A suite from its file.

    Args:
        columns: the columns that the stage has, if known; an expectation may then not name another.

    Raises:
        InvalidSuite: naming the file, the expectation and the reason.
    """
    shown = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    try:
        raw: Any = json.loads(path.read_text())
    except FileNotFoundError:
        raise InvalidSuite(f"{shown}: not found; every stage of a model needs a suite") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InvalidSuite(f"{shown}: not valid JSON: {error}") from None
    if not isinstance(raw, dict) or not isinstance(raw.get("expectations"), list) or not isinstance(raw.get("name"), str):
        raise InvalidSuite(f"{shown}: must be an object with a name and a list of expectations")
    if unknown := sorted(raw.keys() - {"name", "expectations", "meta", "notes"}):
        raise InvalidSuite(f"{shown}: {', '.join(unknown)}: no such key; a suite has name, expectations, meta and notes")
    for number, configuration in enumerate(raw["expectations"], 1):
        try:
            _expectation(configuration)
            _known(configuration, columns)
        except ValueError as error:
            raise InvalidSuite(f"{shown}: expectation {number}: {error}") from None
    if not any(_asks_for_rows(each) for each in raw["expectations"]):
        raise InvalidSuite(
            f"{shown}: needs {ROW_COUNT} with a min_value of 1 or more that blocks; on no rows every other expectation passes"
        )
    return Suite(raw["name"], path, tuple(raw["expectations"]), frozenset(_parameters(raw["expectations"])))


def run_suite(
    path: Path,
    dataset: Dataset,
    parameters: Mapping[str, float],
    page: str,
    contract: Mapping[str, ColumnType] | None = None,
) -> Report:
    """Checks a dataset against a suite file and, if given, a contract of column names and types.

    Also writes `page` (HTML that needs no network) and beside it, as `.json`, the result as Great Expectations gave it.
    Both are there whatever the verdict, whole or not at all.

    Args:
        parameters: a number for each `$PARAMETER` of the suite; more may be given.

    Raises:
        InvalidSuite: the suite file is broken or names a column that the contract does not have.
        MissingParameter: a parameter of the suite was not given or is not finite.
        UnreadableDataset: the data cannot be read at all.
    """
    suite = read_suite(path, contract)
    for name in sorted(suite.parameters):
        if name not in parameters or not math.isfinite(parameters[name]):
            raise MissingParameter(f"{suite.name}: ${name} is {parameters.get(name, 'missing')}; the suite needs it as a limit")
    with _running, _opened(dataset) as (batch, columns):
        checks = contract_checks(contract, columns) if contract else []
        broken = {check.column for check in checks if not check.success}
        asked = []
        for configuration in _filled_in(suite.expectations, parameters):
            if broken & set(_columns(configuration["kwargs"])):
                continue  # the contract has failed already, and says why
            try:
                _known(configuration, columns)
                asked.append(_expectation(configuration))
            except ValueError as error:
                checks.append(_impossible(configuration, columns, error))
        results, document = _validate(batch, suite.name, asked)
    if len(results) != len(asked):
        raise RuntimeError(f"{suite.name}: {len(asked)} expectations were asked and {len(results)} answered")
    report = Report(suite.name, (*checks, *map(_check, results)), page)
    _write(report, document)
    return report


def contract_checks(contract: Mapping[str, ColumnType], actual: Mapping[str, str]) -> list[Check]:
    """Columns by name and type. A column that is missing or of another type blocks; one too many is a warning.

    Args:
        actual: column name → type as its engine calls it, e.g. {"seats": "BIGINT"}.
    """
    checks = []
    for column, wanted in contract.items():
        found = actual.get(column)
        right = found is not None and _plain(found) in ENGINE_TYPES[wanted]
        checks.append(Check(CONTRACT, column, "critical", right, found or "column is missing", f"a column of type {wanted}"))
    for column in actual.keys() - contract.keys():
        checks.append(Check(CONTRACT, column, "warning", False, "unknown column", "columns of the contract; this one is ignored"))
    return checks


def stage_columns(model: ModelConfig, stage: Stage) -> dict[str, ColumnType]:
    """The contract of what a stage has: declared in model.yaml for the source, what our own jobs write for the others."""
    source, key, day = model.source, model.source.key, PARTITION
    if stage == "source":
        return {day: "date", **source.columns}
    if stage in ("features", "training"):
        features = model.features
        numeric: dict[str, ColumnType] = dict.fromkeys(features.numeric, "number")
        categorical: dict[str, ColumnType] = dict.fromkeys(features.categorical, "string")
        label: dict[str, ColumnType] = {"label": "number"} if stage == "training" else {}
        return {key: source.columns[key], day: "date", **numeric, **categorical, **label}
    return {
        key: source.columns[key],
        day: "date",
        "score": "number",
        "decision": "boolean",
        "model_version": "string",
        "run_id": "string",
        "scored_at": "timestamp",
        "git_revision": "string",
    }


def _plain(engine_type: str) -> str:
    """DECIMAL(10,2) and TIMESTAMP WITH TIME ZONE without what follows the name."""
    return re.split(r"[( ]", engine_type.strip().upper())[0]


def _expectation(configuration: Any) -> Expectation:
    """Built one by one: Great Expectations leaves out of a suite, silently, what it cannot build."""
    if not isinstance(configuration, dict) or not isinstance(configuration.get("kwargs"), dict):
        raise ValueError("must be an object with type and kwargs")
    kind = configuration.get("type")
    if kind not in PORTABLE:
        raise ValueError(f"{kind} is not one of the types that hold on every platform: {', '.join(sorted(PORTABLE))}")
    if unknown := sorted(configuration.keys() - {"type", "kwargs", "severity", "meta", "notes"}):
        raise ValueError(f"{kind}: {', '.join(unknown)}: no such key; there are type, kwargs, severity, meta and notes")
    if configuration.get("severity", "critical") not in ("critical", "warning"):
        raise ValueError(f"{kind}: severity must be critical or warning, not {configuration['severity']}")
    if left_out := sorted(configuration["kwargs"].keys() & {"row_condition", "condition_parser"}):
        raise ValueError(f"{kind}: {', '.join(left_out)}: conditions differ between engines; check a column of the query instead")
    _import()
    from great_expectations.exceptions import GreatExpectationsError
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    try:
        return ExpectationConfiguration(**configuration).to_domain_obj()
    except (GreatExpectationsError, ValueError, TypeError) as error:
        raise ValueError(f"{kind}: {_validation_reasons(error)}") from None


def _known(configuration: Mapping[str, Any], columns: Collection[str] | None) -> None:
    """Refuses an expectation about a column that is not there."""
    unknown = [] if columns is None else [name for name in _columns(configuration["kwargs"]) if name not in columns]
    if unknown:
        raise ValueError(f"{configuration['type']}: no column {', '.join(unknown)}; there are {', '.join(columns or [])}")


def _filled_in(node: Any, parameters: Mapping[str, float]) -> Any:
    """Expectations with numbers in the place of their parameters."""
    if isinstance(node, Mapping):
        name = node.get("$PARAMETER")
        return parameters[name] if isinstance(name, str) else {key: _filled_in(child, parameters) for key, child in node.items()}
    return [_filled_in(child, parameters) for child in node] if isinstance(node, (list, tuple)) else node


def _asks_for_rows(configuration: Mapping[str, Any]) -> bool:
    least = configuration["kwargs"].get("min_value")
    given = isinstance(least, dict) or (isinstance(least, (int, float)) and least >= 1)
    return configuration["type"] == ROW_COUNT and given and configuration.get("severity", "critical") == "critical"


def _validation_reasons(error: Exception) -> str:
    """Which argument is wrong and why, of a validation error of pydantic; of another error, its message."""
    if not hasattr(error, "errors"):
        return str(error)
    return "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())


def _columns(kwargs: Mapping[str, Any]) -> list[str]:
    """The columns an expectation is about."""
    named = [kwargs.get("column"), kwargs.get("column_A"), kwargs.get("column_B"), *kwargs.get("column_list", [])]
    return [name for name in named if name]


def _parameters(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$PARAMETER"), str):
            yield node["$PARAMETER"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _parameters(child)


def _import() -> Any:
    """Great Expectations, which must not phone home (it looks at the environment when it is imported), and says too much."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    # What Google's libraries, which it imports, say of Pythons, and it of the engines that it has classes for.
    warnings.filterwarnings("ignore", "You are using a (Python version|generic SQLDatasource)")
    import great_expectations
    from great_expectations.data_context.types import base

    base.logger.setLevel(logging.WARNING)  # it has a level of its own
    return great_expectations


@contextmanager
def _opened(dataset: Dataset) -> Generator[tuple[Batch, dict[str, str]], None, None]:
    """The dataset as Great Expectations sees it, and its columns with their types."""
    gx = _import()
    from great_expectations.data_context.types.base import ProgressBarsConfig

    query = dataset.query.strip().rstrip(";")
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_sql("source", connection_string=dataset.url, create_temp_table=False)
    source.get_engine().dispose()  # it was opened to try the URL; suites run on another engine
    engine = source.get_execution_engine().engine
    with tempfile.TemporaryDirectory(prefix="validation-") as spill:
        try:
            if engine.dialect.name == "duckdb":
                query = _mend_duckdb(engine, query, Path(spill))
            elif engine.dialect.name == "awsathena":
                _mend_athena(engine, query)
            elif re.search(r"(?<![:\w]):\w", query):
                raise UnreadableDataset(f"the query has a name after a colon, which would be bound as NULL: {query}")
            columns = _column_types(engine, query)
            yield source.add_query_asset("dataset", query=query).add_batch_definition_whole_table("all").get_batch(), columns
        finally:
            engine.dispose()


def _mend_duckdb(engine: Engine, query: str, spill: Path) -> str:
    """Makes DuckDB answer Great Expectations, through hooks of SQLAlchemy on our own engine. Returns the query to ask with.

    Great Expectations gives the connection back before it reads the rows, and with DuckDB that throws the rows away: so
    they are read at once. And to learn the names of the columns it runs the query itself, all of it: so no row is asked for.
    """
    from sqlalchemy import event
    from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy

    most = 10_000  # counts, and a few examples of bad values; more would be the data itself
    # The name of a view: the text goes through SQLAlchemy, which takes {'day':DATE} for a parameter and binds NULL to it.
    view = "SELECT * FROM dataset"

    @event.listens_for(engine, "connect")
    def settle(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute("SET preserve_insertion_order = false")
        cursor.execute(f"SET temp_directory = '{spill}'")
        cursor.execute("SET enable_progress_bar = false")
        cursor.execute("SET async_threads = 0")  # with them, DuckDB 2.0 may hang for ever when a file cannot be read
        if "memory_limit" not in engine.url.query:
            cursor.execute("SET memory_limit = '512MB'")
        cursor.execute(f"CREATE TEMPORARY VIEW dataset AS {query}")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def names_only(_: Any, __: Any, statement: str, given: Any, ___: Any, ____: Any) -> tuple[str, Any]:
        return (_no_rows(view) if statement.strip() == view else statement), given

    @event.listens_for(engine, "after_cursor_execute")
    def read_at_once(_: Any, cursor: Any, statement: str, __: Any, context: Any, ___: Any) -> None:
        if not cursor.description:
            return
        rows = cursor.fetchmany(most + 1)
        if len(rows) > most:
            raise RuntimeError(f"Great Expectations asked for more than {most} rows: {statement[:200]}")
        context.cursor_fetch_strategy = FullyBufferedCursorFetchStrategy(cursor, cursor.description, rows)

    return view


def _mend_athena(engine: Engine, query: str) -> None:
    """To learn the names of the columns Great Expectations runs the query itself, and Athena would write all of it to S3."""
    from sqlalchemy import event

    if "%" in query or re.search(r"(?<![:\w]):\w", query):
        raise UnreadableDataset(f"the query has a % or a name after a colon, which would be taken for a parameter: {query}")

    @event.listens_for(engine, "before_cursor_execute", retval=True)
    def names_only(_: Any, __: Any, statement: str, given: Any, ___: Any, ____: Any) -> tuple[str, Any]:
        return (_no_rows(query) if statement.strip() == query else statement), given


def _no_rows(query: str) -> str:
    return f"SELECT * FROM (\n{query}\n) AS described LIMIT 0"


def _column_types(engine: Engine, query: str) -> dict[str, str]:
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with engine.connect() as connection:
            described = connection.exec_driver_sql(_no_rows(query)).cursor.description
    except SQLAlchemyError as error:
        raise UnreadableDataset(f"cannot read the dataset: {error.__cause__ or error}") from error
    return {column[0]: str(column[1]) for column in described}


def _validate(
    batch: Batch, name: str, expectations: list[Expectation]
) -> tuple[list[ExpectationValidationResult], dict[str, Any]]:
    """What each expectation found, and all of it as Great Expectations tells it.

    Of each check of single rows Great Expectations fetches examples, by a query or two, also where there is nothing to show:
    a warehouse is asked thirty times instead of six. So these are first asked for a yes or no, and what said no again.
    """
    suite = _import().ExpectationSuite
    of_rows = [one for one in expectations if one.expectation_type.startswith(OF_ROWS)]
    quick = batch.validate(suite(name=name, expectations=of_rows), result_format="BOOLEAN_ONLY").results if of_rows else []
    again = [result.expectation_config.to_domain_obj() for result in quick if not result.success and result.expectation_config]
    rest = [one for one in expectations if not one.expectation_type.startswith(OF_ROWS)]
    told: ExpectationSuiteValidationResult = batch.validate(
        suite(name=name, expectations=[*rest, *again]),
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": 5},
    )
    results = [*(result for result in quick if result.success), *told.results]
    passed = sum(bool(result.success) for result in results)
    statistics = {
        "evaluated_expectations": len(results),
        "successful_expectations": passed,
        "unsuccessful_expectations": len(results) - passed,
        "success_percent": 100 * passed / len(results) if results else None,
    }
    document = {**told.to_json_dict(), "statistics": statistics, "success": passed == len(results)}
    return results, {**document, "results": [result.to_json_dict() for result in results]}


def _check(result: ExpectationValidationResult) -> Check:
    configuration = result.expectation_config
    assert configuration is not None
    kind, kwargs = configuration.type, configuration.kwargs
    subject, limit = _subject(kwargs), _limit(kind, kwargs)
    if result.success and kind.startswith(OF_ROWS):
        return Check(kind, subject, _severity(configuration), True, "as expected", limit)
    if error := _exception(result):
        return Check(kind, subject, "critical", False, f"could not be checked: {error}", limit)
    return Check(kind, subject, _severity(configuration), bool(result.success), _observed(kind, result.result), limit)


def _severity(configuration: ExpectationConfiguration) -> Severity:
    return "warning" if configuration.severity.value == "warning" else "critical"


def _impossible(configuration: Mapping[str, Any], columns: Collection[str], error: ValueError) -> Check:
    """An expectation that Great Expectations is not asked: its column is missing, or its limits exclude each other."""
    kind, kwargs = configuration["type"], configuration["kwargs"]
    missing = ", ".join(name for name in _columns(kwargs) if name not in columns)
    observed = "column is missing" if missing else f"could not be checked: {error}"
    return Check(kind, missing or _subject(kwargs), "critical", False, observed, _limit(kind, kwargs))


def _exception(result: ExpectationValidationResult) -> str | None:
    """The message of what went wrong inside Great Expectations, which keeps one per expectation or one per metric."""
    info = result.exception_info or {}
    for each in [info, *(value for value in info.values() if isinstance(value, dict))]:
        if each.get("raised_exception"):
            return " ".join(str(each.get("exception_message") or "no reason given").split("[SQL:")[0].split())[:300]
    return None if result.result else "no result"


def _subject(kwargs: Mapping[str, Any]) -> str | None:
    return ", ".join(_columns(kwargs)) or None


def _observed(kind: str, result: Mapping[str, Any]) -> str:
    if result.get("element_count") == 0:
        return "no rows"
    if "observed_value" in result:
        value = result["observed_value"]
        if kind == ROW_COUNT:
            return f"{_number(value)} rows"
        return f"{PORTABLE[kind]} {'of no values' if value is None else _number(value)}"
    count = result.get("unexpected_count")
    if not count:
        return "as expected"
    found = [value for value in result.get("partial_unexpected_list", []) if value is not None]
    examples = _once(" ".join(map(str, value.values())) if isinstance(value, dict) else value for value in found)
    # Of the rows that have a value, as the limit is; of all rows where nulls are what is counted.
    said = f"{_number(result['unexpected_percent'])} % {PORTABLE[kind]} ({count:,} rows)"
    return said + (f", for example {', '.join(examples[:3])}" if examples else "")


def _limit(kind: str, kwargs: Mapping[str, Any]) -> str:
    mostly = kwargs.get("mostly", 1)
    if PORTABLE[kind] in ("null", "not null"):
        return f"at most {_number(100 * (1 - mostly))} % {PORTABLE[kind]}" if mostly < 1 else f"never {PORTABLE[kind]}"
    said = _range(kwargs) or f"never {PORTABLE[kind]}"
    if "value_set" in kwargs:
        values = [str(value) for value in kwargs["value_set"]]
        listed = ", ".join(values[:20]) + (" ..." if len(values) > 20 else "")
        said = f"{'none' if 'not_be_in_set' in kind else 'one'} of {listed}"
    return f"{said}, for at least {_number(100 * mostly)} %" if mostly < 1 else said


def _range(kwargs: Mapping[str, Any]) -> str:
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    if low is not None and high is not None:
        return f"{_number(low)} to {_number(high)}"
    if low is not None:
        return f"at least {_number(low)}"
    return f"at most {_number(high)}" if high is not None else ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _once(values: Iterable[Any]) -> list[str]:
    return list(dict.fromkeys(map(str, values)))


def _write(report: Report, result: Mapping[str, Any]) -> None:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    result_place = f"{report.page.removesuffix('.html')}.json"
    page = environment.from_string(PAGE.read_text()).render(report=report, result=result_place.rpartition("/")[2])
    documents.write(result_place, json.dumps(result, indent=1, default=str).encode())
    documents.write(report.page, page.encode())
