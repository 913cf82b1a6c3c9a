"""The three-way merge of one field against what both sides last agreed on (design 3.2).

Each side is compared with its own column of the ledger, so that a value which Kommo or Airtable
keeps rounded never looks like an edit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from typing import Final, Literal

from kommo_airtable_sync.core.canonical import is_blank, normalise, same
from kommo_airtable_sync.core.config import OnConflict, Owner
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.mapping import Mapping
from kommo_airtable_sync.core.types import Canonical

Agreed = tuple[Canonical, Canonical]
"""What was observed when both sides agreed: (Kommo's value, Airtable's value)."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An open intent: a write that may or may not have arrived.

    Args:
        side: it was sent to.
        before: what that side showed when the write was decided; while it still does, the write
            has not arrived. (Somebody who undoes an arrived write by hand looks just the same.)
        agreed: the pair that it was to bring about.
        overtaken: the ledger has moved on by a newer write, which this one may have followed.
    """

    side: Side
    before: Canonical
    agreed: Agreed
    overtaken: bool = False

    def target(self, pair: Agreed) -> Canonical:
        """Of a pair, the value of the side that it was sent to."""
        return pair[0] if self.side == "kommo" else pair[1]

    def origin(self, pair: Agreed) -> Canonical:
        """Of a pair, the value of the side that it came from."""
        return pair[1] if self.side == "kommo" else pair[0]


Times = tuple[datetime | None, datetime | None]
"""The latest human change in (Kommo, Airtable)."""

TIE_SECONDS = 2.0
"""Edits closer than this have no order: Kommo's times are whole seconds."""


class Absent(Enum):
    """Why there is no Airtable value to merge."""

    UNREAD = "unread"
    MISSING = "missing"


UNREAD: Final = Absent.UNREAD
"""The record was not read, since all its fields are Kommo's."""
MISSING: Final = Absent.MISSING
"""There is no record: it is about to be created."""

Rule = Literal[
    "directive",  # a person's choice
    "loop_broken",  # the two sides bounce it
    "in_step",  # equal on both sides
    "unchanged",  # as at the last agreement, on each side by its own column
    "kommo_changed",
    "airtable_changed",
    "kommo_owns",  # Airtable's edit is taken back, or both edited
    "airtable_owns",  # the mirror image
    "set_merged",
    "overwritten",  # we had replaced it unseen; now it is given back
    "conflict_kommo",
    "conflict_airtable",
    "conflict_newest",
    "conflict_tie",  # unknown or too close times: Kommo's value
    "conflict_held",
    "first_meeting",
    "first_meeting_kept",  # Kommo is blank and owns: Airtable's value stays
    "created",
    "recreated",
    "intent_open",  # unread, and an earlier write may or may not have arrived
]


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about one field.

    Args:
        write_airtable: send `airtable_value`; then, once acknowledged, the ledger moves.
        write_kommo: send `kommo_value`.
        agree: nothing to send; what was read on both sides is the new base (if it was read).
        held: nothing to send and nothing agreed: a person decides.
        rule: why, for the journal.
    """

    rule: Rule
    write_airtable: bool = False
    airtable_value: Canonical = None
    write_kommo: bool = False
    kommo_value: Canonical = None
    agree: bool = False
    held: bool = False


def needs_record(mapping: Mapping) -> bool:
    """Whether the merge needs Airtable's values: not while Kommo owns every field.

    Then Kommo's side of the ledger says what Airtable has; at the first meeting Kommo's values are
    written and its blanks are not, whatever the record holds.
    """
    return any(field.owner != "kommo" for field in mapping.fields)


def merge_field(
    *,
    owner: Owner,
    on_conflict: OnConflict,
    kommo: Canonical,
    airtable: Canonical | Absent,
    bases: Sequence[Agreed] = (),
    intents: Sequence[Sent] = (),
    kommo_at: datetime | None = None,
    airtable_at: datetime | None = None,
) -> Decision:
    """Merge one field.

    Args:
        owner: of the field mapping.
        on_conflict: of the field mapping.
        kommo: as read, in the terms of the Airtable field.
        airtable: as read, or `UNREAD` (only if Kommo owns the field), or `MISSING`.
        bases: the ledger's pair for this mapping and record; empty at a first meeting.
        intents: of this field, to either side, oldest first.
        kommo_at: the latest human change in Kommo, aware UTC, for ``newest``.
        airtable_at: the same in Airtable.

    Raises:
        ValueError: if the record was not read although Airtable has a say.
    """
    if airtable is UNREAD:
        return _unread(owner, kommo, bases, intents)
    if airtable is MISSING:
        return _create(owner, kommo, bases)
    if same(kommo, airtable):
        return Decision("in_step", agree=True)
    times = (kommo_at, airtable_at)
    sets = owner == "both" and (isinstance(kommo, frozenset) or isinstance(airtable, frozenset))
    base = (_base_of_sets if sets else _base)((kommo, airtable), bases, intents)
    if base is None:
        return _first_meeting(owner, on_conflict, kommo, airtable, times)
    return _against(base, owner, on_conflict, kommo, airtable, times)


def _base(now: Agreed, bases: Sequence[Agreed], intents: Sequence[Sent]) -> Agreed | None:
    """The agreement to compare with: a write's that arrived, else the ledger's.

    A side that shows neither what it had before a write nor what the write was to make of it has
    been edited since: then the write counts as arrived, so that the edit is one of that side
    alone. Before a first agreement that holds only while the other side stands by its value. An
    overtaken write is older than the ledger: it counts only while its own value stands there.
    """
    latest_first = intents[::-1]
    for sent in latest_first:
        if same(sent.target(now), sent.target(sent.agreed)):
            return sent.agreed
    for sent in latest_first:
        if sent.overtaken:
            continue
        stands = same(sent.origin(now), sent.origin(sent.agreed))
        if not same(sent.target(now), sent.before) and (bases or stands):
            return sent.agreed
    return bases[0] if bases else None


def _base_of_sets(now: Agreed, bases: Sequence[Agreed], intents: Sequence[Sent]) -> Agreed | None:
    """The same element by element: of a write that changed several, each counts for itself.

    So what a write took to one side is no edit there, and what the other side has still to get
    of the same merge is not taken for removed from it.
    """
    if not bases and all(same(sent.target(now), sent.before) for sent in intents):
        return None
    both_had = [as_set(sent.before) & as_set(sent.target(sent.agreed)) for sent in intents[:1]]
    base_kommo, base_airtable = map(as_set, bases[0] if bases else both_had * 2)
    for sent in intents:
        shown, before = as_set(sent.target(now)), as_set(sent.before)
        after = as_set(sent.target(sent.agreed))
        added, removed = (after - before) & shown, (before - after) - shown
        base_kommo = (base_kommo | added) - removed
        base_airtable = (base_airtable | added) - removed
    return base_kommo, base_airtable


def _against(
    base: Agreed,
    owner: Owner,
    on_conflict: OnConflict,
    kommo: Canonical,
    airtable: Canonical,
    times: Times,
) -> Decision:
    """The table of design 3.2, for two values that differ."""
    kommo_same, airtable_same = same(kommo, base[0]), same(airtable, base[1])
    if kommo_same and airtable_same:
        return Decision("unchanged", agree=True)
    if owner == "both":
        return _both(base, on_conflict, kommo, airtable, times)
    if owner == "kommo":
        return _to_airtable(kommo, "kommo_changed" if airtable_same else "kommo_owns")
    return _to_kommo(airtable, "airtable_changed" if kommo_same else "airtable_owns")


def _both(
    base: Agreed, on_conflict: OnConflict, kommo: Canonical, airtable: Canonical, times: Times
) -> Decision:
    kommo_same, airtable_same = same(kommo, base[0]), same(airtable, base[1])
    if isinstance(kommo, frozenset) or isinstance(airtable, frozenset):
        return _merge_sets(as_set(kommo), as_set(airtable), as_set(base[0]), as_set(base[1]))
    if not kommo_same and not airtable_same:
        return _conflict(on_conflict, kommo, airtable, times)
    if airtable_same:
        return _to_airtable(kommo, "kommo_changed")
    return _to_kommo(airtable, "airtable_changed")


def _merge_sets(
    kommo: frozenset[str],
    airtable: frozenset[str],
    base_kommo: frozenset[str],
    base_airtable: frozenset[str],
) -> Decision:
    """Each side gets what the other added and loses what the other removed."""
    to_kommo = (kommo | (airtable - base_airtable)) - (base_airtable - airtable)
    to_airtable = (airtable | (kommo - base_kommo)) - (base_kommo - kommo)
    return _to_each("set_merged", (kommo, to_kommo), (airtable, to_airtable))


def _first_meeting(
    owner: Owner, on_conflict: OnConflict, kommo: Canonical, airtable: Canonical, times: Times
) -> Decision:
    """A blank never overwrites a value; of two values the owner's wins.

    A side that owns the field alone is not written to by the other, but for one case: a blank
    Airtable cell starts with Kommo's value whoever owns it, as in a record that we create.
    """
    if is_blank(airtable):
        return _to_airtable(kommo, "first_meeting")
    if is_blank(kommo):
        if owner == "kommo":
            return Decision("first_meeting_kept", agree=True)
        return _to_kommo(airtable, "first_meeting")
    if owner == "both":
        decision = _conflict(on_conflict, kommo, airtable, times)
        return decision if decision.held else replace(decision, rule="first_meeting")
    if owner == "kommo":
        return _to_airtable(kommo, "first_meeting")
    return _to_kommo(airtable, "first_meeting")


def _conflict(
    on_conflict: OnConflict, kommo: Canonical, airtable: Canonical, times: Times
) -> Decision:
    match on_conflict:
        case "kommo":
            return _to_airtable(kommo, "conflict_kommo")
        case "airtable":
            return _to_kommo(airtable, "conflict_airtable")
        case "hold":
            return Decision("conflict_held", held=True)
        case "newest":
            return _newest(kommo, airtable, times)


def _newest(kommo: Canonical, airtable: Canonical, times: Times) -> Decision:
    kommo_at, airtable_at = times
    if kommo_at is None or airtable_at is None:
        return _to_airtable(kommo, "conflict_tie")
    lead_seconds = (kommo_at - airtable_at).total_seconds()
    if abs(lead_seconds) < TIE_SECONDS:
        return _to_airtable(kommo, "conflict_tie")
    if lead_seconds > 0:
        return _to_airtable(kommo, "conflict_newest")
    return _to_kommo(airtable, "conflict_newest")


def _unread(
    owner: Owner, kommo: Canonical, bases: Sequence[Agreed], intents: Sequence[Sent]
) -> Decision:
    """Airtable as the ledger has it, and where an open intent leaves doubt, Kommo's value again."""
    if owner != "kommo":
        message = f"a field owned by {owner} cannot be merged without its record"
        raise ValueError(message)
    doubtful = [sent.agreed for sent in intents if sent.side == "airtable"]
    if not bases and not doubtful:
        if is_blank(kommo):
            return Decision("first_meeting_kept", agree=True)
        return _to_airtable(kommo, "first_meeting")
    if bases and not same(kommo, bases[0][0]):
        return _to_airtable(kommo, "kommo_changed")
    if bases and all(same(kommo, pair[0]) for pair in (*bases, *doubtful)):
        return Decision("unchanged", agree=True)
    return _to_airtable(kommo, "intent_open")


def _create(owner: Owner, kommo: Canonical, bases: Sequence[Agreed]) -> Decision:
    """A new record starts with Kommo's values, or the ledger's if it was Airtable's to decide."""
    if owner == "airtable" and bases:
        kept = bases[0][1]
        wanted = kommo if same(kommo, bases[0][0]) else kept
        return _to_each("recreated", (kommo, wanted), (None, kept))
    if is_blank(kommo):
        return Decision("recreated" if bases else "created", agree=True)
    return _to_airtable(kommo, "recreated" if bases else "created")


def _to_airtable(value: Canonical, rule: Rule) -> Decision:
    return Decision(rule, write_airtable=True, airtable_value=value)


def _to_kommo(value: Canonical, rule: Rule) -> Decision:
    return Decision(rule, write_kommo=True, kommo_value=value)


def _to_each(
    rule: Rule, kommo: tuple[Canonical, Canonical], airtable: tuple[Canonical, Canonical]
) -> Decision:
    """Write to each side, given as (what it has, what it shall have), that has something else."""
    write_kommo, write_airtable = not same(*kommo), not same(*airtable)
    return Decision(
        rule,
        write_airtable=write_airtable,
        airtable_value=normalise(airtable[1]) if write_airtable else None,
        write_kommo=write_kommo,
        kommo_value=normalise(kommo[1]) if write_kommo else None,
        agree=not write_airtable and not write_kommo,
    )


def as_set(value: Canonical) -> frozenset[str]:
    """A set's elements; none of a blank."""
    return value if isinstance(value, frozenset) else frozenset[str]()
