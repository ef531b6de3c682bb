"""The services of the local cloud itself, and what they share. All else that it offers is passed on to moto."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

from localcloud import mwaa, sagemaker
from localcloud.service import Cloud, Handler

# The rooms of those that share the catalog.
ON_CATALOG = {"glue_catalog": "glue", "glue_jobs": "glue", "athena": "athena", "redshift": "redshift-data"}


def services(cloud: Cloud) -> dict[str, dict[str, Handler]]:
    """Each service with its operations, their state new and empty."""
    made: dict[str, dict[str, Handler]] = {"sagemaker": sagemaker.operations(cloud), "mwaa": mwaa.operations(cloud)}
    if find_spec("localcloud.glue_catalog") is None:
        return made
    catalog = import_module("localcloud.glue_catalog").Catalog(cloud.folder / "catalog.json", cloud.account)
    for room, service in ON_CATALOG.items():
        if find_spec(f"localcloud.{room}"):
            made.setdefault(service, {}).update(import_module(f"localcloud.{room}").operations(cloud, catalog))
    return made
