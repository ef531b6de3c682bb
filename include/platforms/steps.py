"""A verb of a platform that is several tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from airflow.sdk import TaskGroup, chain
from airflow.sdk.definitions.xcom_arg import PlainXComArg, XComArg


class Steps(PlainXComArg):
    """The result of the last task of a group. In `chain`, arrows go to the first tasks and leave from the last."""

    group: TaskGroup

    def __init__(self, group: TaskGroup, last: XComArg) -> None:
        operator, key = next(last.iter_references())
        super().__init__(operator=operator, key=key)
        # attrs has given the parent no place for more.
        object.__setattr__(self, "group", group)

    @property
    def roots(self) -> list[Any]:
        return list(self.group.get_roots())

    @property
    def leaves(self) -> list[Any]:
        return [self.operator]

    def set_upstream(self, task_or_task_list: Any, edge_modifier: Any = None) -> None:
        for root in self.group.get_roots():
            root.set_upstream(task_or_task_list, edge_modifier)


def steps(group: TaskGroup, *tasks: Any) -> Steps:
    """The tasks of a group, one after the other; tasks in a list beside each other. The last one has the result."""
    chain(*tasks)
    last = tasks[-1]
    assert isinstance(last, XComArg) and not isinstance(last, Sequence)
    return Steps(group, last)
