"""What must be alike wherever it was made: rows, models, verdicts, profiles."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

from include import champions, ledger
from tests.dags.lakes import MODEL

CLOSE = 1e-9


def records(kind: str, model: str = MODEL) -> list[dict[str, Any]]:
    return [record.body for record in ledger.read(kind, model)]


def same(ours: list[Any], theirs: list[Any]) -> bool:
    """Rows alike, numbers nearly so."""
    return len(ours) == len(theirs) and all(
        abs(a - b) <= CLOSE if isinstance(a, float) and isinstance(b, float) else a == b
        for one, other in zip(ours, theirs, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def found_of_training(model: str = MODEL) -> dict[str, Any]:
    """What a training has led to."""
    champion, (verdict,) = champions.champion(model), records("verdict", model)
    assert champion is not None
    told = ("outcome", "rule", "metrics")
    return {"artifact": champion.artifact, "version": champion.version, **{name: verdict.get(name) for name in told}}


def unpacked_model(artifact: str) -> bytes:
    """The file of a trained model, in a folder."""
    return (Path(artifact) / "model.ubj").read_bytes()


def packed_model(archive: bytes) -> bytes:
    """The same, in an archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        (member,) = [member for member in files.getmembers() if member.name.endswith("model.ubj")]
        content = files.extractfile(member)
        assert content is not None
        return content.read()


def counts(profile: bytes) -> Any:
    """A profile without the state of what it was made of."""
    return rounded({name: value for name, value in json.loads(profile).items() if name != "state"})


def rounded(value: Any) -> Any:
    """Sums depend on the order of rows, in their last digits."""
    if isinstance(value, dict):
        return {name: rounded(each) for name, each in value.items()}
    if isinstance(value, list):
        return [rounded(each) for each in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value
