"""How things are, in one sentence for somebody who never opens Dagster. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kommo_airtable_sync.core.alerts import OVERDUE_SECONDS_MAX, paused_sentence

Tone = Literal["good", "waits", "bad"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What the sentence is made of.

    Args:
        conflicts: fields whose two values wait for a person.
        dead: events that failed for good.
        holds: events that the brake, or missing evidence, holds.
        quarantined: bodies that nobody could read.
        pauses: side -> reason.
        oldest_seconds: age of the oldest change not settled; None if there is none.
        last_change_seconds: since the last change was settled; None if there was none.
        is_loaded: whether the leads were ever loaded.
    """

    conflicts: int = 0
    dead: int = 0
    holds: int = 0
    quarantined: int = 0
    pauses: Mapping[str, str] = field(default_factory=dict[str, str])
    oldest_seconds: float | None = None
    last_change_seconds: float | None = None
    is_loaded: bool = True


def headline(facts: Facts) -> tuple[Tone, str]:
    """The gravest thing first: what stands still, then what waits for a person, then the rest."""
    if facts.pauses:
        return "bad", " ".join(
            f"{side.capitalize()} is paused. {paused_sentence(reason)}"
            for side, reason in sorted(facts.pauses.items())
        ) + " Changes wait, none is lost."
    if (facts.oldest_seconds or 0.0) > OVERDUE_SECONDS_MAX:
        return "bad", (
            f"A change has been waiting for {ago(facts.oldest_seconds or 0.0)}. Do all parts run? "
            "Whoever looks after the machine finds out with: kommo-airtable-sync status"
        )
    waiting = [
        f"{count} {one if count == 1 else many}"
        for count, one, many in (
            (facts.conflicts, "conflict", "conflicts"),
            (facts.dead, "failed change", "failed changes"),
            (facts.holds, "held change", "held changes"),
            (facts.quarantined, "unreadable message", "unreadable messages"),
        )
        if count
    ]
    if waiting:
        verb = "waits" if waiting[0].startswith("1 ") and len(waiting) == 1 else "wait"
        return "waits", f"Both sides are being kept in step; {_listed(waiting)} {verb} for you."
    if not facts.is_loaded:
        return (
            "waits",
            "Changes are taken, but nothing was loaded yet: kommo-airtable-sync reconcile",
        )
    if facts.last_change_seconds is None:
        return "good", "All is well. No change has come yet."
    return "good", f"All is well. The last change was {ago(facts.last_change_seconds)} ago."


def ago(seconds: float) -> str:
    """A length of time as people say it.

    >>> ago(4.2), ago(200), ago(10_000), ago(200_000)
    ('4 s', '3 min', '2 h', '2 days')
    """
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600:.0f} h"
    return f"{seconds // 86_400:.0f} days"


def _listed(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
