"""Take keys under a batch's token, with every event of theirs that is not settled yet."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from kommo_airtable_sync.core.types import Json, Priority
from kommo_airtable_sync.store.database import Connection
from kommo_airtable_sync.store.leases import UNSETTLED
from kommo_airtable_sync.store.schema import batches, due, events


@dataclass(frozen=True, slots=True)
class ClaimedEvent:
    """An event as captured by a claim.

    Args:
        directive: what a person decided, if this is not just a hint.
        payload: of Airtable's events; Kommo's are kept for audit only.
    """

    id: int
    key: str
    source: str
    kind: str
    occurred_at: float | None
    received_at: float
    always_read: bool
    attempts: int
    directive: Mapping[str, Json] | None = None
    payload: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """Keys that this batch alone may act on, with every unsettled event of each (perhaps none)."""

    batch_id: int
    lane: Priority
    events: Mapping[str, Sequence[ClaimedEvent]]

    @property
    def keys(self) -> list[str]:
        """The claimed keys, oldest due first."""
        return list(self.events)


def take(
    connection: Connection,
    picked: sa.Select[Any],
    lane: Priority,
    run_id: str,
    now: float,
    lease_seconds: float,
) -> Claim | None:
    """Lock the picked keys, skipping those that another transaction has, and lease them."""
    keys = connection.execute(picked.with_for_update(skip_locked=True)).scalars().all()
    if not keys:
        return None
    created = connection.execute(
        sa.insert(batches).values(run_id=run_id, lane=lane, claimed_at=now).returning(batches.c.id)
    )
    batch_id = int(created.scalar_one())
    taken = lease(connection, keys, batch_id, run_id, now + lease_seconds)
    return Claim(batch_id, lane, taken)


def lease(
    connection: Connection, keys: Sequence[str], batch_id: int, run_id: str, until: float
) -> dict[str, list[ClaimedEvent]]:
    """Put keys whose rows are locked under the batch's token; their events, oldest first."""
    connection.execute(
        sa.update(due).where(due.c.key.in_(keys)).values(token=batch_id, lease_until=until)
    )
    rows = connection.execute(
        sa.update(events)
        .where(events.c.key.in_(keys), events.c.state.in_(UNSETTLED))
        .values(state="claimed", batch_id=batch_id, run_id=run_id)
        .returning(
            events.c.id,
            events.c.key,
            events.c.source,
            events.c.kind,
            events.c.occurred_at,
            events.c.received_at,
            events.c.always_read,
            events.c.attempts,
            events.c.directive,
            sa.case((events.c.source == "airtable", events.c.payload)).label("payload"),
        )
    ).all()
    by_key: dict[str, list[ClaimedEvent]] = {key: [] for key in keys}
    for row in sorted(rows, key=lambda row: row.id):
        by_key[row.key].append(_claimed(row))
    return by_key


def _claimed(row: Any) -> ClaimedEvent:
    plain: dict[str, Any] = row._asdict()
    for name in ("directive", "payload"):
        plain[name] = None if plain[name] is None else json.loads(plain[name])
    return ClaimedEvent(**plain)
