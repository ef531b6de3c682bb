"""Who is champion, and who was: a chain of records in the ledger, numbered from 1, that nobody can fork.

A change of champion is the record with the next number. Only one writer can make it, so of two runs that want to promote
against the same champion one loses, and is told. The registry's aliases follow the chain: they show people and other
tools what it says, and nothing here reads them back. (docs/adr/0006-the-ledger-decides-who-is-champion.md)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Literal

from include import ledger, partitions
from include.registry import registry
from include.registry.base import ModelVersion

KIND = "promotion"
Action = Literal["promote", "roll_back"]


class ChampionChanged(RuntimeError):
    """Another version became champion since the challenger was compared: what was shown is not shown against this one."""


class NothingToRollBackTo(ValueError):
    """There is no version to go back to, or none of that number was ever champion."""


@dataclass(frozen=True)
class Change:
    """One link of the chain: `version` became champion in the place of `previous` (None: of nobody).

    `as_of` is the day up to which the version had learned what was known; `at` when the change was recorded (UTC).
    `body` is the whole record, with who asked for it and why.
    """

    number: int
    action: Action
    version: ModelVersion
    previous: str | None
    as_of: date
    at: datetime
    body: dict[str, Any]


def history(model: str) -> list[Change]:
    """All changes of champion, the first one first."""
    return sorted((_change(record) for record in ledger.read(KIND, model)), key=lambda change: change.number)


def champion(model: str) -> ModelVersion | None:
    """The version that scores today; None before the first promotion. Needs the ledger only, so a registry may be down."""
    changes = history(model)
    return changes[-1].version if changes else None


def champion_at(model: str, moment: datetime) -> Change | None:
    """The change that made the champion of a moment (with time zone)."""
    return next((change for change in reversed(history(model)) if change.at <= moment), None)


def champion_as_of(model: str, day: date) -> ModelVersion | None:
    """The champion that a run of that day could have used: the last promotion whose training is as of that day or before.

    By the day the training was about, not by the clock: a backfill of last month then scores with last month's model.
    A version that was rolled back is passed over, unless it was promoted again: nobody wants it for another month.
    """
    changes = history(model)
    withdrawn = _withdrawn(changes)
    usable = [c for c in changes if c.action == "promote" and c.as_of <= day and c.version.version not in withdrawn]
    return usable[-1].version if usable else None


def promotion_of(model: str, version: str) -> Change | None:
    """The change that first made a version champion; None if it never was."""
    return next((c for c in history(model) if c.action == "promote" and c.version.version == version), None)


def promote(model: str, version: ModelVersion, as_of: date, expected: int, workspace: str, facts: Mapping[str, Any]) -> Change:
    """Make a version champion, provided that the last change is still number `expected` (0: there was none).

    `workspace` names the run: a second call for the same version by the same run finds what the first did.

    Raises:
        ChampionChanged: if another change came first. Compare again, with the champion of now.
    """
    return _append(model, "promote", version, as_of, expected, workspace, facts)


def roll_back(
    model: str,
    to: str | None,
    workspace: str,
    facts: Mapping[str, Any],
    check: Callable[[ModelVersion], object] = lambda version: None,
) -> Change:
    """Make a former champion champion again: the given version, or the last one before today's that was not rolled back.

    One atomic act: the record. `workspace` names the run, as for `promote`: done twice it is done once. `check` is shown
    the version before, and may refuse it by raising: the champion then stays.

    Raises:
        NothingToRollBackTo: if there is no such version, or it is champion already.
        ChampionChanged: if another change came at the same moment. Look again.
    """
    changes = history(model)
    done = next((c for c in changes if c.action == "roll_back" and c.body["workspace"] == workspace), None)
    if done:
        mirror(model)
        return done
    target = _former(model, changes, to)
    check(target.version)
    return _append(model, "roll_back", target.version, target.as_of, changes[-1].number, workspace, facts)


def mirror(model: str) -> None:
    """Let the registry's aliases say what the chain says. Harmless at any time, by any number of processes."""
    changes = history(model)
    while changes:
        models = registry()
        last = changes[-1]
        if last.previous is not None:
            models.set_alias(model, "previous", last.previous)
        models.record_approval(model, last.version.version, True, f"champion, by change {last.number}")
        models.set_alias(model, "champion", last.version.version)
        # Somebody may have gone on meanwhile, and have been overwritten: whoever writes last must have looked last.
        changes = history(model)
        if changes[-1].number == last.number:
            return


def _append(
    model: str,
    action: Action,
    version: ModelVersion,
    as_of: date,
    expected: int,
    workspace: str,
    facts: Mapping[str, Any],
) -> Change:
    changes = history(model)
    own = next((c for c in changes if c.body["workspace"] == workspace and c.version.version == version.version), None)
    if own is None:
        last = changes[-1] if changes else None
        body = {
            **facts,
            "number": expected + 1,
            "action": action,
            **asdict(version),
            "previous": last.version.version if last else None,
            "as_of": as_of.isoformat(),
            "workspace": workspace,
        }
        if (last.number if last else 0) != expected or not ledger.append(KIND, model, f"{expected + 1:06d}", body):
            now = history(model)[-1]
            raise ChampionChanged(
                f"{model}: version {now.version.version} became champion (change {now.number}) after change {expected}, which "
                f"version {version.version} was compared with: compare again"
            )
        own = next(change for change in history(model) if change.number == expected + 1)
    mirror(model)
    return own


def _former(model: str, changes: list[Change], to: str | None) -> Change:
    if not changes:
        raise NothingToRollBackTo(f"{model} has no champion yet: there is nothing to roll back")
    now, withdrawn = changes[-1].version.version, _withdrawn(changes)
    found = (
        [c for c in reversed(changes) if c.version.version == to]
        if to
        else [c for c in reversed(changes) if c.version.version != now and c.version.version not in withdrawn]
    )
    if to == now:
        raise NothingToRollBackTo(f"{model}: version {to} is champion already")
    if not found:
        known = sorted({c.version.version for c in changes} - {now}, key=int)
        which = f"version {to} was never champion" if to else "no version before it is left that was not rolled back"
        raise NothingToRollBackTo(
            f"{model}: champion is {now}, and {which}; former champions: {', '.join(known) or 'none'}. "
            "Name one of these, or train"
        )
    return found[0]


def _withdrawn(changes: list[Change]) -> set[str]:
    """Versions that were rolled back and not made champion again since."""
    withdrawn: set[str] = set()
    for change in changes:
        if change.action == "roll_back" and change.previous is not None:
            withdrawn.add(change.previous)
        withdrawn.discard(change.version.version)
    return withdrawn


def _change(record: ledger.Record) -> Change:
    body = record.body
    try:
        version = ModelVersion(**{name: body[name] for name in ("model", "version", "artifact", "manifest_sha256", "metrics")})
        return Change(
            number=body["number"],
            action=body["action"],
            version=version,
            previous=body["previous"],
            as_of=partitions.parse(body["as_of"]),
            at=datetime.fromisoformat(record.at),
            body=body,
        )
    except KeyError as error:
        raise ledger.InvalidRecord(f"{KIND}/{record.model}/{record.key}: has no {error}: restore it from a backup") from None
