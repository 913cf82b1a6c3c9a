"""The backstop against writes that cause each other for ever (design 3.2).

The merge alone ends an echo: what we wrote comes back, equals the ledger, and nothing follows. A
loop needs a value that does not stand: a rounding that one side applies and the other takes back,
an Airtable automation that resets what we write, a second integration at work. Each turn of it
looks like a person's edit. What gives it away is its pace and its repetition, so a field is held
(reason ``loop``) when, within a minute,

* the same value has been written to the same side twice already: whatever takes it back will do so
  a third time; or
* the last three writes went to alternating sides, and this would be the fourth: ping-pong, whatever
  the values (a counter that goes up by one at each turn never repeats itself).

A person does neither. Who toggles a checkbox in Kommo four times writes true, false, true, false to
the one other side, each value twice; only a fifth time within the minute would be held. Edits
minutes apart, and edits of different fields, know nothing of each other. Two people who answer each
other's edits of one field on both sides within the minute are held at their fourth turn, which a
person may then decide. Directives are decisions already: callers do not ask for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

from kommo_airtable_sync.core.canonical import same
from kommo_airtable_sync.core.errors import Side
from kommo_airtable_sync.core.types import Canonical

LOOP_SECONDS = 60.0
SAME_WRITES_MAX = 2
ALTERNATIONS_MAX = 3


class Written(Protocol):
    """A confirmed write of one field (an acknowledged intent of the journal)."""

    @property
    def side(self) -> Side:
        """The side it went to."""
        ...

    @property
    def field(self) -> str:
        """The Airtable field id."""
        ...

    @property
    def after(self) -> Canonical:
        """What was written."""
        ...

    @property
    def closed_at(self) -> float | None:
        """When it was confirmed, seconds since the epoch."""
        ...


def continues_loop(
    recent: Sequence[Written], side: Side, field: str, value: Canonical, now: float
) -> bool:
    """Whether a write would be the next turn of a ping-pong.

    Args:
        recent: what was written to the same lead of late, oldest first, any field.
        side: the side that is to be written to.
        field: Airtable field id.
        value: what is to be written.
        now: seconds since the epoch.
    """
    turns = [
        write
        for write in recent
        if write.field == field
        and write.closed_at is not None
        and now - write.closed_at < LOOP_SECONDS
    ]
    repeats = sum(write.side == side and same(write.after, value) for write in turns)
    if repeats >= SAME_WRITES_MAX:
        return True
    sides = [*(write.side for write in turns[-ALTERNATIONS_MAX:]), side]
    alternates = all(a != b for a, b in pairwise(sides))
    return len(sides) > ALTERNATIONS_MAX and alternates
