"""Containers as programs on this machine: what they are given, what they say, and how they end."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from localcloud.gcp.service import Cloud
from localcloud.jobs import Job, JobFailed
from localcloud.service import Image

LAST_LINES, LAST_WORDS = 20, 2000
INVALID_ARGUMENT, DEADLINE_EXCEEDED, INTERNAL, CANCELLED = 3, 4, 13, 1  # of google.rpc.Code
VARIABLE = re.compile(r"\$(\$?)\(([A-Za-z_][A-Za-z0-9_]*)\)")


def failure(job: Job, message: str, code: int = INVALID_ARGUMENT) -> JobFailed:
    """To be raised in the work of a job: its error will have this code."""
    job.facts["code"] = code
    return JobFailed(message)


def image_of(cloud: Cloud, job: Job, uri: str) -> Image:
    """Raises JobFailed if nothing stands for it."""
    if uri not in cloud.images:
        raise failure(job, f"Failed to pull image {uri}: it is not in the registry, which is images.json here")
    return cloud.images[uri]


def command(image: Image, spec: Mapping[str, Sequence[str]]) -> list[str]:
    """As Docker does: a command takes the place of the image's entrypoint, and arguments follow."""
    return [*(spec.get("command") or image.entrypoint), *spec.get("args", ())]


def environment(
    cloud: Cloud, image: Image, home: Path, own: Mapping[str, str], asked: Mapping[str, str], gcs: Path | None = None
) -> dict[str, str]:
    """What the program is given, and nothing of this server's own environment.

    gcs: what stands for /gcs; without it, the variables of the image that need it are left out.
    """
    of_image = {
        name: value.replace("{gcs}", str(gcs)) for name, value in image.environment.items() if gcs or "{gcs}" not in value
    }
    made = {
        "PATH": ":".join([*([image.path] if image.path else []), "/usr/local/bin", "/usr/bin", "/bin"]),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        **of_image,
        **cloud.environment,
        **own,
        **asked,
    }
    # Where both have programs of their own, both are found.
    paths = [each["PYTHONPATH"] for each in (asked, of_image, cloud.environment) if each.get("PYTHONPATH")]
    return {**made, **({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})}


def variables(listed: Sequence[Mapping[str, str]], known: Mapping[str, str]) -> dict[str, str]:
    """A list of names and values; a value may refer to `$(NAME)` of those before it."""
    made: dict[str, str] = {}
    for each in listed:
        made[each["name"]] = expanded(each.get("value", ""), {**known, **made})
    return made


def expanded(text: str, known: Mapping[str, str]) -> str:
    """`$(NAME)` replaced if it is known, `$$(NAME)` is `$(NAME)`."""
    return VARIABLE.sub(lambda found: f"$({found[2]})" if found[1] else known.get(found[2], found[0]), text)


def located(argv: Sequence[str], given: Mapping[str, str]) -> list[str]:
    """The program by its path: it is looked for on the container's PATH, not on this server's."""
    return [shutil.which(argv[0], path=given["PATH"]) or argv[0], *argv[1:]]


def run(job: Job, argv: Sequence[str], given: Mapping[str, str], image: Image) -> int:
    """A container to its end; its exit code as Docker has it: 128 and the number of the signal that ended it.

    Raises:
        JobFailed: if there is no such program.
    """
    try:
        code = job.run(located(argv, given), given, image.directory)
    except OSError as error:
        raise failure(job, f"The container cannot be started: {error}") from None
    return code if code >= 0 else 128 - code


@contextmanager
def logged(cloud: Cloud, job: Job, identity: str) -> Iterator[Path]:
    """Keep what a job says in a text file that a person can read. Its path."""
    name = re.sub(r"[^\w.-]+", "_", job.name)[:80]
    path = cloud.folder / "logs" / f"{name}-{identity}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", buffering=1) as file:
        job.on_line = lambda line: print(line, file=file)
        try:
            yield path
        finally:
            job.on_line = None


def last_words(job: Job) -> str:
    """The end of what a program said."""
    return "\n".join(job.log.splitlines()[-LAST_LINES:])[-LAST_WORDS:]
