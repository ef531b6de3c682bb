"""`python -m tests.worker <descriptor>`: runs of DAGs in processes that may be killed, one after the other.

It has imported all that takes long, so a child of it is ready at once. Of each line of its input, a run as
`tests.dag_runs` takes it, it writes to the descriptor the number of the child, which starts at the next line; then how that
has ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from importlib import import_module
from typing import IO, Any

import airflow.settings
import great_expectations
import httpx
from airflow.dag_processing import dagbag
from airflow.sdk.execution_time.supervisor import in_process_api_server

from include import champions, lineage
from include.core import drift, training
from tests import dag_runs
from tests.dag_runs import load_dag

HEAVY = (great_expectations, champions, lineage, drift, training)
QUICK = 0.1  # seconds between two looks


def main(answers: IO[str]) -> None:
    {"aws": prepare_aws, "gcp": prepare_gcp}[os.environ["AILERON_PLATFORM"]]()
    asyncio.run(warm())
    dag = None
    for line in sys.stdin:
        asked = json.loads(line)
        dag = dag or load_dag(asked["dag_id"])
        dispose()
        wait, go = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(go)
            os.read(wait, 1)
            _work(asked, dag)
        os.close(wait)
        print(child, file=answers, flush=True)
        sys.stdin.readline()
        os.close(go)
        _, status = os.waitpid(child, 0)
        print(status, file=answers, flush=True)


def prepare_aws() -> None:
    for name in ("pyathena.sqlalchemy.base", "s3fs", "include.platforms.aws.platform"):
        import_module(name)
    from include.platforms.aws import tables
    from include.platforms.aws.settings import AwsSettings

    AwsSettings.seconds = QUICK  # type: ignore[method-assign,assignment]
    tables.QUICK_POLL = QUICK


def prepare_gcp() -> None:
    """Nothing is asked here: gRPC does not survive a fork."""
    # The first of them lets aiohttp ask the environment for proxies.
    first = "localcloud.gcp.client.sitecustomize"
    for name in (first, "gcsfs", "google.cloud.aiplatform_v1", "sqlalchemy_bigquery", "include.platforms.gcp.platform"):
        import_module(name)
    from include.platforms.gcp import jobs
    from include.platforms.gcp.settings import GcpSettings

    GcpSettings.seconds = QUICK  # type: ignore[method-assign,assignment]
    jobs.QUICK_POLL = QUICK


async def warm() -> None:
    """The API that tasks talk to, in their own process, takes ten seconds until it has answered for the first time."""
    transport = httpx.ASGITransport(in_process_api_server().app)
    async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
        await client.get("/health")


def dispose() -> None:
    """A connection to the database must not be used by two."""
    if airflow.settings.engine is not None:
        airflow.settings.engine.dispose()


def _work(asked: dict[str, Any], dag: Any) -> None:
    """Never returns: 0 if the run has succeeded."""
    code = 1
    try:
        dag_runs.load_dag = lambda dag_id: dag
        if asked.pop("again", False):
            # The first try has written all DAGs to the database.
            dagbag.sync_bag_to_db = lambda *_: None
            dagbag.BundleDagBag = lambda **_: None  # type: ignore[assignment,misc]
            run = dag_runs.run_again(**asked)
        else:
            run = dag_runs.run_dag(**asked)
        code = 0 if run.state == "success" else 2
    finally:
        os._exit(code)


if __name__ == "__main__":
    main(os.fdopen(int(sys.argv[1]), "w"))
