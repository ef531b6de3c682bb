"""What our DAGs ask of a cloud, as files that people read: `requests/<platform>.json`.

`GOLDEN=write make test-localcloud PLATFORM=...  ARGS='-k agreed'` writes them anew; the difference is for a person to look at.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "requests"
# The services that compute, and how a call is known to be the DAGs' own; suites of expectations ask whatever they like.
ASKED: Mapping[str, Mapping[str, str]] = {
    "local": {},
    "aws": {"sagemaker": "", "glue": "", "athena": r'"ClientRequestToken": "[0-9a-f]{64}"'},
    "gcp": {"aiplatform": "", "dataflow": "", "monitoring": "", "bigquery": r'"jobId": "(flight-delays|aileron)-|tables\.'},
}
# What another run, or another processor, says otherwise, and what stands for it: values that the services would take too.
TIME, DIGEST = "2000-01-01T00:00:00Z", "00000000"
VARIES = (
    (r"\d{8}_\d{6}_\d{5}_[0-9a-z]{5}_[0-9a-f-]{36}", "rows"),  # how Athena names the files of a table
    (r"manual__\d{4}-\d\d-\d\d[tT][\w:.+-]*", "manual__run"),
    (r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", TIME),
    (r"\b\d{8}T\d{6}(\.?\d+)?Z?\b", "20000101T000000"),
    (r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", "00000000-0000-0000-0000-000000000000"),
    (r"(?<![\w.-])-?\d+\.\d{5,}(e[+-]?\d+)?(?![0-9a-zA-Z])", "0.5"),  # and no digest that a day and a point come before
    (r'(trees\\*": \\*"?)\d+', r"\g<1>10"),
    (r"(?<![0-9a-zA-Z])[0-9a-f]{64}(?![0-9a-zA-Z])", "0" * 64),
    (r'(?<![0-9a-zA-Z])(?<!BytesBilled": ")(?!123456789012\b)(?=[a-f]*[0-9])[0-9a-f]{10,40}(?![0-9a-zA-Z])', DIGEST),
    (rf"(?<={DIGEST}-)[0-9a-f]{{6}}(?=-\d)", "000000"),
)
LONGEST = 4000  # characters of a text that are shown whole


def path(platform: str) -> Path:
    return FOLDER / f"{platform}.json"


def agreed(platform: str, calls: Iterable[Mapping[str, Any]]) -> str:
    """What was asked by these calls, each request once, without what varies from run to run; in a text of JSON."""
    found = set()
    for call in calls:
        own = ASKED[platform].get(call["service"])
        text = json.dumps({"operation": call["operation"], **call["params"]}, sort_keys=True)
        if own is None or not call["mutating"] or not 200 <= (call["status"] or 0) < 300 or not re.search(own, text):
            continue
        for pattern, name in VARIES:
            text = re.sub(pattern, name, text)
        found.add((call["service"], call["operation"], text))
    asked = [{"service": service, "operation": operation, "params": _params(text)} for service, operation, text in sorted(found)]
    return json.dumps(asked, indent=1, ensure_ascii=False) + "\n"


def _params(text: str) -> dict[str, Any]:
    params: dict[str, Any] = shown(json.loads(text))
    del params["operation"]
    return params


def shown(value: Any) -> Any:
    """Statements of a hundred thousand characters are told by their beginning and their digest."""
    if isinstance(value, dict):
        return {name: shown(each) for name, each in value.items()}
    if isinstance(value, list):
        return [shown(each) for each in value]
    if isinstance(value, str) and len(value) > LONGEST:
        return f"{value[:LONGEST]} ... {len(value)} characters, SHA-256 {hashlib.sha256(value.encode()).hexdigest()}"
    return value
