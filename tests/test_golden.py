"""What varies from run to run is not in the files of requests, whatever its digits happen to be."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st

from tests.conformance import golden

HEX = st.text("0123456789abcdef", min_size=16, max_size=16).filter(lambda text: not text.isalpha())


def shown(text: str) -> str:
    call = {"service": "sagemaker", "operation": "CreateModelPackage", "params": {"it": text}, "mutating": True, "status": 200}
    return str(json.loads(golden.agreed("aws", [call]))[0]["params"]["it"])


@given(HEX, HEX)
@example("12345abcdef12345", "1234567890123456")
@example("1234567890123456", "12345e1234567890")
def test_a_digest_varies_whatever_its_digits(snapshot: str, manifest: str) -> None:
    assert shown(f"2013-02-01.{snapshot}.{manifest}.000001") == "2013-02-01.00000000.00000000.000001"
    assert (
        shown(f"s3://lake/models/flight_delays/{snapshot}/model.tar.gz") == "s3://lake/models/flight_delays/00000000/model.tar.gz"
    )
    if not snapshot[:10].isalpha():
        assert shown(f"flight-delays-train-20130201-{snapshot[:10]}-1") == "flight-delays-train-20130201-00000000-1"


@given(st.floats(1e-3, 1e3).filter(lambda number: len(str(number).partition(".")[2]) >= 5))
def test_a_measured_number_varies_and_a_chosen_one_does_not(number: float) -> None:
    assert shown(f"learned at {number}, -{number}: 0.35") == "learned at 0.5, 0.5: 0.35"
