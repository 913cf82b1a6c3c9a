"""Many leads at once: no duplicates, few calls, no 429 of our own making."""

from __future__ import annotations

import pytest

from kommo_airtable_sync.core.types import BULK, IncomingEvent, lead_key
from tests.simulated import World

pytestmark = pytest.mark.parametrize("sql_engine", ["sqlite"])
LEADS = 2_000


def test_a_burst_of_two_thousand_leads_costs_few_calls_and_no_429(world: World):
    world.kommo.settings.hooks_per_post = 50
    lead_ids = world.add_leads([{"name": f"Deal {n}", "price": n} for n in range(LEADS)])
    while world.deliver_hooks():
        pass
    world.work()  # reads the schemas, too
    calls = world.calls("kommo", route="/leads") + world.calls("airtable", method="PATCH")
    assert calls <= 0.15 * LEADS
    assert world.throttled() == 0
    assert sorted(world.by_lead()) == sorted(lead_ids)
    assert len(world.records()) == LEADS
    assert not world.events("pending", "claimed", "dead")


def test_live_work_goes_on_while_a_load_waits(world: World):
    lead_ids = world.add_leads([{"name": f"Deal {n}"} for n in range(30)])
    world.inbox.receive(
        [IncomingEvent(lead_key(lead_id), "load", "load", priority=BULK) for lead_id in lead_ids]
    )
    world.take_hooks()
    live_id = world.add_lead(name="Live")
    world.sync()
    assert list(world.by_lead()) == [live_id]
    assert len(world.events("pending")) == 30
