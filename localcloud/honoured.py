"""What of a request is honoured. Anything else is refused, by name: nothing that was asked for is left out in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from localcloud.service import NotHonoured


def honoured(operation: str, text: str) -> Callable[[Mapping[str, Any]], None]:
    """A check of requests.

    Args:
        text: paths of members, such as `AlgorithmSpecification.TrainingImage`; all below a path is honoured with it. A path
            may name the only values: `InputMode=File|Pipe`. An item of a list has the path of the list.

    Returns:
        A function that raises NotHonoured, naming the member.
    """
    known: dict[str, tuple[str, ...]] = {}
    for word in text.split():
        path, _, values = word.partition("=")
        known[path] = tuple(values.split("|")) if values else ()

    def check(request: Mapping[str, Any]) -> None:
        for path, value in _leaves(request, ""):
            parts = path.split(".")
            above = next((top for top in (".".join(parts[: i + 1]) for i in range(len(parts))) if top in known), None)
            if above is None:
                raise NotHonoured(f"{path} of {operation}")
            if known[above] and str(value) not in known[above]:
                raise NotHonoured(f"{path}={value} of {operation} (only {' or '.join(known[above])})")

    return check


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and (value or not path):
        for name, each in value.items():
            yield from _leaves(each, f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _leaves(each, path)
    else:
        yield path, value
