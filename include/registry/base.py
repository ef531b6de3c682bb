"""What the pipelines ask of a model registry. It holds versions, their metrics and aliases; the files stay in the lake."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Alias = Literal["champion", "challenger", "previous"]
ALIASES: tuple[Alias, ...] = ("champion", "challenger", "previous")


class RegistryUnavailable(RuntimeError):
    """The registry did not answer, or not with sense. Nothing is known: do not go on with a guess."""


class UnknownVersion(LookupError):
    """The registry has no such version of the model."""


@dataclass(frozen=True)
class ModelVersion:
    """A registered model. `artifact` is the path or URI of its folder; `manifest_sha256` is what its manifest must have."""

    model: str
    version: str
    artifact: str
    manifest_sha256: str
    metrics: dict[str, float]


@dataclass(frozen=True)
class TrainingData:
    """The snapshot a version learned from: its id, the SHA-256 and the place of its file, its rows."""

    snapshot: str
    sha256: str
    source: str
    rows: int


def registration(
    run: Mapping[str, Any],
    snapshot: Mapping[str, Any],
    tuned: Mapping[str, Any],
    challenger: Mapping[str, Any],
    verdict: Mapping[str, Any],
    git_revision: str,
) -> dict[str, Any]:
    """Arguments of `Registry.register`, of the facts of a training: what the version is and where it comes from."""
    lineage = {
        "as_of": run["as_of"],
        "reason": run["reason"],
        "snapshot": snapshot["snapshot"],
        "snapshot_sha256": snapshot["sha256"],
        "sql_sha256": snapshot["sql_sha256"],
        "git_revision": git_revision,
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "verdict": verdict["key"],
        "rule": verdict["rule"],
        "report": verdict["page"],
    }
    return {
        "artifact": challenger["artifact"],
        "manifest_sha256": challenger["manifest_sha256"],
        "metrics": verdict["metrics"],
        "tags": lineage,
        "parameters": tuned["parameters"],
        "data": TrainingData(snapshot["snapshot"], snapshot["sha256"], snapshot["file"], snapshot["rows"]),
    }


class Registry(Protocol):
    def register(
        self,
        model: str,
        artifact: str,
        manifest_sha256: str,
        metrics: Mapping[str, float | None],
        tags: Mapping[str, str],
        parameters: Mapping[str, object] | None = None,
        data: TrainingData | None = None,
    ) -> ModelVersion:
        """The version with this manifest; made if there is none. However often and by how many it is called, there is one.

        Raises:
            RegistryUnavailable: nothing, or only part of it, was stored: call again.
        """
        ...

    def version(self, model: str, version: str) -> ModelVersion:
        """One version.

        Raises:
            UnknownVersion: if there is no such model or version.
            RegistryUnavailable: if the registry does not answer.
        """
        ...

    def alias(self, model: str, alias: Alias) -> ModelVersion | None:
        """The version an alias points at; None if the model or the alias is not there yet.

        Raises:
            RegistryUnavailable: if the registry does not answer.
        """
        ...

    def set_alias(self, model: str, alias: Alias, version: str) -> None:
        """Point an alias at a version. The last writer wins: who must not race takes the decision in the ledger first.

        Raises:
            UnknownVersion: if there is no such model or version; the alias then stays where it is.
            RegistryUnavailable: if the registry does not answer.
        """
        ...

    def record_approval(self, model: str, version: str, approved: bool, why: str) -> None:
        """Show beside a version what was said of it. The ledger decides; this is for people and tools that look here.

        Raises:
            UnknownVersion: if there is no such model or version.
            RegistryUnavailable: if the registry does not answer.
        """
        ...
