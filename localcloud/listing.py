"""Lists of SageMaker's, which all are filtered, sorted and cut into pages alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from localcloud.honoured import honoured

PAGE = 10  # AWS's, where a request does not say: clients that do not turn pages are found out
check = honoured(
    "a List operation",
    "NextToken MaxResults NameContains StatusEquals CreationTimeAfter CreationTimeBefore LastModifiedTimeAfter"
    " LastModifiedTimeBefore SortOrder SortBy=CreationTime|Name|Status"
    " ModelApprovalStatus ModelPackageGroupName ModelPackageType=Versioned HyperParameterTuningJobName",
)


def listed(
    request: Mapping[str, Any], rows: list[dict[str, Any]], name: str, member: str, status: str | None = None
) -> dict[str, Any]:
    """One page of rows: filtered, sorted and cut as a List operation asks."""
    check(request)
    bounds = [("CreationTime", "CreationTime"), ("LastModifiedTime", "LastModifiedTime")]
    for asked, shown in bounds:
        if after := request.get(f"{asked}After"):
            rows = [row for row in rows if row[shown] >= after]
        if before := request.get(f"{asked}Before"):
            rows = [row for row in rows if row[shown] <= before]
    if part := request.get("NameContains"):
        rows = [row for row in rows if part.lower() in row[name].lower()]
    by = {"Name": name, "Status": status}.get(request.get("SortBy", ""), "CreationTime") or "CreationTime"
    rows = sorted(rows, key=lambda row: row[by], reverse=request.get("SortOrder", "Ascending") == "Descending")
    begin = int(request.get("NextToken", 0))
    end = begin + request.get("MaxResults", PAGE)
    return {member: rows[begin:end], "NextToken": str(end) if end < len(rows) else None}
