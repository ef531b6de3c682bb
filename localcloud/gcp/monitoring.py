"""Cloud Monitoring: points of time series, written in order and read back by metric and labels."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from google.cloud.monitoring_v3 import types
from google.protobuf import json_format
from google.protobuf.empty_pb2 import Empty

from localcloud.gcp.service import Cloud, Method, Methods, pages
from localcloud.honoured import honoured
from localcloud.service import NotHonoured, Refused

TABLES = """
    CREATE TABLE IF NOT EXISTS points (series TEXT NOT NULL, ended REAL NOT NULL, point BLOB NOT NULL,
        PRIMARY KEY (series, ended));
    CREATE TABLE IF NOT EXISTS kinds (metric TEXT PRIMARY KEY, value_type TEXT NOT NULL);
"""
OWN = ("custom.googleapis.com/", "external.googleapis.com/", "workload.googleapis.com/")
# What a program may write to, of all resources that Google watches by itself.
RESOURCES = ("global", "generic_node", "generic_task")
APART = 5.0  # seconds between two points of a series
OLDEST, NEWEST = 25 * 3600.0, 300.0  # seconds before and after now that a point may be
SERIES = 200  # of one call
PAGE = 1000

check_create = honoured(
    "CreateTimeSeries",
    """name time_series.metric.type time_series.metric.labels time_series.resource.type time_series.resource.labels
    time_series.metric_kind=GAUGE time_series.value_type time_series.unit time_series.points.interval.end_time
    time_series.points.interval.start_time time_series.points.value.double_value time_series.points.value.int64_value
    time_series.points.value.bool_value time_series.points.value.string_value""",
)
check_list = honoured("ListTimeSeries", "name filter interval view=FULL|HEADERS page_size page_token")
TERM = re.compile(r'\s*(metric\.type|resource\.type|(?:metric|resource)\.labels?\.\w+)\s*=\s*"([^"]*)"\s*')


def methods(cloud: Cloud) -> Methods:
    service = _Monitoring(cloud.folder / "monitoring", cloud.project)
    root = "/google.monitoring.v3.MetricService/"
    return {
        f"{root}CreateTimeSeries": Method(types.CreateTimeSeriesRequest, service.create),
        f"{root}ListTimeSeries": Method(types.ListTimeSeriesRequest, service.list),
    }


class _Monitoring:
    def __init__(self, folder: Path, project: str) -> None:
        folder.mkdir(exist_ok=True)
        self._project = f"projects/{project}"
        self._lock = threading.Lock()
        self._kept = sqlite3.connect(folder / "monitoring.db", check_same_thread=False)
        self._kept.executescript(TABLES)

    def create(self, asked: Any) -> Any:
        check_create(json_format.MessageToDict(type(asked).pb(asked), preserving_proto_field_name=True))
        self._check_project(asked.name)
        if not 1 <= len(asked.time_series) <= SERIES:
            raise Refused("invalid", f"Field timeSeries had an invalid value: 1 to {SERIES} time series are written by a call")
        if len({_key(each) for each in asked.time_series}) < len(asked.time_series):
            raise Refused("invalid", "Field timeSeries had an invalid value: Duplicate TimeSeries encountered.")
        with self._lock, self._kept:
            for i, series in enumerate(asked.time_series):
                self._add(f"timeSeries[{i}]", series)
        return Empty()

    def list(self, asked: Any) -> Any:
        check_list(json_format.MessageToDict(type(asked).pb(asked), preserving_proto_field_name=True))
        self._check_project(asked.name)
        meant = _filter(asked.filter)
        if not asked.interval.end_time:
            raise Refused("invalid", "Field interval.endTime had an invalid value: it is required")
        end = asked.interval.end_time.timestamp()
        begin = asked.interval.start_time.timestamp() if asked.interval.start_time else end - 1e-6
        whole = asked.view == types.ListTimeSeriesRequest.TimeSeriesView.FULL
        found = [series for series in self._read(begin, end, whole) if meant(series)]
        page, token = pages(found, asked.page_size or PAGE, asked.page_token)
        return types.ListTimeSeriesResponse(time_series=page, next_page_token=token)

    def _add(self, where: str, series: Any) -> None:
        """Raises Refused if Google would not take this point."""
        if not series.metric.type.startswith(OWN):
            raise Refused("invalid", f"{where}: the metric {series.metric.type!r} must begin with one of {', '.join(OWN)}")
        if series.resource.type not in RESOURCES:
            raise NotHonoured(f"the resource {series.resource.type!r} (only {', '.join(RESOURCES)})")
        if len(series.points) != 1:
            raise Refused("invalid", f"Field {where}.points had an invalid value: Exactly one point must be written")
        point = types.Point.pb(series.points[0])
        ended, key = point.interval.end_time.ToNanoseconds() / 1e9, _key(series)
        if point.interval.HasField("start_time") and point.interval.start_time != point.interval.end_time:
            raise Refused("invalid", f"Field {where}.points[0].interval.startTime: that of a gauge is its endTime")
        if not -OLDEST < ended - time.time() < NEWEST:
            raise Refused("invalid", f"Field {where}.points[0].interval.endTime: more than 25 hours ago, or in the future")
        self._check_kind(where, series.metric.type, point.value.WhichOneof("value"))
        (newest,) = self._kept.execute("SELECT max(ended) FROM points WHERE series = ?", (key,)).fetchone()
        if newest is not None and ended <= newest:
            raise Refused("invalid", f"{where}: Points must be written in order. One or more of them is older than the newest.")
        if newest is not None and ended - newest < APART:
            said = "One or more points were written more frequently than the maximum sampling period configured for the metric."
            raise Refused("invalid", f"{where}: {said}")
        self._kept.execute("INSERT INTO points VALUES (?, ?, ?)", (key, ended, point.SerializeToString()))

    def _check_kind(self, where: str, metric: str, value: str | None) -> None:
        """The first point of a metric says what all others are."""
        if value is None:
            raise Refused("invalid", f"Field {where}.points[0].value had an invalid value: it is required")
        self._kept.execute("INSERT OR IGNORE INTO kinds VALUES (?, ?)", (metric, value))
        (known,) = self._kept.execute("SELECT value_type FROM kinds WHERE metric = ?", (metric,)).fetchone()
        if known != value:
            raise Refused("invalid", f"{where}: Value type for metric {metric} must be {known}, but is {value}.")

    def _read(self, begin: float, end: float, whole: bool) -> Iterator[Any]:
        """Each series that has points then, the newest point first."""
        with self._lock:
            rows = self._kept.execute(
                "SELECT series, point FROM points WHERE ended > ? AND ended <= ? ORDER BY series, ended DESC", (begin, end)
            ).fetchall()
        found: dict[str, list[Any]] = {}
        for key, point in rows:
            found.setdefault(key, []).append(types.Point.deserialize(point))
        for key, points in found.items():
            series = types.TimeSeries.from_json(key)
            series.metric_kind = "GAUGE"
            kind = types.TypedValue.pb(points[0].value).WhichOneof("value")
            series.value_type = kind.removesuffix("_value").upper()
            if whole:
                series.points = points
            yield series

    def _check_project(self, name: str) -> None:
        if name != self._project:
            raise Refused("notFound", f"{name!r} is not {self._project}", 404)


def _key(series: Any) -> str:
    """What tells a series from others, as JSON of a series without points."""
    bare = types.TimeSeries(
        metric={"type": series.metric.type, "labels": dict(series.metric.labels)},
        resource={"type": series.resource.type, "labels": dict(series.resource.labels)},
    )
    return json_format.MessageToJson(types.TimeSeries.pb(bare), sort_keys=True, indent=None)


def _filter(text: str) -> Callable[[Any], bool]:
    """`metric.type = "…" AND metric.labels.model = "…"`, and nothing that is more than this."""
    wanted = []
    for part in re.split(r"\bAND\b", text):
        match = TERM.fullmatch(part)
        if not match:
            raise NotHonoured(f"this part of a filter: {part.strip()!r}")
        wanted.append((match[1].split("."), match[2]))
    if ["metric", "type"] not in [path for path, _ in wanted]:
        raise Refused("invalid", 'Field filter had an invalid value: it must have metric.type = "…"')

    def meant(series: Any) -> bool:
        for (side, what, *label), value in wanted:
            one = getattr(series, side)
            if (one.type if what == "type" else one.labels.get(label[0], "")) != value:
                return False
        return True

    return meant
