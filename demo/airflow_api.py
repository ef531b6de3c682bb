"""A small client of Airflow's REST API: what the demo and its tests ask of a running Airflow, and nothing more."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from typing import Any


class RequestRefused(RuntimeError):
    """Airflow answered with an error; `status` is its HTTP status, the message has what it said."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class AirflowApi:
    """Talks to the Airflow at `address`, as one user; logs in at the first call and when the token has run out."""

    def __init__(self, address: str, user: str, password: str) -> None:
        self.address = address
        self._login = {"username": user, "password": password}
        self._token: str | None = None

    def health(self) -> dict[str, str]:
        """The state ("healthy", "unhealthy") of each component. Needs no login.

        Raises:
            OSError: as long as nobody answers.
        """
        answer = self._send("GET", "/api/v2/monitor/health", None, {})
        return {component: state["status"] for component, state in answer.items() if state is not None}

    def has_dag(self, dag_id: str) -> bool:
        try:
            self.get(f"/dags/{_quoted(dag_id)}")
        except RequestRefused as error:
            if error.status == 404:
                return False
            raise
        return True

    def import_errors(self) -> list[str]:
        return [f"{e['filename']}: {e['stack_trace']}" for e in self.get("/importErrors")["import_errors"]]

    def unpause(self, dag_id: str) -> None:
        self.call("PATCH", f"/dags/{_quoted(dag_id)}?update_mask=is_paused", {"is_paused": False})

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Starts a run without a logical date. A run of that id that is there already is left alone."""
        try:
            self.call("POST", f"/dags/{_quoted(dag_id)}/dagRuns", {"dag_run_id": run_id, "logical_date": None, "conf": conf})
        except RequestRefused as error:
            if error.status != 409:
                raise

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """The runs of a DAG, each with `dag_run_id`, `state`, `run_type`, `partition_key`, ..."""
        runs: list[dict[str, Any]] = self.get(f"/dags/{_quoted(dag_id)}/dagRuns?limit=100")["dag_runs"]
        return runs

    def run(self, dag_id: str, run_id: str) -> dict[str, Any]:
        return self.get(f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a run, each with `task_id`, `map_index`, `state`, `try_number`, `duration`, ..."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances?limit=100"
        tasks: list[dict[str, Any]] = self.get(path)["task_instances"]
        return tasks

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int, map_index: int = -1) -> str:
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/taskInstances/{_quoted(task_id)}/logs/{try_number}"
        content = self.get(f"{path}?map_index={map_index}&full_content=true")["content"]
        return "\n".join(_log_line(line) for line in content)

    def questions(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """What tasks of a run ask of people and nobody has answered yet, each with `subject`, `body`, `options`, ..."""
        path = f"/dags/{_quoted(dag_id)}/dagRuns/{_quoted(run_id)}/hitlDetails?response_received=false"
        questions: list[dict[str, Any]] = self.get(path)["hitl_details"]
        return questions

    def answer(self, question: dict[str, Any], option: str, fields: dict[str, Any]) -> None:
        """Answers one of `questions`, as the form of the UI does; `fields` are those of the form."""
        task = question["task_instance"]
        of = f"/dags/{_quoted(task['dag_id'])}/dagRuns/{_quoted(task['dag_run_id'])}/taskInstances/{_quoted(task['task_id'])}"
        self.call("PATCH", f"{of}/{task['map_index']}/hitlDetails", {"chosen_options": [option], "params_input": fields})

    def get(self, path: str) -> dict[str, Any]:
        return self.call("GET", path, None)

    def call(self, method: str, path: str, body: Any) -> dict[str, Any]:
        """One request below /api/v2, with the user's token.

        Raises:
            RequestRefused: for an answer of 400 and above.
            OSError: if there is no answer.
        """
        for attempt in (1, 2):
            if self._token is None:
                self._token = self._send("POST", "/auth/token", self._login, {})["access_token"]
            try:
                return self._send(method, f"/api/v2{path}", body, {"Authorization": f"Bearer {self._token}"})
            except RequestRefused as error:
                if error.status != 401 or attempt == 2:
                    raise
                self._token = None
        raise AssertionError("unreachable")

    def _send(self, method: str, path: str, body: Any, headers: dict[str, str]) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            self.address + path, data, {"Accept": "application/json", "Content-Type": "application/json"} | headers, method=method
        )
        try:
            # No proxy of the environment: the address is this machine's own.
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=30) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError as error:
            message = f"{method} {path}: {error.code} {error.read().decode(errors='replace')[:2000]}"
            raise RequestRefused(error.code, message) from None


def _quoted(part: str) -> str:
    return urllib.parse.quote(part, safe="")


def _log_line(line: Any) -> str:
    if not isinstance(line, dict):
        return str(line)
    text = " ".join(str(line[key]) for key in ("timestamp", "level", "event") if line.get(key))
    for error in line.get("error_detail") or []:
        text += f"\n    {error.get('exc_type')}: {error.get('exc_value')}"
    return text
