"""What was agreed to be asked of AWS, against botocore's models: also what the client itself leaves unchecked."""

from __future__ import annotations

import json

import botocore.session
from botocore.validate import ParamValidator

from tests.aws.test_requests import faults
from tests.conformance import golden


def test_every_request_is_one_that_aws_takes() -> None:
    session, wrong, agreed = botocore.session.get_session(), [], json.loads(golden.path("aws").read_text())
    assert {each["operation"] for each in agreed} >= {
        "CreateTrainingJob", "CreateProcessingJob", "CreateTransformJob", "CreateModelPackage", "StartJobRun",
        "StartQueryExecution", "CreateTable", "CreatePartition",
    }  # fmt: skip
    for each in agreed:
        shape = session.get_service_model(each["service"]).operation_model(each["operation"]).input_shape
        report = ParamValidator().validate(each["params"], shape)
        wrong += [f"{each['operation']}: {report.generate_report()}"] if report.has_errors() else []
        wrong += faults(shape, each["params"], each["operation"])
    assert wrong == []
