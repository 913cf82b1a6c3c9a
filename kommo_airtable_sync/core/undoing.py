"""What of the journal can be taken back, and to which value; what is left, and why (design 3.9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.explaining import JournalRow, why
from kommo_airtable_sync.core.merge import Agreed
from kommo_airtable_sync.core.types import Canonical, key_kind

Place = tuple[str, str]
"""A key and an Airtable field id."""

CREATED = (
    "the record was created: undo does not delete. Delete the deal in Kommo, or the record in "
    "Airtable, if it should not be there"
)
DELETED = (
    "the record was deleted: undo does not bring it back. Restore it from the trash in Airtable, "
    "or the deal in Kommo"
)
CLIENT = "contacts and companies follow Kommo: change it there"
OPEN = "it is just being written: look again in a minute"
FORGOTTEN = "the sync does not keep this field in step any more"
EDITED = "edited since"


@dataclass(frozen=True, slots=True)
class Revert:
    """A field that goes back.

    Args:
        kommo: what Kommo shows, as far as the ledger knows.
        airtable: what Airtable shows.
        value: what both shall show.
    """

    key: str
    field: str
    field_name: str
    kommo: Canonical
    airtable: Canonical
    value: Canonical


@dataclass(frozen=True, slots=True)
class Left:
    """What stays as it is.

    Args:
        field_name: empty for the record as a whole.
    """

    key: str
    field_name: str
    reason: str


@dataclass(frozen=True, slots=True)
class UndoPlan:
    """What goes back and what is left."""

    reverts: tuple[Revert, ...]
    left: tuple[Left, ...]


def plan_undo(
    selected: Sequence[JournalRow],
    others: Iterable[JournalRow],
    agreed: Mapping[Place, Agreed],
    obstacle: Callable[[Revert], str | None],
) -> UndoPlan:
    """Take the net change of each field back, unless somebody has changed it since.

    The first write of a field in the selection knows what stood before, on the side that it went
    to: both sides get that. What ended as it began is passed over.

    Args:
        selected: what shall be taken back, oldest first.
        others: further rows of the same keys, not older than the oldest that was selected.
        agreed: the ledger's (Kommo's value, Airtable's value).
        obstacle: why a field cannot go back, if it cannot.
    """
    whole, fields = _sort_out(selected)
    later = _by_place(others)
    reverts: list[Revert] = []
    left = list(whole)
    for place, rows in fields.items():
        revert = _revert(rows, later.get(place, ()), agreed.get(place))
        if isinstance(revert, Revert):
            reason = obstacle(revert)
            if reason is None:
                reverts.append(revert)
            else:
                left.append(Left(revert.key, revert.field_name, reason))
        elif revert is not None:
            left.append(revert)
    return UndoPlan(tuple(reverts), tuple(left))


def _sort_out(selected: Sequence[JournalRow]) -> tuple[list[Left], dict[Place, list[JournalRow]]]:
    """What concerns whole records, and the updates by field."""
    left: dict[tuple[str, str], Left] = {}
    fields: dict[Place, list[JournalRow]] = {}
    for row in selected:
        reason = None
        if row.operation == "note" or row.rule == "status":
            continue
        if key_kind(row.key) != "lead":
            reason = CLIENT
        elif row.operation != "update":
            reason = CREATED if row.operation == "create" else DELETED
        if reason is not None:
            left[row.key, reason] = Left(row.key, "", reason)
        else:
            fields.setdefault((row.key, row.field), []).append(row)
    return list(left.values()), fields


def _by_place(rows: Iterable[JournalRow]) -> dict[Place, list[JournalRow]]:
    found: dict[Place, list[JournalRow]] = {}
    for row in rows:
        if row.operation != "note" and row.state in ("open", "done"):
            found.setdefault((row.key, row.field), []).append(row)
    return found


def _revert(
    rows: Sequence[JournalRow], others: Sequence[JournalRow], pair: Agreed | None
) -> Revert | Left | None:
    """What is to be done about one field; None if nothing has changed on balance."""
    first, last = rows[0], rows[-1]

    def leave(reason: str) -> Left:
        return Left(last.key, last.field_name, reason)

    if any(row.state == "open" for row in (*rows, *others)):
        return leave(OPEN)
    newer = [row for row in others if row.id > first.id]
    if newer:
        return leave(f"{EDITED}: {why(newer[-1])}")
    if pair is None:
        return leave(FORGOTTEN)
    value = first.before
    if same(value, pair[0]) and same(value, pair[1]):
        return None
    # Either column: Kommo may keep in its own way what it was sent.
    if not same(last.after, pair[0]) and not same(last.after, pair[1]):
        return leave(f"{EDITED}, to the same value on both sides")
    return Revert(last.key, last.field, last.field_name, pair[0], pair[1], value)
