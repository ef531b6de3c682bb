"""What a real Airflow says of its folder of DAGs, each time it is told to look: `python real_airflow.py <path of the API>...`

Its DAG processor parses the files, its API server is asked. The environment says where it lives; an answer is a line of JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any


def main(paths: list[str]) -> None:
    _airflow("db", "migrate")
    for _ in sys.stdin:
        _airflow("dag-processor", "--num-runs", "1")
        print("\n" + json.dumps({path: _answer(path) for path in paths}), flush=True)


def _airflow(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "airflow", *arguments], check=True, capture_output=True)


def _answer(path: str) -> Any:
    from airflow.api_fastapi.app import cached_app
    from fastapi.testclient import TestClient

    with TestClient(cached_app(), base_url="http://localhost") as client:
        token = client.get("/auth/token").json()["access_token"]
        answer = client.get(f"/api/v2{path}", headers={"Authorization": f"Bearer {token}"})
        answer.raise_for_status()
        return answer.json()


if __name__ == "__main__":
    main(sys.argv[1:])
