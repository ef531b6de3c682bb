"""The services of the local Google Cloud, put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa

from localcloud.gcp import storage
from localcloud.gcp.composer import Environments
from localcloud.gcp.service import Cloud, Method, Methods, Objects, Operations, Tables
from localcloud.gcp.stored_objects import StoredObjects

# The modules, by the service whose calls over HTTP they answer; over gRPC a method's path says it all.
MODULES = {
    "bigquery": "bigquery",
    "bigquery_storage": "bigquerystorage",
    "vertex": "aiplatform",
    "dataflow": "dataflow",
    "pubsub": "pubsub",
    "monitoring": "monitoring",
}


@dataclass(frozen=True)
class Services:
    cloud: Cloud
    operations: Mapping[str, Operations]
    methods: Methods
    objects: StoredObjects
    environments: Environments

    @property
    def names(self) -> list[str]:
        return sorted(self.operations)

    def close(self) -> None:
        """Let go of the files of the state."""
        for each in (self.cloud.tables, self.objects):
            getattr(each, "close", lambda: None)()


# Given the folder of the state, what else the cloud needs.
MakeCloud = Callable[[Objects, Tables], Cloud]


def services(folder: Path, make: MakeCloud) -> Services:
    """All services, with what the folder of the state has of them."""
    objects = StoredObjects(_own(folder, "storage"))
    cloud = make(objects, _tables(folder, objects))
    environments = Environments(cloud)
    operations: dict[str, Operations] = {
        "storage": storage.operations(cloud, objects),
        "composer": environments.operations(),
    }
    methods: dict[str, Method] = dict(storage.methods(objects))
    for module, service in MODULES.items():
        if find_spec(f"localcloud.gcp.{module}") is None:
            continue
        made = import_module(f"localcloud.gcp.{module}")
        operations[service] = made.operations(cloud) if hasattr(made, "operations") else {}
        methods.update(made.methods(cloud) if hasattr(made, "methods") else {})
    return Services(cloud, operations, methods, objects, environments)


def _tables(folder: Path, objects: Objects) -> Tables:
    if find_spec("localcloud.gcp.bigquery") is None:
        return _NoTables()
    tables: Tables = import_module("localcloud.gcp.bigquery").tables(_own(folder, "bigquery"), objects)
    return tables


def _own(folder: Path, service: str) -> Path:
    own = folder / service
    own.mkdir(exist_ok=True)
    return own


class _NoTables:
    def rows(self, table: str) -> pa.Table:
        raise LookupError(table)

    def write(self, table: str, rows: pa.Table, *, replace: bool = True) -> None:
        raise LookupError(table)
