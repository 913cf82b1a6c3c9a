"""Who wrote a value that stands, why, and which event made us look (design 3.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import Canonical

EDITED_ON: Final[dict[str, Side]] = {
    "kommo_changed": "kommo",
    "airtable_changed": "airtable",
    "kommo_owns": "airtable",
    "airtable_owns": "kommo",
    "conflict_kommo": "kommo",
    "conflict_airtable": "airtable",
    "conflict_tie": "kommo",
    "overwritten": "airtable",
}
"""The side on which somebody's edit led to a write by this rule."""
FROM_THE_OTHER: Final = frozenset({"set_merged", "conflict_newest"})
"""Rules by which a write to either side brings what somebody did on the other."""
TAKEN_BACK: Final = frozenset({"kommo_owns", "airtable_owns"})
"""Rules by which the edit is replaced by the other side's value."""

RULES: Final[dict[str, str]] = {
    "directive": "a person decided it",
    "loop_broken": "held, since the two sides kept replacing each other's value",
    "in_step": "both sides had it already",
    "unchanged": "nobody had changed it",
    "kommo_changed": "it was changed in Kommo",
    "airtable_changed": "it was changed in Airtable",
    "kommo_owns": "Kommo decides this field: what Airtable had was replaced",
    "airtable_owns": "Airtable decides this field: what Kommo had was replaced",
    "set_merged": "what the other side had added or removed",
    "overwritten": "an edit that we had overwritten unseen, given back",
    "conflict_kommo": "both sides had changed it, and Kommo wins (on_conflict)",
    "conflict_airtable": "both sides had changed it, and Airtable wins (on_conflict)",
    "conflict_newest": "both sides had changed it, and this edit was the later one",
    "conflict_tie": "both sides had changed it at about the same time: Kommo's value",
    "conflict_held": "held, since both sides had changed it",
    "first_meeting": "deal and record met for the first time, or by a new mapping",
    "first_meeting_kept": "at the first meeting Kommo was empty, which replaces nothing",
    "created": "the record was made from the deal",
    "recreated": "the record was made again",
    "intent_open": "an earlier write may not have arrived, so it was sent again",
    "status": "what the sync says of the record",
    "excluded": "the deal is not to be synced any more",
    "deleted": "the deal was deleted in Kommo",
}
"""Every rule that the journal names, for people."""
DECISIONS: Final[dict[str, str]] = {
    "undo": "a person took earlier changes back",
    "resolve": "a person decided a held field",
    "sync": "Kommo refused what a person had decided, so Airtable got its value again",
}
"""The same for a directive, by the source of its event."""


class Told(Protocol):
    """An event, as far as `told_by` looks at it."""

    @property
    def source(self) -> str:
        """Who told us."""
        ...


Event = TypeVar("Event", bound=Told)


@dataclass(frozen=True, slots=True)
class CauseEvent:
    """The event that a write followed.

    Args:
        source: ``kommo``, ``airtable``, ``undo``, ``resolve``...
        occurred_at: seconds since the epoch, as the payload stated it; None if it did not.
        received_at: seconds since the epoch.
        actor: of a directive, the person.
    """

    id: int
    source: str
    kind: str
    occurred_at: float | None
    received_at: float
    actor: str | None = None


@dataclass(frozen=True, slots=True)
class JournalRow:
    """One field that was written, or was about to be.

    Args:
        run_id: the Dagster run.
        field: Airtable field id.
        state: ``open``, ``done``, ``refused``, ``superseded``.
        at: acknowledged, or if it was not, opened; seconds since the epoch.
        event_id: None: no event of its own (a contact that its lead needed).
        event: None if it has been pruned.
    """

    id: int
    batch_id: int
    run_id: str
    key: str
    record_id: str | None
    side: Side
    operation: str
    field: str
    field_name: str
    before: Canonical
    after: Canonical
    rule: str
    state: str
    at: float
    event_id: int | None = None
    event: CauseEvent | None = None


def told_by(rule: str, side: Side, events: Sequence[Event]) -> Event | None:
    """The event behind a write: the latest from the side whose edit led to it, else the latest.

    Args:
        rule: of the merge.
        side: that is written to.
        events: of the key, oldest first.
    """
    origin = _origin(rule, side)
    chosen = [event for event in events if event.source == origin] or list(events)
    return chosen[-1] if chosen else None


def cause_of(
    rows: Iterable[JournalRow],
    side: Side,
    field: str,
    value: Canonical,
    kept: Callable[[Canonical], Canonical] = lambda value: value,
) -> JournalRow | None:
    """The one write that put there what a side shows of a field; None: somebody else did.

    A write that nobody acknowledged counts if its value stands: its answer was lost.

    Args:
        rows: of the key's journal, oldest first.
        side: that shows the value.
        field: Airtable field id.
        value: what it shows.
        kept: what the side makes of a value that it is sent (Kommo shows 0 for no price).
    """
    found: JournalRow | None = None
    for row in rows:
        if row.field != field or row.operation == "note":
            continue
        if row.side == side:
            stands = same(row.after, value) or same(kept(row.after), value)
            if row.state == "done" or (row.state == "superseded" and stands):
                found = row if stands else None
        elif found is not None and row.state == "done" and row.batch_id != found.batch_id:
            # Somebody has edited our value since, even if it is the same again by now.
            edited = _origin(row.rule, row.side) == side and row.rule not in TAKEN_BACK
            found = None if edited else found
    return found


def why(row: JournalRow) -> str:
    """The rule of a write in plain words, and for a decision, whose it was."""
    if row.rule != "directive" or row.event is None:
        return RULES.get(row.rule, row.rule)
    said = DECISIONS.get(row.event.source, RULES["directive"])
    return f"{said} ({row.event.actor})" if row.event.actor else said


def _origin(rule: str, side: Side) -> Side | None:
    if rule in FROM_THE_OTHER:
        return "kommo" if side == "airtable" else "airtable"
    return EDITED_ON.get(rule)
