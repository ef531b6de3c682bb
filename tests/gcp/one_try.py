"""A worker that makes one try of a task with a job, in a process of its own: of the kind and the request that it is given."""

from __future__ import annotations

import json
import sys

from include.config import load_model
from tests.dags.lakes import MODEL
from tests.gcp.rooms import OPERATORS
from tests.remote_jobs import context

if __name__ == "__main__":
    kind = sys.argv[1]
    operator = OPERATORS[kind](task_id="job", model=load_model(MODEL), step=kind, request={})
    operator.request, operator.after = json.load(sys.stdin), []
    operator.execute(context())
