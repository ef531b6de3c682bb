"""A stop that comes too late; all else about remote jobs is tried on the local clouds."""

from __future__ import annotations

from typing import Any

import pytest

from include.platforms.remote_jobs import Found, Kind, State, stop


def kind(state: State) -> Kind:
    def refused(client: Any, ref: str) -> None:
        raise ValueError(f"{ref} cannot be stopped")

    return Kind(client=str, look=lambda client, ref: Found(state), stop=refused)


@pytest.mark.parametrize("state", ["succeeded", "failed", "stopping", "absent"])
def test_a_job_that_has_ended_meanwhile_need_not_be_stopped(state: State) -> None:
    stop(kind(state), None, "job-1")


def test_a_job_that_runs_on_in_spite_of_a_stop_is_told_of() -> None:
    with pytest.raises(ValueError, match="job-1 cannot be stopped"):
        stop(kind("running"), None, "job-1")
