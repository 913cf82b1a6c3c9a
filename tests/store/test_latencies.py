"""The latency histogram of a stretch of time."""

from __future__ import annotations

from kommo_airtable_sync.core.types import BULK, LIVE, IncomingEvent, Priority
from kommo_airtable_sync.store.database import Database
from kommo_airtable_sync.store.inbox import Inbox
from kommo_airtable_sync.store.latencies import latency_histogram
from kommo_airtable_sync.store.settling import Outcome
from tests.conftest import HandClock


def settle_after(inbox: Inbox, clock: HandClock, seconds: float, lane: Priority = LIVE) -> None:
    inbox.receive([IncomingEvent("lead:1", "kommo", "update", priority=lane)])
    clock.advance(seconds)
    claim = inbox.claim(lane, 1, "run", 60.0)
    assert claim is not None
    inbox.settle(claim.batch_id, {"lead:1": Outcome("done", "updated")}, 8)


def test_live_events_are_counted_by_how_long_they_took(
    database: Database, clock: HandClock
) -> None:
    inbox = Inbox(database)
    assert latency_histogram(database, 0.0) == []
    settle_after(inbox, clock, 7.0)  # too long ago
    clock.advance(100)
    since = clock.now().timestamp()
    for seconds in (0.4, 0.4, 1.2, 400.0):
        settle_after(inbox, clock, seconds)
    settle_after(inbox, clock, 0.1, BULK)
    found = latency_histogram(database, since)
    assert found[0] == ("0.5 s", 2)
    assert found[-1] == ("longer", 1)
    assert dict(found)["1.5 s"] == 1
    assert dict(found)["10 s"] == 0
