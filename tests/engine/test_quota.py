"""Airtable's monthly quota: bulk gives way to live events, and loses nothing by it."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.core.types import BULK
from kommo_airtable_sync.engine.claim import claim_batch
from kommo_airtable_sync.store import limiter
from kommo_airtable_sync.store.database import Database
from tests.conftest import HandClock
from tests.simulated import KOMMO_OWNED, World

sqlite_only = pytest.mark.parametrize("sql_engine", ["sqlite"], indirect=True)


def spend(world: World, calls: int) -> None:
    """Live calls that the month has seen already."""
    for _ in range(calls - limiter.month_so_far(world.limiter, world.quota).used):
        with world.engine.airtable_budget.slot():
            pass


@sqlite_only
def test_past_the_quotas_share_bulk_waits_unblamed_and_live_goes_on(
    database: Database, clock: HandClock
) -> None:
    world = World(database, clock, parts=KOMMO_OWNED, monthly_calls=400)
    early, late, now = world.add_leads([{"name": name} for name in ("Early", "Late", "Now")])
    world.take_hooks()
    bulk = world.new_engine(BULK)
    world.hint(early, BULK)
    spend(world, 379)
    # The batch may begin with the 380th call (the schema), and meets the 95 % before it has written.
    clock.advance(86_400 * 3)
    (report,) = world.work(bulk, "bulk")[:1]
    assert "reserved" in str(report.outage)
    assert world.engine.runners.pauses() == {}
    assert world.journal_rows("open") == []
    assert world.records() == []
    assert claim_batch(bulk, "bulk") is None
    world.hint(late, BULK)
    world.hint(now)
    world.work()
    assert list(world.by_lead()) == [now]
    clock.advance(86_400 * 31)
    world.work(bulk, "bulk")
    world.assert_in_step([early, late, now])
    assert {event.attempts for event in world.events()} == {0}
    world.close()
