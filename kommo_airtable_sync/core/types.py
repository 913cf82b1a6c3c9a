"""The nouns of the sync: keys, events, leads' writes. Plain, frozen, no behaviour to speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal

# A value after both APIs' spellings are taken off. None is the one "empty": "", [] and absent
# cells become None; 0 and False do not. Datetimes are aware UTC, sets hold tag or option names.
Canonical = str | bool | Decimal | date | datetime | frozenset[str] | None

Priority = Literal[0, 10]
LIVE: Priority = 0
BULK: Priority = 10

Json = Any

EntityKind = Literal["leads", "contacts", "companies"]
"""What Kommo keeps, as its addresses spell it."""
LinkName = Literal["main_contact", "company"]
LinkKind = Literal["contact", "company"]
"""What a lead can be linked to: as ``sync.yaml`` names it, as the keys do (``contact:7``)."""
LINK_KINDS: dict[LinkName, LinkKind] = {"main_contact": "contact", "company": "company"}
ENTITIES: dict[LinkKind, EntityKind] = {"contact": "contacts", "company": "companies"}


FRESH_SOURCES = frozenset({"reconcile", "backfill", "apply", "undo"})
"""Events of these compare both sides as they are now, whatever the ledger supposes."""


@dataclass(frozen=True, slots=True)
class IncomingEvent:
    """What somebody told us: "the thing behind this key may have changed".

    Args:
        key: ``lead:ID``, ``contact:ID``, ``company:ID``; ``record:REC``, an Airtable record whose
            lead is not known; ``webhook:ACH``, an Airtable webhook with payloads to be pulled.
        source: ``kommo``, ``airtable``, ``reconcile``, ``backfill``, ``resolve``...
        kind: the action, e.g. ``add``, ``update``, ``status``, ``delete``, ``note``.
        occurred_at: aware UTC, whole seconds, as the payload states it; None if it does not.
        payload: the part of the body about this entity, kept for audit; of Airtable's, times and
            values also help to find out what was overwritten.
        state: ``pending`` = to be acted on; ``ignored`` = recorded, nothing acts on it (contacts
            while no links are mapped); ``quarantined`` = authenticated but unreadable, kept whole
            in ``payload`` with its ``error`` (its key is ``""``).
        always_read: never skipped as stale (delete, restore, Digital Pipeline; reference 6.5).
        dedupe_key: an event whose key has come before is left out.
        directive: what a person decided (design 3.1), for the merge.
    """

    key: str
    source: str
    kind: str
    occurred_at: datetime | None = None
    payload: Mapping[str, Json] | None = None
    priority: Priority = LIVE
    state: Literal["pending", "ignored", "quarantined"] = "pending"
    always_read: bool = False
    dedupe_key: str | None = None
    directive: Mapping[str, Json] | None = None


def lead_key(lead_id: int) -> str:
    """The inbox key of a Kommo lead."""
    return f"lead:{lead_id}"


def key_id(key: str) -> int:
    """The number in ``lead:123``, ``contact:123`` or ``company:123``.

    Raises:
        ValueError: for a ``record:`` key, which holds no number.
    """
    return int(key.partition(":")[2])


def key_kind(key: str) -> str:
    """``lead``, ``contact``, ``company``, ``record`` or ``webhook``."""
    return key.partition(":")[0]
