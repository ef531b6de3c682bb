"""docs/platforms/aws.md against the code: variables and their defaults, prices and what they come to, calls, messages."""

from __future__ import annotations

import json
import re
from functools import partial

import pytest

from deploy.aws import policy
from include.platforms import environment
from include.platforms.aws import prices
from include.platforms.aws.settings import PREFIX, AwsSettings
from tests.docs.platforms import Page

PAGE = Page("aws")
# Said by AWS, not by us.
OF_AWS = {"AccessDeniedException", "AccessDenied", "HIVE_BAD_DATA", "HIVE_CURSOR_ERROR", "Query exhausted resources"}
OF_AWS |= {"ResourceLimitExceeded", "ConcurrentRunsExceededException"}

NOT_CALLS = {"SageMaker", "CloudWatch"}


def test_every_variable_is_in_the_table_with_its_default() -> None:
    PAGE.check_variables(AwsSettings, partial(environment.variable, PREFIX))


def test_the_estimate_is_what_the_price_book_says() -> None:
    book = prices.book()
    assert f"as of {book['as_of']}" in PAGE.text
    PAGE.check_estimate(4)
    assert f"× {book['hours']['ml.m5.xlarge']} |" in PAGE.row("Batch Transform")
    assert f"× {book['hours']['G.1X']} |" in PAGE.row("Glue,")
    assert f"× {book['athena']['per_terabyte']:g} |" in PAGE.row("Athena, features")
    assert f"{book['athena']['least_bytes'] / 1e12 * book['athena']['per_terabyte']:.5f}" in PAGE.row("Athena, small")


def test_the_tables_of_calls_name_tasks_operators_and_calls_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    places = {
        "AILERON_PLATFORM": "aws",
        "AILERON_AWS_LAKE": "s3://lake/aileron",
        "AILERON_AWS_DATABASE": "aileron",
        "AILERON_AWS_ROLE": "arn:aws:iam::123456789012:role/jobs",
        "AILERON_AWS_IMAGE": "image",
        "AILERON_AWS_RESULTS": "redshift",
        "AILERON_AWS_REDSHIFT_WORKGROUP": "aileron",
        "AILERON_AWS_REDSHIFT_ROLE": "arn:aws:iam::123456789012:role/redshift",
    }
    for name, value in places.items():
        monkeypatch.setenv(name, value)
    operations = {operation for made in json.loads(policy.CALLS.read_text()).values() for operation in made}
    rows = list(PAGE.check_tasks(others=["SqsSensorTrigger", "SageMakerTuningOperator"]))
    for calls in rows:
        assert set(re.findall(r"\b(?:[A-Z][a-z0-9]+){2,}\b", calls)) - NOT_CALLS <= operations, calls
    assert len(rows) > 20


def test_every_message_is_something_the_code_says() -> None:
    PAGE.check_messages(OF_AWS)
